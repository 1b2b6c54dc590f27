"""Compare models at an equal L0: decoders, probe, purity, agreement, and k-means as a baseline."""

import warnings
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import normalize

import helpers as h
from lab.train import side_by_side

FITTED = 20_000  # training rows to which decoders are fitted

# --- One model --------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(model, x, x_test):
    """How well a model's activations of x_test are decoded, by decoders that are fitted on x.

    -> dict: "l0"; "dead"; "parameters"; "explained", the variance explained by W^T, or an SAE's own
    decoder, with one gain and an offset; "least_squares", that of the best linear decoder; "ratio"
    of these two; "as_is", that of an SAE without any fit. NaN for a model that has diverged.
    """
    found = dict.fromkeys(["l0", "dead", "explained", "least_squares", "ratio", "as_is"], np.nan)
    found["parameters"] = sum(p.numel() for p in model.parameters())
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        return found
    A, moments = model.encode(x_test), h.moments_of(model, x)
    found |= {"l0": h.l0(A), "dead": h.dead(A)}
    for name, fit in {"explained": h.transpose_decoder, "least_squares": h.fit_decoder}.items():
        sae = h.with_decoder(model, x, partial(fit, moments=moments))
        found[name] = h.variance_explained(sae, x_test)
    found["ratio"] = found["explained"] / (found["least_squares"] or np.nan)
    if isinstance(model, h.SparseAutoencoder):
        found["as_is"] = h.variance_explained(model, x_test)
    return found


@torch.no_grad()
def norm_matched_error(model, x):
    """Mean squared error per entry of A W, rescaled to the norm of its input x (N, D): -> float.

    As the script of the paper does it, without an offset, also for its SAE's decoder.
    """
    x = h.as_tensor(x, model.W)
    x_hat = normalize(model.encode(x) @ model.decoder, dim=1) * x.norm(dim=1, keepdim=True)
    return float((x_hat - x).square().mean())


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


def assign(A, B):
    """Pair the units of A (N, K) and B (N, K) one to one, so that their correlations are highest.

    -> for each unit of A the unit of B (K,), and their correlations (K,); 0 for a constant unit.
    """
    K = A.shape[1]
    R = h.correlation(torch.cat([A, B], 1).double())[:K, K:].cpu().numpy()
    _, partner = linear_sum_assignment(np.nan_to_num(R), maximize=True)
    return partner, R[np.arange(K), partner]


def agreement(A, B):
    """Mean correlation of the units of A and B (N, K) that `assign` pairs: -> float."""
    return float(assign(A, B)[1].mean())


@torch.no_grad()
def paired_rows(models, x, n=8):
    """Decoder rows of the first n units of the first of {name: model}, and of the units of the
    others that `assign` pairs with them, by the activations of x: {name: (n, D)}."""
    first, *_ = models.values()
    A = first.encode(x)
    return {
        name: model.decoder.detach()[assign(A, model.encode(x))[0][:n]]
        for name, model in models.items()
    }


def paper_measures(model, x, y, x_test, y_test):
    """What the paper compares, on its raw pixels: a dict.

    "parameters", "l0", "probe" in %, "norm_matched" MSE; and our "mse" per pixel with one gain and
    an offset, fitted on x. Decoders and probe learn from x (N, D) and y, and are judged on x_test.
    """
    found = evaluate(model, x, x_test)
    variance = float(x_test.var(0, correction=0).mean())
    return {
        "parameters": found["parameters"],
        "l0": found["l0"],
        "probe": probe(model, x, y, x_test, y_test),
        "norm_matched": norm_matched_error(model, x_test),
        "mse": (1 - found["explained"]) * variance,
        "explained": found["explained"],
    }


# --- Many models, {(name, setting, seed): model} ----------------------------------------------


def tabulate(models, x, x_test, y_test=None):
    """A DataFrame with a row for each model: what `evaluate` gives; with labels also "purity"."""

    def row(key):
        found = dict(zip(("method", "setting", "seed"), key)) | evaluate(models[key], x, x_test)
        if y_test is not None:
            with torch.no_grad():
                found["purity"] = purity(models[key].encode(x_test), y_test)
        return found

    return pd.DataFrame(side_by_side([partial(row, key) for key in models], "decoders"))


def add_probes(table, models, x, y, x_test, y_test, l0, seeds):
    """Add a column "probe" to the table, of these seeds' models that enclose the L0."""
    keys = list(zip(table.method, table.setting, table.seed))
    asked = [
        key for key in keys if key[2] in seeds and key[1] in enclosing(table, key[0], l0, key[2])
    ]
    jobs = [partial(probe, models[key], x, y, x_test, y_test) for key in asked]
    found = dict(zip(asked, side_by_side(jobs, "probes")))
    table["probe"] = [found.get(key, np.nan) for key in keys]


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


# --- At an equal L0 ---------------------------------------------------------------------------


def interpolate(l0s, values, l0, explained=False):
    """The value at an L0, between models, linear in log L0; NaN outside: nothing is extrapolated.

    explained: of a variance explained, whose complement is interpolated as a logarithm. Models
    without active units, or with a NaN, do not count.
    """
    l0s, values = np.asarray(l0s, float), np.asarray(values, float)
    order = [i for i in np.argsort(l0s) if l0s[i] > 0 and np.isfinite(values[i])]
    if not order:
        return np.nan
    y = np.log1p(-values[order]) if explained else values[order]
    found = np.interp(np.log(l0), np.log(l0s[order]), y, left=np.nan, right=np.nan)
    return float(-np.expm1(found) if explained else found)


def at_l0(table, method, column, l0):
    """A method's values of a column at an L0, by seed: a Series.

    Seeds whose models do not enclose the L0 are left out, with a warning that names them.
    """
    explained = column in ("explained", "least_squares", "as_is")
    rows = table[table.method == method]
    rows = rows[rows[column].notna() | rows.l0.isna()]  # measured, or diverged
    groups = rows.groupby("seed")
    found = {s: interpolate(rows.l0, rows[column], l0, explained) for s, rows in groups}
    if outside := [seed for seed, value in found.items() if np.isnan(value)]:
        warnings.warn(
            f"{method}, {column}: the models of seeds {outside} do not enclose L0 {l0:g}, "
            "and are left out",
            stacklevel=2,
        )
    return pd.Series(found, dtype=float).dropna()


def enclosing(table, method, l0, seed):
    """The settings of a method and seed whose models are just below and just above an L0."""
    rows = table[(table.method == method) & (table.seed == seed)].sort_values("l0")
    return [*rows.setting[rows.l0 <= l0].iloc[-1:], *rows.setting[rows.l0 > l0].iloc[:1]]


def difference(table, column, l0, method, other):
    """A method's values at an L0 minus another's, by seed: a list."""
    return list((at_l0(table, method, column, l0) - at_l0(table, other, column, l0)).dropna())


def nearest(table, models, method, l0, seed):
    """The model of a method and seed whose L0 is nearest."""
    rows = table[(table.method == method) & (table.seed == seed)]
    return models[method, rows.setting[np.log(rows.l0 / l0).abs().idxmin()], seed]


def measured_criteria(table, pairs, paper, purity, l0):
    """What claims.csv asks of notebook 3: {id: values}, see `lab.check.judge`.

    table: of `tabulate`; pairs: of `agreements`; paper: of `paper_measures`; purity: differences.
    """

    def change(name):
        revised = at_l0(table, "the revised loss", "explained", l0)
        return list((at_l0(table, name, "explained", l0) / revised - 1).dropna())

    def minus(column, reported):
        return {n: list(paper[column][paper.model == n] - value) for n, value in reported.items()}

    agree = {name: at_l0(pairs, name, "agreement", l0) for name in pairs.method.unique()}
    of_saes = [values.max() for name, values in agree.items() if "SAE" in name]
    lowest = agree["the revised loss"].min() if agree else np.nan
    return {
        "their_probe": minus("probe", {"the paper's model": 93.43, "the paper's SAE": 90.26}),
        "their_error": minus("norm_matched", {"the paper's model": 0.143}),
        "transpose": {
            f"L0 {n:g}": list(at_l0(table, "the revised loss", "ratio", n)) for n in (6, l0, 17.2)
        },
        "tuned": difference(table, "explained", l0, "the revised loss", "the paper's loss, tuned"),
        "purity_paper": {f"{sae}, L0 {n:g}": values for (sae, n), values in purity.items()},
        "agreement": lowest - np.max(of_saes) if of_saes else np.nan,
        "competition_revised": {
            name: change(name) for name in ("the revised loss, pooled", "the revised loss, L1")
        },
    }


# --- Baselines that nobody trained ------------------------------------------------------------


def kmeans_encoders(n_units, x, l0s, seed):
    """{("k-means", l0, seed): Encoder}: centroids of x (N, D) at norm 1, and one bias.

    The bias gives the L0 asked for, on x.
    """
    x = x[:FITTED]
    kmeans = KMeans(n_units, n_init=1, random_state=seed, algorithm="elkan")
    rows = normalize(torch.from_numpy(kmeans.fit(x.cpu().numpy()).cluster_centers_).to(x), dim=1)
    scores, found = (x @ rows.T).flatten(), {}
    for l0 in l0s:
        model = h.Encoder(x.shape[1], n_units).to(x)
        rank = max(1, round(len(scores) * (1 - l0 / n_units)))
        model.W.data.copy_(rows)
        model.b.data.fill_(-float(scores.kthvalue(rank).values))
        found["k-means", l0, seed] = model
    return found


def pca_explained(x, x_test, counts):
    """Variance of x_test that the leading principal components of x explain: a list."""
    mean = x.mean(0)
    cov = x.T @ x / len(x) - torch.outer(mean, mean)
    axes = torch.linalg.eigh(cov)[1].flip(1)
    errors = ((x_test - mean) @ axes).square().sum(0)
    total = (x_test - x_test.mean(0)).square().sum()
    return [float(1 - errors[n:].sum() / total) for n in counts]
