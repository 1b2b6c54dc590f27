"""helpers.py against independent oracles: NumPy, SciPy, scikit-learn, autograd, a plain loop."""

import copy
import itertools
import os
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.datasets
import threadpoolctl
import torch
from hypothesis import given, settings
from numpy.testing import assert_allclose
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LogisticRegression

import helpers as h

torch.set_num_threads(1)  # the tensors are small: on a busy machine threads wait for each other
CLOSE = {torch.float64: dict(rtol=1e-9, atol=1e-9), torch.float32: dict(rtol=2e-3, atol=2e-3)}
VOLUME = [h.variance_loss, h.decorrelation_loss, h.log_det_loss, h.implicit_em_loss]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def encoder(seed=0, activation="softplus"):
    return h.Encoder(6, 4, activation, seed).double()


def with_gradient(loss, E):
    value = loss(E.requires_grad_())
    return value.detach(), torch.autograd.grad(value, E)[0]


@settings(derandomize=True, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 99), st.sampled_from(list(CLOSE)),
       st.sampled_from([1e-3, 1, 1e4]), st.sampled_from([0, 3]))  # fmt: skip
def test_losses_equal_numpy(B, K, seed, dtype, scale, shift):  # K <= B and K > B
    E, noise = (scale * (normal(B, K, seed=seed) + shift)).to(dtype), 0.05 * scale**2
    e = E.double().numpy()
    r, cov, corr = softmax(-e, axis=1), np.cov(e.T), np.corrcoef(e.T)
    lse, variance = -logsumexp(-e, axis=1).sum(), -np.log(cov.diagonal() + 1e-6).sum()
    dec, log_det = ((corr - np.eye(K)) ** 2).sum(), np.linalg.slogdet(cov + noise * np.eye(K))[1]
    for got, expected in (
        (h.correlation(E), corr),
        (h.responsibilities(E), r),
        (h.variance_loss(E), variance),
        (h.decorrelation_loss(E), dec),
        (h.log_det_loss(E, noise), -log_det),
        (h.implicit_em_loss(E), lse + variance + dec),
        (h.implicit_em_loss(E, 2, 0.5, 3), 2 * lse + 0.5 * variance + 3 * dec),
        *zip(with_gradient(h.lse_loss, E), (lse, r)),
    ):
        assert_allclose(got, expected, **CLOSE[dtype])


def test_gradients():
    for loss in (h.lse_loss, *VOLUME):
        for shape in ((7, 4), (2, 5), (6, 1)):
            assert torch.autograd.gradcheck(loss, normal(*shape).requires_grad_())
    E, x = torch.relu(normal(50, 4)), normal(50, 6, seed=1) + 1
    rows = np.vstack([E - E.mean(0), (0.02 * 49) ** 0.5 * np.eye(4)])  # least squares with a ridge
    expected = np.linalg.lstsq(rows, np.vstack([x - x.mean(0), np.zeros((4, 6))]), rcond=None)[0]
    assert_allclose(h.log_det_decoder(E, x, noise=0.02), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("constant, dtype", [(7.77, torch.float32), (0.1, torch.float64)])
def test_constant_units_count_for_nothing(constant, dtype):
    for rows in (5, 128, 1000):  # the mean of so many 7.77 or 0.1 is not exactly that
        E, dead = normal(rows, 8, dtype=dtype), torch.arange(8) % 3 == 0
        E[:, dead] = constant
        value, gradient = with_gradient(h.decorrelation_loss, E.clone())
        alone = with_gradient(h.decorrelation_loss, E[:, ~dead])
        assert_allclose(value, alone[0], **CLOSE[dtype])
        assert_allclose(gradient[:, ~dead], alone[1], **CLOSE[dtype])
        assert (gradient[:, dead] == 0).all() and (h.correlation(E)[dead] == 0).all()
        for loss in VOLUME:
            for e in (E.clone(), E[:, dead], E[:, [1, 1, 2, 2]]):
                assert all(torch.isfinite(t).all() for t in with_gradient(loss, e))


@pytest.mark.parametrize("rows, size", [(128, 128), (101, 48)])
def test_bounded_loss_and_its_balance(rows, size):
    """The loss from its parts, and its derivative in a common factor of W and b, for 128 rows."""
    model, x, slopes = encoder(1, "relu"), normal(rows, 6) * torch.arange(1, 7), []
    for batch in x[: rows // size * size].split(size):
        factor, scaled = torch.ones((), dtype=x.dtype, requires_grad=True), encoder(1, "relu")
        scaled._parameters = {name: factor * p for name, p in model.named_parameters()}
        loss = h.bounded_loss(scaled, batch, 3, 0.7, 0.01)
        slopes.append(128 / size * float(torch.autograd.grad(loss, factor)[0]))
        e, W = model(batch).detach().numpy(), model.W.detach().numpy()
        volume = -np.linalg.slogdet(np.cov(e.T) + 0.01 * np.eye(4))[1] + 0.7 * (W**2).sum()
        assert_allclose(loss.item(), -logsumexp(-e, axis=1).sum() + 3 * size / 128 * volume)
    got = h.scale_balance(model, x, 3, 0.7, 0.01, size)
    assert_allclose(got["log-sum-exp"] + got["prior"] - got["volume"], np.mean(slopes))
    assert_allclose(got["prior"], 2 * 3 * 0.7 * (W**2).sum())
    assert_allclose(h.prior(x, 4), np.trace(np.cov(x.numpy().T)) / 4)


def test_encoder():
    relu, softplus = (lambda z: np.maximum(z, 0)), (lambda z: np.logaddexp(0, z))
    for name, f in (("relu", relu), ("identity", np.positive), ("softplus", softplus)):
        model, x = encoder(0, name), normal(4, 6)
        W, b = (p.detach().numpy() for p in (model.W, model.b))
        assert 0 < abs(W).max() <= 6**-0.5 and 0 < abs(b).max() <= 6**-0.5
        assert_allclose(model(x).detach(), f(x.numpy() @ W.T + b))
    with pytest.raises(ValueError, match=r"'tanh'; one of \['identity', 'relu', 'softplus'\]"):
        h.Encoder(5, 3, "tanh")


@pytest.mark.parametrize("tied, k", [(False, None), (True, None), (False, 2)])
def test_autoencoder(tied, k):
    model, x = h.SparseAutoencoder(6, 5, tied, k).double(), normal(40, 6)
    W, b, c = model.W.detach().numpy(), model.b.detach().numpy(), np.arange(6)
    model.c.data += torch.arange(6)
    V = W if tied else W / np.linalg.norm(W, axis=1, keepdims=True)  # what the decoder starts as
    a = np.maximum(x.numpy() @ W.T + b, 0)
    if k:
        np.put_along_axis(a, np.argsort(a)[:, :-k], 0, axis=1)  # all but the k largest
        assert {1, 2} <= set((a > 0).sum(1)) <= {0, 1, 2}
    x_hat, code = (t.detach() for t in model(x))
    assert_allclose(code, a)
    assert_allclose(x_hat, a @ V + c, rtol=1e-6, atol=1e-6)
    expected = ((x.numpy() - a @ V - c) ** 2).sum() + 0.3 * a.sum()
    assert_allclose(h.sae_loss(model, x, 0.3).item(), expected, rtol=1e-6)


def test_seeds_and_sizes():
    for model in (h.Encoder, h.SparseAutoencoder):
        one, same, other = (model(5, 3, seed=s) for s in (1, 1, 2))
        assert torch.equal(one.W, same.W) and torch.equal(one.b, same.b)
        assert not torch.equal(one.W, other.W) and not torch.equal(one.b, other.b)
        with pytest.raises(ValueError, match="got 5 and 0"):
            model(5, 0)
        with pytest.raises(ValueError, match="takes 5 inputs per row, got 6"):
            one(torch.ones(2, 6))
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k must be from 1 to 3, got {k}"):
            h.SparseAutoencoder(5, 3, k=k)
    models = h.Encoder(784, 64), h.SparseAutoencoder(784, 64), h.SparseAutoencoder(784, 64, True)
    assert [sum(p.numel() for p in m.parameters()) for m in models] == [50_240, 101_200, 51_024]


X = normal(70, 6)  # 4 minibatches of 16, and 6 rows too many


def em(model, x, lse=1.0, decorrelation=1.0):
    return h.implicit_em_loss(model(x), lse, decorrelation=decorrelation)


def train(models, loss=em, x=X, **options):
    return h.train(models, loss, x, **dict(epochs=3, batch_size=16, progress=None) | options)


def plain(model, loss=em, weights=(), schedule=(), seed=0, lr=1e-3, unit_norm=None):
    """A plain loop with Adam: mean losses (3,), and the model before and after each step."""
    adam, order = torch.optim.Adam(model.parameters(), lr), torch.Generator().manual_seed(seed)
    losses, path = [], [copy.deepcopy(model)]
    for epoch in range(3):
        factors = {name: f[epoch] for name, f in dict(schedule).items()}
        adam.param_groups[0]["lr"] = lr * factors.get("lr", 1)
        now = {name: w * factors.get(name, 1) for name, w in dict(weights).items()}
        for rows in torch.randperm(70, generator=order)[:64].view(4, 16):
            losses.append(loss(model, X[rows], **now))
            adam.zero_grad()
            losses[-1].backward()
            for v, gradient in zip(model.V.data, model.V.grad) if unit_norm else ():
                gradient -= gradient.dot(v) * v
            adam.step()
            for v in model.V.data if unit_norm else ():
                v /= v.norm()
            path.append(copy.deepcopy(model))
    return torch.stack(losses).detach().view(3, 4).mean(1) / 16, path


def assert_same_weights(models, others):
    for model, other in zip(models, others, strict=True):
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert_allclose(p.detach(), q.detach(), rtol=1e-7, atol=1e-9)


EM = {"lse": [1.0, 0.3, 2.0, 1.0], "decorrelation": [0.0, 1.0, 2.0, 5.0]}
SCHEDULE, SAE = {"lr": [1, 0.1, 3], "decorrelation": [0, 1, 0.5]}, {"weight": [0, 1, 2, 3]}
STACKS = [(em, EM, 3, {"schedule": SCHEDULE}), (h.sae_loss, SAE, [1, 0], {"unit_norm": "V"})]


@pytest.mark.parametrize("loss, weights, seeds, options", STACKS)
def test_a_stack_equals_one_by_one_equals_a_plain_loop(loss, weights, seeds, options):
    make = encoder if loss is em else lambda s: h.SparseAutoencoder(6, 4, seed=s).double()
    together, alone, loops = ([make(s) for s in range(4)] for _ in range(3))
    options = options | {"loss": loss, "lr": 0.01}
    losses = train(together, weights=weights, seed=seeds, **options)["loss"]
    for i, seed in enumerate(np.repeat(seeds, 4 // np.size(seeds)).tolist()):
        own = {"weights": {name: w[i] for name, w in weights.items()}, "seed": seed} | options
        train([alone[i]], **own)
        assert_allclose(losses[:, i], plain(loops[i], **own)[0])
    assert_same_weights(together + alone, loops + loops)


def test_same_seed_same_bits():
    one, same, other = (encoder() for _ in range(3))
    for model, seed in ((one, 5), (same, 5), (other, 6)):
        train([model], seed=seed)
    assert torch.equal(one.W, same.W) and not torch.equal(one.W, other.W)


def test_monitor():
    """After each epoch, or before steps 0, 5 and 10 of the 12."""
    losses, paths = zip(*(plain(encoder(s), seed=7) for s in range(2)))
    for every, steps in ((None, [4, 8, 12]), (5, [0, 5, 10])):
        look = {"every": every, "monitor": lambda m: {"b": m.b[0].item(), "W": m.W.detach().sum()}}
        history = train([encoder(0), encoder(1)], seed=7, **look)
        assert_allclose(history["loss"], torch.stack(losses, 1))
        assert_allclose(history["b"], [[path[i].b[0].item() for path in paths] for i in steps])
        assert_allclose(history["W"], [[path[i].W.sum().item() for path in paths] for i in steps])
    assert train([once := encoder(0)], seed=7, epochs=1)["loss"].shape == (1, 1)
    assert_same_weights([once], [paths[0][4]])


HOLES = X.index_put((torch.tensor([9, 9, 30]), torch.tensor([1, 4, 0])), X.new_tensor(torch.inf))
BAD = [  # number of models, options, what is said
    (0, {}, "empty list"), (1, {"seed": []}, "empty list"), (3, {"seed": [0, 1]}, "2 equal groups"),
    (1, {"epochs": 0}, "got 0 and 16"), (1, {"batch_size": 1}, "got 3 and 1"),
    (1, {"schedule": {"lr": [1, 1]}}, "'lr' .* has not 3 factors"),
    (1, {"schedule": {"lambda": [1, 1, 1]}}, "'lambda' is no weight"),
    (1, {"x": X[:15]}, r"\(15, 6\) has no minibatch of 16 rows"),
    (1, {"x": HOLES}, "3 non-finite values in 2 rows.* row 9, column 1"),
    (2, {"weights": {"lse": [1, 2, 3]}}, "2 models take that many weights, got 3"),
]  # fmt: skip


def test_bad_arguments():
    for n, options, message in BAD:
        with pytest.raises(ValueError, match=message):
            train([encoder() for _ in range(n)], **options)
    subclass = type("Other", (h.Encoder,), {})(6, 4, "softplus").double()
    for other in (h.Encoder(6, 5).double(), encoder(0, "identity"), subclass):
        with pytest.raises(ValueError, match="one class, size and activation"):
            train([encoder(), other])


def test_a_non_finite_loss_names_model_and_epoch():
    def log_det(model, x, factor):  # 1e200 makes the covariance infinite
        return h.log_det_loss(model(x) * factor)

    with pytest.raises(FloatingPointError, match="model 1 became nan in epoch 1 of 3"):
        train([encoder(0), encoder(1)], log_det, weights={"factor": [1, 1e200]})
    with pytest.raises(FloatingPointError, match="model 0 became nan in epoch 2 of 3"):
        train([encoder(0)], weights={"lse": 1}, schedule={"lse": [1, np.nan, 1]})


@pytest.mark.parametrize("hook, call, steps", [("monitor", 2, 4), ("loss", 11, 10)])
def test_interrupted_models_keep_what_they_learned(hook, call, steps):
    models, calls = [encoder(0), encoder(1)], itertools.count(1)

    def interrupt(model, *x):
        if next(calls) == call:
            raise KeyboardInterrupt
        return em(model, *x) if x else {}

    with pytest.raises(KeyboardInterrupt):
        train(models, **{hook: interrupt})
    assert_same_weights(models, [plain(encoder(s))[1][steps] for s in range(2)])


def test_threads():
    """A given OMP_NUM_THREADS counts; without one, the processors that joblib may use."""
    run = [sys.executable, "-c", "import helpers, torch; print(torch.get_num_threads())"]
    base = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    for environment, n in (({"OMP_NUM_THREADS": "2"}, "2"), ({}, "1")):
        env = base | {"LOKY_MAX_CPU_COUNT": "1"} | environment
        assert subprocess.check_output(run, cwd=h.ROOT, env=env, text=True).strip() == n


def test_measures():
    E = torch.tensor([[1.0], [-1], [1], [-1]]) * torch.tensor([0, 0.05, 0.009**0.5, 0.2]) + 3
    assert h.dead_units(E) == 3 and h.dead_units(E, threshold=0.005) == 2
    assert h.l0(torch.tensor([[0, 1.0, 2], [0, 0, 1e-9], [-1, 0, 0]])) == 1
    assert h.responsibility_entropy(-1e4 * torch.eye(4)) == 0
    r = softmax(-normal(9, 4).numpy(), axis=1)
    assert_allclose(h.responsibility_entropy(normal(9, 4)), -(r * np.log(r)).sum(1).mean())
    assert_allclose(h.usage(normal(9, 4)), r.mean(0))
    E = normal(20, 5, dtype=torch.float32)
    E[:, 3] = 0.1  # constant: left out of the redundancy
    corr = np.corrcoef(E[:, [0, 1, 2, 4]].double().T)
    assert_allclose(h.redundancy(E), ((corr - np.eye(4)) ** 2).sum())
    assert np.isnan([h.redundancy(E[:, [0, 3]]), h.redundancy(E[:, [3, 3]])]).all()
    l0s = np.array([20.0, 5.0, 9.0])  # in any order
    assert h.at_l0(l0s, 3 * l0s**-0.7, 12) == pytest.approx(3 * 12**-0.7)
    assert h.at_l0(l0s, 2 + 3 * np.log(l0s), 7, log=False) == pytest.approx(2 + 3 * np.log(7))
    assert [h.at_l0(l0s, [3, 1, 2], at) for at in l0s] == pytest.approx([3, 1, 2])
    assert np.isnan(
        [h.at_l0(l0s, [3, 1, 2], at, log) for at in (4.9, 20.1) for log in (0, 1)]
    ).all()


def test_read_outs_against_least_squares():
    """Each by NumPy's lstsq on its own design matrix, and its error by reconstructing."""
    W, x, constant = normal(5, 3), normal(40, 3, seed=2) + 1, torch.tensor([0, 0, 0, 0, 0.1])

    def encode(x):
        return torch.where(constant > 0, constant, torch.relu(x @ W.T))

    xc, ac, w = (t.numpy() for t in (x - x.mean(0), encode(x) - encode(x).mean(0), W))
    gain = np.linalg.lstsq((ac @ w).reshape(-1, 1), xc.flatten(), rcond=None)[0]
    best = np.linalg.lstsq(ac, xc, rcond=1e-9)[0]  # a constant feature gets nothing
    m, expected = h.moments(encode, x, chunk=7), {"gain": gain * w}
    for name, V in (expected | {"least squares": best}).items():
        got, errors = h.read_outs(W, m)[name], ac @ V - xc
        assert_allclose(got[0], V, atol=1e-10)
        assert_allclose(h.read_out_error(*got, m), (errors**2).mean())
        assert_allclose(h.read_out_error(got[0], got[1] + 2, m), ((errors + 2) ** 2).mean())
    silent = h.moments(lambda x: torch.zeros(len(x), 5), x)
    assert (h.read_outs(W, silent)["gain"][0] == 0).all()
    A = encode(x) * (torch.arange(40) != 5)[:, None]  # of no norm: its reconstruction stays 0
    x_hat, rows = (A @ W).numpy(), x.numpy()
    norms = [np.linalg.norm(t, axis=1, keepdims=True) for t in (rows, x_hat)]
    x_hat = np.divide(x_hat * norms[0], norms[1], where=norms[1] > 0, out=np.zeros((40, 3)))
    assert_allclose(h.norm_matched_error(A, W, x), ((x_hat - rows) ** 2).mean())


def test_probes_side_by_side_are_those_one_by_one():
    x, y = map(torch.tensor, sklearn.datasets.load_iris(return_X_y=True))
    z = (x - x[::2].mean(0)) / x[::2].std(0, correction=0)
    encoders, expected = [lambda x, n=n: x[:, :n] for n in range(1, 5)], []
    for encode in encoders:
        alone = LogisticRegression(max_iter=1000).fit(encode(z[::2]), y[::2])
        expected.append(100 * alone.score(encode(z[1::2]), y[1::2]))
    with threadpoolctl.threadpool_limits(2):
        before = threadpoolctl.threadpool_info()
        got = h.probe_accuracies(encoders, x[::2], y[::2], x[1::2], y[1::2])
        assert threadpoolctl.threadpool_info() == before
    assert got == pytest.approx(expected) and len(set(expected)) > 2


def test_mnist(tmp_path):
    train_counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test_counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    data, path = h.load_mnist(), tmp_path / "mnist.npz"
    for x, y, counts in ((*data[:2], train_counts), (*data[2:], test_counts)):
        assert x.shape == (sum(counts), 784) and (x.min(), x.max()) == (0, 1)
        assert x.dtype == torch.float32 and y.bincount().tolist() == counts
    with pytest.raises(FileNotFoundError, match="mnist.npz is missing.*git checkout"):
        h.load_mnist(path=path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="mnist.npz is corrupt.*e3b0c44298fc.*git checkout"):
        h.load_mnist(path=path)
