"""The functions in the cells of the notebooks against plain formulas and loops, and the theorem."""

import ast
import json
import re
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.autograd import grad

import helpers as h
from lab import ROOT, balance, methods

D, K, N = 6, 5, 40
pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


X = normal(128, D) + 0.3


def notebook(name, **names):
    """{name: what it is} of the functions and classes in a notebook's cells."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    tree = ast.parse(re.sub(r"^( *)!.*", r"\1pass", source, flags=re.MULTILINE))
    kept = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    exec(compile(tree, name, "exec"), names)
    return names


THEOREM = notebook("1_theorem")
ABLATION = notebook("2_ablation", SHORT_EPOCHS=1)
BENCHMARK = notebook("3_benchmark", centred=partial(h.Encoder, D, K, X.mean(0)))


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
    several = torch.stack([mu, mu + 1])  # starts at once move as each alone
    alone = [THEOREM["descend"](start, x) for start in several]
    assert_allclose(THEOREM["descend"](several, x), torch.stack(alone), rtol=1e-9)


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
    path = [theta]
    for _ in range(1000):
        last = path[-1].clone().requires_grad_()
        path.append(path[-1] - rate * grad(h.lse_loss(torch.relu(x @ last.T)), last)[0])
    path = torch.stack(path)
    alive, fall = (path @ x.T > 0).any(2), -path.diff(dim=0) / rate  # of each step and unit
    assert alive[0].any() and not alive[-1].any()
    assert (rate * alive.sum(0) <= 2 * length / least).all()
    assert (fall[..., -1][alive[:-1]] >= 0.99 * least).all() and not fall[~alive[:-1]].any()


# --- Notebook 2 ---------------------------------------------------------------------------------


def test_the_loss_of_the_configurations_is_a_sum_of_weighted_terms(model):
    """As it stands, without N / 128."""
    E = model(X[:N])
    terms = [f(E).item() for f in (h.lse_loss, h.variance_loss, h.decorrelation_loss)]
    assert ABLATION["loss"](E).item() == pytest.approx(sum(terms))
    expected = 2 * terms[0] + 3 * terms[1] + 5 * terms[2]
    found = ABLATION["loss"](E, lse=2, variance=3, decorrelation=5).item()
    assert found == pytest.approx(expected)


def test_the_penalty_has_the_denominator_that_is_asked_for():
    E = normal(2, 7, K).abs()
    e = np.exp(-E.numpy())
    Z = e.sum(-1, keepdims=True)
    pooled = e / Z.mean(-2, keepdims=True)
    for changed, expected in (
        ({}, e / Z),
        ({"competition": 0}, pooled),
        ({"competition": 10}, pooled + 10 * (e / Z - pooled)),
        ({"competition": 0, "noise": True}, e / np.roll(Z, 1, axis=-2)),
        ({"noise": True}, e / Z * Z.mean(-2, keepdims=True) / np.roll(Z, 1, axis=-2)),
    ):
        inputs = E.clone().requires_grad_()
        value = ABLATION["penalty"](inputs, **changed)
        assert value.shape == (2,)
        assert_allclose(grad(value.sum(), inputs)[0], expected, rtol=1e-9)


def test_changed_runs_change_what_they_say(monkeypatch):
    """Of C: nothing is the paper's loss; a millionth moves the start, another order the rows."""
    for name, value in {"D": D, "K": K, "SEEDS": [0, 1], "x": X, "x_test": X}.items():
        monkeypatch.setitem(ABLATION, name, value)
    train = ABLATION["train_changed"]
    alone = h.Encoder(D, K, seed=[0, 1])
    h.fit(alone, h.paper_loss, X, epochs=2)
    model, E = train(epochs=2)
    assert_allclose(model.W.detach(), alone.W.detach(), atol=1e-9)
    assert_allclose(E, model.encode(X).detach())
    moved = (train(epochs=1, nudge=1e-6)[0].W - train(epochs=1)[0].W).abs().max().item()
    assert 1e-7 < moved < 1e-3
    sparse = h.Encoder(D, K, seed=[0, 1])
    h.fit(sparse, partial(h.paper_loss, lam=0.3), X, epochs=2, seed=[5, 6])
    model, _ = train(epochs=2, weights=(0.3, 0.3), order=5)
    assert_allclose(model.W.detach(), sparse.W.detach(), atol=1e-9)
    model, E = train(epochs=1, energy=torch.abs)
    assert_allclose(E, model.pre_activations(X).abs().detach())

    def weighted(model, x, **weights):
        return ABLATION["loss"](model.encode(x), **weights)

    for variance, decorrelation in ((3, 1), (1, 3)):
        expected = partial(weighted, variance=variance, decorrelation=decorrelation)
        h.fit(plain := h.Encoder(D, K, seed=[0, 1]), expected, X, epochs=1)
        model, _ = train(epochs=1, weights=(variance, decorrelation))
        assert_allclose(model.W.detach(), plain.W.detach(), atol=1e-9)


def test_models_after_each_epoch_are_kept_as_they_were(monkeypatch):
    names = {"D": D, "SEEDS": [3], "x": X, "RUNS": {("SGD", 0.01, K): 2, ("Adam", 0.01, K): 1}}
    for name, value in names.items():
        monkeypatch.setitem(ABLATION, name, value)
    losses, after = ABLATION["train_by"](("SGD", 0.01, K))
    for epochs, kept in enumerate(after, 1):
        model = h.Encoder(D, K, seed=3)
        how = {"optimizer": torch.optim.SGD, "lr": 0.01}
        expected = h.fit(model, h.paper_loss, X, epochs=epochs, **how)
        assert_allclose(kept.W.detach(), model.W.detach(), atol=1e-9)
        assert_allclose(losses[:epochs], expected, rtol=1e-9)
    assert len(after) == 2
    _, (by_adam,) = ABLATION["train_by"](("Adam", 0.01, K))
    h.fit(model := h.Encoder(D, K, seed=3), h.paper_loss, X, epochs=1, lr=0.01)
    assert_allclose(by_adam.W.detach(), model.W.detach(), atol=1e-9)


def test_converged_is_the_first_of_five_small_changes_in_a_row():
    changes = np.array([9, 0.5, 0.5, 9, 0.9, -0.9, 0.9, 0, 0.1, 0.1])
    losses = torch.tensor(np.cumsum([0, *changes]))
    assert ABLATION["converged"](losses, 1) == 5  # epochs are counted from 0
    assert np.isnan(ABLATION["converged"](losses, 0.2))


# --- Notebook 3 ---------------------------------------------------------------------------------


def test_the_papers_sae_loss_has_means_and_a_weight_of_a_hundredth():
    model = h.layers(methods.paper_sae(D, K, [2]))[0]
    W, b, V, c = (p.detach().numpy() for p in (model.W, model.b, model.V, model.c))
    A = np.maximum(X.numpy() @ W.T + b, 0)
    expected = np.square(A @ V + c - X.numpy()).mean() + 0.01 * A.mean()
    assert BENCHMARK["paper_sae_loss"](model, X).item() == pytest.approx(expected)


def test_penalties_of_the_benchmark():
    E = normal(2, 9, K).abs()
    competition = h.lse_loss(E) - h.pooled_lse_loss(E)
    assert_allclose(BENCHMARK["times_10"](E), h.pooled_lse_loss(E) + 10 * competition)
    assert_allclose(BENCHMARK["l1"](E), E.numpy().sum((1, 2)) / K)


def test_biases_learn_as_fast_as_they_are_told_and_weights_of_rate_zero_stay(monkeypatch):
    for name, value in {"SEEDS": [0, 1], "FEW": 2, "x": X, "EPOCHS": 1, "D": D, "K": K}.items():
        monkeypatch.setitem(BENCHMARK, name, value)
    start, train = h.Encoder(D, K, seed=[0, 1]), BENCHMARK["train_balance"]
    new_model = partial(h.Encoder, D, K)
    slow, fast = (train(0.5, new_model, rates=(1, rate), sgd=True) for rate in (1, 7))
    assert_allclose(slow.W.detach(), fast.W.detach())  # an epoch is one step here
    assert_allclose((fast.b - start.b).detach(), 7 * (slow.b - start.b).detach(), rtol=1e-6)
    W, b = slow.W.detach().clone(), slow.b.detach().clone()
    settled = train(0.5, lambda seed: slow, rates=(0, 10))
    assert settled.W.equal(W) and not settled.b.equal(b)


def test_a_balanced_step_divides_what_the_log_sum_exp_subtracts():
    """Per unit, so that the bias of the same step would be at rest; the value is the paper's."""
    model = h.Encoder(D, K, X.mean(0), seed=1)
    lam, parameters = 0.7, [model.W, model.b]
    value = BENCHMARK["balanced_loss"](model, X, lam)
    assert value.item() == pytest.approx(h.paper_loss(model, X, lam=lam).item())
    dW, db = grad(value, parameters)
    E = model(X)
    subtracted, _ = grad(h.lse_loss(E), parameters, retain_graph=True)
    added, of_bias = grad(lam * balance.infomax_loss(E), parameters)
    rho = ((h.responsibilities(E) * (E > 0)).sum(0) / -of_bias).detach().clamp(0.1, 10)
    assert_allclose(dW, added + subtracted / rho[:, None], rtol=1e-6)
    assert_allclose(db, grad(h.paper_loss(model, X, lam=lam), model.b)[0], rtol=1e-6)


def test_batch_top_k_keeps_the_largest_of_a_batch():
    model = BENCHMARK["BatchTopK"](D, K, seed=[0, 1], k=2)
    A, plain = model.encode(X), torch.relu(model.pre_activations(X))
    for kept, all_of_them in zip(A, plain):
        largest = all_of_them.flatten().sort(descending=True).values[: 2 * len(X)]
        assert_allclose(
            kept.flatten().sort(descending=True).values[: 2 * len(X)].detach(), largest.detach()
        )
        assert h.l0(kept) == 2
