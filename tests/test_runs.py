"""lab/methods.py and lab/runs.py: what is trained, tuned and fixed; notebook 3's parameters."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager
from test_helpers import normal

import helpers as h
from lab import ROOT, methods, runs
from lab.training import train

D, K = 6, 5
X, MEAN = normal(200, D, dtype=torch.float32) + 0.3, torch.linspace(-1, 1, D)
METHODS = methods.methods(K, 0.7, MEAN, 0.01)
BOUNDED, close = partial(h.bounded_loss, kappa=0.7, noise=0.01), torch.testing.assert_close
LOSSES = {
    "published form": h.published_loss,
    "published + prior": partial(h.published_loss, kappa=0.7),
    "bounded": BOUNDED,
    "bounded, batch's mean": partial(BOUNDED, sparsity=h.uncoupled_loss),
    "bounded, L1": partial(BOUNDED, sparsity=lambda E: E.sum() / K),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_trained_by_its_loss(name):
    """With the schedules of the rate and the penalty, and the mean folded into b afterwards."""
    method = METHODS[name]._replace(lr=0.01, settings=[2, 3])
    options = {"epochs": 4, "batch_size": 16}
    jobs = runs.stacks(name, method, X, K, [0, 1], **options)
    trained, mean = runs.train_all(jobs), MEAN * (name == "published form")
    options |= {"schedule": {"lr": [1, 1, 1, 0.1]}, "title": None, "unit_norm": method.unit_norm}
    if method.argument == "penalty":
        options["schedule"]["penalty"] = [0, 0.5, 1, 1]
    assert len(trained) == 4
    for (_, setting, seed), model in trained.items():
        one, arguments = method.model(D, K, seed, setting), {method.argument: setting}
        options["arguments"] = arguments if method.argument else {}
        train([one], LOSSES.get(name, h.sae_loss), X + mean, seed=seed, lr=0.01, **options)
        one.b.data += one.W.data @ mean
        close([*model.parameters()], [*one.parameters()], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inputs", ["raw", "centred"])
def test_a_case_has_its_objective_optimiser_prior_and_bias(inputs):
    """One step by hand, under SGD at a twentieth of the rate; of b at `factor` times the rate."""
    shift = MEAN * (inputs == "raw")
    factors = {"Adam": 1 + MEAN.abs().sum(), "SGD": 1 + MEAN @ MEAN}
    for name, method in methods.cases(inputs, 0.7, MEAN).items():
        (objective, optimiser, bias), moments = name.split(" | "), {}
        loss = h.published_loss if objective == "published form" else h.bounded_loss
        (job,) = runs.stacks(name, method, X, K, [1], epochs=1, batch_size=len(X), moments=moments)
        found, factor = job(), float(factors[optimiser]) if bias == "fast" else 1
        assert [k[1][1] for k in found] == [0, 0.7][: 2 - (bias == "fast")]
        for key, model in found.items():
            one, how, (lam, kappa) = h.Encoder(D, K, seed=1), methods.HOW[optimiser], key[1]
            lr = how["lr"] * (1 if optimiser == "Adam" else 0.05)
            groups = [{"params": [one.W]}, {"params": [one.b], "lr": factor * lr}]
            step = how["optimizer"](groups, lr=lr)
            loss(one, X + shift, lam=lam, kappa=kappa).backward()
            step.step()
            close([model.W, model.b], [one.W, one.b + one.W @ shift], rtol=1e-3, atol=1e-4)
            if optimiser == "Adam":
                close(moments[key], step.state[one.W]["exp_avg_sq"], rtol=1e-3, atol=1e-6)


def test_decay_acts_where_it_says():
    found, one = methods.decays(K, 0.7), h.Encoder(D, K, seed=2)
    both = h.bounded_loss(one, X[:64], 0.3, 0.7) + 64 / 128 * 0.3 * 0.7 * one.b.square().sum()
    close(found["bounded, decay on b too"].loss(one, X[:64], lam=0.3), both)
    for name, groups in {"W and b": [3], "W alone": [3, 0]}.items():
        optimizer = found[f"log det, AdamW on {name}"].optimizer([one.W, one.b], lr=0.1)
        assert [g["weight_decay"] for g in optimizer.param_groups] == groups
        assert {g["lr"] for g in optimizer.param_groups} == {0.1}


def test_tune_judges_on_the_last_sixth_passes_over_what_diverges_and_widens_at_an_edge():
    """b learns a move by 1 from the first half of x, and the last sixth says how far is best."""
    x, best, rates = torch.full((96, D), np.nan), [], [1e-3, 0.1, 1e-2, 1e30]
    loss = lambda m, x, lam: 1 + lam * (m.b - x).square().sum() + m.b.exp().sum() * 1e-30  # noqa: E731
    model = lambda D, K, seed, s: h.Encoder(D, D, seed=seed)  # noqa: E731
    for move, some in ((0.1, rates), (1.0, rates), (0.1, [1e-3, 2e-3])):  # 0.01: about 0.1
        x[:48], x[-16:] = h.Encoder(D, D).b.detach() + torch.tensor([[[1.0]], [[move]]])
        chosen = {"a": METHODS["bounded"]._replace(model=model, loss=loss)}
        tried = runs.tune(chosen, x, K, some, epochs=4, batch_size=16)["a"]
        best.append(runs.best_rate(tried))
        assert 1e30 not in some or np.isnan(tried[1e30])
    assert best == [1e-2, 0.1, 8e-3] and set(tried) > {1e-3, 4e-3, 1.6e-2, 3.2e-2}


def test_each_fixed_rate_is_inside_of_what_was_tried_and_the_best_there():
    tried = json.loads((ROOT / "figures" / "tuning.json").read_text())
    fixed = {name: m.lr for name, m in METHODS.items() if name not in methods.UNTUNED}
    assert set(tried) == set(fixed) and METHODS[methods.HALF].lr == fixed["L1 SAE"] / 2
    for name, pairs in tried.items():
        losses = {rate: np.inf if loss is None else loss for rate, loss in pairs}
        assert min(losses) < fixed[name] < max(losses)
        assert losses[fixed[name]] == min(losses.values())


def test_a_run_starts_from_an_sae_at_the_scale_of_the_least_loss():
    sae, loss = h.SparseAutoencoder(D, K, tied=True), partial(BOUNDED, lam=0.3)
    begun, found, one = runs.started_from(sae, loss, X), [], h.Encoder(D, K)
    for factor in 2.0 ** np.arange(-4, 4.5, 0.5):
        one.W.data, one.b.data = factor * sae.W.data, factor * sae.b.data
        found.append((loss(one, X).item(), factor))
    close([begun.W, begun.b], [min(found)[1] * p for p in (sae.W, sae.b)])


@pytest.mark.parametrize("fault, said", [("SEEDS = [1, 1]", "twice"), ("N_TRAIN = 2000", "2,500")])
def test_faults_are_said_before_the_long_run(fault, said):
    cells = json.loads((ROOT / "notebooks" / "3_benchmark.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"][:3]
    python = [TransformerManager().transform_cell(source) for source in sources]
    with pytest.raises(ValueError, match=said):
        exec("\n".join([*python[:2], fault, python[2]]), {})
