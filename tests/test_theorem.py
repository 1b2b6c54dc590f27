"""Notebook 1: the functions and definitions in its cells against plain formulas, its figures."""

import math
from unittest.mock import Mock

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from cells import checked, criteria, dots, notebook, sources
from matplotlib.colors import to_hex, to_rgb
from numpy.testing import assert_allclose
from PIL import Image

import helpers as h
from lab import plots, plots_theorem

rng = torch.Generator().manual_seed(0)
POINTS = torch.randn(256, 2, generator=rng) + 0.3
CELLS = notebook("1_theorem", points=POINTS, few=POINTS, PLANE_EPOCHS=2, N_STARTS=200, START=0)
NAMES = ["A: log-sum-exp", "B: + variance", "C: + decorrelation", "D: without log-sum-exp"]
ANGLES = 2 * math.pi * torch.arange(5) / 5
SIDES = torch.stack([ANGLES.sin(), ANGLES.cos()], 1)
FIVE = 3 * SIDES[torch.arange(250) % 5] + 0.2 * torch.randn(250, 2, generator=rng)


def random(*shape):
    return torch.rand(*shape, generator=rng)


@pytest.mark.filterwarnings("ignore:.*converge")
def test_a_step_is_em_and_without_competition_mean_shift():
    x, mu = POINTS[:30].double(), POINTS[30:34].double()
    e = np.array([[np.exp(-((p - m) ** 2).sum() / 2) for m in mu.numpy()] for p in x.numpy()])
    em, mean_shift = (
        [np.average(x, axis=0, weights=column) for column in weights.T]
        for weights in (e / e.sum(1, keepdims=True), e)
    )
    descend = CELLS["descend"]
    assert_allclose(descend(mu, x), em, rtol=1e-9)
    assert_allclose(CELLS["em_step"](mu, x), em, rtol=1e-9)
    assert_allclose(descend(mu, x, 0), mean_shift, rtol=1e-9)
    several = torch.stack([mu, mu + 1])  # starts at once move as each alone
    for competition in (0, 1):
        alone = [descend(start, x, competition) for start in several]
        assert_allclose(descend(several, x, competition), torch.stack(alone), rtol=1e-9)
    path = CELLS["walk"](descend, mu, 2, x)
    assert_allclose(path, torch.stack([mu, descend(mu, x), descend(descend(mu, x), x)]))


def test_starts_find_all_clusters_by_luck_or_if_each_has_a_mean():
    (line,) = [s for s in sources("1_theorem")["starts"].splitlines() if s.startswith("lucky = ")]
    lucky = eval(line.partition(" = ")[2], {"N_STARTS": 200})
    assert lucky == pytest.approx(200 * 60**5 / math.comb(300, 5))
    starts = CELLS["random_starts"](1)
    assert starts.shape == (200, 5, 2)
    assert {*map(tuple, starts.flatten(0, 1).tolist())} <= {*map(tuple, POINTS.tolist())}
    assert all(len(start.unique(dim=0)) == 5 for start in starts)
    centres = 3 * SIDES
    means = torch.stack([centres.flip(0) + 0.1, centres[[0, 0, 2, 3, 4]]])  # one start misses one
    names = {"walk": lambda *given: means[None], "centres": centres, "N_STARTS": 2, "SEEDS": [0]}
    names = CELLS | names | {"show": Mock()}
    exec(sources("1_theorem")["starts"], names)
    assert [*names["success"].starts] == [1, 1]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("weights", [{}, {"lse": 2, "variance": 3, "decorrelation": 5}])
def test_layers_are_trained_at_once_as_each_alone(weights):
    def loss(model, x):
        E, weight = model(x), {"lse": 1, "variance": 1, "decorrelation": 1} | weights
        return sum(weight[term] * getattr(h, f"{term}_loss")(E) for term in weight)

    W, b = CELLS["train"]([7, 3], **weights)
    assert W.shape == (1 + 2 * 2, 2, 5, 2) and b.shape == (1 + 2 * 2, 2, 5)
    for i, seed in enumerate((7, 3)):
        alone = h.Encoder(2, 5, seed=seed)
        assert_allclose(W[0, i], alone.W.detach())
        h.fit(alone, loss, POINTS, epochs=2, lr=0.03, order_seed=0)
        assert_allclose(W[-1, i], alone.W.detach(), atol=1e-9)
        assert_allclose(b[-1, i], alone.b.detach(), atol=1e-9)
    without = CELLS["train"]([7, 3], **weights, competition=0)[0]
    assert not torch.allclose(W[-1], without[-1], atol=1e-4)


def test_models_have_the_terms_that_their_names_say():
    names = {}
    exec(sources("1_theorem")["models"].partition("paths = ")[0], names)
    weights = {"lse": 1, "variance": 1, "decorrelation": 1, "competition": 1}
    terms = {name: [*(weights | changed).values()] for name, changed in names["MODELS"].items()}
    assert terms == {
        "A: log-sum-exp": [1, 0, 0, 1],
        "B: + variance": [1, 1, 0, 1],
        "C: + decorrelation": [1, 1, 1, 1],
        "D: without log-sum-exp": [0, 1, 1, 1],
        "C, without competition": [1, 1, 1, 0],
        "B, competition × 10": [1, 1, 0, 10],
    }


def test_counts_of_layers_made_by_hand():
    cluster = torch.arange(250) % 5
    measure = notebook("1_theorem", points=FIVE, cluster=cluster, START=0)["measure"]
    b = torch.full((5,), -2.0)
    copied = SIDES[[0, 0, 2, 3, 4]] + 0.01 * random(5, 2)
    everywhere = torch.tensor([-2.0, -2, -2, -2, 9])
    W, b = torch.stack([SIDES, SIDES, copied, SIDES]), torch.stack([b, b - 9, b, everywhere])
    each = [[*measure(W[i : i + 1], b[i : i + 1]).values()] for i in range(4)]
    near = pytest.approx(1, abs=0.02)
    assert each == [[1, 0, near], [0, 0, 0], [0, 1, near], [0, 0, pytest.approx(1.8, abs=0.02)]]
    assert measure(W, b)["active units"] == pytest.approx(np.mean([row[2] for row in each]))
    for share, found in ((0.4, 1), (0.3, 0)):  # of one cluster: a unit has it from a third on
        edge = (FIVE[cluster == 0] @ SIDES[0]).quantile(1 - share)
        moved = torch.cat([-edge[None], b[0, 1:]])
        assert measure(W[:1], moved[None])["starts that find all clusters"] == found


def test_criteria_are_those_that_were_set():
    assert criteria("1_theorem") == {
        "relative difference of gradient and responsibility": "<= 1e-05",
        "share of starts that succeed, with minus without competition": ">= 0.5",
        "units active after an exact M-step": "<= 0",
        "without a ReLU: units that win any digit": "<= 1",
        "plane, A: active units": "<= 0",
        "plane, C: share of starts that find all clusters": ">= 0.8",
        "the same, C minus B": ">= 0.5",
        "the same, C minus C without competition": "<= 0.1",
        "plane, D: active units": ">= 2",
    }


def test_gradients_are_drawn_against_responsibilities_and_units_are_told_apart():
    r = random(5, 24) / 9
    (axis,) = checked(plots_theorem.identity({"random energies": (r, 2 * r), "a layer": (r, r)}))
    assert_allclose(dots(axis, filled=False), np.stack([r.flatten(), 2 * r.flatten()], 1))
    assert axis.lines[2].get_color() == plots.ORANGE  # the layer is trained by the paper's loss
    assert not {plots.ORANGE, plots.BLACK, plots.BLUE} & {*plots_theorem.UNITS}
    grey = sorted(np.dot(to_rgb(c), [0.2126, 0.7152, 0.0722]) for c in plots_theorem.UNITS)
    assert len(grey) == 5 and np.diff(grey).min() > 0.04


def test_paths_of_means_and_clusters_without_one():
    path, centres = 3 * random(4, 5, 2) - 1, 3 * SIDES
    path[-1] = centres
    missed = path.clone()
    missed[-1, 2:] = centres[0]
    names = np.repeat(["with competition", "without competition"], 2)
    success = pd.DataFrame({"model": names, "starts": [9, 8, 2, 3]})
    given = FIVE, centres, path, path + 0.1, missed, success
    a, b, c = checked(plots_theorem.mixture(*given, 10, lucky=2.2))
    assert_allclose(dots(c)[:, 1], [9, 8, 2, 3])
    assert any(np.allclose(line.get_ydata(), 2.2) for line in c.lines)
    assert_allclose(dots(a, filled=False), path[1:].flatten(0, 1))
    assert_allclose(a.lines[1].get_xydata(), path[:, 1] + 0.1)
    assert not a.texts and [text.get_text() for text in b.texts] == ["no mean"] * 3
    assert_allclose([text.xy for text in b.texts], centres[2:])


def test_volume_a_gaussian_that_widens_gets_lower_and_an_ellipse_is_that_of_the_covariance():
    a, b = checked(plots_theorem.widths(POINTS[:40, 0]))
    narrow, wide = (line.get_xydata() for line in a.lines[:2])
    for x, y in (narrow.T, wide.T):  # both are densities, but for what lies outside
        assert np.trapezoid(y, x) == pytest.approx(1, abs=0.01)
    assert wide[:, 1].max() < 0.5 * narrow[:, 1].max()
    narrow, wide = (line.get_ydata() for line in b.lines[:2])
    assert narrow.max() == wide.max() == 1 and (wide >= narrow).all()
    E = torch.randn(4000, 2, generator=rng).double() * torch.tensor([1, 0.2]) + 3
    both = checked(plots_theorem.log_det({"one": (E, 3.25), "two": (E.flip(1), 3.25)}))
    for axis, spread in zip(both, ([1, 0.2], [0.2, 1])):
        assert axis.get_xlabel().endswith("3.2")
        assert_allclose(np.ptp(axis.lines[1].get_xydata(), axis=0) / 4, spread, rtol=0.05)


def test_a_point_has_the_colour_of_its_unit_and_a_line_is_where_its_energy_begins():
    W, b = SIDES.clone(), torch.full((5,), -2.0)
    _, axis = plt.subplots()
    points = torch.cat([torch.zeros(1, 2), 3 * SIDES, torch.tensor([[9.0, 9]])])
    active, pre = plots_theorem.plane(axis, points, W, b), points @ W.T + b
    assert active == pytest.approx(float((pre > 0).float().sum(1).mean()))
    colors = axis.collections[0].get_facecolors()
    assert [to_hex(color) for color in colors[:6]] == [to_hex("0.75"), *plots_theorem.UNITS]
    several = [to_rgb(color) for color, z in zip(plots_theorem.UNITS, pre[6]) if z > 0]
    darker = plots_theorem.DARKER ** (len(several) - 1)
    assert len(several) > 1 and darker < 1
    assert_allclose(colors[6, :3], np.mean(several, axis=0) * darker, rtol=1e-5)
    for j, (line, side) in enumerate(zip(axis.lines, axis.patches)):
        assert line.get_color() == plots_theorem.UNITS[j] and line.get_linestyle() == "-"
        ends = torch.from_numpy(line.get_xydata()).float()
        assert_allclose(ends @ W[j] + b[j], 0, atol=1e-4)
        assert (torch.from_numpy(side.get_xy()).float() @ W[j] + b[j]).min() > -1e-4
        assert side.contains_point(axis.transData.transform(3 * SIDES[j]))


def test_dead_units_are_dashed_with_an_arrow_and_copies_widen_the_line_below():
    W, b, start = SIDES.clone(), torch.full((5,), -2.0), (-SIDES, torch.full((5,), -1.0))
    W[1], b[2] = W[0], -5
    _, axis = plt.subplots()
    plots_theorem.plane(axis, FIVE, W, b, start)
    assert [line.get_linestyle() for line in axis.lines] == ["-", "-", "--", "-", "-"]
    widths = [line.get_linewidth() for line in axis.lines]
    assert widths[0] > 2 * widths[1] and len({*widths[1:]}) == 1
    (arrow,) = axis.texts
    assert_allclose(
        [arrow.xy, arrow.xyann], [5 * SIDES[2], -SIDES[2]], rtol=1e-5
    )  # the line's foot


def test_figures_of_layers_and_their_film(tmp_path):
    layers = {name: (SIDES, torch.full((5,), -2.0 - 9 * (name < "B"))) for name in NAMES}
    fates, start = ["all units die", "copies", "one unit for each", "not sparse"], layers[NAMES[2]]
    axes = checked(plots_theorem.in_the_plane(FIVE, layers, fates, start))
    assert [axis.get_xlabel()[:8] for axis in axes] == ["0 of 5 a"] + 3 * ["1.0 of 5"]
    assert [len(axis.texts) for axis in axes] == [6, 1, 1, 1]  # arrows, and a second line
    checked(plots_theorem.one_layer(FIVE, *start, "log-sum-exp 0.25", "decorrelation 0.25"))

    paths = {name: [torch.stack([a, b]) for a, b in zip(start, layers[name])] for name in NAMES}
    frames = plots_theorem.film(FIVE, paths, fates, [0, 0, 0, 1])
    first, again, _, last = (np.asarray(frame).astype(int) for frame in frames)
    assert first.shape == (289, 800, 3) and (first == again).all()
    of_A = slice(45, 225), slice(0, 200)  # where units die, without titles
    assert (first[of_A] != last[of_A]).any()
    plots_theorem.save_film(frames, tmp_path / "a.gif")
    film = Image.open(tmp_path / "a.gif")
    film.seek(film.n_frames - 1)
    assert abs(np.asarray(film.convert("RGB")).astype(int) - last).mean() < 1


def test_digits_of_two_units_are_those_of_their_energies():
    x, weights = random(60, 9), random(24, 9) - 0.5
    E = torch.relu(x @ weights.T)
    E[:, 0] = 0  # a dead unit
    axes = checked(plots_theorem.digits_of_units(x, weights, E))
    assert [axis.images[0].get_array().shape for axis in axes] == [(10, 5), (10, 15), (10, 15)]
    first = [torch.tensor(axis.images[0].get_array()[1:4, 1:4].ravel()) for axis in axes]
    shown, on, off = (  # each picture is on a scale of its own
        next(i for i, row in enumerate(rows) if (row / part).std() < 1e-4)
        for rows, part in zip((weights, x, x), first)
    )
    assert on in E[:, shown].topk(3).indices and E[off, shown] == 0
