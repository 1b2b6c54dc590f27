"""What is measured: decoders, probe, purity, agreement and competition; and all at an equal L0."""

import warnings
from functools import partial
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cosine_similarity, normalize

import helpers as h
from lab.parallel import side_by_side

# --- How well a model is decoded ----------------------------------------------------------------


@torch.no_grad()
def evaluate(model, x, x_test):
    """How well a model's activations of x_test are decoded, by decoders that are fitted on x.

    -> dict: "l0"; "dead"; "parameters"; "explained", the variance explained by W^T, or an SAE's own
    decoder, with one gain and an offset; "least_squares", that of the best linear decoder; "ratio"
    of these two; "cosine" of w_j and its row of the least-squares decoder, median over units (0 for
    a constant one); "as_is", the variance explained by an SAE without any fit. NaN for a model that
    has diverged.
    """
    names = ("l0", "dead", "explained", "least_squares", "ratio", "cosine", "as_is")
    found = dict.fromkeys(names, np.nan)
    found["parameters"] = sum(p.numel() for p in model.parameters())
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        return found
    A, moments = model.encode(x_test), h.moments_of(model, x)
    V, offset = h.fit_decoder(model, x, moments)
    found |= {
        "l0": h.l0(A),
        "dead": h.dead(A),
        "explained": explained(A, *h.transpose_decoder(model, x, moments), x_test),
        "least_squares": explained(A, V, offset, x_test),
        "cosine": float(cosine_similarity(model.W.double(), V).median()),
    }
    found["ratio"] = found["explained"] / (found["least_squares"] or np.nan)
    if isinstance(model, h.SparseAutoencoder):
        found["as_is"] = explained(A, model.decoder, model.c, x_test)
    return found


def explained(A, V, offset, x):
    """Variance of x (N, D) that A V + offset explains: 1 - FVU, a float."""
    error = (A @ V.to(A) + offset.to(A) - x).square().sum(0).double().sum()
    return float(1 - error / (x - x.mean(0)).square().sum(0).double().sum())


@torch.no_grad()
def explained_if_cut(model, x, x_test, l0):
    """The variance of x_test that a model explains with its own decoder, if of x all activations
    but the l0 largest per input, on average, are set to zero: -> float.

    One threshold for all units, the gain and the offset are chosen on x. NaN if the model has fewer
    active units.
    """
    A = model.encode(x)
    n_kept = round(l0 * len(x))
    if h.l0(A) < l0:
        return np.nan
    threshold = A.flatten().kthvalue(A.numel() - n_kept).values

    def encode(x):
        A = model.encode(x)
        return A * (A > threshold)

    cut = SimpleNamespace(W=model.W, decoder=model.decoder, encode=encode)
    return explained(encode(x_test), *h.transpose_decoder(cut, x), x_test)


@torch.no_grad()
def norm_matched_error(model, x):
    """Mean squared error per entry of A W, rescaled to the norm of its input x (N, D): -> float.

    As the script of the paper does it, without an offset, also for its SAE's decoder.
    """
    x = h.as_tensor(x, model.W)
    x_hat = normalize(model.encode(x) @ model.decoder, dim=1) * x.norm(dim=1, keepdim=True)
    return float((x_hat - x).square().mean())


def pca_explained(x, x_test, counts):
    """Variance of x_test that the leading principal components of x explain: a list."""
    mean = x.mean(0)
    cov = x.T @ x / len(x) - torch.outer(mean, mean)
    axes = torch.linalg.eigh(cov)[1].flip(1)
    errors = ((x_test - mean) @ axes).square().sum(0)
    total = (x_test - x_test.mean(0)).square().sum()
    return [float(1 - errors[n:].sum() / total) for n in counts]


# --- What units represent -----------------------------------------------------------------------


def probe(model, x, y, x_test, y_test):
    """Test accuracy in % of a logistic regression on the standardised activations of x (N, D).

    It ends some 0.03 points from where it would converge. NaN for a model that has diverged.
    """
    with torch.no_grad():
        A, A_test = (model.encode(t).cpu().numpy() for t in (x, x_test))
    if not (np.isfinite(A).all() and np.isfinite(A_test).all()):
        return np.nan
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=3e-4))
    return 100 * classifier.fit(A, y.cpu()).score(A_test, y_test.cpu())


def purity(A, y):
    """How specific active units are to one class, for A (N, K) of inputs with labels y (N,).

    Of unit j: max_c a_jc / sum_c a_jc, with a_jc its mean activation on class c; then the mean over
    the units that are not dead.
    """
    a = torch.stack([A[y == c].double().mean(0) for c in y.unique()], 1)
    a = a[a.sum(1) > 0]
    return float((a.amax(1) / a.sum(1)).mean())


def pair_units(A, B):
    """Pair the units of A (N, K) and B (N, K) one to one, so that their correlations are highest.

    -> for each unit of A the unit of B (K,), and their correlations (K,); 0 for a constant unit.
    """
    K = A.shape[1]
    R = h.correlation(torch.cat([A, B], 1).double())[:K, K:].cpu().numpy()
    _, partner = linear_sum_assignment(np.nan_to_num(R), maximize=True)
    return partner, R[np.arange(K), partner]


def agreement(A, B):
    """Mean correlation of the units of A and B (N, K) that `pair_units` pairs: -> float."""
    return float(pair_units(A, B)[1].mean())


def n_replaced(A, B):
    """Units of A (N, K) whose partner in B correlates with them by less than .9: -> int."""
    return int((pair_units(A, B)[1] < 0.9).sum())


@torch.no_grad()
def paired_rows(models, x, n=8):
    """Decoder rows of the first n units of the first of {name: model}, and of the units of the
    others that `pair_units` pairs with them, by the activations of x: {name: (n, D)}."""
    first, *_ = models.values()
    A = first.encode(x)
    return {
        name: model.decoder.detach()[pair_units(A, model.encode(x))[0][:n]]
        for name, model in models.items()
    }


# --- The paper's measures -----------------------------------------------------------------------


def of_energies(E):
    """What the paper measures of test energies E (N, K) in its ablation, and L0: a dict."""
    return {
        "dead": h.dead(E),
        "low variance": int((E.double().var(0, correction=0) < 0.01).sum()),  # the paper's dead
        "redundancy": h.redundancy(E),
        "entropy": h.responsibility_entropy(E),
        "l0": h.l0(E),
    }


def moments_of_denominators(E):
    """Of Z_i = sum_j exp(-E_ij), over the inputs of E (N, K): its mean, and the two parts of its
    variance, sum_j Var(exp(-E_j)) and sum_{j != k} Cov(exp(-E_j), exp(-E_k)): three ()."""
    e = torch.exp(-E)
    Z, variances = e.sum(1), e.var(0, correction=0).sum()
    return Z.mean(), variances, Z.var(correction=0) - variances


@torch.no_grad()
def of_competition(E):
    """Of energies E (N, K): the competition term in nats per input, what it is to second order, and
    Var(Z) with its two parts; and the spread of Z, its standard deviation over its mean: a dict."""
    E = E.double()
    mean, variances, covariances = map(float, moments_of_denominators(E))
    total = variances + covariances
    return {
        "competition term": float(h.lse_loss(E) - h.pooled_lse_loss(E)) / len(E),
        "second order": total / (2 * mean**2),
        "Var(Z)": total,
        "variances": variances,
        "covariances": covariances,
        "spread": total**0.5 / mean,
    }


def paper_benchmark(model, x, y, x_test, y_test):
    """What the paper compares in its benchmark, on its raw pixels: a dict.

    "parameters"; "l0"; "dead"; "probe" in %; "norm_matched" MSE; our "mse" per pixel, with one gain
    and an offset, fitted on x, and the variance "explained" by the same; "as_is", that of an SAE
    without any fit. Decoders and probe learn from x (N, D) and y, and are judged on x_test.
    """
    found = evaluate(model, x, x_test)
    variance = float(x_test.var(0, correction=0).mean())
    return {key: found[key] for key in ("parameters", "l0", "dead", "explained", "as_is")} | {
        "probe": probe(model, x, y, x_test, y_test),
        "norm_matched": norm_matched_error(model, x_test),
        "mse": (1 - found["explained"]) * variance,
    }


# --- Many models, {(name, setting, seed): model} ------------------------------------------------


def tabulate(models, x, x_test, y_test=None, cut_to=None):
    """A DataFrame with a row for each model: what `evaluate` gives; with labels also "purity".

    cut_to: an L0. The column "cut" is then what the densest model of a method and seed explains if
    it is cut to that L0, see `explained_if_cut`; NaN for its other models.
    """

    def row(key):
        found = dict(zip(("method", "setting", "seed"), key)) | evaluate(models[key], x, x_test)
        if y_test is not None:
            with torch.no_grad():
                found["purity"] = purity(models[key].encode(x_test), y_test)
        return found

    table = pd.DataFrame(side_by_side([partial(row, key) for key in models], "decoders"))
    if cut_to is not None:
        table["cut"] = np.nan
        groups = table[table.l0.notna()].groupby(["method", "seed"], sort=False)
        densest = groups.l0.idxmax()
        keys = list(models)
        jobs = [partial(explained_if_cut, models[keys[i]], x, x_test, cut_to) for i in densest]
        table.loc[densest, "cut"] = side_by_side(jobs, "cut")
    return table


def add_probes(table, models, x, y, x_test, y_test, l0, methods, seeds):
    """Add a column "probe" to the table, of these methods' and seeds' models next to the L0."""
    chosen = table[table.seed.isin(seeds) & table.method.isin(methods)]
    groups = chosen.groupby(["method", "seed"], sort=False)
    asked = list(dict.fromkeys(i for _, rows in groups for i in _next_to(rows, l0)))
    keys = list(models)
    jobs = [partial(probe, models[keys[i]], x, y, x_test, y_test) for i in asked]
    table["probe"] = np.nan
    table.loc[asked, "probe"] = side_by_side(jobs, "probes")


@torch.no_grad()
def agreements(models, x):
    """A DataFrame with a row for each pair of seeds of one method and setting: their agreement.

    "seed" names the pair, "l0" is the geometric mean of theirs.
    """
    rows = []
    for name, setting in dict.fromkeys(key[:2] for key in models):
        codes = {k[2]: m.encode(x) for k, m in models.items() if k[:2] == (name, setting)}
        for (a, A), (b, B) in combinations(codes.items(), 2):
            l0 = (h.l0(A) * h.l0(B)) ** 0.5
            rows.append((name, setting, f"{a}, {b}", l0, agreement(A, B)))
    return pd.DataFrame(rows, columns=["method", "setting", "seed", "l0", "agreement"])


# --- At an equal L0 -----------------------------------------------------------------------------

EXPLAINED = ("explained", "least_squares", "as_is")


def at_l0(table, l0):
    """All measures of a table of models at an L0: a DataFrame by (method, seed).

    A value is interpolated between models, linearly in log L0, and nothing is extrapolated. Of a
    variance explained, the complement is interpolated as a logarithm. "cut", which is measured at
    the L0, is taken as it is. Seeds whose models do not enclose the L0 have NaN, with a warning
    that names them.
    """
    rows, outside = {}, {}
    for (method, seed), group in table.groupby(["method", "seed"], sort=False):
        inside = group[group.l0 > 0]  # a model that has diverged has a NaN
        if len(_next_to(inside, l0)) < 2:
            outside.setdefault(method, []).append(seed)
        values = inside.drop(columns=["method", "setting", "seed"])
        rows[method, seed] = {name: _interpolate(values, name, l0) for name in values}
    for method, seeds in outside.items():
        message = (
            f"{method}: the models of seeds {seeds} do not enclose L0 {l0:g}, and are left out"
        )
        warnings.warn(message, stacklevel=2)
    index = pd.MultiIndex.from_arrays([*zip(*rows)] or [[], []], names=["method", "seed"])
    columns = table.columns.drop(["method", "setting", "seed"])
    return pd.DataFrame(list(rows.values()), index, columns)


def _next_to(rows, l0):
    """The indices of the models just below and just above an L0, twice the same if it has just that
    L0; fewer than two if the models do not enclose it."""
    rows = rows.sort_values("l0")
    return [*rows.index[rows.l0 <= l0][-1:], *rows.index[rows.l0 >= l0][:1]]


def _interpolate(rows, column, l0):
    rows = rows[rows[column].notna()].sort_values("l0")
    if not len(rows):
        return np.nan
    if column in ("cut", "parameters"):
        return float(rows[column].iloc[-1])
    y = np.log1p(-rows[column]) if column in EXPLAINED else rows[column].astype(float)
    value = np.interp(np.log(l0), np.log(rows.l0), y, left=np.nan, right=np.nan)
    if column == "l0":
        return l0 if np.isfinite(value) else np.nan
    return float(-np.expm1(value) if column in EXPLAINED else value)


def nearest(table, models, method, l0, seed):
    """The model of a method and seed whose L0 is nearest."""
    rows = table[(table.method == method) & (table.seed == seed)]
    return models[method, rows.setting[np.log(rows.l0 / l0).abs().idxmin()], seed]
