"""lab/methods.py: what each method trains, in which stacks, and where a new method appears."""

from functools import partial
from itertools import groupby, product

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import measures, methods, plots_benchmark, tables

D, K, KAPPA = 6, 5, 0.7
MEAN = torch.linspace(-1, 1, D).double()
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)).double()
TINY = {"epochs": 4, "batch_size": 40}
SGD, ADAM = torch.optim.SGD, torch.optim.Adam
METHODS, RATIOS = methods.methods(KAPPA), methods.ratio_methods(KAPPA)
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


def sae_loss(model, x, weight=0.0, penalty=torch.sum):
    A = model.encode(x)
    v = A if model.tied else A * model.V.norm(dim=1)
    return (A @ model.decoder + model.c - x).square().sum() + weight * penalty(v)


def l1(E):
    return E.sum() / K


def saturating(E):
    return (1 - torch.exp(-E)).sum() / K


def encoder(setting, seed):
    return h.Encoder(D, K, seed=seed)


def sae(setting, seed, **options):
    return h.SparseAutoencoder(D, K, seed=seed, **options)


def top(setting, seed):
    return h.SparseAutoencoder(D, K, k=setting, seed=seed)


def assert_trained_as(method, loss, model_of, optimizer=ADAM, raw=False, slow_start=False):
    """All models of a method against `helpers.fit` at its rate, with what its name says; of models
    of raw pixels, against their energies of the same pixels."""
    found = train_all({"name": method}, [0, 3])
    assert set(found) == {("name", s, seed) for s in method.settings for seed in (0, 3)}
    x = X + MEAN if raw else X
    for (_, setting, seed), model in found.items():
        one = model_of(setting, seed)
        own = partial(loss, **{method.argument: setting}) if method.argument else loss
        schedule = [0.05 if slow_start else 1.0, 1.0, 1.0, 0.1]
        options = {"optimizer": optimizer, "schedule": schedule, "seed": seed}
        h.fit(one, own, x, lr=method.lr, **TINY, **options)
        assert_allclose(model.W.detach(), one.W.detach(), rtol=1e-5, atol=1e-6)
        assert_allclose(model.encode(X).detach(), one.encode(x).detach(), rtol=1e-5, atol=1e-6)


EXPECTED = {  # loss, model, optimiser, raw pixels, slow start
    "the paper's loss": (paper, encoder, ADAM, True),
    "the paper's loss, tuned": (paper, encoder, partial(SGD, momentum=0.9), True, True),
    "the paper's loss + weight decay": (partial(paper, kappa=KAPPA), encoder),
    "the revised loss": (revised, encoder),
    "the revised loss, L1": (partial(revised, penalty=l1), encoder),
    "the revised loss, saturating": (partial(revised, penalty=saturating), encoder),
    "tied SAE": (sae_loss, partial(sae, tied=True)),
    "L1 SAE": (sae_loss, sae),
    "L1 SAE, twice its rate": (sae_loss, sae),
    "TopK SAE": (sae_loss, top),
    "SAE, log-sum-exp": (partial(sae_loss, penalty=h.lse_loss), sae),
    "SAE, saturating": (partial(sae_loss, penalty=saturating), sae),
}


@pytest.mark.parametrize("name", [name for name in METHODS if name != "k-means"])
def test_a_method_trains_what_its_name_says(name):
    method = METHODS[name]
    if name == "TopK SAE":
        method = method._replace(settings=(2, 3))  # of 5 units
    assert_trained_as(method, *EXPECTED[name])


@pytest.mark.parametrize("case", RATIOS, ids=str)
def test_a_case_of_the_ratio_table_trains_what_its_name_says(case):
    (name, optimiser, raw), method = case, RATIOS[case]
    loss = revised if name.startswith("log-sum-exp + log-determinant") else paper
    loss = partial(loss, kappa=KAPPA if name.endswith("+ weight decay") else 0.0)
    assert method.lr == {"Adam": 0.001, "SGD": 0.01}[optimiser]
    optimizer = {"Adam": ADAM, "SGD": SGD}[optimiser]
    assert_trained_as(method, loss, encoder, optimizer, raw, slow_start=optimiser == "SGD")


def test_the_ratio_table_has_all_combinations():
    assert len(RATIOS) == 16
    names, optimisers, pixels = (set(part) for part in zip(*RATIOS))
    assert (len(names), optimisers, pixels) == (4, {"Adam", "SGD"}, {True, False})


def test_the_saturating_penalty_is_the_log_sum_exp_to_first_order():
    E = 1e-4 * torch.rand(40, K, generator=torch.Generator().manual_seed(0))
    expected = h.lse_loss(E) + 40 * np.log(K)
    assert methods.saturating(E).item() == pytest.approx(expected.item(), rel=1e-3)
    assert methods.l1(E).item() == pytest.approx(expected.item(), rel=1e-3)


# --- Stacks -------------------------------------------------------------------------------------


def test_stacks_hold_each_setting_and_seed_once_and_neighbours_share_a_seed():
    seeds = [3, 0, 2, 8, 7]
    for name, settings, most in product(("the revised loss", "TopK SAE"), ([1], [1, 2, 5]), (4, 9)):
        method = METHODS[name]._replace(settings=settings)
        stacks = methods._stacks(method, seeds, most)
        assert sorted(run for stack in stacks for run in stack) == sorted(product(settings, seeds))
        for stack in stacks:
            in_a_row = [seed for seed, _ in groupby(seed for _, seed in stack)]
            assert len(in_a_row) == len(set(in_a_row))
            assert len({setting for setting, _ in stack}) == 1 or method.argument


@pytest.mark.parametrize("name", ["the revised loss", "TopK SAE"])
def test_a_stack_has_at_most_so_many_models(name):
    method = METHODS[name]._replace(settings=(1, 2))
    assert max(map(len, methods._stacks(method, [3, 0, 2, 8, 7], 4))) == 4


def test_controls_have_three_seeds_and_all_others_all():
    method = METHODS["the revised loss"]._replace(settings=(0.1,))
    found = train_all({"a": method, "b": method._replace(look=None)}, [5, 1, 3, 0], epochs=1)
    assert sorted(found) == [("a", 0.1, s) for s in (0, 1, 3, 5)] + [
        ("b", 0.1, s) for s in (1, 3, 5)
    ]


def test_other_stacks_are_trained_beside_and_are_not_among_the_methods():
    """As notebook 3 trains the paper's SAEs: by Adam at .001, in minibatches of 128."""

    def loss(model, x):
        return sae_loss(model, x, 0.3)

    models = [methods.paper_sae(D, K, seed) for seed in (4, 1)]
    stack = {"models": models, "loss": loss, "x": X + MEAN, "epochs": 5, "seed": [4, 1]}
    method = METHODS["the revised loss"]._replace(settings=(0.1,))
    found = train_all({"a": method}, [0], more=[stack])
    assert [*found] == [("a", 0.1, 0)]
    for model, seed in zip(models, (4, 1)):
        one, order = methods.paper_sae(D, K, seed), torch.Generator().manual_seed(seed)
        step = ADAM(one.parameters(), lr=1e-3)
        for _ in range(5):
            rows = torch.randperm(200, generator=order)[:128]
            step.zero_grad()
            loss(one, (X + MEAN)[rows]).backward()
            step.step()
        for p, expected in zip(model.parameters(), one.parameters()):
            assert_allclose(p.detach(), expected.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*enclose")
def test_a_new_method_appears_in_tables_and_figures_by_itself():
    def loss(model, x, lam):
        return revised(model, x, lam) + model.b.square().sum()

    new = methods.Method(loss, (0.02, 5.0), 0.01, look=("C1", "o", "-"), trained_on="something")
    chosen = {n: METHODS[n] for n in ("the revised loss", "k-means")} | {"the new method": new}
    chosen["k-means"] = chosen["k-means"]._replace(settings=(1, 3))
    models = train_all(chosen, [0, 1], epochs=20)
    table = measures.tabulate(models, X, X[:100], cut_to=1.5)
    rows = table[table.method == "the new method"]
    assert [*zip(rows.setting, rows.seed)] == [(s, seed) for seed in (0, 1) for s in (0.02, 5.0)]
    at = measures.at_l0(table, 1.5)
    assert at.loc["the new method", ["explained", "cut"]].notna().all(axis=None)
    assert [*tables.reconstruction(at, 1.0).index] == [*chosen]
    assert tables.method_settings(chosen)["trained on"]["the new method"] == "something"
    looks = {name: method.look for name, method in chosen.items()}
    figure = plots_benchmark.benchmark_figure(table, looks, ([1, 2], [0.3, 0.5]))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["revised loss", "k-means", "new method"]
    plt.close(figure)


# --- Models that start or come from elsewhere ---------------------------------------------------


def test_kmeans_has_unit_rows_and_one_bias_and_the_l0_asked_for(monkeypatch):
    """Of four clusters, which are found in the rows from which it learns, and not in the others."""
    monkeypatch.setattr(methods, "CENTROID_ROWS", 400)
    centres = 6 * torch.eye(6)[:4]
    noise = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    x = torch.cat([centres.repeat(100, 1) + 0.5 * noise, -9 * torch.ones(400, 6)])
    method = METHODS["k-means"]._replace(settings=(1, 2.5))
    found = methods.train_methods({"k-means": method}, x, MEAN, 4, [3], epochs=1, title=None)
    assert [*found] == [("k-means", 1, 3), ("k-means", 2.5, 3)]
    for (_, l0, _), model in found.items():
        assert h.l0(model.encode(x[:400])) == pytest.approx(l0, abs=0.02)
        assert sum(p.numel() for p in model.parameters()) == 4 * 6 + 1
        assert_allclose(model.W.detach().norm(dim=1), np.ones(4), rtol=1e-5)
        rows = model.W.detach()[measures.pair_units(centres.T, model.W.detach().T)[0]]
        assert (rows @ centres.T / 6).diagonal().min() > 0.99


def test_an_encoder_from_an_sae_has_the_scale_of_the_least_loss():
    tied, one, loss = sae(None, 0, tied=True), encoder(None, 0), partial(revised, lam=0.3)
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
    assert model.V.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.02)
    assert not model.V.equal(other.V)
    assert abs(np.corrcoef(model.V.detach().flatten(), model.W.detach().flatten())[0, 1]) < 0.03
