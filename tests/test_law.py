"""Notebook 2's claims as mathematics, and its bookkeeping."""

from functools import partial

import numpy as np
import pytest
import torch

import helpers as h
from lab import figures_2, law, plots
from lab.data import load_mnist

SGD = {"optimizer": torch.optim.SGD}
PARAMETERS = dict(SEEDS=[0], N_COMPONENTS=8, BATCH_SIZE=128, N_TRAIN=1280, RATES=[0.1], RATE=0.1)
PARAMETERS |= dict(EPOCHS=5, SMALLER=[[2, 5], [3, 5], [5, 5], [9, 5]], PRIOR_EPOCHS=5, KILL=[1, 1])
PARAMETERS |= dict(SETTLED={"A": 1, "B": 1, "D": 1}, SLOW_START=1, PRICES=[1.0])


@pytest.fixture(scope="module")
def x():
    return load_mnist()[0][:1280]


def descend(x, k=32, rates=(0.01,), epochs=8, loss=h.published_loss, kill=()):
    """Layers of k units under plain SGD, some of them dead from the start."""
    models = [h.Encoder(784, k) for _ in rates]
    for model in models:
        model.W.data[list(kill)], model.b.data[list(kill)] = 0, -1
    return law.watch(models, loss, x, epochs=epochs, lr=list(rates), title=None, **SGD)


def test_the_derivative_in_the_logarithm_of_a_unit_s_scale(x):
    """<grad_j L, theta_j> = S_j - 2, term by term: decorrelation has no say."""
    model = h.Encoder(784, 8).double()
    E = model(x[:128].double())
    S = (h.responsibilities(E) * E).sum(0)
    variance = partial(h.variance_loss, eps=0)
    for term, expected in ((h.lse_loss, S), (variance, -2), (h.decorrelation_loss, 0)):
        W, b = torch.autograd.grad(term(E), model.parameters(), retain_graph=True)
        pull = (W * model.W).sum(1) + b * model.b
        assert torch.allclose(pull, torch.zeros(8).double() + expected, atol=1e-9)


def test_growth_of_living_and_dead_units(x):
    for run in descend(x, rates=(0.01, 0.02), kill=[2, 5]):
        (rise, predicted), alive = law.growth(run), law.living(run)
        assert set(np.flatnonzero(~alive)) >= {2, 5} and alive.sum() >= 25
        assert np.abs(rise[[2, 5]]).max() == 0  # exactly: no gradient
        assert abs(law.growth_error(run)) < 0.03
        assert np.allclose(rise[alive], predicted[alive], rtol=0.1)


@pytest.mark.parametrize("lam", [1.0, 2.0])
def test_try_it_another_price(x, lam):
    """At another lambda the scale grows by 4 lambda - 2 S_j."""
    (run,) = descend(x, loss=partial(h.published_loss, lam=lam))
    rise, predicted = (v[law.living(run)].mean() for v in law.growth(run, lam=lam))
    assert abs(rise / predicted - 1) < 0.03 and predicted > 3 * lam


def test_the_log_sum_exp_only_counts(x):
    """-log sum exp(-cE) -> -log(K - n) on trained energies with a unit at rest in every row."""
    E = descend(x, k=16)[0]["model"].encode(x).detach().double()
    E = E[(E == 0).any(1)]
    resting = (E == 0).sum(1).double().log()
    gaps = [float((torch.logsumexp(-c * E, 1) - resting).mean()) for c in (1, 10, 100, 1000)]
    assert len(E) > 500 and sorted(gaps, reverse=True) == gaps and gaps[-1] < 1e-3 < gaps[0]


@pytest.mark.parametrize("k", [16, 32, 64])
def test_the_paper_s_test_is_met_at_the_number_of_units(k):
    run = {"K": k, "tau": 0.5 * np.arange(101), "living": np.ones((101, k), bool)}
    run["norm2"] = 0.3 + 4 * run["tau"][:, None] + np.zeros(k)
    run["loss"] = -k * np.log(np.arange(100) + 0.5 + 0.3 / 2)
    assert abs(law.slope_error(run)) < 1e-9
    assert abs(law.converged(run["loss"]) - k) <= 1 and abs(law.smoothed(run["loss"]) - k) <= 1
    assert law.converged([9, 7, 5, 4.5, 4, 3.5, 3, 2.5]) == 3  # the script's: the first of five


def test_the_prior_s_floor_and_the_record_of_a_code(x):
    kappa, model = h.prior(x - x.mean(0), 8), h.Encoder(784, 8).requires_grad_(False)
    found, rows = law.code_record([model], [93.0], x, x), model(x) @ model.W
    rows = (rows / rows.norm(dim=1, keepdim=True) * x.norm(dim=1, keepdim=True)).nan_to_num()
    by_hand = float((rows - x).square().mean())
    assert found["norm_matched_error"] == [pytest.approx(by_hand, rel=1e-5)]
    assert found["solved_error"] < found["transpose_error"] < [float(x.var(0).mean())]
    assert found["probe"] == [93.0] and 0 < found["l0"][0] < 8
    for factor in (0.1, 3, 10 / 3, 3):  # scales of 0.1, 0.3, 1 and 3
        model.W *= factor
        assert float(h.published_loss(model, x[:128], kappa=kappa)) > law.floor(x, 8, kappa)


def test_faults_are_said_at_once():
    law.check(PARAMETERS)  # four sizes, one rate
    faults = {"SEEDS": [], "RATE": 0.2, "N_TRAIN": 500, "EPOCHS": 3, "KILL": [0, 1]}
    for name, value in faults.items():
        with pytest.raises(ValueError, match=name):
            law.check(PARAMETERS | {name: value})


def test_figures_of_any_number_of_sizes_and_rates(x):
    runs = [run for k in (2, 3, 5, 9) for run in descend(x, k, (0.01,), epochs=5)]
    pair = dict(zip(("twin", "killed"), runs))
    figures = figures_2.growth_figure(runs, 9), figures_2.law_figure(runs[:1], {})
    figures += (
        figures_2.law_figure(runs, {"Adam": runs[0]["loss"]}),
        figures_2.killed_figure(pair, 1),
    )
    assert {fig.get_size_inches()[0] for fig in figures} == {plots.TWO}
    assert list(law.law_table(runs).index) == [f"K {k}, 0.01" for k in (2, 3, 5, 9)]
