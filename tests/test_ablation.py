"""lab/ablation.py against plain formulas, brute force and trainings by hand; its figures."""

import math
from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import mannwhitneyu
from sklearn.datasets import load_digits

import helpers as h
from lab import ablation, decoding, plane
from lab.figures import ablation as figures

X = torch.tensor(load_digits().data).float() / 16  # (1797, 64)
X, X_TEST = X[:1400], X[1400:]
Y, Y_TEST = (torch.tensor(load_digits().target[rows]) for rows in (slice(1400), slice(1400, None)))
rng = torch.Generator().manual_seed(0)
E = torch.rand(12, 5, generator=rng).double()


def trained(loss, seed=0, epochs=1, n_units=8, **options):
    """A layer, trained by hand."""
    layer = h.Encoder(64, n_units, seed=seed)
    h.fit(layer, lambda layer, x: loss(layer(x)), X, epochs=epochs, **options)
    return layer.requires_grad_(False)


LAYER = trained(h.decoder_free_loss, epochs=20, lr=0.01)


pytestmark = pytest.mark.usefixtures("one_after_the_other")


def test_losses_have_the_terms_that_their_names_say():
    terms = {"A": (1, 0, 0), "B": (1, 1, 0), "C": (1, 1, 1), "D": (0, 1, 1)}
    for letter, weights in terms.items():
        assert ablation.ablation_loss(letter)(E) == h.decoder_free_loss(E, *weights)
        rest = h.decoder_free_loss(E, 0, *weights[1:])
        expected = weights[0] * plane.lse_without_competition(E) + rest
        assert float(ablation.ablation_loss(letter, False)(E)) == pytest.approx(float(expected))
    assert ablation.ablation_loss("C", variance=3)(E) == h.decoder_free_loss(E, 1, 3, 1)
    ticks = ablation.plan_table().iloc[:, :3] == "✓"
    assert ticks.values.tolist() == [[bool(weight) for weight in w] for w in terms.values()]


def test_a_layer_is_kept_after_the_epochs_asked_for():
    loss = ablation.ablation_loss("C")
    layers = ablation.layers_by_epoch([1, 4, 2], loss, X, 8, 3)
    assert [*layers] == [1, 2, 4]
    for epoch, layer in layers.items():
        assert layer.W.equal(trained(loss, 3, epoch).W)
    noisy, _ = ablation.train_layer(h.lse_loss, X, 50, 3, 1, noise=0.1, lr=1e-9)
    W = h.Encoder(64, 50, seed=3).W.detach()
    assert float((noisy.W - W).std() / W.std()) == pytest.approx(0.1, rel=0.05)


def test_all_losses_are_trained_with_competition_or_without():
    layers = ablation.train_ablation({"A": [1], "C": [1, 2]}, "off", [3, 4], X, 8)
    assert [*layers] == [(letter, "off", seed) for letter in "AC" for seed in (3, 4)]
    for (letter, competition, seed), of_key in layers.items():
        assert [*of_key] == ([1] if letter == "A" else [1, 2])
        loss = ablation.ablation_loss(letter, competition=False)
        assert competition == "off" and of_key[1].W.equal(trained(loss, seed).W)


def test_scores_are_of_test_inputs():
    scores = ablation.ablation_scores(LAYER, X, Y, X_TEST, Y_TEST)
    E = LAYER(X_TEST)
    Z = np.exp(-E.double().numpy()).sum(1)
    r = np.exp(-E.double().numpy()) / Z[:, None]
    expected = {
        "dead units": h.dead_units(E),
        "low variance": sum(np.var(E.numpy(), 0) < 0.01),
        "redundancy": h.redundancy(E),
        "L0": h.l0(E),
        "entropy": -(r * np.log(r)).sum(1).mean(),
        "spread of Z": 100 * Z.std() / Z.mean(),
        "less than a tenth of a vote": 100 * np.mean(Z < 0.1 * Z.mean()),
        "classifier": decoding.classifier_accuracy(LAYER(X), Y, E, Y_TEST),
    }
    assert scores == pytest.approx(expected, rel=2e-3)
    assert ablation.inputs_without_vote(torch.tensor([0.05, 0.12, 1, 2.83])) == 25
    small = h.Encoder(64, 3)
    small.W.data *= 1e-3  # units that are active, and vary little
    scores = ablation.ablation_scores(small, X, Y, X_TEST, Y_TEST)
    assert scores["low variance"] == 3 > scores["dead units"]


def test_units_are_paired_by_the_best_of_all_pairings():
    A, B = torch.randn(50, 4, generator=rng).double(), torch.randn(50, 4, generator=rng).double()
    B[:, 2], A[:, 3] = 3 * A[:, 0] + 0.1 * B[:, 2], 0
    R = np.zeros((4, 4))
    R[:3] = np.corrcoef(A[:, :3].T, B.T)[:3, 3:]
    best = max(np.mean([R[i, j] for i, j in enumerate(p)]) for p in permutations(range(4)))
    assert ablation.unit_agreement(A, B) == pytest.approx(best)


def test_competition_costs_its_divergence_and_about_the_variance_of_Z():
    costs = ablation.costs_in_minibatches(LAYER, X, batch_size=100)
    rows = []
    for part in X.split(100):
        e = np.exp(-LAYER(part).double().numpy())
        Z = e.sum(1)
        q = Z / Z.sum()
        exact = -np.log(100 * q).sum()  # N KL(1/N || q)
        over = 50 / Z.mean() ** 2
        parts = exact, over * Z.var(ddof=1), over * e.var(0, ddof=1).sum()
        rows.append((*parts, float(h.decorrelation_loss(LAYER(part).double()))))
    assert_allclose([*costs.values()], np.mean(rows, 0), rtol=1e-6)
    names = ["competition costs", "by the expansion", "of single units", "decorrelation costs"]
    assert [*costs] == names
    assert costs["competition costs"] == pytest.approx(costs["by the expansion"], rel=0.3)


def test_a_dose_of_decorrelation_is_its_weight():
    keys = [(one, on, 3) for one in "BC" for on in ("on", "off")]
    early = {key: h.Encoder(64, 8, seed=i).requires_grad_(False) for i, key in enumerate(keys)}
    table = ablation.redundancy_by_dose([0, 0.1, 1], early, X, X_TEST, 8, [3], 1).redundancy
    assert [*table.index.unique("decorrelation")] == [0, 0.1, 1] and len(table) == 6
    for name, competition in {"on": True, "off": False}.items():
        layer = trained(ablation.ablation_loss("C", competition, decorrelation=0.1), 3)
        assert table[0.1, name, 3] == h.redundancy(layer(X_TEST))
        for dose, letter in {0: "B", 1: "C"}.items():
            assert table[dose, name, 3] == h.redundancy(early[letter, name, 3](X_TEST))


def test_agreement_is_with_the_layer_whose_training_was_changed():
    early = {(one, "on", 3): trained(ablation.ablation_loss(one), 3) for one in "BC"}
    early |= {(one, "off", 3): trained(ablation.ablation_loss(one, False), 3) for one in "BC"}
    table = ablation.agreement_after_changes(early, X, X_TEST, 8, [3], 1).agreement
    at_end = ablation.agreement_without_competition(early, X_TEST, [3]).agreement
    for letter in "BC":
        assert at_end[letter, 3] == pytest.approx(table["competition off", letter, 3])
        loss, E = ablation.ablation_loss(letter), early[letter, "on", 3](X_TEST)
        changed = {
            "competition off": early[letter, "off", 3],
            "0.1% of noise": ablation.train_layer(loss, X, 8, 3, 1, noise=0.001)[0],
            "another order": trained(loss, 3, order_seed=103),
        }
        for change, layer in changed.items():
            expected = ablation.unit_agreement(layer(X_TEST), E)
            assert table[change, letter, 3] == pytest.approx(expected)
    assert table["0.1% of noise"].min() > table["another order"].max()


def test_price_and_competition_are_the_parts_of_the_log_sum_exp():
    whole = ablation.loss_without_price(E) + plane.lse_without_competition(E)
    assert float(whole) == pytest.approx(float(h.decoder_free_loss(E)))
    keys = [("C", "on", 3), ("C", "off", 3), ("D", "on", 3)]
    early = {key: h.Encoder(64, 8, seed=i).requires_grad_(False) for i, key in enumerate(keys)}
    table = ablation.price_and_competition(early, X, X_TEST, 8, [3], 1).L0
    of = {key: h.l0(layer(X_TEST)) for key, layer in early.items()}
    on, off = table["price on"], table["price off"]
    assert (on["on", 3], on["off", 3]) == (of[keys[0]], of[keys[1]])
    alone = h.l0(trained(ablation.loss_without_price, 3)(X_TEST))
    assert (off["on", 3], off["off", 3]) == (alone, of[keys[2]])


def test_a_layer_as_on_the_page_decodes_a_digit():
    layer, digit, decoded = ablation.layer_as_on_the_page(X[:600], X_TEST, n_units=9)
    assert digit.equal(X_TEST[4]) and layer.W.shape == (9, 64)
    own, best = decoded.values()
    assert_allclose(own, layer(digit) @ layer.W, rtol=1e-5, atol=1e-5)
    expected = decoding.with_own_and_best_decoder(layer, X[:600])[1].reconstruct(digit[None])[0]
    assert_allclose(best.detach(), expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("units, inputs, weight", [(64, 128, 1), (16, 128, 4), (128, 32, 0.5)])
def test_at_the_predicted_share_price_and_pay_are_equal(units, inputs, weight):
    p = ablation.predicted_share_active(units, inputs, weight) / 100
    assert inputs / (units * (1 - p)) == pytest.approx(weight * (1 / p - 1 / (2 - p)))
    assert ablation.predicted_share_active(64, 128) == pytest.approx(100 * (1 - 2**-0.5))


def test_shares_are_of_the_settings_that_are_said():
    settings = {"inputs": [(8, 64, 1, 1)], "units": [(4, 32, 2, 0.5)]}
    table = ablation.shares_active(settings, X, X_TEST, 7, 1)
    assert [*table.index] == [("inputs", 8, 64, 1, 1, 7), ("units", 4, 32, 2, 0.5, 7)]
    for (_, units, inputs, variance, decorrelation, _), row in table.iterrows():
        loss = ablation.ablation_loss("C", variance=variance, decorrelation=decorrelation)
        layer = trained(loss, 7, n_units=units, batch_size=inputs)
        assert row["share active"] == pytest.approx(100 * h.l0(layer(X_TEST)) / units)
        assert row["formula"] == ablation.predicted_share_active(units, inputs, variance)


def test_settings_change_what_they_say():
    at = (64, 128, 1, 1)
    changes = {"units": {0}, "inputs": {1}, "weight of both": {2, 3}, "decorrelation alone": {3}}
    changes |= {"nothing": set(), "units, with weight N/2K": {0, 2, 3}}
    for name, which in changes.items():
        for setting in ablation.BALANCE_SETTINGS[name]:
            assert {i for i in range(4) if setting[i] != at[i]} == which
    for units, inputs, variance, decorrelation in ablation.BALANCE_SETTINGS[
        "units, with weight N/2K"
    ]:
        assert variance == decorrelation == inputs / units / 2


def test_pushes_are_gradients_by_the_bias_times_the_length_of_weights():
    found = ablation.outward_pushes(LAYER, X, batch_size=100)
    terms = {"log-sum-exp": h.lse_loss, "decorrelation": h.decorrelation_loss}
    for name, term in (terms | {"variance": h.variance_loss}).items():
        b = LAYER.b.clone().requires_grad_()
        parts = [term(torch.relu(part @ LAYER.W.T + b)) for part in X.split(100)]
        (gradient,) = torch.autograd.grad(sum(parts) / 14, b)
        expected = np.median((gradient * LAYER.W.norm(dim=1)).numpy())  # of an even number, too
        assert found[name] == pytest.approx(expected, rel=1e-3)


def test_strangers_have_the_pixels_of_digits():
    inputs = ablation.strange_inputs(X_TEST)
    for part in inputs.values():
        assert part.shape == X_TEST.shape and not part.equal(X_TEST)
        assert_allclose(part.flatten().sort().values, X_TEST.flatten().sort().values)
    order = inputs["pixels in another order"]
    assert_allclose(order.sum(1), X_TEST.sum(1), rtol=1e-5)
    assert inputs["mirrored"].view(-1, 8, 8).flip(2).flatten(1).equal(X_TEST)
    losses = ablation.lse_of_inputs(LAYER, {"digits": X_TEST} | inputs)
    assert_allclose(losses["digits"], -np.log(np.exp(-LAYER(X_TEST).numpy()).sum(1)), rtol=1e-4)
    table = ablation.auroc_of_strangers({("C", 0): losses}).AUROC
    for name in inputs:
        wins = mannwhitneyu(losses[name], losses["digits"]).statistic
        assert table[name, "C", 0] == pytest.approx(wins / len(X_TEST) ** 2)


def test_sgd_has_the_papers_rates_and_fewer_units(monkeypatch):
    asked = []

    def train_layer(loss, x, units, seed, epochs, **options):
        assert loss(E) == h.decoder_free_loss(E)
        asked.append((options["lr"], units, seed, epochs, options["optimizer"]))

    monkeypatch.setattr(ablation, "train_layer", train_layer)
    ablation.train_by_sgd(X, 64, 7, 100)
    expected = [(rate, 64, 7, 100) for rate in (0.0001, 0.001, 0.01, 0.1)]
    expected += [(0.01, 32, 7, 60), (0.01, 16, 7, 60)]
    assert asked == [(*one, torch.optim.SGD) for one in expected]


def test_the_fall_of_a_loss_is_that_of_its_last_epochs_for_each_living_unit():
    layer = h.Encoder(64, 5, seed=1).requires_grad_(False)
    layer.b.data[0] = -99  # dead
    losses = -8 * torch.log(torch.arange(1.0, 41))  # which falls by 8 / t in an epoch, nearly
    losses[:15] = 0
    table = ablation.fall_statistics({(0.1, 5): (layer, losses)}, X_TEST, 3)
    row = table.loc[(0.1, 5, 3)]
    assert row["living units"] == 4 and row.slope == pytest.approx(2, rel=0.03)
    assert row["epoch of convergence"] == ablation.convergence_epoch(losses)
    layer.b.data[:] = -99
    table = ablation.fall_statistics({(0.1, 5): (layer, losses)}, X_TEST, 3)
    assert math.isnan(table.slope.iloc[0])
    changes = np.array([9, 0.5, 0.5, 0.5, 0.5, -9, 0.9, -0.9, 0.9, 0, 0.1])
    losses = torch.tensor(np.cumsum([0, *changes]))
    assert ablation.convergence_epoch(losses) == 7  # the first of five, counted from 0
    assert math.isnan(ablation.convergence_epoch(losses[:7]))


# --- Figures --------------------------------------------------------------------------------------


def test_copies_stand_side_by_side_in_the_similarity():
    copies = torch.arange(48) % 3 == 0  # of one unit; the others are alone
    codes = torch.where(copies[:, None], torch.rand(50), torch.rand(48, 50))
    R, order = figures.sort_correlations(torch.corrcoef(codes))
    assert_allclose(R, abs(torch.corrcoef(codes)[order][:, order]), rtol=1e-5)
    block = np.flatnonzero(R.diagonal(1) > 0.999)  # each copy but the last, and the next
    assert len(block) == copies.sum() - 1 and np.ptp(block) == len(block) - 1
    units = figures.units_of_largest_block(R)  # sixteen, thirteen of them copies
    assert len(units) == 16 and len({*units} & {*block, block[-1] + 1}) >= 13
    assert figures.units_of_largest_block(R[:5, :5]).tolist() == [0, 1, 2, 3, 4]


def test_the_ablation_shows_its_numbers_and_collapse_in_words():
    dead = h.Encoder(64, 8).requires_grad_(False)
    dead.b.data -= 99
    layers = {letter: (LAYER(X_TEST), LAYER.W) for letter in "BCD"}
    fig = figures.draw_ablation({"A": (dead(X_TEST), dead.W)} | layers)
    said = [axis.get_xlabel() for axis in fig.axes] + [t.get_text() for t in fig.axes[0].texts]
    E = LAYER(X_TEST)
    assert said.count(f"redundancy {h.redundancy(E):,.0f}") == 3 == said.count(f"L0 {h.l0(E):.1f}")
    assert "collapse:\n8 of 8 units\nare dead" in said and "L0 0.0" in said
    heights = [bar.get_height() for bar in fig.axes[5].patches]
    assert_allclose(heights, h.usage(E).sort(descending=True).values)


def test_each_of_four_trainings_shows_its_own_redundancy():
    layers = {}
    for i, key in enumerate([("B", "on"), ("B", "off"), ("C", "on"), ("C", "off")]):
        alike = i * torch.randn(99, 1, generator=rng)
        layers[key] = torch.relu(torch.randn(99, 8, generator=rng) + alike), LAYER.W
    fig = figures.draw_two_by_two(layers)
    order = [("C", "on"), ("C", "off"), ("B", "on"), ("B", "off")]
    said = [axis.get_xlabel() for axis in fig.axes]
    assert said == [f"redundancy {h.redundancy(layers[key][0]):,.0f}" for key in order]
    assert len({*said}) == 4


def test_doses_are_drawn_as_they_are():
    keys = [(d, c, s) for d in (0, 0.1, 1) for c in ("on", "off") for s in (0, 1)]
    index = pd.MultiIndex.from_tuples(keys, names=["decorrelation", "competition", "seed"])
    table = pd.DataFrame({"redundancy": np.arange(12.0) + 1}, index)
    (axis,) = figures.draw_dose(table).axes
    mean_on, dots_on, mean_off, dots_off = axis.lines
    assert mean_on.get_ydata().tolist() == [1.5, 5.5, 9.5]
    assert dots_off.get_xydata().tolist() == [[0, 3], [0, 4], [1, 7], [1, 8], [2, 11], [2, 12]]
    assert mean_off.get_ydata().tolist() == [3.5, 7.5, 11.5] and len(dots_on.get_xydata()) == 6


def test_a_digit_is_as_dark_as_its_vote():
    votes = torch.tensor([0.05, 0.5, 3.0])
    fig = figures.draw_votes(torch.ones(3, 4), {"C": (votes, torch.tensor([0.05, 1, 1, 1]))})
    (axis,) = fig.axes
    image = axis.images[0].get_array()
    assert_allclose([image[1, 1], image[1, 5], image[1, 9]], [0.05, 0.5, 1])
    assert axis.get_xlabel() == "less than a tenth of a vote: 25%"


def test_the_loss_is_drawn_over_the_count():
    energies = {letter: torch.relu(torch.randn(200, 8, generator=rng)) for letter in "BCD"}
    a, b = figures.draw_loss_by_count(energies).axes[:2]
    curve, *dots = a.lines
    assert_allclose(curve.get_ydata(), -np.log(8 - curve.get_xdata()))
    for line, E in zip(dots, energies.values()):
        assert_allclose(line.get_xdata(), (E > 0).sum(1)[::20])
        assert_allclose(line.get_ydata(), -torch.logsumexp(-E, 1)[::20])
    assert [text.get_text() for text in b.texts] == ["B", "C", "D"]


def test_the_formula_is_drawn_through_its_own_numbers():
    names = ["changed", "units", "inputs", "variance", "decorrelation", "seed"]
    rows = [
        (name, *setting, 0)
        for name, some in ablation.BALANCE_SETTINGS.items()
        for setting in some[-1:]
    ]
    index = pd.MultiIndex.from_tuples(rows, names=names)
    fig = figures.draw_how_sparse(pd.DataFrame({"share active": np.arange(7.0) + 30}, index))
    a, b = fig.axes
    share = ablation.predicted_share_active(64, 128)
    assert a.lines[2].get_xdata()[0] == pytest.approx(share)
    x, y = b.lines[0].get_xydata().T
    assert np.interp(2, x, y) == pytest.approx(share, abs=0.2)
    marks = np.concatenate([line.get_xydata() for line in b.lines[1:]]).tolist()
    expected = [[2, 30], [0.25, 31], [8, 32], [0.125, 33], [1.4, 34], [0.25, 36]]
    for mark in expected:
        assert mark in marks
    assert not [mark for mark in marks if mark[1] == 35]  # its two weights differ
    plt.close(fig)


def test_falls_are_differences_and_circles_stand_at_convergence():
    losses = {(0.1, 8): -8 * torch.log(torch.arange(1.0, 31))}
    index = pd.MultiIndex.from_tuples([(0.1, 8, 0)], names=["rate", "units", "seed"])
    table = pd.DataFrame({"living units": [8], "epoch of convergence": [9.0]}, index)
    (axis,) = figures.draw_fall_of_loss(losses, table).axes
    falls, circle, pale, _ = axis.lines
    t = np.arange(1, 30)
    assert_allclose(falls.get_xydata(), np.stack([t, 8 * np.log((t + 1) / t)], 1), rtol=1e-4)
    assert circle.get_xdata().tolist() == [9]
    assert_allclose(pale.get_xdata() * pale.get_ydata(), 8)


def test_responsibilities_and_active_units_are_drawn_as_on_the_page():
    fig = figures.draw_page(LAYER, X_TEST[0], {"a": X_TEST[1], "b": X_TEST[2]})
    bars = [bar.get_width() for bar in fig.axes[-1].patches]
    E = LAYER(X_TEST[:1])
    assert_allclose(sorted(bars), sorted(h.responsibilities(E)[0]), atol=1e-6)
    frames = [patch for patch in fig.axes[0].patches]
    assert len(frames) == int((E > 0).sum())


def test_the_worst_fit_is_what_a_unit_is_most_active_on():
    """Of two units, one is active on four digits, the other on five others."""
    energies = torch.zeros(9, 2, dtype=torch.float64)
    energies[:4, 1], energies[4:, 0] = torch.arange(5.0, 9), torch.arange(5.0, 10)
    digits = torch.eye(9).repeat(1, 4)[:, :16]
    _, on, off = figures.draw_two_units(digits, torch.ones(2, 16), energies).axes
    assert "r<10^{-2}" in on.get_title(loc="center")  # at most 1 / (1 + e^6)
    assert "$r$ = 1/1" in off.get_title(loc="center")
    drawn = [on.images[0].get_array()[i : i + 4, 1:5].flatten() for i in (1, 7)]
    assert_allclose(drawn, digits[[1, 6]])  # of three each, sorted
