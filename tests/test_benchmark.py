"""lab/benchmark.py against SciPy, a plain loop, and theory; what notebook 3 derives."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from numpy.testing import assert_allclose
from test_helpers import SGD, normal

import helpers as h
from lab import methods, runs, tables
from lab.training import train

D, K, NAN = 6, 5, np.nan
X, MEAN = normal(200, D, dtype=torch.float32) + 0.3, torch.linspace(-1, 1, D)
METHODS = methods.methods(K, 0.7, MEAN, 0.01)
BOUNDED = partial(h.bounded_loss, kappa=0.7, noise=0.01)
LOSSES = dict.fromkeys(("published form", "published form, SGD"), h.published_loss)
LOSSES |= {"published + prior": partial(h.published_loss, kappa=0.7), "bounded": BOUNDED}
LOSSES |= {"bounded, L1": partial(BOUNDED, sparsity=lambda E: E.sum() / K)}
LOSSES |= dict.fromkeys(("L1 SAE", "tied SAE", "TopK SAE"), h.sae_loss)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_trained_by_its_loss(name):
    """With the schedules of the rate and the penalty, and the mean folded into b afterwards."""
    method, options = METHODS[name], {"lr": 0.01, "epochs": 4, "batch_size": 16}
    jobs = runs.stacks(name, method, X, K, [0, 1], settings=[2, 3], **options)
    trained, mean = runs.train_all(jobs), MEAN * name.startswith("published form")
    options |= {"schedule": {"lr": [0.05 if "SGD" in name else 1, 1, 1, 0.1]}, "title": None}
    if name in ("L1 SAE", "tied SAE"):
        options["schedule"]["penalty"] = [0, 0.5, 1, 1]
    options |= {"unit_norm": method.unit_norm, "optimizer": method.optimizer}
    assert {k[0] for k in trained} == {name} and len(trained) == 4
    for (_, setting, seed), model in trained.items():
        one, arguments = method.model(D, K, seed, setting), {method.argument: setting}
        options["arguments"] = arguments if method.argument else {}
        train([one], LOSSES[name], X + mean, seed=seed, **options)
        one.b.data += one.W.data @ mean
        torch.testing.assert_close([*model.parameters()], [*one.parameters()], rtol=1e-4, atol=1e-5)


def test_a_variant_is_trained_by_its_objective():
    trained = runs.train_all(runs.variants(X, K, 0.7, MEAN, [1], 1))
    for (name, lam, _), model in trained.items():
        form, how, inputs = name.split(" | ")
        loss = h.published_loss if form.startswith("pub") else h.bounded_loss
        loss = partial(loss, kappa=0.7 * (form in ("published + prior", "bounded")))
        method = METHODS["published form" if how == "Adam" else "published form, SGD"]
        method = method._replace(loss=loss, mean=MEAN if inputs == "raw" else None)
        (job,) = runs.stacks(name, method, X, K, [1], settings=[lam], epochs=1)
        torch.testing.assert_close(model.W, job()[name, lam, 1].W)
    assert len(trained) == 28 and not {key[0] for key in trained} & {*methods.TRAINED.values()}


def test_tune_judges_on_the_last_sixth_passes_over_what_diverges_and_widens_at_an_edge():
    """b learns a move by 1 from the first half of x, and the last sixth says how far is best."""
    x, best, rates = torch.full((96, D), NAN), [], [1e-3, 0.1, 1e-2, 1e30]
    loss = lambda m, x, lam: 1 + lam * (m.b - x).square().sum() + m.b.exp().sum() * 1e-30  # noqa: E731
    model = lambda D, K, seed, s: h.Encoder(D, D, seed=seed)  # noqa: E731
    for move, some in ((0.1, rates), (1.0, rates), (0.1, [1e-3, 2e-3])):  # 0.01: about 0.1
        x[:48], x[-16:] = h.Encoder(D, D).b.detach() + torch.tensor([[[1.0]], [[move]]])
        chosen = {"a": METHODS["bounded"]._replace(model=model, loss=loss)}
        found, tried = runs.tune(chosen, x, K, some, epochs=4, batch_size=16)
        best.append(found["a"])
        assert 1e30 not in some or np.isnan(tried["a"][1e30])
    assert best == [1e-2, 0.1, 8e-3] and set(tried["a"]) > {1e-3, 4e-3, 1.6e-2, 3.2e-2}


def test_comparison_at_equal_l0():
    l0s = np.array([20.0, 5, 9, 0, 7])  # in any order; the last two do not count
    law = partial(tables.interpolate, l0s, [*(1 - 0.9 * l0s[:3] ** -0.7), 9, NAN])
    assert law(12, True) == pytest.approx(1 - 0.9 * 12**-0.7)
    assert np.isnan([law(at, True) for at in (1, 4.9, 20.1)]).all()
    rows = [("ours", s, n, 1 - f / n, 90 + s) for s, f in enumerate((1.2, 1.4, 1)) for n in (9, 3)]
    other = [(s, n) for s in range(3) for n in (2, 12 - 8 * (s == 2))]
    rows += [("L1 SAE", s, n, 1 - 0.8 / n, 90 - 3 * s) for s, n in other]
    table = pd.DataFrame(rows, columns=["method", "seed", "l0", "solved", "probe"])
    explained = [(1 - f / 6) / (1 - 0.8 / 6) for f in (1.2, 1.4)]
    for column, values, ratio in (("solved", explained, True), ("probe", [0, 4], False)):
        got = tables.compare(table, column, [6, 20], ratio=ratio)
        t = scipy.stats.t.interval(0.95, 1, np.mean(values), scipy.stats.sem(values))
        expected = [["ours", 6, np.mean(values), *t], ["ours", 20, NAN, NAN, NAN]]
        pd.testing.assert_frame_equal(got, pd.DataFrame(expected, columns=got.columns))
    assert_allclose(tables.l0_at(table, "ours", "solved", 1 - 0.2), [6, 7, 5])


def test_layers_of_several_sizes_are_each_tuned_and_trained_by_themselves():
    """Of 70 units on batches of 140 rows, of 4 on 128; k-means templates beside them."""
    x, pair = normal(900, D, dtype=torch.float32), (0.1, 1.0)
    settings, steps = {4: {"bounded": pair}, 70: {"L1 SAE": pair}}, {"bounded": 20, "L1 SAE": 40}
    table, best = runs.overcomplete(x, x, settings, [0.004, 0.008], 3, [0, 1], steps)
    found = dict(list(table.groupby(["method", "units"])))
    for units, method, size, epochs in ((4, "bounded", 128, 4), (70, "L1 SAE", 140, 7)):
        own = methods.methods(units, h.prior(x, units))[method]
        options = {"settings": pair, "epochs": epochs, "batch_size": size}
        rate = {"lr": best[f"{method}, {units} units"]}
        jobs = runs.stacks(method, own, x, units, [0, 1], **rate, **options)
        expected = tables.tabulate(runs.train_all(jobs), x, x)
        rows = found.pop((method, units)).drop(columns="units").reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, expected)
    assert set(found) == {("k-means templates", units) for units in settings}


def test_the_identity_of_the_volume_term():
    """log det C_s: Cov(x), less what a decoder leaves of it, plus what x does not predict."""
    x, s = (normal(500, 7, seed=1) @ normal(7, 7, seed=2)).numpy(), 0.01
    E = h.Encoder(7, 9).double().encode(torch.tensor(x)).detach().numpy()
    C = np.cov(np.hstack([x, E]).T)
    Cx, Cxe, Ce = C[:7, :7], C[:7, 7:], C[7:, 7:] + s * np.eye(9)
    V = np.linalg.solve(Ce, Cxe.T)  # the decoder for channels with noise of variance s
    noisy = np.cov((x - E @ V).T) + s * V.T @ V  # what it leaves, with the noise
    rest = np.cov((E - (x - x.mean(0)) @ np.linalg.solve(Cx, Cxe)).T) + s * np.eye(9)
    total, *parts = (np.linalg.slogdet(M)[1] for M in (Ce, Cx, noisy, rest))
    assert_allclose(total, parts[0] - parts[1] + parts[2], rtol=1e-10)
    assert_allclose(-h.log_det_loss(torch.tensor(E), s).item(), total, rtol=1e-10)


def test_without_a_prior_sgd_makes_the_transpose_a_decoder():
    """W W' = W0 W0' + 4 lam tau I; V turns to W for K < D where an eigenvalue stands apart."""

    def descend(k, steps, x, lam, lr):
        model = h.Encoder(4, k, signed=True).double()
        loss = partial(h.bounded_loss, lam=lam, kappa=0, noise=0, sparsity=lambda E: 0 * E.sum())
        start = model.W.detach().clone()
        h.fit(model, loss, x, epochs=steps, batch_size=128, lr=lr, optimizer=SGD)
        return start, model.W.detach(), model

    x = normal(128, 4)
    start, W, _ = descend(4, 500, x, 0.5, 0.002)
    assert_allclose(W @ W.T, start @ start.T + 2 * torch.eye(4), rtol=0.01, atol=0.02)
    x = torch.linalg.qr(x - x.mean(0))[0] * (128 - 1) ** 0.5 * torch.tensor([2.0, 2, 1, 1])
    _, W, model = descend(2, 3000, x, 1, 0.02)  # of variances 4, 4, 1, 1
    V, _ = h.fit_decoder(model, x)
    assert torch.nn.functional.cosine_similarity(V.flatten(), W.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("optimizer, same", [(SGD, True), (torch.optim.Adam, False)])
def test_sgd_does_not_know_the_basis_and_adam_does(optimizer, same):
    """Rotate the inputs and W: SGD's path is the rotated path, Adam's is not."""
    Q, x, plan = torch.linalg.qr(normal(D, D, seed=3))[0], X.double(), {"optimizer": optimizer}
    one, other = (h.Encoder(D, K).double() for _ in range(2))
    other.W.data = other.W.data @ Q
    for model, inputs in ((one, x), (other, x @ Q)):
        h.fit(model, h.published_loss, inputs, epochs=5, batch_size=50, lr=0.01, **plan)
    assert torch.allclose(one.W @ Q, other.W, atol=1e-8) == same
