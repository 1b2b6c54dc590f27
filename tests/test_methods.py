"""lab/methods.py: what methods are, how they are steered and trained."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import helpers as h
from lab import methods

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-8)
METHODS = {method.name: method for method in (*methods.PAPER_METHODS, *methods.METHODS)}
DIGITS = torch.tensor(load_digits().data) / 16


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.usefixtures("float64")
def test_losses_are_pairs_of_what_makes_the_code_sparse_and_the_rest():
    """With kappa = tr Cov(x) / K. An SAE without ties is penalised for the norms of its decoder."""
    x = normal(64, 12)
    sae, tied, top = (METHODS[n].new_model(x, 8, 3, 0) for n in ("L1 SAE", "tied SAE", "TopK SAE"))
    sae.V.data *= torch.arange(1.0, 9)[:, None]
    E = sae(x)
    spread = h.variance_loss(E) + h.decorrelation_loss(E)
    decay = np.trace(np.cov(x.T)) / 8 * sae.W.pow(2).sum()
    error = (E @ sae.V + sae.c - x).pow(2)
    pairs = {
        methods.ADAM: (h.lse_loss(E), spread),
        methods.DECAY: (h.lse_loss(E), spread + decay),
        "the paper's model": (h.lse_loss(E), spread),
        "the paper's SAE": (0.01 * E.mean(), error.mean()),
        "L1 SAE": ((E * sae.V.pow(2).sum(1).sqrt()).sum(), error.sum()),
    }
    for name, pair in pairs.items():
        close(METHODS[name].loss(sae, x), pair)
    for model, penalty in ((tied, tied(x).sum()), (top, 0)):
        name = "tied SAE" if model is tied else "TopK SAE"
        close(METHODS[name].loss(model, x), (penalty, (model.reconstruct(x) - x).pow(2).sum()))
    assert METHODS[methods.SGD].loss is METHODS[methods.ADAM].loss


def test_models_are_what_the_texts_say():
    x = normal(200, 784).float() + 0.3
    models = {name: method.new_model(x, 64, 17, 1) for name, method in METHODS.items()}
    size = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert size["the paper's model"] == size[methods.ADAM] == 50_240
    assert size["the paper's SAE"] == size["L1 SAE"] == 101_200
    assert size["tuned tied SAE"] == size["tied SAE"] == 51_024
    centred = {name for name, model in models.items() if model.mean is not None}
    assert centred == {"tied SAE", "tuned tied SAE", "L1 SAE", "TopK SAE", methods.COMPONENTS}
    assert ((models["TopK SAE"](x) > 0).sum(1) == 17).all()
    papers = models["the paper's SAE"]  # both layers start as PyTorch's do
    assert papers.W.equal(h.Encoder(784, 64, seed=1).W)
    for parameter in (papers.V, papers.c):
        assert 0.99 < parameter.abs().max() * 64**0.5 <= 1
    assert torch.cosine_similarity(papers.V.flatten(), papers.W.flatten(), 0).abs() < 0.1


@pytest.mark.usefixtures("float64")
def test_principal_components_of_both_signs_have_one_threshold():
    x = normal(300, 6) * torch.arange(1, 7) + 7
    model, odd = (methods.new_principal_components(x, n_units, 1.5, 0) for n_units in (4, 5))
    assert h.l0(model(x)) == pytest.approx(1.5, abs=0.01) and len({*model.b.tolist()}) == 1
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:2]
    close((model.W[:2] @ axes.T).abs(), torch.eye(2).flip(0))
    assert model.W[:2].equal(-model.W[2:]) and odd.W[:2].equal(-odd.W[3:])
    wide = methods.new_principal_components(x, 32, 1.5, 0)  # more units than components
    assert wide.W.shape == (12, 6) and h.l0(wide(x)) == pytest.approx(1.5, abs=0.01)


def test_rates_fall_at_the_end_and_sgd_starts_slowly():
    for epochs, last in {1: 0, 2: 1, 6: 1, 8: 2, 100: 25}.items():
        assert methods.rates_that_fall(epochs) == [1] * (epochs - last) + [0.1] * last
    assert methods.rates_that_start_low(4) == [0.05, 1, 1, 0.1]
    assert methods.rates_that_start_low(2) == [1, 0.1]


def test_sgd_starts_slowly_and_others_do_not(monkeypatch):
    asked = []
    monkeypatch.setattr(h, "fit", lambda *_, **options: asked.append(options))
    for name in (methods.SGD, methods.ADAM, "the paper's model"):
        methods.train(METHODS[name], 0, DIGITS.float(), n_units=5, target_l0=2, epochs=4)
    assert [options["schedule"] for options in asked] == [[0.05, 1, 1, 0.1], [1, 1, 1, 0.1], None]


def strengths(counts, target_l0):
    """Those that steering gives to a sparsity of gradient 3, beside a rest of gradient 12, while so
    many of a hundred units are active."""
    model = torch.nn.Linear(2, 1, bias=False)
    weights = []

    def loss(model, x):
        return 3 * model.weight[0, 0], 12 * model.weight[0, 1]

    steered = methods.steered_loss(loss, target_l0, len(counts))
    for count in counts:
        on = torch.arange(100_000).view(1000, 100) % 1000 < 10 * count  # of 100 units, so many
        model.forward = lambda x, on=on: on.float()
        (gradient,) = torch.autograd.grad(steered(model, None), model.weight)
        share = float(gradient[0, 0]) / 3  # s / (1 + s)
        weights.append(share / (1 - share))
    return np.array(weights)


def test_a_strength_follows_the_number_of_active_units():
    """It stays where sparsity pulls half as hard as the rest, while their number goes from 20 to 5
    in a sixth of the steps; else every eighth minibatch changes it."""
    as_planned = [5 * 4 ** max(1 - step / 40, 0) for step in range(240)]
    np.testing.assert_allclose(strengths(as_planned, 5), 2, rtol=0.05)
    power = 2**0.4
    np.testing.assert_allclose(strengths([10] * 8 + [20], 10)[[0, 7, 8]], [2, 2, 2 * power], 1e-3)
    for count, factor in {5: 1 / power, 90: 3**0.4, 0: 3**-0.4}.items():
        assert strengths([10] * 8 + [count], 10)[8] == pytest.approx(2 * factor, rel=1e-3)


def test_a_part_without_a_gradient_is_refused():
    model = h.Encoder(64, 5)
    nothing = 0 * model.W.sum()
    parts = (nothing, 0, torch.tensor(1.0))
    pairs = [(part, model.W.sum()) for part in parts] + [(model.W.sum(), part) for part in parts]
    for pair in pairs:
        steered = methods.steered_loss(lambda model, x, pair=pair: pair, 2, 9)
        with pytest.raises(ValueError, match="gradients"):
            steered(model, DIGITS)


STEERED = {n: METHODS[n] for n in (methods.ADAM, methods.DECAY, "tied SAE", "L1 SAE")}


@pytest.mark.parametrize("scale", [0.1, 1])
@pytest.mark.parametrize("name", STEERED)
def test_a_model_has_the_l0_asked_for_on_inputs_of_any_scale(name, scale):
    x = scale * DIGITS.float()
    setting = {"n_units": 32, "target_l0": 8, "epochs": 40, "batch_size": 64}
    model = methods.train(STEERED[name], 0, x, lr=0.003, **setting)
    assert h.l0(model(x)) == pytest.approx(8, rel=0.05)


def test_what_is_given_to_training_overrides_the_options_of_a_method():
    mine = methods.replace(METHODS["tied SAE"], options={"lr": 9.0, "schedule": [1.0, 0.3]})
    setting = {"n_units": 5, "target_l0": 2, "epochs": 2, "batch_size": 64}
    x = DIGITS.float()
    with_mine = methods.train(mine, 1, x, lr=0.01, **setting)
    plain = methods.train(METHODS["tied SAE"], 1, x, lr=0.01, schedule=[1.0, 0.3], **setting)
    close(with_mine.W, plain.W)
    for target_l0 in (0, 5, -1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 5"):
            methods.train(mine, 1, x, **setting | {"target_l0": target_l0})


def test_all_are_trained_and_one_that_misses_its_target_is_named():
    x = DIGITS.float()
    setting = {"n_units": 16, "target_l0": 4, "epochs": 1, "batch_size": 64}
    stuck = methods.replace(METHODS["L1 SAE"], name="stuck", options={"lr": 0.0})
    compared = [METHODS[methods.COMPONENTS], METHODS["TopK SAE"], stuck]
    with pytest.warns(UserWarning, match="stuck, seed 3: .* not 4"):
        models = methods.train_all(compared, [3, 4], x, "title", **setting)
    expected = [
        (methods.COMPONENTS, 3),
        ("TopK SAE", 3),
        ("TopK SAE", 4),
        ("stuck", 3),
        ("stuck", 4),
    ]
    assert [*models] == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        methods.train_all(compared[:2], [3], x, "title", **setting)
    with pytest.raises(ValueError, match="stuck"):
        methods.train_all([stuck, stuck], [3], x, "title", **setting)
    missed = [methods.misses_target(l0, 17) for l0 in (16.1, 16.2, 17.8, 17.9)]
    assert missed == [True, False, False, True]


def test_a_layer_is_kept_after_the_epochs_asked_for():
    x = DIGITS.float()
    layers = methods.layers_by_epoch([1, 4, 2], h.decoder_free_loss, x, 5, 3)
    assert [*layers] == [1, 2, 4]
    for epoch, layer in layers.items():
        alone = h.Encoder(64, 5, seed=3)
        losses = h.fit(alone, lambda m, x: h.decoder_free_loss(m(x)), x, epochs=epoch)
        close(layer.W, alone.W)
    last, of_last = methods.train_layer(h.decoder_free_loss, x, 5, 3, 4)
    close(last.W, alone.W)
    close(of_last, losses)
    noisy, _ = methods.train_layer(h.lse_loss, x, 50, 3, 1, noise=0.1, batch_size=64, lr=1e-9)
    W = h.Encoder(64, 50, seed=3).W.detach()
    assert float((noisy.W - W).std() / W.std()) == pytest.approx(0.1, rel=0.05)


def test_rates_are_chosen_on_rows_that_were_not_trained_on():
    x = DIGITS.float()
    setting = {"n_units": 16, "target_l0": 4, "epochs": 1, "batch_size": 64}
    top = METHODS["TopK SAE"]
    table = methods.scores_by_rate([top], {"TopK SAE": [0.01, 0.02]}, x, [0], 300, **setting)
    assert table.rate.tolist() == [0.01, 0.02]
    model = methods.train(top, 0, x[:-300], lr=0.02, **setting)
    sae = h.with_own_decoder(model, x[:-300])
    assert table.explained[1] == pytest.approx(100 * h.variance_explained(sae, x[-300:]), abs=0.01)
