"""Notebook 2's law: growth, slope, stop and floor, at any batch size."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import helpers as h
from lab import figures_2, law, plots
from lab.data import load_mnist

SGD = {"optimizer": torch.optim.SGD, "title": None}
PARAMETERS = dict(SEEDS=[0], N_COMPONENTS=8, BATCH_SIZE=128, N_TRAIN=2560, RATES=[0.1], RATE=0.1)
PARAMETERS |= dict(EPOCHS=5, SMALLER=[[2, 5], [3, 5], [5, 5]], PRIOR_EPOCHS=5, KILL=[1, 1])
PARAMETERS |= dict(SETTLED={"A": 1, "B": 1, "D": 1}, CUT_EPOCHS=1, CUT_AT=[1.0], WEIGHTS=[0, 1])
PARAMETERS |= dict(TOLERANCES=[1.0])


@pytest.fixture(scope="module")
def x():
    return load_mnist()[0][:1280]


@pytest.mark.parametrize("batch, lam", [(128, 1.0), (128, 2.0), (256, 1.0)])
def test_growth_of_living_and_dead_units(x, batch, lam):
    """4 lambda - 2 S_j at 128 rows, and twice the volume terms at 256."""
    model = h.Encoder(784, 16)
    model.W.data[[2, 5]], model.b.data[[2, 5]] = 0, -1
    loss, options = partial(h.published_loss, lam=lam), {"epochs": 8, "batch_size": batch, **SGD}
    (run,) = law.watch([model], loss, x, lr=0.01, **options)
    (rise, predicted), alive = law.growth(run, lam=lam), law.living(run)
    assert not alive[[2, 5]].any() and alive.sum() >= 12 and (rise[[2, 5]] == 0).all()
    assert rise[alive].mean() == pytest.approx(predicted[alive].mean(), rel=0.03 * batch / 128)
    assert law.growth_error(run | {"volume": lam * run["volume"]}) == pytest.approx(
        rise[alive].mean() / predicted[alive].mean() - 1
    )
    E = model(x).detach()
    S = batch * (torch.softmax(-E, 1) * E).mean(0)
    assert np.allclose(run["S"][-1], S, rtol=1e-4) and run["L0"][-1] == h.l0(E)
    assert run["tau"][-1] == pytest.approx(0.01 * 8 * (1280 // batch))


@pytest.mark.parametrize("k, batch", [(16, 128), (64, 128), (16, 256)])
def test_slope_and_stop_of_a_run_that_follows_the_law(k, batch):
    c = batch / 128
    run = {"K": k, "lr": 0.1, "tau": 0.5 * np.arange(101), "living": np.ones((101, k), bool)}
    run |= {"norm2": 0.3 + 4 * c * run["tau"][:, None] + np.zeros(k), "volume": c}
    run["loss"] = -c * k * np.log(np.arange(100) + 0.5 + 0.3 / (2 * c))
    assert abs(law.slope_error(run)) < 1e-9
    table = law.stops([run], [4.0, 2.0, 1.0])
    assert list(table["K / tolerance"]) == [c * k / 4, c * k / 2, c * k]
    assert (table.raw - table["K / tolerance"]).abs().max() <= 1
    late = table.smoothed - table["K / tolerance"]  # the mean of five lies two epochs back
    assert late.between(1, 4).all()
    line = stats.linregress(table["K / tolerance"], table.smoothed)
    assert law.stop_line(table, "smoothed") == pytest.approx((line.slope, line.intercept))
    assert abs(line.slope - 1) < 0.1 and np.isnan(law.stop_line(table[:1], "raw")).all()


def test_the_stop_is_the_author_s_loop():
    def detect_convergence(curve, threshold):  # as in his script
        for i in range(5, len(curve)):
            if all(abs(curve[j] - curve[j - 1]) < threshold for j in range(i - 4, i + 1)):
                return i - 4

    rng = np.random.default_rng(0)
    for k in (8, 20, 40):
        losses = -k * np.log(np.arange(1, 90)) + rng.normal(0, 0.3, 89)
        means = pd.Series(losses).rolling(5).mean()
        for tolerance in (3, 1.5, 1):
            assert law.stop(losses, tolerance) == detect_convergence(losses, tolerance)
            assert law.stop(losses, tolerance, 5) == detect_convergence(list(means), tolerance)
    assert law.stop([1, 1, 1, 1, 1]) is None


@pytest.mark.parametrize("batch", [128, 256])
def test_loss_less_scale_sees_neither_scale_nor_the_dead(x, batch):
    """Of the volume terms: what they are for the living units alone, all of length 1."""
    model, small = h.Encoder(784, 8).requires_grad_(False), h.Encoder(784, 7).requires_grad_(False)
    model.W[7], model.b[7] = 0, -1
    length = (model.W.square().sum(1) + model.b.square()).sqrt()[:7]
    small.W.copy_(model.W[:7] / length[:, None])
    small.b.copy_(model.b[:7] / length)
    volume = partial(h.published_loss, x=x[:batch].double(), lse=0)
    for _ in range(2):
        model.W *= 30
        model.b *= 30
        row = ("SGD", 0.1, volume(model), model, 90.0)
        (found,) = law.dynamics_table([row], x, batch).to_dict("records")
        assert found["loss less scale"] == pytest.approx(float(volume(small)), abs=0.02)
        assert found["dead"] == 1 and found["probe, %"] == 90


@pytest.mark.parametrize("batch", [64, 128, 256])
def test_the_prior_s_floor(x, batch):
    kappa, c = h.prior(x - x.mean(0), 8), batch / 128
    floor, model = law.floor(x, 8, kappa, batch), h.Encoder(784, 8).requires_grad_(False)
    sizes = (np.linalg.norm((rows - rows.mean(0)).numpy(), 2) for rows in x.split(batch))
    widest = max(sizes) ** 2 / (batch - 1)
    assert floor == pytest.approx(c * 8 * (1 - np.log(widest / kappa) - 16 * np.log(8)), rel=1e-4)
    for factor in (0.1, 3, 10 / 3, 3):  # scales of 0.1, 0.3, 1 and 3
        model.W *= factor
        assert float(h.published_loss(model, x[:batch], kappa=kappa)) > floor


def test_faults_are_said_at_once():
    for odd in ({}, {"SEEDS": [3]}, {"SEEDS": [1, 2]}, {"N_COMPONENTS": 5}, {"BATCH_SIZE": 256}):
        law.check(PARAMETERS | odd)
    faults = {"SEEDS": [], "RATE": 0.2, "N_TRAIN": 500, "EPOCHS": 3, "KILL": [0, 1], "WEIGHTS": []}
    twice = {"SEEDS": [1, 1], "RATES": [0.1, 0.1], "SMALLER": [[2, 5], [2, 6]]}
    for name, value in [*faults.items(), *twice.items()]:
        with pytest.raises(ValueError, match=name):
            law.check(PARAMETERS | {name: value})


def test_killed_units_and_figures_of_any_number_of_sizes_and_rates(x):
    pair = law.kill(x, 16, 1, 5, lr=0.01, **SGD)
    assert not law.living(pair["killed"])[::2].any() and law.living(pair["twin"])[::2].all()
    assert (pair["killed"]["norm2"][:, ::2] == 1).all()  # b = -1, W = 0, and no gradient
    assert np.allclose(*(pair[name]["norm2"][0, 1::2] for name in pair))
    runs = [run for k in (2, 5, 9) for run in law.descend(x, k, 5, [0.01], [3], **SGD)]
    stops = law.stops(runs, [40.0, 20.0])
    figures = [figures_2.growth_figure(runs, 9), figures_2.pair_figure(pair, ["twin"], 1, -9.0)]
    figures += [figures_2.law_figure(runs, {}, stops)]
    figures += [figures_2.law_figure(runs[:1], {"Adam": runs[0]["loss"]}, stops[:2])]
    assert {fig.get_size_inches()[0] for fig in figures} == {plots.ONE, plots.TWO}
