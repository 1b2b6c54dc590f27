"""Notebook 1: its own functions and territories against plain loops, and its theorems."""

import ast
import json
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import ROOT, figures_1


def own(**names):
    """Names of the notebook's functions as they stand in its cells, and of what these use."""
    cells = json.loads((ROOT / "notebooks" / "1_theorem.ipynb").read_text())["cells"]
    lines = [line for c in cells if c["cell_type"] == "code" for line in [*c["source"], "\n"]]
    tree = ast.parse("".join(line for line in lines if "!git" not in line))
    kept = ast.FunctionDef, ast.Import, ast.ImportFrom
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    exec(compile(tree, "1_theorem", "exec"), names)
    return names


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.filterwarnings("ignore:.*converge")
def test_a_step_is_em_and_without_the_denominator_mean_shift():
    mine, x, mu = own(), normal(30, 2), normal(4, 2, seed=1)
    e = np.array([[np.exp(-((p - m) ** 2).sum() / 2) for m in mu.numpy()] for p in x.numpy()])
    r, cut = e / e.sum(1, keepdims=True), partial(mine["descend"], loss=h.uncoupled_loss)
    for step, weights in ((mine["em_step"], r), (mine["descend"], r), (cut, e)):
        means = [np.average(x, axis=0, weights=column) for column in weights.T]
        assert_allclose(mine["walk"](partial(step, x=x), mu, 1), [mu.tolist(), means], rtol=1e-9)


def test_found_territories_and_descent_of_signed_units():
    centres = torch.tensor([[0.0, 0], [5, 0], [0, 5]])
    ends = torch.stack([centres + 0.6, centres[[2, 0, 1]], centres[[0, 1, 1]], centres + 0.8])
    assert own(centres=centres)["found"](ends).tolist() == [True, True, False, False]
    theta, x = normal(3, 3), normal(40, 2, seed=1)
    u, v, E = figures_1.on_grid(theta, -1, 4)
    for i, j in ((0, 0), (0, 380), (380, 0), (100, 250)):
        at = [a * u[i, j] + b * v[i, j] + c for a, b, c in theta.tolist()]
        assert figures_1.territory(E)[i, j] == at.index(min(at))
    path, gradient = own()["slide"](theta[:1], x, True, rate=0.01, n=5)  # one unit: L is sum E
    assert_allclose(gradient[0, 0], [*x.sum(0), 40])
    assert_allclose(path[:, 0], [theta[0] - 0.01 * t * gradient[0, 0] for t in range(6)])


@pytest.mark.parametrize("mean", [0, 2])
def test_every_unit_falls_silent(mean):
    """Within the theorem's time and its proof's bounds; no E lowers the loss by more than it does
    the expected energy, and only silence gets to the least loss."""
    rate, active, x = 0.02, torch.zeros(4), normal(40, 6)
    x[:, :5], x[:, 5], theta = x[:, :5] - x[:, :5].mean(0) + mean, 1, normal(4, 6, seed=1) / 4
    length, M = theta.norm(dim=1), theta.norm(dim=1).max() * x.norm(dim=1).max()
    least, floor = (-M).exp() / 4, -40 * np.log(4)
    for _ in range(1_000):
        g = torch.func.grad(lambda theta: h.lse_loss(torch.relu(x @ theta.T)))(theta)
        after = theta - rate * g
        E, new = (torch.relu(x @ at.T) for at in (theta, after))
        r, awake, fall = h.responsibilities(E), (E > 0).any(0), h.lse_loss(new) - h.lse_loss(E)
        assert E.max() <= M and r.min() >= least and fall <= (r * (new - E)).sum() + 1e-9
        assert (g[awake, -1] >= least).all() and not g[~awake].any()
        assert (h.lse_loss(E) > floor + 1e-9) == awake.any()
        theta, active = after, active + awake * rate
    assert active.any() and not awake.any() and (active <= 2 * length / least).all()
