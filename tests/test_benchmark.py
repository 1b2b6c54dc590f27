"""lab/benchmark.py against scikit-learn, NumPy, a plain loop, theory, and by hand."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import LinearRegression

import helpers as h
from lab import benchmark
from lab.training import train

D, K, NAN = 6, 5, np.nan
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)) + 0.3
MEAN = torch.linspace(-1, 1, D)
METHODS = benchmark.methods(K, 0.7, MEAN, 0.01)
LOSSES = {  # the loss at setting s, of a model that reads x
    "published form": lambda m, x, s: h.published_loss(m, x + MEAN, s),
    "published + prior": lambda m, x, s: h.published_loss(m, x, s, 0.7),
    "log det": lambda m, x, s: h.bounded_loss(m, x + MEAN, s, 0, 0.01),
    "bounded": lambda m, x, s: h.bounded_loss(m, x, s, 0.7, 0.01),
    "bounded, L1": lambda m, x, s: h.bounded_loss(m, x, s, 0.7, 0.01, lambda E: E.sum() / K),
    "L1 SAE": lambda m, x, s: h.sae_loss(m, x, s),
    "tied SAE": lambda m, x, s: h.sae_loss(m, x, s),
    "TopK SAE": lambda m, x, s: h.sae_loss(m, x),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_method_is_trained_by_its_loss(name):
    """With the schedules of the rate and the penalty, and the mean folded into b afterwards."""
    method, loss = METHODS[name], LOSSES[name]
    jobs = benchmark.stacks(
        name, method, X, K, [0, 1], settings=[2, 3], lr=0.01, epochs=4, batch_size=16
    )
    trained = benchmark.train_all(jobs)
    assert list(METHODS) == list(LOSSES) and {k[0] for k in trained} == {name} and len(trained) == 4
    for (_, setting, seed), model in trained.items():
        one = method.model(D, K, seed, setting)
        plan = {
            "lr": [1, 1, 1, 0.1],
            "s": [0, 0.5, 1, 1] if method.warm_up and method.argument else [1] * 4,
        }
        options = {"arguments": {"s": setting}, "schedule": plan, "unit_norm": method.unit_norm}
        options |= {"lr": 0.01, "epochs": 4, "batch_size": 16, "seed": seed, "title": None}
        if method.mean is None:
            train([one], loss, X, **options)
        else:
            train([one], lambda m, x, s: loss(m, x - MEAN, s), X + MEAN, **options)
            one.b.data += one.W.data @ MEAN
        torch.testing.assert_close([*model.parameters()], [*one.parameters()], rtol=1e-4, atol=1e-5)


def test_tune_judges_on_the_last_sixth_and_passes_over_what_diverges():
    """b learns a move by 1 from the first half of x, and the last sixth says how far is best."""
    x, best, rates = torch.full((96, D), NAN), [], [1e-3, 0.1, 1e-2, 1e30]
    loss = lambda m, x, lam: 1 + lam * (m.b - x).square().sum() + m.b.exp().sum() * 1e-30  # noqa: E731
    method = METHODS["bounded"]._replace(
        model=lambda D, K, seed, s: h.Encoder(D, D, seed=seed), loss=loss
    )
    for move in (0.1, 1.0):  # 0.01 a step comes closest to 0.1
        x[:48], x[-16:] = h.Encoder(D, D).b.detach() + torch.tensor([[[1.0]], [[move]]])
        found, tried = benchmark.tune({"a": method}, x, K, rates, epochs=4, batch_size=16)
        best.append(found["a"])
        assert np.isnan(tried["a"][1e30])
    assert best == [1e-2, 0.1]


@pytest.mark.parametrize("tied, size", [(None, 35), (False, 71), (True, 41)])
def test_evaluate(tied, size):
    model = h.Encoder(D, K) if tied is None else h.SparseAutoencoder(D, K, tied)
    model.double().b.data[1] = -100  # dead
    x, x_test = X[:120].double(), 1.5 * X[120:].double()
    a, a_test = (model.encode(t).detach().numpy() for t in (x, x_test))
    x, y = x.numpy(), x_test.numpy()
    u = (a - a.mean(0)) @ (V := model.decoder.detach().numpy())
    gain = (u * (x - x.mean(0))).sum() / (u * u).sum()
    guesses = {"transpose": x.mean(0) + gain * (a_test - a.mean(0)) @ V}
    guesses["solved"] = LinearRegression().fit(a, x).predict(a_test)
    if tied is not None:
        model.c.data += 0.2
        guesses["own"] = a_test @ V + 0.2
    expected = {
        k: 1 - ((y - g) ** 2).sum() / ((y - y.mean(0)) ** 2).sum() for k, g in guesses.items()
    }
    expected |= {"l0": (a_test > 0).sum(1).mean(), "dead": 1, "parameters": size}
    expected |= {
        "own": expected.get("own", NAN),
        "share": expected["transpose"] / expected["solved"],
    }
    got = benchmark.evaluate(model, torch.tensor(x), x_test)
    assert got == pytest.approx(expected, rel=1e-9, nan_ok=True)
    model.W.data[0, 0] = NAN  # diverged
    got = benchmark.evaluate(model, torch.tensor(x), x_test)
    assert got["parameters"] == size and all(
        np.isnan(v) for k, v in got.items() if k != "parameters"
    )


def test_comparison_at_equal_l0():
    l0s = np.array([20.0, 5, 9, 0, 7])  # in any order; the last two do not count
    line, law = (
        np.append(v, [9, NAN]) for v in (2 + 3 * np.log(l0s[:3]), 1 - 0.9 * l0s[:3] ** -0.7)
    )
    assert benchmark.interpolate(l0s, line, 7) == pytest.approx(2 + 3 * np.log(7))
    assert benchmark.interpolate(l0s, law, 12, True) == pytest.approx(1 - 0.9 * 12**-0.7)
    assert np.isnan([benchmark.interpolate(l0s, law, at, True) for at in (1, 4.9, 20.1)]).all()
    rows = [("ours", s, n, 1 - f / n, 90 + s) for s, f in enumerate((1.2, 1.4, 1)) for n in (9, 3)]
    rows += [
        ("L1 SAE", s, n, 1 - 0.8 / n, 90 - 3 * s) for s in range(3) for n in (2, 12 - 8 * (s == 2))
    ]
    table = pd.DataFrame(rows, columns=["method", "seed", "l0", "solved", "probe"])
    table["setting"] = table.l0
    explained = [(1 - f / 6) / (1 - 0.8 / 6) for f in (1.2, 1.4)]
    for column, values, ratio in (("solved", explained, True), ("probe", [0, 4], False)):
        got = benchmark.compare(table, column, [6, 20], ratio=ratio)
        t = scipy.stats.t.interval(0.95, 1, np.mean(values), scipy.stats.sem(values))
        expected = [["ours", 6, np.mean(values), *t], ["ours", 20, NAN, NAN, NAN]]
        pd.testing.assert_frame_equal(got, pd.DataFrame(expected, columns=got.columns))
    assert_allclose(benchmark.l0_at(table, "ours", "solved", 1 - 0.2), [6, 7, 5])
    assert benchmark.bracket(table, "L1 SAE", 5) == [4, 12] and benchmark.bracket(
        table, "ours", 1
    ) == [3]


# --- What notebook 3 derives ----------------------------------------------------------------


def linear(d, k, steps, x, lam=1.0, lr=0.002, seed=0, W=None):
    """Linear energies under plain SGD on the log-determinant alone, without a prior."""
    model = h.Encoder(d, k, signed=True, seed=seed).double()
    model.W.data = model.W.data if W is None else W.clone()
    loss = partial(h.bounded_loss, lam=lam, kappa=0, noise=0, sparsity=lambda E: 0 * E.sum())
    start = model.W.detach().clone()
    h.fit(model, loss, x, epochs=steps, batch_size=128, lr=lr, optimizer=torch.optim.SGD)
    return start, model


def test_the_identity_of_the_volume_term():
    """log det C_s: Cov(x), less what a decoder leaves of it, plus what x does not predict."""
    x = torch.randn(500, 7, generator=torch.Generator().manual_seed(1)).double()
    x = (x @ torch.randn(7, 7, generator=torch.Generator().manual_seed(2)).double()).numpy()
    E = h.Encoder(7, 9).double().encode(x).detach().numpy()
    s, C = 0.01, np.cov(np.hstack([x, E]).T)
    Cx, Cxe, Ce = C[:7, :7], C[:7, 7:], C[7:, 7:] + 0.01 * np.eye(9)
    V = np.linalg.solve(Ce, Cxe.T)  # the decoder for channels with noise of variance s
    noisy = np.cov((x - E @ V).T) + s * V.T @ V  # what it leaves, with the noise
    predicted = E - (x - x.mean(0)) @ np.linalg.solve(Cx, Cxe)
    rest = np.cov(predicted.T) + s * np.eye(9)
    total, *parts = (np.linalg.slogdet(M)[1] for M in (Ce, Cx, noisy, rest))
    assert_allclose(total, parts[0] - parts[1] + parts[2], rtol=1e-10)
    got = h.log_det_loss(torch.tensor(E), s).item()
    assert_allclose(-got, total, rtol=1e-10)


def test_without_a_prior_sgd_makes_the_transpose_a_decoder():
    """W W' = W0 W0' + 4 lam tau I; V turns to W for K < D where an eigenvalue stands apart."""
    x = torch.randn(128, 4, generator=torch.Generator().manual_seed(0)).double()
    start, model = linear(4, 4, 500, x, lam=0.5)
    W, tau = model.W.detach(), 0.002 * 500
    assert_allclose(W @ W.T, start @ start.T + 2 * tau * torch.eye(4), rtol=0.01, atol=0.02)
    x = x - x.mean(0)
    U = (
        torch.linalg.qr(x)[0] * (128 - 1) ** 0.5 * torch.tensor([2.0, 2, 1, 1])
    )  # variances 4, 4, 1, 1
    _, model = linear(4, 2, 3000, U, lr=0.02)
    V, _ = h.fit_decoder(model, U)
    cosine = torch.nn.functional.cosine_similarity(V.flatten(), model.W.detach().flatten(), dim=0)
    assert cosine > 0.99


@pytest.mark.parametrize("optimizer, same", [(torch.optim.SGD, True), (torch.optim.Adam, False)])
def test_sgd_does_not_know_the_basis_and_adam_does(optimizer, same):
    """Rotate the inputs and W: SGD's path is the rotated path, Adam's is not."""
    Q, x = (
        torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(3)).double())[0],
        X.double(),
    )
    one, other = (h.Encoder(D, K).double() for _ in range(2))
    other.W.data = other.W.data @ Q
    for model, inputs in ((one, x), (other, x @ Q)):
        h.fit(
            model, h.published_loss, inputs, epochs=5, batch_size=50, lr=0.01, optimizer=optimizer
        )
    assert torch.allclose(one.W @ Q, other.W, atol=1e-8) == same
