"""lab/growth.py: how weights and loss change under plain gradient descent, and when that counts as
converged."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

import helpers as h
from lab import growth

SGD = torch.optim.SGD
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def x(digits):
    return digits[0][:1280].double()


def of_living_and_dead_units(n_inputs, n_units, dead):
    model = h.Encoder(n_inputs, n_units)
    model.W.data[dead], model.b.data[dead] = 0, -1
    return model


# --- Growth -------------------------------------------------------------------------------------


def test_the_loss_falls_by_two_if_a_unit_grows_e_fold_without_its_energies(x):
    """theta_j . dL/dtheta_j is -2, of the variance, plus sum_i r_ij E_ij; for a dead unit 0."""
    model = of_living_and_dead_units(196, 16, [2, 5]).double()
    batch = x[:128].double()
    gW, gb = torch.autograd.grad(growth.paper_loss(model, batch), (model.W, model.b))
    derivative = (gW * model.W).sum(1) + gb * model.b
    E = model(batch).detach()
    varying = E.var(0) / (E.var(0) + 1e-6)
    expected = (h.responsibilities(E) * E).sum(0) - 2 * varying
    assert_allclose(derivative.detach(), expected, atol=1e-9)
    assert (derivative[[2, 5]] == 0).all()


def test_the_paper_loss_has_weight_decay_on_weights_alone(x):
    model = h.Encoder(196, 16)
    expected = h.published_loss(model(x[:64])) + 0.5 * 3 * model.W.square().sum()
    assert growth.paper_loss(model, x[:64], decay=3).item() == pytest.approx(expected.item())


def test_layers_are_watched_after_each_epoch(x):
    """Each has its rate, seed and decay; what is seen is what a plain loop gives."""
    rates, seeds, decays = [0.01, 0.002], [4, 7], [0.0, 0.2]
    runs = growth.watch(x, 8, 3, rates, seeds, decay=decays)
    for run, lr, seed, decay in zip(runs, rates, seeds, decays):
        one, seen = h.Encoder(196, 8, seed=seed), {"norm2": [], "L0": []}
        start = (one.W.square().sum() + one.b.square().sum()).item()
        loss = partial(growth.paper_loss, decay=decay)
        for epochs in (1, 2, 3):
            one = h.Encoder(196, 8, seed=seed)
            history = h.fit(one, loss, x, epochs=epochs, lr=lr, optimizer=SGD, seed=seed)
            seen["norm2"].append((one.W.square().sum() + one.b.square().sum()).item())
            seen["L0"].append(h.l0(one(x)))
        assert_allclose(run["norm2"], [start, *seen["norm2"]], rtol=1e-6)
        assert_allclose(run["L0"], seen["L0"], rtol=1e-9)
        assert_allclose(run["loss"], 128 * np.array(history), rtol=1e-6)
        E = one(x)  # all inputs as one minibatch, without decay
        sample = 128 / len(x) * h.lse_loss(E) + h.variance_loss(E) + h.decorrelation_loss(E)
        assert run["loss of a sample"][-1] == pytest.approx(sample.item(), rel=1e-6)
        assert (run["K"], run["lr"], run["living"]) == (8, lr, 8 - h.dead(one(x)))
        assert_allclose(run["model"].W.detach(), one.W.detach(), atol=1e-7)


def test_predicted_length_grows_by_four_rates_a_step_for_each_living_unit():
    """From the end of the first epoch on."""
    run = {"norm2": np.array([0, 3.0, 0, 0]), "living": 14, "lr": 0.01}
    found = growth.predicted_norm2(run, steps_per_epoch=10)
    assert_allclose(found, 3 + 4 * 14 * 0.01 * 10 * np.array([-1, 0, 1, 2]))


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


# --- Loss without scale -------------------------------------------------------------------------


def test_loss_without_scale_is_that_of_living_units_of_length_1(x):
    """Of the InfoMax terms, at any scale; the dead unit adds nothing."""
    model, small = of_living_and_dead_units(196, 8, [7]), h.Encoder(196, 7)
    length = (model.W.square().sum(1) + model.b.square()).sqrt()[:7].detach()
    small.W.data, small.b.data = model.W.data[:7] / length[:, None], model.b.data[:7] / length

    def infomax(model):
        E = model(x).double().detach()
        return float(h.variance_loss(E, eps=1e-6) + h.decorrelation_loss(E))

    expected = infomax(small)
    for _ in range(2):
        model.W.data *= 30
        model.b.data *= 30
        found = growth.loss_without_scale(infomax(model), model, x)
        assert found == pytest.approx(expected, abs=0.02)
