"""lab/methods.py: what each method trains, the paper's SAE, jobs, rates, and a small benchmark."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import ROOT, compare, methods

D, K, KAPPA = 6, 5, 0.7
MEAN = torch.linspace(-1, 1, D).double()
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)).double()
TINY = {"epochs": 4, "batch_size": 40}
SGD, ADAM = torch.optim.SGD, torch.optim.Adam
pytestmark = pytest.mark.usefixtures("float64")


def paper(model, x, lam):
    return h.published_loss(model(x), lam)


def paper_and_decay(model, x, lam):
    decay = KAPPA * model.W.square().sum()
    return h.published_loss(model(x), lam) + lam * len(x) / 128 * decay


def revised(model, x, lam, kappa=KAPPA, penalty=h.lse_loss):
    infomax = h.log_det_loss(model(x)) + kappa * model.W.square().sum()
    return penalty(model(x)) + lam * len(x) / 128 * infomax


def mean_of_units(E):
    return E.sum() / K


def l1_sae(model, x, penalty):
    A = model.encode(x)
    norms = model.V.norm(dim=1)
    return (A @ model.V + model.c - x).square().sum() + penalty * (A * norms).sum()


def tied_sae(model, x, penalty):
    A = model.encode(x)
    return (A @ model.W + model.c - x).square().sum() + penalty * A.sum()


def topk_sae(model, x):
    return (model.decode(model.encode(x)) - x).square().sum()


def assert_trained_as(method, loss, model_of, optimizer, raw=False, slow_start=False):
    """All models of a method against `helpers.fit` with the settings that its name says, at its
    rate; of models of raw pixels, against their energies of the same pixels."""
    jobs = methods.jobs({"name": method}, X, MEAN, K, [0, 3], **TINY)
    found = methods.train_all(jobs)
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


def encoder(setting, seed):
    return h.Encoder(D, K, seed=seed)


def sae(setting, seed, **options):
    return h.SparseAutoencoder(D, K, seed=seed, **options)


def top(setting, seed):
    return h.SparseAutoencoder(D, K, k=setting, seed=seed)


METHODS = methods.methods(KAPPA)
EXPECTED = {  # loss, model, optimiser, raw pixels, slow start
    "the paper's loss": (paper, encoder, ADAM, True, False),
    "the paper's loss, tuned": (paper, encoder, SGD, True, True),
    "the paper's loss + weight decay": (paper_and_decay, encoder, ADAM),
    "the revised loss": (revised, encoder, ADAM),
    "the revised loss, pooled": (partial(revised, penalty=h.pooled_lse_loss), encoder, ADAM),
    "the revised loss, L1": (partial(revised, penalty=mean_of_units), encoder, ADAM),
    "tied SAE": (tied_sae, partial(sae, tied=True), ADAM),
    "L1 SAE": (l1_sae, sae, ADAM),
    "L1 SAE, twice its rate": (l1_sae, sae, ADAM),
    "TopK SAE": (topk_sae, top, ADAM),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_what_its_name_says(name):
    method = METHODS[name]
    if name == "TopK SAE":
        method = method._replace(settings=(2, 3))  # of 5 units
    assert_trained_as(method, *EXPECTED[name])


@pytest.mark.parametrize("case", methods.ratio_methods(KAPPA), ids=str)
def test_a_case_of_the_ratio_table_trains_what_its_name_says(case):
    name, optimiser, raw = case
    losses = {
        "the paper's loss": paper,
        "the paper's loss + weight decay": paper_and_decay,
        "the revised loss": revised,
    }
    loss = losses.get(name, partial(revised, kappa=0.0))
    optimizer = {"Adam": ADAM, "SGD": SGD, "AdamW": methods.adamw_on_W}[optimiser]
    method = methods.ratio_methods(KAPPA)[case]
    assert method.lr == {"Adam": 0.001, "SGD": 0.01, "AdamW": 0.001}[optimiser]
    assert_trained_as(method, loss, encoder, optimizer, raw, slow_start=optimiser == "SGD")


def test_adamw_shrinks_weights_and_no_biases():
    model = h.Encoder(D, K)
    before = h.Encoder(D, K)
    step = methods.adamw_on_W(model.parameters(), lr=0.01)
    (0 * model(X)).sum().backward()
    step.step()
    assert_allclose(model.W.detach(), before.W.detach() * (1 - 0.01 * 3), rtol=1e-5)
    assert model.b.equal(before.b)


@pytest.mark.parametrize("most", [1, 4, 6, 12])
@pytest.mark.parametrize("settings", [[1], [1, 2, 5]])
@pytest.mark.parametrize("name", ["the revised loss", "TopK SAE"])
def test_jobs_hold_each_setting_and_seed_once(name, settings, most):
    method, seeds = METHODS[name]._replace(settings=settings), [3, 0, 2, 8, 7]
    jobs = methods.jobs({name: method}, X, MEAN, 20, seeds, epochs=1, most=most)
    runs = [run for job in jobs for run in job.args[2]]
    assert sorted(runs) == sorted((s, seed) for s in settings for seed in seeds)


def test_an_encoder_from_an_sae_has_the_scale_of_the_least_loss():
    tied, loss, one, tried = (
        sae(None, 0, tied=True),
        partial(revised, lam=0.3),
        encoder(None, 0),
        [],
    )
    for factor in 2.0 ** np.arange(-4, 4.5, 0.5):
        one.W.data, one.b.data = factor * tied.W.data, factor * tied.b.data
        tried.append((loss(one, X).item(), factor))
    found = methods.encoder_from(tied, loss, X)
    assert_allclose(found.W.detach(), min(tried)[1] * tied.W.detach(), rtol=1e-6)
    assert_allclose(found.b.detach(), min(tried)[1] * tied.b.detach(), rtol=1e-6)


# --- The paper's SAE ----------------------------------------------------------------------------


def test_the_papers_sae_starts_as_layers_of_pytorch_do():
    model, other = methods.paper_sae(400, 64, seed=2), methods.paper_sae(400, 64, seed=3)
    assert model.W.equal(h.Encoder(400, 64, seed=2).W)
    assert 0.99 / 8 < model.V.abs().max() <= 1 / 8
    assert model.V.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.02)
    assert not model.V.equal(other.V)
    assert abs(np.corrcoef(model.V.detach().flatten(), model.W.detach().flatten())[0, 1]) < 0.03


def test_the_papers_sae_loss_has_means_and_a_weight_of_a_hundredth():
    model = methods.paper_sae(D, K, seed=2)
    W, b, V, c = (p.detach().numpy() for p in (model.W, model.b, model.V, model.c))
    A = (X.numpy() @ W.T + b).clip(0)
    expected = np.square(A @ V + c - X.numpy()).mean() + 0.01 * A.mean()
    assert methods.paper_sae_loss(model, X).item() == pytest.approx(expected, rel=1e-5)


def test_the_papers_saes_are_trained_by_adam_in_minibatches_of_128():
    x = torch.rand(300, D, generator=torch.Generator().manual_seed(1)).double()
    mean = x.mean(0)
    found = methods.paper_sae_job(x - mean, mean, K, [4, 1], epochs=5)
    assert set(found) == {("the paper's SAE", None, seed) for seed in (4, 1)}
    for (_, _, seed), model in found.items():
        one, order = methods.paper_sae(D, K, seed), torch.Generator().manual_seed(seed)
        step = torch.optim.Adam(one.parameters(), lr=1e-3)
        for _ in range(5):
            for rows in torch.randperm(300, generator=order)[:256].view(2, 128):
                A = torch.relu(x[rows] @ one.W.T + one.b)
                step.zero_grad()
                error = (A @ one.V + one.c - x[rows]).square().mean()
                (error + 0.01 * A.mean()).backward()
                step.step()
        for p, expected in zip(model.parameters(), one.parameters()):
            assert_allclose(p.detach(), expected.detach(), rtol=1e-6, atol=1e-9)


# --- Rates --------------------------------------------------------------------------------------


def test_rates_are_judged_on_the_last_sixth_from_which_nothing_is_learned(monkeypatch):
    """The last sixth is of another scale. A rate at which training diverges gives NaN."""
    monkeypatch.setattr(methods, "RATES", (0.002, 0.008, 1e200))
    x = torch.cat([X, X.flip(1), 3 * X[:80].flip(0)])
    chosen = {name: METHODS[name] for name in ("the revised loss", "L1 SAE")}
    with pytest.warns(RuntimeWarning, match="smaller lr"):
        found = methods.search_rates(chosen, x, K, seeds=(0, 4), **TINY)
    losses = {"the revised loss": (revised, "lam", encoder), "L1 SAE": (l1_sae, "penalty", sae)}
    for name, (loss, argument, make) in losses.items():
        own = partial(loss, **{argument: METHODS[name].settings[1]})
        for lr in (0.002, 0.008):
            losses = []
            for seed in (0, 4):
                model = make(None, seed)
                h.fit(model, own, x[:400], lr=lr, schedule=[1, 1, 1, 0.1], seed=seed, **TINY)
                losses += [own(model, batch).item() / 40 for batch in (x[400:440], x[440:480])]
            assert found[name][lr] == pytest.approx(np.mean(losses))
        assert np.isnan(found[name][1e200])


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("slow_start", [True, False])
def test_the_search_for_the_papers_loss_judges_on_the_last_sixth(raw, slow_start):
    x = torch.cat([X, 0.8 * X[:40].flip(1)])
    candidates = methods.candidates({"SGD": [0.03]}, {True: (0.1, 5.0), False: (0.2, 4.0)})
    ((how, method),) = [
        (how, method)
        for how, method in candidates.items()
        if (method.raw, method.slow_start) == (raw, slow_start)
    ]
    (row,) = methods.search_paper_loss({how: method}, x, MEAN, K, l0=1.2, **TINY)
    inputs, l0s, values = x + MEAN * raw, [], []
    schedule = [0.05 if slow_start else 1.0, 1.0, 1.0, 0.1]
    for lam in (0.1, 5.0) if raw else (0.2, 4.0):
        model = encoder(None, 0)
        options = {"lr": 0.03, "optimizer": SGD, "schedule": schedule}
        h.fit(model, partial(paper, lam=lam), inputs[:200], **options, **TINY)
        l0s.append(h.l0(model(inputs[200:])))
        decoded = h.with_decoder(model, inputs[:200], h.transpose_decoder)
        values.append(h.variance_explained(decoded, inputs[200:]))
    assert row["how"] == how and row["l0"] == pytest.approx(l0s)
    assert l0s[0] < 1.2 < l0s[1]
    assert row["explained"] == pytest.approx(compare.interpolate(l0s, values, 1.2, True))


@pytest.fixture(scope="module")
def tuning():
    """What `make tune` has found."""
    return json.loads((ROOT / "figures" / "tuning.json").read_text())


def test_each_tuned_rate_is_as_good_as_the_best_of_those_tried_and_not_at_their_edge(tuning):
    """As good: to within a twentieth of a per cent."""
    tuned = {n: m.lr for n, m in METHODS.items() if n not in methods.NOT_SEARCHED}
    assert set(tuning["rates"]) == set(tuned)
    for name, pairs in tuning["rates"].items():
        losses = {rate: np.inf if np.isnan(loss) else loss for rate, loss in pairs}
        assert min(losses) < tuned[name] < max(losses)
        assert losses[tuned[name]] == pytest.approx(min(losses.values()), rel=5e-4)
    assert METHODS["L1 SAE, twice its rate"].lr == 2 * METHODS["L1 SAE"].lr


def test_the_tuned_papers_loss_has_the_best_settings_of_the_search(tuning):
    best = max(tuning["the paper's loss"], key=lambda row: row["explained"] or 0)
    found = methods.candidates(methods.SEARCH, methods.SEARCH_LAMBDAS)[best["how"]]
    method = METHODS["the paper's loss, tuned"]
    assert method == found._replace(settings=method.settings)
