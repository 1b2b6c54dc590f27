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

X = torch.rand(640, 30, generator=torch.Generator().manual_seed(0)).double()
pytestmark = pytest.mark.usefixtures("float64")


def paper_loss(model, x):
    return h.published_loss(model(x))


# --- Growth -------------------------------------------------------------------------------------


def test_the_loss_falls_by_two_if_a_unit_grows_e_fold_without_its_energies():
    """theta_j . dL/dtheta_j is -2, of the variance, plus sum_i r_ij E_ij; for a dead unit 0."""
    model = h.Encoder(30, 16)
    model.W.data[[2, 5]], model.b.data[[2, 5]] = 0, -1
    gW, gb = torch.autograd.grad(paper_loss(model, X[:128]), (model.W, model.b))
    derivative = (gW * model.W).sum(1) + gb * model.b
    E = model(X[:128]).detach()
    varying = E.var(0) / (E.var(0) + 1e-6)
    expected = (h.responsibilities(E) * E).sum(0) - 2 * varying
    assert_allclose(derivative.detach(), expected, atol=1e-9)
    assert (derivative[[2, 5]] == 0).all() and varying.median() > 0.999


def test_layers_are_watched_after_each_epoch(monkeypatch):
    """Each has its rate and seed; what is seen, on the first inputs, is what `fit` gives."""
    monkeypatch.setattr(growth, "LOOKED_AT", 50)
    rates, seeds = [0.01, 0.002], [4, 7]
    runs = growth.watch(X, 8, 3, rates, seeds)
    for run, lr, seed in zip(runs, rates, seeds):
        l0s = []
        for epochs in (1, 2, 3):
            one = h.Encoder(30, 8, seed=seed)
            options = {"epochs": epochs, "lr": lr, "optimizer": torch.optim.SGD, "seed": seed}
            history = h.fit(one, paper_loss, X, **options)
            l0s.append(h.l0(one(X[:50])))
        assert_allclose(run["L0"], l0s, rtol=1e-9)
        assert_allclose(run["loss"], 128 * np.array(history), rtol=1e-6)
        assert (run["K"], run["lr"], run["living"]) == (8, lr, 8 - h.dead(one(X[:50])))


def test_predicted_loss_falls_by_the_living_units_for_each_e_fold_of_epochs():
    """The run follows the law; its first half, from which nothing is fitted, does not."""
    middle = np.arange(60) + 0.5
    losses = 7 - 14 * np.log(middle)
    run = {"loss": np.where(middle < 30, losses + 5, losses), "living": 14}
    assert_allclose(growth.predicted_loss(run), losses)


# --- Convergence --------------------------------------------------------------------------------


def test_convergence_is_declared_where_the_loop_of_the_paper_s_script_does():
    def detect_convergence(curve, threshold):
        for i in range(5, len(curve)):
            if all(abs(curve[j] - curve[j - 1]) < threshold for j in range(i - 4, i + 1)):
                return i - 4

    rng = np.random.default_rng(0)
    for k in (8, 20, 40):
        losses = -k * np.log(np.arange(1, 90)) + rng.normal(0, 0.3, 89)
        means = [*pd.Series(losses).rolling(5).mean()]
        for tolerance in (3, 1.5, 1):
            assert growth.converged(losses, tolerance) == detect_convergence(losses, tolerance)
            assert growth.converged(losses, tolerance, 5) == detect_convergence(means, tolerance)


@pytest.mark.parametrize("losses", [[1] * 5, [1, 1], [*range(50)], [np.nan] * 50])
def test_convergence_is_not_declared(losses):
    assert growth.converged(losses) is None and growth.converged(losses, width=5) is None


def test_a_loss_that_falls_as_k_log_t_converges_at_k_over_tolerance():
    runs = [
        {"K": k, "lr": 0.1, "loss": -k * np.log(np.arange(200) + 0.5)} for k in (16, 32, 64, 900)
    ]
    table = growth.convergence_table(runs, [2.0, 1.0])
    assert [*table["K / tolerance"]] == [8, 16, 16, 32, 32, 64, 450, 900]
    found = table[:6]
    assert (found.raw - found["K / tolerance"]).abs().max() <= 1
    assert (found.averaged - found.raw).between(1, 3).all()  # a mean of five lies two epochs back
    assert table[["raw", "averaged"]][6:].isna().all(axis=None)
    line = stats.linregress(found["K / tolerance"], found.averaged)
    assert growth.fitted_line(table, "averaged") == pytest.approx((line.slope, line.intercept))
    assert np.isnan(growth.fitted_line(table[:1], "raw")).all()
