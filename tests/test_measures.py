"""lab/measures.py against scikit-learn, brute force, explicit shuffles, and numbers made by hand.

Training and test inputs are apart in each measure: they differ in scale and correlations, so that
any other pairing of them gives other numbers.
"""

from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
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


# --- Tables of models ---------------------------------------------------------------------------


def test_rows_are_of_each_model_of_a_stack():
    a, b = h.Encoder(D, K, seed=[4, 2]), h.Encoder(D, K, seed=[4, 2])
    b.b.data += 1
    table = measures.rows({"a": a, "b": b}, lambda model: {"b": model.b[0].item()}, "", "model")
    assert [*table.columns] == ["model", "seed", "b"]
    keys = [("a", 4), ("a", 2), ("b", 4), ("b", 2)]
    assert [*zip(table.model, table.seed)] == keys
    assert_allclose(table.b, torch.cat([a.b[:, 0], b.b[:, 0]]).detach())
    table = measures.rows({("a", 1): a, ("b", 1): b}, h.Encoder.state_dict, "", ["model", "rate"])
    assert [*table.columns] == ["model", "rate", "seed", "W", "b"]
    assert [*zip(table.model, table.rate, table.seed)] == [(n, 1, seed) for n, seed in keys]


# --- How well a model is decoded, and what it is good for ---------------------------------------


@both
def test_decoders_are_fitted_on_the_first_training_rows_and_judged_on_test_inputs(
    model, monkeypatch
):
    """And of what the benchmark has beside them; and the error of the paper's script."""
    monkeypatch.setattr(measures, "FITTED", 250)
    x, x_test, V = TRAIN[:250].numpy(), TEST.numpy(), model.decoder.detach().numpy()
    A, A_test = codes(model, TRAIN[:250], TEST)
    step = (A - A.mean(0)) @ V
    gain = (step * (x - x.mean(0))).sum() / np.square(step).sum()
    x_hat = x.mean(0) + gain * (A_test - A.mean(0)) @ V
    best = explained(LinearRegression().fit(A, x).predict(A_test))
    expected = {
        "l0": pytest.approx((A_test > 0).sum(1).mean()),
        "dead": 0,
        "explained": pytest.approx(explained(x_hat), abs=1e-5),
        "explained_best": pytest.approx(best, abs=1e-5),
    }
    assert measures.decoded(model, TRAIN, TEST) == expected
    every, every_test = (torch.from_numpy(part) for part in codes(model, TRAIN, TEST))
    assert measures.benchmark(model, TRAIN, Y_TRAIN, TEST, Y_TEST) == expected | {
        "parameters": {MODEL: K * D + K, SAE: 2 * K * D + K + D}[model],
        "classifier": measures.accuracy(every, Y_TRAIN, every_test, Y_TEST),
        "purity": measures.purity(every_test, Y_TEST),
    }
    lengths = np.linalg.norm(x_test, axis=1) / np.linalg.norm(A_test @ V, axis=1)
    matched = np.square(lengths[:, None] * (A_test @ V) - x_test).mean()
    assert measures.norm_matched_error(model, TEST) == pytest.approx(matched, rel=1e-5)


def test_a_mean_is_matched_to_the_norm_of_each_input():
    x, x_test = torch.tensor([[3.0, 3], [3, 5]]), torch.tensor([[5.0, 0], [0, 10]])
    expected = np.mean([2**2, 4**2, 6**2, 2**2])  # (3, 4) and (6, 8)
    assert measures.mean_image_error(x, x_test) == pytest.approx(expected, rel=1e-5)


def test_accuracy_is_of_a_logistic_regression_of_training_activations():
    A, A_test = codes(MODEL, TRAIN, TEST)
    scaler = StandardScaler().fit(A)
    classifier = LogisticRegression(max_iter=1000, tol=1e-8).fit(scaler.transform(A), Y_TRAIN)
    expected = 100 * (classifier.predict(scaler.transform(A_test)) == Y_TEST.numpy()).mean()
    found = measures.accuracy(MODEL.encode(TRAIN), Y_TRAIN, MODEL.encode(TEST), Y_TEST)
    assert found == pytest.approx(expected, abs=0.51)  # at most one of 200 inputs


# --- What units represent -----------------------------------------------------------------------


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

    def found(y, l0, seed=0):
        return measures.kmeans_purity(more, x, y, n_units=4, seed=seed, l0=l0)

    assert found(y, 1) > 0.99
    assert found(y // 2, 1) > 0.99 and found(torch.arange(400) // 200, 1) < 0.6
    assert found(y, 3.9) < 0.8  # nearly all units are active on nearly all inputs
    x = more = normal(400, 6)  # without clusters, each seed finds others
    labels = torch.arange(400) % 7
    assert len({measures.kmeans_purity(x, x, labels, 4, seed, l0=1) for seed in (0, 1, 2)}) > 1


def test_directions_are_weights_a_step_and_a_regression(monkeypatch):
    """By finite differences; of two units one is dead, and one input hardly varies."""
    monkeypatch.setattr(measures, "FITTED", 250)
    x = TRAIN.double() * torch.tensor([1, 1, 1, 1, 0.2, 0.05])
    model = h.Encoder(D, K, seed=1).double()
    model.b.data[4] = -100
    loss, first = partial(h.decoder_free_loss, lam=0.5), x[:250]
    found = measures.directions(model, loss, first)
    E = model(first).detach().numpy()
    assert found["weights"].equal(model.W)
    regression = LinearRegression().fit(E[:, :4], first).coef_.T
    assert_allclose(found["decoder row"][:4], regression, atol=1e-6)
    before = loss(model, first).item()
    model.W.data[2, 3] += 1e-6
    assert found["step"][2, 3] == pytest.approx(
        (before - loss(model, first).item()) / 1e-6, rel=1e-3
    )
    model.W.data[2, 3] -= 1e-6
    rows = {name: value.detach().numpy()[:4] for name, value in found.items()}

    def median(a, b):
        a, b = rows[a], rows[b]
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        return pytest.approx(np.sort(cosines)[1], rel=1e-5)  # torch takes the lower of two

    steps, decoder = rows["step"], rows["decoder row"]
    others = [
        s @ v / np.linalg.norm(s) / np.linalg.norm(v)
        for i, s in enumerate(steps)
        for j, v in enumerate(decoder)
        if i != j
    ]
    assert measures.cosines(model, loss, x) == {
        "weights and step": median("weights", "step"),
        "step and decoder row": median("step", "decoder row"),
        "weights and decoder row": median("weights", "decoder row"),
        "step and other rows": pytest.approx(np.sort(others)[(len(others) - 1) // 2], rel=1e-5),
    }


def test_units_are_paired_by_the_best_of_all_pairings():
    """With a dead unit, which has a correlation of 0."""
    A, B = normal(50, 4).double(), normal(50, 4, seed=1).double()
    B[:, 2] = 3 * A[:, 0] + 0.1 * B[:, 2]
    A[:, 3] = 0
    R = np.zeros((4, 4))
    R[:3] = np.corrcoef(A[:, :3].T, B.T)[:3, 3:]
    best = max(np.mean([R[i, j] for i, j in enumerate(p)]) for p in permutations(range(4)))
    assert measures.agreement(A, B) == pytest.approx(best)


# --- What the paper measures of energies --------------------------------------------------------


def test_energies_are_measured_as_the_paper_does():
    E = torch.relu(normal(400, 4))
    E[:, 1] = 0  # dead
    E[:, 2] *= 0.1  # alive, and of a variance below .01
    assert measures.of_energies(E) == {
        "dead": 1,
        "low variance": 2,
        "redundancy": h.redundancy(E),
        "l0": float(h.l0(E)),
        "entropy": h.responsibility_entropy(E),
    }


def test_convergence_is_the_first_of_five_small_changes_in_a_row():
    changes = np.array([9, 0.5, 0.5, 9, 0.9, -0.9, 0.9, 0, 0.1, 0.1])
    losses = torch.tensor(np.cumsum([0, *changes]))
    assert measures.convergence_epoch(losses, 1) == 5  # epochs are counted from 0
    assert np.isnan(measures.convergence_epoch(losses, 0.2))


def test_minibatches_have_rows_in_a_random_order():
    E = torch.arange(300.0)[:, None]
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    assert measures.minibatches(E, 128).equal(E[order[:256]].view(2, 128, 1))
