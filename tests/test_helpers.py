"""helpers.py against NumPy, SciPy, scikit-learn, autograd, plain loops, and a theorem."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LinearRegression, Ridge
from torch import nn
from torch.func import grad

import helpers as h

SGD = torch.optim.SGD
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def encoder(n_inputs=6, n_units=5):
    return h.Encoder(n_inputs, n_units).double()


def sae(n_inputs=6, n_units=5, **options):
    return h.SparseAutoencoder(n_inputs, n_units, **options).double()


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
@pytest.mark.parametrize("term", TERMS)
def test_term_equals_numpy(term):
    """In single precision too: of small differences; and of large energies of fewer rows than
    units."""
    found, reference = TERMS[term]
    small, large = 1e-3 * (normal(12, 5) + 3), 300 * (normal(4, 9) + 3)
    for E, close in ((normal(12, 5), 1e-9), (small.float(), 2e-3), (large.float(), 2e-3)):
        assert_allclose(found(E), reference(E.double().numpy()), rtol=close, atol=close)


@pytest.mark.parametrize("far", [0, 1000, -1000])  # at which exp(-E) is 0 or infinite
def test_gradients_of_the_log_sum_exps_are_responsibilities_of_one_input_and_of_all(far):
    E = 3 * normal(12, 5)
    e = np.exp(-E.numpy())
    assert_allclose(grad(h.lse_loss)(E + far), e / e.sum(1, keepdims=True), rtol=1e-9)
    assert_allclose(grad(h.pooled_lse_loss)(E + far), e / e.sum(1).mean(), rtol=1e-9)


def test_a_constant_unit_has_no_correlation_and_gradients_stay_finite():
    E, kept = normal(300, 5).float(), [0, 1, 3, 4]
    E[:, 2] = 7.77  # a mean of float32 numbers is not exactly 7.77
    R = h.correlation(E)
    assert (R[2] == 0).all() and (R[:, 2] == 0).all()
    assert_allclose(R[kept][:, kept], np.corrcoef(E[:, kept].numpy().T), atol=1e-5)
    expected = off_diagonal(E[:, kept].numpy())
    assert h.decorrelation_loss(E).item() == pytest.approx(expected, abs=1e-5)
    assert h.redundancy(E) == pytest.approx(expected, abs=1e-5)
    assert np.isnan(h.redundancy(E[:, 2:4]))
    for loss in (h.variance_loss, h.decorrelation_loss, h.log_det_loss):
        assert loss(E).isfinite() and grad(loss)(E).isfinite().all()


def test_log_determinant_of_float32_energies_does_not_lose_s():
    """Of each unit and a copy of it: eigenvalues 2 Cov + s, and s. Cov is 1e6 to 1e7 times s."""
    E = normal(50, 4).float()
    cov, s = np.cov(E.double().numpy().T), 1e-6
    expected = np.linalg.slogdet(2 * cov + s * np.eye(4))[1] + 4 * np.log(s)
    assert h.log_det_loss(torch.cat([E, E], 1), s).item() == pytest.approx(-expected, rel=1e-4)


def test_log_determinant_warns_of_fewer_rows_than_units_and_is_nan_if_energies_are():
    with pytest.warns(UserWarning, match="9 units from minibatches of 8 rows"):
        h.log_det_loss(normal(8, 9))
    E = normal(9, 9)
    E[2, 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert h.log_det_loss(E).isnan()


def test_losses_add_their_terms():
    """Of 64 rows, half the minibatch of the paper; by default of the log-sum-exp."""
    E, W = normal(64, 5).abs(), normal(5, 7)
    paper = h.variance_loss(E) + h.decorrelation_loss(E)
    assert_allclose(h.published_loss(E), h.lse_loss(E) + paper / 2)
    assert_allclose(h.published_loss(E, 3, torch.sum), E.sum() + 3 / 2 * paper)
    revised = h.log_det_loss(E, s=1e-3) + 0.7 * np.square(W.numpy()).sum()
    assert_allclose(h.revised_loss(E, W, lam=3, kappa=0.7), h.lse_loss(E) + 3 / 2 * revised)
    found = h.revised_loss(E, W, 3, 0, penalty=torch.sum, infomax=h.infomax_loss)
    assert_allclose(found, E.sum() + 3 / 2 * paper)


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


def test_variance_per_unit_is_a_trace_of_a_covariance():
    x = normal(50, 6) * torch.arange(1, 7) + 5
    assert h.variance_per_unit(x, 4) == pytest.approx(np.trace(np.cov(x.numpy().T)) / 4)


def test_l0_and_dead_count_activations_above_zero():
    A = torch.tensor([[0, 1.0, 2], [0, 0, 1e-9], [-1, 0, 0]])
    assert h.l0(A) == 1 and h.dead(A) == 1


# --- Models -------------------------------------------------------------------------------------


def test_weights_start_within_the_bound_of_pytorch_and_decoder_rows_along_them():
    one, other = (h.Encoder(400, 64, seed=s) for s in (3, 4))
    assert not one.W.equal(other.W)
    assert 0.99 / 20 < one.W.abs().max() <= 1 / 20 and abs(one.W.mean()) < 1e-3
    assert one.W.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)
    model, W = h.SparseAutoencoder(400, 64, seed=3), one.W.detach().numpy()
    assert model.W.equal(one.W) and model.b.equal(one.b) and not model.c.any()
    assert_allclose(model.V.detach(), W / np.linalg.norm(W, axis=1, keepdims=True), rtol=1e-5)


def test_topk_keeps_the_k_largest_activations_and_k_of_equal_ones():
    model, x = sae(k=2.0), normal(40, 6)
    A = (x @ model.W.T + model.b).clamp(min=0).detach().numpy()
    A[A < np.sort(A)[:, [-2]]] = 0
    assert_allclose(model.encode(x).detach(), A)
    model.W.data[:], model.b.data[:] = 0, 1
    assert ((model.encode(x) > 0).sum(1) == 2).all()


@pytest.mark.parametrize("model", [encoder(), sae(k=3)], ids=["encoder", "TopK SAE"])
def test_rows_of_any_shape_give_what_a_table_of_them_gives(model):
    """(batch, sequence, D), as a language model's activations."""
    x = normal(60, 6)
    assert_allclose(model.encode(x.view(4, 15, 6)).detach().view(60, 5), model.encode(x).detach())


# --- Training -----------------------------------------------------------------------------------


def published(model, x):
    return h.published_loss(model(x), 0.5)


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
    for epochs, last in {1: 0, 2: 1, 6: 1, 8: 2, 100: 25}.items():
        factors = [1] * (epochs - last) + [0.1] * last
        assert h.rate_schedule(epochs) == factors
        assert h.rate_schedule(epochs, slow_start=True) == [0.05, *factors[1:]]


def test_fit_takes_a_network_of_the_users_and_moves_inputs_to_its_type_and_device():
    x, options, found = normal(160, 6), {"epochs": 2, "batch_size": 16, "lr": 0.01}, []
    for given in (x, x.numpy(), x.float().to(DEVICE)):
        torch.manual_seed(0)
        network = nn.Linear(6, 5).to(DEVICE)
        found.append(h.fit(network, published, given, **options))
        assert network.weight.dtype == torch.float32 and network.weight.device.type == DEVICE
    assert found[0] == found[1] == found[2] and found[0][1] < found[0][0]


@pytest.mark.parametrize("n_units", [2, 8])
def test_infomax_and_weight_decay_alone_make_weights_a_decoder(n_units):
    """Theorem for linear energies without a penalty: the ridge regression of x on E is kappa W,
    and W'W = (I / kappa - s / Cov(x))_+ on the K leading principal components. So for K <= D the
    rows of W are orthogonal and of one norm, up to s / Cov(x)."""

    def loss(model, x):
        terms = {"penalty": lambda E: 0 * E.sum(), "infomax": partial(h.log_det_loss, s=s)}
        return h.revised_loss(model(x), model.weight, lam=1, kappa=kappa, **terms)

    x, kappa, s = normal(128, 5) * torch.tensor([2.0, 1.3, 0.9, 0.6, 0.1]), 2.0, 0.05
    model = nn.Linear(5, n_units, bias=False).double()
    model.weight.data = encoder(5, n_units).W.data
    h.fit(model, loss, x, epochs=300, lr=0.05, optimizer=SGD)
    W, E = model.weight.detach().numpy(), model(x).detach().numpy()
    assert_allclose(Ridge(alpha=s * 127).fit(E, x).coef_.T, kappa * W, atol=1e-6)
    variance, U = np.linalg.eigh(torch.cov(x.T).numpy())
    power = np.maximum(1 / kappa - s / variance, 0) * (np.arange(5) >= 5 - n_units)
    assert_allclose(W.T @ W, U * power @ U.T, atol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_fit_ends_after_an_epoch_with_a_loss_that_is_not_finite(wrong):
    """Of five minibatches an epoch, the second of the second epoch."""
    calls = []

    def loss(model, x):
        calls.append(x)
        return model(x).sum() + (wrong if len(calls) == 7 else 0)

    with pytest.raises(FloatingPointError, match=f"{wrong} in epoch 2; try a smaller lr"):
        h.fit(encoder(), loss, normal(40, 6), epochs=4, batch_size=8)
    assert len(calls) == 10


# --- Decoders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k, far", [(None, 0), (None, 1000), (2, 1000)])
def test_decoders_are_least_squares(k, far):
    """Of inputs near 0 and far from it, and of units that are tiny (1), constant up to rounding
    (2), and nearly equal (0 and 3): a linear regression, and one gain of the rows as they are."""
    x, model = normal(300, 6) @ normal(6, 6, seed=1) + far, sae(k=k)
    model.b.data -= model.W.data.sum(1) * far
    for p in (model.W.data, model.b.data):
        p[1], p[3] = 1e-4 * p[1], p[0] + 1e-3 * p[3]
        p[2] = 1e-15 * p[2] + 9.1 * (p.dim() == 1)
    A = (x @ model.W.T + model.b).clamp(min=0).detach().numpy()
    if k:
        A[A < np.sort(A)[:, [-k]]] = 0
    V, offset = h.fit_decoder(model, x)
    found, close = A @ V.numpy() + offset.numpy(), 1e-6 * x.std(0).min().item()
    assert_allclose(found, LinearRegression().fit(A, x).predict(A), rtol=0, atol=close)
    assert k or 0 < A[:, 2].std() < 1e-14
    assert (V[2] == 0).all()

    V, (found, offset) = model.V.detach().numpy(), h.transpose_decoder(model, x)
    design = ((A - A.mean(0)) @ V).reshape(-1, 1)
    gain = np.linalg.lstsq(design, (x - x.mean(0)).numpy().flatten(), rcond=None)[0]
    assert_allclose(found, gain * V)
    assert_allclose(offset, x.mean(0).numpy() - A.mean(0) @ (gain * V), rtol=1e-6, atol=1e-6)


MEAN = torch.linspace(-3, 3, 6).double()


@pytest.mark.parametrize("mean", [MEAN, 2.5, 0], ids=["means", "a number", "none"])
@pytest.mark.parametrize("decoder", [h.fit_decoder, h.transpose_decoder])
@pytest.mark.parametrize("k", [None, 2])
def test_with_decoder_on_inputs_as_they_are_and_by_hand_on_centred_ones(k, decoder, mean):
    """The model is of centred inputs; the SAE takes x as it is, and gives x back as it is."""
    x, x_test, model = normal(200, 6), normal(50, 6, seed=1), sae(k=k) if k else encoder()
    b = model.b.clone()
    found = h.with_decoder(model, (x + mean).numpy(), decoder, mean=mean)
    V, offset = decoder(model, x)
    by_hand = model.encode(x_test) @ V + offset + mean
    assert_allclose(found(x_test + mean).detach(), by_hand.detach(), atol=1e-9)
    assert_allclose(found.encode(x_test + mean).detach(), model.encode(x_test).detach(), atol=1e-9)
    assert model.b.equal(b)


def test_the_decoder_of_dead_units_gives_the_mean():
    model, x = encoder(), normal(200, 6) + 3
    model.b.data -= 1000
    for V, offset in (h.fit_decoder(model, x), h.transpose_decoder(model, x)):
        assert (V == 0).all()
        assert_allclose(offset, x.mean(0))


@pytest.mark.parametrize("model", [sae(), nn.LeakyReLU(0.5)], ids=["SAE", "any module"])
def test_variance_explained_is_relative_to_the_mean_of_the_inputs_given(model):
    x = normal(50, 6) + 2
    error, total = (model(x) - x).square().sum(), (x - x.mean(0)).square().sum()
    expected = 1 - (error / total).item()
    assert h.variance_explained(model, x) == pytest.approx(expected)
    assert h.variance_explained(model, x.numpy(), chunk=7) == pytest.approx(expected)


# --- What is taken and what is refused ----------------------------------------------------------


names = "responsibilities lse_loss pooled_lse_loss variance_loss correlation decorrelation_loss "
names += "log_det_loss published_loss l0 dead redundancy responsibility_entropy usage"


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", names.split())
def test_energies_are_a_table_also_of_bytes(name):
    E, function = (9 * normal(40, 6)).abs().byte(), getattr(h, name)
    assert_allclose(function(E.numpy()), function(E.double()), rtol=1e-12)
    with pytest.raises(ValueError, match="table"):
        function(normal(2, 9, 6))


def fit_energies(x, **options):
    return h.fit(encoder(), published, x, **{"epochs": 1, "batch_size": 8} | options)


GOOD, BAD = normal(40, 6), normal(40, 6)
BAD[7, 2], BAD[9, 0] = torch.nan, -torch.inf


@pytest.mark.parametrize(
    "x, said",
    [
        (BAD, "2 values that are not finite, the first at row 7, column 2"),
        (torch.ones(40, 6), "constant"),
        (GOOD[0], "table"),
    ],
)
def test_inputs_from_which_nothing_can_be_learned_are_refused(x, said):
    learn = partial(h.variance_per_unit, n_units=3), partial(h.with_decoder, encoder())
    for function in (fit_energies, *learn, partial(h.variance_explained, sae())):
        with pytest.raises(ValueError, match=said):
            function(x)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: h.published_loss(GOOD[:1]), "2 inputs or more, got 1"),
        (lambda: h.log_det_loss(GOOD[:1]), "2 inputs or more, got 1"),
        (lambda: h.revised_loss(GOOD, GOOD.T[:5], 1, 1), "each of 6 units"),
        (lambda: sae(k=6), "k must be .* 5 units, got 6"),
        (lambda: sae(k=2.5), "whole number"),
        (lambda: encoder()(torch.ones(9, 2)), "6 inputs.* 2 columns"),
        (lambda: fit_energies(GOOD, batch_size=41), "41 rows"),
        (lambda: fit_energies(GOOD, epochs=3, schedule=[1, 1]), "schedule"),
        (lambda: h.with_decoder(encoder(), GOOD - GOOD.mean(0), mean=MEAN), "taken off x already"),
        (lambda: h.with_decoder(encoder(), GOOD, mean=MEAN[:5]), "6 numbers.* got 5"),
        (lambda: h.with_decoder(nn.Linear(6, 5), GOOD), "got a Linear"),
        (lambda: h.with_decoder(type("Leaky", (h.Encoder,), {})(6, 5), GOOD), "got a Leaky"),
        (lambda: h.fit(encoder().requires_grad_(False), None, GOOD, epochs=1), "no parameters"),
        (lambda: h.variance_explained(encoder(), GOOD), "with_decoder"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
