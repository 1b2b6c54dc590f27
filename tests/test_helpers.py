"""helpers.py against independent oracles: NumPy, SciPy, scikit-learn, autograd, and theorems."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LinearRegression
from torch.func import grad_and_value

import helpers as h

SGD = torch.optim.SGD


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("B, K", [(12, 5), (4, 9), (2, 2)])
@pytest.mark.parametrize("scale, shift", [(1e-3, 3), (1, 0), (1e4, 3)])
@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-9), (torch.float32, 2e-3)])
def test_losses_equal_numpy(B, K, scale, shift, dtype, close):
    E, noise, tiny = (scale * (normal(B, K) + shift)).to(dtype), scale**2 / 20, scale**2 / 1e6
    e, model = E.double().numpy(), SimpleNamespace(encode=lambda x: x, W=2 * torch.ones(K, 1))
    r, cov, corr = softmax(-e, axis=1), np.cov(e.T), np.corrcoef(e.T)
    lse, variance = -logsumexp(-e, axis=1).sum(), -np.log(cov.diagonal() + 1e-6).sum()
    dec, log_det = ((corr - np.eye(K)) ** 2).sum(), np.linalg.slogdet(cov + noise * np.eye(K))[1]
    copies = np.linalg.slogdet(2 * cov + tiny * np.eye(K))[1] + K * np.log(tiny)
    published, bounded = partial(h.published_loss, model, E), partial(h.bounded_loss, model, E)
    for got, expected in (
        (h.correlation(E), corr),
        (h.responsibilities(E), r),
        (h.log_det_loss(torch.cat([E, E], 1), tiny), -copies),  # in float32 it would be drowned
        (published(2, 0, 3, 0.5, 4), 3 * lse + B / 64 * (0.5 * variance + 4 * dec)),
        (published(2, kappa=0.75, decorrelation=0), lse + B / 64 * (variance + 3 * K)),
        (bounded(3, 0.75, noise), lse + 3 * B / 128 * (3 * K - log_det)),
        (bounded(3, 0, noise, h.l1_loss), e.sum() - 3 * B / 128 * log_det),
        (published(2, lse=3, sparsity=h.l1_loss, variance=0, decorrelation=0), 3 * e.sum()),
        *zip(grad_and_value(h.lse_loss)(E), (r, lse)),
    ):
        assert_allclose(got, expected, rtol=close, atol=close)
    for loss in (h.variance_loss, h.decorrelation_loss, h.log_det_loss):
        E[:, ::2] = 7.77  # constant, but for rounding
        gradient, value = grad_and_value(loss)(E)
        assert gradient.isfinite().all() and value.isfinite() and (h.correlation(E)[::2] == 0).all()


def test_the_uncoupled_price():
    """The batch's mean in place of each input's denominator: no unit's share depends on another's
    energy, the batch hands out as much as with its own, and where rows agree nothing changes."""
    E = normal(12, 5).abs() * 3
    e = np.exp(-E.numpy())
    share, value = grad_and_value(h.uncoupled_loss)(E)
    assert_allclose(share, e / e.sum(1).mean(), rtol=1e-12)
    assert_allclose([value, share.sum()], [((1 - e) / e.sum(1).mean()).sum(), 12], rtol=1e-12)
    same = E[:1].expand(12, 5)
    own = grad_and_value(h.lse_loss)(same)[0]
    assert_allclose(grad_and_value(h.uncoupled_loss)(same)[0], own, rtol=1e-12)


def test_prior_is_for_centred_inputs():
    x = normal(500, 6).numpy() * np.arange(1, 7)
    x, power = x - x.mean(0), np.trace(np.cov(x.T))
    assert_allclose(h.prior(x + 0.25 * (power / 6) ** 0.5, 4), power / 4)
    with pytest.warns(UserWarning, match="mean of x has 4 times the power.*x - x.mean"):
        h.prior(x + 2 * (power / 6) ** 0.5, 4)
    for wrong in (x[:1], x * np.nan, x[0], np.where(x == x[3, 3], np.inf, x)):
        with pytest.raises(ValueError, match="two or more rows of finite numbers"):
            h.prior(wrong, 4)


@pytest.mark.parametrize("K, kappa", [(2, 1.0), (5, 2.0), (8, 1.0)])
def test_volume_and_prior_make_weights_a_decoder(K, kappa):
    """Linear energies: ridge regression of x on E is kappa W, and W'W = (I / kappa - s / Cov)_+."""
    x, s = normal(128, 5) * torch.tensor([2.0, 1.3, 0.9, 0.6, 0.1]), 0.05
    model = h.Encoder(5, K, signed=True).double()
    loss = partial(h.bounded_loss, lam=1, kappa=kappa, noise=s, sparsity=lambda E: 0 * E.sum())
    h.fit(model, loss, x, epochs=500, lr=0.05, optimizer=SGD)
    W, e = model.W.detach().numpy(), model(x).detach().numpy()
    variance, U = np.linalg.eigh(torch.cov(x.T).numpy())
    frame = np.maximum(1 / kappa - s / variance, 0) * (np.arange(5) >= 5 - K)
    assert_allclose(W.T @ W, U * frame @ U.T, atol=1e-6)
    rows = np.vstack([e - e.mean(0), (s * 127) ** 0.5 * np.eye(K)])  # least squares with a ridge
    V = np.linalg.lstsq(rows, np.vstack([x - x.mean(0), np.zeros((K, 5))]), rcond=None)[0]
    assert_allclose(V, kappa * W, atol=1e-6)


def test_a_standard_sae_takes_rows_of_any_shape():
    """(batch, sequence, D), as a language model's, give what their rows give; also TopK's."""
    x = normal(60, 5)
    for model in (h.Encoder(5, 7).double(), h.SparseAutoencoder(5, 7, k=3).double()):
        sae = h.with_decoder(model, x)
        for function in (sae.encode, sae):
            rows = function(x.view(4, 15, 5)).detach().reshape(60, -1)
            assert_allclose(rows, function(x).detach(), atol=1e-12)


def test_measures():
    E = torch.tensor([[1.0], [-1], [1], [-1]]) * torch.tensor([0, 0.05, 0.009**0.5, 0.2]) + 3
    A, r = torch.tensor([[0, 1.0, 2], [0, 0, 1e-9], [-1, 0, 0]]), softmax(-normal(9, 4), axis=1)
    assert [h.low_variance(E), h.low_variance(E, 0.005), h.dead(E), h.dead(A)] == [3, 2, 0, 1]
    assert h.l0(A) == 1 and np.isnan(h.redundancy(E[:, [0, 3]]))
    assert_allclose(h.responsibility_entropy(normal(9, 4)), -(r * np.log(r)).sum(1).mean())
    corr = np.corrcoef(normal(20, 4).T) - np.eye(4)
    assert_allclose(h.redundancy(torch.cat([normal(20, 4), torch.ones(20, 1)], 1)), (corr**2).sum())


@pytest.mark.parametrize("far", [0, 1000])
@pytest.mark.parametrize("k", [None, 2])
def test_codes_and_decoders_against_least_squares(far, k):
    """Also of targets far from 0, of units of tiny variance, constant, and almost copies."""
    x, model = normal(300, 6) @ normal(6, 6, seed=1) + far, h.SparseAutoencoder(6, 5, k=k).double()
    model.b.data -= model.W.data.sum(1) * far
    for p in (model.W.data, model.b.data):
        p[1], p[2], p[3] = 1e-4 * p[1], 9.1 * (p.dim() == 1), p[0] + 1e-3 * p[3]
    W, b, V = (p.detach().numpy() for p in (model.W, model.b, model.V))
    A = (x.numpy() @ W.T + b).clip(0)
    A[A < (np.sort(A)[:, -k : -k + 1] if k else 0)] = 0
    assert_allclose(model.encode(x.numpy()).detach(), A, atol=1e-10)
    best, close = LinearRegression().fit(A, x), dict(rtol=0, atol=1e-6 * x.std(0).min().item())
    solved, offset = h.fit_decoder(model, x.numpy())
    assert (solved[2] == 0).all() and (k or 0 < A[:, 1].var() < 3e-8 and (solved[1] != 0).all())
    assert_allclose(A @ solved.numpy() + offset.numpy(), best.predict(A), **close)
    sae, error = h.with_decoder(model, x), ((best.predict(A) - x.numpy()) ** 2).sum()
    assert_allclose(sae(x).detach(), best.predict(A), **close)
    assert_allclose(h.sae_loss(sae, x, 3).item(), error + 3 * A.sum(), rtol=1e-6)
    design, spread = ((A - A.mean(0)) @ V).reshape(-1, 1), (x - x.mean(0)).numpy().flatten()
    assert_allclose(h.variance_explained(sae, x), 1 - error / (spread @ spread), rtol=1e-6)
    gain, (own, offset) = np.linalg.lstsq(design, spread)[0], h.transpose_decoder(model, x)
    assert_allclose(own, gain * V)
    assert_allclose(offset, x.mean(0).numpy() - A.mean(0) @ (gain * V), **close)
    model.W.data[:], model.b.data[:] = 0, 1
    assert ((model.encode(x) > 0).sum(1) == (k or 5)).all()  # of ties too


def test_decoders_of_half_precision_and_of_silent_codes():
    x, model = 8 * normal(9000, 20) @ normal(20, 20, seed=1), h.Encoder(20, 12).double()
    x -= x.mean(0)
    half = h.with_decoder(h.Encoder(20, 12).half(), x.half())
    exact = h.variance_explained(h.with_decoder(model, x), x)
    assert abs(h.variance_explained(half, x) - exact) < 0.01
    model.b.data -= 1000
    for V, offset in (decoder(model, x + 3) for decoder in (h.fit_decoder, h.transpose_decoder)):
        assert (V == 0).all() and torch.allclose(offset, (x + 3).mean(0))
