"""lab/measures.py against scikit-learn, SciPy, brute force, and laws that are known before.

Training and test inputs are apart in each measure: they differ in scale and correlations, so that
any other pairing of them gives other numbers.
"""

from itertools import permutations

import numpy as np
import pandas as pd
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
MODEL, SAE = h.Encoder(D, K, seed=1), h.SparseAutoencoder(D, K, seed=1)
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
def test_decoders_are_fitted_on_training_and_judged_on_test_inputs(model):
    """In `evaluate`, and of what the paper compares also in `paper_benchmark`."""
    (A, A_test), V, x = codes(model, TRAIN, TEST), model.decoder.detach().numpy(), TEST.numpy()
    step, centred = (A - A.mean(0)) @ V, TRAIN.numpy() - TRAIN.numpy().mean(0)
    gain = (step * centred).sum() / np.square(step).sum()
    x_hat = TRAIN.numpy().mean(0) + gain * (A_test - A.mean(0)) @ V
    fit, W = LinearRegression().fit(A, TRAIN), model.W.detach().numpy()
    by_rows, best, rows = explained(x_hat), explained(fit.predict(A_test)), fit.coef_.T
    cosines = (W * rows).sum(1) / np.linalg.norm(W, axis=1) / np.linalg.norm(rows, axis=1)
    as_is = np.nan if model is MODEL else explained(model(TEST).detach().numpy())
    expected = {
        "l0": pytest.approx((A_test > 0).sum(1).mean()),
        "dead": 0,
        "parameters": {MODEL: K * D + K, SAE: 2 * K * D + K + D}[model],
        "explained": pytest.approx(by_rows, abs=1e-5),
        "as_is": pytest.approx(as_is, abs=1e-5, nan_ok=True),
    }
    assert measures.evaluate(model, TRAIN, TEST) == expected | {
        "least_squares": pytest.approx(best, abs=1e-5),
        "ratio": pytest.approx(by_rows / best, abs=1e-4),
        "cosine": pytest.approx(np.median(cosines), abs=1e-4),
    }
    lengths = np.linalg.norm(x, axis=1) / np.linalg.norm(A_test @ V, axis=1)
    matched = np.square(lengths[:, None] * (A_test @ V) - x).mean()
    assert measures.paper_benchmark(model, TRAIN, Y_TRAIN, TEST, Y_TEST) == expected | {
        "probe": measures.probe(model, TRAIN, Y_TRAIN, TEST, Y_TEST),
        "norm_matched": pytest.approx(matched, rel=1e-5),
        "mse": pytest.approx(np.square(x_hat - x).mean(), rel=1e-4),
    }


def test_units_that_are_dead_on_test_inputs_are_counted():
    model, few = h.Encoder(D, K, seed=1), TEST[:9]
    model.b.data[2] = -float((few @ model.W.data[2]).max()) - 1e-3
    expected = int((model(few) <= 0).all(0).sum())
    assert expected >= 1 and h.dead(model(TRAIN)) == 0
    assert measures.evaluate(model, TRAIN, few)["dead"] == expected
    model.b.data -= 1000
    found = measures.evaluate(model, TRAIN, TRAIN)
    assert found["l0"] == 0 and found["dead"] == K
    assert found["least_squares"] == pytest.approx(0, abs=1e-6)


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
    found = measures.explained_if_cut(model, x, x_test, 0.5)
    assert found == pytest.approx(explained(x_hat, x_test), rel=1e-5)
    assert np.isnan(measures.explained_if_cut(model, x, x_test, 1.01))


def test_pca_has_the_axes_and_the_mean_of_the_training_inputs():
    pca, expected = PCA().fit(TRAIN), []
    for n in (1, 3, D):
        scores = pca.transform(TEST)
        scores[:, n:] = 0
        expected.append(explained(pca.inverse_transform(scores)))
    assert_allclose(measures.pca_explained(TRAIN, TEST, [1, 3, D]), expected, atol=1e-5)


# --- What units represent -----------------------------------------------------------------------


def test_probe_is_a_logistic_regression_of_training_activations():
    A, A_test = codes(MODEL, TRAIN, TEST)
    scaler = StandardScaler().fit(A)
    classifier = LogisticRegression(max_iter=1000, tol=1e-8).fit(scaler.transform(A), Y_TRAIN)
    expected = 100 * (classifier.predict(scaler.transform(A_test)) == Y_TEST.numpy()).mean()
    found = measures.probe(MODEL, TRAIN, Y_TRAIN, TEST, Y_TEST)
    assert found == pytest.approx(expected, abs=0.51)  # at most one of 200 inputs


def test_purity_weights_classes_equally_and_leaves_out_dead_units():
    A = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    A[:, 0] = (y == 2) * 3.0  # of one class, though of the smallest
    A[:, 3] = 0
    means = np.array([[float(A[y == c, j].mean()) for c in range(3)] for j in range(3)])
    expected = np.mean([row.max() / row.sum() for row in means])
    assert measures.purity(A, y) == pytest.approx(expected)


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


def test_a_unit_is_replaced_if_its_partner_correlates_with_it_by_less_than_nine_tenths():
    z = normal(50, 6)
    Q = torch.linalg.qr(z - z.mean(0)).Q
    angles = torch.tensor([0.91, 0.89, 0.0]).acos()
    assert measures.n_replaced(Q[:, :3], angles.cos() * Q[:, :3] + angles.sin() * Q[:, 3:]) == 2


def test_paired_rows_are_of_the_same_units():
    other, order = h.SparseAutoencoder(D, K), [3, 0, 4, 2, 1]
    other.W.data, other.b.data = MODEL.W.data[order], MODEL.b.data[order]
    found = measures.paired_rows({"a": MODEL, "b": other}, TEST, n=2)
    assert found["a"].equal(MODEL.W.data[:2])
    assert found["b"].equal(other.V.data[[1, 4]])  # where units 0 and 1 have gone


# --- The paper's measures -----------------------------------------------------------------------


def test_units_of_little_variance_are_the_papers_dead_ones():
    E = torch.relu(normal(500, K)).double() * torch.tensor([1, 1, 0.3, 0, 0.1])
    assert measures.of_energies(E) == {
        "dead": 1,
        "low variance": 2,
        "redundancy": h.redundancy(E),
        "entropy": h.responsibility_entropy(E),
        "l0": h.l0(E),
    }


def test_measures_of_competition_against_numpy():
    E = torch.relu(normal(500, K)).double()
    e = np.exp(-E.numpy())
    Z, cov = e.sum(1), np.cov(e.T, ddof=0)
    assert measures.of_competition(E) == pytest.approx(
        {
            "competition term": np.log(Z.mean()) - np.log(Z).mean(),
            "second order": Z.var() / (2 * Z.mean() ** 2),
            "Var(Z)": Z.var(),
            "variances": np.trace(cov),
            "covariances": cov.sum() - np.trace(cov),
            "spread": Z.std() / Z.mean(),
        }
    )


# --- Many models --------------------------------------------------------------------------------


def some_models(settings=(1, 2)):
    seeds = 0, 1, 2
    return {("a", s, n): h.Encoder(D, K, seed=10 * s + n) for s in settings for n in seeds}


def test_a_row_of_the_table_is_an_evaluation_and_of_the_densest_models_a_cut():
    models = some_models()
    table = measures.tabulate(models, TRAIN, TEST, Y_TEST, cut_to=1.5)
    assert [*zip(table.method, table.setting, table.seed)] == [*models]
    for row, ((_, _, seed), model) in zip(table.to_dict("records"), models.items()):
        found = measures.evaluate(model, TRAIN, TEST)
        assert {name: row[name] for name in found} == pytest.approx(found, nan_ok=True)
        assert row["purity"] == pytest.approx(measures.purity(model.encode(TEST).detach(), Y_TEST))
        densest = row["l0"] == table.l0[table.seed == seed].max()
        cut = measures.explained_if_cut(model, TRAIN, TEST, 1.5) if densest else np.nan
        assert row["cut"] == pytest.approx(cut, nan_ok=True)
    assert table["cut"].notna().sum() == 3


def test_probes_are_of_the_models_around_the_l0_and_of_what_is_asked_for():
    models = some_models(settings=(3, 1, 2))
    models |= {("b", s, seed): model for (_, s, seed), model in models.items()}
    table = pd.DataFrame([*models], columns=["method", "setting", "seed"])
    table["l0"] = table.setting.astype(float)
    measures.add_probes(table, models, TRAIN, Y_TRAIN, TEST, Y_TEST, 1.5, ["a"], [0, 2])
    for (method, setting, seed), value in zip(models, table.probe):
        if method == "a" and setting < 3 and seed != 1:
            model = models["a", setting, seed]
            assert value == measures.probe(model, TRAIN, Y_TRAIN, TEST, Y_TEST)
        else:
            assert np.isnan(value)


def test_agreements_are_of_pairs_of_seeds_at_equal_settings():
    models = some_models()
    table = measures.agreements(models, TEST)
    assert [*table.setting] == [1, 1, 1, 2, 2, 2]
    assert [*table.seed] == 2 * ["0, 1", "0, 2", "1, 2"]
    A, B = (models["a", 2, seed].encode(TEST).detach() for seed in (0, 2))
    assert table.agreement[4] == pytest.approx(measures.agreement(A, B))
    assert table.l0[4] == pytest.approx((h.l0(A) * h.l0(B)) ** 0.5)
    one_seed = {key: model for key, model in models.items() if key[2] == 0}
    assert [*measures.at_l0(measures.agreements(one_seed, TEST), 2).agreement] == []


def test_models_that_have_diverged_are_nan_and_spoil_no_other():
    """All of seed 0, and one of seed 1."""
    models, lost = some_models(), [("a", 1, 0), ("a", 2, 0), ("a", 1, 1)]
    for key in lost:
        models[key].W.data[:] = torch.nan
    table = measures.tabulate(models, TRAIN, TEST, Y_TEST, cut_to=1.0)
    asked = table.l0.mean(), ["a"], [0, 1, 2]
    measures.add_probes(table, models, TRAIN, Y_TRAIN, TEST, Y_TEST, *asked)
    columns = ["l0", "dead", "explained", "least_squares", "ratio", "cosine", "purity"]
    is_lost = np.array([key in lost for key in models])
    assert table.loc[is_lost, [*columns, "probe", "cut"]].isna().all(axis=None)
    assert table.loc[~is_lost, columns].notna().all(axis=None)
    assert [*table.seed[table["cut"].notna()].sort_values()] == [1, 2]
    pairs = measures.agreements(models, TEST).agreement
    assert pairs.isna().tolist() == [True, True, True, True, True, False]
    assert np.isnan(measures.probe(models["a", 1, 1], TRAIN, Y_TRAIN, TEST, Y_TEST))


# --- At an equal L0 -----------------------------------------------------------------------------


def rows(method, values, column="least_squares"):
    """A table of {seed: [(L0, value)]}; a setting is a position in the list."""
    return pd.DataFrame(
        {"method": method, "setting": i, "seed": seed, "l0": l0, column: value}
        for seed, pairs in values.items()
        for i, (l0, value) in enumerate(pairs)
    )


@pytest.mark.parametrize("column", ["explained", "least_squares", "as_is"])
def test_a_variance_explained_follows_a_power_law_in_any_order_and_is_not_extrapolated(column):
    """Seeds whose models do not enclose the L0, or have all diverged (8), are named."""
    l0s, factors = np.array([20.0, 5, 9, 0]), {4: 0.9, 0: 0.7}  # L0 0 does not count
    laws = {s: [*zip(l0s, [*(1 - f * l0s[:3] ** -0.7), 9])] for s, f in factors.items()}
    laws[4].append((np.nan, np.nan))
    laws[8] = [(np.nan, np.nan)]
    table = pd.concat([rows("a", laws, column), rows("b", {4: [(0.5, 0.0), (30, 0.0)]}, column)])
    for l0, outside in ((5, "8"), (12, "8"), (20, "8"), (4.9, "4, 0, 8"), (20.1, "4, 0, 8")):
        with pytest.warns(UserWarning, match=rf"a: .*\[{outside}\] .* L0 {l0}"):
            found = measures.at_l0(table, l0)[column]
        known = factors if outside == "8" else {}
        expected = {s: known.get(s, np.nan) for s in laws}
        expected = {("a", s): 1 - f * l0**-0.7 for s, f in expected.items()} | {("b", 4): 0}
        assert found.to_dict() == pytest.approx(expected, nan_ok=True)


def test_other_measures_are_linear_in_the_logarithm_of_l0_between_neighbours():
    """But for a cut and a number of parameters, which are taken as they are."""
    table = rows("a", {0: [(9, 3), (20, 4), (5, 1)]}, "purity")
    table = table.assign(cut=[np.nan, 0.7, np.nan], parameters=30, probe=[10, 20, np.nan])
    found = pd.concat(measures.at_l0(table, l0) for l0 in (45**0.5, 9, 180**0.5))
    assert_allclose(found.l0, [45**0.5, 9, 180**0.5])
    assert_allclose(found.purity, [2, 3, 3.5])
    assert_allclose(found.probe, [np.nan, 10, 15])
    assert (found["cut"] == 0.7).all() and (found.parameters == 30).all()


def test_the_nearest_model_is_of_the_seed_asked_for():
    table = rows("a", {0: [(2, 0), (20, 0)], 1: [(10, 0), (20, 0)]})
    models = {("a", setting, seed): (setting, seed) for setting in (0, 1) for seed in (0, 1)}
    assert measures.nearest(table, models, "a", 7, seed=0) == (1, 0)  # in ratios
    assert measures.nearest(table, models, "a", 7, seed=1) == (0, 1)
