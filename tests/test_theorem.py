"""Notebook 1: the functions and definitions in its cells against plain formulas, its figures."""

import math
from unittest.mock import Mock

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from cells import notebook, sources
from matplotlib.colors import to_hex, to_rgb
from numpy.testing import assert_allclose

import helpers as h
from lab import plots_theorem

rng = torch.Generator().manual_seed(0)
POINTS = torch.randn(256, 2, generator=rng) + 0.3
CELLS = notebook("1_theorem", points=POINTS, few=POINTS, PLANE_EPOCHS=2, N_STARTS=200, START=0)
ANGLES = 2 * math.pi * torch.arange(5) / 5
SIDES = torch.stack([ANGLES.sin(), ANGLES.cos()], 1)  # W of five units, of five clusters
CLUSTER, BIAS = torch.arange(250) % 5, torch.full((5,), -2.0)
FIVE = 3 * SIDES[CLUSTER] + 0.2 * torch.randn(250, 2, generator=rng)


def random(*shape):
    return torch.rand(*shape, generator=rng)


@pytest.mark.filterwarnings("ignore:.*converge")
def test_a_step_is_em_and_without_competition_mean_shift():
    x, mu = POINTS[:30].double(), POINTS[30:34].double()
    e = np.exp(-(np.linalg.norm(x[:, None] - mu, axis=2) ** 2) / 2)
    em, mean_shift = (w.T @ x.numpy() / w.sum(0)[:, None] for w in (e / e.sum(1)[:, None], e))
    descend, several = CELLS["descend"], torch.stack([mu, mu + 1])  # starts at once, as each alone
    assert_allclose(CELLS["em_step"](mu, x), em, rtol=1e-9)
    for competition, expected in ((0, mean_shift), (1, em)):
        alone = [descend(start, x, competition) for start in several]
        assert_allclose(alone[0], expected, rtol=1e-9)
        assert_allclose(descend(several, x, competition), torch.stack(alone), rtol=1e-9)
    path = CELLS["walk"](descend, mu, 2, x)
    assert_allclose(path, torch.stack([mu, descend(mu, x), descend(descend(mu, x), x)]))


def test_starts_find_all_clusters_by_luck_or_if_each_has_a_mean():
    starts, source = CELLS["random_starts"](1), sources("1_theorem")["starts"]
    assert {*map(tuple, starts.flatten(0, 1).tolist())} <= {*map(tuple, POINTS.tolist())}
    assert starts.shape == (200, 5, 2) and all(len(start.unique(dim=0)) == 5 for start in starts)
    centres = 3 * SIDES
    means = torch.stack([centres.flip(0) + 0.1, centres[[0, 0, 2, 3, 4]]])  # one start misses one
    names = {"walk": lambda *given: means[None], "centres": centres, "N_STARTS": 2, "SEEDS": [0]}
    exec(source, names := CELLS | names | {"show": Mock()})
    assert [*names["success"].starts] == [1, 1]
    assert names["lucky"] == pytest.approx(2 * 60**5 / math.comb(300, 5))


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
    exec(sources("1_theorem")["models"].partition("paths = ")[0], names := {})
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
    measure = notebook("1_theorem", points=FIVE, cluster=CLUSTER, START=0)["measure"]
    copied = SIDES[[0, 0, 2, 3, 4]] + 0.01 * random(5, 2)
    everywhere = torch.tensor([-2.0, -2, -2, -2, 9])
    W, b = torch.stack([SIDES, SIDES, copied, SIDES]), [BIAS, BIAS - 9, BIAS, everywhere]
    each = [[*measure(W[i : i + 1], b[i][None]).values()] for i in range(4)]
    near = pytest.approx(1, abs=0.02)
    assert each == [[1, 0, near], [0, 0, 0], [0, 1, near], [0, 0, pytest.approx(1.8, abs=0.02)]]
    mean = np.mean([row[2] for row in each])
    assert measure(W, torch.stack(b))["active units"] == pytest.approx(mean)
    for share, found in ((0.4, 1), (0.3, 0)):  # of one cluster: a unit has it from a third on
        edge = (FIVE[CLUSTER == 0] @ SIDES[0]).quantile(1 - share)
        moved = torch.cat([-edge[None], BIAS[1:]])
        assert measure(W[:1], moved[None])["starts that find all clusters"] == found


def test_a_point_has_the_colour_of_its_units_and_a_line_is_where_its_energy_begins():
    """Dead units are dashed, with an arrow from the start, and copies widen the line below."""
    points = torch.cat([torch.zeros(1, 2), 3 * SIDES, torch.tensor([[9.0, 9]])])
    _, (axis, other) = plt.subplots(2)
    active, pre = plots_theorem.plane(axis, points, SIDES, BIAS), points @ SIDES.T + BIAS
    assert active == pytest.approx(float((pre > 0).float().sum(1).mean()))
    colors, several = axis.collections[0].get_facecolors(), pre[6] > 0
    assert [to_hex(color) for color in colors[:6]] == [to_hex("0.75"), *plots_theorem.UNITS]
    mixed = np.mean([to_rgb(c) for c, on in zip(plots_theorem.UNITS, several) if on], axis=0)
    darker = plots_theorem.DARKER ** (int(several.sum()) - 1)
    assert_allclose(colors[6, :3], mixed * darker, rtol=1e-5)
    for j, (line, side) in enumerate(zip(axis.lines, axis.patches)):
        assert line.get_color() == plots_theorem.UNITS[j] and line.get_linestyle() == "-"
        assert_allclose(line.get_xydata() @ SIDES[j].numpy() - 2, 0, atol=1e-4)
        assert side.contains_point(axis.transData.transform(3 * SIDES[j]))

    W, b = SIDES[[0, 0, 2, 3, 4]], torch.tensor([-2.0, -2, -5, -2, -2])
    plots_theorem.plane(other, FIVE, W, b, (-SIDES, BIAS / 2))
    assert [line.get_linestyle() for line in other.lines] == ["-", "-", "--", "-", "-"]
    first, *widths = [line.get_linewidth() for line in other.lines]
    assert first > 2 * widths[0] and len({*widths}) == 1
    ((arrow,), feet) = other.texts, [5 * SIDES[2], -SIDES[2]]
    assert_allclose([arrow.xy, arrow.xyann], feet, rtol=1e-5)
