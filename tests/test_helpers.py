"""helpers.py against NumPy, SciPy, scikit-learn, autograd, plain loops, and a theorem."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LinearRegression
from torch import nn
from torch.func import grad

import helpers as h

SGD = torch.optim.SGD


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def encoder(n_inputs=6, n_units=5, seed=0):
    return h.Encoder(n_inputs, n_units, seed=seed).double()


def sae(n_inputs=6, n_units=5, **options):
    return h.SparseAutoencoder(n_inputs, n_units, **options).double()


def explained(x, x_hat):
    """1 - FVU, of arrays."""
    x, x_hat = np.asarray(x), np.asarray(x_hat)
    return 1 - np.square(x - x_hat).sum() / np.square(x - x.mean(0)).sum()


# --- Losses -----------------------------------------------------------------------------------

TERMS = {
    "log-sum-exp": (h.lse_loss, lambda e: -logsumexp(-e, axis=1).sum()),
    "pooled": (h.pooled_lse_loss, lambda e: -len(e) * (logsumexp(-e) - np.log(len(e)))),
    "variance": (h.variance_loss, lambda e: -np.log(e.var(0, ddof=1) + 1e-6).sum()),
    "correlation": (h.correlation, lambda e: np.corrcoef(e.T)),
    "decorrelation": (
        h.decorrelation_loss,
        lambda e: np.square(np.corrcoef(e.T) - np.eye(e.shape[1])).sum(),
    ),
    "log-determinant": (
        partial(h.log_det_loss, s=0.05),
        lambda e: -np.linalg.slogdet(np.cov(e.T) + 0.05 * np.eye(e.shape[1]))[1],
    ),
}


@pytest.mark.filterwarnings("ignore:the log-determinant")
@pytest.mark.parametrize("shape", [(12, 5), (4, 9), (2, 2)])
@pytest.mark.parametrize("scale, shift", [(1e-3, 3), (1, 0), (300, 3)])
@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-9), (torch.float32, 2e-3)])
@pytest.mark.parametrize("term", TERMS)
def test_term_equals_numpy(term, shape, scale, shift, dtype, close):
    E = (scale * (normal(*shape) + shift)).to(dtype)
    loss, reference = TERMS[term]
    assert_allclose(loss(E), reference(E.double().numpy()), rtol=close, atol=close)


def test_gradient_of_the_log_sum_exp_is_the_responsibility():
    E = normal(12, 5)
    r = softmax(-E.numpy(), axis=1)
    assert_allclose(h.responsibilities(E), r, rtol=1e-12)
    assert_allclose(grad(h.lse_loss)(E), r, rtol=1e-12)


def test_gradient_of_the_pooled_log_sum_exp_has_one_denominator():
    E = 3 * normal(12, 5).abs()
    e = np.exp(-E.numpy())
    assert_allclose(grad(h.pooled_lse_loss)(E), e / e.sum(1).mean(), rtol=1e-12)


def test_pooled_and_own_denominators_agree_where_all_are_equal():
    """The rows of E are permutations of one another."""
    E = torch.stack([normal(5)[torch.randperm(5)] for _ in range(12)])
    assert_allclose(h.pooled_lse_loss(E), h.lse_loss(E), rtol=1e-12)
    assert_allclose(grad(h.pooled_lse_loss)(E), grad(h.lse_loss)(E), rtol=1e-12)


@pytest.mark.parametrize("energy", [120.0, -100.0])
@pytest.mark.parametrize("loss", [h.lse_loss, h.pooled_lse_loss])
def test_log_sum_exps_are_finite_at_extreme_energies(loss, energy):
    E = torch.full((8, 4), energy)
    assert loss(E).item() == pytest.approx(8 * (energy - np.log(4)))
    assert_allclose(grad(loss)(E), torch.full((8, 4), 0.25), rtol=1e-5)


@pytest.mark.parametrize("loss", [h.variance_loss, h.decorrelation_loss, h.log_det_loss])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infomax_terms_and_gradients_are_finite_with_constant_units(loss, dtype):
    E = normal(300, 5).to(dtype)
    E[:, ::2] = 7.77
    assert loss(E).isfinite() and grad(loss)(E).isfinite().all()


def test_correlation_of_a_constant_unit_is_zero():
    E = normal(300, 5).float()
    E[:, 2] = 7.77  # a mean of float32 numbers is not exactly 7.77
    R = h.correlation(E)
    assert (R[2] == 0).all() and (R[:, 2] == 0).all()
    kept = [0, 1, 3, 4]
    corr = np.corrcoef(E[:, kept].numpy().T)
    assert_allclose(R[kept][:, kept], corr, atol=1e-5)
    assert h.decorrelation_loss(E) == pytest.approx((corr**2).sum() - 4, abs=1e-5)


def test_log_determinant_of_float32_energies_does_not_lose_s():
    """Of each unit and a copy of it: eigenvalues 2 Cov + s, and s. Cov is 1e6 to 1e7 times s."""
    E = normal(50, 4).float()
    cov, s = np.cov(E.double().numpy().T), 1e-6
    expected = np.linalg.slogdet(2 * cov + s * np.eye(4))[1] + 4 * np.log(s)
    assert h.log_det_loss(torch.cat([E, E], 1), s).item() == pytest.approx(-expected, rel=1e-4)


def test_log_determinant_warns_of_fewer_rows_than_units():
    with pytest.warns(UserWarning, match="9 units from minibatches of 8 rows"):
        h.log_det_loss(normal(8, 9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        h.log_det_loss(normal(9, 9))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_log_determinant_of_energies_that_are_not_finite_is_nan(wrong):
    E = normal(9, 3)
    E[2, 1] = wrong
    assert h.log_det_loss(E).isnan()


def test_published_loss_adds_its_terms():
    """Of 64 rows, half the minibatch of the paper."""
    E = normal(64, 5).abs()
    infomax = h.variance_loss(E) + h.decorrelation_loss(E)
    assert_allclose(h.published_loss(E, 3), h.lse_loss(E) + 3 / 2 * infomax)
    pooled = h.published_loss(E, 3, penalty=h.pooled_lse_loss)
    assert_allclose(pooled, h.pooled_lse_loss(E) + 3 / 2 * infomax)


def test_revised_loss_adds_its_terms():
    E, W = normal(64, 5).abs(), normal(5, 7)
    infomax = h.log_det_loss(E, 0.01) + 0.7 * float((W.numpy() ** 2).sum())
    found = h.revised_loss(E, W, lam=3, kappa=0.7, s=0.01)
    assert_allclose(found, h.lse_loss(E) + 3 / 2 * infomax)
    found = h.revised_loss(E, W, 3, 0.7, 0.01, penalty=torch.sum)
    assert_allclose(found, E.sum() + 3 / 2 * infomax)


def test_sae_loss_weights_activations_by_the_norm_of_their_decoder_row():
    model, x = sae(), normal(20, 6)
    model.V.data *= torch.arange(1.0, 6)[:, None]
    W, b, V, c = (p.detach().numpy() for p in (model.W, model.b, model.V, model.c + 1))
    model.c.data += 1
    A = (x.numpy() @ W.T + b).clip(0)
    error = np.square(A @ V + c - x.numpy()).sum()
    l1 = (A * np.linalg.norm(V, axis=1)).sum()
    assert h.sae_loss(model, x, 3.0).item() == pytest.approx(error + 3 * l1)
    assert h.sae_loss(model, x).item() == pytest.approx(error)


def test_sae_loss_of_a_tied_sae_has_a_plain_l1():
    model, x = sae(tied=True), normal(20, 6)
    W, b = model.W.detach().numpy(), model.b.detach().numpy()
    A = (x.numpy() @ W.T + b).clip(0)
    error = np.square(A @ W - x.numpy()).sum()
    assert h.sae_loss(model, x, 3.0).item() == pytest.approx(error + 3 * A.sum())


def test_kappa_is_the_mean_variance_of_a_unit():
    x = normal(50, 6) * torch.arange(1, 7) + 5
    assert h.kappa(x, 4) == pytest.approx(np.trace(np.cov(x.numpy().T)) / 4)


# --- Models -------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_weights_within_the_bound_of_pytorch():
    one, same, other = (h.Encoder(400, 64, seed=s) for s in (3, 3, 4))
    assert one.W.equal(same.W) and one.b.equal(same.b) and not one.W.equal(other.W)
    assert 0.99 / 20 < one.W.abs().max() <= 1 / 20 and abs(one.W.mean()) < 1e-3
    assert one.W.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)


def test_an_sae_starts_with_decoder_rows_along_its_encoder_rows():
    model = h.SparseAutoencoder(6, 5, seed=3)
    W = model.W.detach().numpy()
    assert model.W.equal(h.Encoder(6, 5, seed=3).W) and not model.c.any()
    assert_allclose(model.V.detach(), W / np.linalg.norm(W, axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("model", [encoder(), sae(k=3), sae(tied=True)], ids=["encoder", "k", "W"])
def test_rows_of_any_shape_give_what_a_table_of_them_gives(model):
    """(batch, sequence, D), as a language model's activations."""
    x = normal(60, 6)
    assert_allclose(model.encode(x.view(4, 15, 6)).detach().view(60, 5), model.encode(x).detach())


@pytest.mark.parametrize("k", [1, 2, 5])
def test_topk_keeps_the_k_largest_activations(k):
    model, x = sae(k=k), normal(40, 6)
    A = (x @ model.W.T + model.b).clamp(min=0).detach().numpy()
    A[A < np.sort(A)[:, [-k]]] = 0
    assert_allclose(model.encode(x).detach(), A)


def test_topk_keeps_k_of_equal_activations():
    model = sae(k=2)
    model.W.data[:], model.b.data[:] = 0, 1
    assert ((model.encode(normal(9, 6)) > 0).sum(1) == 2).all()


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: h.Encoder(0, 3), "0 and 3"),
        (lambda: h.SparseAutoencoder(3, 0), "3 and 0"),
        (lambda: h.SparseAutoencoder(3, 4, k=5), "k must be"),
        (lambda: h.SparseAutoencoder(3, 4, k=0), "k must be"),
        (lambda: h.Encoder(3, 4)(torch.ones(9, 2)), "3 inputs.* 2 columns"),
    ],
)
def test_models_of_impossible_sizes(make, said):
    with pytest.raises(ValueError, match=said):
        make()


# --- Training -----------------------------------------------------------------------------------


def test_fit_is_a_plain_loop():
    """Of ten minibatches and 5 rows that make none, with a factor of the rate for each epoch."""
    model, twin, x, factors = encoder(), encoder(), normal(165, 6), [1.0, 0.1, 3.0]
    history = h.fit(
        model,
        lambda model, x: h.published_loss(model(x), 0.5),
        x,
        epochs=3,
        batch_size=16,
        lr=0.01,
        optimizer=SGD,
        schedule=factors,
        seed=7,
    )
    order, expected = torch.Generator().manual_seed(7), []
    for factor in factors:
        losses = []
        for rows in torch.randperm(165, generator=order)[:160].view(10, 16):
            losses.append(h.published_loss(torch.relu(x[rows] @ twin.W.T + twin.b), 0.5))
            for p, g in zip((twin.W, twin.b), torch.autograd.grad(losses[-1], (twin.W, twin.b))):
                p.data -= 0.01 * factor * g
        expected.append(sum(losses).item() / 160)
    assert_allclose(history, expected)
    assert_allclose(model.W.detach(), twin.W.detach())
    assert_allclose(model.b.detach(), twin.b.detach())


def test_rate_schedule_is_a_tenth_in_the_last_quarter():
    assert h.rate_schedule(8) == [1, 1, 1, 1, 1, 1, 0.1, 0.1]
    assert h.rate_schedule(4, slow_start=True) == [0.05, 1, 1, 0.1]


def test_fit_trains_a_network_of_the_users_as_it_does_an_encoder():
    model, x = encoder(), normal(200, 6)
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU()).double()
    network.load_state_dict({"0.weight": model.W, "0.bias": model.b})
    options = {"epochs": 3, "batch_size": 20, "lr": 0.01}
    for loss in (
        lambda network, x: h.revised_loss(network(x), network[0].weight, lam=0.5, kappa=0.7),
        lambda network, x: h.published_loss(network(x), 0.5),
    ):
        h.fit(network, loss, x, **options)
    for loss in (
        partial(_revised, lam=0.5, kappa=0.7),
        lambda model, x: h.published_loss(model(x), 0.5),
    ):
        h.fit(model, loss, x, **options)
    assert_allclose(network[0].weight.detach(), model.W.detach())
    assert not model.W.allclose(encoder().W, atol=0.1)


def test_infomax_and_weight_decay_alone_make_weights_a_decoder():
    """Theorem for linear energies without a penalty: the ridge regression of x on E is kappa W,
    and W'W = (I / kappa - s / Cov(x))_+ on the K leading principal components."""

    class Linear(nn.Module):
        def __init__(self, n_units):
            super().__init__()
            self.W = nn.Parameter(encoder(5, n_units).W.detach())

        def forward(self, x):
            return x @ self.W.T

    x, s, kappa = normal(128, 5) * torch.tensor([2.0, 1.3, 0.9, 0.6, 0.1]), 0.05, 2.0
    variance, U = np.linalg.eigh(torch.cov(x.T).numpy())
    for n_units in (2, 5, 8):
        model = Linear(n_units)
        no_penalty = {"penalty": lambda E: 0 * E.sum(), "s": s, "lam": 1, "kappa": kappa}
        loss = partial(_revised, **no_penalty)
        h.fit(model, loss, x, epochs=500, lr=0.05, optimizer=SGD)
        W, E = model.W.detach().numpy(), model(x).detach().numpy()
        leading = np.arange(5) >= 5 - n_units
        power = np.maximum(1 / kappa - s / variance, 0) * leading
        assert_allclose(W.T @ W, U * power @ U.T, atol=1e-6)
        rows = np.vstack([E - E.mean(0), (s * 127) ** 0.5 * np.eye(n_units)])
        targets = np.vstack([x - x.mean(0), np.zeros((n_units, 5))])
        assert_allclose(np.linalg.lstsq(rows, targets, rcond=None)[0], kappa * W, atol=1e-6)


def _revised(model, x, **options):
    return h.revised_loss(model(x), model.W, **options)


GOOD, NAN_AT, CONSTANT = normal(40, 6), normal(40, 6), torch.ones(40, 6)
NAN_AT[7, 2] = torch.nan
BAD_INPUTS = [(NAN_AT, "row 7, column 2"), (CONSTANT, "constant"), (GOOD[0], "table")]


def fit_energies(x, **options):
    h.fit(
        encoder(),
        lambda m, x: h.published_loss(m(x)),
        x,
        **{"epochs": 1, "batch_size": 8} | options,
    )


@pytest.mark.parametrize("x, said", BAD_INPUTS)
@pytest.mark.parametrize(
    "function",
    [
        fit_energies,
        partial(h.kappa, n_units=3),
        partial(h.with_decoder, encoder()),
        partial(h.variance_explained, sae()),
    ],
    ids=["fit", "kappa", "with_decoder", "variance_explained"],
)
def test_inputs_from_which_nothing_can_be_learned(function, x, said):
    with pytest.raises(ValueError, match=said):
        function(x)


@pytest.mark.parametrize("values, n", [([torch.inf, -torch.inf], 2), ([torch.inf, 0], 1)])
def test_infinite_inputs_are_refused(values, n):
    x = GOOD.clone()
    x[3, 0], x[4, 0] = values
    with pytest.raises(ValueError, match=f"{n} values that are not finite, the first at row 3"):
        h.kappa(x, 3)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"batch_size": 41}, "41 rows"),
        ({"batch_size": 1}, "batch_size"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 3, "schedule": [1, 1]}, "schedule"),
    ],
)
def test_fit_refuses_impossible_options(options, said):
    with pytest.raises(ValueError, match=said):
        fit_energies(GOOD, **options)


def test_fit_ends_where_the_loss_is_not_finite():
    with pytest.raises(FloatingPointError, match="smaller lr"):
        fit_energies(GOOD, lr=1e200, optimizer=SGD, epochs=5)


# --- Decoders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [0, 1000])
@pytest.mark.parametrize("k", [None, 2])
class TestDecoders:
    """Of inputs near 0 and far from it, and of units that are tiny, constant, and nearly equal."""

    @pytest.fixture
    def case(self, far, k):
        """The model, x (300, 6) and, by NumPy, the activations A (300, 5)."""
        x, model = normal(300, 6) @ normal(6, 6, seed=1) + far, sae(k=k)
        model.b.data -= model.W.data.sum(1) * far
        for p in (model.W.data, model.b.data):
            p[1], p[2], p[3] = 1e-4 * p[1], 9.1 * (p.dim() == 1), p[0] + 1e-3 * p[3]
        A = (x @ model.W.T + model.b).clamp(min=0).detach().numpy()
        if k:
            A[A < np.sort(A)[:, [-k]]] = 0
        return model, x, A

    def test_fit_decoder_is_linear_regression(self, case):
        model, x, A = case
        V, offset = h.fit_decoder(model, x)
        found, close = A @ V.numpy() + offset.numpy(), 1e-6 * x.std(0).min().item()
        assert_allclose(found, LinearRegression().fit(A, x).predict(A), rtol=0, atol=close)
        assert A[:, 2].std() == 0 and (V[2] == 0).all()

    def test_transpose_decoder_has_one_gain_by_least_squares(self, case):
        model, x, A = case
        V, (found, offset) = model.V.detach().numpy(), h.transpose_decoder(model, x)
        design = ((A - A.mean(0)) @ V).reshape(-1, 1)
        gain = np.linalg.lstsq(design, (x - x.mean(0)).numpy().flatten(), rcond=None)[0]
        assert_allclose(found, gain * V)
        assert_allclose(offset, x.mean(0).numpy() - A.mean(0) @ (gain * V), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("decoder", [h.fit_decoder, h.transpose_decoder])
def test_with_decoder_on_inputs_as_they_are_and_by_hand_on_centred_ones(decoder):
    """The model is of centred inputs; the SAE takes x as it is, and gives x back as it is."""
    mean, x, x_test = torch.linspace(-3, 3, 6), normal(200, 6), normal(50, 6, seed=1)
    model = encoder()
    found = h.with_decoder(model, x + mean, decoder, mean=mean)
    V, offset = decoder(model, x)
    by_hand = model.encode(x_test) @ V + offset + mean
    assert_allclose(found(x_test + mean).detach(), by_hand.detach(), atol=1e-9)
    assert_allclose(found.encode(x_test + mean).detach(), model.encode(x_test).detach(), atol=1e-9)


def test_decoders_are_fitted_on_training_and_judged_on_test_inputs():
    """The test inputs have other correlations: each other pairing gives another number."""
    model, x, x_test = encoder(), normal(200, 6), normal(80, 6, seed=1) @ normal(6, 6, seed=2)
    best = LinearRegression().fit(model(x).detach(), x)
    expected = explained(x_test, best.predict(model(x_test).detach()))
    assert h.variance_explained(h.with_decoder(model, x), x_test) == pytest.approx(expected)


def test_a_decoder_of_a_topk_sae_keeps_its_k():
    model, x = sae(k=2), normal(200, 6)
    found = h.with_decoder(model, x)
    assert found.k == 2 and ((found.encode(x) > 0).sum(1) <= 2).all()


def test_decoders_of_half_precision_come_near_those_of_double():
    x = 8 * normal(9000, 20) @ normal(20, 20, seed=1)
    x -= x.mean(0)
    exact, half = encoder(20, 12), h.Encoder(20, 12).half()
    best = h.variance_explained(h.with_decoder(exact, x), x)
    found = h.variance_explained(h.with_decoder(half, x.half()), x.half())
    assert found == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize("decoder", [h.fit_decoder, h.transpose_decoder])
def test_the_decoder_of_dead_units_gives_the_mean(decoder):
    model, x = encoder(), normal(200, 6) + 3
    model.b.data -= 1000
    V, offset = decoder(model, x)
    assert (V == 0).all()
    assert_allclose(offset, x.mean(0))


# --- Measures -----------------------------------------------------------------------------------


def test_l0_and_dead_count_activations_above_zero():
    A = torch.tensor([[0, 1.0, 2], [0, 0, 1e-9], [-1, 0, 0]])
    assert h.l0(A) == 1 and h.dead(A) == 1


def test_redundancy_is_of_the_units_that_vary():
    E = normal(20, 4)
    corr = np.corrcoef(E.numpy().T) - np.eye(4)
    with_constant = torch.cat([E, torch.ones(20, 1)], 1)
    assert h.redundancy(with_constant) == pytest.approx((corr**2).sum())
    assert np.isnan(h.redundancy(with_constant[:, 3:]))


def test_entropy_and_usage_of_responsibilities():
    E = normal(9, 4)
    r = softmax(-E.numpy(), axis=1)
    assert h.responsibility_entropy(E) == pytest.approx(-(r * np.log(r)).sum(1).mean())
    assert_allclose(h.usage(E), r.mean(0))


def test_entropy_of_a_responsibility_of_zero_is_finite():
    assert h.responsibility_entropy(torch.tensor([[0.0, 1e4]])) == 0


@pytest.mark.parametrize("chunk", [7, 1024])
def test_variance_explained_is_relative_to_the_mean_of_the_inputs_given(chunk):
    model, x = sae(), normal(50, 6) + 2
    expected = explained(x, model(x).detach())
    assert h.variance_explained(model, x, chunk=chunk) == pytest.approx(expected)


def test_variance_explained_refuses_an_encoder():
    with pytest.raises(ValueError, match="with_decoder"):
        h.variance_explained(encoder(), GOOD)


# --- NumPy --------------------------------------------------------------------------------------

TAKES_DATA = {
    "responsibilities": h.responsibilities,
    "lse_loss": h.lse_loss,
    "pooled_lse_loss": h.pooled_lse_loss,
    "variance_loss": h.variance_loss,
    "correlation": h.correlation,
    "decorrelation_loss": h.decorrelation_loss,
    "log_det_loss": h.log_det_loss,
    "published_loss": h.published_loss,
    "revised_loss": lambda E: h.revised_loss(E, encoder().W.detach(), 0.3, 0.7),
    "sae_loss": lambda x: h.sae_loss(sae(), x, 0.5).detach(),
    "kappa": partial(h.kappa, n_units=4),
    "Encoder": lambda x: encoder()(x).detach(),
    "SparseAutoencoder": lambda x: sae(k=2)(x).detach(),
    "fit_decoder": lambda x: torch.vstack(h.fit_decoder(encoder(), x)),
    "transpose_decoder": lambda x: torch.vstack(h.transpose_decoder(encoder(), x)),
    "with_decoder": lambda x: h.with_decoder(encoder(), x, mean=x.mean(0)).V.detach(),
    "l0": h.l0,
    "dead": h.dead,
    "redundancy": h.redundancy,
    "responsibility_entropy": h.responsibility_entropy,
    "usage": h.usage,
    "variance_explained": lambda x: h.variance_explained(sae(), x),
    "fit": lambda x: h.fit(sae(), h.sae_loss, x, epochs=2, batch_size=8),
}


@pytest.mark.parametrize("name", TAKES_DATA)
def test_numpy_gives_what_a_tensor_gives(name):
    x = normal(40, 6)
    assert_allclose(TAKES_DATA[name](x.numpy()), TAKES_DATA[name](x), rtol=1e-12)


def test_integers_are_taken():
    E = np.arange(6).reshape(2, 3) ** 2
    expected = -np.log(E.var(0, ddof=1) + 1e-6).sum()
    assert h.variance_loss(E).item() == pytest.approx(expected)


def test_pixels_of_eight_bits_are_taken():
    x = np.random.default_rng(0).integers(0, 255, (40, 6), dtype=np.uint8)
    assert h.kappa(x, 4) == pytest.approx(x.astype(float).var(0, ddof=1).sum() / 4)
    assert np.isfinite(
        h.fit(h.SparseAutoencoder(6, 5), h.sae_loss, x, epochs=1, batch_size=8)
    ).all()
