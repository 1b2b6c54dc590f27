"""Notebook 2: the functions and definitions in its cells against plain formulas, its figures."""

from functools import partial
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from cells import checked, dots, notebook, shown, sources
from numpy.testing import assert_allclose

import helpers as h
from lab import plots_ablation

D, K = 9, 24
rng = torch.Generator().manual_seed(0)
X = torch.randn(256, D, generator=rng).double() + 0.3
OF_ALL = {"K": 5, "SEEDS": [3, 5], "EPOCHS": 1, "SHORT_EPOCHS": 2, "x": X, "x_test": X}
CELLS = notebook("2_ablation", CONFIGURATIONS={}, **OF_ALL)
NAMES = ["A: log-sum-exp", "B: + variance", "C: + decorrelation", "D: without log-sum-exp"]
MODEL = h.Encoder(D, 5, seed=1).double()
pytestmark = pytest.mark.usefixtures("float64")


def random(*shape):
    return torch.rand(*shape, generator=rng)


def run(name, **names):
    """The names of a cell after its run, which trains nothing."""
    names = CELLS | {"side_by_side": lambda *given: {}} | names
    exec(sources("2_ablation")[name], names)
    return names


def test_the_loss_is_a_sum_of_weighted_terms():
    E, loss = MODEL(X[:128]), CELLS["loss"]
    Z = np.exp(-E.detach().numpy()).sum(1)
    lse = -np.log(Z).sum() - 6 * np.log(Z / Z.mean()).sum()  # seven times the competition
    expected = 2 * lse + 3 * h.variance_loss(E).item() + 5 * h.decorrelation_loss(E).item()
    weighted = loss(E, lse=2, competition=7, variance=3, decorrelation=5)
    assert weighted.item() == pytest.approx(expected)
    assert loss(E).item() == pytest.approx(h.decoder_free_loss(MODEL, X[:128]).item())


def test_models_have_the_terms_and_epochs_that_their_names_say():
    """The weights of log-sum-exp, competition, variance and decorrelation; and epochs."""
    stubs = {"by_dose": MagicMock(), "measures": MagicMock(), "show": MagicMock()}
    names = run("weights") | run("checks", **stubs, IN_NOTES=None) | run("configurations")
    rows, E = names["CONFIGURATIONS"] | names["WEIGHTS"] | names["CHECKS"], MODEL(X)
    facts = dict(zip(NAMES, ((1, 1, 0, 0, 2), (1, 1, 1, 0, 1), (1, 1, 1, 1, 1), (0, 1, 1, 1, 1))))
    facts |= {"C, without competition": (1, 0, 1, 1, 1), "weights 64 and 32": (1, 1, 64, 32, 1)}
    facts |= {"minibatches of 256": (1, 1, 1, 1, 2 * 2), "C, two-sided": (1, 1, 1, 1, 2)}
    facts |= {"B, competition × 1,000": (1, 1000, 1, 0, 2)}
    facts |= {"C, two-sided, without competition": (1, 0, 1, 1, 2)}
    assert [names[letter] for letter in "ABCD"] == NAMES == [*names["CONFIGURATIONS"]][:4]
    assert rows.keys() - facts.keys() == {"weights N_j/2 and 1", "B, even counts"}
    for name, (*weights, epochs) in facts.items():
        expected = CELLS["loss"](E, *weights).item()
        assert rows[name][1](E).item() == pytest.approx(expected) and rows[name][2] == epochs
        assert (rows[name][0] is h.Encoder) == ("two-sided" not in name)
    names, rates = run("optimisers"), (0.0001, 0.001, 0.01, 0.1)
    fewer = [("SGD", 0.01, 5 // 2), ("SGD", 0.01, 5 // 4)]
    assert names["sgd_runs"] == [("SGD", rate, 5) for rate in rates] + fewer
    assert names["adam_runs"] == [("Adam", rate, 5) for rate in rates if rate != 0.001]


def test_training_and_its_parts_are_those_of_helpers(monkeypatch):
    weighted = partial(CELLS["loss"], decorrelation=0.3)
    rows, options = {"C": (CELLS["TwoSided"], weighted, 2)}, {"order_seed": 7, "batch_size": 64}
    trained, alone = CELLS["train"](("C", 3), rows, **options), CELLS["TwoSided"](D, 5, seed=3)
    h.fit(alone, lambda m, x: weighted((x @ m.W.T + m.b).abs()), X, epochs=2, **options)
    assert_allclose(trained.W.detach(), alone.W.detach(), atol=1e-9)
    for name, optimizer in (("SGD", torch.optim.SGD), ("Adam", h.fused_adam)):
        _, losses = CELLS["train_by"]((name, 0.01, 4))
        alone = h.Encoder(D, 4, seed=3)
        expected = h.fit(alone, h.decoder_free_loss, X, epochs=1, lr=0.01, optimizer=optimizer)
        assert_allclose(losses, expected.losses)
    for labels in ("y", "y_test"):
        monkeypatch.setitem(CELLS, labels, X[:, 0] > 0)
    parts = CELLS["parts_of_loss"](alone)  # of two minibatches
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    for name, loss in {"variance term": h.variance_loss, "loss": CELLS["loss"]}.items():
        mean = np.mean([loss(alone(X[rows])).item() for rows in order.split(128)])
        assert parts[name] == pytest.approx(mean)


def test_another_order_and_another_size_of_minibatches_are_for_those_that_say_so():
    stub, E = {"train": lambda item, configurations, **options: options}, random(9, 5)
    orders, sizes = run("doses", C=NAMES[2], **stub), run("weights", **stub)
    assert orders["ORDER"] not in OF_ALL["SEEDS"]
    assert orders["train_in_order"](("C", 3, 6)) == {"order_seed": 6}
    for (weight, strength), (_, loss, epochs) in orders["DOSES"].items():
        expected = CELLS["loss"](E, competition=strength, decorrelation=weight)
        assert (loss(E).item(), epochs) == (expected.item(), 2)
    batch_sizes = [sizes["train_weighted"]((name, 3))["batch_size"] for name in sizes["WEIGHTS"]]
    assert batch_sizes == [128, 128, 256]


def test_a_volume_of_each_unit_weighs_its_variance_by_half_its_responsibility():
    E = (3 * random(128, 5)).requires_grad_()
    weights = h.responsibilities(E).sum(0).detach() / 2
    plain = -(weights * torch.log(E.var(0) + 1e-6)).sum()
    plain, value = plain + CELLS["loss"](E, variance=0), CELLS["volume_of_each_unit"](E)
    assert value.item() == pytest.approx(plain.item())
    assert_allclose(*(torch.autograd.grad(part, E)[0] for part in (value, plain)))


def test_the_spread_of_the_denominator_is_that_of_independent_units_if_they_are():
    Z = np.exp(-MODEL(X).detach().numpy()).sum(1)
    spread = CELLS["spread_of_denominator"]
    assert spread(MODEL)["spread of Z"] == pytest.approx(Z.std(ddof=1) / Z.mean())
    active = random(100_000, 6) < torch.linspace(0.1, 0.6, 6)
    assert [*spread(lambda x: 99.0 * active).values()] == 2 * [pytest.approx(0.28, rel=0.02)]


def test_configurations_show_copies_side_by_side_and_dead_units_too():
    copies = torch.arange(K) % 3 == 0  # of one unit; the others are alone
    E = torch.where(copies[:, None], random(50), random(K, 50))
    R, usage, W = torch.corrcoef(E), random(K), random(K, D)
    models = {name: (R, usage, W) for name in NAMES} | {NAMES[0]: (0 * R, 0 * usage, W)}
    axes = checked(plots_ablation.configurations(models, {NAMES[3]: "different, not sparse"}))
    assert_allclose([bar.get_height() for bar in axes[5].patches], usage.sort(descending=True)[0])
    image = axes[1].images[0].get_array()
    assert_allclose(np.sort(image, None), np.sort(abs(R), None))
    block = np.flatnonzero(image.diagonal(1) > 0.999)  # each copy but the last, and the next
    assert len(block) == copies.sum() - 1 and np.ptp(block) == len(block) - 1
    units = plots_ablation.neighbours(image)  # eight, five of them copies
    assert len(units) == 8 and len({*units} & {*block, block[-1] + 1}) >= 5
    redundancy = (R.square().sum() - K).item()
    assert axes[1].get_xlabel() == f"redundancy {redundancy:,.0f}" and not axes[0].get_xlabel()


def test_figures_have_a_dot_for_each_number():
    active, loss = torch.tensor([1, 2, K - 1]), -random(3)
    (axis,) = checked(plots_ablation.count({name: (active, loss) for name in NAMES[1:3]}, K))
    assert_allclose(axis.lines[1].get_xydata(), np.stack([active, loss], 1))
    n, curve = axis.lines[0].get_xydata().T
    assert_allclose(curve, -np.log(K - n))

    keys = [(dose, strength) for dose in (1, 0, 0.5, 0) for strength in (7, 0, 1)]
    table = pd.DataFrame(keys, columns=["decorrelation", "competition"])
    table["redundancy"] = random(len(table)).numpy()
    models = {name: (random(8, D), random(K)) for name in ("C", "without", "another order")}
    a, b = checked(plots_ablation.competition(models, table))
    correlations = [r for _, r in models.values()]
    assert shown(a) == ["agreement", *(f"{r.mean():.2f}" for r in correlations[1:])]
    assert [t.get_text() for t in a.get_xticklabels()] == [f"{r:.2f}" for r in correlations[2][:8]]
    means = table.groupby(["competition", "decorrelation"]).redundancy.mean()
    assert_allclose(dots(b)[:, 1], means)  # 0, 1 and 7, each from the weakest decorrelation


def test_optimizers_have_a_dot_for_each_run_and_the_sign_of_the_rank_correlation():
    table = pd.DataFrame({"optimizer": ["SGD", "SGD", "Adam", "Adam"], "rate": 2 * [1e-4, 0.1]})
    table = table.assign(loss=[-300.0, -500, -600, -900], classifier=[91.0, 92, 93, 94])
    worse = table.assign(classifier=table.classifier[::-1].to_numpy())
    a, b = checked(plots_ablation.optimizers({"MNIST": (table, 95.0), "others": (worse, None)}))
    for axis, drawn, sign in ((a, table, "+"), (b, worse, "−")):
        assert_allclose(dots(axis, filled=False), drawn[["loss", "classifier"]][:2])
        assert_allclose(dots(axis), drawn[["loss", "classifier"]][2:])
        assert any(f"{sign}1.0\n(SGD {sign}1.0, Adam {sign}1.0)" in text for text in shown(axis))
