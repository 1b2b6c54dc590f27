"""The losses in the cells of notebooks 2 and 3, against plain formulas in NumPy."""

import ast
import json

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

import helpers as h
from lab import ROOT, methods

D, K, N, KAPPA = 6, 5, 40, 0.7
X = torch.randn(128, D, generator=torch.Generator().manual_seed(0)).double() + 0.3
pytestmark = pytest.mark.usefixtures("float64")


def notebook(name, **names):
    """{name: what it is} of the functions in a notebook's cells, and of its DataFrames."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    tree = ast.parse(source.replace("!git", "pass  # git"))

    def is_kept(node):
        if isinstance(node, ast.Assign):
            return getattr(getattr(node.value, "func", None), "attr", "") == "DataFrame" and (
                node.targets[0].id.isupper()
            )
        return isinstance(node, (ast.FunctionDef, ast.Import, ast.ImportFrom))

    tree.body = [node for node in tree.body if is_kept(node)]
    exec(compile(tree, name, "exec"), names)
    return names


@pytest.fixture(scope="module")
def ablation():
    return notebook("2_ablation")


@pytest.fixture(scope="module")
def benchmark():
    return notebook("3_benchmark", kappa=KAPPA)


@pytest.fixture
def model():
    return h.Encoder(D, K, seed=1)


def terms(model, x):
    """Of plain arrays: log-sum-exp, pooled, variance, decorrelation, log-determinant, decay."""
    W, b = model.W.detach().numpy(), model.b.detach().numpy()
    E = np.maximum(x.numpy() @ W.T + b, 0)
    cov, corr = np.cov(E.T), np.corrcoef(E.T)
    return {
        "lse": -logsumexp(-E, axis=1).sum(),
        "pooled": -len(E) * np.log(np.exp(-E).sum(1).mean()),
        "variance": -np.log(np.diag(cov) + 1e-6).sum(),
        "decorrelation": np.square(corr - np.eye(K)).sum(),
        "log_det": -np.linalg.slogdet(cov + 1e-3 * np.eye(K))[1],
        "decay": KAPPA * np.square(W).sum(),
    }


# --- Notebook 2 ---------------------------------------------------------------------------------


def test_the_loss_of_the_configurations_is_a_sum_of_weighted_terms(ablation, model):
    """As it stands, without N / 128."""
    found = ablation["loss"](model, X[:N], lse=2, variance=3, decorrelation=5).item()
    t = terms(model, X[:N])
    expected = 2 * t["lse"] + 3 * t["variance"] + 5 * t["decorrelation"]
    assert found == pytest.approx(expected)
    table = ablation["CONFIGURATIONS"]
    assert [*table] == ["log-sum-exp", "variance", "decorrelation"]
    a, b, c, d = (ablation["loss"](model, X, *table.loc[name]).item() for name in "ABCD")
    t = terms(model, X)
    assert (a, b - a) == pytest.approx((t["lse"], t["variance"]))
    assert c == pytest.approx(h.published_loss(model(X)).item()) and c - d == pytest.approx(a)


def test_competition_is_a_jensen_gap_and_a_divergence_from_uniform(ablation):
    """log of the mean of Z minus the mean of log Z, and KL(uniform, Z), times the rows."""
    E = torch.relu(X[:, :K])
    Z = np.exp(-E.numpy()).sum(1)
    found = ablation["competition"](E).item()
    assert found == pytest.approx(128 * (np.log(Z.mean()) - np.log(Z).mean()))
    assert found == pytest.approx(128 * stats.entropy(np.full(128, 1 / 128), Z / Z.sum()))


def test_competition_has_no_gradient_where_all_denominators_are_equal(ablation):
    E = torch.stack([torch.relu(X[0, :K]).roll(i) for i in range(N)])
    assert ablation["competition"](E).item() == pytest.approx(0, abs=1e-9)
    assert torch.func.grad(ablation["competition"])(E).abs().max() < 1e-12


def test_the_loss_with_competition_has_its_weights(ablation, model):
    found = ablation["loss_with_competition"]
    t = terms(model, X[:N])
    expected = t["pooled"] + 10 * (t["lse"] - t["pooled"])
    expected += 0.35 * (t["variance"] + 0.3 * t["decorrelation"])
    assert found(model, X[:N], 10, 0.3, 0.35).item() == pytest.approx(expected)
    for lam in (1, 0.35):
        expected = h.published_loss(model(X), lam).item()
        assert found(model, X, 1, 1, lam).item() == pytest.approx(expected)


# --- Notebook 3 ---------------------------------------------------------------------------------


def test_the_papers_sae_loss_has_means_and_a_weight_of_a_hundredth(benchmark):
    model = methods.paper_sae(D, K, seed=2)
    W, b, V, c = (p.detach().numpy() for p in (model.W, model.b, model.V, model.c))
    A = np.maximum(X.numpy() @ W.T + b, 0)
    expected = np.square(A @ V + c - X.numpy()).mean() + 0.01 * A.mean()
    assert benchmark["paper_sae_loss"](model, X).item() == pytest.approx(expected)


def test_a_fixed_bias_changes_the_gradient_of_the_bias_alone(benchmark, model):
    t = terms(model, X[:N])
    expected = t["lse"] + 0.3 * N / 128 * (t["log_det"] + t["decay"])
    loss = benchmark["loss_with_fixed_bias"](model, X[:N], lam=0.3)
    loss.backward()
    assert loss.item() == pytest.approx(expected) and model.b.grad is None
    free = h.revised_loss(model(X[:N]), model.W, 0.3, KAPPA)
    (gradient,) = torch.autograd.grad(free, model.W)
    torch.testing.assert_close(model.W.grad, gradient)


def test_the_revised_loss_has_competition_at_any_weight(benchmark, model):
    t = terms(model, X[:N])
    infomax = 0.25 * N / 128 * (t["log_det"] + t["decay"])
    assert benchmark["revised_loss"](model, X[:N]).item() == pytest.approx(t["lse"] + infomax)
    for weight in (0, 1, 10):
        expected = t["pooled"] + weight * (t["lse"] - t["pooled"]) + infomax
        found = benchmark["loss_with_competition"](model, X[:N], weight)
        assert found.item() == pytest.approx(expected)
