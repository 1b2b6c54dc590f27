"""lab/plots*.py: each figure draws, can be read, and has a dot for each number that it is given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from numpy.testing import assert_allclose

from lab import plots, plots_ablation, plots_benchmark, plots_theorem

K, D, ADAM = 24, 9, plots_benchmark.ADAM
METHODS = [m for group in plots_benchmark.GROUPS.values() for m in group]
NAMES = ["A: log-sum-exp", "B: + variance", "C: + decorrelation", "D: C without log-sum-exp"]
rng = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def random(*shape):
    return torch.rand(*shape, generator=rng)


def runs(names, *scores, columns=("method",)):
    """A table with a row for each name (or names, in `columns`) and for each of two seeds."""
    keys = [(*np.atleast_1d(np.array(name, object)), seed) for name in names for seed in (0, 1)]
    table = pd.DataFrame(keys, columns=[*columns, "seed"])
    return table.infer_objects().assign(**{score: random(len(keys)).numpy() for score in scores})


def checked(figure):
    """The axes of a figure that has a description, no text too small to read, and none cut off."""
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert figure.alt and min(text.get_fontsize() for text in texts) >= 6
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01
    return figure.axes


def dots(axis, filled=True):
    """x and y (n, 2) of all round marks of an axis, filled or open."""
    kinds = [(line, line.get_markerfacecolor() not in ("w", "none")) for line in axis.lines]
    kept = [line for line, full in kinds if line.get_marker() == "o" and full == filled]
    return np.concatenate([line.get_xydata() for line in kept])


def test_tiles_are_pictures_in_a_grid_each_on_its_own_scale_or_all_on_one():
    W = torch.tensor([1.0, 2, 3, 4]) * torch.tensor([[1], [10], [-1]])
    _, (a, b) = plt.subplots(1, 2)
    plots.tiles(a, W, 2, framed=[1])
    plots.tiles(b, W, 2, scale=40)
    own, one = (axis.images[0].get_array() for axis in (a, b))  # pictures of 2 x 2 in a rim of 1
    assert own.shape == (8, 8)
    assert_allclose(own[1:3, 1:3].ravel(), W[0] / W[0].quantile(0.99))
    assert_allclose(own[1:3, 5:7], own[1:3, 1:3])
    assert_allclose(own[5:7, 1:3], -own[1:3, 1:3])
    assert_allclose(one[1:3, 5:7].ravel(), W[1] / 40)
    assert a.patches[0].get_xy() == (4, 0)
    red, _, blue, _ = a.images[0].cmap(1.0)
    assert red > blue


def test_figures_of_notebook_1():
    r = random(5, K) / 9
    (axis,) = checked(plots_theorem.identity({"random energies": (r, 2 * r), "a layer": (r, r)}))
    assert_allclose(dots(axis, filled=False), np.stack([r.flatten(), 2 * r.flatten()], 1))

    path, points, cluster = 3 + 3 * random(4, 3, 2), 9 * random(30, 2), torch.arange(30) % 3
    success = pd.DataFrame({"loss": ["with (EM)"] * 2 + ["without"] * 2, "starts": [9, 8, 2, 3]})
    axes = checked(plots_theorem.mixture(points, path, path, path, success, 10, lucky=2.2))
    assert_allclose(dots(axes[2])[:, 1], [9, 8, 2, 3])
    checked(plots_theorem.paths(points, path, "competition 0.3"))

    W, x, weights = torch.eye(3, 2) + 0.1, random(60, D), random(K, D) - 0.5
    E = torch.relu(x @ weights.T)
    E[:, 0] = 0  # a dead unit
    given = points, cluster, W, W[:, 0], random(30, 3), x, weights, E
    assert all(axis.images for axis in checked(plots_theorem.active_units(*given))[1:])


def test_figures_of_notebook_2_draw_dead_units_too():
    R, usage = torch.corrcoef(random(K // 2, 50).repeat(2, 1)), random(K)  # each has a copy
    R = R * (-1) ** (torch.arange(K)[:, None] + torch.arange(K))
    models = {name: (R, usage, 1234.0, 16.8, random(8, D)) for name in NAMES}
    models[NAMES[0]] = 0 * R, 0 * usage, np.nan, 0, random(8, D)
    axes = checked(plots_ablation.configurations(models, {NAMES[3]: "different, not sparse"}))
    assert_allclose([bar.get_height() for bar in axes[5].patches], usage.sort(descending=True)[0])
    image = axes[1].images[0].get_array()
    assert_allclose(np.sort(image, None), np.sort(abs(R), None))
    assert (image.diagonal(1) > 0.999).sum() == K // 2  # copies side by side
    assert "1,234" in axes[1].get_xlabel() and not axes[0].get_xlabel()
    checked(plots_ablation.one_epoch(0 * R, 0 * usage, random(16, D), ("all are dead", "0 active")))

    active, loss = torch.tensor([1, 2, K - 1]), -random(3)
    (axis,) = checked(plots_ablation.count({name: (active, loss) for name in NAMES[1:3]}, K))
    assert_allclose(axis.lines[1].get_xydata(), np.stack([active, loss], 1))
    n, curve = axis.lines[0].get_xydata().T
    assert_allclose(curve, -np.log(K - n))

    pairs = [(dose, strength) for dose in (1, 0, 0.5) for strength in (7, 0, 1)]
    table = runs(pairs, "redundancy", columns=["decorrelation", "competition"])
    weights = {"C": random(8, D), "C without competition": random(8, D)}
    _, axis = checked(plots_ablation.competition(weights, table, 0.98))
    means = table.groupby(["competition", "decorrelation"]).redundancy.mean()
    assert_allclose(dots(axis)[:, 1], means)  # 0, 1 and 7, each from the weakest decorrelation

    table = pd.DataFrame([(0.1, 64), (0.01, 64), (1, K)], columns=["rate", "units"])
    losses = {(rate, n): -n * torch.arange(1, 21) ** 0.5 for rate, n in table.values}
    table = table.assign(**{"living units": [64, 63, 0], "epoch": [np.nan, 14, 6]})
    (axis,) = checked(plots_ablation.plateau(losses, table))
    assert_allclose(dots(axis, filled=False)[:, 0], [14, 6])
    assert_allclose(axis.lines[0].get_ydata(), 64 * np.diff(np.arange(1, 21) ** 0.5), rtol=1e-4)

    table = pd.DataFrame({"optimizer": ["SGD", "Adam"], "rate": [0.1, 1e-4], "dead": [3, 0]})
    table[["variance term", "the rest", "loss", "classifier"]] = -500.0, -400.0, -900.0, 93.4
    (axis,) = checked(plots_ablation.optimizers(table))
    assert [bar.get_width() for bar in axis.patches] == [400, 400, 500, 500]


@pytest.mark.parametrize("methods", [METHODS, METHODS[1:], [ADAM, "L1 SAE", "mine"]])
def test_dots_of_methods_stand_for_their_numbers(methods):
    table = runs(methods, "explained", "explained_best", "classifier", "recovered", "l0", "purity")
    a, b = checked(plots_benchmark.ten(table, pixels=0.5, mine=["mine"]))
    means, texts = table.groupby("method", sort=False).mean(), ([*axis.texts] for axis in (a, b))
    of_a, of_b = ([text.get_text() for text in part] for part in texts)
    assert of_a[::2] == [f"{100 * value:.0f}" for value in means.explained]
    assert of_a[1::2] == [f"{100 * value:.0f}" for value in means.explained_best]
    assert of_b == [*(f"{value:.1f}" for value in means.classifier), "pixels"]
    assert any(np.allclose(line.get_xdata(), 0.5) for line in b.lines)
    assert_allclose(np.sort(dots(a)[:, 0]), np.sort(100 * table.explained))
    assert_allclose(np.sort(dots(a, filled=False)[:, 0]), np.sort(100 * table.explained_best))
    assert_allclose(np.sort(dots(b)[:, 0]), np.sort(table.classifier))
    assert any(line.get_color() == plots.PINK for line in b.lines) == ("mine" in methods)

    _, b = checked(plots_benchmark.language(table))
    assert set(dots(b)[:, 0]) < set(table.recovered)
    (axis,) = checked(plots_benchmark.purity({"six epochs": table, "again": table[:2]}))
    assert_allclose(dots(axis)[:, 0], [*table.purity, *table.purity[:2]])
    by_l0 = pd.concat([table.assign(active=k, l0=k + 0.5) for k in (5, 10)])
    (axis,) = checked(plots_benchmark.by_l0(by_l0))
    assert_allclose(np.sort(dots(axis)[:, 1]), np.sort(np.repeat(100 * means.explained, 2)))
    assert_allclose(np.sort(dots(axis)[:, 0]), np.repeat([5.5, 10.5], len(methods)))
    kinds = plots_benchmark.ADAM, plots_benchmark.NEW, plots_benchmark.COMPONENTS, "L1 SAE"
    assert len({*map(plots_benchmark.color_of, kinds)}) == 4


def test_other_figures_of_notebook_3():
    table = runs(["the paper's model", "its SAE"], "parameters", "l0", "classifier", "norm-matched")
    axes = checked(plots_benchmark.paper(table, {"classifier": ("pixels", 0.5)}))
    assert_allclose(dots(axes[1])[:, 1], table.l0)
    means = table.groupby("method", sort=False).mean()
    assert_allclose([bar.get_height() for bar in axes[0].patches], means.parameters)
    assert [text.get_text() for text in axes[1].texts] == [f"{value:.1f}" for value in means.l0]
    unit = {part: random(D) for part in ("decoder row", "step", "weights")}
    axes = checked(
        plots_benchmark.directions({"with Adam": [unit, unit], "and decay": [unit, unit]})
    )
    cosine = torch.cosine_similarity(unit["step"], unit["decoder row"], dim=0)
    assert axes[1].get_xlabel() == f"{cosine:.2f}"
    V, x = random(K, D), random(2, D)
    A = random(K)
    codes = {ADAM: (A, V, x[1]), "L1 SAE": (torch.zeros(K), V, x[1])}
    bars = [axis.lines[0] for axis in checked(plots_benchmark.one_digit(x[0], codes))[3:8]]
    parts = (A * V.norm(dim=1)).sort(descending=True)[0]
    assert_allclose([bar.get_xdata()[1] for bar in bars], parts[:5] / parts[0], rtol=1e-5)
    varies = V[0] > V[0].median()
    for dead in (0, 5):
        _, b, c = checked(plots_benchmark.units({"model": V, "sae": V}, varies, 1, dead))
        assert len(b.patches) == len(c.patches) == dead
        assert all(frame.get_xy() >= (5 * 3, 5 * 2) for frame in b.patches)  # the last five of 24
        assert np.count_nonzero(c.images[0].get_array()) == K * varies.sum()
