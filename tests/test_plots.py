"""lab/plots*.py: that each figure shows the data it is given, in legible letters."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from numpy.testing import assert_allclose

import helpers as h
from lab import plots, plots_ablation, plots_benchmark, plots_theorem

RANDOM = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def checked(figure, smallest=7):
    """The axes of a figure that has a description, and no text too small to read."""
    figure.draw_without_rendering()
    assert figure.alt
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= smallest
    return figure.axes


def pictures(axis, side):
    """The pictures (n, D) that `plots.tiles` has drawn, by rows."""
    image = np.asarray(axis.images[0].get_array())
    rows, columns = (n // (side + 2) for n in image.shape)
    parts = image.reshape(rows, side + 2, columns, side + 2).swapaxes(1, 2)
    return parts[:, :, 1:-1, 1:-1].reshape(rows * columns, -1)


def assert_pictures(found, rows):
    """Pictures have scales of their own."""
    unit = [part / np.linalg.norm(part, axis=-1, keepdims=True) for part in (found, rows)]
    assert_allclose(*unit, atol=1e-5)


def line(axis, name):
    return next(line for line in axis.lines if line.get_label() == name)


# --- What they have in common -------------------------------------------------------------------


def test_tiles_are_laid_out_by_rows_and_weights_have_a_sign():
    images = torch.randn(6, 9, generator=RANDOM)
    _, (a, b) = plt.subplots(1, 2)
    plots.tiles(a, images[:5], 3)
    plots.tiles(b, images.abs(), 3, signed=False)
    assert_pictures(pictures(a, 3)[:5], images[:5].numpy())
    weights, digits = a.images[0], b.images[0]
    assert weights.get_clim() == (-1, 1) and digits.get_clim() == (0, 1)
    assert weights.cmap(1.0)[0] > weights.cmap(1.0)[2]  # red is positive
    assert digits.cmap(0.0)[:3] == (1, 1, 1)  # digits are black on white


def test_labels_at_the_ends_of_lines_do_not_overlap():
    fig, axis = plt.subplots()
    for i in range(4):
        axis.plot([0, 1], [0, 1 + 1e-4 * i], label=f"line {i}")
    plots.label_ends(axis, gap=9)
    fig.canvas.draw()
    boxes = [text.get_window_extent() for text in axis.texts]
    assert [text.get_text() for text in axis.texts] == [f"line {i}" for i in range(4)]
    assert all(not a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    moved = [text.xyann[1] for text in axis.texts]
    assert_allclose(moved, [-13.5, -4.5, 4.5, 13.5], atol=0.1)  # to both sides


# --- Notebook 1 ---------------------------------------------------------------------------------


def test_identity_shows_each_gradient_at_its_responsibility():
    r, other = torch.rand(2, 30, generator=RANDOM)
    fig = plots_theorem.identity({"random energies": (r, 2 * r), "a layer": (other, other)})
    (axis,) = checked(fig)
    points = [np.asarray(dots.get_offsets()) for dots in axis.collections]
    assert_allclose(points[0], np.stack([r, 2 * r], 1))
    assert_allclose(points[1], np.stack([other, other], 1))
    assert axis.get_xscale() == axis.get_yscale() == "log"


def test_mixture_shows_paths_circles_and_counts():
    points, em, descent, without = (torch.rand(5, 3, 2, generator=RANDOM) for _ in range(4))
    found = pd.DataFrame(
        {"loss": ["with", "without"] * 2, "seed": [0, 0, 1, 1], "starts": [9, 2, 8, 3]}
    )
    fig = plots_theorem.mixture(points[0], em, descent, without, found, 10, lucky=2.2)
    a, b, c = checked(fig)
    for axis, path in ((a, descent), (b, without)):
        drawn = np.stack([line.get_xydata() for line in axis.lines[:3]], 1)
        assert_allclose(drawn, path)
    assert_allclose(a.lines[-1].get_xydata(), em[1:].flatten(0, 1))
    assert [list(line.get_ydata()) for line in c.lines[:2]] == [[9, 8], [2, 3]]
    assert c.lines[2].get_ydata()[0] == 2.2


def test_active_units_show_weights_and_the_digits_on_which_they_are_most_active():
    layer, x = h.Encoder(9, 8, seed=1), torch.rand(60, 9, generator=RANDOM)
    with torch.no_grad():
        layer.b -= layer.pre_activations(x).quantile(torch.linspace(0.1, 0.8, 8)[0], 0)
    points, cluster = torch.rand(30, 2, generator=RANDOM).double(), torch.arange(30) % 3
    W, r = torch.eye(3, 2).double() + 0.1, torch.rand(30, 3, generator=RANDOM)
    fig = plots_theorem.active_units(points, cluster, W, W[:, 0], r, x, layer)
    a, weights, most, _ = checked(fig)
    bars = np.reshape([bar.get_height() for bar in a.patches[-9:]], (3, 3))
    assert_allclose(bars, [2.8 * r[cluster == j].mean(0) for j in range(3)], rtol=1e-5)
    shown = pictures(weights, 3)
    E = layer(x).detach()
    often = (E > 0).double().mean(0).argsort(descending=True)[[1, 3, 5, 7]]
    assert_pictures(shown, layer.W[often].detach().numpy())
    top = np.concatenate([x[E[:, unit].argsort(descending=True)[:3]] for unit in often])
    assert_pictures(pictures(most, 3), top)


# --- Notebook 2 ---------------------------------------------------------------------------------


def test_configurations_show_correlations_activity_and_usage_of_the_same_units():
    E = torch.relu(torch.randn(50, 6, generator=RANDOM) + torch.linspace(-1, 1, 6))
    E[:, 1] = E[:, 4] + 0.01 * E[:, 2]
    axes = np.reshape(checked(plots_ablation.configurations({"A": 0 * E, "C": E})), (3, 2))
    (above_a, above), (_, middle), (below_a, below) = axes
    assert above_a.texts[0].get_text() == "no unit\nvaries"
    matrix = np.asarray(above.collections[0].get_array()).reshape(6, 6)
    R = np.abs(np.corrcoef(E.numpy().T))
    assert_allclose(np.sort(matrix.ravel()), np.sort(R.ravel()), atol=1e-6)
    assert matrix.diagonal(1).max() > 0.99  # similar units stand side by side
    active, order = (E > 0).double().mean(0).sort(descending=True, stable=True)
    assert_allclose([bar.get_height() for bar in middle.patches], active)
    assert_allclose([bar.get_height() for bar in below.patches], h.usage(E)[order])
    assert_allclose([bar.get_height() for bar in below_a.patches], 1 / 6)


def test_competition_shows_rows_of_weights_and_means_over_seeds():
    rows = {name: torch.randn(8, 9, generator=RANDOM) for name in ("C", "without", "a seed")}
    table = pd.DataFrame(
        [
            (f"decorrelation {weight}", change, seed, value + 0.1 * seed)
            for weight, value in ((10, 0.7), (0.5, 0.2))
            for change in ("unchanged", "without competition", "noise", "a millionth")
            for seed in (0, 1)
        ],
        columns=["model", "change", "seed", "agreement"],
    )
    table.loc[table.change == "noise", "agreement"] += 0.01
    table.loc[table.change == "a millionth", "agreement"] += 0.05
    a, b = checked(plots_ablation.competition(rows, table))
    assert_pictures(pictures(a, 3), torch.cat([*rows.values()]).numpy())
    assert_allclose(
        [line.get_ydata() for line in b.lines], [[0.25, 0.75], [0.26, 0.76], [0.3, 0.8]]
    )


def test_plateau_shows_losses_and_predictions():
    epochs = np.arange(1, 21)
    keys = [("Adam", 0.001, 64), ("SGD", 0.1, 64), ("SGD", 0.01, 64)]
    keys += [("SGD", 0.01, 32), ("SGD", 0.1, 32)]
    losses = {
        key: torch.tensor(-key[2] * np.log(epochs - 0.5) - 10.0 * i) for i, key in enumerate(keys)
    }
    converged = dict(zip(keys[1:], (np.nan, 14.0, 6.0, 8.0)))  # epochs from 0
    (a,) = checked(plots_ablation.plateau(losses, converged))
    names = ["Adam, 0.001", "SGD, 0.1", "SGD, 0.01", "SGD, 0.01, 32 units"]
    assert [line.get_label() for line in a.lines if line.get_linewidth() == 1] == names
    for name, values in zip(names, losses.values()):  # of fewer units one rate
        assert_allclose(line(a, name).get_ydata(), values)
    circles = [line.get_xydata()[0].tolist() for line in a.lines if line.get_marker() == "o"]
    assert circles == [[14.5, losses[keys[2]][14]], [6.5, losses[keys[3]][6]]]
    predicted = [line for line in a.lines if line.get_linewidth() == 4]
    assert len(predicted) == 3
    for grey, values in zip(predicted, [*losses.values()][1:]):
        assert_allclose(grey.get_ydata(), values[1:], atol=1e-9)
    low, _ = a.get_ylim()
    assert all(low < min(values) for values in losses.values())


# --- Notebook 3 ---------------------------------------------------------------------------------


def test_benchmark_shows_means_of_each_setting_own_and_best():
    rows = [
        (method, setting, seed, 5 * setting + seed, 0.1 * setting + i / 100, 0.2 * setting)
        for i, method in enumerate(("the paper's loss", "L1 SAE", "mine"))
        for setting in (3, 1, 2)
        for seed in (0, 1)
    ]
    columns = ["method", "setting", "seed", "l0", "own", "best"]
    table = pd.DataFrame(rows, columns=columns)
    a, b = checked(plots_benchmark.benchmark(table, dict.fromkeys(range(4, 25), 0.4)))
    for name, i in (("paper's loss", 0), ("L1", 1), ("mine", 2)):
        assert_allclose(line(a, name).get_xdata(), [5.5, 10.5, 15.5])
        assert_allclose(line(a, name).get_ydata(), np.array([0.1, 0.2, 0.3]) + i / 100)
        assert_allclose(line(b, name).get_ydata(), [0.2, 0.4, 0.6])
    assert {text.get_text() for text in a.texts} == {"paper's loss", "L1", "mine"}


def test_one_digit_shows_its_active_units_by_their_part_in_the_sum():
    V = torch.randn(4, 9, generator=RANDOM)
    V[2] *= 100
    A = torch.tensor([3.0, 0, 1, 2])
    digit, x_hat = torch.rand(2, 9, generator=RANDOM)
    codes = {"the paper's loss": (A, V, x_hat), "L1 SAE": (A * 0 + 1, V, x_hat)}
    axes = np.reshape(checked(plots_benchmark.one_digit(digit, codes)), (2, -1))
    first = [pictures(axis, 3)[0] for axis in axes[0, 1:4]]
    order = [2, *sorted((0, 3), key=lambda j: -float(A[j] * V[j].norm()))]
    assert_pictures(np.stack(first), V[order].numpy())
    assert_allclose(axes[0, -1].images[0].get_array().ravel(), x_hat)
    assert_allclose(axes[1, 0].images[0].get_array().ravel(), digit)


def test_means_and_units_show_what_they_are_given():
    def found():
        parts = {name: torch.randn(5, 9, generator=RANDOM) for name in ("x_A", "x_R", "V", "W")}
        return parts | {"rho": torch.rand(5, generator=RANDOM)}

    a, b = found(), found()
    a["V"][3] *= 100
    fig = plots_benchmark.means({"a": a, "b": b}, torch.arange(9) > 1)
    grid = np.reshape(checked(fig), (4, 5))
    middle = int(b["V"].norm(dim=1).argsort()[2])
    for line, parts, unit in ((grid[0], a, 3), (grid[3], b, middle)):
        A, R, V, W = (parts[name][unit] for name in ("x_A", "x_R", "V", "W"))
        W = torch.where(torch.arange(9) > 1, W, 0)
        for axis, part in zip(line, (A, R, A - parts["rho"][unit] * R, V, W)):
            assert_allclose(axis.images[0].get_array().ravel(), part)
        assert line[0].images[0].get_clim() == line[1].images[0].get_clim()
        assert f"{parts['rho'][unit]:.1f}" in line[0].get_ylabel()
    W, of_sae, V = torch.randn(3, 8, 9, generator=RANDOM)
    (axis,) = checked(plots_benchmark.units({"a": (W, W), "b": (of_sae, V)}, torch.arange(9) > 1))
    lines = torch.cat([W, of_sae, V])
    lines[:, :2] = 0  # not shown
    assert_pictures(pictures(axis, 3), lines.numpy())
    names = ["a", "b:\nencoder", "b:\ndecoder"]
    assert [label.get_text() for label in axis.get_yticklabels()] == names


def test_benchmark_dots_are_of_their_panels_column():
    rows = [("L1 SAE", s, 9.0 + s, 0.5 + s / 10, 0.8 + s / 50) for s in (1, 1, 2)]
    table = pd.DataFrame(rows, columns=["method", "setting", "l0", "own", "best"])
    fig = plots_benchmark.benchmark(table, {2: 0.1, 12: 0.5, 50: 0.9})
    for axis, column in zip(fig.axes, ("own", "best")):
        assert axis.lines[0].get_ydata().tolist() == table[column].tolist()
