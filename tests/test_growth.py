"""lab/growth.py: how the loss changes under plain gradient descent, and when that counts as
converged."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

import helpers as h
from lab import growth


def test_layers_are_watched_after_each_epoch(float64, monkeypatch):
    """Each has its rate and seed; what is seen, on the first inputs, is what `fit` gives."""
    monkeypatch.setattr(growth, "LOOKED_AT", 50)
    x = torch.rand(640, 30, generator=torch.Generator().manual_seed(0)).double()
    rates, seeds = [0.01, 0.002], [4, 7]
    runs = growth.train_by_sgd(x, 8, 2, rates, seeds)
    for run, lr, seed in zip(runs, rates, seeds):
        options = {"lr": lr, "optimizer": torch.optim.SGD, "seed": seed}
        l0s = []
        for epochs in (1, 2):
            one = h.Encoder(30, 8, seed=seed)
            history = h.fit(one, lambda m, x: h.published_loss(m(x)), x, epochs=epochs, **options)
            l0s.append(h.l0(one(x[:50])))
        assert_allclose(run["l0"], l0s, rtol=1e-9)
        assert_allclose(run["loss"], 128 * np.array(history), rtol=1e-6)
        assert (run["K"], run["lr"], run["living"]) == (8, lr, 8 - h.dead(one(x[:50])))


def test_predicted_loss_falls_by_the_living_units_for_each_e_fold_of_epochs():
    """The run follows the law; its first half, from which nothing is fitted, does not."""
    middle = np.arange(60) + 0.5
    losses = 7 - 14 * np.log(middle)
    run = {"loss": np.where(middle < 30, losses + 5, losses), "living": 14}
    assert_allclose(growth.predicted_loss(run), losses)


def test_convergence_is_declared_where_the_loop_of_the_paper_s_script_does():
    def detect_convergence(curve, threshold):
        for i in range(5, len(curve)):
            if all(abs(curve[j] - curve[j - 1]) < threshold for j in range(i - 4, i + 1)):
                return i - 4

    rng = np.random.default_rng(0)
    curves = [-k * np.log(np.arange(1, 90)) + rng.normal(0, 0.3, 89) for k in (8, 20, 40)]
    curves += [np.ones(5), np.arange(50.0), np.full(50, np.nan)]  # too short, steep, diverged
    found = []
    for losses in curves:
        means = [*pd.Series(losses).rolling(5).mean()]
        expected = [detect_convergence(losses, 1), detect_convergence(means, 1)]
        found += [growth.converged(losses), growth.converged(losses, width=5)]
        assert found[-2:] == expected
    assert all(found[:6]) and found[6:] == [None] * 6


def test_a_loss_that_falls_as_k_log_t_converges_at_k_over_tolerance():
    sizes, epochs = (16, 32, 64, 900), np.arange(200)
    runs = [{"K": k, "lr": 0.1, "loss": -k * np.log(epochs + 0.5)} for k in sizes]
    table = growth.convergence_table(runs, [2.0, 1.0])
    assert [*table["K / tolerance"]] == [8, 16, 16, 32, 32, 64, 450, 900]
    found = table[:6]
    assert (found.raw - found["K / tolerance"]).abs().max() <= 1
    assert (found.averaged - found.raw).between(1, 3).all()  # a mean of five lies two epochs back
    assert table[["raw", "averaged"]][6:].isna().all(axis=None)
    line = stats.linregress(found["K / tolerance"], found.averaged)
    assert growth.fitted_line(table, "averaged") == pytest.approx((line.slope, line.intercept))
    assert np.isnan(growth.fitted_line(table[:1], "raw")).all()
