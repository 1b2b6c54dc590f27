"""What is measured of trained models: decoders, classifier, energies, and whether units agree.

Shares of variance, of inputs and of units are in percent.
"""

import copy
import math
import warnings

import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import normalize

import helpers as h
from lab.runs import run_in_parallel

N_FIT_ROWS = 20_000  # training rows to which decoders are fitted


def measure_each(models, measure, title, *names):
    """Return a DataFrame with a row for each of {(name, seed): model}: columns that say which, and
    those of the dict measure(model).

    names: of the columns before "seed", "method" if none are given; keys may have several names.
    """
    columns = [*(names or ["method"]), "seed"]
    measured = run_in_parallel(lambda one: measure(one[1]), models.items(), title)
    rows = [dict(zip(columns, key, strict=True)) | row for (key, _), row in measured.items()]
    return pd.DataFrame(rows)


# --- How well a model is decoded, and what it is good for -----------------------------------------


def with_decoders(model, x):
    """Return the model with its own decoder, which gets one gain and an offset, and the model with
    the best linear decoder, both fitted to the first N_FIT_ROWS rows of x."""
    x = x[:N_FIT_ROWS]
    return h.with_own_decoder(model, x), h.with_best_decoder(model, x)


@torch.no_grad()
def decoding_scores(model, x, x_test):
    """Return how well activations of x_test (M, D) are decoded, by `with_decoders` of x (N, D).

    A dict: "active" units of an input; "dead" units; "explained", the variance explained by W^T, or
    an SAE's own decoder; "best explained", by the best linear decoder.
    """
    A = model(x_test)
    own, best = with_decoders(model, x)
    return {
        "active": h.l0(A),
        "dead": int((h.usage(A) == 0).sum()),
        "explained": 100 * h.variance_explained(own, x_test),
        "best explained": 100 * h.variance_explained(best, x_test),
    }


@torch.no_grad()
def benchmark_scores(model, x, y, x_test, y_test):
    """Return `decoding_scores`, and the number of "parameters", the accuracy of a "classifier", the
    "purity" of units, and the paper's "norm-matched error": a dict. x is (N, D), and y (N,)."""
    A_test = model(x_test)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        **decoding_scores(model, x, x_test),
        "classifier": classifier_accuracy(model(x), y, A_test, y_test),
        "purity": purity(A_test, y_test),
        "norm-matched error": norm_matched_error(A_test @ h.decoder_rows(model), x_test),
    }


def reference_scores(x, y, x_test, y_test):
    """Return what benchmark scores are compared with: the accuracy of a classifier on "pixels", and
    the norm-matched error of the "mean image". A dict."""
    return {
        "pixels": classifier_accuracy(x, y, x_test, y_test),
        "mean image": norm_matched_error(x.mean(0).expand_as(x_test), x_test),
    }


def classifier_accuracy(A, y, A_test, y_test):
    """Return the test accuracy of a logistic regression on A (N, K), standardised."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=3e-4))
    A, y, A_test, y_test = (t.detach().cpu().numpy() for t in (A, y, A_test, y_test))
    with warnings.catch_warnings():  # it may end before it has converged, as of pixels
        warnings.simplefilter("ignore", ConvergenceWarning)
        return 100 * classifier.fit(A, y).score(A_test, y_test)


def norm_matched_error(x_hat, x):
    """Return the mean squared error per entry of x_hat (N, D), rescaled to the norms of x (N, D).

    This is how the script of the paper measures reconstructions A V, without an offset.
    """
    x_hat = normalize(x_hat, dim=1) * x.norm(dim=1, keepdim=True)
    return float((x_hat - x).square().mean())


@torch.no_grad()
def explained_by_decoder_rows(model, x, x_test):
    """Return the variance of x_test that is explained with other decoder rows than W_j, all of them
    with one gain: a dict.

    "damped": times the standard deviation of each pixel; or times those of other pixels, at random.
    """
    x = x[:N_FIT_ROWS]
    W, deviation = model.W, x.std(0)
    dealt = torch.randperm(len(deviation), generator=torch.Generator().manual_seed(0))
    A = model(x)
    variance = A.var(0)[:, None]
    variance[variance == 0] = torch.inf  # of dead units, which have no row
    covariance = (A - A.mean(0)).T @ (x - x.mean(0)) / (len(x) - 1)
    rows = {
        "W_j": W,
        "W_j / Var(E_j)": W / variance,
        "W_j Cov(x) / Var(E_j)": W @ torch.cov(x.T) / variance,  # as without a ReLU
        "Cov(E_j, x) / Var(E_j)": covariance / variance,  # regression on one unit at a time
        "W_j, damped": W * deviation,
        "W_j, damped at random": W * deviation[dealt],
    }
    decoded = {name: h.with_own_decoder(model, x, V) for name, V in rows.items()}
    decoded["the best"] = h.with_best_decoder(model, x)
    return {name: 100 * h.variance_explained(one, x_test) for name, one in decoded.items()}


# --- What units represent -------------------------------------------------------------------------


def purity(A, y):
    """Return how specific active units are to one class, for A (N, K) and labels y (N,).

    Of unit j: max_c a_jc / sum_c a_jc, with a_jc its mean activation on class c; then the mean over
    the units that are not dead.
    """
    a = torch.stack([A[y == c].double().mean(0) for c in y.unique()], 1)
    a = a[a.sum(1) > 0]
    return float((a.amax(1) / a.sum(1)).mean())


def unit_agreement(A, B):
    """Pair the units of A (N, K) one to one with those of B, so that correlations are highest on
    average, and return this average; that of a constant unit is 0."""
    K = A.shape[1]
    R = h.correlation(torch.cat([A, B], 1).double())[:K, K:].detach().cpu().numpy()
    units, pairs = linear_sum_assignment(R, maximize=True)
    return float(R[units, pairs].mean())


# --- Energies -------------------------------------------------------------------------------------


@torch.no_grad()
def redundancy(E):
    """Return ||Corr - I||_F^2 of energies E (N, K), or NaN if fewer than two units vary (§4)."""
    return float(h.decorrelation_loss(E.double())) if (E.var(0) > 0).sum() > 1 else math.nan


@torch.no_grad()
def responsibility_entropy(E):
    """Return the mean entropy of the responsibilities for an input, in nats (§4)."""
    return float(torch.special.entr(h.responsibilities(E.double())).sum(-1).mean())


@torch.no_grad()
def energy_statistics(E):
    """Return what the paper's ablation measures of energies E (N, K), and L0: a dict. "dead" units
    are active on no input; those of "low variance", below .01, are what the paper calls dead.
    """
    return {
        "dead": int((h.usage(E) == 0).sum()),
        "low variance": int((E.double().var(0) < 0.01).sum()),
        "redundancy": redundancy(E),
        "active": h.l0(E),
        "entropy": responsibility_entropy(E),
    }


@torch.no_grad()
def spread_of_Z(E):
    """Return the standard deviation over inputs of Z_i = sum_j exp(-E_ij) over its mean, and what
    it would be if all active units were strongly active, each as often, but independently."""
    Z, p = torch.exp(-E).sum(1), h.usage(E)
    spread = Z.std() / Z.mean()
    independent = (p * (1 - p)).sum().sqrt() / (1 - p).sum()
    return {"spread of Z": 100 * float(spread), "if independent": 100 * float(independent)}


@torch.no_grad()
def ablation_scores(model, x, y, x_test, y_test):
    """Return `energy_statistics` and `spread_of_Z` of x_test (M, D), and the accuracy of a
    "classifier" that is trained on x (N, D) with labels y (N,): a dict."""
    E, E_test = model(x), model(x_test)
    accuracy = classifier_accuracy(E, y, E_test, y_test)
    return energy_statistics(E_test) | spread_of_Z(E_test) | {"classifier": accuracy}


@torch.no_grad()
def shape_of_energies(E):
    """Return the standard deviation of a unit's energies above zero over their mean, which is 1 if
    they are exponential: the median over the units of E (N, K)."""
    n = (E > 0).sum(0)
    mean = E.sum(0) / n
    deviation = (E.square().sum(0) / n - mean.square()).clamp_min(0).sqrt()
    return float((deviation / mean).nanmedian())


def forces_on_boundaries(model, x, batch_size=128):
    """Return how hard each term of the loss pushes boundaries of units outward: its gradient by b,
    times the length of w, a mean over minibatches of x and the median over units. A dict."""
    terms = {
        "log-sum-exp": h.lse_loss,
        "variance": h.variance_loss,
        "decorrelation": h.decorrelation_loss,
    }
    model = copy.deepcopy(model).requires_grad_()
    parts = x.split(batch_size)[: len(x) // batch_size]
    total = dict.fromkeys(terms, 0)
    for part in parts:
        E = model(part)
        for name, term in terms.items():
            (gradient,) = torch.autograd.grad(term(E), model.b, retain_graph=True)
            total[name] = total[name] + gradient / len(parts)
    size = model.W.detach().norm(dim=1)
    return {name: float((push * size).median()) for name, push in total.items()}


@torch.no_grad()
def convergence_statistics(layer, losses, x, last=20):
    """Return how the losses (T,) of a layer fall from epoch to epoch: a dict.

    "living units" on inputs x; the "epoch" of convergence; the "slope", the fall of the loss in an
    epoch, times the epoch, over the number of living units, a mean of the last epochs; and the
    "largest over smallest unit", by the length of weights and bias.
    """
    living = h.usage(layer(x)) > 0
    size = torch.cat([layer.W, layer.b[:, None]], 1).norm(dim=1)
    size = size[living] if living.any() else size
    t = torch.arange(1, len(losses))
    return {
        "living units": int(living.sum()),
        "epoch": convergence_epoch(losses),
        "slope": float((-losses.diff() * t)[-last:].mean() / living.sum()),
        "largest over smallest unit": float(size.max() / size.min()),
    }


def convergence_epoch(losses, tolerance=1):
    """Return the first of five epochs in a row in which losses (T,) change by less than the
    tolerance, counted from 0, as in the paper's script; NaN if there is none."""
    small = (losses.diff().abs() < tolerance).tolist()  # the first change is that of epoch 1
    for epoch in range(1, len(small) - 3):
        if all(small[epoch - 1 : epoch + 4]):
            return float(epoch)
    return math.nan


# --- How sparse the code will be ------------------------------------------------------------------


def predicted_share_active(n_units, batch_size, weight=1):
    """Return the share of active units, 1 - sqrt(N / (N + 2 lambda K)) in percent, at which the
    price that the log-sum-exp puts on them is what the variance term pays for them: section 5 of
    notebook 2.

    n_units : K; batch_size : N; weight : lambda. Only N / (lambda K) counts.
    """
    return 100 * (1 - (batch_size / (batch_size + 2 * weight * n_units)) ** 0.5)
