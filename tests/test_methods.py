"""Definitions of the methods that are compared, and lab/variants.py, as plain facts."""

from functools import partial
from unittest.mock import Mock, call

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
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
STEERED = [name for name, facts in FACTS.items() if facts[-1] is True]


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
        trained = methods.train(method, 3, x, 64, 17, 4)
        assert method.kind == kind and trained[:2] == (method, 3)
        assert sum(p.numel() for p in trained.model.parameters()) == n_parameters
        assert fit.called == bool(training)
        if training:
            options, (optimizer, rate, schedule, steered) = fit.call_args.kwargs, training
            assert fit.call_args.args == (trained.model, method.loss, x)
            steps = options.get("optimizer", h.ADAM)([torch.zeros(1)], lr=1)
            assert type(steps) is optimizer and steps.defaults.get("momentum", 0.9) == 0.9
            assert options.get("lr", 0.001) == rate and options["schedule"] == schedule
            assert options["after_epoch"] is parallel.tick and "batch_size" not in options
            assert options["l0"] == (17 if steered else None) and options["epochs"] == 4
            assert trained.strength == (7 if steered else 1) and trained.model.seed == 3
        fit.reset_mock()


def test_saes_take_the_mean_off_and_topk_has_exactly_k_active_units():
    x = normal(200, 50) + 0.3
    models = {name: method.new(x, 32, 7, 1) for name, method in METHODS.items()}
    centred = {name for name, model in models.items() if model.mean is not None}
    assert centred == {"tied SAE", "L1 SAE", "TopK SAE", "principal components"}
    assert all(models[name].mean.equal(x.mean(0)) for name in centred)
    assert ((models["TopK SAE"](x) > 0).sum(1) == 7).all()
    assert [name for name, m in models.items() if getattr(m, "V", None) is m.W] == ["tied SAE"]


@pytest.mark.parametrize("strength", [(), (3,)])
@pytest.mark.parametrize("sae", ["L1 SAE", "tied SAE", "TopK SAE"])
def test_losses_are_sums_of_terms(sae, strength):
    """With kappa = tr Cov(x) / K. An SAE without ties is penalised for the norms of its decoder."""
    x = normal(64, 12)  # half the minibatch of the paper
    model, (s,) = METHODS[sae].new(x, 8, 3, 0), strength or (1,)
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


@pytest.mark.parametrize("name", STEERED)
def test_a_larger_strength_is_sparser(name):
    x, active = torch.tensor(load_digits().data) / 16, []
    for strength in (0.1, 1, 10):
        model = METHODS[name].new(x, 16, 4, 0)
        loss = partial(METHODS[name].loss, strength=strength)
        h.fit(model, loss, x, epochs=6, lr=0.005)
        active.append(h.l0(model(x)))
    assert active == sorted(active, reverse=True) and active[0] > active[2] + 1


@pytest.mark.filterwarnings("ignore:.* units are active")
def test_a_method_is_trained_with_its_own_options_then_finished_and_without_a_loss_once():
    x, options = normal(160, 6), {"epochs": 4, "batch_size": 16}
    new, loss, finish = methods.encoder, h.decoder_free_loss, Mock()
    mine = methods.Method("mine", "a new kind", new, loss, {"lr": 0.02}, finish=finish)
    none = METHODS["principal components"]
    trained = methods.train_all([none, mine], range(2, 4), x, 5, 1.5, lr=9, **options)
    assert [*trained] == [(none.name, 2), ("mine", 2), ("mine", 3)]
    assert {(t.method.name, t.seed) for t in trained.values()} == trained.keys()
    twin = h.Encoder(6, 5, seed=3)
    history = h.fit(twin, loss, x, l0=1.5, lr=0.02, schedule=[1, 1, 1, 0.1], **options)
    close(trained["mine", 3].model.W, twin.W)
    assert trained["mine", 3].strength == history.strengths[-1]
    calls = [call(trained["mine", seed].model, x) for seed in (2, 3)]
    assert sorted(finish.mock_calls, key=calls.index) == calls


def test_a_schedule_ends_with_a_tenth():
    for epochs, last in {1: 0, 2: 1, 6: 1, 8: 2, 100: 25}.items():
        assert methods.lr_schedule(epochs) == [1] * (epochs - last) + [0.1] * last
    slow = methods.lr_schedule(4, slow_start=True), methods.lr_schedule(2, slow_start=True)
    assert slow == ([0.05, 1, 1, 0.1], [1, 0.1])  # some epoch has the whole rate


@pytest.mark.parametrize("far", [0, 1000, -1000])  # at which exp(-E) is 0 or infinite
@pytest.mark.parametrize("competition", [0, 1, 10, 1000, 0.3])
def test_competition_is_what_one_denominator_for_all_inputs_takes_away(competition, far):
    E = 3 * normal(2, 12, 5)
    e = np.exp(-E.numpy())
    Z = e.sum(-1, keepdims=True)
    shared = Z.mean(-2, keepdims=True)
    at = (E + far).requires_grad_()
    loss = variants.dosed_lse_loss(at, competition)
    value = -12 * np.log(shared).sum() + competition * np.log(shared / Z).sum() + 24 * far
    assert loss.item() == pytest.approx(value)
    responsibility = torch.from_numpy(e / shared + competition * (e / Z - e / shared))
    close(torch.autograd.grad(loss, at)[0], responsibility, atol=1e-9 * max(1, competition))
    assert competition != 1 or loss == h.lse_loss(at)


def test_adam_by_unit_is_adam_where_all_gradients_of_a_unit_have_one_size():
    """Elsewhere they keep their ratios, and their mean square steps as Adam's would."""

    def after(optimizer, gradients):
        W, b = (torch.zeros(*size, requires_grad=True) for size in ((3, 4), (3,)))
        steps = optimizer([W, b], lr=0.1)
        for gradient in gradients:
            W.grad, b.grad = gradient, gradient[:, 0].clone()
            steps.step()
        return W.detach(), b.detach()

    size = torch.rand(5, 3, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    sign, ratio = torch.tensor([1.0, -1, -1, 1]), torch.tensor([1.0, 7, -5, 5]) / 5  # of norm 2
    close(after(variants.AdamByUnit, size * sign), after(Adam, size * sign))
    W, b = after(variants.AdamByUnit, size * ratio)
    close(W, after(Adam, size.expand(5, 3, 4))[0] * ratio)
    close(b, after(Adam, size * ratio)[1])


def test_the_papers_sae_starts_as_layers_of_pytorch_do():
    model, other = (variants.paper_sae(normal(2, 400), 64, 17, seed) for seed in (2, 3))
    assert model.W.equal(h.Encoder(400, 64, seed=2).W) and not model.V.equal(other.V)
    assert 0.99 / 8 < model.V.abs().max() <= 1 / 8
    assert torch.cosine_similarity(model.V.flatten(), model.W.flatten(), 0).abs() < 0.03


def test_principal_components_of_both_signs_have_one_threshold():
    x = normal(300, 6) * torch.arange(1, 7) + 7
    model, odd = (variants.principal_components(x, n_units, 1.5) for n_units in (4, 5))
    assert h.l0(model(x)) == pytest.approx(1.5, abs=0.01)
    assert len({*model.b.tolist()}) == 1 and model.mean.equal(x.mean(0))
    assert model.W[:2].equal(-model.W[2:]) and odd.W[:2].equal(-odd.W[3:])
    _, scale, axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    close((model.W[:2] @ axes[:2].T).abs(), torch.eye(2).flip(0))
    model.b.data[:] = 0  # so that the two signs together are the component
    share = h.variance_explained(h.Decoded(model, x, h.own_decoder), x)
    assert share == pytest.approx((scale[:2].square().sum() / scale.square().sum()).item())


def test_a_row_keeps_its_own_epochs_and_its_name():
    def loss(model, x, strength=1.0):
        return h.decoder_free_loss(model, x, strength)

    rates = Mock(return_value=[1.0] * 2)
    row = methods.Method("mine", "yours", methods.encoder, loss, {"epochs": 2, "schedule": rates})
    found = methods.train_all([row], [3], normal(256, 6), 5, None, 1)  # not steered by None
    assert found["mine", 3].strength == 1 and rates.mock_calls == [call(2)]
    with pytest.raises(ValueError, match="mine"):
        methods.train_all([row, row], [3], normal(256, 6), 5, 2, 1)
