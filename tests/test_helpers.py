"""helpers.py against NumPy, SciPy, scikit-learn, autograd, plain loops, and a theorem."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LinearRegression
from torch import nn
from torch.func import grad

import helpers as h

SGD = torch.optim.SGD
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


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


# --- Losses and measures of energies ------------------------------------------------------------


def off_diagonal(e):
    return np.square(np.corrcoef(e.T) - np.eye(e.shape[1])).sum()


TERMS = {
    "responsibilities": (h.responsibilities, lambda e: softmax(-e, axis=1)),
    "log-sum-exp": (h.lse_loss, lambda e: -logsumexp(-e, axis=1).sum()),
    "pooled": (h.pooled_lse_loss, lambda e: -len(e) * (logsumexp(-e) - np.log(len(e)))),
    "variance": (h.variance_loss, lambda e: -np.log(e.var(0, ddof=1) + 1e-6).sum()),
    "correlation": (h.correlation, lambda e: np.corrcoef(e.T)),
    "decorrelation": (h.decorrelation_loss, off_diagonal),
    "log-determinant": (
        partial(h.log_det_loss, s=0.05),
        lambda e: -np.linalg.slogdet(np.cov(e.T) + 0.05 * np.eye(e.shape[1]))[1],
    ),
    "redundancy": (h.redundancy, off_diagonal),
    "entropy": (
        h.responsibility_entropy,
        lambda e: stats.entropy(softmax(-e, axis=1), axis=1).mean(),
    ),
    "usage": (h.usage, lambda e: softmax(-e, axis=1).mean(0)),
}


@pytest.mark.filterwarnings("ignore:the log-determinant")
@pytest.mark.parametrize("shape", [(12, 5), (4, 9), (2, 2)])
@pytest.mark.parametrize("scale, shift", [(1e-3, 3), (1, 0), (300, 3)])
@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-9), (torch.float32, 2e-3)])
@pytest.mark.parametrize("term", TERMS)
def test_term_equals_numpy(term, shape, scale, shift, dtype, close):
    E = (scale * (normal(*shape) + shift)).to(dtype)
    found, reference = TERMS[term]
    assert_allclose(found(E), reference(E.double().numpy()), rtol=close, atol=close)


def test_gradients_of_the_log_sum_exps_are_responsibilities_of_one_input_and_of_all():
    E = 3 * normal(12, 5)
    e = np.exp(-E.numpy())
    assert_allclose(grad(h.lse_loss)(E), e / e.sum(1, keepdims=True), rtol=1e-12)
    assert_allclose(grad(h.pooled_lse_loss)(E), e / e.sum(1).mean(), rtol=1e-12)


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


def test_a_constant_unit_has_no_correlation_and_no_redundancy():
    E, kept = normal(300, 5).float(), [0, 1, 3, 4]
    E[:, 2] = 7.77  # a mean of float32 numbers is not exactly 7.77
    R = h.correlation(E)
    assert (R[2] == 0).all() and (R[:, 2] == 0).all()
    assert_allclose(R[kept][:, kept], np.corrcoef(E[:, kept].numpy().T), atol=1e-5)
    expected = off_diagonal(E[:, kept].numpy())
    assert h.decorrelation_loss(E).item() == pytest.approx(expected, abs=1e-5)
    assert h.redundancy(E) == pytest.approx(expected, abs=1e-5)
    assert np.isnan(h.redundancy(E[:, 2:4]))


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


@pytest.mark.parametrize("penalty", [h.lse_loss, h.pooled_lse_loss, torch.sum])
def test_losses_add_their_terms(penalty):
    """Of 64 rows, half the minibatch of the paper."""
    E, W = normal(64, 5).abs(), normal(5, 7)
    assert h.infomax_weight(3, E) == 3 / 2
    infomax = h.variance_loss(E) + h.decorrelation_loss(E)
    assert_allclose(h.published_loss(E, 3, penalty), penalty(E) + 3 / 2 * infomax)
    infomax = h.log_det_loss(E, 0.01) + 0.7 * np.square(W.numpy()).sum()
    found = h.revised_loss(E, W, lam=3, kappa=0.7, s=0.01, penalty=penalty)
    assert_allclose(found, penalty(E) + 3 / 2 * infomax)


def test_losses_are_by_default_of_the_log_sum_exp_and_the_paper():
    E, lse = normal(128, 5).abs(), h.lse_loss
    assert_allclose(h.published_loss(E), lse(E) + h.variance_loss(E) + h.decorrelation_loss(E))
    assert_allclose(h.revised_loss(E, np.eye(5), 1, 0), lse(E) + h.log_det_loss(E, s=1e-3))


names = "responsibilities lse_loss pooled_lse_loss variance_loss correlation decorrelation_loss "
names += "log_det_loss published_loss l0 dead redundancy responsibility_entropy usage"
OF_ENERGIES = {name: getattr(h, name) for name in names.split()}
OF_ENERGIES["revised_loss"] = lambda E: h.revised_loss(E, np.eye(6), 0.3, 0.7)
HAS_VARIANCE = ["variance_loss", "log_det_loss", "published_loss", "revised_loss"]


@pytest.mark.parametrize("name", HAS_VARIANCE)
def test_one_row_has_no_variance(name):
    with pytest.raises(ValueError, match="2 inputs or more, got 1"):
        OF_ENERGIES[name](normal(1, 6))


@pytest.mark.parametrize("shape", [(6,), (2, 9, 6)])
@pytest.mark.parametrize("name", OF_ENERGIES)
def test_energies_that_are_no_table_are_refused(name, shape):
    with pytest.raises(ValueError, match="table"):
        OF_ENERGIES[name](normal(*shape))


@pytest.mark.parametrize("W", [normal(7, 5), normal(5), normal(5, 5, 7), np.ones((4, 5))])
def test_revised_loss_refuses_weights_without_a_row_for_each_unit(W):
    with pytest.raises(ValueError, match="each of 5 units"):
        h.revised_loss(normal(64, 5), W, 1, 1)


@pytest.mark.parametrize("tied", [False, True])
def test_sae_loss_penalises_activations_times_the_norm_of_their_decoder_row(tied):
    model, x = sae(tied=tied), normal(20, 6)
    model.decoder.data *= torch.arange(1.0, 6)[:, None]
    model.c.data += 1
    W, b, V = (p.detach().numpy() for p in (model.W, model.b, model.decoder))
    A = (x.numpy() @ W.T + b).clip(0)
    error = np.square(A @ V + 1 - x.numpy()).sum()
    v = A if tied else A * np.linalg.norm(V, axis=1)
    assert h.sae_loss(model, x).item() == pytest.approx(error)
    assert h.sae_loss(model, x, 3.0).item() == pytest.approx(error + 3 * v.sum())
    found = h.sae_loss(model, x, 3.0, h.lse_loss).item()
    assert found == pytest.approx(error - 3 * logsumexp(-v, axis=1).sum())


def test_kappa_is_the_mean_variance_of_a_unit():
    x = normal(50, 6) * torch.arange(1, 7) + 5
    assert h.kappa(x, 4) == pytest.approx(np.trace(np.cov(x.numpy().T)) / 4)


def test_l0_and_dead_count_activations_above_zero():
    A = torch.tensor([[0, 1.0, 2], [0, 0, 1e-9], [-1, 0, 0]])
    assert h.l0(A) == 1 and h.dead(A) == 1


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


@pytest.mark.parametrize("k", [1, 2.0, 5])
def test_topk_keeps_the_k_largest_activations(k):
    model, x = sae(k=k), normal(40, 6)
    A = (x @ model.W.T + model.b).clamp(min=0).detach().numpy()
    A[A < np.sort(A)[:, [-int(k)]]] = 0
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
        (lambda: h.SparseAutoencoder(3, 4, k=5), "k must be .* 4 units, got 5"),
        (lambda: h.SparseAutoencoder(3, 4, k=0), "k must be"),
        (lambda: h.SparseAutoencoder(3, 4, k=2.5), "whole number"),
        (lambda: h.Encoder(3, 4)(torch.ones(9, 2)), "3 inputs.* 2 columns"),
    ],
)
def test_impossible_sizes_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("model", [encoder(), sae(k=3)], ids=["encoder", "SAE"])
def test_a_model_whose_inputs_moved_gives_for_them_what_it_gave(model):
    x, mean = normal(40, 6), torch.linspace(-3, 3, 6).double()
    before = model.encode(x).detach()
    h.move_inputs(model, mean)
    assert_allclose(model.encode(x + mean).detach(), before, atol=1e-12)


# --- Training -----------------------------------------------------------------------------------


def published(model, x):
    return h.published_loss(model(x), 0.5)


def revised(model, x, **options):
    return h.revised_loss(model(x), model.W, **options)


def test_fit_is_a_plain_loop():
    """Of ten minibatches and 5 rows that make none, with a factor of the rate for each epoch."""
    model, twin, x, factors = encoder(), encoder(), normal(165, 6), [1.0, 0.1, 3.0]
    options = {"epochs": 3, "batch_size": 16, "lr": 0.01, "optimizer": SGD}
    history = h.fit(model, published, x, schedule=factors, seed=7, **options)
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


def test_rate_schedule_ends_with_a_tenth():
    for epochs, last in {1: 0, 2: 1, 3: 1, 4: 1, 6: 1, 8: 2, 100: 25}.items():
        factors = [1] * (epochs - last) + [0.1] * last
        assert h.rate_schedule(epochs) == factors
        assert h.rate_schedule(epochs, slow_start=True) == [0.05, *factors[1:]]


def test_fit_trains_a_network_of_the_users_as_it_does_an_encoder():
    model, x = encoder(), normal(200, 6)
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU()).double()
    network.load_state_dict({"0.weight": model.W, "0.bias": model.b})
    options, factors = {"epochs": 3, "batch_size": 20, "lr": 0.01}, {"lam": 0.5, "kappa": 0.7}
    h.fit(network, lambda n, x: h.revised_loss(n(x), n[0].weight, **factors), x, **options)
    h.fit(model, partial(revised, **factors), x, **options)
    assert_allclose(network[0].weight.detach(), model.W.detach())
    assert not model.W.allclose(encoder().W, atol=0.01)


def test_fit_moves_inputs_to_the_type_and_the_device_of_the_model():
    x, options, found = normal(160, 6), {"epochs": 2, "batch_size": 16, "lr": 0.01}, []
    for given in (x, x.numpy(), x.float().to(DEVICE)):
        torch.manual_seed(0)
        network = nn.Linear(6, 5).to(DEVICE)
        found.append(h.fit(network, published, given, **options))
        assert network.weight.dtype == torch.float32 and network.weight.device.type == DEVICE
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("n_units, s", [(2, 0.05), (5, 0.05), (5, 1e-4), (8, 0.05)])
def test_infomax_and_weight_decay_alone_make_weights_a_decoder(n_units, s):
    """Theorem for linear energies without a penalty: the ridge regression of x on E is kappa W,
    and W'W = (I / kappa - s / Cov(x))_+ on the K leading principal components. So for K <= D the
    rows of W are orthogonal and of one norm, up to s / Cov(x)."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.W = nn.Parameter(encoder(5, n_units).W.detach())

        def forward(self, x):
            return x @ self.W.T

    x, kappa = normal(128, 5) * torch.tensor([2.0, 1.3, 0.9, 0.6, 0.1]), 2.0
    variance, U = np.linalg.eigh(torch.cov(x.T).numpy())
    model = Linear()
    loss = partial(revised, penalty=lambda E: 0 * E.sum(), s=s, lam=1, kappa=kappa)
    h.fit(model, loss, x, epochs=300, lr=0.05, optimizer=SGD)
    W, E = model.W.detach().numpy(), model(x).detach().numpy()
    power = np.maximum(1 / kappa - s / variance, 0) * (np.arange(5) >= 5 - n_units)
    assert_allclose(W.T @ W, U * power @ U.T, atol=1e-6)
    if n_units <= 5:
        identity, close = np.eye(n_units) / kappa, s / variance[-n_units] + 1e-6
        assert_allclose(W @ W.T, identity, atol=close)
    rows = np.vstack([E - E.mean(0), (s * 127) ** 0.5 * np.eye(n_units)])
    targets = np.vstack([x - x.mean(0), np.zeros((n_units, 5))])
    assert_allclose(np.linalg.lstsq(rows, targets, rcond=None)[0], kappa * W, atol=1e-6)


GOOD, NAN, INF = normal(40, 6), normal(40, 6), normal(40, 6)
NAN[7, 2], INF[3, 0], INF[4, 0] = torch.nan, torch.inf, -torch.inf
BAD = [
    (NAN, "1 values that are not finite, the first at row 7, column 2"),
    (INF, "2 values that are not finite, the first at row 3, column 0"),
    (torch.ones(40, 6), "constant"),
    (GOOD[0], "table"),
]


def fit_energies(x, loss=published, **options):
    return h.fit(encoder(), loss, x, **{"epochs": 1, "batch_size": 8} | options)


@pytest.mark.parametrize("x, said", BAD)
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
def test_inputs_from_which_nothing_can_be_learned_are_refused(function, x, said):
    with pytest.raises(ValueError, match=said):
        function(x)


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


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_fit_ends_after_an_epoch_with_a_loss_that_is_not_finite(wrong):
    """Of five minibatches an epoch, the second of the second epoch."""
    calls = []

    def loss(model, x):
        calls.append(x)
        return model(x).sum() + (wrong if len(calls) == 7 else 0)

    with pytest.raises(FloatingPointError, match=f"{wrong} in epoch 2; try a smaller lr"):
        fit_energies(GOOD, loss, epochs=4)
    assert len(calls) == 10


# --- Decoders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [0, 1000])
@pytest.mark.parametrize("k", [None, 2])
class TestDecoders:
    """Of inputs near 0 and far from it, and of units that are tiny, constant up to rounding, and
    nearly equal."""

    @pytest.fixture
    def case(self, far, k):
        """The model, x (300, 6) and, by NumPy, the activations A (300, 5)."""
        x, model = normal(300, 6) @ normal(6, 6, seed=1) + far, sae(k=k)
        model.b.data -= model.W.data.sum(1) * far
        for p in (model.W.data, model.b.data):
            p[1], p[3] = 1e-4 * p[1], p[0] + 1e-3 * p[3]
            p[2] = 1e-15 * p[2] + 9.1 * (p.dim() == 1)
        A = (x @ model.W.T + model.b).clamp(min=0).detach().numpy()
        if k:
            A[A < np.sort(A)[:, [-k]]] = 0
        return model, x, A

    def test_fit_decoder_is_linear_regression(self, case, k):
        model, x, A = case
        V, offset = h.fit_decoder(model, x)
        found, close = A @ V.numpy() + offset.numpy(), 1e-6 * x.std(0).min().item()
        assert_allclose(found, LinearRegression().fit(A, x).predict(A), rtol=0, atol=close)
        assert k or 0 < A[:, 2].std() < 1e-14
        assert (V[2] == 0).all()

    def test_transpose_decoder_has_one_gain_by_least_squares(self, case):
        model, x, A = case
        V, (found, offset) = model.V.detach().numpy(), h.transpose_decoder(model, x)
        design = ((A - A.mean(0)) @ V).reshape(-1, 1)
        gain = np.linalg.lstsq(design, (x - x.mean(0)).numpy().flatten(), rcond=None)[0]
        assert_allclose(found, gain * V)
        assert_allclose(offset, x.mean(0).numpy() - A.mean(0) @ (gain * V), rtol=1e-6, atol=1e-6)


MEAN = torch.linspace(-3, 3, 6).double()


@pytest.mark.parametrize("decoder", [h.fit_decoder, h.transpose_decoder])
@pytest.mark.parametrize("mean", [MEAN, MEAN[None], MEAN.numpy(), 2.5, 0])
@pytest.mark.parametrize("k", [None, 2])
def test_with_decoder_on_inputs_as_they_are_and_by_hand_on_centred_ones(k, mean, decoder):
    """The model is of centred inputs; the SAE takes x as it is, and gives x back as it is."""
    x, x_test, model = normal(200, 6), normal(50, 6, seed=1), sae(k=k) if k else encoder()
    given, mean, b = mean, torch.as_tensor(mean), model.b.clone()
    found = h.with_decoder(model, x + mean, decoder, mean=given)
    V, offset = decoder(model, x)
    by_hand = model.encode(x_test) @ V + offset + mean
    assert_allclose(found(x_test + mean).detach(), by_hand.detach(), atol=1e-9)
    assert_allclose(found.encode(x_test + mean).detach(), model.encode(x_test).detach(), atol=1e-9)
    assert model.b.equal(b)


@pytest.mark.parametrize(
    "model, mean, said",
    [
        (encoder(), MEAN, "taken off x already"),
        (encoder(), 2.5, "taken off x already"),
        (encoder(), MEAN[:5], "6 numbers.* got 5"),
        (nn.Linear(6, 5), 0, "got a Linear"),
    ],
)
def test_with_decoder_refuses_centred_inputs_other_means_and_other_models(model, mean, said):
    with pytest.raises(ValueError, match=said):
        h.with_decoder(model, normal(200, 6), mean=mean)


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


@pytest.mark.parametrize("chunk", [7, 1024])
def test_variance_explained_is_relative_to_the_mean_of_the_inputs_given(chunk):
    model, x = sae(), normal(50, 6) + 2
    expected = explained(x, model(x).detach())
    assert h.variance_explained(model, x, chunk=chunk) == pytest.approx(expected)


def test_variance_explained_takes_any_module_but_an_encoder():
    assert h.variance_explained(nn.Identity(), GOOD) == 1
    half = nn.LeakyReLU(0.5)
    assert h.variance_explained(half, GOOD) == pytest.approx(explained(GOOD, half(GOOD)))
    with pytest.raises(ValueError, match="with_decoder"):
        h.variance_explained(encoder(), GOOD)


# --- NumPy --------------------------------------------------------------------------------------


def moved(mean):
    model = encoder()
    h.move_inputs(model, mean)
    return model.b.detach()


TAKES_DATA = OF_ENERGIES | {
    "sae_loss": lambda x: h.sae_loss(sae(), x, 0.5).detach(),
    "kappa": partial(h.kappa, n_units=4),
    "Encoder": lambda x: encoder()(x).detach(),
    "SparseAutoencoder": lambda x: sae(k=2)(x).detach(),
    "fit_decoder": lambda x: torch.vstack(h.fit_decoder(encoder(), x)),
    "transpose_decoder": lambda x: torch.vstack(h.transpose_decoder(encoder(), x)),
    "with_decoder": lambda x: h.with_decoder(encoder(), x, mean=x[0]).V.detach(),
    "move_inputs": lambda x: moved(x[0]),
    "variance_explained": lambda x: h.variance_explained(sae(), x),
    "fit": lambda x: h.fit(sae(), h.sae_loss, x, epochs=2, batch_size=8),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", TAKES_DATA)
@pytest.mark.parametrize("kind", ["NumPy", "lists", "bytes"])
def test_numpy_and_lists_and_bytes_give_what_a_tensor_gives(name, kind):
    x = (60 * normal(40, 6)).round().clamp(0, 255)  # pixels
    given = {"NumPy": x.numpy(), "lists": x.tolist(), "bytes": x.numpy().astype(np.uint8)}[kind]
    assert_allclose(TAKES_DATA[name](given), TAKES_DATA[name](x), rtol=1e-12)
