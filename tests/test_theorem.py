"""Notebook 1: the functions in its cells against plain loops, and the theorem of its appendix."""

import ast
import json
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import ROOT


@pytest.fixture(scope="module")
def notebook():
    """{name: function} of the functions that stand in the notebook's cells."""
    cells = json.loads((ROOT / "notebooks" / "1_theorem.ipynb").read_text())["cells"]
    code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    tree = ast.parse(re.sub(r"^( *)!.*", r"\1pass", "\n".join(code), flags=re.MULTILINE))
    kept = ast.FunctionDef, ast.Import, ast.ImportFrom
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    names = {"centres": torch.tensor([[0.0, 0], [5, 0], [0, 5]])}
    exec(compile(tree, "1_theorem", "exec"), names)
    return names


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.filterwarnings("ignore:.*converge")
def test_a_step_is_em_and_without_the_denominator_mean_shift(notebook):
    x, mu = normal(30, 2), normal(4, 2, seed=1)
    e = np.array([[np.exp(-((p - m) ** 2).sum() / 2) for m in mu.numpy()] for p in x.numpy()])
    em, mean_shift = (
        [np.average(x, axis=0, weights=column) for column in weights.T]
        for weights in (e / e.sum(1, keepdims=True), e)
    )
    assert_allclose(notebook["descend"](mu, x), em, rtol=1e-9)
    assert_allclose(notebook["em_step"](mu, x), em, rtol=1e-9)
    assert_allclose(notebook["descend"](mu, x, h.pooled_lse_loss), mean_shift, rtol=1e-9)


def test_a_start_succeeds_if_every_centre_has_a_mean(notebook):
    centres = notebook["centres"]
    means = [centres + 0.6, centres[[2, 0, 1]], centres[[0, 1, 1]], centres + 0.8]
    assert notebook["all_found"](torch.stack(means)).tolist() == [True, True, False, False]


def test_likeness_is_the_cosine_of_weights_and_the_ten_most_active_inputs(notebook):
    x, model = normal(40, 5) + 1, h.Encoder(5, 4).double()
    model.b.data += 5  # all energies differ
    notebook["x"], expected = x, []
    for w, energies in zip(model.W.detach().numpy(), model(x).T.detach().numpy()):
        top = x.numpy()[np.argsort(energies)[-10:]].mean(0) - x.numpy().mean(0)
        expected.append(w @ top / np.linalg.norm(w) / np.linalg.norm(top))
    assert_allclose(notebook["likeness"](model), expected)


def test_signed_loss_is_the_log_sum_exp_without_a_relu(notebook):
    x, model = normal(40, 5), h.Encoder(5, 4).double()
    E = x.numpy() @ model.W.detach().numpy().T + model.b.detach().numpy()
    found = notebook["signed_loss"](model, x).item()
    assert E.min() < -1 and found == pytest.approx(-np.log(np.exp(-E).sum(1)).sum())


def test_exact_m_step(notebook):
    """Its biases are the largest without an active unit; other parameters give a larger Q."""
    x, W, r = normal(40, 5), normal(4, 5, seed=1), torch.softmax(normal(40, 4, seed=2), 1)
    b = notebook["m_step"](W, x)
    assert_allclose(b, [-max(float(w @ row) for row in x) for w in W])
    assert not torch.relu(x @ W.T + b).any()
    assert ((x @ W.T + b + 1e-9) > 0).any(0).all()
    for seed in range(20):
        E = torch.relu(x @ normal(4, 5, seed=seed).T + normal(4, seed=seed + 20))
        assert not E.any() or (r * E).sum() > 0


def test_small_steps_of_units_without_a_relu(notebook):
    """A single unit has responsibility 1, so L is the sum of its energies."""
    x, theta = normal(40, 3), normal(1, 3, seed=1)
    path = notebook["descend_layer"](theta, x, lambda z: z, rate=0.01, n_steps=5)
    assert_allclose(path[:, 0], [theta[0] - 0.01 * t * x.sum(0) for t in range(6)])


@pytest.mark.parametrize("mean", [0, 2])
def test_every_unit_dies(notebook, mean):
    """Within the theorem's time and its proof's bounds; L falls at least as much as Q does."""
    x, theta, rate = normal(40, 6), normal(4, 6, seed=1) / 4, 0.02
    x[:, :5], x[:, 5] = x[:, :5] - x[:, :5].mean(0) + mean, 1
    length = theta.norm(dim=1)
    M = length.max() * x.norm(dim=1).max()
    least = (-M).exp() / 4
    path = notebook["descend_layer"](theta, x, torch.relu, rate=rate, n_steps=1000)
    for before, after in zip(path[:-1], path[1:]):
        E, E_after = torch.relu(x @ before.T), torch.relu(x @ after.T)
        r, alive, gradient = h.responsibilities(E), (E > 0).any(0), (before - after) / rate
        assert E.max() <= M and r.min() >= least
        assert (gradient[alive, -1] >= 0.99 * least).all() and not gradient[~alive].any()
        assert h.lse_loss(E_after) - h.lse_loss(E) <= (r * (E_after - E)).sum() + 1e-9
        assert (h.lse_loss(E) > -40 * np.log(4) + 1e-9) == alive.any()
    times = rate * (path @ x.T > 0).any(2).sum(0)
    assert times.any() and not alive.any() and (times <= 2 * length / least).all()
