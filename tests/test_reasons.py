"""lab/reasons.py: forces against autograd and plain loops, the law of scale, currencies."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import LinearRegression
from test_helpers import SGD, normal

import helpers as h
from lab import figures_3, methods, reasons

D, K, LAM, KAPPA = 6, 5, 0.3, 0.7
X = normal(200, D) + 0.3
PRICES = {"own": h.lse_loss, "batch's mean": h.uncoupled_loss, "L1": lambda E: h.l1_loss(E) / K}
same = torch.testing.assert_close


def encoder(factor=1.0):
    model = h.Encoder(D, K, seed=3).double()
    for p in model.parameters():
        p.data *= factor
    return model


@pytest.mark.parametrize("price", PRICES)
def test_forces_add_up_to_the_gradient_and_hold_the_least_squares_decoder(price):
    model, loss = encoder(), partial(h.bounded_loss, lam=LAM, kappa=KAPPA, sparsity=PRICES[price])
    E = model.encode(X).detach()
    p = reasons.slope(PRICES[price], E)
    V, M, V_rest, m, f = reasons.forces(model, X, LAM, p)
    same([V - M - V_rest - KAPPA * model.W.detach(), f], reasons.pull(model, loss, X, LAM))
    same(m, 64 / LAM * (p * (E > 0)).mean(0))
    same(M, m[:, None] * ((p * (E > 0)).T @ X) / (p * (E > 0)).sum(0)[:, None])
    V = reasons.forces(model, X, LAM, p, noise=0)[0]
    assert_allclose(V, LinearRegression().fit(E, X).coef_.T, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2e-3])  # where units are small, the noise counts
def test_by_scale(size):
    """Stretch one unit, W_j and b_j: the loss changes by -2 lambda c times the law's number."""
    law, values = reasons.by_scale(encoder(size), X, LAM), []
    for j in range(K):
        for factor in (1 + 1e-6, 1 - 1e-6):
            other = encoder(size)
            for p in other.parameters():
                p.data[j] *= factor
            values.append(h.published_loss(other, X, LAM).item())
    slopes = np.subtract(values[::2], values[1::2]) / 2e-6
    assert_allclose(slopes, -2 * LAM * len(X) / 128 * law, rtol=1e-5)


def test_balance_on_raw_inputs_is_that_of_the_same_code():
    moved, raw = reasons.in_float64(encoder(), X, torch.linspace(-1, 1, D))
    same(moved.encode(raw), encoder().encode(X))
    found, rows = reasons.balance(moved, raw, LAM, KAPPA)
    V, step, held, rest = rows.values()
    same(V, reasons.balance(encoder(), X, LAM, KAPPA)[1]["$V_j$"])
    loss = partial(h.bounded_loss, lam=LAM, kappa=KAPPA)
    same([V - step - held, rest], 2 * [reasons.pull(moved, loss, raw, LAM)[0]])
    cosine = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(held, V)]
    assert found["cos(W, V)"] == pytest.approx(np.median(cosine))


def test_growth_is_as_predicted_where_only_lengths_grow(monkeypatch):
    """Forces along W_j and along b_j, at `bias` times the rate, whose sum is the law's."""
    bias, model = 36.0, encoder()
    W, b, E = model.W.detach(), model.b.detach(), model.encode(X).detach()
    c = reasons.by_scale(model, X, LAM) / (W.square().sum(1) + b**2 / bias)
    monkeypatch.setattr(reasons, "pull", lambda *_: (c[:, None] * W, c * b / bias))
    found = reasons.growth(model, X, LAM, bias)
    m = 64 / LAM * (torch.softmax(-E, 1) * (E > 0)).mean(0)
    for name, values in {"c": c, "|f| / m": (c * b / bias / m).abs()}.items():
        told = [found[f"{name}, {how}"] for how in ("measured", "predicted")]
        assert told == pytest.approx(2 * [np.median(values)])


def test_readers_have_the_models_code_and_rows_of_their_own():
    model, x, scale = h.Encoder(D, K), X.float(), normal(K, D, dtype=torch.float32).abs()
    found, A = reasons.shares(model, x, x, {"W": 1, "scaled": scale}), model.encode(x).detach()
    total, centred = (x - x.mean(0)).square().sum(), A - A.mean(0)
    best = 1 - np.square(LinearRegression().fit(A, x).predict(A) - x.numpy()).sum() / total
    for name, rows in {"W": model.W, "scaled": model.W * scale}.items():
        step = centred @ rows.detach()
        own = (step * (x - x.mean(0))).sum() ** 2 / step.square().sum() / total  # with one gain
        assert found[name] == pytest.approx(float(own / best), rel=1e-4)
    Q, (moved, raw) = reasons.basis(X, "rotated"), reasons.in_float64(model, X, torch.ones(D))
    same(Q @ Q.T, torch.eye(D).double(), rtol=0, atol=1e-5)
    loss, parts = partial(h.published_loss, lam=LAM), (raw[:128], raw[72:])
    squares = [torch.autograd.grad(loss(moved, part), moved.W)[0] ** 2 for part in parts]
    inputs = torch.cat([X[:128], X[72:], X])
    size = reasons.gradient_size(model.double(), loss, inputs, torch.ones(D).double(), batches=2)
    same(size, (sum(squares) / 2).sqrt())


def test_the_mean_image_is_a_bias_faster_by_its_power_under_sgd():
    mean, x, start, one = torch.linspace(-1, 2, D).double(), X - X.mean(0), encoder(), encoder()
    raw, _ = reasons.in_float64(one, x, mean)
    for model, inputs in ((one, x), (raw, x + mean)):
        h.fit(model, h.published_loss, inputs, epochs=1, batch_size=200, lr=0.01, optimizer=SGD)
    by_raw = raw.b + raw.W @ mean - start.b - (one.W - start.W) @ mean
    same(by_raw, methods.bias_rate(mean)["SGD"] * (one.b - start.b))


def test_what_the_table_of_cases_says():
    rows = [(*case, i, "own", 0.5, 0.7) for case in methods.LAMBDAS for i in methods.INPUTS]
    rows += [(*case, "centred", "fast", 0.6, 0.9) for case in methods.LAMBDAS]
    for objective, how in methods.LAMBDAS:
        for inputs, value in (("raw", 0.95), ("centred", 0.8)):
            rows.append((methods.PRIORS[objective], how, inputs, "own", value, np.nan))
    names = ["objective", "optimiser", "inputs", "bias", "as it is", "currency"]
    shares = pd.DataFrame(rows, columns=names).assign(seed=0)
    shares["std(x)"], shares["of another unit"], close = 0.1, np.nan, pytest.approx
    assert reasons.gains(shares) == {inputs: [close(0.2)] for inputs in methods.INPUTS[:3]}
    assert reasons.by_bias(shares) == {", ".join(k): [close(0.1)] for k in methods.LAMBDAS}
    expected = {"Adam, raw": -0.25, "Adam, centred": 0.1, "SGD, rotated": -0.45}
    found = reasons.beside_prior(shares)
    assert {k: found[f"log det, {k}"][0] for k in expected} == close(expected)
    assert reasons.in_words(shares).loc["bounded", "SGD", "as it is"]["raw"] == "0.95"


class OnDevice(torch.Tensor):
    """Stands for a tensor on a GPU, which NumPy and matplotlib cannot read."""

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        return torch.Tensor(self.as_subclass(torch.Tensor))


def test_one_digit_is_drawn_from_a_device():
    x, E = torch.rand(784), torch.arange(K) - 1.0
    tensors = x, E.relu(), torch.softmax(-E, 0), torch.randn(K, 784), x
    fig = figures_3.digit_figure(*(t.as_subclass(OnDevice) for t in tensors))
    assert len(fig.axes) == 2 + 2 + 3
