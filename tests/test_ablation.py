"""lab/ablation.py: runs against `helpers.fit`, what stands in the place of competition against
NumPy, and what a run is compared with."""

from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import logsumexp

import helpers as h
from lab import ablation, measures
from lab.ablation import FACTORS, FIELDS, Run

D, K = 6, 5
X = torch.randn(300, D, generator=torch.Generator().manual_seed(0)).double() + 0.3
pytestmark = pytest.mark.usefixtures("float64")


def competition(E):
    return h.lse_loss(E) - h.pooled_lse_loss(E)


def assert_fitted(model, loss, seed, order=None, start=0.0, **options):
    """The encoder is one that `helpers.fit` trains on a loss of its energies, whose history is
    returned."""
    one = h.Encoder(D, K, seed=seed)
    one.W.data += start
    order = seed if order is None else order
    history = h.fit(one, lambda m, x: loss(m(x)), X, seed=order, **options)
    assert_allclose(model.W.detach(), one.W.detach(), atol=1e-9)
    assert_allclose(model.b.detach(), one.b.detach(), atol=1e-9)
    return np.array(history)


# --- Configurations -----------------------------------------------------------------------------

TABLE = pd.DataFrame({"a": [1, 1, 1, 0], "b": [0, 1, 1, 1], "c": [0, 0, 1, 1]}, index=list("ABCD"))


def terms(E, lse, variance, decorrelation, penalty=h.lse_loss):
    of = penalty(E), h.variance_loss(E), h.decorrelation_loss(E)
    return lse * of[0] + variance * of[1] + decorrelation * of[2]


def loss(model, x, **factors):
    return terms(model(x), **factors)


def test_a_configuration_is_trained_with_the_terms_of_its_name():
    models, losses = ablation.train_configurations(TABLE, loss, X, K, [0, 2], epochs=3)
    expected = {
        "B": lambda E: h.lse_loss(E) + h.variance_loss(E),
        "C": lambda E: h.lse_loss(E) + h.infomax_loss(E),
        "D": h.infomax_loss,
        "C without competition": lambda E: h.pooled_lse_loss(E) + h.infomax_loss(E),
    }
    assert set(models) == set(losses) == set(product(["A", *expected], [0, 2]))
    for name, seed in product(expected, [0, 2]):
        history = assert_fitted(models[name, seed], expected[name], seed, epochs=3)
        assert_allclose(losses[name, seed], 128 * history, rtol=1e-8)  # a minibatch's, not a row's


def test_a_is_trained_until_all_units_are_dead_and_no_longer():
    """Also on the rows that an epoch drops. Its loss is then that of 128 rows without energies; the
    mean of the last epoch is above it, for a unit was alive when it began."""
    x = X.abs().repeat(1, 20)
    models, losses = ablation.train_configurations(TABLE, loss, x, K, [0, 2], epochs=30)
    for seed in (0, 2):
        assert h.dead(models["A", seed](x)) == K and 2 < len(losses["A", seed]) < 30
        one = h.Encoder(20 * D, K, seed=seed)
        (first,) = h.fit(one, lambda m, x: h.lse_loss(m(x)), x, epochs=1, seed=seed)
        assert losses["A", seed][0] == pytest.approx(128 * first)
    assert max(losses["A", seed][-1] for seed in (0, 2)) > -128 * np.log(K)


def test_a_variant_is_trained_in_its_minibatches_with_its_weights():
    """And lambda is not of 128 rows: the loss is taken as it is."""
    table = pd.DataFrame([[1, 1, 1, 32], [1, 6, 2, 50], [0, 1, 3, 50]], columns=[*"abc", "rows"])
    runs = ablation.configurations(table, [0, 2])
    models = ablation.train_runs(runs, loss, X, K, names=FACTORS, epochs=2)
    models = {(run.name, run.seed): model for run, model in models.items()}
    assert set(models) == set(product(table.index, [0, 2]))
    for (name, seed), model in models.items():
        *factors, rows = table.loc[name].tolist()
        own = partial(terms, **dict(zip(FACTORS, factors)))
        assert_fitted(model, own, seed, epochs=2, batch_size=rows)


# --- What stands in the place of competition ----------------------------------------------------

CONTROLS = {
    "shuffled": ablation.shuffled_competition,
    "variances only": ablation.variances_only,
    "covariances only": ablation.covariances_only,
}
E = torch.relu(torch.randn(40, K, generator=torch.Generator().manual_seed(1)).double())


def test_shuffled_competition_moves_the_energies_of_unit_j_by_j_rows():
    moved = np.stack([np.roll(E[:, j].numpy(), -j) for j in range(K)], 1)
    expected = -logsumexp(-moved, axis=1).sum() + 40 * (logsumexp(-moved) - np.log(40))
    assert ablation.shuffled_competition(E).item() == pytest.approx(expected)


def test_parts_of_the_variance_against_numpy():
    e = np.exp(-E.numpy())
    cov = np.cov(e.T, ddof=0)
    scale = 40 / (2 * e.sum(1).mean() ** 2)
    found = ablation.variances_only(E).item(), ablation.covariances_only(E).item()
    assert found == pytest.approx((scale * np.trace(cov), scale * (cov.sum() - np.trace(cov))))


# --- Short runs ---------------------------------------------------------------------------------


def test_all_short_runs_are_there_once():
    seeds, weights, doses = [3, 1], [0.0, 0.03, 1.0], [3.0, 10.0]
    options = {"decorrelations": weights, "doses": doses, "strong_doses": [100.0]}
    found = ablation.short_runs(seeds, lams={"B": [0.1, 10.0], "C": [0.03, 1.0]}, **options)
    expected = set()
    for run in (partial(Run, seed) for seed in seeds):
        for c in (1.0, 0.0):  # with competition and without
            expected |= {run(c, w) for w in weights}
            expected |= {run(c, 0.0, lam) for lam in (0.1, 10.0)}
            expected |= {run(c, 1.0, lam) for lam in (0.03, 0.35)}
        expected |= {run(dose, w) for dose in doses for w in (0.0, 1.0)}  # B and C
        expected |= {run(dose, 1.0, 0.35) for dose in (*doses, 100.0)} | {run(100.0)}
        for lam in (1.0, 0.35):
            expected |= {run(lam=lam, change=change) for change in ("start", "order")}
        expected |= {run(10.0, 0.0, change=control) for control in CONTROLS}
    assert len(found) == len(set(found)) and set(found) == expected


def run_terms(E, weight, decorrelation, lam, term=competition):
    infomax = h.variance_loss(E) + decorrelation * h.decorrelation_loss(E)
    return h.pooled_lse_loss(E) + weight * term(E) + lam * infomax


def test_a_run_is_trained_as_its_fields_say():
    """Also where it shares its stack with others, and its seed with some of them."""
    runs = [Run(seed, 10.0, 0.0, change=control) for control in CONTROLS for seed in (0, 2)]
    runs += [Run(2), Run(0, 3.0), Run(2, 0.0, 0.1, 2.0), Run(2, 3.0, 0.0, 0.35), Run(2, 0.0)]
    runs += [Run(0, change="start"), Run(2, change="order"), Run(0, lam=0.35, change="order")]
    runs += [Run(0, rows=50), Run(2, 3.0, rows=50)]
    options = {"epochs": 2, "lr": 0.002, "schedule": [1.0, 0.1]}

    def loss(model, x, **fields):
        return run_terms(model(x), **fields)

    models = ablation.train_runs(runs, loss, X, K, most=3, **options)
    assert set(models) == set(runs)
    noise = 1e-6 * torch.randn(K, D, generator=torch.Generator().manual_seed(0))
    for run, model in models.items():
        term = CONTROLS.get(run.change, competition)
        own = partial(run_terms, term=term, **{name: getattr(run, name) for name in FIELDS})
        order = run.seed + 1000 if run.change == "order" else run.seed
        start = noise if run.change == "start" else 0.0
        assert_fitted(model, own, run.seed, order, start, batch_size=run.rows, **options)


def test_a_run_is_compared_with_the_one_of_its_seed_that_has_competition():
    """By names of models in the place of runs that were trained."""
    partners = {
        Run(1, 0.0): Run(1),
        Run(1, 30.0, 0.0): Run(1, 1.0, 0.0),
        Run(1, 1.0, 1.0, 0.35, change="order"): Run(1, 1.0, 1.0, 0.35),
        Run(1, 10.0, 0.0, change="shuffled"): Run(1, 1.0, 0.0),
        Run(2, 0.0): Run(2),
    }
    runs = [*partners, *dict.fromkeys(partners.values()), Run(3, 0.0)]
    models = {run: h.Encoder(D, K, seed=i) for i, run in enumerate(runs)}
    found = ablation.measure(models, X)
    for (_, row), (run, model) in zip(found.iterrows(), models.items()):
        E = model(X).detach()
        assert Run(**row[list(Run._fields)]) == run
        expected = measures.of_energies(E) | measures.of_competition(E)
        assert row[list(expected)].to_dict() == pytest.approx(expected)
        if run in partners:
            other = models[partners[run]](X).detach()
            assert row.agreement == pytest.approx(measures.agreement(other, E))
            assert row.replaced == measures.n_replaced(other, E) > 0
        else:  # it is the one itself, or there is none
            assert np.isnan(row.agreement) and np.isnan(row.replaced)
