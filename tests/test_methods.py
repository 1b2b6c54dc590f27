"""lab/methods.py: what each method trains, and models that start or come from elsewhere."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import measures, methods

D, K, KAPPA = 6, 5, 0.7
MEAN = torch.linspace(-1, 1, D).double()
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)).double()
TINY = {"epochs": 4, "batch_size": 40}
SGD, ADAM = torch.optim.SGD, torch.optim.Adam
METHODS = methods.benchmark_methods(KAPPA)
pytestmark = pytest.mark.usefixtures("float64")


def train_all(chosen, seeds, **options):
    return methods.train_methods(chosen, X, MEAN, K, seeds, **TINY | {"title": None} | options)


def paper(model, x, lam, kappa=0.0):
    E = model(x)
    infomax = h.variance_loss(E) + h.decorrelation_loss(E) + kappa * model.W.square().sum()
    return h.lse_loss(E) + lam * len(x) / 128 * infomax


def revised(model, x, lam, kappa=KAPPA, penalty=h.lse_loss):
    E = model(x)
    return penalty(E) + lam * len(x) / 128 * (h.log_det_loss(E) + kappa * model.W.square().sum())


def saturating(E):
    return (1 - torch.exp(-E)).sum() / K


class Expected(NamedTuple):
    loss: Callable
    model: Callable = h.Encoder
    optimizer: Callable = ADAM
    raw: bool = False
    slow_start: bool = False


momentum, SAE = partial(SGD, momentum=0.9), h.SparseAutoencoder
EXPECTED = {
    "the paper's loss": Expected(paper, raw=True),
    "the paper's loss, tuned": Expected(paper, optimizer=momentum, raw=True, slow_start=True),
    "the paper's loss + weight decay": Expected(partial(paper, kappa=KAPPA)),
    "the revised loss": Expected(revised),
    "the revised loss, L1": Expected(partial(revised, penalty=lambda E: E.sum() / K)),
    "the revised loss, saturating": Expected(partial(revised, penalty=saturating)),
    "tied SAE": Expected(h.sae_loss, partial(SAE, tied=True)),
    "L1 SAE": Expected(h.sae_loss, SAE),
    "TopK SAE": Expected(h.sae_loss, SAE),
    "SAE, log-sum-exp": Expected(partial(h.sae_loss, penalty=h.lse_loss), SAE),
    "SAE, saturating": Expected(partial(h.sae_loss, penalty=saturating), SAE),
}


def assert_trained_as(model, loss, raw, one, **options):
    """A model trained by `helpers.fit`, on raw pixels or centred; what learned from raw pixels
    gives for centred ones what the other gives for raw ones."""
    x = X + MEAN if raw else X
    h.fit(one, loss, x, **options)
    assert_allclose(model.W.detach(), one.W.detach(), rtol=1e-5, atol=1e-6)
    assert_allclose(model.encode(X).detach(), one.encode(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_method_trains_what_its_name_says(name):
    loss, make, optimizer, raw, slow_start = EXPECTED[name]
    method, topk = METHODS[name], name == "TopK SAE"
    method = method._replace(settings=(2, 3) if topk else method.settings[:2])  # k of 5 units
    found = train_all({name: method}, [0, 3])
    assert set(found) == set(product([name], method.settings, [0, 3]))
    options = {"optimizer": optimizer, "lr": method.lr} | TINY
    options["schedule"] = [0.05 if slow_start else 1.0, 1.0, 1.0, 0.1]
    for (_, setting, seed), model in found.items():
        one = make(D, K, seed=seed, k=setting) if topk else make(D, K, seed=seed)
        own = loss if topk else partial(loss, **{method.argument: setting})
        assert_trained_as(model, own, raw, one, seed=seed, **options)


def test_the_table_of_ratios_is_of_what_the_names_of_its_cases_say():
    losses = {
        "the paper's loss": paper,
        "the paper's loss + weight decay": partial(paper, kappa=KAPPA),
        "log-sum-exp + log-determinant": partial(revised, kappa=0.0),
        "log-sum-exp + log-determinant + weight decay": revised,
    }
    options = {
        "Adam": {"optimizer": ADAM, "lr": 0.001, "schedule": [1.0, 1.0, 1.0, 0.1]},
        "SGD": {"optimizer": SGD, "lr": 0.01, "schedule": [0.05, 1.0, 1.0, 0.1]},
    }
    found = methods.train_for_ratios(KAPPA, X, MEAN, K, [3, 0], epochs=4)
    assert {(case, seed) for case, _, seed in found} == set(
        product(product(losses, options, (True, False)), [3, 0])
    )
    lams = {(name, optimizer, raw): lam for ((name, optimizer, raw), lam, _) in found}
    first, second = (
        name for name in losses if "weight decay" in name
    )  # of different InfoMax terms
    assert [lams[first, o, raw] for o in options for raw in (True, False)] == [
        0.24,
        0.22,
        0.24,
        0.23,
    ]
    assert lams[second, "Adam", True] == 0.22 and lams[second, "SGD", True] == 0.22
    for ((name, optimizer, raw), lam, seed), model in found.items():
        one, loss = h.Encoder(D, K, seed=seed), partial(losses[name], lam=lam)
        assert_trained_as(model, loss, raw, one, epochs=4, seed=seed, **options[optimizer])


def test_other_stacks_are_trained_beside_and_controls_may_have_fewer_seeds():
    """The others by Adam at .001 in minibatches of 128, as notebook 3 trains the paper's SAE."""
    sae, one = methods.paper_sae(D, K, seed=4), methods.paper_sae(D, K, seed=4)
    loss, others = partial(h.sae_loss, weight=0.3), {"epochs": 5, "seed": 4}
    beside = ["other"], {"models": [sae], "loss": loss, "x": X + MEAN} | others
    method = METHODS["the revised loss"]._replace(settings=(0.1,))
    chosen = {"a": method, "b": method._replace(n_seeds=3)}
    found = train_all(chosen, [5, 1, 3, 0], epochs=1, most=2, more=[beside])
    of_a, of_b = ([("a", 0.1, s) for s in (0, 1, 3, 5)], [("b", 0.1, s) for s in (1, 3, 5)])
    assert sorted(found) == of_a + of_b
    h.fit(one, loss, X + MEAN, **others)
    for p, expected in zip(sae.parameters(), one.parameters()):
        assert_allclose(p.detach(), expected.detach(), rtol=1e-6, atol=1e-9)


# --- Models that start or come from elsewhere ---------------------------------------------------


def test_kmeans_has_unit_rows_and_one_bias_and_the_l0_asked_for(monkeypatch):
    """Of four clusters, which are found in the rows from which it learns, and not in the others."""
    monkeypatch.setattr(methods, "CENTROID_ROWS", 400)
    centres = 6 * torch.eye(6)[:4]
    noise = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    x = torch.cat([centres.repeat(100, 1) + 0.5 * noise, -9 * torch.ones(400, 6)])
    method = METHODS["k-means"]._replace(settings=(1, 2.5))
    found = methods.train_methods({"centroids": method}, x, MEAN, 4, [3], epochs=1, title=None)
    assert [*found] == [("centroids", 1, 3), ("centroids", 2.5, 3)]
    for (_, l0, _), model in found.items():
        assert h.l0(model.encode(x[:400])) == pytest.approx(l0, abs=0.02)
        assert model.b.shape == (4,) and len(model.b.unique()) == 1
        assert_allclose(model.W.detach().norm(dim=1), np.ones(4), rtol=1e-5)
        rows = model.W.detach()[measures.pair_units(centres.T, model.W.detach().T)[0]]
        assert (rows @ centres.T / 6).diagonal().min() > 0.99


def test_an_encoder_from_an_sae_has_the_scale_of_the_least_loss():
    tied, one = SAE(D, K, tied=True), h.Encoder(D, K)
    loss = partial(revised, lam=0.3)
    tried = []
    for factor in 2.0 ** np.arange(-4, 4.5, 0.5):
        one.W.data, one.b.data = factor * tied.W.data, factor * tied.b.data
        tried.append((loss(one, X).item(), factor))
    found = methods.encoder_from(tied, loss, X)
    assert_allclose(found.W.detach(), min(tried)[1] * tied.W.detach(), rtol=1e-6)
    assert_allclose(found.b.detach(), min(tried)[1] * tied.b.detach(), rtol=1e-6)


def test_the_papers_sae_starts_as_layers_of_pytorch_do():
    model, other = methods.paper_sae(400, 64, seed=2), methods.paper_sae(400, 64, seed=3)
    assert model.W.equal(h.Encoder(400, 64, seed=2).W)
    assert 0.99 / 8 < model.V.abs().max() <= 1 / 8
    assert not model.V.equal(other.V)
    assert abs(np.corrcoef(model.V.detach().flatten(), model.W.detach().flatten())[0, 1]) < 0.03
