"""lab/plots*.py: that each figure shows the numbers it is given, where its words say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from numpy.testing import assert_allclose

from lab import plots, plots_ablation, plots_benchmark, plots_theorem

RANDOM = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def random(*shape):
    return torch.rand(*shape, generator=RANDOM)


def checked(figure, smallest=6.9):
    """The axes of a figure that has a description, and no text too small to read."""
    figure.draw_without_rendering()
    assert figure.alt
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= smallest
    return figure.axes


def words(axis):
    return [text.get_text() for text in axis.texts]


def title(axis):
    return axis.get_title() or axis.get_title(loc="left")


def pictures(axis, side=3):
    """The pictures (n, D) that `plots.tiles` has drawn, by rows."""
    image = np.asarray(axis.images[0].get_array())
    rows, columns = (n // (side + 2) for n in image.shape)
    parts = image.reshape(rows, side + 2, columns, side + 2).swapaxes(1, 2)
    return parts[:, :, 1:-1, 1:-1].reshape(rows * columns, -1)


def assert_pictures(axis, rows):
    """Pictures of the rows, each on a scale of its own."""
    rows = np.asarray(rows)
    found = pictures(axis)[: len(rows)]
    unit = [part / np.linalg.norm(part, axis=-1, keepdims=True) for part in (found, rows)]
    assert_allclose(*unit, atol=1e-5)


def dots(axis):
    """What markers of an axis show: a list of x, y for each line that has a marker."""
    lines = [line for line in axis.lines if line.get_marker() not in ("None", "", None)]
    return [line.get_xydata() for line in lines if len(line.get_xydata())]


def test_tiles_are_laid_out_by_rows_and_weights_have_a_sign():
    images = torch.randn(6, 9, generator=RANDOM)
    _, (a, b, c) = plt.subplots(1, 3)
    plots.tiles(a, images[:5], 3, marked=[0, 4])
    plots.tiles(b, images.abs(), 3, signed=False)
    plots.tiles(c, images, 3, scale=10)
    assert_pictures(a, images[:5])
    assert_allclose(pictures(c), images / 10)
    assert_allclose(a.lines[0].get_xydata(), [[1, 1], [6, 6]])  # in the first and the fifth
    assert a.images[0].get_clim() == (-1, 1) and b.images[0].get_clim() == (0, 1)
    assert a.images[0].cmap(1.0)[0] > a.images[0].cmap(1.0)[2]  # red is positive
    assert b.images[0].cmap(0.0)[:3] == (1, 1, 1)  # digits are black on white


# --- Notebook 1 ---------------------------------------------------------------------------------


def test_identity_shows_each_gradient_at_its_responsibility():
    r, other = random(2, 30)
    fig = plots_theorem.identity({"random energies": (r, 2 * r), "a layer": (other, other)})
    (axis,) = checked(fig)
    points = [np.asarray(dots.get_offsets()) for dots in axis.collections]
    assert_allclose(points[0], np.stack([r, 2 * r], 1))
    assert_allclose(points[1], np.stack([other, other], 1))
    assert axis.get_xscale() == axis.get_yscale() == "log"


def test_mixture_shows_paths_circles_and_counts():
    points, em, descent, without = (random(5, 3, 2) for _ in range(4))
    found = pd.DataFrame(
        {"loss": ["with", "without"] * 2, "seed": [0, 0, 1, 1], "starts": [9, 2, 8, 3]}
    )
    fig = plots_theorem.mixture(points[0], em, descent, without, found, 10, lucky=2.2)
    a, b, c = checked(fig)
    (d,) = checked(plots_theorem.paths(points[0], em, "a title"))
    for axis, path in ((a, descent), (b, without), (d, em)):
        assert_allclose(np.stack([line.get_xydata() for line in axis.lines[:3]], 1), path)
    assert_allclose(a.lines[-1].get_xydata(), em[1:].flatten(0, 1))
    assert "without" in title(b) and "EM" in title(a) and "two means" in words(b)[0]
    assert [list(line.get_ydata()) for line in c.lines[:2]] == [[9, 8], [2, 3]]
    assert c.lines[2].get_ydata()[0] == 2.2


def test_active_units_show_weights_and_the_digits_on_which_they_are_most_active():
    x, weights = random(60, 9), torch.randn(8, 9, generator=RANDOM)
    E = x @ weights.T
    E = torch.relu(E - torch.stack([E[:, j].quantile(0.1 + j / 10) for j in range(8)]))
    points, cluster = random(30, 2).double(), torch.arange(30) % 3
    W, r = torch.eye(3, 2).double() + 0.1, random(30, 3)
    fig = plots_theorem.active_units(points, cluster, W, W[:, 0], r, x, weights, E)
    a, shown, most, inactive = checked(fig)
    bars = [bar.get_height() for bar in a.patches if hasattr(bar, "get_height")]
    expected = [2.8 * r[cluster == j].mean(0) for j in range(3)]
    assert_allclose(np.reshape(bars, (3, 3)), expected, rtol=1e-5)
    units = [6, 0]  # of eight, the second rarest and the most active
    assert_pictures(shown, weights[units])
    tops = [x[E[:, unit].argsort(descending=True)[:3]] for unit in units]
    assert_pictures(most, torch.cat(tops))
    zero = [x[E[:, unit] == 0] for unit in units]
    for picture, rows in zip(pictures(inactive), np.repeat([0, 1], 3)):
        unit = zero[rows] / zero[rows].abs().quantile(0.99, dim=1, keepdim=True)
        assert np.abs(unit.numpy() - picture).max(1).min() < 1e-5
    assert "responsibility almost 0" in title(most) and title(inactive) == "inactive"


# --- Notebook 2 ---------------------------------------------------------------------------------


def test_configurations_show_correlations_usage_and_the_numbers_under_them():
    R = np.eye(6)
    R[1, 4] = R[4, 1] = -0.9
    usage = random(6)
    models = {"A: nothing": (0 * R, 0 * usage, np.nan, 0), "C: all": (R, usage, 1234.4, 16.8)}
    axes = np.reshape(checked(plots_ablation.configurations(models)), (2, 2))
    (above_a, above), (_, below) = axes
    assert words(above_a) == ["all 6 units\nare dead"] and above_a.get_xlabel() == ""
    matrix = np.asarray(above.collections[0].get_array()).reshape(6, 6)
    assert_allclose(np.sort(matrix.ravel()), np.sort(np.abs(R).ravel()))
    assert matrix.diagonal(1).max() == 0.9  # similar units stand side by side
    assert_allclose([bar.get_height() for bar in below.patches], usage.sort(descending=True)[0])
    assert title(above) == "C: all" and above.get_xlabel() == "redundancy 1,234"
    assert below.get_xlabel() == "17 of 6 active"


def test_count_shows_digits_beside_the_logarithm():
    active, loss = torch.tensor([1, 2, 3]), random(3) - 2
    (axis,) = checked(plots_ablation.count({"B": (active, loss), "D": (active + 1, loss)}, 8))
    curve, b, d = (line.get_xydata() for line in axis.lines)
    assert_allclose(curve[:, 1], -np.log(8 - curve[:, 0]))
    assert_allclose(b, np.stack([active, loss], 1))
    assert_allclose(d, np.stack([active + 1, loss], 1))


def test_competition_shows_rows_of_weights_and_means_over_seeds():
    weights = {name: torch.randn(8, 9, generator=RANDOM) for name in ("C", "without competition")}
    rows = [(d, c, s, 100 + 40 * d + c + s) for d in (1, 0, 0.5) for c in (7, 0, 1) for s in (0, 2)]
    table = pd.DataFrame(rows, columns=["decorrelation", "competition", "seed", "redundancy"])
    a, b = checked(plots_ablation.competition(weights, table))
    assert_pictures(a, torch.cat([*weights.values()]))
    for line, band, strength in zip(b.lines, b.collections, (0, 1, 7)):
        assert_allclose(line.get_ydata(), 101 + strength + np.array([0, 20, 40]))
        heights = band.get_paths()[0].vertices[:, 1]  # from the lowest seed to the highest
        assert_allclose([heights.min(), heights.max()], [100 + strength, 142 + strength])
    names = {line.get_color(): word for line, word in zip(b.lines, words(b))}
    assert names == {text.get_color(): text.get_text() for text in b.texts}
    assert [tick.get_text() for tick in b.get_xticklabels()] == ["0\n(B)", "0.5", "1\n(C)"]


def test_plateau_shows_falls_and_convergence():
    epochs = np.arange(1, 21)
    keys = [(0.1, 64), (0.01, 64), (0.01, 32), (0.01, 16)]
    losses = {key: torch.tensor(-key[1] * np.log(epochs)) for key in keys}
    table = pd.DataFrame(keys, columns=["rate", "units"])
    table = table.assign(**{"living units": [64, 63, 30, 16], "epoch": [np.nan, 14, 6, 8]})
    (axis,) = checked(plots_ablation.plateau(losses, table))
    curves = [line.get_xydata() for line in axis.lines if line.get_linewidth() == 1]
    for curve, values in zip(curves, losses.values()):
        assert_allclose(curve, np.stack([epochs[:-1], -np.diff(values)], 1))
    grey = [line.get_xydata() for line in axis.lines if line.get_linewidth() == 3]
    for line, units in zip(grey, (16, 30, 64)):
        assert_allclose(line.prod(1), units)
    falls = [-np.diff(losses[key])[end - 1 :][:5].mean() for key, end in zip(keys[1:], (14, 6, 8))]
    assert_allclose(np.concatenate(dots(axis)), np.stack([(14, 6, 8), falls], 1))
    assert {"64 units", "epoch 14", "32 units, 30 living", "epoch 6", "rate 0.1"} <= {*words(axis)}


def test_optimizers_are_bars_of_two_parts_with_their_sum():
    rows = [
        ("SGD", 0.1, -300.0, -400.0, -700.0, 3, 93.44),
        ("Adam", 0.001, -500.0, -410.0, -910.0, 0, 92.0),
    ]
    columns = ["optimizer", "rate", "variance term", "the rest", "loss", "dead", "classifier"]
    (axis,) = checked(plots_ablation.optimizers(pd.DataFrame(rows, columns=columns)))
    rest, variance = axis.containers
    assert [bar.get_width() for bar in rest] == [400, 410]
    assert [(bar.get_x(), bar.get_width()) for bar in variance] == [(400, 300), (410, 500)]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["SGD, 0.1", "Adam, 0.001"]
    assert words(axis)[:5] == ["-400", "-300", "-700", "3", "93.4"]
    assert words(axis)[5:10] == ["-410", "-500", "-910", "0", "92.0"]


def test_one_epoch_survives_a_model_whose_units_are_all_dead():
    said = ("all units are dead", "0 active units")
    a, b, c = checked(
        plots_ablation.one_epoch(torch.zeros(5, 5), torch.zeros(5), random(16, 9), said)
    )
    assert (title(a), title(b)) == said and len(b.patches) == 5 and len(pictures(c)) == 16


# --- Notebook 3 ---------------------------------------------------------------------------------


def test_the_papers_comparison_has_a_panel_for_each_measure():
    rows = [("the paper's model", s, 10, 17.0 + s, 93.0 + s / 10, 0.14) for s in (0, 1)]
    rows += [("its SAE", s, 20, 32.0, 90.0, 0.02 + s / 100) for s in (0, 1)]
    columns = ["method", "seed", "parameters", "l0", "classifier", "norm-matched"]
    fig = plots_benchmark.paper(pd.DataFrame(rows, columns=columns), {"classifier": ("pixels", 92)})
    axes = checked(fig)
    assert [title(axis).split(",")[0] for axis in axes] == [
        "parameters",
        "active units",
        "classifier",
        "error",
    ]
    heights = [[line.get_ydata().tolist() for line in axis.lines[:2]] for axis in axes]
    assert heights[1] == [[17, 18], [32, 32]] and heights[3] == [[0.14, 0.14], [0.02, 0.03]]
    assert words(axes[2]) == ["93.0", "90.0", "pixels"]
    assert axes[2].lines[-1].get_ydata()[0] == 92
    for axis in axes:
        low, high = axis.get_ylim()
        assert all(low < y < high for line in axis.lines for y in line.get_ydata())


def test_the_dumbbell_has_filled_dots_for_the_own_and_open_ones_for_the_best_decoder():
    rows = [
        (m, s, 0.3 + s / 10 + i / 7, 0.6 + i / 7, 50.26 + i)
        for i, m in enumerate("ab")
        for s in (0, 1)
    ]
    table = pd.DataFrame(
        rows, columns=["method", "seed", "explained", "explained_best", "recovered"]
    )
    (axis,) = checked(plots_benchmark.dumbbell(table, ("recovered", "recovered, %", 1), mine="b"))
    for i in (0, 1):
        bar, best, own = axis.lines[3 * i : 3 * i + 3]
        assert_allclose(own.get_xdata(), [30 + 100 * i / 7, 40 + 100 * i / 7])
        assert_allclose(best.get_xdata(), 60 + 100 * i / 7)
        assert_allclose(bar.get_xdata(), [35 + 100 * i / 7, 60 + 100 * i / 7])
        assert best.get_markerfacecolor() == "w" != own.get_markerfacecolor()
        assert {*own.get_ydata(), *best.get_ydata()} == {i}
        assert own.get_color() == best.get_color() == (plots.PAPER, plots.PINK)[i]
    assert [w for w in words(axis) if w[0].isdigit()] == [
        "35.0",
        "60.0",
        "50.3",
        "49.3",
        "74.3",
        "51.3",
    ]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["a", "b"]


def test_kinds_of_methods_have_colours():
    colors = {
        plots.PAPER: ("the paper's loss, by SGD", "by Adam, centred", "+ weight decay"),
        plots.SAE: ("L1 SAE", "its SAE", "TopK SAE"),
        plots.REVISED: ("+ centred: the revised loss", "revised, without competition"),
        plots.GREY: ("principal components",),
    }
    for color, methods in colors.items():
        assert {plots_benchmark.color_of(method) for method in methods} == {color}


def test_directions_show_pictures_and_cosines_with_the_decoder_row():
    def unit():
        return {
            name: torch.randn(9, generator=RANDOM) for name in ("decoder row", "step", "weights")
        }

    models = {"Adam": [unit(), unit()], "+ decay": [unit(), unit()]}
    grid = np.reshape(checked(plots_benchmark.directions(models)), (2, 7))
    for row, units in zip(grid, models.values()):
        for axes, parts in zip((row[:3], row[4:]), units):
            for axis, (name, image) in zip(axes, parts.items()):
                assert_pictures(axis, image[None])
                cosine = torch.cosine_similarity(image, parts["decoder row"], dim=0)
                assert axis.get_xlabel() == ("" if name == "decoder row" else f"{cosine:.2f}")
    assert [title(axis) for axis in grid[0][:3]] == ["decoder row", "step", "weights"]
    assert [row[0].get_ylabel() for row in grid] == [*models]


def test_units_show_both_models_and_purity():
    W = {name: torch.randn(64, 9, generator=RANDOM) for name in ("model", "sae")}
    shown = torch.arange(9) > 1
    of = pd.DataFrame({"method": ["b SAE", "b SAE", "by SGD"], "purity": [0.2, 0.3, 0.4]})
    of["l0"] = [9, 12, 16]
    fig = plots_benchmark.units(W, shown, 2, 5, {"ten": of}, ("k-means", 0.6))
    a, b, c, d = checked(fig)
    assert_pictures(a, W["model"])
    assert_allclose(pictures(b), W["sae"] / 2)
    assert_pictures(c, W["sae"] * shown)
    assert [title(axis)[:3] for axis in (a, b, c, d)] == ["(a)", "(b)", "(c)", "(d)"]
    for axis in (b, c):  # the last five, in the last line of eight
        assert_allclose(axis.lines[0].get_xydata(), [[5 * j + 1, 36] for j in range(3, 8)])
    assert [line.get_xdata().tolist() for line in d.lines[:2]] == [[0.4], [0.2, 0.3]]  # SAEs last
    names = {tick.get_text(): place for tick, place in zip(d.get_yticklabels(), d.get_yticks())}
    assert d.lines[1].get_ydata()[0] == names["b SAE (10 active)"]
    assert d.lines[2].get_xdata()[0] == 0.6


def test_one_digit_shows_active_units_by_their_part_in_the_sum():
    V = torch.randn(4, 9, generator=RANDOM)
    V[2] *= 100
    A, (digit, x_hat) = torch.tensor([3.0, 0, 1, 2]), random(2, 9)
    codes = {"the paper's loss": (A, V, x_hat), "L1 SAE": (0 * A, V, x_hat)}
    axes = np.reshape(checked(plots_benchmark.one_digit(digit, codes)), (2, 8))
    parts = A * V.norm(dim=1)
    order = [2, *sorted((0, 3), key=lambda j: -float(parts[j]))]
    for axis, unit in zip(axes[0, 3:], order):
        assert_pictures(axis, V[unit][None])
        assert_allclose(axis.lines[-1].get_xdata(), [0, parts[unit] / parts[2]], rtol=1e-5)
    assert_allclose(pictures(axes[0, 0])[0], digit)
    assert_allclose(pictures(axes[1, 1])[0], x_hat)
    assert [title(axis) for axis in axes[0, :2]] == ["digit", "reconstruction"]
    assert not axes[1, 3].images  # where no unit is active


def test_by_l0_draws_a_line_for_each_method_at_its_own_l0():
    rows = [("a", k, k + s, k / 40 + s / 10) for k in (5, 10) for s in (0, 1)]
    rows += [("b SAE", k, k, k / 20) for k in (5, 10)]
    table = pd.DataFrame(rows, columns=["method", "active", "l0", "explained"])
    (axis,) = checked(plots_benchmark.by_l0(table))
    a, b = (line.get_xydata() for line in axis.lines[:2])
    assert_allclose(a, [[5.5, 17.5], [10.5, 30]])
    assert_allclose(b, [[5, 25], [10, 50]])
    heights = dict(zip(words(axis), (text.get_position()[1] for text in axis.texts)))
    assert heights == pytest.approx({"a": 30, "b SAE": 50})
