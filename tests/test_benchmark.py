"""lab/benchmark.py against scikit-learn, SciPy, pandas, NumPy, and by hand."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.datasets
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import LinearRegression, LogisticRegression

import helpers as h
from lab import benchmark

torch.set_num_threads(1)
D, K, NAN, OPTIONS = 6, 5, np.nan, {"epochs": 4, "batch_size": 16}
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)) + 0.3
MEAN = torch.linspace(-1, 1, D)
CONTESTANTS = {  # the loss of knob k, and of an SAE whether it is tied
    "published form": (lambda m, x, k: h.published_loss(m, x + MEAN, 1, k, k), None),
    "published + prior": (lambda m, x, k: h.published_loss(m, x + MEAN, 1, k, k, 0.7), None),
    "log det": (lambda m, x, k: h.bounded_loss(m, x + MEAN, k, 0, 0.01), None),
    "bounded": (lambda m, x, k: h.bounded_loss(m, x, k, 0.7, 0.01), None),
    "L1/K": (lambda m, x, k: h.bounded_loss(m, x, k, 0.7, 0.01, lambda E: E.sum() / K), None),
    "L1 SAE": (lambda m, x, k: h.sae_loss(m, x, k), False),
    "tied SAE": (lambda m, x, k: h.sae_loss(m, x, k), True),
    "tied, LSE": (lambda m, x, k: h.sae_loss(m, x, k, h.lse_loss), True),
    "TopK SAE": (lambda m, x, k: h.sae_loss(m, x), False),
}


@pytest.mark.parametrize("name", CONTESTANTS)
def test_fit_trains_a_contestant_as_its_loss_alone(name):
    (loss, tied), contestants = CONTESTANTS[name], benchmark.contestants(D, K, 0.7, 0.01, MEAN)
    trained = benchmark.fit(contestants[name], [2, 3], [0, 1], X, rate=0.01, **OPTIONS)
    assert list(contestants) == list(CONTESTANTS) and len({t[:2] for t in trained}) == 4
    for knob, seed, model in trained:
        top, norm = knob if name == "TopK SAE" else None, "V" if tied is False else None
        kind, args = (h.Encoder, [0]) if tied is None else (h.SparseAutoencoder, [tied, top])
        plan = {"lr": [1, 1, 1, 0.1], "k": [1] * 4 if tied is None or top else [0, 0.5, 1, 1]}
        own = {"weights": {"k": knob}, "seed": seed, "schedule": plan, "unit_norm": norm}
        h.train([one := kind(D, K, *args, seed)], loss, X, lr=0.01, progress=None, **own, **OPTIONS)
        if published := name in (
            "published form",
            "published + prior",
            "log det",
        ):  # its codes are those of x + MEAN
            one.b.data += one.W.data @ MEAN
        assert contestants[name].rate == (1e-3 if published else None)
        torch.testing.assert_close([*model.parameters()], [*one.parameters()], rtol=1e-4, atol=1e-5)


def test_tune_judges_on_the_last_sixth():
    """b learns a move by 1 from the first half of x, and the last sixth says how far is best."""
    x, best, rates = torch.full((96, D), NAN), [], [1e-3, 0.1, 1e-2]  # no rows between are used
    loss = lambda m, x, weight: 1 + weight * (m.b - x).square().sum()  # noqa: E731
    contestant = benchmark.Contestant(lambda seed, _: h.Encoder(D, D, seed=seed), loss)
    for move, weight in ((0.1, 1), (1, 1)):  # 0.01 a step comes closest to 0.1
        x[:48], x[-16:] = h.Encoder(D, D).b.detach() + torch.tensor([[[1]], [[move]]])
        best.append(benchmark.tune(contestant, weight, x, rates, seed=0, **OPTIONS))
    assert best == [1e-2, 0.1]


@pytest.mark.parametrize("tied, size", [(None, 35), (False, 71), (True, 41)])
def test_evaluate(tied, size):
    model = h.Encoder(D, K) if tied is None else h.SparseAutoencoder(D, K, tied)
    model.double().b.data[1] = -100  # dead
    x, x_test = X[:120].double().numpy(), 1.5 * X[120:].double().numpy()
    a, a_test = (model.encode(t).detach().numpy() for t in (x, x_test))
    u = (a - a.mean(0)) @ (V := model.decoder.detach().numpy())
    gain = (u * (x - x.mean(0))).sum() / (u * u).sum()
    guesses = {"fvu": x.mean(0) + gain * (a_test - a.mean(0)) @ V}
    guesses["fvu least squares"] = LinearRegression().fit(a, x).predict(a_test)
    if tied is not None:
        model.c.data += 0.2
        guesses["fvu own"] = a_test @ V + 0.2
    expected = {k: ((x_test - g) ** 2).mean() / x_test.var(0).mean() for k, g in guesses.items()}
    expected |= {"l0": (a_test > 0).sum(1).mean(), "dead": 1, "size": size}
    got = benchmark.evaluate(model, torch.tensor(x), torch.tensor(x_test))
    assert got == pytest.approx(expected, rel=1e-9)


def test_agreement_and_pairs():
    models = {("a", 1, s): h.SparseAutoencoder(D, K, seed=s) for s in range(3)}
    models |= {("a", 2, 0): h.SparseAutoencoder(D, K), ("b", 1, 0): h.Encoder(D, K)}
    one, other, third, *_ = models.values()
    one.V.data[:, 0], other.b.data[2] = 1, -100  # constant: correlations of 0
    (a, v), (b, w) = ((m.encode(X).T.detach().numpy(), m.V.detach().numpy()) for m in (one, other))
    correlations = pd.DataFrame(np.vstack([a, b]).T).corr().fillna(0).to_numpy()[:K, K:]
    cosines = v @ w.T / np.outer(np.linalg.norm(v, axis=1), np.linalg.norm(w, axis=1))
    orders = [list(p) for p in permutations(range(K))]
    expected = [max(s[range(K), p].mean() for p in orders) for s in (correlations, cosines)]
    table = benchmark.pairs(models, X)
    compared = {("a", 1, "0, 1"), ("a", 1, "0, 2"), ("a", 1, "1, 2")}
    assert set(zip(table.method, table.knob, table.seed)) == compared
    l0 = ((a > 0).sum() * (b > 0).sum()) ** 0.5 / 200
    assert_allclose(table.iloc[0, 3:].astype(float), [l0, *expected], rtol=1e-5)
    for p, q in zip(third.parameters(), one.parameters()):
        p.data = q.data[[3, 1, 4, 0, 2]] if len(q) == K else q.data
    assert_allclose(benchmark.agreement(one, third, X), (1, 1), rtol=1e-6)


def test_purity_and_templates():
    A, y = torch.relu(X), (torch.arange(200) % 7).clamp_max(3)
    A[:, 2] = 0  # dead: does not count
    means = pd.DataFrame(A.double()).groupby(y.numpy()).mean().drop(columns=2)
    assert benchmark.purity(A, y) == pytest.approx((means.max() / means.sum()).mean())
    model = benchmark.templates(10 * X[:K], X, l0=1.3)
    assert h.l0(model.encode(X)) == pytest.approx(1.3, abs=0.011) and len(model.b.unique()) == 1
    assert_allclose(model.W.detach(), X[:K] / X[:K].norm(dim=1, keepdim=True), rtol=1e-6)


def test_probes_side_by_side_are_those_one_by_one():
    x, y = map(torch.tensor, sklearn.datasets.load_iris(return_X_y=True))
    z = (x - x[::2].mean(0)) / x[::2].std(0, correction=0)
    encoders = [lambda x, n=n: x[:, :n] for n in range(1, 5)]
    got = benchmark.probe_accuracies(encoders, x[::2], y[::2], x[1::2], y[1::2])
    alone = [LogisticRegression(max_iter=1000).fit(z[::2, :n], y[::2]) for n in range(1, 5)]
    expected = [100 * p.score(z[1::2, :n], y[1::2]) for n, p in enumerate(alone, 1)]
    assert got == pytest.approx(expected) and len(set(expected)) > 2


def test_comparison_at_equal_l0():
    l0s = np.array([20.0, 5, 9, 0, 7])  # in any order; the last two do not count
    line, law = (np.append(v, [9, NAN]) for v in (2 + 3 * np.log(l0s[:3]), 3 * l0s[:3] ** -0.7))
    assert benchmark.interpolate(l0s, line, 7) == pytest.approx(2 + 3 * np.log(7))
    assert benchmark.interpolate(l0s, law, 12, log=True) == pytest.approx(3 * 12**-0.7)
    assert np.isnan([benchmark.interpolate(l0s, law, at) for at in (1, 4.9, 20.1)]).all()
    rows = [("ours", s, n, f / n, 90 + s) for s, f in enumerate((1.2, 1.4, 1)) for n in (9, 3)]
    rows += [("SAE", s, n, 0.8 / n, 90 - 3 * s) for s in range(3) for n in (2, 12 - 8 * (s == 2))]
    table = pd.DataFrame(rows, columns=["method", "seed", "l0", "fvu", "probe"])  # FVU f / L0
    explained = [(1 - f / 6) / (1 - 0.8 / 6) for f in (1.2, 1.4)]
    for column, values in (("fvu", explained), ("probe", [0, 4])):
        got = benchmark.compare(table, column, [6, 20], to="SAE")
        t = scipy.stats.t.interval(0.95, 1, np.mean(values), scipy.stats.sem(values))
        expected = [["ours", 6, np.mean(values), *t], ["ours", 20, NAN, NAN, NAN]]
        pd.testing.assert_frame_equal(got, pd.DataFrame(expected, columns=got.columns))
