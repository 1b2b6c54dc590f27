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


def encoder():
    model = h.Encoder(D, K, seed=3).double()
    return model, model.encode(X).detach()


@pytest.mark.parametrize("price", PRICES)
def test_forces_add_up_to_the_gradient_and_hold_the_least_squares_decoder(price):
    model, E = encoder()
    p = reasons.slope(PRICES[price], E)
    V, M, V_rest, m, f = reasons.forces(model, X, LAM, p)
    loss = partial(h.bounded_loss, lam=LAM, kappa=KAPPA, sparsity=PRICES[price])
    on_W, on_b = reasons.pull(model, loss, X, LAM)
    assert_allclose(V - M - V_rest - KAPPA * model.W.detach(), on_W, atol=1e-12)
    assert_allclose(f, on_b, atol=1e-12)
    assert_allclose(m, 64 / LAM * (p * (E > 0)).mean(0))
    assert_allclose(M, m[:, None] * ((p * (E > 0)).T @ X) / (p * (E > 0)).sum(0)[:, None])
    V = reasons.forces(model, X, LAM, p, noise=0)[0]
    assert_allclose(V, LinearRegression().fit(E, X).coef_.T, atol=1e-9)


@pytest.mark.parametrize("noise", [None, 0.2])
def test_by_scale(noise):
    """Stretch one unit, W_j and b_j: the loss changes by -2 lambda c times the law's number."""
    model, _ = encoder()
    loss = partial(h.bounded_loss, lam=LAM, kappa=0, noise=noise)
    loss = partial(h.published_loss, lam=LAM) if noise is None else loss
    law, values = reasons.by_scale(model, X, LAM, noise), []
    for j in range(K):
        for factor in (1 + 1e-6, 1 - 1e-6):
            other, _ = encoder()
            other.W.data[j] *= factor
            other.b.data[j] *= factor
            values.append(loss(other, X).item())
    slopes = np.subtract(values[::2], values[1::2]) / 2e-6
    assert_allclose(slopes, -2 * LAM * len(X) / 128 * law, rtol=1e-5)


def test_balance_on_raw_inputs_is_that_of_the_same_code():
    model, E = encoder()
    moved, raw = reasons.in_float64(model, X, torch.linspace(-1, 1, D))
    torch.testing.assert_close(moved.encode(raw), model.encode(X))
    found, rows = reasons.balance(moved, raw, LAM, KAPPA)
    V, step, held, rest = rows.values()
    torch.testing.assert_close(V, reasons.balance(model, X, LAM, KAPPA)[1]["$V_j$"])
    loss = partial(h.bounded_loss, lam=LAM, kappa=KAPPA)
    torch.testing.assert_close(rest, reasons.pull(moved, loss, raw, LAM)[0])
    torch.testing.assert_close(V - step - held, rest)
    cosine = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(held, V)]
    assert found["cos(W, V)"] == pytest.approx(np.median(cosine))


def test_growth_is_as_predicted_where_only_lengths_grow(monkeypatch):
    """Forces along W_j and along b_j, at `bias` times the rate, whose sum is the law's."""
    bias, (model, E) = 36.0, encoder()
    W, b = model.W.detach(), model.b.detach()
    c = reasons.by_scale(model, X, LAM) / (W.square().sum(1) + b**2 / bias)
    monkeypatch.setattr(reasons, "pull", lambda *_: (c[:, None] * W, c * b / bias))
    found = reasons.growth(model, X, LAM, bias)
    m = 64 / LAM * (torch.softmax(-E, 1) * (E > 0)).mean(0)
    for name, values in {"c": c, "|f| / m": (c * b / bias / m).abs()}.items():
        told = [found[f"{name}, {how}"] for how in ("measured", "predicted")]
        assert told == pytest.approx(2 * [np.median(values)])


def test_readers_have_the_models_code_and_rows_of_their_own():
    model, x = h.Encoder(D, K), X.float()
    scale = torch.rand(K, D, generator=torch.Generator().manual_seed(0))
    found = reasons.shares(model, x, x, {"W": 1, "scaled": scale})
    for name, rows in {"W": model.W, "scaled": model.W * scale}.items():
        reader = h.with_decoder(model, x, lambda m, _, rows=rows: (rows, torch.zeros(D)))
        own, best = (
            h.with_decoder(m, x, d)
            for m, d in ((reader, h.transpose_decoder), (model, h.fit_decoder))
        )
        ratio = h.variance_explained(own, x) / h.variance_explained(best, x)
        assert found[name] == pytest.approx(ratio)
    loss, squares = partial(h.published_loss, lam=LAM), 0
    for rows in (x[:100].repeat(2, 1)[:128], x[-128:]):
        squares = squares + torch.autograd.grad(loss(model, rows), model.W)[0] ** 2 / 2
    size = reasons.gradient_size(
        model, loss, torch.cat([x[:100].repeat(2, 1)[:128], x[-128:], x]), 2
    )
    torch.testing.assert_close(size, squares.sqrt())


@pytest.mark.parametrize("optimizer, same", [(SGD, True), (torch.optim.Adam, False)])
def test_sgd_does_not_know_the_basis_and_adam_does(optimizer, same):
    """Rotate the inputs and W: SGD's path is the rotated path, Adam's is not."""
    Q = reasons.basis(X, "rotated")
    one, other = (h.Encoder(D, K).double() for _ in range(2))
    other.W.data = other.W.data @ Q
    for model, x in ((one, X), (other, X @ Q)):
        h.fit(model, h.published_loss, x, epochs=5, batch_size=50, lr=0.01, optimizer=optimizer)
    assert torch.allclose(one.W @ Q, other.W, atol=1e-6) == same
    power = (X * torch.arange(1.0, D + 1)) @ reasons.basis(
        X * torch.arange(1.0, D + 1), "principal axes"
    )
    assert (power.var(0).diff() < 0).all() and reasons.basis(X, "raw") is None


def test_the_mean_image_is_a_bias_faster_by_its_power_under_sgd():
    mean, x, (one, _) = torch.linspace(-1, 2, D).double(), X - X.mean(0), encoder()
    raw, _ = reasons.in_float64(one, x, mean)
    for model, inputs in ((one, x), (raw, x + mean)):
        h.fit(model, h.published_loss, inputs, epochs=1, batch_size=200, lr=0.01, optimizer=SGD)
    moved, start = one.b - encoder()[0].b, encoder()[0]
    by_raw = raw.b + raw.W @ mean - start.b - (one.W - start.W) @ mean
    torch.testing.assert_close(by_raw, methods.bias_rate(mean)["SGD"] * moved)


def test_what_the_table_of_cases_says():
    rows = [
        ("published form", "Adam", "raw", "own", 0, 0.7, 0.8),
        ("published form", "Adam", "centred", "own", 0, 0.2, 0.5),
        ("published form", "Adam", "centred", "fast", 0, 0.75, 0.88),
        ("published form", "SGD", "rotated", "own", 0, 0.83, 0.7),
        ("published + prior", "Adam", "raw", "own", 0, 0.86, np.nan),
        ("published + prior", "Adam", "centred", "own", 0, 0.85, np.nan),
        ("published + prior", "SGD", "raw", "own", 0, 0.87, np.nan),
    ]
    names = ["objective", "optimiser", "inputs", "bias", "seed", "as it is", "currency"]
    shares = pd.DataFrame(rows, columns=names)
    assert_allclose(reasons.gains(shares, "Adam")["raw"], [0.1])
    assert_allclose(reasons.gains(shares, "SGD")["rotated"], [-0.13])
    assert_allclose(reasons.by_bias(shares)["published form, Adam"], [0.55])
    expected = {"Adam, raw": -0.06, "Adam, centred": 0.03, "SGD, rotated": -0.04}
    found = {k: v[0] for k, v in reasons.beside_prior(shares).items()}
    assert found == pytest.approx({f"published form, {k}": v for k, v in expected.items()})


class OnDevice(torch.Tensor):
    """Stands for a tensor on a GPU, which NumPy and matplotlib cannot read."""

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        return torch.Tensor(self.as_subclass(torch.Tensor))


def test_one_digit_is_drawn_from_a_device():
    x, E = torch.rand(784), torch.rand(K) - 0.5
    tensors = x, E.relu(), torch.softmax(-E, 0), torch.randn(K, 784), x
    fig = figures_3.digit_figure(*(t.as_subclass(OnDevice) for t in tensors))
    assert len(fig.axes) == 11
