"""lab/plots*.py: that each figure shows the data it is given, at its width, in legible letters."""

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from numpy.testing import assert_allclose

import helpers as h
from lab import plots, plots_ablation, plots_benchmark, plots_theorem

matplotlib.use("Agg")
RANDOM = torch.Generator().manual_seed(0)
# A figure shows what was measured; what follows from it is said, and can be corrected, in the text
VERDICT = r"\b(better|worse|best|same|does|doesn't|falls?|rises?|prevents?|shows?|matters?)\b"


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        plots.style()
        yield
    matplotlib.pyplot.close("all")


def checked(figure, width, smallest=7):
    """The axes of a figure whose width and letters are those that were promised."""
    figure.draw_without_rendering()
    assert figure.get_figwidth() == width
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= smallest
    assert not [text for text in texts if re.search(VERDICT, text.get_text().lower())]
    return figure.axes


def pictures(axis, side=28):
    """The pictures (rows, columns, D) that `plots.tiles` has drawn."""
    image = np.asarray(axis.images[0].get_array())
    rows, columns = (n // (side + 2) for n in image.shape)
    parts = image.reshape(rows, side + 2, columns, side + 2).swapaxes(1, 2)
    return parts[:, :, 1:-1, 1:-1].reshape(rows, columns, -1)


def assert_pictures(found, rows):
    """Pictures have scales of their own."""
    unit = [part / np.linalg.norm(part, axis=-1, keepdims=True) for part in (found, rows)]
    assert_allclose(*unit, atol=1e-5)


def texts(artists):
    return [text.get_text() for text in artists]


def heights(axis):
    return [bar.get_height() for bar in axis.patches]


def line(axis, name):
    return next(some for some in axis.lines if some.get_label() == name)


# --- What they have in common -------------------------------------------------------------------


def test_tiles_are_laid_out_by_rows_and_weights_have_a_sign():
    images = torch.randn(5, 9, generator=RANDOM)
    _, (a, b) = matplotlib.pyplot.subplots(1, 2)
    plots.tiles(a, images, 3)
    plots.tiles(b, images.abs(), 3, signed=False)
    assert_pictures(pictures(a, 3).reshape(6, 9)[:5], images.numpy())
    weights, digits = a.images[0], b.images[0]
    assert weights.get_clim() == (-1, 1) and digits.get_clim() == (0, 1)
    assert weights.cmap(1.0)[0] > weights.cmap(1.0)[2]  # red is positive
    assert digits.cmap(0.0)[:3] == (1, 1, 1)  # digits are black on white


# --- Notebook 1 ---------------------------------------------------------------------------------


def test_the_identity_in_units_of_rounding():
    r = torch.tensor([[1.0, 0.5], [2**-9, 2**-40]])
    compared = {"random": (r, r * (1 + 2 * 2**-23)), "trained": (r / 2, r / 2 * (1 - 2**-23))}
    above, below = checked(plots_theorem.identity_figure(compared), 3.3)
    assert texts(above.get_legend().get_texts()) == list(compared)
    for pair, dots, differences, rounding in zip(
        compared.values(), above.collections, below.collections, (2, -1)
    ):
        assert_allclose(dots.get_offsets(), torch.stack(pair, -1).flatten(0, 1))
        assert_allclose(differences.get_offsets()[:, 1], rounding)


def test_paths_of_the_three_means_and_counts_of_starts():
    em, descent, without = 10 * torch.rand(3, 4, 3, 2, generator=RANDOM)
    found = {"with": [95, 99], "without": [45, 40]}
    drawn = plots_theorem.toy_figure(em[0], em, descent, without, found, 100, 44.4)
    a, b, c = checked(drawn, 6.9)
    for axis, path in ((a, descent), (b, without)):
        lines = [some.get_xydata() for some in axis.lines[:4]]
        assert_allclose(np.stack(lines[:3], 1), path)
        assert_allclose(lines[3], path[0])  # crosses: the start
    assert_allclose(a.lines[4].get_xydata(), em[1:].flatten(0, 1))
    assert [list(some.get_ydata()) for some in c.lines[:2]] == [*found.values()]
    assert texts(c.get_xticklabels()) == ["with (EM)", "without"]
    assert list(c.lines[2].get_ydata()) == [44.4] * 2


def test_three_units_of_the_plane_and_four_of_the_layer():
    n, K, cluster = 60, 8, torch.arange(6) % 3
    points = torch.rand(6, 2, generator=RANDOM)
    theta = torch.tensor([[1.0, 0, -3], [0, 1, -8], [0.6, 0.8, -5]])
    r = torch.softmax(torch.randn(6, 3, generator=RANDOM), 1)
    layer, x = h.Encoder(784, K), torch.eye(784)[:n]  # so that W.T is the energies
    layer.b.data.zero_()
    E = torch.relu(layer.W[:, :n].detach())
    likeness = torch.rand(K, generator=RANDOM)
    drawn = plots_theorem.relu_figure(points, cluster, theta, r, x, layer, likeness)
    a, b, weights, most, inactive = checked(drawn, 6.9)
    assert_allclose(a.lines[0].get_xy1(), theta[2, :2] * 5, rtol=1e-6)  # the foot of its line
    means = np.concatenate([r[cluster == j].mean(0) for j in range(3)])
    assert_allclose(heights(b), 2.8 * means, rtol=1e-6)
    units = sorted(range(K), key=lambda j: -likeness[j])[::2]
    assert texts(weights.get_yticklabels()) == [f"{likeness[j]:.2f}" for j in units]
    assert_pictures(pictures(weights)[:, 0], layer.W[units].detach().numpy())
    top, zero = pictures(most).argmax(-1), pictures(inactive).argmax(-1)
    for row, j in enumerate(units):
        assert sorted(top[row]) == sorted(E[j].argsort()[-3:].tolist())
        assert len({*zero[row]}) == 3 and not E[j, zero[row]].any()


def test_sectors_of_the_unit_with_the_lowest_energy():
    points = torch.tensor([[-4.0, -4], [4, 4]])
    left = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 0, 9]])  # unit 1 has the lowest on the left
    below = torch.tensor([[0.0, 0, 9], [0, -1, 0], [0, 1, 0]])  # unit 3 below
    runs = {"one": (points, left, below), "two": (points, below, left)}
    axes = checked(plots_theorem.collapse_figure(runs), 3.3)
    corners = [axis.images[0].get_array()[[0, 0, -1], [0, -1, 0]].tolist() for axis in axes]
    of_left, of_below = [0, 1, 0], [2, 2, 1]  # lower left, lower right, upper left
    assert corners == [of_left, of_below, of_below, of_left]
    assert {axis.images[0].origin for axis in axes} == {"lower"}
    assert [sorted(texts(axis.texts)) for axis in axes[:2]] == [["1", "2"], ["2", "3"]]
    assert axes[0].texts[0].get_position()[0] < 0 < axes[0].texts[1].get_position()[0]


# --- Notebook 2 ---------------------------------------------------------------------------------


def test_the_ablation_shows_correlations_activity_and_usage_of_each_configuration():
    terms = pd.DataFrame({"log-sum-exp": [1, 1], "variance": [0, 1]}, index=["A", "C"])
    E = torch.tensor([[0, 9.0, 2, 0], [1, 0, 1, 0], [0, 4, 4, 0], [0, 5, 3, 3]])
    drawn = plots_ablation.ablation_figure({"A": torch.zeros(4, 4), "C": E}, terms)
    above_a, above, middle_a, middle, _, below, _ = checked(drawn, 6.9, smallest=10)
    assert texts(above_a.texts) == ["no unit\nvaries"] and not texts(above.texts)
    assert above.get_xlabel().split() == ["log-sum-exp", "variance"]
    shown, R = above.collections[0].get_array(), np.abs(np.corrcoef(E.T))
    assert_allclose(np.sort(shown, None), np.sort(R, None), atol=1e-6)
    assert_allclose(np.diag(shown), 1, atol=1e-6)
    assert heights(middle) == [1, 0.75, 0.25, 0.25] and heights(middle_a) == [0] * 4
    usage = torch.softmax(-E, 1).mean(0)
    assert_allclose(heights(below), usage[[2, 1, 0, 3]], rtol=1e-6)  # in the order of activity
    assert list(below.lines[0].get_ydata()) == [0.25] * 2


def test_redundancy_with_competition_and_without_by_weight_of_decorrelation():
    W = torch.randn(2, 8, 784, generator=RANDOM)
    redundancy = {(1, 0.0): 1000, (0, 0.0): 3000, (1, 0.3): 60, (0, 0.3): 62, (1, 1.0): 23}
    redundancy |= {(0, 1.0): 24, (1, 0.5): 7, (10, 0.0): 9}  # the last two are of no pair
    rows = [(*run, 1.0, "", (1 + s / 10) * r) for run, r in redundancy.items() for s in (0, 1)]
    rows += [(0, 0.0, 0.35, "", 1), (1, 1.0, 1.0, "start", 1)]
    runs = pd.DataFrame(rows, columns="weight decorrelation lam change redundancy".split())
    units = {"with competition": W[0], "another seed": W[1]}
    a, b = checked(plots_ablation.competition_figure(units, runs), 6.9)
    assert_pictures(pictures(a), W.numpy())
    assert texts(a.get_yticklabels()) == ["with\ncompetition", "another\nseed"]
    assert list(a.get_yticks()) == [14.5, 44.5]  # the middles of two lines of pictures
    assert texts(b.get_xticklabels()) == ["0", "0.3", "1"]
    curves = {some.get_color(): some.get_ydata() for some in b.lines if len(some.get_ydata())}
    legend = b.get_legend()
    names, (without, having) = texts(legend.get_texts()), legend.get_lines()
    assert names == ["without", "with"]
    assert_allclose(curves[having.get_color()], [1050, 63, 24.15])
    assert_allclose(curves[without.get_color()], [3150, 65.1, 25.2])


def test_losses_their_circles_and_epochs_of_convergence():
    loss = np.array([100, 90, 80, 70, *(69.5 - 0.4 * np.arange(8))])  # small steps from the 4th on
    runs = [(64, 0.01, loss), (64, 0.1, loss - 20), (64, 0.01, loss + 500)]
    runs += [(16, 0.1, loss - 70), (16, 0.01, loss[:8] - 60)]
    runs = [{"loss": loss, "K": K, "lr": lr, "living": K - 1} for K, lr, loss in runs]
    columns = ["K", "lr", "tolerance", "K / tolerance", "raw", "averaged"]
    table = pd.DataFrame([(64, 0.01, 1, 64, 60, 68), (16, 0.01, 2, 8, 7, np.nan)], columns=columns)
    drawn = plots_ablation.convergence_figure(runs, {"Adam": loss - 40}, table)
    a, b = checked(drawn, 6.9)
    shown = ["16 units, rate 0.01", "64 units, rate 0.01", "64 units, rate 0.1", "Adam"]
    assert sorted(texts(a.texts)) == shown
    first = line(a, "64 units, rate 0.01")  # of the first seed
    assert_allclose(first.get_xydata(), np.stack([np.arange(12) + 0.5, loss], 1))
    assert first.get_markevery() == [4] and line(a, "16 units, rate 0.01").get_markevery() == []
    assert_allclose(line(a, "Adam").get_ydata(), loss - 40)
    x, y = next(some for some in a.lines if len(some.get_xdata()) == 11).get_xydata().T
    assert_allclose(y - y[0], -63 * np.log(x / x[0]))  # the prediction
    raw, averaged = b.lines[1], line(b, "64 units")
    assert [*raw.get_xydata()[0], *averaged.get_xydata()[0]] == [64, 60, 64, 68]
    assert raw.get_markerfacecolor() == "none" != averaged.get_markerfacecolor()


# --- Notebook 3 ---------------------------------------------------------------------------------


def test_the_benchmark_joins_the_means_of_settings_from_sparse_to_dense():
    rows = [("the a", 1.0, 20, 0.7, 0.8), ("the a", 1.0, 22, 0.72, 0.81)]
    rows += [("the a", 2.0, 5, 0.4, 0.6), ("b", 9, 9, 0.5, 0.55), ("control", 9, 9, 0, 0)]
    table = pd.DataFrame(rows, columns=["method", "setting", "l0", "explained", "least_squares"])
    looks = {"b": ("r", "s", "-"), "the a": ("k", "o", ":")}
    pca = [5, 10, 20], [0.2, 0.4, 0.6]
    figure = plots_benchmark.benchmark_figure(table, looks, pca)
    axes = checked(figure, 6.9, smallest=10)
    for axis, y in zip(axes, ([0.4, 0.71], [0.6, 0.805])):
        assert_allclose(line(axis, "a").get_xydata(), np.stack([[5, 21], y], 1))
        assert axis.get_xscale() == "log" and {"7", "10"} <= {*texts(axis.get_xticklabels())}
    assert_allclose(axes[0].lines[2].get_ydata(), [0.7, 0.72, 0.4])
    assert_allclose(axes[1].lines[-1].get_xydata(), np.transpose(pca))
    assert texts(figure.legends[0].get_texts()) == ["b", "a"]


def test_a_digit_with_its_energies_responsibilities_and_active_units():
    x, x_hat, W = torch.rand(784), torch.rand(784), torch.randn(9, 784, generator=RANDOM)
    E, r = torch.tensor([0, 1.5, 0, 3, 0.25, 0, 0, 0, 0]), torch.arange(1.0, 10) / 45
    a, b, first, *units, last = checked(plots_benchmark.digit_figure(x, E, r, W, x_hat), 6.9)
    assert heights(a) == [3, 1.5, 0.25, *[0] * 6] and a.get_title("left").startswith("(a) 3 of 9")
    assert_allclose(heights(b)[:3], np.array([4, 2, 5]) / 45)
    assert_allclose(first.images[0].get_array().flatten(), x)
    assert_allclose(last.images[0].get_array().flatten(), x_hat)
    assert_pictures(np.concatenate([pictures(axis)[0] for axis in units]), W[[3, 1, 4]].numpy())
    assert [axis.get_title("center") for axis in units] == ["E = 3.00", "E = 1.50", "E = 0.25"]


def test_means_of_a_unit_have_one_scale_and_differences_their_own():
    found = {name: torch.randn(5, 784, generator=RANDOM) for name in ("x_A", "x_R", "x_I", "W")}
    A, R, inactive, W = found.values()
    axes = checked(plots_benchmark.means_figure(found, [4, 1]), 6.9)
    parts = (A, R, inactive, A - R, A - inactive, W)
    for row, unit in zip((axes[:6], axes[6:]), (4, 1)):
        for axis, part in zip(row, parts):
            assert_allclose(axis.images[0].get_array().flatten(), part[unit], rtol=1e-6)
        limits = [axis.images[0].get_clim() for axis in row]
        largest = max(float(part[unit].abs().max()) for part in parts[:3])
        assert limits[:3] == [(-largest, largest)] * 3 and len({*limits}) == 4
    words = [axis.get_title("center").split("\n")[0] for axis in axes[:6]]
    assert words[2:5] == ["inactive", "gradient", "decoder row"]
