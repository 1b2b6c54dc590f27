"""lab/train.py: a stack of models against `helpers.fit` of one, and what goes wrong in a stack."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab.methods import OPTIMIZERS, benchmark_methods, paper_loss
from lab.train import train

X = torch.randn(165, 6, generator=torch.Generator().manual_seed(0)).double()  # 10 minibatches + 5
SHORT = {"batch_size": 16, "epochs": 3}


def energies_loss(model, x):
    return h.published_loss(model(x))


def four():
    return [h.Encoder(6, 4, seed=seed).double() for seed in range(4)]


def values(models):
    return torch.cat([p.detach().flatten() for model in models for p in model.parameters()])


# --- A stack is a loop --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer, lr, seeds",
    [
        ("Adam", 2e-3, 3),
        ("Adam", [1e-3, 4e-3, 1e-3, 2e-3], [4, 0, 2, 1]),
        ("momentum .9", [1e-3, 4e-3, 1e-3, 2e-3], [0, 0, 1, 1]),
    ],
)
def test_a_stack_equals_the_loop(optimizer, lr, seeds):
    """With settings of its loss, a rate and an order of the inputs for each model, or for all."""
    models, loops, lams, kappas = four(), four(), [0.1, 0.3, 1.0, 3.0], [3.0, 1.0, 0.3, 0.1]
    options = SHORT | {"optimizer": OPTIMIZERS[optimizer], "schedule": [0.5, 1.0, 0.1]}
    arguments = {"lam": lams, "kappa": kappas}
    seen = train(models, paper_loss, X.numpy(), arguments=arguments, lr=lr, seed=seeds, **options)
    own = zip(loops, lams, kappas, np.broadcast_to(lr, 4).tolist(), np.broadcast_to(seeds, 4))
    for i, (model, lam, kappa, rate, seed) in enumerate(own):
        loss = partial(paper_loss, lam=lam, kappa=kappa)
        alone = h.fit(model, loss, X, lr=rate, seed=int(seed), **options)
        assert_allclose(seen["loss"][:, i], alone, rtol=1e-6)
    assert_allclose(values(models), values(loops), rtol=1e-6, atol=1e-8)


def test_the_monitor_sees_each_model_after_each_epoch():
    seen = train(four(), energies_loss, X, monitor=lambda m: {"W": m.W[0, 0].detach()}, **SHORT)
    for epochs in (1, 2, 3):
        models = four()
        train(models, energies_loss, X, **SHORT | {"epochs": epochs})
        assert_allclose(seen["W"][epochs - 1], [model.W[0, 0].item() for model in models])


# --- What goes wrong ----------------------------------------------------------------------------

METHODS = benchmark_methods(kappa=0.5)


@pytest.mark.parametrize("name", ["the paper's loss", "the revised loss", "TopK SAE"])
def test_models_that_diverge_are_nan_and_leave_the_others_to_the_bit(name):
    """One has NaN in its weights soon, the other has finite weights and an infinite loss."""
    method, kept = METHODS[name], [0, 2]
    own = {method.argument: 0.3} if method.argument else {}

    def loss(model, x, factor, offset):
        return factor * method.loss(model, x, **own) + offset

    def stack():
        return [method.new_model(6, 4, 2, seed).double() for seed in range(4)]

    models, others = stack(), stack()
    arguments = {"factor": [1, 1, 2, 1], "offset": 0}
    alone = train(others, loss, X, arguments=arguments, **SHORT)["loss"]
    arguments = {"factor": [1, np.inf, 2, 1], "offset": [0, 0, 0, np.inf]}
    with pytest.warns(RuntimeWarning, match="in epoch 1; try a smaller lr") as warned:
        found = train(models, loss, X, arguments=arguments, **SHORT)["loss"]
    told = [str(warning.message).split(" became")[0] for warning in warned]
    assert told == ["the loss of model 1", "the loss of model 3"]
    assert np.isnan(found[:, [1, 3]]).all()
    assert np.array_equal(found[:, kept], alone[:, kept])
    assert values([models[i] for i in kept]).equal(values([others[i] for i in kept]))


def test_interrupted_models_keep_what_they_have_learned():
    def interrupt(model, x):
        seen.append(x)
        if len(seen) == 21:  # after two epochs of ten minibatches
            raise KeyboardInterrupt
        return energies_loss(model, x)

    models, twins, seen = four(), four(), []
    with pytest.raises(KeyboardInterrupt):
        train(models, interrupt, X, **SHORT)
    train(twins, energies_loss, X, **SHORT | {"epochs": 2})
    assert values(models).equal(values(twins))


SAE = partial(h.SparseAutoencoder, 6, 4)
WITH_NAN = torch.where(torch.eye(165, 6) == 1, torch.nan, X)


@pytest.mark.parametrize(
    "models, x, said",
    [
        ([SAE(k=1), SAE(k=2)], X, "different options do not stack"),
        ([SAE(tied=True), SAE()], X, "different options do not stack"),
        ([SAE(), SAE()], WITH_NAN, "row 0, column 0"),
        ([SAE(), SAE()], X[:15], "16 rows"),
    ],
)
def test_models_that_do_not_stack_and_faulty_inputs_are_refused(models, x, said):
    with pytest.raises(ValueError, match=said):
        train(models, h.sae_loss, x, **SHORT)
