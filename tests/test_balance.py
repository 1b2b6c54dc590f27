"""lab/balance.py: means of inputs against autograd, by hand, and against ridge regression."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge

import helpers as h
from lab import balance

D, K, LAM, KAPPA = 6, 5, 0.3, 0.7
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)).double() + 0.3
close = partial(assert_allclose, rtol=0, atol=1e-10)


def encoder(n_units=K):
    return h.Encoder(D, n_units, seed=3).double()


@pytest.mark.parametrize("infomax, n", [(h.log_det_loss, 200), (h.infomax_loss, 64)])
def test_differences_of_sums_are_the_gradient_of_the_loss(infomax, n):
    """Times -128 / (2 lam N); weight decay has kappa w there. Of R, that of the log-sum-exp."""
    model, x, q = encoder(), X[:n], 128 / (2 * LAM * n)
    found = balance.means(model, x, LAM, infomax)
    loss = h.revised_loss(model(x), model.W, LAM, KAPPA, infomax=infomax)
    of_W, of_b = torch.autograd.grad(loss, (model.W, model.b))
    close(found["gradient"] - KAPPA * model.W.detach(), -q * of_W)
    close(found["of_bias"], -q * of_b)
    of_W, of_b = torch.autograd.grad(h.lse_loss(model(x)), (model.W, model.b))
    close(found["sum_R"], q * of_W)
    close(found["m_R"], q * of_b)


@pytest.mark.parametrize("s", [1e-3, 0.1])  # the first of them by default
def test_V_is_ridge_regression_and_a_difference_of_means_of_weights_that_may_be_negative(s):
    options = {} if s == 1e-3 else {"infomax": partial(h.log_det_loss, s=s), "s": s}
    found = balance.means(encoder(), X, LAM, **options)
    E = encoder()(X).detach().numpy()
    close(found["V"], Ridge(alpha=s * 199).fit(E, X).coef_.T)
    close(found["V"], found["m_A"][:, None] * (found["x_A"] - found["x_I"]))
    for name in "ARI":
        z = (found[f"x_{name}"] @ encoder().W.T + encoder().b).diagonal()
        close(found[f"z_{name}"], z.detach())
    u = np.linalg.solve(np.cov(E.T) + s * np.eye(K), (E - E.mean(0)).T).T
    expected = [-w[w < 0].sum() / np.abs(w).sum() for w in (u[E > 0], -u[E == 0])]
    assert min(expected) > 0.01
    close(found["negative"], expected)


def test_means_of_one_unit_and_three_inputs_by_hand():
    """Energies 0, 1 and 2: their mean is 1, their variance 1, and u is -1/2, 0 and 1/2. The unit is
    alone, so its responsibility is 1; and lambda is such that 128 / (2 lambda N) is 1."""
    model, x = h.Encoder(1, 1), torch.tensor([[-4.0], [1.0], [2.0]])
    model.W.data[:], model.b.data[:] = 1, 0
    found = balance.means(model, x, lam=64 / 3, infomax=partial(h.log_det_loss, s=0), s=0)
    expected = {"m_A": 0.5, "sum_A": 1, "x_A": 2, "m_R": 2, "sum_R": 3, "x_R": 1.5}
    expected |= {"m_I": 0.5, "sum_I": -2, "x_I": -4, "z_A": 2, "z_R": 1.5, "z_I": -4}
    expected |= {"V": 3, "W": 1, "gradient": -2, "of_bias": -1.5}
    assert found.pop("negative") == [0, 0]
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


def test_a_model_of_centred_inputs_is_looked_at_on_raw_ones_in_chunks_of_double_precision():
    mean, x, model = torch.linspace(-1, 1, D), X.float(), h.Encoder(D, K, seed=3)
    expected = balance.means(model, x + mean, LAM)
    h.shift_bias(model, -mean)
    before = [value.clone() for value in (x, model.W, model.b)]
    found = balance.means(model, x, LAM, mean=mean, chunk=64)
    assert all(a.equal(b) and a.dtype == b.dtype for a, b in zip(before, (x, model.W, model.b)))
    for name, value in expected.items():
        assert_allclose(found[name], value, atol=1e-4)
    assert found["V"].dtype == torch.float64


def test_summary_has_medians_over_units_that_live():
    model = encoder(K + 1)
    model.b.data[K:] = -100
    found = balance.means(model, X, LAM)
    values = {name: value[:K].numpy() for name, value in found.items() if name != "negative"}

    def cosine(a, b):
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    A, R, inactive, V, W = (values[name] for name in ("x_A", "x_R", "x_I", "V", "W"))
    expected = [
        *(values[name] for name in ("z_A", "z_R", "z_I")),
        np.linalg.norm(R - inactive, axis=1) / np.linalg.norm(A - R, axis=1),
        cosine(A - R, A - inactive),
        cosine(values["gradient"], V),
        cosine(values["sum_A"], V),
        cosine(W, V),
        cosine(W, A - R),
        values["m_R"] / values["m_A"],
    ]
    assert_allclose([*balance.summary(found).values()], [np.median(v) for v in expected])
