"""The functions in the cells of the notebooks against plain formulas and loops, and the theorem."""

import ast
import json
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import ROOT, methods

D, K, N, KAPPA = 6, 5, 40, 0.7
pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


X = normal(128, D) + 0.3


def notebook(name, **names):
    """{name: what it is} of the functions in a notebook's cells, and of its tables of constants."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    tree = ast.parse(re.sub(r"^( *)!.*", r"\1pass", source, flags=re.MULTILINE))

    def is_kept(node):
        if isinstance(node, ast.Assign):
            return getattr(getattr(node.value, "func", None), "attr", "") == "DataFrame" and (
                node.targets[0].id.isupper()
            )
        return isinstance(node, (ast.FunctionDef, ast.Import, ast.ImportFrom))

    tree.body = [node for node in tree.body if is_kept(node)]
    exec(compile(tree, name, "exec"), names)
    return names


THEOREM = notebook("1_theorem", centres=torch.tensor([[0.0, 0], [5, 0], [0, 5]]))
ABLATION = notebook("2_ablation")
BENCHMARK = notebook("3_benchmark", kappa=KAPPA)


@pytest.fixture
def model():
    return h.Encoder(D, K, seed=1)


# --- Notebook 1 ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*converge")
def test_a_step_is_em_and_without_the_denominator_mean_shift():
    x, mu = normal(30, 2), normal(4, 2, seed=1)
    e = np.array([[np.exp(-((p - m) ** 2).sum() / 2) for m in mu.numpy()] for p in x.numpy()])
    em, mean_shift = (
        [np.average(x, axis=0, weights=column) for column in weights.T]
        for weights in (e / e.sum(1, keepdims=True), e)
    )
    assert_allclose(THEOREM["descend"](mu, x), em, rtol=1e-9)
    assert_allclose(THEOREM["em_step"](mu, x), em, rtol=1e-9)
    assert_allclose(THEOREM["descend"](mu, x, h.pooled_lse_loss), mean_shift, rtol=1e-9)


def test_a_start_succeeds_if_every_centre_has_a_mean():
    centres = THEOREM["centres"]
    means = [centres + 0.6, centres[[2, 0, 1]], centres[[0, 1, 1]], centres + 0.8]
    assert THEOREM["all_found"](torch.stack(means)).tolist() == [True, True, False, False]


def test_likeness_is_the_cosine_of_weights_and_the_ten_most_active_inputs(model):
    x = THEOREM["x"] = X[:N] + 1
    model.b.data += 5  # all energies differ
    expected = []
    for w, energies in zip(model.W.detach().numpy(), model(x).T.detach().numpy()):
        top = x.numpy()[np.argsort(energies)[-10:]].mean(0) - x.numpy().mean(0)
        expected.append(w @ top / np.linalg.norm(w) / np.linalg.norm(top))
    assert_allclose(THEOREM["likeness"](model), expected)


def test_signed_loss_is_the_log_sum_exp_without_a_relu(model):
    E = X.numpy() @ model.W.detach().numpy().T + model.b.detach().numpy()
    expected = -np.log(np.exp(-E).sum(1)).sum()
    assert E.min() < -1 and THEOREM["signed_loss"](model, X).item() == pytest.approx(expected)


def test_an_exact_m_step_has_the_largest_biases_without_an_active_unit():
    W = normal(K, D, seed=1)
    b = THEOREM["m_step"](W, X)
    assert not torch.relu(X @ W.T + b).any()
    assert ((X @ W.T + b + 1e-9) > 0).any(0).all()


def test_every_unit_dies():
    """Within the time of the theorem; and while a unit lives its bias falls as the proof says."""
    x, theta, rate = torch.cat([X[:N], torch.ones(N, 1)], 1), normal(4, D + 1, seed=1) / 4, 0.02
    length = theta.norm(dim=1)
    least = (-length.max() * x.norm(dim=1).max()).exp() / 4  # of responsibilities
    path = THEOREM["descend_layer"](theta, x, torch.relu, rate=rate, n_steps=1000)
    alive, fall = (path @ x.T > 0).any(2), -path.diff(dim=0) / rate  # of each step and unit
    E = torch.relu(x @ theta.T)
    assert_allclose(fall[0], ((E > 0) * h.responsibilities(E)).T @ x)
    assert alive[0].any() and not alive[-1].any()
    assert (rate * alive.sum(0) <= 2 * length / least).all()
    assert (fall[..., -1][alive[:-1]] >= 0.99 * least).all() and not fall[~alive[:-1]].any()


# --- Notebook 2 ---------------------------------------------------------------------------------


def terms(model, x):
    """The terms of the losses, as numbers."""
    E = model(x)
    values = {
        "lse": h.lse_loss(E),
        "pooled": h.pooled_lse_loss(E),
        "variance": h.variance_loss(E),
        "decorrelation": h.decorrelation_loss(E),
        "revised": h.log_det_loss(E) + KAPPA * model.W.square().sum(),
    }
    return {name: value.item() for name, value in values.items()}


def test_the_loss_of_the_configurations_is_a_sum_of_weighted_terms(model):
    """As it stands, without N / 128."""
    t = terms(model, X[:N])
    expected = {
        "A": t["lse"],
        "B": t["lse"] + t["variance"],
        "C": t["lse"] + t["variance"] + t["decorrelation"],
        "D": t["variance"] + t["decorrelation"],
    }
    table = ABLATION["CONFIGURATIONS"]
    found = {name: ABLATION["loss"](model, X[:N], *table.loc[name]).item() for name in table.index}
    assert found == pytest.approx(expected)
    found = ABLATION["loss"](model, X[:N], lse=2, variance=3, decorrelation=5).item()
    assert found == pytest.approx(2 * t["lse"] + 3 * t["variance"] + 5 * t["decorrelation"])


def test_the_loss_with_competition_has_its_weights(model):
    t = terms(model, X[:N])
    expected = t["pooled"] + 10 * (t["lse"] - t["pooled"])
    expected += 0.35 * (t["variance"] + 0.3 * t["decorrelation"])
    found = ABLATION["loss_with_competition"](model, X[:N], 10, 0.3, 0.35).item()
    assert found == pytest.approx(expected)


# --- Notebook 3 ---------------------------------------------------------------------------------


def test_the_papers_sae_loss_has_means_and_a_weight_of_a_hundredth():
    model = methods.paper_sae(D, K, seed=2)
    W, b, V, c = (p.detach().numpy() for p in (model.W, model.b, model.V, model.c))
    A = np.maximum(X.numpy() @ W.T + b, 0)
    expected = np.square(A @ V + c - X.numpy()).mean() + 0.01 * A.mean()
    assert BENCHMARK["paper_sae_loss"](model, X).item() == pytest.approx(expected)


def test_a_fixed_bias_changes_the_gradient_of_the_bias_alone(model):
    t = terms(model, X[:N])
    expected = t["lse"] + 0.3 * N / 128 * t["revised"]
    loss = BENCHMARK["loss_with_fixed_bias"](model, X[:N], lam=0.3)
    loss.backward()
    assert loss.item() == pytest.approx(expected) and model.b.grad is None
    free = h.revised_loss(model(X[:N]), model.W, 0.3, KAPPA)
    (gradient,) = torch.autograd.grad(free, model.W)
    assert_allclose(model.W.grad, gradient)


def test_the_revised_loss_has_competition_at_any_weight(model):
    t = terms(model, X[:N])
    infomax = 0.25 * N / 128 * t["revised"]
    assert BENCHMARK["revised_loss"](model, X[:N]).item() == pytest.approx(t["lse"] + infomax)
    expected = t["pooled"] + 10 * (t["lse"] - t["pooled"]) + infomax
    found = BENCHMARK["loss_with_competition"](model, X[:N], 10)
    assert found.item() == pytest.approx(expected)
