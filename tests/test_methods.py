"""lab/methods.py: what each method trains."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab.methods import AdamByUnit, Method, paper_sae, principal_components, train

D, K = 6, 5
MEAN = torch.linspace(-1, 1, D)
X = torch.randn(300, D, generator=torch.Generator().manual_seed(0)).double()  # two minibatches
momentum = partial(torch.optim.SGD, momentum=0.9)
ENCODER, SAE = partial(h.Encoder, D, K, mean=MEAN), partial(h.SparseAutoencoder, D, K)
DECAYED = partial(h.decoder_free_loss, weight_decay=0.7)
METHODS = {
    "decay": Method(ENCODER, DECAYED, {1: 0.9, 3.4: 0.2, 5: 2}, lr=0.004),
    "SGD": Method(ENCODER, DECAYED, 0.3, lr=0.01, optimizer=momentum, slow_start=True),
    "L1": Method(SAE, h.sae_loss, 0.7, "l1_weight", lr=0.02),
    "TopK": Method(SAE, h.sae_loss, argument="k"),
}
EXPECTED = {  # the model, its loss, rate, optimiser, and the schedule of four epochs
    "decay": (ENCODER, partial(DECAYED, lam=0.2), 0.004, h.ADAM, [1, 1, 1, 0.1]),
    "SGD": (ENCODER, partial(DECAYED, lam=0.3), 0.01, momentum, [0.05, 1, 1, 0.1]),
    "L1": (SAE, partial(h.sae_loss, l1_weight=0.7), 0.02, h.ADAM, [1, 1, 1, 0.1]),
    "TopK": (partial(SAE, k=3), h.sae_loss, 0.001, h.ADAM, [1, 1, 1, 0.1]),
}


@pytest.mark.usefixtures("float64")
def test_each_model_has_its_setting_seeds_rate_optimiser_schedule_and_minibatches():
    """With one try, the setting is the method's own, of the nearest L0; k is the L0."""
    found = train(METHODS, X, seeds=[3, 0], epochs=4, l0=3, tries=1)
    assert [*found] == [*EXPECTED]
    for name, (new, loss, lr, optimizer, schedule) in EXPECTED.items():
        for model, seed in zip(h.split_by_seed(found[name]), [3, 0]):
            alone, how = new(seed=seed), {"lr": lr, "optimizer": optimizer, "schedule": schedule}
            h.fit(alone, loss, X, epochs=4, batch_size=128, seed=seed, **how)
            assert model.seed == seed
            assert_allclose(model.W.detach(), alone.W.detach(), rtol=1e-6, atol=1e-9)
            assert_allclose(model.loss(model, X).item(), loss(alone, X).item(), rtol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["decay", "L1"])
def test_a_setting_is_searched_from_the_methods_own(name):
    method = METHODS[name]._replace(lr=0.05)
    model = train({name: method}, X, [3], 8, l0=1.5, tries=12)[name]
    _, setting = method.fit(X, 1.5, seeds=[3], epochs=8, tries=12)
    assert h.l0(model.encode(X)).item() == pytest.approx(1.5, rel=0.03)
    assert model.loss.keywords[method.argument] == setting != method.start(1.5)


@pytest.mark.usefixtures("float64")
def test_where_l0_is_not_reached_the_nearest_model_is_taken():
    method = METHODS["decay"]
    with pytest.raises(h.L0NotReached) as raised:
        method.fit(X, 4.99, seeds=[3], epochs=1, tries=2)
    with pytest.warns(UserWarning, match="decay: the nearest model is taken. L0 4.99 was not"):
        model = train({"decay": method}, X, [3], 1, l0=4.99, tries=2)["decay"]
    assert_allclose(model.W.detach(), raised.value.model.W.detach())
    assert model.loss.keywords["lam"] == raised.value.setting


def test_a_method_that_diverges_is_named():
    method = METHODS["decay"]._replace(lr=1e20)
    with pytest.raises(FloatingPointError, match="decay: .*try a smaller lr"):
        train({"decay": method}, X, [3], 2, tries=1)


def test_the_papers_sae_starts_as_layers_of_pytorch_do():
    model = paper_sae(400, 64, seeds=[2, 3])
    W, V = model.W.detach(), model.V.detach()
    assert W[0].equal(h.Encoder(400, 64, seed=2).W) and not V[0].equal(V[1])
    for own_W, own_V in zip(W, V):
        assert 0.99 / 8 < own_V.abs().max() <= 1 / 8
        assert abs(np.corrcoef(own_V.flatten(), own_W.flatten())[0, 1]) < 0.03


def test_adam_by_unit_is_adam_but_for_the_second_moment_of_weights():
    """Where all gradients of a unit have one size, it is Adam; elsewhere they keep their ratios."""

    with pytest.raises(ValueError, match="for a stack of models"):
        AdamByUnit(h.Encoder(D, K).parameters(), lr=0.1)

    def after(optimizer, gradients):
        W, b = torch.zeros(2, 3, 4, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
        steps = optimizer([W, b], lr=0.1)
        for gradient in gradients:
            W.grad, b.grad = gradient, gradient[..., 0].clone()
            steps.step()
        return W.detach(), b.detach()

    size = torch.rand(3, 2, 3, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    sign = torch.tensor([1.0, -1, -1, 1])
    for ours, adams in zip(after(AdamByUnit, size * sign), after(torch.optim.Adam, size * sign)):
        assert_allclose(ours, adams, rtol=1e-5)
    ratio = torch.tensor([1.0, 2, -3, 0.5])
    W, b = after(AdamByUnit, size * ratio)
    assert_allclose(W / W[..., :1], ratio.expand(2, 3, 4), rtol=1e-4)
    assert_allclose(b, after(torch.optim.Adam, size * ratio)[1], rtol=1e-5)


def test_principal_components_of_both_signs_have_one_threshold():
    x = X.float() * torch.tensor([1.0, 2, 3, 4, 5, 6]) + 7
    model = principal_components(x, 4, 1.5)
    assert h.l0(model.encode(x)).item() == pytest.approx(1.5, abs=0.01)
    assert len({*model.b.tolist()}) == 1 and model.W[:2].equal(-model.W[2:])
    _, _, axes = np.linalg.svd((x - x.mean(0)).numpy(), full_matrices=False)
    assert_allclose(np.abs(model.W[:2].detach().numpy() @ axes[:2].T), [[0, 1], [1, 0]], atol=1e-4)
    assert_allclose(model.mean, x.mean(0))
    assert len(principal_components(x, 5, 1.5).W) == 5  # one negative less
