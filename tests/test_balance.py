"""lab/balance.py: terms of the gradient against autograd, by hand, and against least squares."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import LinearRegression

import helpers as h
from lab import balance

D, K, LAM, KAPPA = 6, 5, 0.3, 0.7
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)).double() + 0.3
PENALTIES = {
    "log-sum-exp": h.lse_loss,
    "pooled": h.pooled_lse_loss,
    "L1": lambda E: E.sum() / K,
}


def encoder(seed=3):
    return h.Encoder(D, K, seed=seed).double()


def revised(model, x, penalty=h.lse_loss):
    infomax = h.log_det_loss(model(x)) + KAPPA * model.W.square().sum()
    return penalty(model(x)) + LAM * len(x) / 128 * infomax


@pytest.mark.parametrize("n", [200, 64])
def test_gradients_are_those_of_the_revised_loss_in_units_of_two_lambda(n):
    model = encoder()
    expected = torch.autograd.grad(revised(model, X[:n]), (model.W, model.b))
    found = balance.gradients(model, X[:n], LAM, KAPPA)
    for g, value in zip(expected, found):
        assert_allclose(value, -g / (2 * LAM * n / 128))


@pytest.mark.parametrize("name", PENALTIES)
def test_terms_add_up_to_the_gradient(name):
    model, penalty = encoder(), PENALTIES[name]
    gradient = torch.autograd.grad(revised(model, X, penalty), (model.W, model.b))
    of_W, of_b = (-g / (2 * LAM * 200 / 128) for g in gradient)
    parts = balance.terms(model, X, LAM, penalty)
    decay = KAPPA * model.W.detach()
    assert_allclose(parts["V"] - parts["inactive"] - parts["penalty"] - decay, of_W, atol=1e-12)
    assert_allclose(parts["u_active"] - parts["m"], of_b, atol=1e-12)


def test_terms_of_one_unit_and_three_inputs_by_hand():
    """Energies 0, 1 and 2: their mean is 1, their variance 1, and u is -1/2, 0 and 1/2. The unit is
    alone, so its responsibility is 1; and lambda is such that 128 / (2 lambda N) is 1."""
    model = h.Encoder(1, 1).double()
    model.W.data[:], model.b.data[:] = 1, 0
    x = torch.tensor([[-4.0], [1.0], [2.0]]).double()
    parts = balance.terms(model, x, lam=64 / 3, s=0)
    expected = {"V": 3, "inactive": 2, "penalty": 3, "m": 2, "u_active": 0.5}
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(expected)


def test_V_is_the_least_squares_decoder():
    model = encoder()
    E = model(X).detach()
    V = balance.terms(model, X, LAM, s=0)["V"]
    assert_allclose(V, LinearRegression().fit(E, X).coef_.T, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_of_inputs_with_their_mean_has_the_same_energies(dtype):
    model, x, mean = encoder().to(dtype), X.to(dtype), torch.linspace(-1, 1, D)
    before = x.clone()
    moved, raw = balance.in_float64(model, x, mean)
    assert_allclose(raw, (before + mean).double(), atol=1e-6)
    assert_allclose(moved(raw).detach(), model(before).detach(), atol=1e-6)
    assert moved.W.dtype == raw.dtype == torch.float64
    assert x.equal(before) and model.W.dtype == dtype  # what was given is as it was


def test_without_a_mean_a_model_is_as_it_was():
    moved, x = balance.in_float64(encoder(), X)
    assert moved.b.equal(encoder().b) and x.equal(X)


def test_summary_has_medians_over_units():
    model = encoder()
    parts = balance.terms(model, X, LAM)
    V, inactive, penalty, m, u = (
        parts[name].numpy() for name in ("V", "inactive", "penalty", "m", "u_active")
    )
    W, bracket, length = model.W.detach().numpy(), inactive + penalty, np.linalg.norm(V, axis=1)

    def cosine(a, b):
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    expected = [
        np.linalg.norm(inactive, axis=1) / length,
        np.linalg.norm(penalty, axis=1) / length,
        np.linalg.norm(bracket, axis=1) / length,
        cosine(bracket, V),
        (bracket * V).sum(1) / length**2,
        np.linalg.norm(bracket - ((bracket * V).sum(1) / length**2)[:, None] * V, axis=1) / length,
        cosine(W, V),
        cosine(W, V - bracket),
        np.linalg.norm(KAPPA * W, axis=1) / length,
        np.linalg.norm(V - bracket - KAPPA * W, axis=1) / length,
        abs(u - m) / m,
    ]
    found = balance.summary(model, parts, KAPPA)
    assert_allclose([*found.values()], [np.median(values) for values in expected])
