"""helpers.py against independent oracles: scipy, numpy, autograd, a plain training loop."""

import json
import os
import re
import subprocess
import sys

import hypothesis.strategies as st
import matplotlib.pyplot as plt
import numpy as np
import pytest
import sklearn.datasets
import threadpoolctl
import torch
from hypothesis import given, settings
from numpy.testing import assert_allclose
from scipy.special import logsumexp, softmax
from torch.optim.optimizer import register_optimizer_step_post_hook

import helpers as h

plt.switch_backend("Agg")
torch.set_num_threads(1)  # the tensors are small: on a busy machine threads wait for each other
settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")
CLOSE = {torch.float64: dict(rtol=1e-9, atol=1e-9), torch.float32: dict(rtol=2e-3, atol=2e-3)}
VOLUME = [h.variance_loss, h.decorrelation_loss, h.log_det_loss, h.implicit_em_loss]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_gradient(loss, E):
    E = E.clone().requires_grad_()
    value = loss(E)
    return value.detach(), torch.autograd.grad(value, E)[0]


# --- The objective ------------------------------------------------------------------------


@st.composite
def energies(draw):  # K <= B and K > B, up to some 1e4, centred or not
    shape, seed = [draw(st.integers(2, 12)) for _ in range(2)], draw(st.integers(0, 2**31))
    scale, shift = draw(st.sampled_from([1e-3, 1, 1e4])), draw(st.sampled_from([0, 3]))
    return scale * (normal(*shape, seed=seed) + shift).to(draw(st.sampled_from(list(CLOSE))))


@given(energies())
def test_losses_equal_numpy(E):
    e, close, K = E.double().numpy(), CLOSE[E.dtype], E.shape[1]
    lse = -logsumexp(-e, axis=1).sum()
    variance = -np.log(np.diag(np.cov(e.T)) + 1e-6).sum()
    corr = np.corrcoef(e.T)  # K x K even where helpers.py takes the smaller B x B
    decorrelation = ((corr - np.eye(K)) ** 2).sum()
    value, gradient = with_gradient(h.lse_loss, E)
    assert_allclose(value, lse, **close)
    assert_allclose(gradient, softmax(-e, axis=1), **close)
    assert_allclose(h.responsibilities(E), softmax(-e, axis=1), **close)
    assert_allclose(h.variance_loss(E), variance, **close)
    assert_allclose(h.decorrelation_loss(E), decorrelation, **close)
    log_det = np.linalg.slogdet(corr + 0.01 * np.eye(K))[1]
    assert_allclose(h.log_det_loss(E), variance - log_det, **close)
    assert_allclose(h.implicit_em_loss(E), lse + variance + decorrelation, **close)
    weighted = 2 * lse + 0.5 * variance + 3 * decorrelation
    assert_allclose(h.implicit_em_loss(E, 2, 0.5, 3), weighted, **close)


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (6, 1)])
@pytest.mark.parametrize("loss", [h.lse_loss, *VOLUME])
def test_gradients(loss, shape):
    assert torch.autograd.gradcheck(loss, normal(*shape).requires_grad_())


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("rows", [5, 7, 128, 1000])  # 8 units
@pytest.mark.parametrize("constant", [0, 0.1, 7.77, 1e4])  # the means of 0.1 and 7.77 round
def test_constant_units(constant, rows, dtype):
    E, dead = normal(rows, 8, dtype=dtype), torch.arange(8) % 3 == 0
    E[:, dead] = constant
    for got, alone in zip(*(with_gradient(h.decorrelation_loss, e) for e in (E, E[:, ~dead]))):
        assert_allclose(got[:, ~dead] if got.dim() else got, alone, **CLOSE[dtype])
    assert (got[:, dead] == 0).all()
    assert h.decorrelation_loss(E[:, dead]) == 0
    for loss in VOLUME:
        for e in (E, E[:, dead], E[:, [1, 1, 2, 2]]):
            assert all(torch.isfinite(t).all() for t in with_gradient(loss, e))


@pytest.mark.parametrize("loss", VOLUME)
def test_one_row_has_no_variance(loss):
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        loss(normal(1, 3))


# --- Models -------------------------------------------------------------------------------

BY_HAND = {
    "relu": lambda z: np.maximum(z, 0),
    "identity": lambda z: z,
    "softplus": lambda z: np.logaddexp(0, z),
}


@pytest.mark.parametrize("activation", h.ACTIVATIONS)
def test_encoder(activation):
    model, x = h.Encoder(5, 3, activation).double(), normal(4, 5)
    W, b = (p.detach().numpy() for p in (model.W, model.b))
    assert 0 < abs(W).max() <= 5**-0.5 and 0 < abs(b).max() <= 5**-0.5
    assert_allclose(model(x).detach(), BY_HAND[activation](x.numpy() @ W.T + b))


@pytest.mark.parametrize("tied", [False, True])
def test_autoencoder(tied):
    model, x = h.SparseAutoencoder(5, 3, tied).double(), normal(4, 5)
    torch.nn.init.normal_(model.c)
    p = {name: p.detach().numpy() for name, p in model.named_parameters()}
    a = np.maximum(x.numpy() @ p["W"].T + p["b"], 0)
    x_hat = a @ p["W" if tied else "V"] + p["c"]
    for got, expected in zip(model(x), (x_hat, a), strict=True):
        assert_allclose(got.detach(), expected)
    loss = h.sae_loss(x, *model(x), 0.3).item()
    assert_allclose(loss, ((x.numpy() - x_hat) ** 2).sum() + 0.3 * a.sum())


@pytest.mark.parametrize("model", [h.Encoder, h.SparseAutoencoder])
def test_seeds_and_sizes(model):
    one, same, other = (model(5, 3, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not any(torch.equal(one[k], other[k]) for k in one if k != "c")
    for sizes in ((0, 3), (5, 0)):
        with pytest.raises(ValueError, match="got {} and {}".format(*sizes)):
            model(*sizes)
    with pytest.raises(ValueError, match="takes 5 inputs per row, got 6"):
        model(5, 3)(torch.ones(2, 6))


def test_models():
    models = h.Encoder(784, 64), h.SparseAutoencoder(784, 64), h.SparseAutoencoder(784, 64, True)
    assert [sum(p.numel() for p in m.parameters()) for m in models] == [50_240, 101_200, 51_024]
    with pytest.raises(ValueError, match=r"'tanh'; one of \['identity', 'relu', 'softplus'\]"):
        h.Encoder(5, 3, "tanh")
    V = normal(2, 3, 4, 5)
    expected = V.numpy() / np.linalg.norm(V, axis=-1, keepdims=True)
    h.unit_norm_decoder({"V": V})
    assert_allclose(V, expected)


# --- Training -----------------------------------------------------------------------------

X = normal(70, 6)  # 4 minibatches of 16, and 6 rows too many
HOLES = X.index_put((torch.tensor([9, 9, 30]), torch.tensor([1, 4, 0])), X.new_tensor(torch.inf))


def em(model, x, lse=1.0, decorrelation=1.0):
    return h.implicit_em_loss(model(x), lse, decorrelation=decorrelation)


def sae(model, x, sparsity=0.1):
    return h.sae_loss(x, *model(x), sparsity)


def encoder(seed):
    return h.Encoder(6, 4, "softplus", seed).double()


def autoencoder(seed):
    return h.SparseAutoencoder(6, 4, seed=seed).double()


class Other(h.Encoder):
    """Of the same size as an Encoder, and not one."""


def train(models, loss=em, x=X, **options):
    return h.train(models, loss, x, **dict(epochs=3, batch_size=16, progress=None) | options)


def assert_same_weights(models, others, rtol=1e-7, atol=1e-9):
    for model, other in zip(models, others, strict=True):
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert_allclose(p.detach(), q.detach(), rtol=rtol, atol=atol)


EM = (encoder, em, None, {"lse": [1.0, 0.3, 2.0, 1.0], "decorrelation": [0.0, 1.0, 2.0, 5.0]})
SAE = (autoencoder, sae, h.unit_norm_decoder, {"sparsity": [0.0, 0.1, 0.3, 1.0]})


@pytest.mark.parametrize("make, loss, constraint, weights", [EM, SAE])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("seed", [3, [0, 1], [4, 0, 2, 1]])
@pytest.mark.parametrize("lr", [0.002, [0.0001, 0.003, 0.001, 0.002]])
def test_stack_equals_one_by_one(make, loss, constraint, weights, optimizer, seed, lr):
    together, alone = ([make(s) for s in range(4)] for _ in range(2))
    options = dict(loss=loss, constraint=constraint, optimizer=optimizer)
    history = train(together, weights=weights, seed=seed, lr=lr, **options)["loss"]
    seeds, rates = np.repeat(seed, 4 // np.size(seed)).tolist(), np.broadcast_to(lr, 4).tolist()
    for i, model in enumerate(alone):
        own = {k: v[i] for k, v in weights.items()}
        single = train([model], weights=own, seed=seeds[i], lr=rates[i], **options)["loss"]
        assert_allclose(history[:, i], single[:, 0])
    assert_same_weights(together, alone)
    if constraint:
        assert_allclose(np.linalg.norm(together[2].V.detach(), axis=1), 1)


@pytest.mark.parametrize("make, loss", [EM[:2], SAE[:2]])
@pytest.mark.parametrize("name, oracle", [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_training_equals_a_plain_loop(make, loss, name, oracle):
    model, plain, losses = make(0), make(0), []
    history = train([model], loss, lr=0.005, optimizer=name, seed=7)
    step, order = oracle(plain.parameters(), lr=0.005), torch.Generator().manual_seed(7)
    for _ in range(3):
        rows = torch.randperm(70, generator=order)
        for i in range(4):
            value = loss(plain, X[rows[16 * i : 16 * i + 16]])
            step.zero_grad()
            value.backward()
            step.step()
            losses.append(value.item() / 16)
    assert_same_weights([model], [plain])
    assert_allclose(history["loss"][:, 0], np.reshape(losses, (3, 4)).mean(1))


def test_same_seed_same_bits():
    one, same, other = ([encoder(0), encoder(1)] for _ in range(3))
    assert np.array_equal(train(one, seed=5)["loss"], train(same, seed=5)["loss"])
    train(other, seed=6)
    assert all(torch.equal(p.W, q.W) for p, q in zip(one, same))
    assert not any(torch.equal(p.W, q.W) for p, q in zip(one, other))


def test_monitor():
    models = [encoder(s) for s in range(4)]
    monitor = {"w": lambda m: m.W.detach().sum(), "b": lambda m: m.b[0].item()}
    history = train(models, seed=[0, 1], monitor=lambda m: {k: f(m) for k, f in monitor.items()})
    assert {k: v.shape for k, v in history.items()} == dict.fromkeys(["loss", "w", "b"], (3, 4))
    for key, f in monitor.items():
        assert_allclose(history[key][-1], [f(m) for m in models])


@pytest.mark.parametrize(
    "models, options, message",
    [
        ([], {}, "empty list"),
        ([encoder(0)], {"seed": []}, "empty list"),
        ([encoder(0)] * 3, {"seed": [0, 1]}, "3 models do not make 2 equal groups"),
        ([encoder(0)], {"optimizer": "rmsprop"}, r"'rmsprop'; one of \['adam', 'sgd'\]"),
        ([encoder(0)], {"epochs": 0}, "at least 1, got 0, 16"),
        ([encoder(0)], {"batch_size": 0}, "at least 1, got 3, 0"),
        ([encoder(0)], {"x": X[:15]}, r"\(15, 6\) has no minibatch of 16 rows"),
        ([encoder(0)], {"x": X[:, 0]}, r"\(70,\) has no minibatch"),
        ([encoder(0)], {"x": X[:, :5]}, "takes 6 inputs per row, got 5"),
        ([encoder(0)], {"x": HOLES}, "3 non-finite values in 2 rows.* row 9, column 1"),
        (
            [encoder(0)] * 2,
            {"weights": {"lse": [1, 2, 3]}},
            "2 models take that many weights or rates, got 3",
        ),
        ([encoder(0)] * 2, {"lr": [0.1]}, "2 models take that many weights or rates, got 1"),
        ([encoder(0), h.Encoder(6, 5).double()], {}, "one class, size and activation"),
        ([encoder(0), Other(6, 4).double()], {}, "one class, size and activation"),
        ([encoder(0), h.Encoder(6, 4, "identity").double()], {}, "activation"),
    ],
)
def test_bad_arguments(models, options, message):
    with pytest.raises(ValueError, match=message):
        train(models, **options)


def test_non_finite_loss():
    models, learned, epochs = [encoder(0), encoder(1)], [encoder(0)], []

    def loss(model, x, w):  # of model 1 becomes NaN in epoch 2
        return em(model, x) * torch.where((w > 0) & bool(epochs), torch.nan, 1.0)

    with pytest.raises(FloatingPointError, match="model 1 became nan in epoch 2 of 3"):
        train(models, loss, weights={"w": [0, 1]}, monitor=lambda m: epochs.append(1) or {})
    train(learned, epochs=2)
    assert_same_weights(models[:1], learned)


@pytest.mark.parametrize("hook, call, epochs", [("monitor", 2, 1), ("loss", 9, 2)])
def test_interrupted_models_keep_what_they_learned(hook, call, epochs):
    models, learned, calls = [encoder(0), encoder(1)], [encoder(0), encoder(1)], []

    def interrupt(model, *x):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return em(model, *x) if x else {}

    with pytest.raises(KeyboardInterrupt):
        train(models, **{hook: interrupt})
    train(learned, epochs=epochs)
    assert_same_weights(models, learned)


@pytest.mark.parametrize("lr", [1e-3, [1e-3]])
def test_interrupted_right_after_a_step(lr):
    def interrupt(*_):
        raise KeyboardInterrupt

    model, hook = encoder(0), register_optimizer_step_post_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            train([model], lr=lr)
    finally:
        hook.remove()
    assert_same_weights([model], [encoder(0)], rtol=0, atol=1.01e-3)  # one step of Adam moves lr


BIG = """
import resource, torch, helpers as h
x = torch.randn(1024, 3072)
for loss in (h.implicit_em_loss, h.log_det_loss):
    h.train([h.Encoder(3072, 6144)], lambda m, x: loss(m(x)), x, epochs=1, batch_size=512)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_memory_at_the_size_of_a_language_model():
    command = [sys.executable, "-c", BIG]
    run = subprocess.run(command, cwd=h.ROOT, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 4  # GB


# --- What we measure ----------------------------------------------------------------------


def test_counts():
    E = torch.tensor([[1.0], [-1], [1], [-1]]) * torch.tensor([0, 0.05, 0.009**0.5, 0.2]) + 3
    assert h.dead_units(E) == 3 and h.dead_units(E, threshold=0.005) == 2
    assert h.l0(torch.tensor([[0, 1.0, 2], [0, 0, 1e-9], [-1, 0, 0]])) == 1
    expected = {"mean": 2, "std": pytest.approx(2**0.5), "seeds": [1, None, 3, None]}
    assert h.spread([1, None, np.float32(3), np.nan]) == expected | {"ci95": pytest.approx(12.7062)}
    assert h.spread([1, 2, 3, 4, 5])["ci95"] == pytest.approx(2.776445 * (2.5 / 5) ** 0.5)
    undefined = {"std": None, "ci95": None}
    assert h.spread([5.0]) == {"mean": 5, "seeds": [5]} | undefined
    assert h.spread([None, np.nan]) == {"mean": None, "seeds": [None, None]} | undefined


def test_similarity_and_redundancy():
    E, alive = normal(20, 5, dtype=torch.float32), [0, 1, 2, 4]
    E[:, 3] = 0.1
    R, corr = h.similarity(E).numpy(), np.corrcoef(E[:, alive].double().T)
    assert_allclose(R[np.ix_(alive, alive)], corr, atol=1e-12)
    assert np.isnan(R[3]).all() and np.isnan(R[:, 3]).all()
    assert_allclose(h.redundancy(E), ((corr - np.eye(4)) ** 2).sum())
    assert np.isnan(h.redundancy(torch.full((20, 3), 0.1)))
    assert np.isnan(h.redundancy(E[:, [0, 3]]))


def test_responsibility_entropy_and_usage():
    assert h.responsibility_entropy(-1e4 * torch.eye(4)) == 0
    assert h.responsibility_entropy(torch.full((4, 7), 1e4)) == pytest.approx(np.log(7))
    r = softmax(-normal(9, 4).numpy(), axis=1)
    assert_allclose(h.responsibility_entropy(normal(9, 4)), -(r * np.log(r)).sum(1).mean())
    assert_allclose(h.usage(normal(9, 4)), r.mean(0))
    assert_allclose(h.usage(1e4 * normal(9, 4)).sum(), 1)


def test_transpose_decoder():
    W, A, x = normal(4, 3), normal(30, 4, seed=1) + 1, normal(30, 3, seed=2) + 1
    design = np.hstack([(A @ W).reshape(-1, 1), np.tile(np.eye(3), (30, 1))])
    oracle = np.linalg.lstsq(design, x.flatten().numpy(), rcond=None)[0]
    exact = 2.5 * A @ W + torch.arange(3)
    for x_, (gain, *offset) in ((x, oracle), (exact, [2.5, 0, 1, 2])):
        fit = h.fit_transpose_decoder(W, A, x_)
        assert_allclose(fit[0], gain)
        assert_allclose(fit[1], offset, atol=1e-6)


def test_transpose_decoder_of_constant_features():
    x = normal(30, 3)
    gain, offset = h.fit_transpose_decoder(normal(4, 3), torch.ones(30, 4), x)
    assert gain == 0
    assert_allclose(offset, x.mean(0), atol=1e-6)


def test_moments_are_those_of_numpy_in_any_chunks():
    x, model = normal(50, 6) + 1, encoder(0)
    joint = np.hstack([model(x).detach(), x])
    cov = np.cov(joint.T, bias=True)
    for chunk in (7, 50):
        m = h.moments(model, x, chunk=chunk)
        assert_allclose(np.r_[m["A"], m["x"]], joint.mean(0))
        assert_allclose(m["AA"], cov[:4, :4], atol=1e-12)
        assert_allclose(m["Ax"], cov[:4, 4:], atol=1e-12)
        assert_allclose(m["xx"], np.trace(cov[4:, 4:]))


def test_read_outs_against_least_squares():
    """Each rung by numpy's lstsq on its own design matrix, and errors by reconstructing."""
    W, A, x = normal(4, 3), normal(40, 4, seed=1) + 1, normal(40, 3, seed=2) + 1
    A[:, 1] += A[:, 0]  # correlated features
    m = h.moments(lambda _: A, x, chunk=40)
    got = h.read_outs(W, m)
    W_, x_ = W.numpy(), x.numpy()
    ac, xc = (A - A.mean(0)).numpy(), x_ - x_.mean(0)
    gain = np.linalg.lstsq((ac @ W_).reshape(-1, 1), xc.flatten(), rcond=None)[0]
    per_component = (ac[:, None, :] * W_.T[None]).reshape(-1, 4)  # rows (input, entry)
    gains = np.linalg.lstsq(per_component, xc.flatten(), rcond=None)[0]
    rows = np.stack(
        [np.polyfit(A[:, j].numpy(), x_, 1)[0] for j in range(4)]
    )  # one regression each
    more = np.linalg.lstsq((ac @ rows).reshape(-1, 1), xc.flatten(), rcond=None)[0]
    expected = {
        "as it is": (W, 0),
        "gain + offset": (gain * W_, 1 + 3),
        "gain per component": (gains[:, None] * W_, 4 + 3),
        "covariance rows": (more * rows, 4 * 3 + 1 + 3),
        "least squares": (np.linalg.lstsq(ac, xc, rcond=None)[0], 4 * 3 + 3),
    }
    assert list(got) == list(expected)
    for name, (V, n) in expected.items():
        assert_allclose(got[name][0], V, atol=1e-10)
        assert got[name][2] == n
    errors = {k: h.read_out_error(V, o, m) for k, (V, o, _) in got.items()}
    for name, (V, offset, _) in got.items():
        assert_allclose(errors[name], (x - A @ V - offset).square().mean())
    assert errors["least squares"] < errors["gain per component"] < errors["gain + offset"]
    fitted = h.fit_transpose_decoder(W, A, x)
    assert_allclose(fitted[0] * W, got["gain + offset"][0])
    assert_allclose(fitted[1], got["gain + offset"][1], atol=1e-6)


def test_covariance_rows_are_exact_for_uncorrelated_features():
    q = np.linalg.qr(normal(40, 5) - normal(40, 5).mean(0))[0][:, :4]  # orthonormal, centred
    A, x = torch.as_tensor(q) * torch.arange(1, 5), normal(40, 3, seed=2)
    got = h.read_outs(normal(4, 3), h.moments(lambda _: A, x, chunk=40))
    assert_allclose(got["covariance rows"][0], got["least squares"][0], atol=1e-10)


def test_read_outs_of_constant_features():
    x, A = normal(30, 3), normal(30, 2, seed=1)
    A = torch.cat([torch.tensor([[0.0, 0.1]]).expand(30, 2), A], 1)  # 0.1 rounds
    got = h.read_outs(normal(4, 3), h.moments(lambda _: A, x, chunk=30))
    assert all(torch.isfinite(V).all() for V, *_ in got.values())
    assert (got["covariance rows"][0][:2] == 0).all()
    alone = h.read_outs(normal(2, 3), h.moments(lambda _: A[:, 2:], x, chunk=30))
    assert_allclose(got["least squares"][0][2:], alone["least squares"][0], atol=1e-10)


def test_whitening():
    x = normal(500, 4) @ normal(4, 4, seed=1) + 3
    for eps in (1e-9, 0.5, 1e6):
        P, inverse = h.whitening(x, eps)
        assert_allclose(P @ inverse, np.eye(4), atol=1e-9)
        cov = np.cov((x @ P).T, bias=True)
        original = np.cov(x.T, bias=True)
        if eps == 1e-9:
            assert_allclose(cov, np.eye(4), atol=1e-6)
        if eps == 1e6:
            assert_allclose(cov / cov.trace(), original / original.trace(), atol=1e-5)
    v = original.trace() / 4
    assert_allclose(h.whitening(x, 0.5)[1] @ h.whitening(x, 0.5)[1], original + 0.5 * v * np.eye(4))
    with pytest.raises(ValueError, match="eps > 0, got 0"):
        h.whitening(x, 0)


def test_transpose_decodes_decorrelated_features_of_white_inputs():
    """W W' = c I makes W' the pseudo-inverse up to one gain: both read-outs are one."""
    x = normal(400, 6)
    white = (x - x.mean(0)) @ h.whitening(x, 1e-12)[0]
    W = 2.5 * torch.linalg.qr(normal(6, 4))[0].T
    got = h.read_outs(W, h.moments(lambda X: X @ W.T, white))
    assert_allclose(got["gain + offset"][0], got["least squares"][0], atol=1e-6)
    assert_allclose(got["covariance rows"][0], got["least squares"][0], atol=1e-6)


def test_wins():
    E = torch.tensor([[0.0, 1, 2], [3, 1, 2], [0, 5, 5], [0, 0, 1]])  # a tie goes to the first
    assert h.wins(E).tolist() == [0.75, 0.25, 0]


def test_cluster_order_puts_copies_side_by_side():
    group = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    E = normal(400, 3)[:, group] + 0.1 * normal(400, 9)
    order = h.cluster_order(h.similarity(E))
    assert sorted(order) == list(range(9))
    assert [len(set(group[order][i : i + 3].tolist())) for i in (0, 3, 6)] == [1, 1, 1]
    constant = torch.cat([E, torch.zeros(400, 1)], 1)
    assert sorted(h.cluster_order(h.similarity(constant))) == list(range(10))
    assert h.cluster_order(h.similarity(E[:, :1])).tolist() == [0]


def test_plus_minus():
    assert h.plus_minus(h.spread([1.0, 2.0, 3.0])) == "2 ± 1"
    assert h.plus_minus(h.spread([1234.5, 1235.7])) == "1,235 ± 0.85"
    assert h.plus_minus(h.spread([float("nan")])) == "undefined"
    assert h.plus_minus(h.spread([1.0, 2.0, 3.0]), "ci95") == "2 ± 2.5"
    assert h.plus_minus(h.spread([1.0]), "ci95") == "1"


def test_probe_accuracy():
    y = torch.arange(300) % 3
    A = normal(300, 2) + torch.tensor([[0, 0], [9, 0], [0, 9]])[y]
    assert h.probe_accuracy(A[:150], y[:150], A[150:], y[150:]) > 98  # per cent; chance: 33
    assert h.probe_accuracy(A[:150], y[:150], A[150:], (y[150:] + 1) % 3) < 2


def test_probes_side_by_side_are_those_one_by_one(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    x, y = map(torch.tensor, sklearn.datasets.load_iris(return_X_y=True))
    encoders = [lambda x, j=j: x[:, :j].float() for j in (1, 2, 3, 4)] + [lambda x: x.float()] * 5
    before = threadpoolctl.threadpool_info()
    many = h.probe_accuracies(encoders, x[::2], y[::2], x[1::2], y[1::2])
    one_by_one = [h.probe_accuracy(e(x[::2]), y[::2], e(x[1::2]), y[1::2]) for e in encoders]
    assert many == one_by_one and len(set(many)) > 2
    assert threadpoolctl.threadpool_info() == before


# --- Data and output ----------------------------------------------------------------------

TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist(tmp_path):
    data = h.load_dataset("mnist")
    for x, y, counts in ((*data[:2], TRAIN_COUNTS), (*data[2:], TEST_COUNTS)):
        assert x.shape == (sum(counts), 784) and x.dtype == torch.float32
        assert x.min() == 0 and x.max() == 1
        assert y.dtype == torch.int64 and y.bincount().tolist() == counts
    with pytest.raises(ValueError, match=r"'cifar'; one of \['mnist'\]"):
        h.load_dataset("cifar")
    path = tmp_path / "mnist.npz"
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(path))}.*git checkout"):
        h.load_mnist(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*e3b0c44298fc.*git checkout"):
        h.load_mnist(path)


def test_output_folder(tmp_path):
    folder = h.output_folder(tmp_path / "new" / "folder")
    (folder / ".kept").touch()
    assert h.output_folder(folder) == tmp_path / "new" / "folder"
    assert [p.name for p in folder.iterdir()] == [".kept"]
    for path in (folder / ".kept", folder / ".kept" / "below"):  # a file, not a folder
        with pytest.raises(OSError, match=f"OUTPUT {re.escape(str(path))} cannot be written"):
            h.output_folder(path)


def test_same_figure_same_bits(tmp_path, monkeypatch):
    written = []
    for today in ("0", "99999999"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", today)
        fig, ax = plt.subplots()
        ax.plot([1, 3, 2])
        h.save_figure(fig, "a", tmp_path)
        assert not plt.fignum_exists(fig.number)
        written.append({p.name: p.read_bytes() for p in tmp_path.iterdir()})
    assert written[0] == written[1] and set(written[0]) == {"a.png", "a.pdf"}


def test_results(tmp_path, monkeypatch):
    save = dict(parameters={"K": 4}, claims=[], folder=tmp_path, more=1)
    table = [{"a": np.float32(0.5), "b": float("nan"), "c": torch.tensor([1.0, torch.nan])}]
    h.save_results("r", table=table, **save)
    old = (tmp_path / "r.json").read_text()
    content = json.loads(old)
    assert content.pop("environment")["numpy"] == np.__version__
    plain = [{"a": 0.5, "b": None, "c": [1, None]}]
    assert content == {"parameters": {"K": 4}, "claims": [], "table": plain, "more": 1}
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        h.save_results("r", table=[], **save)
    assert (tmp_path / "r.json").read_text() == old


def test_judge():
    claims = {"a": ("fast", "below 3", lambda s: s < 3), "b": ("good", "all", all)}
    verdicts = h.judge(claims, {"b": [True, False], "a": np.float64(2)})
    assert [v["holds"] for v in verdicts] == [True, False]
    assert verdicts[0] == {"claim": "fast", "criterion": "below 3", "measured": 2, "holds": True}
    for measured, odd in (({"a": 1}, "b"), ({"a": 1, "b": [], "c": 1}, "c")):
        with pytest.raises(ValueError, match=f"differ: {{'{odd}'}}"):
            h.judge(claims, measured)
