"""Notebook 2: the functions and definitions in its cells against plain formulas, its figures."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from cells import checked, criteria, dots, notebook, sources
from numpy.testing import assert_allclose

import helpers as h
from lab import plots_ablation, show

D, K = 9, 24
rng = torch.Generator().manual_seed(0)
X = torch.randn(256, D, generator=rng).double() + 0.3
OF_ALL = {"K": 5, "SEEDS": [3, 5], "EPOCHS": 1, "SHORT_EPOCHS": 2, "x": X, "x_test": X}
CELLS = notebook("2_ablation", CONFIGURATIONS={}, **OF_ALL)
NAMES = ["A: log-sum-exp", "B: + variance", "C: + decorrelation", "D: without log-sum-exp"]
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def model():
    return h.Encoder(D, 5, seed=1)


def random(*shape):
    return torch.rand(*shape, generator=rng)


def run(name, **names):
    """The names of a cell after its run, which trains nothing."""
    names = CELLS | {"side_by_side": lambda *given: {}} | names
    exec(sources("2_ablation")[name], names)
    return names


def test_the_loss_is_a_sum_of_weighted_terms(model):
    E, loss = model(X[:128]), CELLS["loss"]
    Z = np.exp(-E.detach().numpy()).sum(1)
    lse = -np.log(Z).sum() - 6 * np.log(Z / Z.mean()).sum()  # seven times the competition
    expected = 2 * lse + 3 * h.variance_loss(E).item() + 5 * h.decorrelation_loss(E).item()
    weighted = loss(E, lse=2, competition=7, variance=3, decorrelation=5)
    assert weighted.item() == pytest.approx(expected)
    assert loss(E).item() == pytest.approx(h.decoder_free_loss(model, X[:128]).item())


def test_configurations_are_what_their_names_say(model):
    names, E = run("configurations"), model(X)
    terms = h.lse_loss(E), h.variance_loss(E), h.decorrelation_loss(E)
    without = len(E) * -torch.exp(-E).sum(1).mean().log()
    expected = dict(zip(NAMES, ((1, 0, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1))))
    expected = {n: sum(w * t for w, t in zip(row, terms)) for n, row in expected.items()}
    expected[names["WITHOUT"]] = expected[NAMES[2]] - terms[0] + without
    configurations = names["CONFIGURATIONS"]
    assert [names[letter] for letter in "ABCD"] == NAMES and [*configurations] == [*expected]
    for name, (new_model, loss, epochs) in configurations.items():
        assert loss(E).item() == pytest.approx(expected[name].item())
        assert new_model is h.Encoder and epochs == (2 if name == NAMES[0] else 1)


def test_numbers_of_the_paper_stay_with_their_rows(monkeypatch):
    shown, columns = [], ["dead", "redundancy", "l0", "classifier", "purity"]
    monkeypatch.setattr(show, "table", shown.append)
    rows = [NAMES[2], "C, of a reader", *NAMES[:2], NAMES[3]]
    table = pd.DataFrame({"model": rows, **dict.fromkeys(columns, 1.0)})
    as_in_paper = {"K": 64, "EPOCHS": 100, "N_TRAIN": 60_000, "DATA": ""}
    for changed in ({}, {"K": 32}):
        run("table-2", ablation=table, **dict(zip("ABCD", NAMES)), **as_in_paper | changed)
    brackets = shown[0].map(lambda text: text.partition(" ")[2])
    assert [*brackets["dead units"]] == ["(0)", "", "(64)", "(0)", "(0)"]
    assert [*brackets["redundancy"]] == ["(29)", "", "", "(1,875)", "(28)"]
    assert [*brackets["active units"]] == ["(17.2)", "", "", "", ""]
    assert [*brackets["classifier, %"]] == ["(93.4)", "", "", "", ""]
    assert not shown[1].map(lambda text: "(" in text).any(axis=None)


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
    variance = np.mean([h.variance_loss(alone(X[rows])).item() for rows in order.split(128)])
    assert parts["variance term"] == pytest.approx(variance)
    whole = np.mean([h.decoder_free_loss(alone, X[rows]).item() for rows in order.split(128)])
    assert parts["loss"] == pytest.approx(whole)


def test_another_order_and_another_size_of_minibatches_are_for_those_that_say_so():
    stub = {"train": lambda item, configurations, **options: options}
    orders = run("doses", C=NAMES[2], **stub)
    assert orders["ORDER"] not in OF_ALL["SEEDS"]
    assert orders["train_in_order"](("C", 3, 6)) == {"order_seed": 6}
    E = random(9, 5)
    for (weight, strength), (new_model, loss, epochs) in orders["DOSES"].items():
        expected = CELLS["loss"](E, competition=strength, decorrelation=weight)
        assert (new_model, loss(E).item(), epochs) == (h.Encoder, expected.item(), 2)
    sizes = run("weights", **stub)
    batch_sizes = [sizes["train_weighted"]((name, 3))["batch_size"] for name in sizes["WEIGHTS"]]
    assert batch_sizes == [128, 128, 256]
    assert sizes["WEIGHTS"][sizes["LARGE"]][2] == 2 * 2  # as many steps


def test_a_volume_of_each_unit_weighs_its_variance_by_half_its_responsibility():
    E = (3 * random(128, 5)).requires_grad_()
    weights = h.responsibilities(E).sum(0).detach() / 2
    plain = -(weights * torch.log(E.var(0) + 1e-6)).sum()
    plain = plain + h.lse_loss(E) + h.decorrelation_loss(E)
    value = CELLS["volume_of_each_unit"](E)
    assert value.item() == pytest.approx(plain.item())
    ours, expected = (torch.autograd.grad(part, E)[0] for part in (value, plain))
    assert_allclose(ours, expected)


def test_even_counts_are_competition_to_second_order(model):
    E, loss = random(9, 5), CELLS["loss"]
    Z = np.exp(-E.numpy()).sum(1)
    without = loss(E, competition=0, decorrelation=0)
    assert_allclose(CELLS["even_counts"](E) - without, 9 / 2 * Z.var() / Z.mean() ** 2)
    little = 2 + 0.01 * E
    competition = loss(little, decorrelation=0) - loss(little, competition=0, decorrelation=0)
    penalty = CELLS["even_counts"](little) - loss(little, competition=0, decorrelation=0)
    assert_allclose(penalty, competition, rtol=0.01)


def test_the_spread_of_the_denominator_is_that_of_independent_units_if_they_are(model):
    Z = np.exp(-model(X).detach().numpy()).sum(1)
    spread = CELLS["spread_of_denominator"](model)["spread of Z"]
    assert spread == pytest.approx(Z.std(ddof=1) / Z.mean())
    active = random(100_000, 6) < torch.linspace(0.1, 0.6, 6)
    spread = CELLS["spread_of_denominator"](lambda x: 99.0 * active)
    assert spread["spread of Z"] == pytest.approx(spread["if independent"], rel=0.02)


def test_each_criterion_has_its_bound():
    assert criteria("2_ablation") == {
        "A: dead units": ">= K",
        "B, C, D: dead units": "<= 0",
        "A to D: units dead by one definition alone": "<= 0",
        "redundancy, B over C": ">= 30",
        "active units, D over C": ">= 2",
        "C without competition: agreement": ">= 0.98",
        "B without competition: agreement": "<= 0.9",
        "range of the rest over that of the loss": "<= 0.1",
        "epoch of convergence over living units, distance from 1": "<= 0.25",
        "C: agreement without competition, less with another order": ">= 0.2",
        "active units, N_j/2 over C, distance from 1": "<= 0.2",
    }


def test_configurations_show_copies_side_by_side_and_dead_units_too():
    copies = torch.arange(K) % 3 == 0  # of one unit; the others are alone
    E = torch.where(copies[:, None], random(50), random(K, 50))
    R, usage, W = torch.corrcoef(E), random(K), torch.where(copies[:, None], 1.0, random(K, D))
    R = R * (-1) ** (torch.arange(K)[:, None] + torch.arange(K))
    models = {name: (R, usage, W) for name in NAMES}
    models[NAMES[0]] = 0 * R, 0 * usage, random(K, D)
    axes = checked(plots_ablation.configurations(models, {NAMES[3]: "different, not sparse"}))
    assert_allclose([bar.get_height() for bar in axes[5].patches], usage.sort(descending=True)[0])
    image = axes[1].images[0].get_array()
    assert_allclose(np.sort(image, None), np.sort(abs(R), None))
    block = np.flatnonzero(image.diagonal(1) > 0.999)  # each copy but the last, and the next
    assert len(block) == copies.sum() - 1 and np.ptp(block) == len(block) - 1
    shown = plots_ablation.neighbours(image)
    assert len(shown) == 8 and [i in (*block, block[-1] + 1) for i in shown].count(True) >= 5
    pixels = axes[9].images[0].get_array()[[1, 6], 1:].ravel()
    assert (pixels == 1).sum() >= 5 * 3  # three pixels in a row of each of five copies
    redundancy = (R.square().sum() - K).item()
    assert axes[1].get_xlabel() == f"redundancy {redundancy:,.0f}" and not axes[0].get_xlabel()
    checked(plots_ablation.one_epoch(0 * R, 0 * usage, random(16, D), ("all are dead", "0 active")))
    assert [*plots_ablation.neighbours(np.eye(K))] == [*range(8)]  # there is no block


def test_one_digit_has_a_bar_for_each_unit_and_its_sums():
    E = 3 * torch.relu(random(K) - 0.3)
    axes = checked(plots_ablation.one_digit(random(D), {"early": E, "late": 100 * E}))
    for given, (a, b, c) in ((E, axes[1:6:2]), (100 * E, axes[2:7:2])):
        ordered, n = given.sort(descending=True)[0], int((E > 0).sum())
        for axis, part in zip(
            (a, b, c), (ordered, torch.exp(-ordered), torch.softmax(-ordered, 0))
        ):
            assert_allclose([bar.get_height() for bar in axis.patches], part, atol=1e-9)
        assert [text.get_text().split()[0] for text in a.texts] == [str(n), str(K - n)]
        assert f"{torch.exp(-given).sum():.1f}" in c.texts[0].get_text()


def test_the_count_has_a_dot_for_each_digit_beside_the_curve():
    active, loss = torch.tensor([1, 2, K - 1]), -random(3)
    (axis,) = checked(plots_ablation.count({name: (active, loss) for name in NAMES[1:3]}, K))
    assert_allclose(axis.lines[1].get_xydata(), np.stack([active, loss], 1))
    n, curve = axis.lines[0].get_xydata().T
    assert_allclose(curve, -np.log(K - n))


def test_competition_shows_agreements_and_redundancies():
    keys = [(dose, strength, s) for dose in (1, 0, 0.5) for strength in (7, 0, 1) for s in "01"]
    table = pd.DataFrame(keys, columns=["decorrelation", "competition", "seed"])
    table["redundancy"] = random(len(table)).numpy()
    models = {name: (random(8, D), random(K)) for name in ("C", "without", "another order")}
    a, b = checked(plots_ablation.competition(models, table))
    correlations = [r for _, r in models.values()]
    agreements = [f"{r.mean():.2f}" for r in correlations[1:]]
    assert [text.get_text() for text in a.texts] == ["agreement", *agreements]
    assert [t.get_text() for t in a.get_xticklabels()] == [f"{r:.2f}" for r in correlations[2][:8]]
    means = table.groupby(["competition", "decorrelation"]).redundancy.mean()
    assert_allclose(dots(b)[:, 1], means)  # 0, 1 and 7, each from the weakest decorrelation


def test_the_plateau_has_circles_where_the_script_stops():
    table = pd.DataFrame([(0.1, 64), (0.01, 64), (1, K)], columns=["rate", "units"])
    losses = {(rate, n): -n * torch.arange(1, 21) ** 0.5 for rate, n in table.values}
    table = table.assign(**{"living units": [64, 63, 0], "epoch": [np.nan, 14, 6]})
    (axis,) = checked(plots_ablation.plateau(losses, table))
    assert_allclose(dots(axis, filled=False)[:, 0], [14, 6])
    assert_allclose(axis.lines[0].get_ydata(), 64 * np.diff(np.arange(1, 21) ** 0.5), rtol=1e-4)


def test_optimizers_have_a_dot_for_each_run_and_the_sign_of_the_rank_correlation():
    runs = [(name, rate) for name in ("SGD", "Adam") for rate in (1e-4, 0.1)]
    table = pd.DataFrame(runs, columns=["optimizer", "rate"])
    table = table.assign(loss=[-300.0, -500, -600, -900], classifier=[91.0, 92, 93, 94])
    worse = table.assign(classifier=table.classifier[::-1].to_numpy())
    a, b = checked(plots_ablation.optimizers({"MNIST": (table, 95.0), "others": (worse, None)}))
    for axis, drawn, sign in ((a, table, "+"), (b, worse, "−")):
        assert_allclose(dots(axis, filled=False), drawn[["loss", "classifier"]][:2])
        assert_allclose(dots(axis), drawn[["loss", "classifier"]][2:])
        text = next(t.get_text() for t in axis.texts if "rank" in t.get_text())
        assert f"classifiers: {sign}1.0\n(SGD {sign}1.0, Adam {sign}1.0)" in text
    assert ["pixels" in [t.get_text() for t in axis.texts] for axis in (a, b)] == [True, False]
    assert_allclose(a.lines[0].get_ydata(), 95)
