"""lab/measures.py against scikit-learn, brute force, explicit shuffles, and numbers made by hand.

Training and test inputs are apart in each measure: they differ in scale and correlations, so that
any other pairing of them gives other numbers.
"""

from itertools import permutations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

import helpers as h
from lab import measures

D, K = 6, 5


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TRAIN, TEST = normal(300, D), 0.7 * normal(200, D, seed=1) @ normal(D, D, seed=2) + 0.4
Y_TRAIN, Y_TEST = (TRAIN[:, :3].argmax(1), TEST[:, :3].argmax(1))
MODEL, SAE = h.Encoder(D, K, mean=torch.ones(D), seed=1), h.SparseAutoencoder(D, K, seed=1)
SAE.V.data += 0.1 * normal(K, D, seed=3)
SAE.c.data += 0.1
both = pytest.mark.parametrize("model", [MODEL, SAE], ids=["encoder", "SAE"])


def codes(model, *inputs):
    """The activations of a model, as arrays."""
    return [model.encode(x).detach().numpy() for x in inputs]


def explained(x_hat, x=TEST):
    """1 - FVU."""
    x = x.numpy()
    return 1 - np.square(x - x_hat).sum() / np.square(x - x.mean(0)).sum()


# --- How well a model is decoded ----------------------------------------------------------------


@both
def test_decoders_are_fitted_on_the_first_training_rows_and_judged_on_test_inputs(
    model, monkeypatch
):
    """And of what the paper compares, one in its table."""
    monkeypatch.setattr(measures, "FITTED", 250)
    x, x_test, V = TRAIN[:250].numpy(), TEST.numpy(), model.decoder.detach().numpy()
    A, A_test = codes(model, TRAIN[:250], TEST)
    step = (A - A.mean(0)) @ V
    gain = (step * (x - x.mean(0))).sum() / np.square(step).sum()
    x_hat = x.mean(0) + gain * (A_test - A.mean(0)) @ V
    best = explained(LinearRegression().fit(A, x).predict(A_test))
    active = {"l0": pytest.approx((A_test > 0).sum(1).mean()), "dead": 0}
    assert measures.decoded(model, TRAIN, TEST) == active | {
        "own": pytest.approx(explained(x_hat), abs=1e-5),
        "best": pytest.approx(best, abs=1e-5),
    }
    lengths = np.linalg.norm(x_test, axis=1) / np.linalg.norm(A_test @ V, axis=1)
    matched = np.square(lengths[:, None] * (A_test @ V) - x_test).mean()
    A, A_test = (torch.from_numpy(part) for part in codes(model, TRAIN, TEST))
    table = measures.paper_benchmark({"a": model}, TRAIN, Y_TRAIN, TEST, Y_TEST)
    assert table.to_dict("records") == [
        active
        | {
            "method": "a",
            "seed": 1,
            "parameters": {MODEL: K * D + K, SAE: 2 * K * D + K + D}[model],
            "classifier": measures.accuracy(A, Y_TRAIN, A_test, Y_TEST),
            "norm-matched": pytest.approx(matched, rel=1e-5),
            "explained": pytest.approx(explained(x_hat), abs=1e-5),
            **measures.of_units(model, TRAIN, TEST, Y_TEST),
        }
    ]


def test_cosines_of_encoder_and_decoder_are_of_living_units_and_entries_that_vary():
    x, one = TRAIN.clone(), h.SparseAutoencoder(D, K, seed=1)
    x[:, 0] *= 1e-3
    one.V.data[:, 1:], one.b.data[3] = one.W.data[:, 1:], -100
    one.V.data[0, 1:] *= -2
    one.V.data[3, 1:] += 1  # of a dead unit
    found = measures.of_units(one, x, TEST, Y_TEST)
    assert found["cosine"] == pytest.approx((K - 3) / (K - 1))
    assert found["purity"] == measures.purity(one.encode(TEST).detach(), Y_TEST)


def test_a_mean_is_matched_to_the_norm_of_each_input():
    x, x_test = torch.tensor([[3.0, 3], [3, 5]]), torch.tensor([[5.0, 0], [0, 10]])
    expected = np.mean([2**2, 4**2, 6**2, 2**2])  # (3, 4) and (6, 8)
    assert measures.norm_matched_mean(x, x_test) == pytest.approx(expected, rel=1e-5)


def test_a_model_that_is_cut_by_hand():
    """Of training activations 3, 1, 2, 4 the two above 2 are kept, which is half a unit per input;
    the gain is covariance over variance of [3, 0, 0, 0] with [3, 1, 0, 0], and of [0, 0, 0, 4]."""
    model, v = h.SparseAutoencoder(2, 2), 0.5
    model.W.data, model.b.data, model.V.data = torch.eye(2), torch.zeros(2), torch.eye(2)
    model.V.data[1, 1] = v
    x = torch.tensor([[3.0, 0], [1, 0], [0, 2], [0, 4]])
    x_test = torch.tensor([[2.5, 0], [0, 1]])
    gain = (6 + 10 * v) / (6.75 + 12 * v**2)
    x_hat = [1, 1.5] + gain * np.array([[2.5 - 0.75, -1 * v], [-0.75, -1 * v]])
    found = measures.cut(model, x, x_test, 0.5)
    assert found == pytest.approx(explained(x_hat, x_test), rel=1e-5)
    assert np.isnan(measures.cut(model, x, x_test, 1.01))


def test_pca_has_the_axes_and_the_mean_of_the_training_inputs():
    pca, expected = PCA().fit(TRAIN), []
    for n in (1, 3, D):
        scores = pca.transform(TEST)
        scores[:, n:] = 0
        expected.append(explained(pca.inverse_transform(scores)))
    found = measures.pca_explained(TRAIN, TEST, [1, 3, D])
    assert_allclose([found[n] for n in (1, 3, D)], expected, atol=1e-5)


# --- What units represent -----------------------------------------------------------------------


def test_accuracy_is_of_a_logistic_regression_of_training_activations():
    A, A_test = codes(MODEL, TRAIN, TEST)
    scaler = StandardScaler().fit(A)
    classifier = LogisticRegression(max_iter=1000, tol=1e-8).fit(scaler.transform(A), Y_TRAIN)
    expected = 100 * (classifier.predict(scaler.transform(A_test)) == Y_TEST.numpy()).mean()
    found = measures.accuracy(MODEL.encode(TRAIN), Y_TRAIN, MODEL.encode(TEST), Y_TEST)
    assert found == pytest.approx(expected, abs=0.51)  # at most one of 200 inputs


def test_purity_weights_classes_equally_and_leaves_out_dead_units():
    A, y = torch.zeros(60, 4), torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    A[:, 0] = (y == 2) * 3.0  # of one class, though of the smallest
    A[:, 1] = 1.0
    A[:20, 2], A[40:43, 2] = 4.0, 5.0  # means 2, 1 and 0
    assert measures.purity(A, y) == pytest.approx((1 + 1 / 3 + 2 / 3) / 3)


def test_kmeans_finds_clusters_in_the_first_rows_however_far_they_are(monkeypatch):
    monkeypatch.setattr(measures, "FITTED", 400)
    y = torch.arange(400) % 4
    x = 100 + 6 * torch.eye(6)[y] + 0.5 * normal(400, 6)
    more = torch.cat([x, 2 * x.mean(0) - x])  # which has other clusters, and the same mean

    def found(y, l0):
        return measures.kmeans_purity(more, x, y, n_units=4, seed=0, l0=l0)

    assert found(y, 1) > 0.99
    assert found(y // 2, 1) > 0.99 and found(torch.arange(400) // 200, 1) < 0.6
    assert found(y, 3.9) < 0.8  # nearly all units are active on nearly all inputs


def test_units_are_paired_by_the_best_of_all_pairings():
    """With a dead unit, which has a correlation of 0."""
    A, B = normal(50, 4).double(), normal(50, 4, seed=1).double()
    B[:, 2] = 3 * A[:, 0] + 0.1 * B[:, 2]
    A[:, 3] = 0
    R = np.zeros((4, 4))
    R[:3] = np.corrcoef(A[:, :3].T, B.T)[:3, 3:]
    pairings = list(permutations(range(4)))
    best = max(pairings, key=lambda pairing: sum(R[i, j] for i, j in enumerate(pairing)))
    partner, correlations = measures.pair_units(A, B)
    assert tuple(partner) == best
    assert_allclose(correlations, [R[i, j] for i, j in enumerate(best)])
    assert measures.agreement(A, B) == pytest.approx(correlations.mean())


def made_to_correlate(*correlations):
    """Units, and others that have these correlations with them, in reverse order."""
    z = normal(50, 2 * len(correlations)).double()
    own, other = torch.linalg.qr(z - z.mean(0)).Q.chunk(2, dim=1)
    angles = torch.tensor(correlations).double().acos()
    return own, (angles.cos() * own + angles.sin() * other).flip(1)


def test_a_unit_is_replaced_if_its_partner_correlates_with_it_by_less_than_nine_tenths():
    A, B = made_to_correlate(0.91, 0.89, 0.1)
    assert measures.agreement(A, B) == pytest.approx((0.91 + 0.89 + 0.1) / 3)
    assert measures.n_replaced(A, B) == 2


def test_paired_rows_are_of_the_same_units_and_of_living_ones():
    one, other = h.SparseAutoencoder(D, K, seed=1), h.SparseAutoencoder(D, K)
    order = [3, 0, 4, 2, 1]
    other.W.data, other.b.data = one.W.data[order], one.b.data[order]
    found = measures.paired_rows({"a": one, "b": other}, TEST, n=2)
    assert found["a"][0].equal(one.W.data[:2]) and found["a"][1].equal(one.V.data[:2])
    assert found["b"][0].equal(one.W.data[:2])
    assert found["b"][1].equal(other.V.data[[1, 4]])  # where units 0 and 1 have gone
    other.b.data[1] = -100
    rows = measures.paired_rows({"a": one, "b": other}, TEST, n=2)["b"][0]
    assert rows[1].equal(one.W.data[1]) and not (rows == other.W.data[1]).all(1).any()


# --- The paper's measures -----------------------------------------------------------------------


def test_spread_of_denominators_as_it_is_and_of_shuffled_units():
    """Of units that are often active together."""
    E = torch.relu(normal(20_000, 1) + normal(20_000, K, seed=1))
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(column) for column in E.T.numpy()], 1)
    Z, without = np.exp(-E.numpy()).sum(1), np.exp(-shuffled).sum(1)
    expected = Z.std() / Z.mean(), without.std() / without.mean()
    assert measures.spread_of_denominators(E) == pytest.approx(expected, rel=0.02)
    assert expected[1] < 0.8 * expected[0]


def test_the_parts_of_the_loss_are_means_over_minibatches_in_a_random_order():
    model, x = h.Encoder(D, K, seed=1), normal(300, D, seed=3).sort(0).values
    variance, rest = measures.parts_of_loss(model, x)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    parts = x[order[:128]], x[order[128:256]]
    variances = [h.variance_loss(model(part)).item() for part in parts]
    assert variance == pytest.approx(np.mean(variances))
    losses = [h.paper_loss(model, part).item() for part in parts]
    assert variance + rest == pytest.approx(np.mean(losses))


def test_optimisers_are_compared_at_their_last_epoch_and_with_an_earlier_one():
    models = [h.Encoder(D, K, seed=seed) for seed in (1, 2, 1)]
    for model in (models[0], models[2]):
        model.b.data[3] = -100  # dead, and not counted as replaced
    for parameter in models[2].parameters():
        parameter.data *= 3
    runs = {"a": (torch.tensor([3.0, 2, 1]), models), "b": (torch.tensor([5.0]), models[:1])}
    found = measures.optimisers({"a": runs["a"]}, 1, TRAIN, Y_TRAIN, TEST, Y_TEST).iloc[0]
    A, A_test = (torch.from_numpy(part) for part in codes(models[2], TRAIN, TEST))
    variances = A_test.numpy()[:, [0, 1, 2, 4]].var(0, ddof=1)
    assert dict(found) == {
        "run": "a",
        "seed": 1,
        "loss": 1,
        **dict(zip(("variance term", "the rest"), measures.parts_of_loss(models[2], TRAIN))),
        "classifier": measures.accuracy(A, Y_TRAIN, A_test, Y_TEST),
        "dead": 1,
        "log variance": pytest.approx(np.log(variances).mean(), rel=1e-5),
        "growth": pytest.approx(3),
        "replaced": 0,  # its energies are three times those of the first epoch
    }
    later = measures.optimisers({"a": runs["a"]}, 2, TRAIN, Y_TRAIN, TEST, Y_TEST).iloc[0]
    assert later.replaced > 0
    both = measures.optimisers(runs, 1, TRAIN, Y_TRAIN, TEST, Y_TEST)
    assert [*both.run] == ["a", "b"] and [*both.loss] == [1, 5]


def test_layers_are_compared_with_those_of_the_same_seed_in_which_nothing_is_changed():
    (A, A_other), (B, B_other) = made_to_correlate(0.95, 0.8), made_to_correlate(0.99, 0.99)
    first = {
        ("a", "much"): torch.stack([A, 2 * B]),
        ("a", "unchanged"): torch.stack([A_other, B_other]),
    }
    energies = first | {("b", "unchanged"): torch.stack([B, A])}
    table = measures.compare(energies, seeds=[7, 3])
    keys = [(*key, seed) for key in energies for seed in (7, 3)]
    assert [*zip(table.model, table.change, table.seed)] == keys
    assert_allclose(table.agreement, [0.875, 0.99] + 4 * [np.nan])
    for i, E in enumerate([A, 2 * B, A_other, B_other, B, A]):
        row = table.iloc[i]
        assert row["l0"] == h.l0(E) and row["dead"] == 0 and row["redundancy"] == h.redundancy(E)
        assert row["entropy"] == h.responsibility_entropy(E)
        assert (row["spread"], row["shuffled"]) == measures.spread_of_denominators(E)


# --- Tables of models ---------------------------------------------------------------------------

POINTS = torch.linspace(0, 1, 1001)[:, None]
CLASSES = (3.99 * POINTS[:, 0]).long()


def of_l0s(*l0s):
    """Layers of seeds 6, 5, ... with ten units each, which are active on the largest of POINTS."""
    model = h.Encoder(1, 10, seed=[6 - i for i in range(len(l0s))])
    model.W.data[:], model.b.data[:] = 1, torch.tensor(l0s)[:, None] / 10 - 1
    return model


def test_of_each_method_the_setting_nearest_in_ratio_is_classified_and_the_densest_is_cut():
    models = {
        ("a", 0.3): of_l0s(1.0, 3),
        ("b", 5): of_l0s(0.5, 1),
        ("a", 0.1): of_l0s(4.0, 6),  # 5 on average: nearer to 3.2 in ratio than 2
        ("a", 0.2): of_l0s(7.0, 9),
    }
    arguments = POINTS, CLASSES, POINTS, CLASSES
    table = measures.benchmark(models, *arguments, l0=3.2)
    keys = [(*key, seed) for key in models for seed in (6, 5)]
    assert [*zip(table.method, table.setting, table.seed)] == keys
    assert_allclose(table.l0, [1, 3, 0.5, 1, 4, 6, 7, 9], rtol=0.01)
    assert (table.parameters == 20).all() and (table.dead == 0).all()
    nearest = measures.at_ten(table)
    assert [*nearest.index] == [2, 3, 4, 5]
    layers = [layer for model in models.values() for layer in h.layers(model)]
    for i, layer in enumerate(layers):
        A = layer.encode(POINTS).detach()
        assert table.purity[i] == measures.purity(A, CLASSES)
        own, best = measures.decoded(layer, POINTS, POINTS)["own"], table.best[i]
        assert table.own[i] == own <= best + 1e-6
        if i in nearest.index:
            assert table.classifier[i] == measures.accuracy(A, CLASSES, A, CLASSES)
    cuts = [measures.cut(layer, POINTS, POINTS, 3.2) for layer in layers[-2:]]
    assert [*table["cut"][[4, 5]]] == cuts and cuts[0] != cuts[1]
    assert table["cut"].notna().sum() == 2  # the densest b is sparser
    assert len({*nearest.classifier}) > 2  # of their own layers
    fast = measures.benchmark(models, *arguments, l0=3.2, with_classifier=False)
    assert fast.equals(table.drop(columns="classifier"))
