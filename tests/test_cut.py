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

CONFIGS = {"A": (1, 0, 0), "B": (1, 1, 0), "C": (1, 1, 1), "D": (0, 1, 1), "V": (0, 1, 0)}


@pytest.fixture(scope="module")
def x():
    return load_mnist()[0][:640]


def by_hand(x, seed, loss, order=None, jolt=0.0):
    """A layer of 8 units after one epoch of the plain loop, under a loss of energies."""
    model = h.Encoder(784, 8, seed=seed)
    model.W.data += jolt
    h.fit(
        model, lambda model, x: loss(model(x)), x, epochs=1, seed=seed if order is None else order
    )
    return model.W


def test_the_terms_of_a_to_d(x):
    losses = {
        "A": h.lse_loss,
        "B": lambda E: h.lse_loss(E) + h.variance_loss(E),
        "C": lambda E: h.lse_loss(E) + h.variance_loss(E) + h.decorrelation_loss(E),
        "D": lambda E: h.variance_loss(E) + h.decorrelation_loss(E),
        "V": h.variance_loss,
    }
    stack = [(name, seed) for name in CONFIGS for seed in (0, 2)]
    found = cut.ablate(CONFIGS, stack, x, x, K=8, epochs=1, title=None)
    for (name, seed), (model, seen) in found.items():
        assert torch.allclose(model.W, by_hand(x, seed, losses[name]), atol=1e-5), name
        assert seen["L0"] == [h.l0(model(x))] and seen["redundancy"] == [h.redundancy(model(x))]
        norm2 = float(model.W.square().sum() + model.b.square().sum())
        assert seen["norm2"] == [pytest.approx(norm2, rel=1e-5)]


def test_the_runs_of_the_cut_and_of_its_controls(x):
    """Each is what its name says: price, lambda, weight, start and order of the data."""

    def loss(price, lam, weight):
        return lambda E: price(E) + lam * (h.variance_loss(E) + weight * h.decorrelation_loss(E))

    jobs = cut.jobs(
        x, 8, [0, 2], prices=[0.5], weights=[0.1], higher=2.0, denser=[4.0], epochs=1, title=None
    )
    found = {run: model for job in jobs for run, model in job().items()}
    kinds = [run[0] for run in found if run[-1] == 2]
    assert Counter(kinds) == dict(own=5, cut=4, order=3, start=2, none=2)
    assert {run[1:3] for run in found if run[0] == "cut"} == {(0.5, 1), (1, 0), (1, 0.1), (1, 1)}
    assert ("own", 4.0, 1.0, 0) in found and ("own", 4.0, 1.0, 2) not in found
    for (kind, lam, weight, seed), model in found.items():
        price = {"cut": h.uncoupled_loss, "none": lambda E: 0 * E.sum()}.get(kind, h.lse_loss)
        order = seed + 1000 if kind == "order" else seed
        W = by_hand(x, seed, loss(price, lam, weight), order)
        if kind == "start":
            change = (model.W - found["own", lam, weight, seed].W).abs()
            assert 1e-8 < change.median() < 1e-5
        else:
            assert torch.allclose(model.W, W, atol=2e-5), kind


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
    expected = {"L0": (E > 0).sum(1).double().mean(), "redundancy": (R**2).sum()}
    expected |= {"entropy": stats.entropy(r, axis=1).mean()}
    assert all(row[name] == pytest.approx(float(v)) for name, v in expected.items())
    expected["on active, %"] = 100 * (r * (E.numpy() > 0)).sum(1).mean()
    expected["spread of Z, %"] = 100 * np.std(Z, ddof=1) / Z.mean()
    assert cut.measures(E) == pytest.approx({k: float(v) for k, v in expected.items()})


def permuted(model, order):
    other = h.Encoder(784, len(order))
    other.load_state_dict({"W": model.W.data[order], "b": model.b.data[order]})
    return other


def test_units_are_compared_with_the_same_run_and_matched_one_to_one(x):
    own, order = h.Encoder(784, 8, seed=0), [3, 1, 0, 2, 7, 4, 6, 5]
    twin, next_seed = permuted(own, order), h.Encoder(784, 8, seed=1)
    runs = {("own", 1.0, 1.0, 4): own, ("cut", 1.0, 1.0, 4): twin, ("own", 1.0, 1.0, 5): next_seed}
    runs |= {("order", 1.0, 0.0, 4): twin}  # as it was: not among the runs
    a, b, c, d = cut.table(runs, x).agreement
    assert b == pytest.approx(1) and a == pytest.approx(c) and a < 0.9 and np.isnan(d)
    assert np.isnan(cut.table({("own", 1.0, 1.0, 4): own}, x).agreement[0])  # a single seed
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
    table = pd.DataFrame(rows)
    assert cut.ratios(table, "cut", 1.5) == pytest.approx([3, 3])
    assert cut.ratios(table, "cut") == pytest.approx(
        [3 * (20.3 / 18) ** 1.5, 3 * (20.8 / 18) ** 1.5]
    )
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
    centred = model(x_train) - model(x_train).mean(0)
    gain = ((centred @ model.W) * x_train).sum() / (centred @ model.W).square().sum()
    by_rows = x_train.mean(0) + gain * (model(x_test) - model(x_train).mean(0)) @ model.W
    error = float((by_rows - x_test).square().mean())
    assert found["transpose_error"] == [pytest.approx(error, rel=1e-4)]
    assert found["probe"] == [93.0] and found["l0"] == [h.l0(model(x_test))]
