"""lab/tables.py: what is compared at equal L0, against scikit-learn and laws known before."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from test_helpers import normal

import helpers as h
from lab import ROOT, tables

NAN = np.nan


def test_decoders_are_fitted_on_training_inputs_and_judged_on_test():
    x, x_test = (normal(n, 6, seed=n, dtype=torch.float32) for n in (300, 200))
    model, total = h.Encoder(6, 5, seed=1), float(((x_test - x_test.mean(0)) ** 2).sum())
    A, A_test = (model.encode(t).detach().double().numpy() for t in (x, x_test))
    solved = LinearRegression().fit(A, x).predict(A_test)
    step = (A - A.mean(0)) @ model.W.detach().double().numpy()  # one gain, by least squares
    centred = x.double().numpy() - x.double().numpy().mean(0)
    gain = (step * centred).sum() / (step**2).sum()
    offset = x.mean(0).numpy() - A.mean(0) @ model.W.detach().numpy() * gain
    by_transpose = gain * A_test @ model.W.detach().numpy() + offset
    found = tables.evaluate(model, x, x_test)
    for column, x_hat in (("solved", solved), ("transpose", by_transpose)):
        expected = 1 - ((x_hat - x_test.numpy()) ** 2).sum() / total
        assert found[column] == pytest.approx(expected, abs=1e-5)
    assert found["share"] == pytest.approx(found["transpose"] / found["solved"])
    assert found["l0"] == pytest.approx((A_test > 0).sum(1).mean()) and np.isnan(found["own"])
    model.W.data[0] = NAN
    assert np.isnan(tables.evaluate(model, x, x_test)["solved"])


def rows(method, values, **columns):
    """values: {seed: [(L0, solved)]}."""
    return [
        {"method": method, "setting": i, "seed": seed, "l0": n, "solved": v} | columns
        for seed, pairs in values.items()
        for i, (n, v) in enumerate(pairs)
    ]


def test_comparison_at_equal_l0():
    l0s = np.array([20.0, 5, 9, 0, 7])  # in any order; the last two do not count
    law = partial(tables.interpolate, l0s, [*(1 - 0.9 * l0s[:3] ** -0.7), 9, NAN])
    assert law(12, True) == pytest.approx(1 - 0.9 * 12**-0.7)
    assert np.isnan([law(at, True) for at in (1, 4.9, 20.1)]).all()
    ours = rows("ours", {s: [(n, 1 - f / n) for n in (9, 3)] for s, f in enumerate((1.2, 1.4, 1))})
    ends = {0: (2, 12), 1: (2, 12), 2: (2, 4)}  # the last does not enclose 6
    sae = rows("L1 SAE", {s: [(n, 1 - 0.8 / n) for n in pair] for s, pair in ends.items()})
    table = pd.DataFrame(ours + sae)
    at = tables.at_l0(table, "ours", "solved", 6)
    assert_allclose(at, [1 - f / 6 for f in (1.2, 1.4, 1)])
    assert_allclose(tables.difference(table, "solved", 6, "ours"), [-0.4 / 6, -0.6 / 6])
    ratios = [(1 - f / 6) / (1 - 0.8 / 6) for f in (1.2, 1.4)]
    assert_allclose(tables.difference(table, "solved", 6, "ours", ratio=True), ratios)
    assert_allclose(tables.l0_at(table, "ours", "solved", 1 - 0.2), [6, 7, 5])
    assert tables.bracket(table, "ours", 6) == [1, 0] and tables.bracket(table, "ours", 1) == [1]


def test_the_gap_is_of_solved_decoders():
    table = pd.DataFrame(
        rows("bounded", {0: [(5, 0.6), (20, 0.6)]}, transpose=0.1)
        + rows("L1 SAE", {0: [(5, 0.7), (20, 0.7)]}, transpose=0.9)
        + rows("k-means templates", {0: [(5, 0.5), (20, 0.5)]}, transpose=0.2)
    )
    assert_allclose(tables.gap_closed(table, 10), [0.5])
    assert np.isnan(tables.gap_closed(table, 30)).all()


def test_the_floor_of_principal_components_is_scikit_learns():
    x, x_test = (
        normal(n, 25, seed=n, dtype=torch.float32) * torch.arange(1.0, 26) for n in (90, 50)
    )
    none = pd.DataFrame(rows("k-means templates", {0: [(5, 0.5)]}))
    counts, found = tables.floors(none, x, x_test)["PCA"]
    for n, value in zip(counts, found):
        pca = PCA(n).fit(x)
        kept = ((pca.transform(x_test)) ** 2).sum() / ((x_test - x_test.mean(0)) ** 2).sum()
        assert value == pytest.approx(float(kept), rel=1e-3)


def test_agreement_is_held_against_every_sae():
    pair = {"bounded": (0.8, 0.9), "L1 SAE": (0.7, 0.75), "TopK SAE": (0.5, 0.6), "k-means": (1, 1)}
    shared = pd.DataFrame(
        [
            {"method": m, "setting": s, "seed": seed, "l0": n, "agreement": v}
            for m, values in pair.items()
            for seed, v in zip(("0, 1", "0, 2"), values)
            for s, n in ((1, 5), (2, 20))
        ]
    )
    assert tables.agreement_margin(shared, 10) == pytest.approx(0.05)
    assert np.isnan(tables.agreement_margin(shared[:0], 10))  # one seed


SETTINGS = {"bounded": 50_240, "L1 SAE": 101_200}


@pytest.fixture
def seeds_of(request):
    """A table of two methods for these seeds, and its models, named by their keys."""
    found = []
    for method, count in SETTINGS.items():
        at = [(5, 0.5), (20, 0.7)] if method == "bounded" else [(4, 0.5), (22, 0.8)]
        own = {"parameters": count, "transpose": 0.4, "share": 0.9, "probe": 90.0, "purity": 0.5}
        found += rows(method, dict.fromkeys(request.param, at), **own)
    table = pd.DataFrame(found)
    table["transpose"] = table.solved - 0.05
    return table, {key: key for key in zip(table.method, table.setting, table.seed)}


@pytest.mark.parametrize("seeds_of", [(1, 2), (3,)], indirect=True)
def test_tables_of_any_seeds(seeds_of):
    table, models = seeds_of
    assert tables.nearest(table, models, "bounded", 7)[1:] == (0, table.seed.iloc[0])
    assert tables.nearest(table, models, "bounded", 15, table.seed.iloc[-1])[1] == 1
    paper = pd.DataFrame({"the paper's": ["SAE"], "L0": [30], "MSE": [0.02], "solved MSE": [0.02]})
    result = tables.prices(table, 10, [*SETTINGS], 0.0674, (64, 784), paper, {"bounded": 0.5})
    ours, sae, theirs = result.to_dict("records")
    x = tables.interpolate([5, 20], [0.45, 0.65], 10, True)
    assert ours["Wᵀ or own decoder"] == f"{x:.3f}" and ours["MSE"] == f"{(1 - x) * 0.0674:.4f}"
    counts = [(row["parameters"], row["with the solved decoder"]) for row in (ours, sae, theirs)]
    assert counts == [("50,240", "101,200")] + 2 * [("101,200", "101,200")]
    assert sae["L1 SAE's L0"] == "10.0" and float(ours["L1 SAE's L0"]) < 10
    assert theirs["Wᵀ or own decoder"] == f"{1 - 0.02 / 0.0674:.3f}" and theirs["L0"] == "30.0"
    front = tables.front_page(table, 10, [*SETTINGS], (64, 784))
    assert list(front.iloc[:, 2]) == ["50,240", "101,200"] and front.iloc[0, 4] == "101,200"
    assert ("±" in front.iloc[0, 1]) == (table.seed.nunique() > 1)
    shared = pd.DataFrame(columns=["method", "setting", "seed", "l0", "agreement"])
    assert tables.unit_rows(table, shared, [*SETTINGS], (6, 10), 10).agreement.tolist() == [
        "–",
        "–",
    ]
    assert tables.by_price(table, shared, 10, [*SETTINGS])["Wᵀ"][0] == f"{x:.4f}"
    with pytest.raises(ValueError, match="no rows of unknown"):
        tables.numbers(table, ["bounded", "unknown"], [10], {"solved": 0.01})
    (number,) = tables.numbers(table, ["bounded"], [10], {"solved": 0.01})
    assert len(number["seeds"]) == table.seed.nunique() and number["place"] == "L0 10"


def test_the_record_fits_into_two_gigabytes():
    record = json.loads((ROOT / "figures" / "3_benchmark.json").read_text())
    assert record["environment"]["peak_memory_gb"] <= 1.8
