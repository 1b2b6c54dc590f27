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
from lab.ablation import Run

D, K = 6, 5
X = torch.randn(300, D, generator=torch.Generator().manual_seed(0)).double() + 0.3
pytestmark = pytest.mark.usefixtures("float64")


def energies(n=40, k=K):
    return torch.relu(torch.randn(n, k, generator=torch.Generator().manual_seed(1)).double())


def competition(E):
    return h.lse_loss(E) - h.pooled_lse_loss(E)


def fitted(loss, seed, order=None, start=0.0, **options):
    """An encoder after `helpers.fit` on a loss of its energies, and the history."""
    model = h.Encoder(D, K, seed=seed)
    model.W.data += start
    order = seed if order is None else order
    return model, h.fit(model, lambda m, x: loss(m(x)), X, seed=order, **options)


def assert_same(model, other):
    assert_allclose(model.W.detach(), other.W.detach(), atol=1e-9)
    assert_allclose(model.b.detach(), other.b.detach(), atol=1e-9)


# --- Configurations -----------------------------------------------------------------------------

TABLE = pd.DataFrame({"a": [1, 1, 1, 0], "b": [0, 1, 1, 1], "c": [0, 0, 1, 1]}, index=list("ABCD"))


def loss(model, x, lse, variance, decorrelation):
    E = model(x)
    terms = h.lse_loss(E), h.variance_loss(E), h.decorrelation_loss(E)
    return lse * terms[0] + variance * terms[1] + decorrelation * terms[2]


TERMS = {
    "B": lambda E: h.lse_loss(E) + h.variance_loss(E),
    "C": lambda E: h.lse_loss(E) + h.variance_loss(E) + h.decorrelation_loss(E),
    "D": lambda E: h.variance_loss(E) + h.decorrelation_loss(E),
    "C without competition": lambda E: (
        h.pooled_lse_loss(E) + h.variance_loss(E) + h.decorrelation_loss(E)
    ),
}


def test_a_configuration_is_trained_with_the_terms_of_its_name():
    found = ablation.train_configurations(TABLE, loss, X, K, [0, 2], epochs=3)
    assert set(found) == set(product(["A", *TERMS], [0, 2]))
    for name, seed in product(TERMS, [0, 2]):
        one, history = fitted(TERMS[name], seed, epochs=3)
        model, losses = found[name, seed]
        assert_same(model, one)
        assert_allclose(losses, 128 * np.array(history), rtol=1e-8)  # a minibatch's, not a row's


@pytest.mark.parametrize("rows", [256, 300])
def test_a_is_trained_until_all_units_are_dead_and_no_longer(rows):
    """Also on the rows that an epoch drops. Its loss is then that of 128 rows without energies; the
    mean of the last epoch is above it, for a unit was alive when it began."""
    x = X[:rows].abs().repeat(1, 20)
    found = ablation.train_configurations(TABLE, loss, x, K, [0, 2], epochs=30)
    for seed in (0, 2):
        model, losses = found["A", seed]
        assert h.dead(model(x)) == K and 2 < len(losses) < 30
        one = h.Encoder(20 * D, K, seed=seed)
        (first,) = h.fit(one, lambda m, x: h.lse_loss(m(x)), x, epochs=1, seed=seed)
        assert losses[0] == pytest.approx(128 * first)
    assert max(found["A", seed][1][-1] for seed in (0, 2)) > -128 * np.log(K)
    two = ablation.train_configurations(TABLE, loss, x, K, [0, 2], epochs=2)
    assert len(two["A", 0][1]) == 2 and h.dead(two["A", 0][0](x)) < K


def test_a_variant_is_trained_in_its_minibatches_with_its_weights():
    """And lambda is not of 128 rows: the loss is taken as it is."""
    rows = {"c 32": (1, 1, 1, 32), "heavy": (1, 6, 2, 50), "d": (0, 1, 3, 50)}
    table = pd.DataFrame.from_dict(rows, orient="index")
    found = ablation.train_variants(table, loss, X, K, [0, 2], epochs=2)
    assert set(found) == set(product(rows, [0, 2]))
    for (name, seed), model in found.items():
        lse, variance, decorrelation, size = rows[name]

        def own(E, a=lse, b=variance, c=decorrelation):
            return a * h.lse_loss(E) + b * h.variance_loss(E) + c * h.decorrelation_loss(E)

        assert_same(model, fitted(own, seed, epochs=2, batch_size=size)[0])


# --- What stands in the place of competition ----------------------------------------------------


def test_shuffled_competition_moves_the_energies_of_unit_j_by_j_rows():
    E = energies()
    moved = np.stack([np.roll(E[:, j].numpy(), -j) for j in range(K)], 1)
    expected = -logsumexp(-moved, axis=1).sum() + 40 * (logsumexp(-moved) - np.log(40))
    assert ablation.shuffled_competition(E).item() == pytest.approx(expected)


def test_shuffled_competition_is_competition_where_units_are_independent():
    """All 2 x 2 x 3 combinations of the energies of three units, in an order in which moved rows
    give all combinations again."""
    E = torch.tensor([*product([0.2, 1.5], [0.7, 3.0], [0, 1, 2.5])]).double()
    found = ablation.shuffled_competition(E).item()
    assert found == pytest.approx(competition(E).item())


def test_shuffled_competition_does_not_see_that_units_are_active_together():
    E = energies(500, 1).expand(500, K)
    assert competition(E).item() > 3 * ablation.shuffled_competition(E).item()


def test_parts_of_the_variance_against_numpy():
    E = energies()
    e = np.exp(-E.numpy())
    cov = np.cov(e.T, ddof=0)
    scale = 40 / (2 * e.sum(1).mean() ** 2)
    found = ablation.variances_only(E).item(), ablation.covariances_only(E).item()
    assert found == pytest.approx((scale * np.trace(cov), scale * (cov.sum() - np.trace(cov))))
    parts = ablation.variances_only(0.01 * E) + ablation.covariances_only(0.01 * E)
    assert parts.item() == pytest.approx(competition(0.01 * E).item(), rel=0.01)  # second order


CONTROLS = {
    "shuffled": ablation.shuffled_competition,
    "variances only": ablation.variances_only,
    "covariances only": ablation.covariances_only,
}


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_a_control_stands_in_the_place_of_competition_in_b(control):
    model = h.Encoder(D, K)
    E = model(X[:64])
    found = ablation.controlled_loss(model, X[:64], 10.0, control)
    expected = h.pooled_lse_loss(E) + 10 * control(E) + h.variance_loss(E)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


# --- Short runs ---------------------------------------------------------------------------------

SEEDS, WEIGHTS, DOSES, STRONG = [3, 1, 2], [0.0, 0.03, 1.0], [3.0, 10.0], [100.0]
LAMS = {"B": {0.1: 3, 10.0: 2}, "C": {0.03: 1, 1.0: 3}}
RUNS = ablation.short_runs(
    SEEDS, decorrelations=WEIGHTS, doses=DOSES, strong_doses=STRONG, lams=LAMS
)


@pytest.mark.parametrize("i", range(3))
def test_all_short_runs_are_there_once(i):
    run, having = partial(Run, SEEDS[i]), (1.0, 0.0)
    expected = {run(c, w) for c in having for w in WEIGHTS}  # the two curves
    expected |= {run(dose, w) for dose in DOSES for w in (0.0, 1.0)}  # B and C
    expected |= {run(dose, 1.0, 0.35) for dose in DOSES} | {run(100.0)}
    expected |= {run(c, 1.0, lam) for c in having for lam in (1.0, 0.35)}  # the removal
    expected |= {run(1.0, 1.0, lam, how) for lam in (1.0, 0.35) for how in ("start", "order")}
    expected |= {run(10.0, 0.0, 1.0, control) for control in CONTROLS}
    for name, w in (("B", 0.0), ("C", 1.0)):
        expected |= {run(c, w, lam) for lam, n in LAMS[name].items() if i < n for c in having}
    found = [run for run in RUNS if run.seed == SEEDS[i]]
    assert len(found) == len(set(found)) and set(found) == expected


def run_loss(model, x, weight, decorrelation, lam):
    E = model(x)
    infomax = h.variance_loss(E) + decorrelation * h.decorrelation_loss(E)
    return h.pooled_lse_loss(E) + weight * competition(E) + lam * infomax


def noise():
    """What is added to the weights that are changed by a millionth."""
    return 1e-6 * torch.randn(K, D, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("most", [3, 99])
def test_a_run_is_trained_as_its_fields_say(most):
    runs = ablation.short_runs(
        [0, 2], decorrelations=[0.1], doses=[3.0], strong_doses=[], lams={"B": {}, "C": {2.0: 1}}
    )
    found = ablation.train_runs(runs, run_loss, X, K, epochs=2, most=most)
    assert set(found) == set(runs)
    for run, model in found.items():

        def loss(E, run=run):
            infomax = h.variance_loss(E) + run.decorrelation * h.decorrelation_loss(E)
            term = CONTROLS.get(run.change, competition)
            return h.pooled_lse_loss(E) + run.weight * term(E) + run.lam * infomax

        order = run.seed + 1000 if run.change == "order" else run.seed
        start = noise() if run.change == "start" else 0.0
        assert_same(model, fitted(loss, run.seed, order, start, epochs=2)[0])


def test_a_loss_takes_the_fields_that_are_named_and_options_of_training_hold_for_all_runs():
    def loss(model, x, weight):
        return run_loss(model, x, weight, 1.0, 0.5)

    options = {"epochs": 2, "lr": 0.002, "schedule": [1.0, 0.1]}
    runs = [Run(2, 1.0, change="start"), Run(2, 0.0), Run(0, 10.0), Run(0, change="order")]
    found = ablation.train_runs(runs, loss, X, K, names=["weight"], **options)
    for run in runs:

        def own(E, weight=run.weight):
            infomax = h.variance_loss(E) + h.decorrelation_loss(E)
            return h.pooled_lse_loss(E) + weight * competition(E) + 0.5 * infomax

        order = 1000 if run.change == "order" else run.seed
        start = noise() if run.change == "start" else 0.0
        assert_same(found[run], fitted(own, run.seed, order, start, **options)[0])


def test_a_run_is_compared_with_the_one_of_its_seed_that_has_competition():
    """By names of models in the place of runs that were trained."""
    partners = {
        Run(1, 0.0): Run(1),
        Run(1, 30.0, 0.0): Run(1, 1.0, 0.0),
        Run(1, 0.0, 1.0, 0.35): Run(1, 1.0, 1.0, 0.35),
        Run(1, 1.0, 1.0, 0.35, "order"): Run(1, 1.0, 1.0, 0.35),
        Run(1, 10.0, 0.0, 1.0, "shuffled"): Run(1, 1.0, 0.0),
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
            assert row.replaced == measures.replaced(other, E) > 0
        else:  # it is the one itself, or there is none
            assert np.isnan(row.agreement) and np.isnan(row.replaced)
