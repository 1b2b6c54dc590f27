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
from lab.training import train

D, K, LAM, KAPPA = 6, 5, 0.3, 0.7
X = normal(200, D) + 0.3
PRICES = {"own": h.lse_loss, "batch's mean": h.uncoupled_loss, "L1": lambda E: h.l1_loss(E) / K}


def model_with_gradients():
    model = h.Encoder(D, K, seed=3).double()
    return model, model.encode(X).detach()


@pytest.mark.parametrize("price", PRICES)
def test_forces_add_up_to_the_gradient(price):
    model, E = model_with_gradients()
    p = reasons.slope(PRICES[price], E)
    V, M, V_rest, m, f = reasons.forces(model, X, LAM, p)
    loss = partial(h.bounded_loss, lam=LAM, kappa=KAPPA, sparsity=PRICES[price])
    on_W, on_b = reasons.pull(model, loss, X, LAM)
    assert_allclose(V - M - V_rest - KAPPA * model.W.detach(), on_W, atol=1e-12)
    assert_allclose(f, on_b, atol=1e-12)
    mean = (p * (E > 0)).T @ X / (p * (E > 0)).sum(0)[:, None]  # of what a unit is active on
    assert_allclose(M, m[:, None] * mean)
    assert_allclose(m, 64 / LAM * (p * (E > 0)).mean(0))


def test_without_noise_the_decoder_in_the_gradient_is_least_squares():
    model, E = model_with_gradients()
    V = reasons.forces(model, X, LAM, 0 * E, noise=0)[0]
    assert_allclose(V, LinearRegression().fit(E, X).coef_.T, atol=1e-9)


@pytest.mark.parametrize("noise", [None, 0.2])
def test_by_scale(noise):
    """Stretch one unit, W_j and b_j: the loss changes by -2 lambda c times the law's number."""
    model, _ = model_with_gradients()
    loss = partial(h.published_loss, lam=LAM)
    if noise is not None:
        loss = partial(h.bounded_loss, lam=LAM, kappa=0, noise=noise)
    law, step = reasons.by_scale(model, X, LAM, noise).detach(), 1e-6
    for j in range(K):
        values = []
        for factor in (1 + step, 1 - step):
            other = h.Encoder(D, K).double()
            other.W.data, other.b.data = model.W.detach().clone(), model.b.detach().clone()
            other.W.data[j] *= factor
            other.b.data[j] *= factor
            values.append(loss(other, X).item())
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(-2 * LAM * len(X) / 128 * law[j].item(), rel=1e-5)


def test_balance_on_raw_inputs_is_that_of_the_same_code():
    model, _ = model_with_gradients()
    shift, before = torch.linspace(-1, 1, D), X.clone()
    moved, raw = reasons.in_float64(model, X, shift)
    torch.testing.assert_close(moved.encode(raw), model.encode(X))
    assert (before == X).all()
    found, rows = reasons.balance(moved, raw, LAM, KAPPA)
    V, step, held, rest = rows.values()
    torch.testing.assert_close(V, reasons.balance(model, X, LAM, KAPPA)[1]["$V_j$"])
    on_W, _ = reasons.pull(moved, partial(h.bounded_loss, lam=LAM, kappa=KAPPA), raw, LAM)
    torch.testing.assert_close(rest, on_W)
    torch.testing.assert_close(V - step - held, rest)
    cosine = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(held, V)]
    assert found["cos(W, V)"] == pytest.approx(np.sort(cosine)[(K - 1) // 2])


def test_growth_is_as_predicted_where_only_lengths_grow(monkeypatch):
    """Forces along W_j and along b_j, at `bias` times the rate, whose sum is the law's."""
    bias, (model, E) = 36.0, model_with_gradients()
    W, b = model.W.detach(), model.b.detach()
    c = reasons.by_scale(model, X, LAM) / (W.square().sum(1) + b**2 / bias)
    monkeypatch.setattr(reasons, "pull", lambda *_: (c[:, None] * W, c * b / bias))
    found = reasons.growth(model, X, LAM, bias)
    for name in ("c", "|f| / m"):
        assert found[f"{name}, measured"] == pytest.approx(found[f"{name}, predicted"])
    m = [64 / LAM * (torch.softmax(-E, 1) * (E > 0))[:, j].mean() for j in range(K)]
    ratio = [abs(c[j] * b[j]) / bias / m[j] for j in range(K)]
    assert found["|f| / m, measured"] == pytest.approx(np.median(ratio))
    assert found["c, predicted"] == pytest.approx(np.median(c))


def test_a_reader_has_the_models_code_and_its_own_rows():
    model, x = h.Encoder(D, K), X.float()
    scale = torch.rand(K, D, generator=torch.Generator().manual_seed(0))
    found = reasons.shares(model, x, x, {"W": 1, "scaled": scale, "by column": scale[0]})
    for name, rows in {"W": model.W, "scaled": model.W * scale}.items():
        reader = h.with_decoder(model, x, lambda m, _, rows=rows: (rows, torch.zeros(D)))
        by_rows = h.variance_explained(h.with_decoder(reader, x, h.transpose_decoder), x)
        assert found[name] == pytest.approx(
            by_rows / h.variance_explained(h.with_decoder(model, x), x)
        )
    assert found["by column"] != found["W"] and found["l0"] == h.l0(model.encode(x))


def test_gradient_size_is_the_root_mean_square():
    model, loss = h.Encoder(D, K).double(), partial(h.published_loss, lam=LAM)
    x, squares = normal(256 + 7, D), 0
    for rows in (x[:128], x[128:256]):
        model.zero_grad()
        loss(model, rows).backward()
        squares = squares + model.W.grad**2 / 2
    assert_allclose(reasons.gradient_size(model, loss, x, 2), squares.sqrt())


def test_bases_are_orthogonal_and_lead_with_what_varies_most():
    x = X * torch.arange(1.0, D + 1)
    for name in ("rotated", "principal axes"):
        Q = reasons.basis(x, name)
        assert_allclose(Q.T @ Q, np.eye(D), atol=1e-6)
    power = (x @ Q).var(0)
    assert (power.diff() < 0).all() and reasons.basis(x, "raw") is None


def test_what_the_table_of_cases_says():
    names = ["objective", "optimiser", "inputs", "bias", "seed", "as it is", "currency"]
    rows = [
        ("published form", "Adam", "raw", "own", 0, 0.7, 0.8),
        ("published form", "Adam", "centred", "own", 0, 0.2, 0.5),
        ("published form", "Adam", "centred", "fast", 0, 0.75, 0.88),
        ("published form", "SGD", "rotated", "own", 0, 0.83, 0.7),
        ("published + prior", "Adam", "raw", "own", 0, 0.86, np.nan),
        ("published + prior", "Adam", "centred", "own", 0, 0.85, np.nan),
        ("published + prior", "SGD", "raw", "own", 0, 0.87, np.nan),
    ]
    shares = pd.DataFrame(rows, columns=names)
    assert_allclose(reasons.gains(shares, "Adam")["raw"], [0.1])
    assert_allclose(reasons.gains(shares, "SGD")["rotated"], [-0.13])
    expected = {"Adam, raw": -0.06, "Adam, centred": 0.03, "SGD, rotated": -0.04}
    found = {k: v[0] for k, v in reasons.beside_prior(shares).items()}
    assert found == pytest.approx({f"published form, {k}": v for k, v in expected.items()})
    other = pd.DataFrame([(*rows[1][:5], 0.2, 0.5), (*rows[2][:5], 0.75, 0.88)], columns=names)
    assert_allclose(reasons.by_bias(other)["published form, Adam"], [0.55])


@pytest.mark.parametrize("optimizer, same", [(SGD, True), (torch.optim.Adam, False)])
def test_sgd_does_not_know_the_basis_and_adam_does(optimizer, same):
    """Rotate the inputs and W: SGD's path is the rotated path, Adam's is not."""
    Q = torch.linalg.qr(normal(D, D, seed=3))[0]
    one, other = (h.Encoder(D, K).double() for _ in range(2))
    other.W.data = other.W.data @ Q
    for model, inputs in ((one, X), (other, X @ Q)):
        h.fit(
            model, h.published_loss, inputs, epochs=5, batch_size=50, lr=0.01, optimizer=optimizer
        )
    assert torch.allclose(one.W @ Q, other.W, atol=1e-8) == same


def test_the_mean_image_is_a_fast_bias_under_sgd():
    """On raw pixels one step moves W and W mean + b as b at 1 + |mean|^2 times its rate does."""
    mean, x = torch.linspace(-1, 2, D), X.float() - X.float().mean(0)
    raw = methods.cases("raw", KAPPA, mean)["log det | SGD | own"]
    fast = methods.cases("centred", KAPPA, mean)["log det | SGD | fast"]
    rate = {"lr": 0.01, "epochs": 1, "batch_size": 200, "title": None}
    one, other, start = (h.Encoder(D, K) for _ in range(3))
    one.b.data -= one.W.data @ mean  # the same code
    loss = partial(raw.loss, lam=LAM, kappa=0.0)
    train([one], loss, x + mean, optimizer=raw.optimizer, **rate)
    train([other], loss, x, optimizer=fast.optimizer, **rate)
    by_raw, by_fast = one.b + one.W @ mean - start.b, other.b - start.b
    torch.testing.assert_close(by_raw - (other.W - start.W) @ mean, by_fast, rtol=1e-4, atol=1e-5)
    assert methods.bias_rate(mean)["SGD"] == pytest.approx(1 + float(mean @ mean))
    assert methods.bias_rate(mean)["Adam"] == pytest.approx(1 + float(mean.abs().sum()))


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
