"""Definitions of the methods that are compared, and lab/variants.py, as plain facts."""

from functools import partial
from unittest.mock import Mock, call

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam

import helpers as h
from lab import methods, parallel, variants

pytestmark = pytest.mark.usefixtures("float64")
close = partial(torch.testing.assert_close, rtol=1e-7, atol=1e-9)
METHODS = {method.name: method for method in (*methods.IN_PAPER, *methods.METHODS)}
CONSTANT, FALLS, SLOW = None, [1, 1, 1, 0.1], [0.05, 1, 1, 0.1]  # factors of the rate, 4 epochs

# Kind, parameters for 784 inputs and 64 units; optimiser, rate, schedule, is the strength steered?
FACTS = {
    "the paper's model": ("the paper's loss", 50_240, Adam, 0.001, CONSTANT, False),
    "its SAE": ("tuned SAEs", 101_200, Adam, 0.001, CONSTANT, False),
    "the paper's loss, with Adam": ("the paper's loss", 50_240, Adam, 0.001, FALLS, True),
    "the paper's loss, with SGD": ("the paper's loss", 50_240, SGD, 0.03, SLOW, True),
    "+ weight decay": ("our changes", 50_240, Adam, 0.001, FALLS, True),
    "the revised loss": ("our changes", 50_240, Adam, 0.001, FALLS, True),
    "principal components": ("for comparison", 50_240),
    "tied SAE": ("tuned SAEs", 51_024, Adam, 0.008, FALLS, True),
    "L1 SAE": ("tuned SAEs", 101_200, Adam, 0.004, FALLS, True),
    "TopK SAE": ("tuned SAEs", 101_200, Adam, 0.008, FALLS, False),
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(loss, model):
    P = [*model.parameters()]
    return torch.autograd.grad(loss, P, retain_graph=True, materialize_grads=True)


def test_methods_are_what_the_texts_say(monkeypatch):
    history = partial(h.History, torch.zeros(4))
    fit = Mock(side_effect=lambda *_, l0, **more: history([9.0, 7.0] if l0 else []))
    monkeypatch.setattr(h, "fit", fit)
    assert [*METHODS] == [*FACTS] and methods.TIED is METHODS["tied SAE"]
    x = normal(100, 784)
    for method, (kind, n_parameters, *training) in zip(METHODS.values(), FACTS.values()):
        trained = methods.train(method, 3, x, n_units=64, l0=17, epochs=4)
        assert method.kind == kind and trained[:2] == (method, 3)
        assert sum(p.numel() for p in trained.model.parameters()) == n_parameters
        assert fit.called == bool(training)
        if training:
            options, (optimizer, rate, schedule, steered) = fit.call_args.kwargs, training
            assert fit.call_args.args == (trained.model, method.loss, x)
            steps = options.get("optimizer", h.fused_adam)([torch.zeros(1)], lr=1)
            assert type(steps) is optimizer and steps.defaults.get("momentum", 0.9) == 0.9
            factors = options["schedule"] and options["schedule"](options["epochs"])
            assert options.get("lr", 0.001) == rate and factors == schedule
            assert options["after_epoch"] is parallel.tick and "batch_size" not in options
            assert options["l0"] == (17 if steered else None) and options["epochs"] == 4
            assert trained.strength == (7 if steered else None) and trained.model.seed == 3
        fit.reset_mock()
    for epochs, last in {1: 0, 2: 1, 6: 1, 8: 2, 100: 25}.items():
        assert methods.lr_schedule(epochs) == [1] * (epochs - last) + [0.1] * last
    schedules = {2: [1, 0.1], 3: [0.05, 1, 0.1]}  # some epoch has the whole rate
    assert all(methods.lr_schedule(n, slow_start=True) == schedules[n] for n in schedules)


def test_saes_take_the_mean_off_and_topk_has_exactly_k_active_units():
    x = normal(200, 50) + 0.3
    models = {name: METHODS[name].new_model(x, 32, 7, 1) for name in FACTS}
    centred = {name for name, model in models.items() if model.mean is not None}
    assert centred == {"tied SAE", "L1 SAE", "TopK SAE", "principal components"}
    assert all(models[name].mean.equal(x.mean(0)) for name in centred)
    assert ((models["TopK SAE"](x) > 0).sum(1) == 7).all()
    assert [name for name, m in models.items() if getattr(m, "V", None) is m.W] == ["tied SAE"]
    papers, other = models["its SAE"], variants.new_paper_sae(x, 32, 7, 2)  # as PyTorch's layers
    assert papers.W.equal(h.Encoder(50, 32, seed=1).W) and not papers.V.equal(other.V)
    assert 0.99 < papers.V.abs().max() * 32**0.5 <= 1
    assert torch.cosine_similarity(papers.V.flatten(), papers.W.flatten(), 0).abs() < 0.1


@pytest.mark.parametrize("strength", [(), (3,)])
@pytest.mark.parametrize("sae", ["L1 SAE", "tied SAE", "TopK SAE"])
def test_losses_are_sums_of_terms(sae, strength):
    """With kappa = tr Cov(x) / K. An SAE without ties is penalised for the norms of its decoder."""
    x = normal(64, 12)  # half the minibatch of the paper
    model, (s,) = METHODS[sae].new_model(x, 8, 3, 0), strength or (1,)
    model.V.data *= torch.arange(1.0, 9)[:, None]
    E, decay = model(x), np.trace(np.cov(x.T)) / 8 * model.W.pow(2).sum() / 2
    error, norms = (E @ model.V + model.c - x).pow(2), model.V.pow(2).sum(1).sqrt()
    penalty = {"L1 SAE": (E * norms).sum(), "tied SAE": E.sum(), "TopK SAE": 0}
    papers = s * h.lse_loss(E) + (h.variance_loss(E) + h.decorrelation_loss(E)) / 2
    losses = {
        "the paper's loss, with Adam": papers,
        "the paper's loss, with SGD": 2 * papers / (1 + s),  # of 128 inputs
        "+ weight decay": papers + decay,
        "the revised loss": s * h.lse_loss(E) + h.log_det_loss(E) / 2 + decay,
        sae: error.sum() + s * penalty[sae],
    }
    for name, terms in losses.items():
        loss = METHODS[name].loss(model, x, *strength)
        close((loss, *gradients(loss, model)), (terms, *gradients(terms, model)))
    close(METHODS["its SAE"].loss(model, x), error.mean() + 0.01 * E.mean())


@pytest.mark.filterwarnings("ignore:.* units are active")
def test_a_method_is_trained_with_its_own_options_then_finished_and_without_a_loss_once():
    x, options = normal(160, 6), {"n_units": 5, "l0": 1.5, "lr": 9, "batch_size": 16}
    own, finish = {"lr": 0.02, "epochs": 2, "schedule": [1, 0.3]}, Mock()
    new, loss = methods.new_encoder, h.decoder_free_loss
    mine = methods.Method("mine", "yours", new, loss, own, after_training=finish)
    none = METHODS["principal components"]
    trained = methods.train_all([none, mine], range(2, 4), x, epochs=4, **options)
    assert [*trained] == [(none.name, 2), ("mine", 2), ("mine", 3)]
    assert {(t.method.name, t.seed) for t in trained.values()} == trained.keys()
    twin = h.Encoder(6, 5, seed=3)
    history = h.fit(twin, loss, x, l0=1.5, batch_size=16, **own)
    close(trained["mine", 3].model.W, twin.W)
    assert trained["mine", 3].strength == history.strengths[-1]
    assert call(trained["mine", 2].model, x) in finish.mock_calls and finish.call_count == 2
    with pytest.raises(ValueError, match="mine"):
        methods.train_all([mine, mine], [3], x, epochs=4, **options)


@pytest.mark.parametrize("competition", [0, 1, 1000])
def test_competition_is_what_one_denominator_for_all_inputs_takes_away(competition):
    E = 3 * normal(2, 12, 5)
    Z = np.exp(-E.numpy()).sum(-1, keepdims=True)
    shared = Z.mean(-2, keepdims=True)
    value = -12 * np.log(shared).sum() + competition * np.log(shared / Z).sum()
    for far in (0, 1000, -1000):  # where exp(-E) is 0 or infinite
        loss = variants.dosed_lse_loss(E + far, competition)
        assert loss.item() - 24 * far == pytest.approx(value)


def test_adam_by_unit_divides_by_the_root_mean_square_gradient_of_a_unit():
    def after(optimizer, gradients):
        W = torch.zeros(3, 4, requires_grad=True)
        steps = optimizer([W], lr=0.1)
        for W.grad in gradients:
            steps.step()
        return W.detach()

    size, ratio = normal(5, 3, 1).abs(), torch.tensor([1.0, 7, -5, 5]) / 5  # of root mean square 1
    close(after(variants.AdamByUnit, size * ratio), after(Adam, size.expand(5, 3, 4)) * ratio)


def test_principal_components_of_both_signs_have_one_threshold():
    x = normal(300, 6) * torch.arange(1, 7) + 7
    model, odd = (variants.new_principal_components(x, n_units, 1.5, 0) for n_units in (4, 5))
    assert h.l0(model(x)) == pytest.approx(1.5, abs=0.01) and len({*model.b.tolist()}) == 1
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:2]
    close((model.W[:2] @ axes.T).abs(), torch.eye(2).flip(0))
    assert model.W[:2].equal(-model.W[2:]) and odd.W[:2].equal(-odd.W[3:])
