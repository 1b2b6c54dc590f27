"""lab/compare.py against scikit-learn, brute force, and laws that are known before.

Training and test inputs are apart in each measure: they differ in scale and correlations, so that
any other pairing of them gives other numbers.
"""

from functools import partial
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
from lab import compare
from lab.methods import jobs, methods, train_all


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


D, K = 6, 5
TRAIN, TEST = normal(300, D), 0.7 * normal(200, D, seed=1) @ normal(D, D, seed=2) + 0.4
Y_TRAIN, Y_TEST = (TRAIN[:, :3].argmax(1), TEST[:, :3].argmax(1))
MODEL, SAE = h.Encoder(D, K, seed=1), h.SparseAutoencoder(D, K, seed=1)
SAE.V.data += 0.1 * normal(K, D, seed=3)
SAE.c.data += 0.1


def codes(model, *inputs):
    """The activations of a model, as arrays."""
    return [model.encode(x).detach().numpy() for x in inputs]


def one_gain(A, A_test, rows):
    """x_hat of TEST with one gain and an offset, by least squares on TRAIN."""
    x = TRAIN.numpy()
    step = (A - A.mean(0)) @ rows
    gain = (step * (x - x.mean(0))).sum() / np.square(step).sum()
    return x.mean(0) + gain * (A_test - A.mean(0)) @ rows


def explained(x_hat):
    """1 - FVU on TEST."""
    x = TEST.numpy()
    return 1 - np.square(x - x_hat).sum() / np.square(x - x.mean(0)).sum()


# --- One model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [MODEL, SAE], ids=["encoder", "SAE"])
def test_evaluate_fits_decoders_on_training_and_judges_them_on_test_inputs(model):
    A, A_test = codes(model, TRAIN, TEST)
    by_rows = explained(one_gain(A, A_test, model.decoder.detach().numpy()))
    best = explained(LinearRegression().fit(A, TRAIN).predict(A_test))
    found = compare.evaluate(model, TRAIN, TEST)
    assert found["explained"] == pytest.approx(by_rows, abs=1e-5)
    assert found["least_squares"] == pytest.approx(best, abs=1e-5)
    assert found["ratio"] == pytest.approx(by_rows / best, abs=1e-4)
    assert found["l0"] == pytest.approx((A_test > 0).sum(1).mean())
    assert found["parameters"] == {MODEL: K * D + K, SAE: 2 * K * D + K + D}[model]


def test_evaluate_shows_an_sae_as_it_is():
    x_hat = codes(SAE, TEST)[0] @ SAE.V.detach().numpy() + SAE.c.detach().numpy()
    found = compare.evaluate(SAE, TRAIN, TEST)["as_is"]
    assert found == pytest.approx(explained(x_hat), abs=1e-5)
    assert np.isnan(compare.evaluate(MODEL, TRAIN, TEST)["as_is"])


def test_evaluate_counts_units_that_are_dead_on_test_inputs():
    model = h.Encoder(D, K, seed=1)
    few = TEST[:9]
    model.b.data[2] = -float((few @ model.W.data[2]).max()) - 1e-3
    expected = int((model(few) <= 0).all(0).sum())
    assert expected >= 1 and h.dead(model(TRAIN)) == 0
    assert compare.evaluate(model, TRAIN, few)["dead"] == expected


def test_evaluate_of_a_model_without_active_units_gives_numbers():
    model = h.Encoder(D, K, seed=1)
    model.b.data -= 1000
    found = compare.evaluate(model, TRAIN, TRAIN)
    assert found["l0"] == 0 and found["dead"] == K
    assert found["least_squares"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("model", [MODEL, SAE], ids=["encoder", "SAE"])
def test_norm_matched_error_rescales_each_reconstruction_to_the_norm_of_its_input(model):
    expected = []
    for a, x in zip(codes(model, TEST)[0], TEST.numpy()):
        x_hat = a @ model.decoder.detach().numpy()
        expected.append(np.square(x_hat / np.linalg.norm(x_hat) * np.linalg.norm(x) - x).mean())
    assert compare.norm_matched_error(model, TEST) == pytest.approx(np.mean(expected), rel=1e-5)
    found = compare.norm_matched_error(model, TEST.numpy().astype(float))
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_probe_is_a_logistic_regression_of_training_activations():
    A, A_test = codes(MODEL, TRAIN, TEST)
    scaler = StandardScaler().fit(A)
    classifier = LogisticRegression(max_iter=1000, tol=1e-8).fit(scaler.transform(A), Y_TRAIN)
    expected = 100 * (classifier.predict(scaler.transform(A_test)) == Y_TEST.numpy()).mean()
    found = compare.probe(MODEL, TRAIN, Y_TRAIN, TEST, Y_TEST)
    assert found == pytest.approx(expected, abs=0.51)  # at most one of 200 inputs


def test_probe_learns_nothing_from_test_labels():
    """Where these are turned round, the probe is as often wrong as it was right."""
    y, y_test = (TRAIN[:, 0] > 0).long(), (TEST[:, 0] > 0).long()
    right = compare.probe(MODEL, TRAIN, y, TEST, y_test)
    assert right > 60
    assert compare.probe(MODEL, TRAIN, y, TEST, 1 - y_test) == pytest.approx(100 - right)


@pytest.mark.parametrize("model", [MODEL, SAE], ids=["encoder", "SAE"])
def test_the_papers_measures_by_hand(model):
    A, A_test = codes(model, TRAIN, TEST)
    x_hat = one_gain(A, A_test, model.decoder.detach().numpy())
    found = compare.paper_measures(model, TRAIN, Y_TRAIN, TEST, Y_TEST)
    assert found == {
        "parameters": sum(p.numel() for p in model.parameters()),
        "l0": pytest.approx((A_test > 0).sum(1).mean()),
        "probe": compare.probe(model, TRAIN, Y_TRAIN, TEST, Y_TEST),
        "norm_matched": compare.norm_matched_error(model, TEST),
        "mse": pytest.approx(np.square(x_hat - TEST.numpy()).mean(), rel=1e-4),
        "explained": pytest.approx(explained(x_hat), abs=1e-5),
    }


def test_purity_weights_classes_equally_and_leaves_out_dead_units():
    A = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    A[:, 0] = (y == 2) * 3.0  # of one class, though of the smallest
    A[:, 3] = 0
    means = np.array([[float(A[y == c, j].mean()) for c in range(3)] for j in range(3)])
    expected = np.mean([row.max() / row.sum() for row in means])
    assert compare.purity(A, y) == pytest.approx(expected)


def test_agreement_is_that_of_the_best_of_all_pairings():
    A, B = normal(50, 4).double(), normal(50, 4, seed=1).double()
    B[:, 2] = 3 * A[:, 0] + 0.1 * B[:, 2]
    R = np.corrcoef(A.T, B.T)[:4, 4:]
    pairings = list(permutations(range(4)))
    best = max(pairings, key=lambda pairing: sum(R[i, j] for i, j in enumerate(pairing)))
    partner, correlations = compare.assign(A, B)
    assert tuple(partner) == best
    assert_allclose(correlations, [R[i, j] for i, j in enumerate(best)])
    assert compare.agreement(A, B) == pytest.approx(correlations.mean())


def test_agreement_counts_a_dead_unit_as_zero():
    A = normal(50, 4)
    B = A.clone()
    B[:, 1] = 0
    assert compare.agreement(A, B) == pytest.approx(3 / 4, abs=1e-6)


# --- Many models --------------------------------------------------------------------------------


def some_models(settings=(1, 2), seeds=(0, 1, 2)):
    return {("a", s, n): h.Encoder(D, K, seed=10 * s + n) for s in settings for n in seeds}


def test_a_row_of_the_table_is_an_evaluation_and_a_purity_on_test_inputs():
    models = some_models()
    table = compare.tabulate(models, TRAIN, TEST, Y_TEST)
    assert [*zip(table.method, table.setting, table.seed)] == [*models]
    for row, model in zip(table.to_dict("records"), models.values()):
        found = compare.evaluate(model, TRAIN, TEST)
        assert {name: row[name] for name in found} == pytest.approx(found, nan_ok=True)
        assert row["purity"] == pytest.approx(compare.purity(model.encode(TEST).detach(), Y_TEST))


def test_probes_are_of_the_settings_around_the_l0_and_of_the_seeds_asked_for():
    models = some_models(settings=(1, 2, 3))
    table = compare.tabulate(models, TRAIN, TEST)
    table["l0"] = table.setting.astype(float)
    compare.add_probes(table, models, TRAIN, Y_TRAIN, TEST, Y_TEST, 1.5, [0, 2])
    for (_, setting, seed), value in zip(models, table.probe):
        if setting < 3 and seed != 1:
            model = models["a", setting, seed]
            assert value == compare.probe(model, TRAIN, Y_TRAIN, TEST, Y_TEST)
        else:
            assert np.isnan(value)


def test_agreements_are_of_pairs_of_seeds_at_equal_settings():
    models = some_models()
    table = compare.agreements(models, TEST)
    assert [*table.setting] == [1, 1, 1, 2, 2, 2]
    assert [*table.seed] == 2 * ["0, 1", "0, 2", "1, 2"]
    A, B = (models["a", 2, seed].encode(TEST).detach() for seed in (0, 2))
    assert table.agreement[4] == pytest.approx(compare.agreement(A, B))
    assert table.l0[4] == pytest.approx((h.l0(A) * h.l0(B)) ** 0.5)
    assert compare.agreements(some_models(seeds=[0]), TEST).empty


def test_a_model_that_has_diverged_is_nan_and_spoils_no_other():
    models = some_models()
    models["a", 1, 1].W.data[:] = torch.nan
    table = compare.tabulate(models, TRAIN, TEST, Y_TEST)
    compare.add_probes(table, models, TRAIN, Y_TRAIN, TEST, Y_TEST, table.l0.mean(), [0, 1, 2])
    columns = ["l0", "dead", "explained", "least_squares", "ratio", "purity", "probe"]
    lost = table.seed.eq(1) & table.setting.eq(1)
    assert table.loc[lost, columns].isna().all(axis=None)
    assert table.loc[~lost, columns[:-1]].notna().all(axis=None)
    pairs = compare.agreements(models, TEST).set_index(["setting", "seed"]).agreement
    assert pairs.loc[1].isna().tolist() == [True, False, True] and pairs.loc[2].notna().all()
    assert np.isnan(compare.probe(models["a", 1, 1], TRAIN, Y_TRAIN, TEST, Y_TEST))


# --- At an equal L0 -----------------------------------------------------------------------------


def rows(method, values):
    """A table of {seed: [(L0, least_squares)]}; a setting is a position in the list."""
    return pd.DataFrame(
        {"method": method, "setting": i, "seed": seed, "l0": l0, "least_squares": value}
        for seed, pairs in values.items()
        for i, (l0, value) in enumerate(pairs)
    )


def test_interpolation_follows_a_power_law_in_any_order_and_extrapolates_nothing():
    l0s = np.array([20.0, 5, 9, 0, 7])  # the last two do not count
    errors = 0.9 * l0s[:3] ** -0.7
    law = partial(compare.interpolate, l0s, [*(1 - errors), 9, np.nan], explained=True)
    assert [law(12), law(8)] == pytest.approx([1 - 0.9 * n**-0.7 for n in (12, 8)])
    assert law(5) == pytest.approx(1 - errors[1]) and law(20) == pytest.approx(1 - errors[0])
    assert np.isnan([law(1), law(4.9), law(20.1)]).all()
    assert np.isnan(compare.interpolate([0, 0], [1, 1], 5))


def test_interpolation_of_other_quantities_is_linear_in_the_logarithm_of_l0():
    assert compare.interpolate([1, 100], [2, 4], 10) == pytest.approx(3)


def test_values_at_an_l0_are_by_seed():
    table = rows("a", {s: [(3, 1 - f / 3), (9, 1 - f / 9)] for s, f in ((4, 1.2), (0, 1.4))})
    found = compare.at_l0(pd.concat([table, rows("b", {4: [(6, 0.0)]})]), "a", "least_squares", 6)
    assert found.to_dict() == pytest.approx({4: 1 - 1.2 / 6, 0: 1 - 1.4 / 6})


def test_a_seed_that_does_not_enclose_the_l0_is_named_and_left_out():
    table = rows("a", {0: [(3, 0.1), (9, 0.2)], 7: [(3, 0.1), (5, 0.2)]})
    with pytest.warns(UserWarning, match=r"a, least_squares: .*\[7\] .* L0 6"):
        found = compare.at_l0(table, "a", "least_squares", 6)
    assert [*found.index] == [0]


def test_a_seed_whose_models_have_all_diverged_is_named_and_left_out():
    table = rows("a", {0: [(3, 0.1), (9, 0.2)], 7: [(np.nan, np.nan), (np.nan, np.nan)]})
    with pytest.warns(UserWarning, match=r"\[7\]"):
        found = compare.at_l0(table, "a", "least_squares", 6)
    assert [*found.index] == [0]


@pytest.mark.filterwarnings("ignore:b, least_squares")
def test_a_difference_is_between_equal_seeds():
    ours = rows("a", {s: [(3, 1 - f / 3), (9, 1 - f / 9)] for s, f in enumerate((1.2, 1.4, 1))})
    ends = {2: (2, 4), 1: (2, 12), 0: (2, 12)}  # seed 2 does not enclose 6
    other = rows("b", {s: [(n, 1 - 0.8 / n) for n in pair] for s, pair in ends.items()})
    found = compare.difference(pd.concat([ours, other]), "least_squares", 6, "a", "b")
    assert found == pytest.approx([-0.4 / 6, -0.6 / 6])


def test_enclosing_settings_are_those_of_the_seed_asked_for():
    table = rows("a", {0: [(9, 0), (2, 0), (20, 0)], 1: [(13, 0), (4, 0), (30, 0)]})
    assert compare.enclosing(table, "a", 10, seed=0) == [0, 2]
    assert compare.enclosing(table, "a", 10, seed=1) == [1, 0]
    assert compare.enclosing(table, "a", 1, seed=0) == [1]
    assert compare.enclosing(table, "a", 90, seed=1) == [2]


def test_the_nearest_model_is_of_the_seed_asked_for():
    table = rows("a", {0: [(2, 0), (20, 0)], 1: [(10, 0), (20, 0)]})
    models = {("a", setting, seed): (setting, seed) for setting in (0, 1) for seed in (0, 1)}
    assert compare.nearest(table, models, "a", 7, seed=0) == (1, 0)  # in ratios
    assert compare.nearest(table, models, "a", 7, seed=1) == (0, 1)


def test_criteria_of_a_made_up_benchmark():
    """Signs and pairs: ours minus theirs, and the worst pair of seeds minus the SAEs' best."""
    names = ["the revised loss", "the paper's loss, tuned", "the revised loss, pooled"]
    names += ["the revised loss, L1", "L1 SAE", "tied SAE"]
    table = pd.concat(rows(name, {s: [(5, 0.5), (20, 0.5)] for s in (0, 1)}) for name in names)
    table["explained"] = table.method.map(dict(zip(names, (0.6, 0.5, 0.63, 0.54, 0.7, 0.7))))
    table["ratio"] = table.explained / table.least_squares
    pairs = table.rename(columns={"least_squares": "agreement"})
    pairs["agreement"] = pairs.method.map(dict(zip(names, (0.9, 0, 0, 0, 0.7, 0.8))))
    pairs.loc[(pairs.method == "the revised loss") & (pairs.seed == 1), "agreement"] = 0.75
    paper = pd.DataFrame({"model": ["the paper's model", "the paper's SAE"], "probe": [94.0, 90.0]})
    paper["norm_matched"] = [0.15, 0.02]
    found = compare.measured_criteria(table, pairs, paper, {("L1 SAE", 6): [0.1]}, 10)
    assert found["their_probe"]["the paper's model"] == pytest.approx([0.57])
    assert found["their_error"]["the paper's model"] == pytest.approx([0.007])
    assert found["tuned"] == pytest.approx([0.1, 0.1])
    assert found["agreement"] == pytest.approx(-0.05)
    assert found["competition_revised"]["the revised loss, pooled"] == pytest.approx([0.05, 0.05])
    assert found["competition_revised"]["the revised loss, L1"] == pytest.approx([-0.1, -0.1])
    assert found["transpose"]["L0 6"] == pytest.approx([1.2, 1.2])
    assert found["purity_paper"] == {"L1 SAE, L0 6": [0.1]}


# --- Baselines ----------------------------------------------------------------------------------


def test_kmeans_has_unit_rows_and_one_bias_and_the_l0_asked_for():
    centres = 6 * torch.eye(6)[:4]
    x = centres.repeat(100, 1) + 0.5 * normal(400, 6)
    found = compare.kmeans_encoders(4, x, [1, 2.5], seed=3)
    assert set(found) == {("k-means", 1, 3), ("k-means", 2.5, 3)}
    for (_, l0, _), model in found.items():
        assert h.l0(model.encode(x)) == pytest.approx(l0, abs=0.02)
        assert len(model.b.unique()) == 1
        assert_allclose(model.W.detach().norm(dim=1), np.ones(4), rtol=1e-5)
        rows = model.W.detach()[compare.assign(centres.T, model.W.detach().T)[0]]
        assert (rows @ centres.T / 6).diagonal().min() > 0.99


def test_pca_has_the_axes_and_the_mean_of_the_training_inputs():
    pca, expected = PCA().fit(TRAIN), []
    for n in (1, 3, D):
        scores = pca.transform(TEST)
        scores[:, n:] = 0
        expected.append(explained(pca.inverse_transform(scores)))
    assert_allclose(compare.pca_explained(TRAIN, TEST, [1, 3, D]), expected, atol=1e-5)


# --- The benchmark, small -----------------------------------------------------------------------

PINNED = {  # method, setting, rate: l0, explained, least_squares
    ("the revised loss", 0.25, 0.004): (7.796, 0.3936, 0.5790),
    ("the paper's loss", 0.35, 0.001): (14.681, 0.1648, 0.5722),
    ("L1 SAE", 1.0, 0.008): (5.410, 0.5340, 0.5600),
    ("TopK SAE", 10, 0.004): (10, 0.6091, 0.6258),
}


def test_a_small_benchmark_gives_these_numbers(digits):
    """2,000 digits of 14 x 14 pixels, 32 units, 6 epochs, as in notebook 3."""
    x, _, x_test, _ = digits
    mean = x.mean(0)
    known = methods(h.kappa(x, 32))
    chosen = {
        name: known[name]._replace(settings=(setting,), lr=lr) for name, setting, lr in PINNED
    }
    models = train_all(jobs(chosen, x - mean, mean, 32, [0], epochs=6))
    table = compare.tabulate(models, x - mean, x_test - mean).set_index("method")
    for (name, *_), (l0, explained, least_squares) in PINNED.items():
        row = table.loc[name]
        assert row.l0 == pytest.approx(l0, rel=0.01)
        assert row.explained == pytest.approx(explained, abs=1e-3)
        assert row.least_squares == pytest.approx(least_squares, abs=1e-3)
