"""What is measured of trained models: decoders, classifier, units; and tables of many models."""

import warnings
from types import SimpleNamespace

import numpy as np
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
# `accuracy` of pixels ends before it has converged; a filter of a thread is one of all threads
warnings.filterwarnings("ignore", category=ConvergenceWarning)

# --- How well a model is decoded ----------------------------------------------------------------


@torch.no_grad()
def decoded(model, x, x_test):
    """How well activations of x_test are decoded, by decoders fitted to (20,000 rows of) x: a dict.

    "l0"; "dead" units; "own", the variance explained by W^T, or an SAE's own decoder, with one gain
    and an offset; "best", that of the best linear decoder.
    """
    A, x = model.encode(x_test), x[:FITTED]
    return {
        "l0": float(h.l0(A)),
        "dead": h.dead(A),
        "own": explained(A, *h.transpose_decoder(model, x), x_test),
        "best": explained(A, *h.fit_decoder(model, x), x_test),
    }


def explained(A, V, offset, x):
    """Variance of x (N, D) that A V + offset explains: 1 - FVU, a float."""
    error = (A @ V.to(A) + offset.to(A) - x).square().sum(0).double().sum()
    return float(1 - error / (x - x.mean(0)).square().sum(0).double().sum())


@torch.no_grad()
def cut(model, x, x_test, l0):
    """The variance of x_test that a model explains with its own decoder, if all activations but the
    l0 largest per input, on average over x, are set to zero: -> float.

    One threshold for all units, the gain and the offset are chosen on (20,000 rows of) x. NaN if
    the model has fewer active units.
    """
    x = x[:FITTED]
    A = model.encode(x)
    if h.l0(A) < l0:
        return np.nan
    threshold = A.flatten().kthvalue(A.numel() - round(l0 * len(x))).values

    def encode(x):
        A = model.encode(x)
        return A * (A > threshold)

    above = SimpleNamespace(W=model.W, decoder=model.decoder, encode=encode)
    return explained(encode(x_test), *h.transpose_decoder(above, x), x_test)


@torch.no_grad()
def norm_matched_error(model, x):
    """Mean squared error per entry of A W, rescaled to the norm of its input x (N, D): -> float.

    As the script of the paper does it, without an offset, also for its SAE's decoder.
    """
    x_hat = normalize(model.encode(x) @ model.decoder, dim=1) * x.norm(dim=1, keepdim=True)
    return float((x_hat - x).square().mean())


def norm_matched_mean(x, x_test):
    """`norm_matched_error` of a model that always gives the mean of x: -> float."""
    mean = normalize(x.mean(0), dim=0) * x_test.norm(dim=1, keepdim=True)
    return float((mean - x_test).square().mean())


def pca_explained(x, x_test, counts):
    """{n: variance of x_test that the n leading principal components of x explain} for counts n."""
    mean = x.mean(0)
    axes = torch.linalg.eigh(torch.cov(x.T))[1].flip(1)
    errors = ((x_test - mean) @ axes).square().sum(0)
    total = (x_test - x_test.mean(0)).square().sum()
    return {n: float(1 - errors[n:].sum() / total) for n in counts}


# --- What units represent -----------------------------------------------------------------------


def accuracy(A, y, A_test, y_test):
    """Test accuracy in % of a logistic regression on the standardised columns of A (N, K)."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=3e-4))
    A, y, A_test, y_test = (t.detach().cpu().numpy() for t in (A, y, A_test, y_test))
    return 100 * classifier.fit(A, y).score(A_test, y_test)


def purity(A, y):
    """How specific active units are to one class, for A (N, K) of inputs with labels y (N,).

    Of unit j: max_c a_jc / sum_c a_jc, with a_jc its mean activation on class c; then the mean over
    the units that are not dead.
    """
    a = torch.stack([A[y == c].double().mean(0) for c in y.unique()], 1)
    a = a[a.sum(1) > 0]
    return float((a.amax(1) / a.sum(1)).mean())


@torch.no_grad()
def of_units(model, x, x_test, y_test):
    """ "purity", of activations of x_test with labels y_test; and the "cosine" of a row of W and of
    the decoder, mean of the units that are not dead, over entries with a standard deviation above
    .1 in x, as weights of others can be anything: a dict."""
    A, varies = model.encode(x_test), x.std(0) > 0.1
    cosine = torch.cosine_similarity(model.W[:, varies], model.decoder[:, varies])
    return {"purity": purity(A, y_test), "cosine": float(cosine[(A > 0).any(0)].mean())}


def kmeans_purity(x, x_test, y_test, n_units, seed, l0=10):
    """`purity` of units whose weights are the centroids of k-means on (20,000 rows of) centred x,
    at norm 1, with one bias for all that gives the L0: -> float."""
    x, mean = x[:FITTED], x.mean(0)
    kmeans = KMeans(n_units, n_init=1, random_state=seed).fit((x - mean).numpy())
    rows = normalize(torch.from_numpy(kmeans.cluster_centers_).float(), dim=1)
    scores = (x - mean) @ rows.T
    threshold = scores.flatten().kthvalue(scores.numel() - round(l0 * len(x))).values
    return purity(torch.relu((x_test - mean) @ rows.T - threshold), y_test)


def pair_units(A, B):
    """Pair the units of A (N, K) one to one with units of B (N, K or more), so that the sum of
    their correlations is highest.

    -> for each unit of A the unit of B (K,), and their correlations (K,); 0 for a constant unit.
    """
    K = A.shape[1]
    R = h.correlation(torch.cat([A, B], 1).double())[:K, K:].detach().cpu().numpy()
    _, partner = linear_sum_assignment(R, maximize=True)
    return partner, R[np.arange(K), partner]


def agreement(A, B):
    """Mean correlation of the units of A and B (N, K) that `pair_units` pairs: -> float."""
    return float(pair_units(A, B)[1].mean())


def n_replaced(A, B):
    """Units of A (N, K) whose partner in B correlates with them by less than .9: -> int."""
    return int((pair_units(A, B)[1] < 0.9).sum())


@torch.no_grad()
def spread_of_denominators(E):
    """Of Z_i = sum_j exp(-E_ij), over the inputs of E (N, K): its standard deviation over its mean,
    and the same of units that are shuffled over the inputs, independently: two floats."""
    e = torch.exp(-E.double())
    Z = e.sum(1)
    shuffled = e.var(0, correction=0).sum().sqrt()  # variances of independent units add up
    return float(Z.std(correction=0) / Z.mean()), float(shuffled / Z.mean())


def of_energies(E):
    """What the paper measures of test energies E (N, K) in its ablation, and L0: a dict."""
    return {
        "dead": h.dead(E),
        "redundancy": h.redundancy(E),
        "entropy": h.responsibility_entropy(E),
        "l0": float(h.l0(E)),
    }


def compare(energies, seeds):
    """A DataFrame with a row for each layer of test energies {(model, change): E (S, N, K)}.

    Columns "model", "change", "seed"; `of_energies`; the "spread" of denominators, as it is and
    "shuffled"; and, unless the change is "unchanged", the "agreement" with the layer of the same
    model and seed.
    """
    rows = []
    for (model, change), E in energies.items():
        for seed, own, unchanged in zip(seeds, E, energies[model, "unchanged"]):
            row = {"model": model, "change": change, "seed": seed, **of_energies(own)}
            row["spread"], row["shuffled"] = spread_of_denominators(own)
            if change != "unchanged":
                row["agreement"] = agreement(unchanged, own)
            rows.append(row)
    return pd.DataFrame(rows)


@torch.no_grad()
def parts_of_loss(model, x):
    """Of the paper's loss, means over minibatches of 128 of x (N, D): the variance term, and the
    rest, log-sum-exp and decorrelation: two floats. As in training rows are in a random order: in
    the order of MNIST's files digits of a minibatch are more alike."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    E = model.encode(x)[order[: len(x) // 128 * 128]].unflatten(-2, (-1, 128))
    rest = h.lse_loss(E) + h.decorrelation_loss(E)
    return float(h.variance_loss(E).mean()), float(rest.mean())


def optimisers(runs, late, x, y, x_test, y_test):
    """A DataFrame with a row for each of {name: (losses, models)}, of each epoch of a run.

    Columns "run", "seed"; "loss", of the last epoch; of its model, "variance term" and "the rest"
    (`parts_of_loss`), "classifier" (`accuracy`), "dead" units, the "log variance" of a living unit,
    a mean; and, since epoch number `late`, the "growth" of the length of W, and how many of the
    units that lived then are "replaced".
    """

    @torch.no_grad()
    def row(name):
        losses, models = runs[name]
        model, before = models[-1], models[late - 1]
        variance, rest = parts_of_loss(model, x)
        A, A_test, A_before = model.encode(x), model.encode(x_test), before.encode(x_test)
        return {
            "seed": model.seed,
            "loss": float(losses[-1]),
            "variance term": variance,
            "the rest": rest,
            "classifier": accuracy(A, y, A_test, y_test),
            "dead": h.dead(A_test),
            "log variance": float(A_test[:, (A_test > 0).any(0)].var(0).log().mean()),
            "growth": float(model.W.norm() / before.W.norm()),
            "replaced": n_replaced(A_before[:, (A_before > 0).any(0)], A_test),
        }

    rows = side_by_side(row, runs, "optimisers")
    return pd.DataFrame({"run": name} | row for name, row in rows.items())


@torch.no_grad()
def paired_rows(models, x, n=8):
    """Rows of W and of the decoder, of the first n units of the first of {name: model}, and of the
    living units of the others that `pair_units` pairs with these by the activations of x:
    {name: ((n, D), (n, D))}."""
    first, *others = models
    A, units = models[first].encode(x)[:, :n], {first: torch.arange(n)}
    for name in others:
        B = models[name].encode(x)
        living = (B > 0).any(0).nonzero().flatten()
        units[name] = living[pair_units(A, B[:, living])[0]]
    rows = {name: (model.W.detach(), model.decoder.detach()) for name, model in models.items()}
    return {name: (W[units[name]], V[units[name]]) for name, (W, V) in rows.items()}


# --- Tables of models that hold a layer for each seed -------------------------------------------


def _rows(models, measure, title):
    """A DataFrame with a row for each layer of {key: model}: a column "method" (and "setting", if
    keys are pairs), "seed", and what measure(layer) gives, a dict."""
    layers = {}
    for key, model in models.items():
        names = dict(zip(("method", "setting"), key if isinstance(key, tuple) else (key,)))
        for i, layer in enumerate(h.layers(model)):
            layers[key, i] = names | {"seed": layer.seed}, layer
    measured = side_by_side(lambda item: measure(layers[item][1]), layers, title)
    return pd.DataFrame([layers[item][0] | measured[item] for item in layers])


def benchmark(models, x, y, x_test, y_test, l0=10, with_classifier=True):
    """A row for each layer of {(method, setting): model}: "l0", "dead", "own", "best" (`decoded`),
    "parameters", "purity" and "cosine" (`of_units`); and, of the settings of each method whose mean
    L0 is nearest l0, "classifier" (`accuracy`), and "cut" to l0, of the layer of the same seed in
    the setting of the largest L0.
    """

    def measure(layer):
        found = {"parameters": sum(p.numel() for p in layer.parameters())}
        return found | decoded(layer, x, x_test) | of_units(layer, x, x_test, y_test)

    table = _rows(models, measure, "decoders")
    mean_l0 = table.groupby(["method", "setting"], sort=False).l0.mean()
    chosen = {}  # {method: (setting nearest l0, densest setting)}
    for method, of in mean_l0.groupby(level=0, sort=False):
        of = of.droplevel(0)
        chosen[method] = (np.log(of / l0).abs().idxmin(), of.idxmax())

    def measure_more(item):
        method, i = item
        nearest, densest = (h.layers(models[method, s])[i] for s in chosen[method])
        with torch.no_grad():
            A, A_test = nearest.encode(x), nearest.encode(x_test)
        found = {"cut": cut(densest, x, x_test, l0)}
        if with_classifier:
            found["classifier"] = accuracy(A, y, A_test, y_test)
        return found

    items = [(m, i) for m in chosen for i in range(len(h.layers(models[m, chosen[m][0]])))]
    for (method, i), found in side_by_side(measure_more, items, "classifier").items():
        rows = table.index[(table.method == method) & (table.setting == chosen[method][0])]
        for name, value in found.items():
            table.loc[rows[i], name] = value
    return table


def at_ten(table):
    """The rows of `benchmark` at the setting nearest to the L0 at which it was asked for more."""
    return table[table.classifier.notna()]


def paper_benchmark(models, x, y, x_test, y_test):
    """A row for each layer of {method: model}, with what the paper compares in its benchmark:
    "parameters", "l0", "dead", "classifier" in %, "norm-matched" MSE; and the variance
    "explained" with one gain and an offset, "purity" and "cosine" (`of_units`)."""

    def measure(layer):
        found = decoded(layer, x, x_test)
        with torch.no_grad():
            A, A_test = layer.encode(x), layer.encode(x_test)
        return {
            "parameters": sum(p.numel() for p in layer.parameters()),
            "l0": found["l0"],
            "dead": found["dead"],
            "classifier": accuracy(A, y, A_test, y_test),
            "norm-matched": norm_matched_error(layer, x_test),
            "explained": found["own"],
            **of_units(layer, x, x_test, y_test),
        }

    return _rows(models, measure, "the paper's measures")
