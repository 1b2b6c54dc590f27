"""Notebook 2's runs, A to D and the cut: against a plain loop, NumPy, SciPy and scikit-learn."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LinearRegression

import helpers as h
from lab import cut
from lab.data import load_mnist

CONFIGS = {"A": (1, 0, 0, 0), "B": (1, 0, 1, 0), "C": (1, 0, 1, 1), "D": (0, 0, 1, 1)}
CONFIGS |= {"V": (0, 0, 1, 0), "CUT": (0, 1, 1, 1)}


@pytest.fixture(scope="module")
def x():
    return load_mnist()[0][:640]


def by_hand(x, seed, order, loss):
    """W of 8 units after one epoch of the plain loop, under a loss of energies."""
    model = h.Encoder(784, 8, seed=seed)
    h.fit(model, lambda model, x: loss(model(x)), x, epochs=1, seed=order)
    return model.W.detach()


def test_the_terms_of_a_to_d(x):
    v, d = h.variance_loss, h.decorrelation_loss
    losses = {"A": h.lse_loss, "B": lambda E: h.lse_loss(E) + v(E), "D": lambda E: v(E) + d(E)}
    losses |= {"C": lambda E: h.lse_loss(E) + v(E) + d(E), "V": v}
    losses["CUT"] = lambda E: h.uncoupled_loss(E) + v(E) + d(E)
    stack = [(name, seed) for name in CONFIGS for seed in (0, 2)]
    found = cut.ablate(CONFIGS, stack, x, x[:99], K=8, epochs=1, title=None)
    for (name, seed), (model, seen) in found.items():
        assert torch.allclose(model.W, by_hand(x, seed, seed, losses[name]), atol=1e-5), name
        E, norm2 = model(x[:99]).detach(), sum(float(p.square().sum()) for p in model.parameters())
        assert seen["L0"] == [h.l0(E)] and seen["redundancy"] == [h.redundancy(E)]
        assert seen["norm2"] == [pytest.approx(norm2, rel=1e-5)]


def test_the_runs_of_the_cut_and_of_its_controls(x):
    """Each is what its name says: price, lambda, weight, start and order of the data."""
    plan = {"prices": [0.5], "weights": [0.1], "higher": 2.0, "denser": 4.0}
    jobs = cut.jobs(x, 8, [0, 2], **plan, epochs=1, title=None)
    found = {run: model for job in jobs for run, model in job().items()}
    kinds = Counter(run[0] for run in found if run[-1] == 2)
    assert kinds == dict(own=5, cut=4, order=3, start=2, none=2)
    assert {run[1:3] for run in found if run[0] == "cut"} == {(0.5, 1), (1, 0), (1, 0.1), (1, 1)}
    assert ("own", 4.0, 1.0, 0) in found and ("own", 2.0, 0.0, 2) in found
    for (kind, lam, weight, seed), model in found.items():
        price = {"cut": h.uncoupled_loss, "none": lambda E: 0 * E.sum()}.get(kind, h.lse_loss)
        volume = lambda E: h.variance_loss(E) + weight * h.decorrelation_loss(E)  # noqa
        order = seed + 1000 if kind == "order" else seed
        W = by_hand(x, seed, order, lambda E: price(E) + lam * volume(E))  # noqa
        change = (model.W - W).abs()
        assert 1e-8 < change.median() < 1e-5 if kind == "start" else change.max() < 2e-5, kind


def test_measures():
    E = torch.relu(torch.randn(500, 6, generator=torch.Generator().manual_seed(1)).double())
    E[:, 5] = 0  # dead
    e = np.exp(-E.numpy())
    Z, r = e.sum(1), e / e.sum(1, keepdims=True)
    (row,) = cut.ablation_table({("C", 7): E}).to_dict("records")
    assert (row["config"], row["seed"], row["dead"], row["low variance"]) == ("C", 7, 1, 1)
    assert row["largest usage"] == pytest.approx(r.mean(0).max())
    assert row["effective units"] == pytest.approx(np.exp(stats.entropy(r.mean(0))))
    R = np.corrcoef(E[:, :5].numpy().T) - np.eye(5)
    expected = {"L0": float((E > 0).sum(1).double().mean()), "redundancy": (R**2).sum()}
    expected |= {"entropy": stats.entropy(r, axis=1).mean()}
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    expected["on active, %"] = 100 * (r * (E.numpy() > 0)).sum(1).mean()
    expected["spread of Z, %"] = 100 * np.std(Z, ddof=1) / Z.mean()
    assert cut.measures(E) == pytest.approx(expected)


def test_units_are_compared_with_the_same_run_and_matched_one_to_one(x):
    own, twin, order = h.Encoder(784, 8), h.Encoder(784, 8), [3, 1, 0, 2, 7, 4, 6, 5]
    twin.load_state_dict({"W": own.W.data[order], "b": own.b.data[order]})
    runs = {("own", 1.0, 1.0, 4): own, ("cut", 1.0, 1.0, 4): twin}
    assert np.isnan(cut.table(runs, x).agreement[0])  # a single seed
    runs |= {("own", 1.0, 1.0, 5): h.Encoder(784, 8, seed=1), ("order", 1.0, 0.0, 4): twin}
    a, b, c, d = cut.table(runs, x).agreement
    assert b == pytest.approx(1) and a == pytest.approx(c) and a < 0.9 and np.isnan(d)
    rows = cut.matched_rows(own, [twin, twin], x, n=3)
    assert rows[0] == rows[1] == rows[2] and np.shape(rows) == (3, 3, 784)
    assert np.abs(np.array(rows[0]) - own.W[:3].detach().numpy()).max() <= 5.1e-4


def test_redundancy_at_equal_lambda_and_at_equal_l0():
    """Where redundancy is 100 L0^1.5 with own denominators, and three times that without."""
    rows = [
        {"kind": kind, "lam": lam, "weight": 0.0, "seed": seed, "L0": l0}
        | {"redundancy": (3 if kind == "cut" else 1) * 100 * l0**1.5}
        for seed in (3, 8)
        for kind, lam, l0 in (("own", 1.0, 18), ("own", 1.5, 24), ("cut", 1.0, 20 + seed / 10))
    ]
    table, apart = pd.DataFrame(rows), [3 * (l0 / 18) ** 1.5 for l0 in (20.3, 20.8)]
    assert cut.ratios(table, "cut", 1.5) == pytest.approx([3, 3])
    assert cut.ratios(table, "cut") == pytest.approx(apart)
    curve, own = cut.curves(table)["batch's mean"], cut.curves(table)["own"]
    assert np.divide(curve["0"], own["0"]) == pytest.approx(apart)
    table.loc[table.kind == "cut", "L0"] = 30.0  # outside: nothing is extrapolated
    assert np.isnan(cut.ratios(table, "cut", 1.5)).all()


def test_the_record_of_a_code_is_of_test_digits_by_decoders_of_training_digits(x):
    x_train, x_test, model = x[:400], x[400:], h.Encoder(784, 8).requires_grad_(False)
    found, rows = cut.code_record([model], [93.0], x_train, x_test), model(x_test) @ model.W
    rows = rows / rows.norm(dim=1, keepdim=True) * x_test.norm(dim=1, keepdim=True)
    error = float((rows.nan_to_num() - x_test).square().mean())
    assert found["norm_matched_error"] == [pytest.approx(error, rel=1e-5)]
    solved = LinearRegression().fit(model(x_train), x_train).predict(model(x_test))
    assert found["solved_error"] == [pytest.approx(np.square(solved - x_test.numpy()).mean(), 1e-4)]
    assert found["solved_error"] < found["transpose_error"]
    assert found["probe"] == [93.0] and found["l0"] == [h.l0(model(x_test))]
