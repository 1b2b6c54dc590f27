"""helpers.py against plain formulas and loops, NumPy and SciPy."""

import math
from functools import partial
from unittest.mock import Mock, call

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import softmax
from torch import nn
from torch.autograd import grad

import helpers as h

pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual, expected, rtol=1e-7, atol=1e-9):
    pair = (v.detach() if torch.is_tensor(v) else v for v in (actual, expected))
    assert_allclose(*pair, rtol=rtol, atol=atol)


def gradient(loss, E):
    E = E.clone().requires_grad_()
    return grad(loss(E).sum(), E)[0]


X, MEAN = normal(165, 6), torch.linspace(-3, 3, 6).double()
encoder, sae = partial(h.Encoder, 6, 5), partial(h.SparseAutoencoder, 6, 5)
SHORT = {"epochs": 3, "batch_size": 16, "lr": 0.01}  # ten minibatches, and 5 rows that make none


def paper(model, x):
    return h.decoder_free_loss(model(x))


TERMS = {
    h.responsibilities: lambda e: softmax(-e, axis=1),
    h.lse_loss: lambda e: -np.log(np.exp(-e).sum(1)).sum(),
    h.variance_loss: lambda e: -sum(math.log(np.var(column, ddof=1) + 1e-6) for column in e.T),
    h.correlation: lambda e: np.corrcoef(e.T),
    h.decorrelation_loss: lambda e: np.square(np.corrcoef(e.T) - np.eye(e.shape[1])).sum(),
    h.l0: lambda e: np.mean([sum(row > 0) for row in e]),
    h.usage: lambda e: np.array([np.mean(column > 0) for column in e.T]),
}


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.__name__)
def test_a_term_equals_numpy(term):
    """In single precision too: of small differences, and of large energies of few rows."""
    small, large = 1e-3 * (normal(12, 5) + 3), 100 * (normal(5, 9) + 3)
    for E, tolerance in ((normal(12, 5), 1e-9), (small.float(), 2e-3), (large.float(), 2e-3)):
        close(term(E), TERMS[term](E.double().numpy()), tolerance, tolerance)


@pytest.mark.parametrize("far", [0, 1000, -1000])  # at which exp(-E) is 0 or infinite
def test_the_gradient_of_the_log_sum_exp_is_the_responsibility(far):
    E = 3 * normal(12, 5) + far
    close(gradient(h.lse_loss, E), TERMS[h.responsibilities](E.numpy()))
    close(h.lse_loss(E), h.lse_loss(E - far) + 12 * far)


def test_the_loss_is_the_weighted_sum_of_its_terms_of_several_layers_too():
    E = normal(3, 12, 5)
    each = [2 * h.lse_loss(e) + 3 * h.variance_loss(e) + 5 * h.decorrelation_loss(e) for e in E]
    close(h.decoder_free_loss(E, lse=2, variance=3, decorrelation=5), sum(each))
    assert h.decoder_free_loss(E[0]) == h.decoder_free_loss(E[0], 1, 1, 1)
    E[0, 0, 0] = math.inf
    assert h.decoder_free_loss(E, variance=0, decorrelation=0) == h.lse_loss(E)  # not inf * 0


def test_constant_units_have_no_correlation_and_gradients_stay_finite():
    E = normal(300, 5)
    E[:, 2] = 0
    close(h.correlation(E)[2], torch.zeros(5))
    for loss in (h.variance_loss, h.decorrelation_loss):
        assert loss(E).isfinite() and gradient(loss, E).isfinite().all()
        assert torch.autograd.gradcheck(loss, normal(7, 3).requires_grad_())
    E[:, 2] = 0.1  # of which the mean is rounded
    for one in (E, E.float()):
        close(h.correlation(one)[2], torch.zeros(5))
    two = 1e-7 * normal(300, 1) + 1e4  # far from zero
    close(h.correlation(torch.cat([two, two], 1)), torch.ones(2, 2), 1e-4)


def test_weights_start_as_pytorchs_layers_do_and_decoder_rows_along_them():
    model, layer = h.SparseAutoencoder(400, 64, seed=3), nn.Linear(400, 64)
    for ours, theirs in ((model.W, layer.weight), (model.b, layer.bias)):
        assert ours.shape == theirs.shape and ours.abs().max() <= 1 / 20
        assert stats.kstest(ours.flatten().tolist(), theirs.flatten().tolist()).pvalue > 1e-3
    assert model.W.equal(h.Encoder(400, 64, seed=3).W) and not model.c.any()
    assert not model.W.equal(h.Encoder(400, 64, seed=4).W)
    close(model.V, model.W / model.W.norm(dim=1)[:, None])


@pytest.mark.parametrize("options, n_parameters", [({}, 71), ({"k": 2}, 71), ({"tied": True}, 41)])
def test_models_encode_what_they_have_taken_the_mean_off_and_an_sae_decodes(options, n_parameters):
    model, plain = sae(mean=MEAN.numpy(), seed=1, **options), encoder(mean=MEAN, seed=1)
    W, b, V = (p.detach().numpy() for p in (model.W, model.b, model.V))
    A = ((X - MEAN).numpy() @ W.T + b).clip(0)
    close(plain(X), A)
    if "k" in options:
        A[A < np.sort(A)[:, [-2]]] = 0
    close(model(X), A)
    close(model.reconstruct(X), A @ V + MEAN.numpy())
    close(model(X.view(3, 55, 6)).flatten(0, 1), model(X))  # (batch, sequence, D)
    assert sum(p.numel() for p in model.parameters()) == n_parameters
    model.W.data[:], model.b.data[:], model.c.data[:] = 0, 1, 7
    assert ((model(X) > 0).sum(1) == options.get("k", 5)).all()  # of equal ones


@pytest.mark.parametrize("seeds", [{}, {"order_seed": 3}])
def test_fit_is_a_plain_loop(seeds):
    """With a factor of the rate for each epoch, and an order of inputs from the model's seed, or
    another, which changes nothing else."""
    model, twin = encoder(seed=7), encoder(seed=7)
    options = {"lr_factors": [1.0, 0.1, 3.0], "optimizer": torch.optim.SGD, "after_epoch": Mock()}
    losses = h.fit(model, paper, X, **SHORT, **options, **seeds)
    order, expected = torch.Generator().manual_seed(seeds.get("order_seed", 7)), []
    for factor in (1, 0.1, 3):
        values = []
        for rows in torch.randperm(165, generator=order)[:160].view(10, 16):
            values.append(paper(twin, X[rows]))
            for p, g in zip((twin.W, twin.b), grad(values[-1], (twin.W, twin.b))):
                p.data -= 0.01 * factor * g
        expected.append(sum(values).item() / 10)
    close(losses, expected)
    close(model.W, twin.W)
    assert options["after_epoch"].mock_calls == 3 * [call(model)]
    assert not losses.requires_grad and not model.training


def test_parameters_can_have_rates_of_their_own_or_be_frozen():
    """Factors multiply each rate, and what is frozen stays."""

    def two_rates(parameters, lr):
        W, b = parameters
        return torch.optim.SGD([{"params": [W], "lr": 3 * lr}, {"params": [b], "lr": 0.0}])

    model, other = encoder(), encoder()
    options = SHORT | {"epochs": 1, "lr_factors": [0.5]}
    h.fit(model, paper, X, optimizer=two_rates, **options)
    other.b.requires_grad_(False)
    h.fit(other, paper, X, optimizer=torch.optim.SGD, **options | {"lr": 0.03})
    close(model.W, other.W)
    assert model.b.equal(encoder().b) and other.b.equal(model.b) and not model.W.equal(encoder().W)
    asked = Mock(side_effect=torch.optim.SGD)
    h.fit(other, paper, X, optimizer=asked, **options)
    assert [p is other.W for p in asked.call_args.args[0]] == [True]


def test_what_nothing_can_be_learned_from_is_refused_before_the_first_step():
    model, gap = encoder(), X.clone()
    gap[9, 0] = -torch.inf
    for reason, x in {"15 rows": X[:15], "finite": gap}.items():
        with pytest.raises(ValueError, match=reason):
            h.fit(model, paper, x, **SHORT)
    wrong = [{"lr_factors": []}, {"lr_factors": [1.0] * 4}, {"epochs": 0}, {"batch_size": 1}]
    for options in wrong:
        with pytest.raises(ValueError):
            h.fit(model, paper, X, **SHORT | options)
    assert model.W.equal(encoder().W)


def test_a_loss_that_is_no_number_and_one_that_diverges_are_told_apart():
    """Of a loss that is infinite at first, "a smaller lr" would be the wrong advice."""

    def with_more(more):
        return lambda model, x: paper(model, x) + more(model.W)

    with pytest.raises(ValueError, match="before the first step"):
        h.fit(encoder(), with_more(lambda W: math.inf), X, epochs=1)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        h.fit(encoder(), with_more(lambda W: (0 * W).sum().abs().sqrt()), X, epochs=1)
    with pytest.raises(FloatingPointError, match="smaller lr"):
        sgd = {"optimizer": torch.optim.SGD, "lr": 1e100}
        h.fit(encoder(), with_more(lambda W: W.square().sum() ** 3), X, epochs=9, **sgd)


def test_what_is_measured_of_energies():
    E = torch.relu(normal(40, 4)) * torch.tensor([1, 3, 0, 0.1])
    assert h.dead_units(E) == 1
    R = np.corrcoef(E[:, [0, 1, 3]].T) - np.eye(3)
    assert h.redundancy(E) == pytest.approx(np.square(R).sum())
    assert h.redundancy(E.float()) == pytest.approx(np.square(R).sum(), rel=1e-6)
    assert math.isnan(h.redundancy(E[:, 1:3])) and math.isnan(h.redundancy(0 * E))
    two = torch.stack([E, 0 * E])
    close(h.usage(two), np.stack([(E > 0).numpy().mean(0), np.zeros(4)]))  # of two layers


def test_the_mean_squared_error_is_of_an_entry():
    x, x_hat = normal(7, 3), normal(7, 3, seed=1)
    assert h.mse(x_hat, x) == pytest.approx(np.mean((x_hat - x).numpy() ** 2))
    assert h.mse(x_hat.float(), x.float()) == pytest.approx(h.mse(x_hat, x), rel=1e-6)
