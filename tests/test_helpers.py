"""helpers.py against plain formulas and loops, NumPy, SciPy, and scikit-learn."""

import math
from functools import partial
from unittest.mock import Mock, call

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import softmax
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
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


@pytest.mark.parametrize("far", [0, 1000, -1000])
def test_without_competition_all_inputs_share_one_denominator(far):
    E = 3 * normal(2, 12, 5)  # of two layers
    e = np.exp(-E.numpy())
    shared = e.sum(2).mean(1)[:, None, None]
    close(gradient(lambda E: h.lse_loss(E, competition=False), E + far), e / shared)
    loss = h.lse_loss(E + far, competition=False)
    close(loss, -12 * np.log(shared).sum() + 24 * far)


def test_the_loss_is_the_weighted_sum_of_its_terms_of_several_layers_too():
    E = normal(3, 12, 5)
    weights = {"lse": 2, "variance": 3, "decorrelation": 5}
    for competition in (True, False):
        each = [
            2 * h.lse_loss(e, competition) + 3 * h.variance_loss(e) + 5 * h.decorrelation_loss(e)
            for e in E
        ]
        loss = h.decoder_free_loss(E, **weights, competition=competition)
        close(loss, sum(each))
    assert h.decoder_free_loss(E[0]) == h.decoder_free_loss(E[0], 1, 1, 1, True)


def test_constant_units_have_no_correlation_and_gradients_stay_finite():
    E = normal(300, 5)
    E[:, 2] = 0
    close(h.correlation(E)[2], torch.zeros(5))
    for loss in (h.variance_loss, h.decorrelation_loss):
        assert loss(E).isfinite() and gradient(loss, E).isfinite().all()
        assert torch.autograd.gradcheck(loss, normal(7, 3).requires_grad_())
    E[:, 2] = 0.1  # of which the mean is rounded in single precision
    close(h.correlation(E.float())[2], torch.zeros(5))


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
    options = {"schedule": [1.0, 0.1, 3.0], "optimizer": torch.optim.SGD, "after_epoch": Mock()}
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
    """A schedule multiplies each rate, and what is frozen stays."""

    def two_rates(parameters, lr):
        W, b = parameters
        return torch.optim.SGD([{"params": [W], "lr": 3 * lr}, {"params": [b], "lr": 0.0}])

    model, other = encoder(), encoder()
    options = SHORT | {"epochs": 1, "schedule": [0.5]}
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
    wrong = {"16 rows": X[:15], "tensor": X.numpy(), "finite": gap, "N, D": X[:, 0]}
    for reason, x in wrong.items():
        with pytest.raises(ValueError, match=reason):
            h.fit(model, paper, x, **SHORT)
    schedules = [{"schedule": factors} for factors in ([], [1.0] * 4)]
    for options in (*schedules, {"epochs": 0}, {"batch_size": 1}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=[*options][0]):
            h.fit(model, paper, X, **SHORT | options)
    assert model.W.equal(encoder().W)
    for more in (lambda W: (0 * W).sum().abs().sqrt(), lambda W: math.inf):  # or it diverges
        with pytest.raises(FloatingPointError, match="epoch 1"):
            h.fit(model, lambda model, x, f=more: paper(model, x) + f(model.W), X, epochs=1)


@pytest.mark.parametrize("k, far", [(None, 0), (None, 1000), (2, 1000)])
def test_decoders_are_least_squares(k, far):
    """Of more rows than are taken at once, sorted; near 0 and far from it; of units that are tiny
    (1), constant up to rounding (2), and nearly equal (0 and 3)."""
    x = normal(5000, 6) @ normal(6, 6, seed=1) + far
    x, model = x[x[:, 0].argsort()], sae(k=k)
    model.b.data -= model.W.data.sum(1) * far
    for p in (model.W.data, model.b.data):
        p[1], p[3] = 1e-4 * p[1], p[0] + 0.1 * p[3]
        p[2] = 1e-15 * p[2] + 9.1 * (p.dim() == 1)
    A, best = model(x).detach(), h.with_best_decoder(model, x)
    V = best.V
    ones = torch.cat([A, torch.ones(len(A), 1)], 1)
    solution, *_ = np.linalg.lstsq(ones.numpy(), x.numpy(), rcond=None)
    close(A @ V + best.offset, ones.numpy() @ solution, 0, 1e-6 * x.std(0).min().item())
    assert k or not V[2].any()

    decoded = h.with_own_decoder(model, x)
    own, offset, gain = decoded.V, decoded.offset.requires_grad_(), torch.ones(1).requires_grad_()
    error = (A @ (gain * own) + offset - x).square().mean()
    close(torch.cat(grad(error, (gain, offset))) / (1 + far**2), torch.zeros(7))  # the minimum
    close(own / own[0, 0], model.V / model.V[0, 0])
    for other, expected in ((V, V), (-3 * own, own)):  # of any decoder, whatever its size
        close(h.with_own_decoder(model, x, other).V, expected, 1e-5)


def test_units_active_on_fewer_than_ten_rows_are_not_decoded():
    x, model = normal(300, 6), encoder()
    x[:, 0], x[9:, :2], model.W.data[:2], model.b.data[:2] = 0, -1, torch.eye(2, 6), 0
    x[:9, 0], x[:10, 1] = 1 + x[:9, 2] ** 2, 1 + x[:10, 3] ** 2
    best, A = h.with_best_decoder(model, x), model(x).detach()
    assert not best.V[0].any() and best.V[1:].all()
    assert h.with_best_decoder(model, x, min_active=9).V[0].all()
    close(best.reconstruct(x), LinearRegression().fit(A[:, 1:], x).predict(A[:, 1:]))


@pytest.mark.parametrize("with_decoder", [h.with_best_decoder, h.with_own_decoder])
@pytest.mark.parametrize("new", [encoder, partial(sae, k=2)])
def test_a_decoded_model_gives_inputs_as_they_are(new, with_decoder):
    """By hand, on centred inputs and with a model of centred inputs. Of dead units, the mean."""
    x, x_test, model = normal(200, 6), normal(50, 6, seed=1), new(mean=MEAN)
    decoded, centred = with_decoder(model, x + MEAN), with_decoder(new(), x)
    expected = new()(x_test) @ centred.V + centred.offset + MEAN
    close(decoded.reconstruct(x_test + MEAN), expected)
    close(decoded(x_test + MEAN), new()(x_test))
    share = r2_score(x, decoded.reconstruct(x).detach(), multioutput="variance_weighted")
    assert h.variance_explained(decoded, x) == pytest.approx(share)
    model.b.data -= 1000
    of_dead = with_decoder(model, x).reconstruct(x_test)
    close(of_dead, x.mean(0).expand(50, 6), 1e-5, 1e-6)


def test_the_variance_explained_of_bytes_is_that_of_numbers():
    pixels = (255 * torch.rand(40, 6, generator=torch.Generator().manual_seed(0))).byte()
    assert h.variance_explained(sae(), pixels) == h.variance_explained(sae(), pixels.double())
