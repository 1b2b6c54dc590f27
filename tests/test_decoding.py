"""lab/decoding.py against NumPy, scikit-learn, brute force, and numbers made by hand."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import r2_score
from torch.autograd import grad

import helpers as h
from lab import decoding

D, K = 6, 5
MEAN = torch.linspace(-3, 3, D).double()
encoder, sae = partial(h.Encoder, D, K), partial(h.SparseAutoencoder, D, K)
double = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(actual, expected, rtol=1e-7, atol=1e-9):
    pair = (v.detach() if torch.is_tensor(v) else v for v in (actual, expected))
    assert_allclose(*pair, rtol=rtol, atol=atol)


# --- Decoders -------------------------------------------------------------------------------------


@double
@pytest.mark.parametrize("k, far", [(None, 0), (None, 1000), (2, 1000)])
def test_decoders_are_least_squares(k, far):
    """Of more rows than are taken at once, sorted; near 0 and far from it; of units that are tiny
    (1), constant up to rounding (2), and nearly equal (0 and 3)."""
    x = normal(5000, D) @ normal(D, D, seed=1) + far
    x, model = x[x[:, 0].argsort()], sae(k=k)
    model.b.data -= model.W.data.sum(1) * far
    for p in (model.W.data, model.b.data):
        p[1], p[3] = 1e-4 * p[1], p[0] + 0.1 * p[3]
        p[2] = 1e-15 * p[2] + 9.1 * (p.dim() == 1)
    A, (own, best) = model(x).detach(), decoding.with_own_and_best_decoder(model, x)
    ones = torch.cat([A, torch.ones(len(A), 1)], 1)
    solution, *_ = np.linalg.lstsq(ones.numpy(), x.numpy(), rcond=None)
    close(A @ best.V + best.offset, ones.numpy() @ solution, 0, 1e-6 * x.std(0).min().item())
    assert k or not best.V[2].any()

    V, offset, gain = own.V, own.offset.requires_grad_(), torch.ones(1).requires_grad_()
    error = (A @ (gain * V) + offset - x).square().mean()
    close(torch.cat(grad(error, (gain, offset))) / (1 + far**2), torch.zeros(7))  # the minimum
    close(V / V[0, 0], model.V / model.V[0, 0])
    for other, expected in ((best.V, best.V), (-3 * V, V)):  # of any decoder, whatever its size
        close(decoding.with_scaled_rows(model, other, x).V, expected, 1e-5)


@double
def test_units_active_on_fewer_than_ten_rows_are_not_decoded():
    x, model = normal(300, D), encoder()
    x[:, 0], x[9:, :2], model.W.data[:2], model.b.data[:2] = 0, -1, torch.eye(2, D), 0
    x[:9, 0], x[:10, 1] = 1 + x[:9, 2] ** 2, 1 + x[:10, 3] ** 2
    (_, best), A = decoding.with_own_and_best_decoder(model, x), model(x).detach()
    assert not best.V[0].any() and best.V[1:].all()
    close(best.reconstruct(x), LinearRegression().fit(A[:, 1:], x).predict(A[:, 1:]))


@double
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("new", [encoder, partial(sae, k=2)])
def test_a_decoded_model_gives_inputs_as_they_are(new, which):
    """By hand, on centred inputs and with a model of centred inputs. Of dead units, the mean."""
    x, x_test, model = normal(200, D), normal(50, D, seed=1), new(mean=MEAN)
    decoded = decoding.with_own_and_best_decoder(model, x + MEAN)[which]
    centred = decoding.with_own_and_best_decoder(new(), x)[which]
    expected = new()(x_test) @ centred.V + centred.offset + MEAN
    close(decoded.reconstruct(x_test + MEAN), expected)
    close(decoded(x_test + MEAN), new()(x_test))
    x_hat = decoded.reconstruct(x).detach()
    share = r2_score(x, x_hat, multioutput="variance_weighted")
    assert decoding.variance_explained(x_hat, x) == pytest.approx(100 * share)
    model.b.data -= 1000
    of_dead = decoding.with_own_and_best_decoder(model, x)[which].reconstruct(x_test)
    close(of_dead, x.mean(0).expand(50, D), 1e-5, 1e-6)


def test_the_variance_explained_of_bytes_is_that_of_numbers():
    pixels = (255 * torch.rand(40, D, generator=torch.Generator().manual_seed(0))).byte()
    x_hat = pixels.flip(0)
    expected = decoding.variance_explained(x_hat.double(), pixels.double())
    assert decoding.variance_explained(x_hat, pixels) == expected


def test_decoders_are_fitted_to_so_many_rows(monkeypatch):
    x = normal(300, D)
    expected = decoding.with_own_and_best_decoder(sae(), x[:250])
    monkeypatch.setattr(decoding, "N_FIT_ROWS", 250)
    for model, same in zip(decoding.with_own_and_best_decoder(sae(), x), expected):
        assert model.V.equal(same.V) and model.offset.equal(same.offset)


class Transposed(h.SparseAutoencoder):
    def decode(self, A):
        return A @ self.V.T + self.c


class Scaled(h.SparseAutoencoder):
    def decode(self, A):
        return A @ (2 * self.V) + self.c


def test_a_decoder_that_is_not_the_one_in_use_is_refused():
    """A transposed one of another shape, and of the same; one that decode() changes."""
    wide = sae()
    wide.V.data = wide.V.data.T.contiguous()
    square, scaled = Transposed(D, D), Scaled(D, K)
    for model, said in ((wide, "must be"), (square, "decode"), (scaled, "decode")):
        with pytest.raises(ValueError, match=said):
            decoding.with_own_and_best_decoder(model, normal(50, D))
    far = sae(mean=1000 + MEAN.float())  # whose offset rounds
    decoding.with_own_and_best_decoder(far, normal(50, D) + 1000)


# --- Measures -------------------------------------------------------------------------------------


# Of another scale and other correlations, so that any other pairing of them gives other numbers
TRAIN, TEST = normal(300, D), 0.7 * normal(200, D, seed=1) @ normal(D, D, seed=2) + 0.4
Y_TRAIN, Y_TEST = (TRAIN[:, :3].argmax(1), TEST[:, :3].argmax(1))
MODEL, SAE = encoder(mean=torch.ones(D), seed=1), sae(seed=1)


@pytest.mark.parametrize("model, size", [(MODEL, 35), (SAE, 71)])
def test_the_benchmark_fits_on_training_rows_and_judges_on_test_inputs(model, size):
    row = decoding.benchmark_scores(model, TRAIN, Y_TRAIN, TEST, Y_TEST)
    A, A_test = model(TRAIN).detach(), model(TEST).detach()
    own, best = (
        one.reconstruct(TEST).detach() for one in decoding.with_own_and_best_decoder(model, TRAIN)
    )
    assert row["MSE"] == pytest.approx(float((own - TEST).square().sum()) / (200 * D))
    columns = {"variance explained": own, "variance explained by the best decoder": best}
    for column, x_hat in columns.items():
        share = r2_score(TEST, x_hat, multioutput="variance_weighted")
        assert row[column] == pytest.approx(100 * share, abs=1e-3)
    assert row["parameters"] == size and row["purity"] == decoding.purity(A_test, Y_TEST)
    assert row["L0"] == h.l0(A_test) and row["dead units"] == 0
    A, A_test = ((part - A.mean(0)) / A.std(0) for part in (A, A_test))
    right = LogisticRegression(max_iter=1000, tol=1e-8).fit(A, Y_TRAIN).score(A_test, Y_TEST)
    assert row["classifier"] == pytest.approx(100 * right, abs=0.51)  # but for one of 200 inputs


def test_scores_are_compared_with_those_of_pixels_and_of_the_mean_of_training_inputs():
    found = decoding.reference_scores(TRAIN, Y_TRAIN, TEST, Y_TEST)
    accuracy = decoding.classifier_accuracy(TRAIN, Y_TRAIN, TEST, Y_TEST)
    assert found["classifier"]["pixels"] == accuracy
    mean = TRAIN.mean(0) / TRAIN.mean(0).norm()
    errors = [(row.norm() * mean - row).square().mean() for row in TEST]
    expected = pytest.approx(sum(errors).item() / 200)
    assert found["norm-matched error"]["mean image"] == expected


def test_errors_are_of_outputs_that_have_the_norm_of_their_inputs():
    for model, decoder in ((MODEL, MODEL.W), (SAE, SAE.V)):
        x_hat = (model(TEST) @ decoder).detach()
        errors = [(row * x.norm() / row.norm() - x).square().mean() for row, x in zip(x_hat, TEST)]
        expected = pytest.approx(sum(errors).item() / 200)
        assert decoding.norm_matched_error(x_hat, TEST) == expected
        row = decoding.benchmark_scores(model, TRAIN, Y_TRAIN, TEST, Y_TEST)
        assert row["norm-matched error"] == expected


def test_predicted_rows_are_the_best_of_uncorrelated_units_without_a_relu():
    """And of others, they are the formula's."""
    x = TRAIN @ normal(D, D, seed=2)
    axes = torch.linalg.eigh(torch.cov(x.T)).eigenvectors.T[:K]
    linear = encoder()
    linear.W.data, linear.b.data = axes, torch.full((K,), 99.0)  # all units are always active
    _, best = decoding.with_own_and_best_decoder(linear, x)
    expected = decoding.variance_explained(best.reconstruct(TEST), TEST)
    found = decoding.explained_by_predicted_rows(linear, x, TEST)
    assert found == pytest.approx(expected, abs=1e-2)
    E, W = MODEL(TRAIN).detach().numpy(), MODEL.W.detach().numpy()
    rows = torch.tensor(W @ np.cov(TRAIN.T) / E.var(0)[:, None])
    decoded = decoding.with_scaled_rows(MODEL, rows, TRAIN)
    expected = decoding.variance_explained(decoded.reconstruct(TEST).detach(), TEST)
    found = decoding.explained_by_predicted_rows(MODEL, TRAIN, TEST)
    assert found == pytest.approx(expected, abs=1e-2)


def test_a_unit_that_is_dead_on_the_fitting_rows_has_no_predicted_row():
    """Though it is active on one of the test rows."""
    model, odd = encoder(seed=1), TEST[:1] + 1000
    model.W.data[0], model.b.data[0] = 1.0, -float(TRAIN.sum(1).max()) - 1
    assert float(model(odd)[0, 0].detach()) > 0 and not model(TRAIN)[:, 0].any()
    found = decoding.explained_by_predicted_rows(model, TRAIN, torch.cat([TEST[1:], odd]))
    assert -1000 < found <= 100


def test_purity_weights_classes_equally_and_leaves_out_dead_units():
    y, shares = torch.tensor([0] * 40 + [1] * 15 + [2] * 5), []
    A = torch.relu(normal(60, 4)) * torch.tensor([1, 3, 0, 0.1])
    A[:, 3] *= y == 2
    for unit in (0, 1, 3):
        means = [np.mean([a for a, c in zip(A[:, unit].tolist(), y) if c == k]) for k in range(3)]
        shares.append(max(means) / sum(means))
    assert shares[2] == 1 and decoding.purity(A, y) == pytest.approx(np.mean(shares))
