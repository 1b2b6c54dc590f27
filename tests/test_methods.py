"""lab/methods.py: what each method trains."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab.methods import Method, paper_sae, train

D, K = 6, 5
MEAN = torch.linspace(-1, 1, D)
X = torch.randn(300, D, generator=torch.Generator().manual_seed(0)).double()  # two minibatches
momentum = partial(torch.optim.SGD, momentum=0.9)
ENCODER, SAE = partial(h.Encoder, D, K, mean=MEAN), partial(h.SparseAutoencoder, D, K)
REVISED = partial(h.revised_loss, kappa=0.7)
METHODS = {
    "revised": Method(ENCODER, REVISED, 0.004, "lam", (0.1, 2)),
    "paper": Method(ENCODER, h.paper_loss, 0.01, "lam", (0.3,), momentum, slow_start=True),
    "L1": Method(SAE, h.sae_loss, 0.02, "weight", (0.7,)),
    "TopK": Method(SAE, h.sae_loss, 0.003, "k", (2, 3)),
}
EXPECTED = {  # the model, its loss, rate, optimiser, and the schedule of four epochs
    ("revised", 0.1): (ENCODER, partial(REVISED, lam=0.1), 0.004, h.ADAM, [1, 1, 1, 0.1]),
    ("revised", 2): (ENCODER, partial(REVISED, lam=2), 0.004, h.ADAM, [1, 1, 1, 0.1]),
    ("paper", 0.3): (ENCODER, partial(h.paper_loss, lam=0.3), 0.01, momentum, [0.05, 1, 1, 0.1]),
    ("L1", 0.7): (SAE, partial(h.sae_loss, weight=0.7), 0.02, h.ADAM, [1, 1, 1, 0.1]),
    ("TopK", 2): (partial(SAE, k=2), h.sae_loss, 0.003, h.ADAM, [1, 1, 1, 0.1]),
    ("TopK", 3): (partial(SAE, k=3), h.sae_loss, 0.003, h.ADAM, [1, 1, 1, 0.1]),
}


@pytest.mark.usefixtures("float64")
def test_each_model_has_its_setting_seeds_rate_optimiser_schedule_and_minibatches():
    found = train(METHODS, X, seeds=[3, 0], epochs=4)
    assert [*found] == [*EXPECTED]
    for key, (new, loss, lr, optimizer, schedule) in EXPECTED.items():
        for layer, seed in zip(h.layers(found[key]), [3, 0]):
            alone, how = new(seed=seed), {"lr": lr, "optimizer": optimizer, "schedule": schedule}
            h.fit(alone, loss, X, epochs=4, batch_size=128, seed=seed, **how)
            assert layer.seed == seed
            assert_allclose(layer.W.detach(), alone.W.detach(), rtol=1e-6, atol=1e-9)


def test_the_papers_sae_starts_as_layers_of_pytorch_do():
    model = paper_sae(400, 64, seeds=[2, 3])
    W, V = model.W.detach(), model.V.detach()
    assert W[0].equal(h.Encoder(400, 64, seed=2).W) and not V[0].equal(V[1])
    for own_W, own_V in zip(W, V):
        assert 0.99 / 8 < own_V.abs().max() <= 1 / 8
        assert abs(np.corrcoef(own_V.flatten(), own_W.flatten())[0, 1]) < 0.03
