"""Linear decoders of trained models, and what a code is good for: decoding and classifying.

Shares of variance and of inputs are in percent. A decoder is V (K, D) and an offset (D,): codes A
(N, K) are decoded to A V + offset.
"""

import warnings

import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import normalize

import helpers as h

N_FIT_ROWS = 20_000  # training rows to which decoders are fitted
MIN_ACTIVE = 10  # of these; a unit that is active on fewer has no row in the best decoder

# --- Decoders -------------------------------------------------------------------------------------


class WithDecoder(torch.nn.Module):
    """A trained model with the decoder V (K, D) and offset (D,)."""

    def __init__(self, model, V, offset):
        super().__init__()
        self.model = model
        parameter = next(model.parameters())
        self.register_buffer("V", V.to(parameter))
        self.register_buffer("offset", offset.to(parameter))

    def forward(self, x):
        return self.model(x)

    def decode(self, A):
        return A @ self.V + self.offset

    def reconstruct(self, x):
        return self.decode(self(x))


@torch.no_grad()
def decoder_rows(model, n_units, n_inputs):
    """Return the decoder V (K, D) of an SAE; that of the paper's layer is W (§4.3).

    Raises ValueError if it has another shape, or if the model's decode(A) is not A V + offset, as
    with a transposed V.
    """
    V = (model.V if hasattr(model, "V") else model.W).detach()
    if V.shape != (n_units, n_inputs):
        raise ValueError(
            f"its decoder V must be (K, D) = {n_units, n_inputs}, not {tuple(V.shape)}"
        )
    if hasattr(model, "decode"):
        nothing = V.new_zeros(1, n_units)
        rows = model.decode(torch.eye(n_units).to(V)) - model.decode(nothing)
        if not rows.allclose(V, rtol=1e-3, atol=1e-3 * float(V.abs().max())):
            raise ValueError("its decode(A) must be A V + an offset, with V (K, D)")
    return V


@torch.no_grad()
def with_own_and_best_decoder(model, x):
    """Return the model with its own decoder, which gets one gain and an offset, and the model with
    the best linear decoder, both fitted by least squares to the first N_FIT_ROWS rows of x."""
    moments = _moments(model, x[:N_FIT_ROWS])
    V = decoder_rows(model, moments[0].shape[1], x.shape[1])
    return _with_gain(model, V, moments), _with_least_squares(model, moments)


@torch.no_grad()
def with_scaled_rows(model, V, x):
    """Return the model with the decoder V (K, D), times the one gain that fits best, and the best
    offset, fitted to the first N_FIT_ROWS rows of x."""
    return _with_gain(model, V, _moments(model, x[:N_FIT_ROWS]))


def _moments(model, x, rows=4096):
    """Return A = model(x), the means of A and of x, N Cov(A) and N Cov(A, x), in float64."""
    A = torch.cat([model(part) for part in x.split(rows)]).double()
    A_mean = A.mean(0)
    x_mean = sum(part.to(A).sum(0) for part in x.split(rows)) / len(x)
    C = A - A_mean
    cross = sum(c.T @ (part.to(A) - x_mean) for c, part in zip(C.split(rows), x.split(rows)))
    return A, A_mean, x_mean, C.T @ C, cross


def _with_gain(model, V, moments):
    _, A_mean, x_mean, scatter, cross = moments
    V = V.double()
    gain = (V * cross).sum() / (scatter * (V @ V.T)).sum().clamp_min(1e-300)
    return WithDecoder(model, gain * V, x_mean - gain * (A_mean @ V))


def _with_least_squares(model, moments):
    """The row of V is 0 for a unit that is constant, or active on fewer rows than MIN_ACTIVE."""
    A, A_mean, x_mean, scatter, cross = moments
    norm = scatter.diagonal().sqrt()
    rounding = 1e-6 * len(A) ** 0.5 * A_mean.abs()  # of a constant unit, which is not inverted
    norm[((A != 0).sum(0) < MIN_ACTIVE) | (norm <= rounding)] = torch.inf
    R, cross = scatter / norm / norm[:, None], cross / norm[:, None]
    V = torch.linalg.pinv(R, rtol=1e-6, hermitian=True) @ cross / norm[:, None]
    return WithDecoder(model, V, x_mean - A_mean @ V)


# --- Measures -------------------------------------------------------------------------------------


@torch.no_grad()
def variance_explained(x_hat, x):
    """Return 1 - FVU of reconstructions x_hat (N, D): one minus their squared error over that of
    the mean of x (N, D)."""
    x_hat, x = x_hat.double(), x.double()
    return 100 * float(1 - (x_hat - x).square().sum() / (x - x.mean(0)).square().sum())


@torch.no_grad()
def norm_matched_error(x_hat, x):
    """Return the mean squared error per entry of x_hat (N, D), rescaled to the norms of x (N, D).

    This is how the script of the paper measures reconstructions A V, without an offset.
    """
    x_hat = normalize(x_hat, dim=1) * x.norm(dim=1, keepdim=True)
    return float((x_hat - x).square().mean())


def classifier_accuracy(A, y, A_test, y_test):
    """Return the test accuracy of a logistic regression on A (N, K), standardised."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=3e-4))
    A, y, A_test, y_test = (t.detach().cpu().numpy() for t in (A, y, A_test, y_test))
    with warnings.catch_warnings():  # it may end before it has converged, as of pixels
        warnings.simplefilter("ignore", ConvergenceWarning)
        return 100 * classifier.fit(A, y).score(A_test, y_test)


def purity(A, y):
    """Return how specific active units are to one class, for A (N, K) and labels y (N,).

    Of unit j: max_c a_jc / sum_c a_jc, with a_jc its mean activation on class c; then the mean over
    the units that are not dead.
    """
    a = torch.stack([A[y == c].double().mean(0) for c in y.unique()], 1)
    a = a[a.sum(1) > 0]
    return float((a.amax(1) / a.sum(1)).mean())


# --- All of a model -------------------------------------------------------------------------------


@torch.no_grad()
def decoding_scores(model, x, x_test):
    """Return how well activations of x_test (M, D) are decoded, by decoders fitted on x (N, D).

    A dict: "L0"; "dead units"; "MSE" and "variance explained" by W^T, or an SAE's own decoder, with
    one gain and an offset; "variance explained by the best decoder".
    """
    A = model(x_test)
    own, best = with_own_and_best_decoder(model, x)
    x_hat = own.decode(A).to(x_test)
    return {
        "L0": h.l0(A),
        "dead units": h.dead_units(A),
        "MSE": h.mse(x_hat, x_test),
        "variance explained": variance_explained(x_hat, x_test),
        "variance explained by the best decoder": variance_explained(best.decode(A), x_test),
    }


@torch.no_grad()
def benchmark_scores(model, x, y, x_test, y_test):
    """Return `decoding_scores`, and the number of "parameters", the paper's "norm-matched error",
    the accuracy of a "classifier" and the "purity" of units: a dict. x is (N, D), and y (N,)."""
    A_test = model(x_test)
    V = decoder_rows(model, A_test.shape[1], x.shape[1])
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        **decoding_scores(model, x, x_test),
        "norm-matched error": norm_matched_error(A_test @ V, x_test),
        "classifier": classifier_accuracy(model(x), y, A_test, y_test),
        "purity": purity(A_test, y_test),
    }


def reference_scores(x, y, x_test, y_test):
    """Return what benchmark scores are compared with, a DataFrame: the accuracy of a classifier on
    "pixels", and the norm-matched error of the "mean image"."""
    error = norm_matched_error(x.mean(0).expand_as(x_test), x_test)
    scores = {
        "pixels": {"classifier": classifier_accuracy(x, y, x_test, y_test)},
        "mean image": {"norm-matched error": error},
    }
    return pd.DataFrame.from_dict(scores, "index").rename_axis("reference")


@torch.no_grad()
def explained_by_predicted_rows(model, x, x_test):
    """Return the variance of x_test explained with decoder rows W_j Cov(x) / Var(E_j) and one gain.

    Without a ReLU, and with units that are not correlated, these rows are the best.
    """
    E, covariance = model(x[:N_FIT_ROWS]), torch.cov(x[:N_FIT_ROWS].T)
    variance = E.var(0)[:, None]
    variance[variance == 0] = torch.inf  # of dead units, which have no row
    decoded = with_scaled_rows(model, model.W.detach() @ covariance / variance, x)
    return variance_explained(decoded.reconstruct(x_test), x_test)
