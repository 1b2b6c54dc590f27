"""lab/plots*.py: that each figure shows the data it is given, at its width, in legible letters."""

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Text
from numpy.testing import assert_allclose

import helpers as h
from lab import growth, plots, plots_ablation, plots_benchmark, plots_theorem

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
    """The axes of a figure, drawn, whose width and letters are those that were promised."""
    figure.canvas.draw()
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


def texts(axis):
    return [text.get_text() for text in axis.texts]


def labels(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


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
    assert not pictures(a, 3)[1, 2].any()
    red, blue = a.images[0].cmap(1.0), a.images[0].cmap(0.0)
    assert red[0] > red[2] and blue[2] > blue[0]
    assert a.images[0].get_clim() == (-1, 1) and b.images[0].get_clim() == (0, 1)
    assert b.images[0].cmap(0.0)[:3] == (1, 1, 1)  # digits are black on white


def test_labels_at_the_ends_of_lines_do_not_overlap():
    figure, axis = matplotlib.pyplot.subplots()
    for name, end in {"a": 2.0, "b": 1.0, "c": 1.001, "_d": 1.0}.items():
        axis.plot([0, 1], [0, end], label=name)
    plots.label_ends(axis)
    figure.canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in axis.texts}
    assert sorted(boxes, key=lambda name: boxes[name].y0) == ["b", "c", "a"]
    assert boxes["c"].y0 - boxes["b"].y0 >= 8 * figure.dpi / 72 - 0.5


# --- Notebook 1 ---------------------------------------------------------------------------------


def test_the_identity_in_units_of_rounding():
    r = torch.tensor([[1.0, 0.5], [2**-9, 2**-40]])
    compared = {"random": (r, r * (1 + 2 * 2**-23)), "trained": (r / 2, r / 2 * (1 - 2**-23))}
    above, below = checked(plots_theorem.identity_figure(compared), 3.3)
    assert [text.get_text() for text in above.get_legend().get_texts()] == list(compared)
    for (values, gradient), dots, differences, rounding in zip(
        compared.values(), above.collections, below.collections, (2, -1)
    ):
        assert_allclose(dots.get_offsets(), torch.stack([values, gradient], -1).flatten(0, 1))
        assert_allclose(differences.get_offsets()[:, 1], rounding)
    assert above.get_xscale() == above.get_yscale() == below.get_xscale() == "log"


def test_paths_of_the_three_means_and_counts_of_starts():
    points = 10 * torch.rand(6, 2, generator=RANDOM)
    em, descent, without = 10 * torch.rand(3, 4, 3, 2, generator=RANDOM)
    found = {"with": [95, 99], "without": [45, 40]}
    drawn = plots_theorem.toy_figure(points, em, descent, without, found, 100, 44.4)
    a, b, c = checked(drawn, 6.9)
    for axis, path in ((a, descent), (b, without)):
        for j in range(3):
            assert_allclose(axis.lines[j].get_xydata(), path[:, j])
        assert_allclose(axis.lines[3].get_xydata(), path[0])  # crosses: the start
    assert_allclose(a.lines[4].get_xydata(), em[1:].flatten(0, 1))
    for place, counts in enumerate(found.values()):
        assert list(c.lines[place].get_ydata()) == counts
        assert_allclose(c.lines[place].get_xdata(), place, atol=0.2)
    assert c.get_xticklabels()[0].get_text() == "with (EM)" and texts(c) == ["lucky starts: 44"]
    assert list(c.lines[2].get_ydata()) == [44.4] * 2 and c.get_ylabel() == "starts, of 100"


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
    assert labels(weights) == [f"{likeness[j]:.2f}" for j in units]
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
    for axis, (corner, other) in zip(axes, [(0, 0), (2, 1), (2, 1), (0, 0)]):
        drawn = axis.images[0].get_array()  # its first row is the lowest, for the origin
        assert axis.images[0].origin == "lower" and drawn[0, 0] == corner
        assert drawn[0, -1] == (1 if corner == 0 else 2) and drawn[-1, 0] == other
    assert [sorted(texts(axis)) for axis in axes[:2]] == [["1", "2"], ["2", "3"]]
    assert axes[0].texts[0].get_position()[0] < 0 < axes[0].texts[1].get_position()[0]
    assert [axes[0].get_ylabel(), axes[2].get_ylabel()] == list(runs)


# --- Notebook 2 ---------------------------------------------------------------------------------


def test_the_ablation_shows_correlations_activity_and_usage_of_each_configuration():
    terms = pd.DataFrame({"log-sum-exp": [1, 1], "variance": [0, 1]}, index=["A", "C"])
    E = torch.tensor([[0, 9.0, 2, 0], [1, 0, 1, 0], [0, 4, 4, 0], [0, 5, 3, 3]])
    drawn = plots_ablation.ablation_figure({"A": torch.zeros(4, 4), "C": E}, terms)
    axes = checked(drawn, 6.9, smallest=10)
    (above_a, above, middle_a, middle, below_a, below), bar = axes[:6], axes[6:]
    assert [len(bar), above_a.get_title("center"), above.get_title("center")] == [1, "A", "C"]
    assert texts(above_a) == ["no unit\nvaries"] and not texts(above)
    assert above_a.get_xlabel().split() == ["log-sum-exp"]
    assert above.get_xlabel().split() == ["log-sum-exp", "variance"]
    shown, R = above.collections[0].get_array(), np.abs(np.corrcoef(E.T))
    assert_allclose(np.sort(shown, None), np.sort(R, None), atol=1e-6)
    assert_allclose(np.diag(shown), 1, atol=1e-6)
    assert not above_a.collections[0].get_array().any()
    assert heights(middle) == [1, 0.75, 0.25, 0.25] and heights(middle_a) == [0] * 4
    usage = torch.softmax(-E, 1).mean(0)
    assert_allclose(heights(below), sorted(usage, reverse=True), rtol=1e-6)
    assert_allclose(heights(below_a), 0.25)
    assert list(below.lines[0].get_ydata()) == [0.25] * 2
    assert below.get_ylim() == below_a.get_ylim() and below.get_ylim()[1] > max(heights(below))


def test_redundancy_with_competition_and_without_by_weight_of_decorrelation():
    W = torch.randn(2, 8, 784, generator=RANDOM)
    redundancy = {(1, 0.0): 1000, (0, 0.0): 3000, (1, 0.3): 60, (0, 0.3): 62, (1, 1.0): 23}
    redundancy |= {(0, 1.0): 24, (1, 0.5): 7, (10, 0.0): 9}  # the last two are of no pair
    plain = [(c, w, 1.0, "", seed) for c, w in redundancy for seed in (0, 1)]
    others = [(0, 0.0, 0.35, "", 0), (1, 1.0, 1.0, "start", 0)]
    runs = pd.DataFrame(
        plain + others, columns=["weight", "decorrelation", "lam", "change", "seed"]
    )
    runs["redundancy"] = [redundancy[c, w] * (1 + s / 10) for c, w, *_, s in plain] + [1, 1]
    rows = {"with competition": W[0], "another seed": W[1]}
    a, b = checked(plots_ablation.competition_figure(rows, runs), 6.9)
    assert_pictures(pictures(a), W.numpy())
    assert labels(a) == ["with\ncompetition", "another\nseed"]
    curves = {
        to_hex(some.get_color()): some.get_ydata() for some in b.lines if len(some.get_xdata())
    }
    assert_allclose(curves[to_hex("k")], [1050, 63, 24.15])
    assert_allclose(curves[to_hex("C1")], [3150, 65.1, 25.2])
    assert [tick.get_text() for tick in b.get_xticklabels()] == ["0", "0.3", "1"]
    assert b.get_yscale() == "log"
    bands = [band.get_paths()[0].get_extents() for band in b.collections]
    assert_allclose([(band.y0, band.y1) for band in bands], [(24, 3300), (23, 1100)])
    legend = b.get_legend()
    named = zip(legend.get_texts(), legend.get_lines())
    assert {text.get_text(): to_hex(some.get_color()) for text, some in named} == {
        "with": to_hex("k"),
        "without": to_hex("C1"),
    }


def test_losses_their_circles_and_epochs_of_convergence():
    loss = np.array([100, 90, 80, 70, *(69.5 - 0.4 * np.arange(8))])  # small steps from the 4th on

    def run(K, lr, loss):
        return {"loss": loss, "K": K, "lr": lr, "living": K - 1}

    runs = [run(64, 0.01, loss), run(64, 0.1, loss - 20), run(64, 0.01, loss + 500)]
    runs += [run(16, 0.1, loss - 70), run(16, 0.01, loss[:8] - 60)]
    columns = ["K", "lr", "tolerance", "K / tolerance", "raw", "averaged"]
    table = pd.DataFrame([(64, 0.01, 1, 64, 60, 68), (16, 0.01, 2, 8, 7, np.nan)], columns=columns)
    drawn = plots_ablation.convergence_figure(runs, {"Adam": loss - 40}, table)
    a, b = checked(drawn, 6.9)
    rates = ["16 units, rate 0.01", "64 units, rate 0.01", "64 units, rate 0.1"]
    assert sorted(texts(a)) == [*rates, "Adam"]
    first = line(a, "64 units, rate 0.01")  # of the first seed
    assert_allclose(first.get_xydata(), np.stack([np.arange(12) + 0.5, loss], 1))
    assert first.get_markevery() == [4] and line(a, "16 units, rate 0.01").get_markevery() == []
    assert_allclose(line(a, "Adam").get_ydata(), loss - 40)
    x, y = next(some for some in a.lines if len(some.get_xdata()) == 11).get_xydata().T
    assert_allclose(y - y[0], -63 * np.log(x / x[0]))  # the prediction
    assert a.get_xscale() == "log"
    points = [some.get_xydata().tolist() for some in b.lines]
    assert [[64, 60]] in points and [[8, 7]] in points and [[64, 68]] in points
    assert b.lines[1].get_markerfacecolor() == "none" != line(b, "64 units").get_markerfacecolor()
    assert line(b, "64 units").get_xydata().tolist() == [[64, 68]]
    paper = line(b, "the paper's four").get_xydata()
    assert paper.tolist() == [[64, epoch] for epoch in growth.PAPER_CONVERGED]


# --- Notebook 3 ---------------------------------------------------------------------------------


def test_the_benchmark_joins_the_means_of_settings_from_sparse_to_dense():
    rows = [("the a", 2.0, 0, 20, 0.7, 0.8), ("the a", 2.0, 1, 22, 0.72, 0.81)]
    rows += [("the a", 1.0, 0, 5, 0.4, 0.6), ("b", 9, 0, 9, 0.5, 0.55), ("control", 9, 0, 9, 0, 0)]
    columns = ["method", "setting", "seed", "l0", "explained", "least_squares"]
    table, looks = (
        pd.DataFrame(rows, columns=columns),
        {"b": ("r", "s", "-"), "the a": ("k", "o", ":")},
    )
    pca = [5, 10, 20], [0.2, 0.4, 0.6]
    figure = plots_benchmark.benchmark_figure(table, looks, pca)
    axes = checked(figure, 6.9, smallest=10)
    for axis, y, dots in zip(
        axes, ([0.4, 0.71], [0.6, 0.805]), ([0.7, 0.72, 0.4], [0.8, 0.81, 0.6])
    ):
        assert_allclose(line(axis, "a").get_xydata(), np.stack([[5, 21], y], 1))
        assert_allclose(axis.lines[2].get_ydata(), dots)
        assert axis.get_xscale() == "log" and line(axis, "a").get_color() == "k"
        ticks = [float(tick.get_text()) for tick in axis.get_xticklabels()]
        assert ticks == list(axis.get_xticks()) and {7, 10} <= {*ticks}
    assert_allclose(axes[1].lines[-1].get_xydata(), np.transpose(pca))
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["b", "a"]
    assert [some.get_color() for some in legend.get_lines()] == ["r", "k"]


def test_a_digit_with_its_energies_responsibilities_and_active_units():
    x, x_hat, W = torch.rand(784), torch.rand(784), torch.randn(9, 784, generator=RANDOM)
    E, r = torch.tensor([0, 1.5, 0, 3, 0.25, 0, 0, 0, 0]), torch.arange(1.0, 10) / 45
    a, b, first, *units, last = checked(plots_benchmark.digit_figure(x, E, r, W, x_hat), 6.9)
    assert heights(a) == [3, 1.5, 0.25, *[0] * 6] and a.get_title("left").startswith("(a) 3 of 9")
    assert_allclose(heights(b)[:3], np.array([4, 2, 5]) / 45)
    colours = [to_hex(bar.get_facecolor()) for bar in b.patches]
    assert colours[:3] == [to_hex("C3")] * 3 and {*colours[3:]} == {to_hex("0.75")}
    assert_allclose(first.images[0].get_array().flatten(), x)
    assert_allclose(last.images[0].get_array().flatten(), x_hat)
    assert_pictures(np.concatenate([pictures(axis)[0] for axis in units]), W[[3, 1, 4]].numpy())
    assert [axis.get_title("center") for axis in units] == ["E = 3.00", "E = 1.50", "E = 0.25"]
    many = plots_benchmark.digit_figure(x, r, r, W, x_hat)
    assert len(many.axes) == 2 + 2 + 7


def test_means_of_a_unit_have_one_scale_and_differences_their_own():
    found = {name: torch.randn(5, 784, generator=RANDOM) for name in ("x_A", "x_R", "x_I", "W")}
    A, R, inactive, W = found.values()
    axes = checked(plots_benchmark.means_figure(found, [4, 1]), 6.9)
    assert len(axes) == 12
    for row, unit in zip((axes[:6], axes[6:]), (4, 1)):
        parts = (A, R, inactive, A - R, A - inactive, W)
        for axis, part in zip(row, parts):
            assert_allclose(axis.images[0].get_array().flatten(), part[unit], rtol=1e-6)
        limits = [axis.images[0].get_clim() for axis in row]
        largest = max(float(part[unit].abs().max()) for part in parts[:3])
        assert limits[:3] == [(-largest, largest)] * 3 and len({*limits}) == 4
    words = [axis.get_title("center").split("\n")[0] for axis in axes[:6]]
    assert words[:3] == ["strongly active", "barely active", "inactive"]
    assert words[3:] == ["gradient", "decoder row", "weights"]


def test_units_of_each_method_have_a_row():
    W = torch.randn(3, 8, 784, generator=RANDOM)
    rows = dict(zip(("k-means", "tied SAE", "the paper's loss"), W))
    (axis,) = checked(plots_benchmark.units_figure(rows), 6.9)
    assert_pictures(pictures(axis), W.numpy())
    assert labels(axis) == list(rows)
    assert axis.get_ylim() == (89.5, -0.5)  # ticks do not widen it
