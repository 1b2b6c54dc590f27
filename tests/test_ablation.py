"""lab/ablation.py: configurations, competition and its controls, against plain loops and NumPy."""

from collections import Counter
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import logsumexp, softmax
from torch.func import grad

import helpers as h
from lab import ablation, compare
from lab.ablation import Run

D, K = 6, 5
X = torch.randn(300, D, generator=torch.Generator().manual_seed(0)).double() + 0.3
pytestmark = pytest.mark.usefixtures("float64")
variance, decorrelation = h.variance_loss, h.decorrelation_loss


def energies(n=40, k=K, seed=1):
    z = torch.randn(n, k, generator=torch.Generator().manual_seed(seed)).double()
    return torch.relu(z)


def trained_by_hand(loss, seed, order=None, start=0.0, epochs=1):
    """An encoder after epochs of `helpers.fit` on a loss of its energies."""
    model = h.Encoder(D, K, seed=seed)
    model.W.data += start
    order = seed if order is None else order
    h.fit(model, lambda model, x: loss(model(x)), X, epochs=epochs, seed=order)
    return model


def assert_same(model, other):
    assert_allclose(model.W.detach(), other.W.detach(), atol=1e-9)
    assert_allclose(model.b.detach(), other.b.detach(), atol=1e-9)


# --- Configurations -----------------------------------------------------------------------------

TERMS = {
    "A": lambda E: h.lse_loss(E),
    "B": lambda E: h.lse_loss(E) + variance(E),
    "C": lambda E: h.lse_loss(E) + variance(E) + decorrelation(E),
    "C without competition": lambda E: h.pooled_lse_loss(E) + variance(E) + decorrelation(E),
    "D": lambda E: variance(E) + decorrelation(E),
}


def test_a_configuration_is_trained_with_the_terms_of_its_name():
    found = ablation.configurations([*TERMS], X, K, [0, 2], epochs=3)
    assert set(found) == set(product(TERMS, [0, 2]))
    for (name, seed), (model, losses) in found.items():
        one = h.Encoder(D, K, seed=seed)
        history = h.fit(one, lambda m, x: TERMS[name](m(x)), X, epochs=3, seed=seed)  # noqa: B023
        assert_same(model, one)
        assert_allclose(losses, 128 * np.array(history), rtol=1e-8)  # a minibatch's, not a row's


def test_the_gradient_of_a_is_exactly_zero_when_all_units_are_dead():
    model = h.Encoder(D, K)
    model.b.data -= 1000
    loss = ablation.ablation_loss(model, X, **ablation.CONFIGURATIONS["A"])
    for gradient in torch.autograd.grad(loss, (model.W, model.b)):
        assert (gradient == 0).all()


def test_lambda_is_a_factor_of_the_infomax_terms_of_128_rows():
    model = h.Encoder(D, K)
    E = model(X[:64])
    found = ablation.ablation_loss(model, X[:64], lse=2, pooled=3, variance=5, lam=7)
    expected = 2 * h.lse_loss(E) + 3 * h.pooled_lse_loss(E)
    expected = expected + 7 / 2 * (5 * variance(E) + decorrelation(E))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


# --- Competition --------------------------------------------------------------------------------


def denominators(E):
    return np.exp(-E.numpy()).sum(1)


def test_competition_is_a_jensen_gap():
    """log of the mean of Z minus the mean of log Z, times the number of rows."""
    E = energies()
    Z = denominators(E)
    assert ablation.competition(E).item() == pytest.approx(
        40 * (np.log(Z.mean()) - np.log(Z).mean())
    )


def test_competition_is_a_divergence_of_the_denominators_from_uniform():
    E = energies()
    Z = denominators(E)
    divergence = stats.entropy(np.full(40, 1 / 40), Z / Z.sum())
    assert ablation.competition(E).item() == pytest.approx(40 * divergence)


def test_competition_to_second_order_is_the_variance_of_the_denominators():
    E = 0.01 * energies()
    Z = denominators(E)
    expected = 40 * Z.var() / (2 * Z.mean() ** 2)
    assert ablation.competition(E).item() == pytest.approx(expected, rel=0.01)


def test_competition_is_zero_where_all_denominators_are_equal():
    E = torch.stack([energies(1)[0].roll(i) for i in range(40)])
    assert ablation.competition(E).item() == pytest.approx(0, abs=1e-9)
    assert_allclose(grad(ablation.competition)(E), np.zeros((40, K)), atol=1e-12)


def test_shuffled_competition_moves_the_energies_of_unit_j_by_j_rows():
    E = energies()
    moved = np.stack([np.roll(E[:, j].numpy(), -j) for j in range(K)], 1)
    assert np.array_equal(np.sort(moved, 0), np.sort(E.numpy(), 0))
    expected = -logsumexp(-moved, axis=1).sum() + 40 * (logsumexp(-moved) - np.log(40))
    assert ablation.shuffled_competition(E).item() == pytest.approx(expected)


def test_shuffled_competition_is_competition_where_units_are_independent():
    """All 2 x 2 x 3 combinations of the energies of three units, in an order in which moved rows
    give all combinations again."""
    E = torch.tensor([*product([0.2, 1.5], [0.7, 3.0], [0, 1, 2.5])]).double()
    found = ablation.shuffled_competition(E).item()
    assert found == pytest.approx(ablation.competition(E).item())


def test_shuffled_competition_does_not_see_that_units_are_active_together():
    E = energies(500, 1).expand(500, K)
    assert ablation.competition(E).item() > 3 * ablation.shuffled_competition(E).item()


def test_parts_of_the_variance_against_numpy():
    E = energies()
    e = np.exp(-E.numpy())
    cov = np.cov(e.T, ddof=0)
    scale = 40 / (2 * e.sum(1).mean() ** 2)
    found = ablation.variances_only(E).item(), ablation.covariances_only(E).item()
    assert found == pytest.approx((scale * np.trace(cov), scale * (cov.sum() - np.trace(cov))))


CONTROLS = {
    "shuffled": ablation.shuffled_competition,
    "variances only": ablation.variances_only,
    "covariances only": ablation.covariances_only,
}


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_stands_in_the_place_of_competition_in_b(control):
    model = h.Encoder(D, K)
    E = model(X[:64])
    function = CONTROLS[control]
    found = ablation.controlled_loss(model, X[:64], 10.0, function)
    expected = h.pooled_lse_loss(E) + 10 * function(E) + variance(E) / 2
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


# --- Measures -----------------------------------------------------------------------------------


def test_measures_against_scipy():
    E = energies(500)
    E[:, 3] = 0  # dead
    E[:, 4] *= 0.1  # not dead, and of a variance below 0.01
    E[:, 2] *= 0.3  # of a variance above it
    found = ablation.measures(E)
    r, kept = softmax(-E.numpy(), axis=1), [0, 1, 2, 4]
    corr = np.corrcoef(E[:, kept].numpy().T) - np.eye(4)
    assert found == {
        "dead": 1,
        "low variance": 2,
        "redundancy": pytest.approx((corr**2).sum()),
        "entropy": pytest.approx(stats.entropy(r, axis=1).mean()),
        "L0": pytest.approx((E.numpy() > 0).sum(1).mean()),
    }


def test_measures_of_competition_against_numpy():
    E = energies(500)
    e = np.exp(-E.numpy())
    Z, cov = e.sum(1), np.cov(e.T, ddof=0)
    assert ablation.competition_measures(E) == pytest.approx(
        {
            "competition term": np.log(Z.mean()) - np.log(Z).mean(),
            "second order": Z.var() / (2 * Z.mean() ** 2),
            "Var(Z)": Z.var(),
            "variances": np.trace(cov),
            "covariances": cov.sum() - np.trace(cov),
            "spread of active units": (E.numpy() > 0).sum(1).std(ddof=1),
        }
    )


# --- Short runs ---------------------------------------------------------------------------------

SEEDS, LAMS, WEIGHTS, DOSES = [0, 1, 2], [1.0, 0.35], [0, 0.003, 0.03, 0.3, 1], [0, 1, 3, 10, 30]
STACKS = ablation.competition_runs(
    SEEDS, weights=WEIGHTS, doses=DOSES, lams=LAMS, denser=1.5, control_weight=10
)
ALL_RUNS = [run for stack in STACKS for run in stack]


def test_no_run_is_trained_twice():
    assert max(Counter(ALL_RUNS).values()) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_all_runs_of_section_4_are_there(seed):
    run = partial(Run, seed)
    expected = {run(c, w) for c in (1, 0) for w in WEIGHTS}  # the two curves
    expected |= {run(dose, 0) for dose in DOSES}  # in B
    expected |= {run(1, 0, 1.5)}  # B at a larger L0
    expected |= {run(c, 1, lam) for c in (1, 0) for lam in LAMS}  # the removal, and its controls
    expected |= {run(1, 1, lam, change) for lam in LAMS for change in ("start", "order")}
    expected |= {run(0, 1, lam, "no log-sum-exp") for lam in LAMS}
    expected |= {run(10, 0, 1, control) for control in CONTROLS}
    assert {run for run in ALL_RUNS if run.seed == seed} == expected


def test_a_stack_has_controls_of_one_kind_or_none():
    for stack in STACKS:
        kinds = {run.change if run.change in CONTROLS else "" for run in stack}
        assert len(kinds) == 1


SHORT = ablation.competition_runs(
    [0, 2], weights=[0.1], doses=[0, 3], lams=[0.5], denser=1.5, control_weight=10
)


@pytest.mark.parametrize("i", range(len(SHORT)))
def test_a_run_is_trained_as_its_fields_say(i):
    found = ablation.train_runs(SHORT[i], X, K, epochs=2)
    assert [*found] == SHORT[i]
    for run, model in found.items():

        def loss(E, run=run):
            infomax = run.lam * (variance(E) + run.decorrelation * decorrelation(E))
            if run.change == "no log-sum-exp":
                return infomax
            term = CONTROLS.get(run.change, ablation.competition)
            return h.pooled_lse_loss(E) + run.competition * term(E) + infomax

        order = run.seed + 1000 if run.change == "order" else run.seed
        noise = torch.randn(K, D, generator=torch.Generator().manual_seed(0))
        start = 1e-6 * noise * (run.change == "start")
        assert_same(model, trained_by_hand(loss, run.seed, order, start, epochs=2))


def test_a_changed_start_is_a_change():
    (model,) = ablation.train_runs([Run(0, change="start")], X, K, epochs=1).values()
    one = trained_by_hand(TERMS["C"], 0)
    assert 1e-8 < (model.W - one.W).abs().median() < 1e-5


def test_a_run_is_compared_with_the_one_that_has_competition():
    """By names of models in the place of runs that were trained."""
    models = {run: h.Encoder(D, K, seed=i) for i, run in enumerate(ALL_RUNS)}
    found = ablation.tabulate(models, X)
    partners = {
        Run(1): Run(2),  # the next seed
        Run(2): Run(0),
        Run(1, 0, 1, 0.35): Run(1, 1, 1, 0.35),
        Run(1, 0, 0.03): Run(1, 1, 0.03),
        Run(1, 30, 0): Run(1, 1, 0),
        Run(1, 0, 1, 0.35, "no log-sum-exp"): Run(1, 1, 1, 0.35),
        Run(1, 1, 1, 0.35, "order"): Run(1, 1, 1, 0.35),
        Run(1, 10, 0, 1, "shuffled"): Run(1, 1, 0),
    }
    for run, partner in partners.items():
        E, other = (models[r](X).detach() for r in (run, partner))
        row = found.iloc[ALL_RUNS.index(run)]
        assert row.agreement == pytest.approx(compare.agreement(other, E))
        assert row.redundancy == h.redundancy(E) and row.change == run.change


def test_a_single_seed_has_no_other_to_agree_with():
    models = {Run(4): h.Encoder(D, K), Run(4, 0): h.Encoder(D, K)}
    assert np.isnan(ablation.tabulate(models, X).agreement[0])
    assert ablation.tabulate(models, X).agreement[1] == pytest.approx(1)


def test_redundancy_is_compared_at_equal_l0():
    """Where it is 100 L0^1.5 with competition, and three times that without."""

    def row(seed, competition, lam, l0, factor, **other):
        run = Run(seed, competition, 0.0, lam)._asdict() | other
        return run | {"L0": l0, "redundancy": factor * 100 * l0**1.5}

    rows = []
    for seed in (3, 8):
        rows += [row(seed, 1.0, 1.0, 18, 1), row(seed, 1.0, 1.5, 24, 1)]
        rows += [row(seed, 1.0, 0.35, 19, 9)]
        rows += [row(seed, 0.0, 1.0, 20 + seed / 10, 3), row(seed, 10.0, 1.0, 21, 0.1)]
        rows += [
            row(seed, 1.0, 1.0, 22, 9, decorrelation=1.0),
            row(seed, 1.0, 1.0, 22, 9, change="order"),
        ]
    table = pd.DataFrame(rows)
    assert ablation.redundancy_ratios(table, 1.5)["equal L0"] == pytest.approx([3, 3])
    table.loc[table.competition == 0, "L0"] = 30.0  # outside: nothing is extrapolated
    assert np.isnan(ablation.redundancy_ratios(table, 1.5)["equal L0"]).all()


def test_criteria_of_a_made_up_run():
    """Each is what claims.csv says; a run that agrees with the paper, and one seed."""
    table = pd.DataFrame(
        {"run": list("ABCD"), "redundancy": [np.nan, 1875, 29, 56], "L0": [0, 18.7, 17, 50]}
    ).assign(seed=0, entropy=[4.16, 3.77, 3.95, 1.99])
    removal = pd.DataFrame({"run": ["C", "C without competition"], "seed": 0, "L0": [10.0, 10.2]})
    removal = removal.assign(redundancy=[20.0, 21], entropy=[4.0, 4], agreement=[np.nan, 0.98])
    runs = [(0, "", 3000), (1, "", 1500), (3, "", 1200), (10, "shuffled", 3300)]
    runs += [(10, "variances only", 2700), (10, "covariances only", 700)]
    short = pd.DataFrame(runs, columns=["competition", "change", "redundancy"])
    short = short.assign(seed=0, lam=1.0, decorrelation=0.0)
    found = ablation.measured_criteria(table, removal, short, {"equal λ": [2.0]})
    assert found["entropies"]["C"] == pytest.approx([0.1])
    assert found["redundancies"] == {"B": [0], "C": [0], "D": pytest.approx([np.log(2)])}
    assert found["not_sparser"] == pytest.approx([0.1])
    assert found["idle"]["L0"] == pytest.approx([0.02])
    assert found["idle"]["redundancy"] == pytest.approx([0.05])
    assert found["idle"]["agreement"] == pytest.approx([0.02])
    assert found["dose"] == {"1 after 0": [0.5], "3 after 1": [0.8]}
    controls = {"shuffled": pytest.approx([0.1]), "variances only": pytest.approx([-0.1])}
    assert found["dose_controls"] == controls
