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

NAN, SETTINGS = np.nan, {"bounded": 50_240, "L1 SAE": 101_200}


def test_decoders_are_fitted_on_training_inputs_and_judged_on_test():
    x, x_test = (normal(n, 6, seed=n, dtype=torch.float32) for n in (300, 200))
    model, total = h.Encoder(6, 5, seed=1), float(((x_test - x_test.mean(0)) ** 2).sum())
    A, A_test = (model.encode(t).detach() for t in (x, x_test))
    W, step = model.W.detach(), (A - A.mean(0)) @ model.W.detach()  # one gain, by least squares
    gain = (step * (x - x.mean(0))).sum() / (step**2).sum()
    x_hats = {"solved": LinearRegression().fit(A, x).predict(A_test)}
    x_hats["transpose"] = x.mean(0) + gain * (A_test - A.mean(0)) @ W
    found = tables.evaluate(model, x, x_test)
    for column, x_hat in x_hats.items():
        expected = 1 - float(((x_test - x_hat) ** 2).sum()) / total
        assert found[column] == pytest.approx(expected, abs=1e-5)
    assert found["share"] == pytest.approx(found["transpose"] / found["solved"])
    assert found["l0"] == pytest.approx((A_test > 0).sum(1).double().mean())


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
    assert_allclose(tables.at_l0(table, "ours", "solved", 6), [1 - f / 6 for f in (1.2, 1.4, 1)])
    assert_allclose(tables.difference(table, "solved", 6, "ours"), [-0.4 / 6, -0.6 / 6])
    assert_allclose(tables.l0_at(table, "ours", "solved", 1 - 0.2), [6, 7, 5])
    assert tables.bracket(table, "ours", 6) == [1, 0] and tables.bracket(table, "ours", 1) == [1]


def test_floors_and_the_gap_are_of_solved_decoders():
    values = {"bounded": (0.6, 0.1), "L1 SAE": (0.7, 0.9), "k-means templates": (0.5, 0.2)}
    some = [rows(k, {0: [(5, v), (20, v)]}, transpose=w) for k, (v, w) in values.items()]
    table = pd.DataFrame(sum(some, []))
    assert_allclose(tables.gap_closed(table, 10), [0.5])
    x, x_test = (normal(n, 25, seed=n) * torch.arange(1.0, 26) for n in (90, 50))
    found, total = tables.floors(table, x, x_test), ((x_test - x_test.mean(0)) ** 2).sum()
    assert found["k-means"] == ([5, 20], [0.5, 0.5])
    kept = [(PCA(n).fit(x).transform(x_test) ** 2).sum() / total for n in found["PCA"][0]]
    assert_allclose(found["PCA"][1], kept)


def test_agreement_is_held_against_every_sae():
    pairs = {"bounded": (0.8, 0.9), "L1 SAE": (0.7, 0.75), "TopK SAE": (0.5, 0.6), "k-means": (1,)}
    some = [rows(m, {i: [(5, v), (20, v)] for i, v in enumerate(p)}) for m, p in pairs.items()]
    shared = pd.DataFrame(sum(some, [])).rename(columns={"solved": "agreement"})
    assert tables.agreement_margin(shared, 10) == pytest.approx(0.05)
    assert np.isnan(tables.agreement_margin(shared[:0], 10))  # one seed
    row = tables.in_rows(shared, shared, ["bounded"], 10, {"a": ("agreement", 10, 2)}).iloc[0]
    assert row.tolist() == ["bounded", "0.85", "0.80", "0.90", "0.85 ± 0.07"]


@pytest.mark.parametrize("seeds", [(1, 2), (3,)])
def test_tables_of_any_seeds(seeds):
    ends = {"bounded": ((5, 0.5), (20, 0.7)), "L1 SAE": ((4, 0.5), (22, 0.8))}
    some = [rows(k, dict.fromkeys(seeds, e), parameters=SETTINGS[k]) for k, e in ends.items()]
    table = pd.DataFrame(sum(some, [])).assign(transpose=lambda t: t.solved - 0.05)
    models = {key: key for key in zip(table.method, table.setting, table.seed)}
    assert tables.nearest(table, models, "bounded", 7)[1:] == (0, seeds[0])
    assert tables.nearest(table, models, "bounded", 15, seeds[-1])[1:] == (1, seeds[-1])
    paper = pd.DataFrame({"the paper's": ["SAE"], "L0": [30], "MSE": [0.02], "solved MSE": [0.02]})
    shown = tables.prices(table, 10, [*SETTINGS], 0.0674, (64, 784), paper, {"bounded": 0.5})
    ours, sae, theirs = shown.to_dict("records")
    x = tables.interpolate([5, 20], [0.45, 0.65], 10, True)
    assert ours["Wᵀ or own decoder"] == f"{x:.3f}" and ours["MSE"] == f"{(1 - x) * 0.0674:.4f}"
    counts = [(row["parameters"], row["parameters, solved"]) for row in (ours, sae, theirs)]
    assert counts == [("50,240", "101,200")] + 2 * [("101,200", "101,200")]
    assert sae["L1 SAE's L0"] == "10.0" and float(ours["L1 SAE's L0"]) < 10
    assert theirs["Wᵀ or own decoder"] == f"{1 - 0.02 / 0.0674:.3f}" and theirs["L0"] == "30"
    assert (ours["±"] == "–") == (len(seeds) == 1)
    assert tables.front_page(shown, 10, ["bounded"])["at L0 10"].tolist() == ["bounded"]


def test_the_record_fits_into_two_gigabytes():
    record = json.loads((ROOT / "figures" / "3_benchmark.json").read_text())
    assert record["environment"]["peak_memory_gb"] <= 1.8
