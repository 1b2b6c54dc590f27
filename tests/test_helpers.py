"""helpers.py against independent oracles: NumPy, SciPy, autograd, a plain loop, and theory."""

import copy
import itertools
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.testing import assert_allclose
from scipy.special import logsumexp, softmax
from sklearn.preprocessing import normalize
from torch.func import grad_and_value

import helpers as h

torch.set_num_threads(1)  # the tensors are small: on a busy machine threads wait for each other
CLOSE = {torch.float64: dict(rtol=1e-9, atol=1e-9), torch.float32: dict(rtol=2e-3, atol=2e-3)}
VOLUME = [h.variance_loss, h.decorrelation_loss, h.log_det_loss]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def encoder(seed=0, **options):
    return h.Encoder(6, 4, seed=seed, **options).double()


@settings(derandomize=True, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 99), st.sampled_from(list(CLOSE)),
       st.sampled_from([1e-3, 1, 1e4]), st.sampled_from([0, 3]))  # fmt: skip
def test_losses_equal_numpy(B, K, seed, dtype, scale, shift):  # K <= B and K > B
    E, noise = (scale * (normal(B, K, seed=seed) + shift)).to(dtype), 0.05 * scale**2
    e, model = E.double().numpy(), SimpleNamespace(encode=lambda x: x, W=2 * torch.ones(K, 1))
    r, cov, corr = softmax(-e, axis=1), np.cov(e.T), np.corrcoef(e.T)
    lse, variance = -logsumexp(-e, axis=1).sum(), -np.log(cov.diagonal() + 1e-6).sum()
    dec, log_det = ((corr - np.eye(K)) ** 2).sum(), np.linalg.slogdet(cov + noise * np.eye(K))[1]
    for got, expected in (
        (h.correlation(E), corr),
        (h.responsibilities(E), r),
        (h.variance_loss(E), variance),
        (h.decorrelation_loss(E), dec),
        (h.log_det_loss(E, noise), -log_det),
        (h.published_loss(model, E, 2, 0.5, 3), 2 * lse + B / 128 * (0.5 * variance + 3 * dec)),
        (h.published_loss(model, E, 1, 2, 0, 0.75), lse + B / 64 * (variance + 3 * K)),
        (h.bounded_loss(model, E, 3, 0.75, noise), lse + 3 * B / 128 * (3 * K - log_det)),
        (h.bounded_loss(model, E, 3, 0, noise, h.l1_loss), e.sum() - 3 * B / 128 * log_det),
        *zip(grad_and_value(h.lse_loss)(E), (r, lse)),
    ):
        assert_allclose(got, expected, **CLOSE[dtype])


@pytest.mark.parametrize("scale", [1, 50, 100, 1000])
def test_log_det_of_copies_at_large_energies(scale):
    """Units of covariance C and copies of them: the eigenvalues of 2 C + noise, and noise."""
    E, noise = scale * (2 + normal(128, 8, dtype=torch.float32)), 1e-3
    gradient, value = grad_and_value(h.log_det_loss)(torch.cat([E, E], 1))
    assert value.dtype == torch.float32 and h.log_det_loss(E / 0).isnan()
    e = E.double().numpy()
    C = 2 * np.cov(e.T) + noise * np.eye(8)
    assert_allclose(value, -np.linalg.slogdet(C)[1] - 8 * np.log(noise), rtol=1e-6)
    expected = np.tile(-2 / 127 * np.linalg.solve(C, (e - e.mean(0)).T).T, 2)
    assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6 * abs(expected).max())


@pytest.mark.parametrize("constant, dtype", [(7.77, torch.float32), (0.1, torch.float64)])
def test_constant_units_count_for_nothing(constant, dtype):
    for rows in (5, 128, 1000):  # the mean of so many 7.77 or 0.1 is not exactly that
        E, dead = normal(rows, 8, dtype=dtype), torch.arange(8) % 3 == 0
        E[:, dead] = constant
        gradient, value = grad_and_value(h.decorrelation_loss)(E)
        alone = grad_and_value(h.decorrelation_loss)(E[:, ~dead])
        assert_allclose(gradient[:, ~dead], alone[0], **CLOSE[dtype])
        assert_allclose(value, alone[1], **CLOSE[dtype])
        assert (gradient[:, dead] == 0).all() and (h.correlation(E)[dead] == 0).all()
        for loss, e in itertools.product(VOLUME, (E, E[:, dead], E[:, [1, 1, 2, 2]])):
            assert all(torch.isfinite(t).all() for t in grad_and_value(loss)(e))


@pytest.mark.filterwarnings("error")
def test_prior_is_for_centred_inputs():
    x = normal(500, 6).numpy() * np.arange(1, 7)
    x, power = x - x.mean(0), np.trace(np.cov(x.T))
    for mean in (0, 0.25):  # 0.25² of the power of the variance
        assert_allclose(h.prior(x + mean * (power / 6) ** 0.5, 4), power / 4)
    with pytest.warns(UserWarning, match="mean of x has 4 times the power.*x - x.mean"):
        h.prior(x + 2 * (power / 6) ** 0.5, 4)


@pytest.mark.parametrize("options", [{"signed": 0}, {"signed": 1}, {}, {"tied": 1}, {"k": 2}])
def test_models(options):
    kind = h.Encoder if "signed" in options else h.SparseAutoencoder
    model, x = kind(6, 5, seed=1, **options).double(), normal(40, 6)
    W, b = (p.detach().numpy() for p in (model.W, model.b))
    assert max(abs(W).max(), abs(b).max()) <= 6**-0.5 and (model.W != kind(6, 5).W).all()
    a = x.numpy() @ W.T + b
    a = a if options.get("signed") else np.maximum(a, 0)
    if options.get("k"):
        np.put_along_axis(a, np.argsort(a)[:, :-2], 0, axis=1)  # all but the 2 largest
        assert {1, 2} <= set((a > 0).sum(1)) <= {0, 1, 2}
    assert_allclose(model.encode(x.numpy()).detach(), a)
    if kind is h.SparseAutoencoder:
        model.c.data += torch.arange(6)
        V = W if options.get("tied") else W / np.linalg.norm(W, axis=1, keepdims=True)
        errors = (a @ V + np.arange(6) - x.numpy()) ** 2
        assert_allclose((model(x) - x).detach() ** 2, errors, rtol=1e-6, atol=1e-6)
        assert_allclose(h.sae_loss(model, x, 3).item(), errors.sum() + 3 * a.sum(), rtol=1e-6)


def test_top_k_of_ties():
    """Of equal activations exactly k remain, also where `train` maps over models."""
    models = [h.SparseAutoencoder(6, 8, k=3, seed=s).double() for s in (0, 1)]
    for model in models:
        model.W.data[:], model.b.data[:] = model.W.data[0].clone(), 10.0
    assert ((models[0].encode(X) > 0).sum(1) == 3).all()
    history = train(models, lambda m, x: 0 * m.W.sum() + (m.encode(x) > 0).sum(1).square().sum())
    assert (history["loss"] == 9).all()


X = normal(70, 6)  # 4 minibatches of 16, and 6 rows too many


def train(models, loss=h.published_loss, x=X, **options):
    return h.train(models, loss, x, **dict(epochs=3, batch_size=16, progress=None) | options)


def plain(model, loss=h.published_loss, weights=(), schedule=(), seed=0, lr=1e-3, unit_norm=None,
          optimizer=torch.optim.Adam):  # fmt: skip
    """A plain loop: mean losses (3,), and the model before and after each step."""
    step, order = optimizer(model.parameters(), lr), torch.Generator().manual_seed(seed)
    losses, path = [], [copy.deepcopy(model)]
    for epoch in range(3):
        factors = {name: f[epoch] for name, f in dict(schedule).items()}
        step.param_groups[0]["lr"] = lr * factors.get("lr", 1)
        now = {name: w * factors.get(name, 1) for name, w in dict(weights).items()}
        for rows in torch.randperm(70, generator=order)[:64].view(4, 16):
            losses.append(loss(model, X[rows], **now))
            step.zero_grad()
            losses[-1].backward()
            for v, gradient in zip(model.V.data, model.V.grad) if unit_norm else ():
                gradient -= gradient.dot(v) * v
            step.step()
            for v in model.V.data if unit_norm else ():
                v /= v.norm()
            path.append(copy.deepcopy(model))
    return torch.stack(losses).detach().view(3, 4).mean(1) / 16, path


def assert_same_weights(models, others):
    a, b = ([p.data for m in group for p in m.parameters()] for group in (models, others))
    torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


EM = {"lse": [1.0, 0.3, 2.0, 1.0], "decorrelation": [0.0, 1.0, 2.0, 5.0]}
PLAN, SGD = {"schedule": {"lr": [1, 0.1, 3], "decorrelation": [0, 1, 0.5]}}, torch.optim.SGD
STACKS = [
    (h.published_loss, EM, 3, PLAN),
    (h.published_loss, EM, [2, 3], PLAN | {"optimizer": SGD}),
    (h.sae_loss, {"weight": [0, 1, 2, 3]}, [1, 0], {"unit_norm": "V"}),
]


@pytest.mark.parametrize("loss, weights, seeds, options", STACKS)
def test_a_stack_equals_one_by_one_equals_a_plain_loop(loss, weights, seeds, options):
    kind = h.SparseAutoencoder if loss is h.sae_loss else h.Encoder
    together, alone, loops = ([kind(6, 4, seed=s).double() for s in range(4)] for _ in range(3))
    options = options | {"loss": loss, "lr": 0.01}
    losses = train(together, weights=weights, seed=seeds, **options)["loss"]
    for i, seed in enumerate(np.repeat(seeds, 4 // np.size(seeds)).tolist()):
        own = {"weights": {name: w[i] for name, w in weights.items()}, "seed": seed} | options
        train([alone[i]], **own)
        assert_allclose(losses[:, i], plain(loops[i], **own)[0])
    assert_same_weights(together + alone, loops + loops)


def test_factors_of_the_loss_are_rates_of_sgd():
    models, factors = [encoder() for _ in range(3)], [0.1, 1, 3]
    options = {"weights": {"c": factors}, "lr": 0.01, "optimizer": SGD}
    train(models, lambda model, x, c: c * h.published_loss(model, x), **options)
    loops = [plain(encoder(), lr=0.01 * c, optimizer=SGD)[1][-1] for c in factors]
    assert_same_weights(models, loops)


def test_numpy_and_float64_inputs():
    models = [h.Encoder(6, 4) for _ in range(3)]
    for model, x in zip(models, (X.float(), X, X.numpy())):
        train([model], x=x)
    assert all(torch.equal(models[0].W, m.W) and torch.equal(models[0].b, m.b) for m in models)


def test_monitor():
    losses, paths = zip(*(plain(encoder(s), seed=7) for s in range(2)))
    for every, steps in ((None, [4, 8, 12]), (5, [0, 5, 10])):  # of 12
        look = {"monitor": lambda m: {"W": m.W.detach().sum()}, "every": every}
        history = train([encoder(0), encoder(1)], seed=7, **look)
        assert_allclose(history["loss"], torch.stack(losses, 1))
        assert_allclose(history["W"], [[path[i].W.sum().item() for path in paths] for i in steps])


HOLES = X.index_put((torch.tensor([9, 9, 30]), torch.tensor([1, 4, 0])), X.new_tensor(torch.inf))
OVERFLOW = {"weights": {"lse": [1, 1e300]}, "schedule": {"lse": [1e-300, 1e10, 1]}}
BAD = [  # models, options, what is said
    ([encoder()], {"monitor": lambda m: {"loss": 0}}, "'loss' is the training's own"),
    ([encoder()] * 3, {"seed": [0, 1]}, "3 models do not make 2 equal groups"),
    ([encoder(), encoder(signed=True)], {}, "one class, size and options"),
    ([encoder()], {"x": X[:, 1:]}, "takes 6 inputs per row, got 5"),
    ([encoder()], {"x": HOLES}, "3 non-finite values in 2 rows.* row 9, column 1"),
    ([encoder(), encoder(1)], OVERFLOW, "loss of model 1 became nan in epoch 2 of 3"),
]


@pytest.mark.parametrize("models, options, message", BAD)
def test_bad_arguments(models, options, message):
    with pytest.raises((ValueError, FloatingPointError), match=message):
        train(models, **options)


def test_interrupted_models_keep_what_they_learned():
    losses = iter([h.published_loss] * 10 + [Mock(side_effect=KeyboardInterrupt)])
    models = [encoder(0), encoder(1)]
    with pytest.raises(KeyboardInterrupt):
        train(models, lambda model, x: next(losses)(model, x))
    assert_same_weights(models, [plain(encoder(s))[1][10] for s in range(2)])


def test_scale_identity():
    """<gradient, (W, b)> of the published loss is sum r E - 2 sum Var / (Var + eps)."""
    model, x = encoder(), normal(128, 6)
    for p in model.parameters():
        p.data[0] *= 3e-3  # a variance of some eps
    h.published_loss(model, x).backward()
    e = model.encode(x).detach().numpy()
    variance = np.var(e, axis=0, ddof=1)
    assert 1e-7 < variance[0] < 1e-4
    expected = (softmax(-e, axis=1) * e).sum() - 2 * (variance / (variance + 1e-6)).sum()
    got = sum((p.detach() * p.grad).sum().item() for p in model.parameters())
    assert_allclose(got, expected, rtol=1e-9)


def test_scale_law_of_sgd():
    """Per rate and step |W_j|² + b_j² grows by 4 - 2 S_j of a living unit, by 0 of a dead one."""
    model, x, seen = h.Encoder(784, 16), h.load_mnist()[0][:3200], []  # 25 batches
    model.b.data[3] = -100

    def look(model):
        with torch.no_grad():
            E, power = model(x), model.W.double().square().sum(1) + model.b.double().square()
        S = 128 * (h.responsibilities(E) * E).mean(0)
        seen.append(torch.stack([power, S.double(), E.var(0).double()]).numpy())
        return {}

    train([model], x=x, epochs=24, batch_size=128, lr=0.01, optimizer=SGD, monitor=look)
    power, S, variance = np.stack(seen[15:], 1)  # after epochs 16 to 24
    alive = (variance > 1e-3).all(0)
    assert 8 <= alive.sum() < 16 and (alive | (variance == 0).all(0)).all()
    growth = (power[-1] - power[0]) / (0.01 * 8 * 25)
    expected = alive * (4 - (S[1:] + S[:-1]).mean(0))  # S between epochs
    assert_allclose(growth, expected, rtol=0.01)


@pytest.mark.parametrize("K, kappa", [(2, 1.0), (5, 2.0), (8, 1.0)])
def test_volume_and_prior_make_weights_a_decoder(K, kappa):
    """Linear energies: ridge regression of x on E is kappa W, and W'W = (I / kappa - s / Cov)_+."""
    x, s = normal(128, 5) * torch.tensor([2.0, 1.3, 0.9, 0.6, 0.1]), 0.05
    model, terms = h.Encoder(5, K, signed=True).double(), {"weight": 1, "kappa": kappa, "noise": s}
    loss = partial(h.bounded_loss, **terms, sparsity=lambda E: 0 * E.sum())
    train([model], loss, x, epochs=500, batch_size=128, lr=0.05, optimizer=SGD)
    W, e = model.W.detach().numpy(), model(x).detach().numpy()
    variance, U = np.linalg.eigh(torch.cov(x.T).numpy())
    assert variance[0] < s * kappa < variance[1]
    frame = np.maximum(1 / kappa - s / variance, 0) * (np.arange(5) >= 5 - K)
    assert_allclose(W.T @ W, U * frame @ U.T, atol=1e-6)
    rows = np.vstack([e - e.mean(0), (s * 127) ** 0.5 * np.eye(K)])  # least squares with a ridge
    V = np.linalg.lstsq(rows, np.vstack([x - x.mean(0), np.zeros((K, 5))]), rcond=None)[0]
    assert_allclose(V, kappa * W, atol=1e-6)


def test_measures():
    E = torch.tensor([[1.0], [-1], [1], [-1]]) * torch.tensor([0, 0.05, 0.009**0.5, 0.2]) + 3
    assert h.dead_units(E) == 3 and h.dead_units(E, threshold=0.005) == 2
    assert h.l0(torch.tensor([[0, 1.0, 2], [0, 0, 1e-9], [-1, 0, 0]])) == 1
    r = softmax(-normal(9, 4).numpy(), axis=1)
    assert_allclose(h.responsibility_entropy(normal(9, 4)), -(r * np.log(r)).sum(1).mean())
    assert_allclose(h.usage(normal(9, 4)), r.mean(0))
    E = normal(20, 5, dtype=torch.float32)
    E[:, 3] = 0.1  # constant: left out of the redundancy
    corr = np.corrcoef(E[:, [0, 1, 2, 4]].double().T)
    assert_allclose(h.redundancy(E), ((corr - np.eye(4)) ** 2).sum())
    assert np.isnan([h.redundancy(E[:, [0, 3]]), h.redundancy(E[:, [3, 3]])]).all()


def test_read_outs_against_least_squares():
    """Each by NumPy's lstsq on its own design matrix, and its error by reconstructing."""
    W, x, model = normal(5, 3), normal(40, 3, seed=2) + 1, h.Encoder(3, 5).double()
    model.W.data[0] *= 0.01  # a small variance counts
    model.W.data[4], model.b.data[4], encode = 0, 0.1, lambda x: model.encode(x).detach()
    xc, ac, w = (t.numpy() for t in (x - x.mean(0), encode(x) - encode(x).mean(0), W))
    gain = np.linalg.lstsq((ac @ w).reshape(-1, 1), xc.flatten(), rcond=None)[0]
    best = np.linalg.lstsq(ac, xc, rcond=1e-9)[0]  # a constant feature gets nothing
    m, expected = h.moments(encode, x.numpy(), chunk=7), {"gain": gain * w, "least squares": best}
    for name, V in expected.items():
        got, errors = h.read_outs(W, m)[name], ac @ V - xc
        assert_allclose(got[0], V, atol=1e-10)
        assert_allclose(h.read_out_error(*got, m), (errors**2).mean())
        assert_allclose(h.read_out_error(got[0], got[1] + 2, m), ((errors + 2) ** 2).mean())
    single, double = h.moments(h.Encoder(6, 4).encode, X.numpy()), h.moments(encoder().encode, X)
    for name, value in double.items():
        assert_allclose(single[name], value, rtol=1e-6, atol=1e-6)
    silent = h.moments(lambda x: torch.zeros(len(x), 5), x)
    assert (h.read_outs(W, silent)["gain"][0] == 0).all()
    A = encode(x) * (torch.arange(40) != 5)[:, None]  # of no norm: its reconstruction stays 0
    errors = normalize(A @ W) * np.linalg.norm(x, axis=1, keepdims=True) - x.numpy()
    assert_allclose(h.norm_matched_error(A, W, x), (errors**2).mean())


def test_mnist():
    counts = [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
    x_train, y_train, x_test, y_test = h.load_mnist()
    for x, n in ((x_train, 60_000), (x_test, 10_000)):
        assert x.shape == (n, 784) and x.dtype == torch.float32 and (x.min(), x.max()) == (0, 1)
    assert torch.cat([y_train, y_test]).bincount().tolist() == counts
