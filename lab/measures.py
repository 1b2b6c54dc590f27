"""What is measured of trained models: decoders, classifier, units."""

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
from lab.parallel import side_by_side

FITTED = 20_000  # training rows to which decoders are fitted
# `accuracy` may end before it has converged, as of pixels; a reader's own classifier still warns
warnings.filterwarnings("ignore", "lbfgs failed to converge after 200 ", ConvergenceWarning)


def measure_each(models, measure, title, *names):
    """Return a DataFrame with a row for each of {(name, seed): model}: columns that say which, and
    those of the dict measure(model).

    names: of the columns before "seed", "method" if none are given; keys may have several names.
    """
    columns = [*(names or ["method"]), "seed"]
    measured = side_by_side(lambda key: measure(models[key]), models, title)
    rows = (dict(zip(columns, key, strict=True)) | row for key, row in measured.items())
    return pd.DataFrame(rows)


# --- How well a model is decoded, and what it is good for ---------------------------------------


@torch.no_grad()
def decoding(model, x, x_test):
    """Return how well activations of x_test are decoded, by decoders fitted to rows of x: a dict.

    "l0"; "dead" units; "explained", the variance explained by W^T, or an SAE's own decoder, with
    one gain and an offset; "explained_best", that of the best linear decoder.
    """
    A = model(x_test)
    own, best = (h.Decoded(model, x[:FITTED], fit) for fit in (h.own_decoder, h.best_decoder))
    return {
        "l0": h.l0(A),
        "dead": int((h.usage(A) == 0).sum()),
        "explained": h.variance_explained(own, x_test),
        "explained_best": h.variance_explained(best, x_test),
    }


@torch.no_grad()
def benchmark(model, x, y, x_test, y_test):
    """Return `decoding`, and the number of "parameters", the accuracy of a "classifier" in % and
    the "purity" of units: a dict."""
    A, A_test = model(x), model(x_test)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        **decoding(model, x, x_test),
        "classifier": accuracy(A, y, A_test, y_test),
        "purity": purity(A_test, y_test),
    }


def accuracy(A, y, A_test, y_test):
    """Return the test accuracy in % of a logistic regression on A (N, K), standardised."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=3e-4))
    A, y, A_test, y_test = (t.detach().cpu().numpy() for t in (A, y, A_test, y_test))
    return 100 * classifier.fit(A, y).score(A_test, y_test)


@torch.no_grad()
def norm_matched_error(model, x):
    """Return the mean squared error per entry of A W, rescaled to the norm of its input x (N, D).

    As the script of the paper does it, without an offset, also for its SAE's decoder.
    """
    V = model.V if hasattr(model, "V") else model.W
    x_hat = normalize(model(x) @ V, dim=1) * x.norm(dim=1, keepdim=True)
    return float((x_hat - x).square().mean())


def mean_image_error(x, x_test):
    """Return the `norm_matched_error` of a model that always gives the mean of x."""
    mean = normalize(x.mean(0), dim=0) * x_test.norm(dim=1, keepdim=True)
    return float((mean - x_test).square().mean())


# --- What units represent -----------------------------------------------------------------------


def purity(A, y):
    """Return how specific active units are to one class, for A (N, K) and labels y (N,).

    Of unit j: max_c a_jc / sum_c a_jc, with a_jc its mean activation on class c; then the mean over
    the units that are not dead.
    """
    a = torch.stack([A[y == c].double().mean(0) for c in y.unique()], 1)
    a = a[a.sum(1) > 0]
    return float((a.amax(1) / a.sum(1)).mean())


def unit_directions(model, loss, x):
    """Return three directions of each unit, a dict of (K, D): its "decoder row", of the best linear
    decoder of x (N, D); the "step" that gradient descent on loss(model, x) adds to its weights; and
    the "weights"."""
    (gradient,) = torch.autograd.grad(loss(model, x), model.W)
    V, _ = h.best_decoder(model, x)
    return {"decoder row": V.to(gradient), "step": -gradient, "weights": model.W.detach()}


def cosines(model, loss, x):
    """Return cosines of each two of `unit_directions` on rows of x, medians over living units; and
    of "step and other rows", the median over pairs of a unit's step and another's decoder row."""
    x = x[:FITTED]
    living = (model(x).detach() > 0).any(0)
    directions = unit_directions(model, loss, x).items()
    rows = {name: normalize(part[living], dim=1) for name, part in directions}

    def cosine(a, b):
        return float((rows[a] * rows[b]).sum(1).median())

    others = ~torch.eye(int(living.sum()), dtype=bool, device=living.device)
    return {
        "weights and step": cosine("weights", "step"),
        "step and decoder row": cosine("step", "decoder row"),
        "weights and decoder row": cosine("weights", "decoder row"),
        "step and other rows": float((rows["step"] @ rows["decoder row"].T)[others].median()),
    }


def paired(A, B):
    """Pair the units of A (N, K) one to one with those of B, so that correlations are highest on
    average. Return for each unit of A the number of its pair, and their correlation, 0 if constant.
    """
    K = A.shape[1]
    R = h.correlation(torch.cat([A, B], 1).double())[:K, K:].detach().cpu().numpy()
    units, pairs = linear_sum_assignment(R, maximize=True)
    return pairs, R[units, pairs]


def agreement(A, B):
    """Return the mean correlation of the units of A and of B (N, K), as `paired`."""
    return float(paired(A, B)[1].mean())


# --- What the paper measures of energies --------------------------------------------------------


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
        "l0": h.l0(E),
        "entropy": responsibility_entropy(E),
    }


def convergence_epoch(losses, tolerance=1):
    """Return the first of five epochs in a row in which losses (T,) change by less than the
    tolerance, counted from 0, as in the paper's script; NaN if there is none."""
    small = losses.diff().abs() < tolerance  # the first change is that of epoch 1
    windows = small.unfold(0, 5, 1).all(1).nonzero()[:, 0] if len(small) >= 5 else []
    return windows[0].item() + 1.0 if len(windows) else math.nan
