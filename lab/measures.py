"""What is measured of trained models: decoders, classifier, units; and tables of many models."""

import math
import warnings

import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import normalize

import helpers as h
from lab.parallel import side_by_side

FITTED = 20_000  # training rows to which decoders are fitted
STILL = 0.1  # pixels with a smaller standard deviation hardly vary
# `accuracy` of pixels ends before it has converged; a filter of a thread is one of all threads
warnings.filterwarnings("ignore", category=ConvergenceWarning)

# --- Tables of models ---------------------------------------------------------------------------


def rows(models, measure, title, key="method"):
    """A DataFrame with a row for each model of {key: stack}: columns that say which, and what
    measure(model) gives, a dict.

    key: the name of the column of keys, or a list of names if they are tuples; then comes "seed".
    title: of the bar.
    """
    names, found = [key] if isinstance(key, str) else key, {}
    for which, stack in models.items():
        which = (which,) if isinstance(key, str) else which
        for model in h.split_by_seed(stack):
            row = dict(zip(names, which, strict=True)) | {"seed": model.seed}
            found[(*which, model.seed)] = row, model
    measured = side_by_side(lambda which: measure(found[which][1]), found, title)
    return pd.DataFrame([row | measured[which] for which, (row, _) in found.items()])


# --- How well a model is decoded, and what it is good for ---------------------------------------


@torch.no_grad()
def decoded(model, x, x_test):
    """How well activations of x_test are decoded, by decoders fitted to (20,000 rows of) x: a dict.

    "l0"; "dead" units; "explained", the variance explained by W^T, or an SAE's own decoder, with
    one gain and an offset; "explained_best", that of the best linear decoder.
    """
    A, x = model.encode(x_test), x[:FITTED]
    own, best = (h.with_decoder(model, x, fit) for fit in (h.own_decoder, h.best_decoder))
    return {
        "l0": float(h.l0(A)),
        "dead": h.n_dead(A),
        "explained": h.variance_explained(own, x_test),
        "explained_best": h.variance_explained(best, x_test),
    }


@torch.no_grad()
def benchmark(model, x, y, x_test, y_test):
    """`decoded`; the number of "parameters"; the accuracy of a "classifier" in %; and
    the "purity" of units: a dict."""
    A, A_test = model.encode(x), model.encode(x_test)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        **decoded(model, x, x_test),
        "classifier": accuracy(A, y, A_test, y_test),
        "purity": purity(A_test, y_test),
    }


def accuracy(A, y, A_test, y_test):
    """Test accuracy in % of a logistic regression on the standardised columns of A (N, K)."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=3e-4))
    A, y, A_test, y_test = (t.detach().cpu().numpy() for t in (A, y, A_test, y_test))
    return 100 * classifier.fit(A, y).score(A_test, y_test)


@torch.no_grad()
def norm_matched_error(model, x):
    """Mean squared error per entry of A W, rescaled to the norm of its input x (N, D): -> float.

    As the script of the paper does it, without an offset, also for its SAE's decoder.
    """
    x_hat = normalize(model.encode(x) @ model.decoder, dim=1) * x.norm(dim=1, keepdim=True)
    return float((x_hat - x).square().mean())


def mean_image_error(x, x_test):
    """`norm_matched_error` of a model that always gives the mean of x: -> float."""
    mean = normalize(x.mean(0), dim=0) * x_test.norm(dim=1, keepdim=True)
    return float((mean - x_test).square().mean())


# --- What units represent -----------------------------------------------------------------------


def purity(A, y):
    """How specific active units are to one class, for A (N, K) of inputs with labels y (N,).

    Of unit j: max_c a_jc / sum_c a_jc, with a_jc its mean activation on class c; then the mean over
    the units that are not dead.
    """
    a = torch.stack([A[y == c].double().mean(0) for c in y.unique()], 1)
    a = a[a.sum(1) > 0]
    return float((a.amax(1) / a.sum(1)).mean())


def kmeans_purity(x, x_test, y_test, n_units, seed, l0=10):
    """`purity` of units whose weights are the centroids of k-means on (20,000 rows of) centred x,
    at norm 1, with one bias for all that gives the L0: -> float."""
    x, mean = x[:FITTED], x.mean(0)
    kmeans = KMeans(n_units, n_init=1, random_state=seed).fit((x - mean).numpy())
    centroids = normalize(torch.from_numpy(kmeans.cluster_centers_).float(), dim=1)
    scores = (x - mean) @ centroids.T
    threshold = scores.flatten().kthvalue(scores.numel() - round(l0 * len(x))).values
    return purity(torch.relu((x_test - mean) @ centroids.T - threshold), y_test)


def directions(model, loss, x):
    """Of each unit, for x (N, D) as one minibatch: its "decoder row", of the best linear decoder;
    the "step" that gradient descent on loss(model, x) adds to its weights; and the "weights": a
    dict of (K, D)."""
    (gradient,) = torch.autograd.grad(loss(model, x), model.W)
    V, _ = h.best_decoder(model, x)
    return {"decoder row": V.to(gradient), "step": -gradient, "weights": model.W.detach()}


def cosines(model, loss, x):
    """Cosines of each two of `directions` on (20,000 rows of) x, medians over living units; and
    "step and other rows", the median over pairs of a unit's step and another's decoder row."""
    x = x[:FITTED]
    found = directions(model, loss, x)
    living = (model.encode(x).detach() > 0).any(0)

    def cosine(a, b):
        return float(torch.cosine_similarity(found[a][living], found[b][living]).median())

    steps, rows = (normalize(found[name][living], dim=1) for name in ("step", "decoder row"))
    others = ~torch.eye(len(rows), dtype=bool, device=rows.device)
    return {
        "weights and step": cosine("weights", "step"),
        "step and decoder row": cosine("step", "decoder row"),
        "weights and decoder row": cosine("weights", "decoder row"),
        "step and other rows": float((steps @ rows.T)[others].median()),
    }


def agreement(A, B):
    """Mean correlation of units of A and of B (N, K), paired one to one so that it is highest. A
    constant unit has a correlation of 0: -> float."""
    K = A.shape[1]
    R = h.correlation(torch.cat([A, B], 1).double())[:K, K:].detach().cpu().numpy()
    return float(R[linear_sum_assignment(R, maximize=True)].mean())


# --- What the paper measures of energies --------------------------------------------------------


@torch.no_grad()
def of_energies(E):
    """What the paper measures of test energies E (N, K) in its ablation, and L0: a dict. "dead"
    units are active on no input; those of "low variance", below .01, are what the paper calls dead.
    """
    return {
        "dead": h.n_dead(E),
        "low variance": int((E.double().var(0) < 0.01).sum()),
        "redundancy": h.redundancy(E),
        "l0": float(h.l0(E)),
        "entropy": h.responsibility_entropy(E),
    }


def convergence_epoch(losses, tolerance=1):
    """The first of five epochs in a row in which the loss changes by less than the tolerance,
    counted from 0, as in the paper's script; NaN if there is none. losses: (T,), by epoch."""
    small = losses.diff().abs() < tolerance  # the first change is that of epoch 1
    for i in range(len(small) - 4):
        if small[i : i + 5].all():
            return i + 1.0
    return math.nan


def minibatches(E, size=h.BATCH_SIZE):
    """Rows of E (N, K) in a random order as minibatches (N // size, size, K). In the order of
    MNIST's files digits of a minibatch are more alike than in training."""
    order = torch.randperm(len(E), generator=torch.Generator().manual_seed(0))
    return E[order[: len(E) // size * size]].unflatten(0, (-1, size))
