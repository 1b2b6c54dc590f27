"""Notebook 3's contestants: their losses, their training, and how they are compared.

A table has one row a trained model: method, knob, seed, what `evaluate` gives, and of labelled
inputs "probe" and "purity". `pairs` makes one of the agreement between seeds: a row a pair.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
import scipy.stats
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import normalize

import helpers as h

# --- Contestants --------------------------------------------------------------------------


class Contestant(NamedTuple):
    make: Callable  # (seed, knob) -> model
    loss: Callable
    knobs: tuple = ("weight",)  # the weights of the loss that the knob sets; TopK's is in the model
    warm_up: bool = False  # the penalty grows over the first two epochs
    unit_norm: str | None = None  # the parameter whose rows keep norm 1
    rate: float | None = None  # of Adam; None: to be tuned
    mean: torch.Tensor | None = None  # (D,), added to the inputs it is trained on


def contestants(D, K, kappa, noise=1e-3, mean=None):
    """The paper's objective, ours, three kinds of SAE, and two crosses: {name: Contestant}.

    The paper's objective keeps its rate, 0.001, and inputs with their mean: without a prior a
    larger rate always lowers the loss, which so cannot choose one. "published + prior" and "log
    det" change one thing each, and are trained in the same way.
    """

    def encoder(seed, _):
        return h.Encoder(D, K, seed=seed)

    def sae(seed, k=None, **options):
        return h.SparseAutoencoder(D, K, k=k, seed=seed, **options)

    def untied(seed, _):
        return sae(seed)

    def tied(seed, _):
        return sae(seed, tied=True)

    both, published = ("variance", "decorrelation"), {"rate": 1e-3, "mean": mean}
    bounded = partial(h.bounded_loss, kappa=kappa, noise=noise)
    return {
        # L_LSE + knob (L_var + L_dec), without and with a prior kappa |W|^2
        "published form": Contestant(encoder, h.published_loss, both, **published),
        "published + prior": Contestant(
            encoder, partial(h.published_loss, kappa=kappa), both, **published
        ),
        # sparsity(E) + knob (-log det(Cov(E) + noise I) + kappa |W|^2)
        "log det": Contestant(encoder, partial(bounded, kappa=0), **published),
        "bounded": Contestant(encoder, bounded),
        "L1/K": Contestant(encoder, partial(bounded, sparsity=lambda E: h.l1_loss(E) / K)),
        # squared error + knob sparsity(A)
        "L1 SAE": Contestant(untied, h.sae_loss, warm_up=True, unit_norm="V"),
        "tied SAE": Contestant(tied, h.sae_loss, warm_up=True),
        "tied, LSE": Contestant(tied, partial(h.sae_loss, sparsity=h.lse_loss), warm_up=True),
        # squared error; the knob is k, applied after the ReLU
        "TopK SAE": Contestant(sae, h.sae_loss, knobs=(), unit_norm="V"),
    }


def paper_sae(D, K, seed):
    """The SAE of the paper's benchmark: a decoder that starts as PyTorch's layers do."""
    model = h.SparseAutoencoder(D, K, seed=seed)
    generator = torch.Generator().manual_seed(100 + seed)
    model.V.data.uniform_(-(K**-0.5), K**-0.5, generator=generator)
    return model


def paper_sae_loss(model, x):
    """Mean squared error + 0.01 times the mean activation."""
    a = model.encode(x)
    return torch.nn.functional.mse_loss(model.decode(a), x) + 0.01 * a.mean()


@torch.no_grad()
def paper_measures(model, x, x_test):
    """What the paper reports of a model, and mean squared errors of its two `h.read_outs`."""
    A, m, m_test = model.encode(x_test), h.moments(model.encode, x), h.moments(model.encode, x_test)
    errors = {f"{name}, error": h.read_out_error(*decoder, m_test)
              for name, decoder in h.read_outs(model.decoder, m).items()}  # fmt: skip
    matched = h.norm_matched_error(A, model.decoder, x_test)
    size = sum(p.numel() for p in model.parameters())
    return {"L0": h.l0(A), "norm-matched error": matched} | errors | {"parameters": size}


def fit(contestant, knobs, seeds, x, *, rate, epochs, batch_size, title=None):
    """Train a contestant at every knob and seed, the last quarter of the epochs at a tenth of the
    rate: [(knob, seed, model)], models that read x."""
    mean, epoch, trained = contestant.mean, np.arange(epochs), []
    inputs = x if mean is None else x + mean
    schedule = {"lr": np.where(epoch < 0.75 * epochs, 1, 0.1)}
    if contestant.warm_up:
        schedule["weight"] = np.clip(epoch / 2, 0, 1)
    for group in [knobs] if contestant.knobs else [[k] for k in knobs]:  # one k a stack
        stack = [(k, s, contestant.make(s, k).to(x.device)) for s in seeds for k in group]
        h.train(
            [model for *_, model in stack], contestant.loss, inputs, epochs=epochs,
            weights={name: [k for k, *_ in stack] for name in contestant.knobs},
            batch_size=batch_size, lr=rate, schedule=schedule, seed=seeds,
            unit_norm=contestant.unit_norm, progress=title,
        )  # fmt: skip
        for *_, model in stack if mean is not None else ():  # the same codes, of x itself
            model.b.data += model.W.data @ mean
        trained += stack
    return trained


def tune(contestant, knob, x, rates, *, seed, epochs, batch_size, title=None):
    """The rate of the lowest validation loss.

    One model a rate learns from the first half of x, and is judged on its last sixth.
    """
    held_out = x[-(len(x) // 6) :]
    if len(held_out) < batch_size:
        raise ValueError(f"{len(x)} rows: a sixth of them, for validation, is no batch")
    losses = []
    for rate in rates:
        options = {"epochs": epochs, "batch_size": batch_size, "title": title}
        weights, loss = dict.fromkeys(contestant.knobs, knob), np.inf
        with contextlib.suppress(FloatingPointError):  # of a rate that is too large
            ((*_, model),) = fit(contestant, [knob], [seed], x[: len(x) // 2], rate=rate, **options)
            with torch.no_grad():
                batches = [b for b in held_out.split(batch_size) if len(b) == batch_size]
                loss = float(sum(contestant.loss(model, batch, **weights) for batch in batches))
        losses.append(np.nan_to_num(loss, nan=np.inf))
    return rates[int(np.argmin(losses))]


def train_all(entrants, chosen, seeds, x, rates, *, epochs, batch_size):
    """Tune and train contestants: models {(method, knob, seed): model} and rates {method: rate}.

    chosen: {method: (knobs, number of seeds)}. A rate that is not fixed is that of the middle
    knob, tried on the first seed for half of the epochs.
    """
    models, best = {}, {}
    for method, (knobs, n_seeds) in chosen.items():
        entrant, middle = entrants[method], knobs[len(knobs) // 2]
        trial = {"epochs": max(4, epochs // 2), "batch_size": batch_size, "seed": seeds[0]}
        best[method] = entrant.rate or tune(
            entrant, middle, x, rates, title=f"{method}, rate", **trial
        )
        options = {"rate": best[method], "epochs": epochs, "batch_size": batch_size}
        for knob, seed, model in fit(entrant, knobs, seeds[:n_seeds], x, title=method, **options):
            models[method, knob, seed] = model
    return models, best


def against_l1(x, x_test, K, chosen, seeds, rates, noise, *, epochs, batch_size):
    """bounded and the L1 SAE on other data: a table of all models, and rows that compare them.

    chosen: {method: knobs}. A row for each knob of bounded and read-out: FVU of both methods at
    the same L0, and the share of what the L1 SAE explains; means over seeds.
    """
    entrants, models, rows = contestants(x.shape[1], K, h.prior(x, K), noise), {}, []
    for method, knobs in chosen.items():
        options = {"rate": rates[method], "epochs": epochs, "batch_size": batch_size}
        for knob, seed, model in fit(entrants[method], knobs, seeds, x, title=method, **options):
            models[method, knob, seed] = model
    table = tabulate(models, x, x_test)
    for knob, ours in table[table.method == "bounded"].groupby("knob"):
        for column, name in (("fvu", "Wᵀ or decoder"), ("fvu least squares", "least squares")):
            own, l0 = ours[column].mean(), ours.l0.mean()
            other = by_seed(table, "L1 SAE", column, l0).mean()
            rows.append({"λ": knob, "L0": l0, "read by": name, "FVU": own, "L1 SAE's": 1 - other,
                         "share of the variance explained": (1 - own) / other})  # fmt: skip
    return table, rows


# --- What is measured of one model, or of two ------------------------------------------------


@torch.no_grad()
def evaluate(model, x, x_test):
    """A model's code on test inputs, and its read-outs, fitted on x and tested on x_test: a dict.

    "l0"; "dead", units active on no test input; "size", parameters; the fraction of the test
    inputs' variance that is left unexplained (FVU) by an SAE's own decoder with its own offset
    ("fvu own"), by that or Wᵀ with one gain and an offset ("fvu"), and by "fvu least squares".
    """
    m, m_test, A = h.moments(model.encode, x), h.moments(model.encode, x_test), model.encode(x_test)
    decoders = {"fvu" + " least squares" * (name == "least squares"): decoder
                for name, decoder in h.read_outs(model.decoder, m).items()}  # fmt: skip
    if hasattr(model, "c"):
        decoders["fvu own"] = model.decoder.double(), model.c.double()
    variance = float(m_test["xx"]) / x.shape[1]
    return {
        "l0": h.l0(A),
        "dead": int((A <= 0).all(0).sum()),
        "size": sum(p.numel() for p in model.parameters()),
        **{name: h.read_out_error(*d, m_test) / variance for name, d in decoders.items()},
    }


def purity(A, y):
    """Class purity of features A (N, K) of inputs with labels y (N,), mean over living units.

    Of unit j: max_c a_jc / sum_c a_jc, with its mean activation a_jc over inputs of class c.
    """
    a = torch.stack([A[y == c].double().mean(0) for c in y.unique()], 1)
    a = a[a.sum(1) > 0]
    return float((a.amax(1) / a.sum(1)).mean())


def agreement(one, other, x):
    """How much two models have the same units: (by activations, by rows).

    Units are matched one to one (Hungarian) so that the mean is largest: of the correlations of
    their activations on x (0 for a constant unit), or of the cosines of the rows that write.
    """
    with torch.no_grad():
        A = torch.cat([m.encode(x) for m in (one, other)], 1).double()
        rows = normalize(torch.cat([m.decoder for m in (one, other)]).double(), dim=1)
    K = len(rows) // 2
    matched = []
    for similarity in (h.correlation(A), rows @ rows.T):
        block = similarity[:K, K:].cpu().numpy()
        matched.append(float(block[linear_sum_assignment(block, maximize=True)].mean()))
    return tuple(matched)


def tabulate(models, x, x_test, y=None, y_test=None, probe=True):
    """A row for each of {(method, knob, seed): model}; with labels also purity and the probe."""
    rows = []
    for (method, knob, seed), model in models.items():
        rows.append({"method": method, "knob": knob, "seed": seed} | evaluate(model, x, x_test))
        if y is not None:
            with torch.no_grad():
                rows[-1]["purity"] = purity(model.encode(x_test), y_test)
    table = pd.DataFrame(rows)
    if y is not None and probe:
        codes = [model.encode for model in models.values()]
        table["probe"] = probe_accuracies(codes, x, y, x_test, y_test)
    return table


def pairs(models, x):
    """Agreement of every pair of seeds at equal knobs: a table; models: {(method, knob, seed)}."""
    rows = []
    for (method, knob, a), (method_b, knob_b, b) in combinations(models, 2):
        if (method, knob) == (method_b, knob_b):
            one, other = models[method, knob, a], models[method, knob, b]
            by_activations, by_rows = agreement(one, other, x)
            with torch.no_grad():
                l0 = (h.l0(one.encode(x)) * h.l0(other.encode(x))) ** 0.5
            rows.append({
                "method": method, "knob": knob, "seed": f"{a}, {b}", "l0": l0,
                "agreement": by_activations, "agreement of rows": by_rows,
            })  # fmt: skip
    return pd.DataFrame(rows)


def templates(rows, x, l0):
    """An encoder that nobody trained: the rows (K, D) at norm 1 and one bias, which makes its
    mean number of active units on x (N, D) the l0 asked for."""
    model = h.Encoder(rows.shape[1], len(rows)).to(x)
    with torch.no_grad():
        model.W.copy_(normalize(rows, dim=1))
        scores = (x[:20_000] @ model.W.T).flatten()
        model.b.fill_(
            -float(scores.kthvalue(max(1, round(len(scores) * (1 - l0 / len(rows))))).values)
        )
    return model


def controls(K, x, l0s, seeds):
    """`templates` of k-means centroids, of inputs and of random weights: {(name, l0, seed)}."""
    from sklearn.cluster import KMeans

    models = {}
    for seed in seeds:
        some, few = torch.Generator().manual_seed(seed), x[:20_000].cpu().numpy()
        centroids = KMeans(K, n_init=1, random_state=seed).fit(few).cluster_centers_
        rows = {
            "k-means centroids": torch.from_numpy(centroids).to(x),
            "random inputs": x[torch.randperm(len(x), generator=some)[:K].to(x.device)],
            "random weights": torch.randn(K, x.shape[1], generator=some).to(x),
        }
        models |= {(name, l0, seed): templates(W, x, l0) for name, W in rows.items() for l0 in l0s}
    return models


def probe_accuracies(encoders, x_train, y_train, x_test, y_test):
    """Test accuracy, in %, of logistic regression on each encoder's standardised features.

    encoders: functions x (N, D) -> A (N, K); y: class labels. Probes run side by side, one thread
    each: alone, a second thread makes one slower. They stop some 0.03 points from where they
    would converge.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    def probe(A_train, A_test):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=3e-4))
        return 100 * model.fit(A_train, y_train.cpu()).score(A_test, y_test.cpu())

    codes = ([e(x).detach().cpu().numpy() for x in (x_train, x_test)] for e in encoders)
    with threadpool_limits(1):
        parallel = joblib.Parallel(torch.get_num_threads(), prefer="threads", pre_dispatch="n_jobs")
        return parallel(joblib.delayed(probe)(*code) for code in codes)


# --- Comparison at equal L0 ---------------------------------------------------------------


def interpolate(l0s, values, l0, log=False):
    """A method's value at a given L0, between its models, in log L0 (log: and in log value).

    NaN outside of them: nothing is extrapolated. A model without active units does not count.
    """
    l0s, values = np.asarray(l0s, float), np.asarray(values, float)
    order = [i for i in np.argsort(l0s) if l0s[i] > 0 and np.isfinite(values[i])]
    if not order:
        return np.nan
    y = np.log(values[order]) if log else values[order]
    at = np.interp(np.log(l0), np.log(l0s[order]), y, left=np.nan, right=np.nan)
    return float(np.exp(at) if log else at)


def by_seed(table, method, column, l0):
    """A method's value at an L0, seed by seed where its models enclose that L0: a Series.

    FVUs are interpolated by their logarithm, and then turned into the variance explained, 1 - FVU.
    """
    error = column.startswith("fvu")
    values = {
        seed: interpolate(rows.l0, rows[column], l0, log=error)
        for seed, rows in table[table.method == method].groupby("seed")
    }
    values = pd.Series(values, dtype=float).dropna()
    return 1 - values if error else values


def interval(values):
    """(mean, low, high): Student's 95 % interval of a few values; NaN for fewer than two."""
    if len(values) < 2:
        return (float(np.mean(values)) if len(values) else np.nan, np.nan, np.nan)
    t = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return float(np.mean(values)), float(t.low), float(t.high)


def compare(table, column, l0s, to):
    """Every method's value at equal L0 relative to a method's, paired by seed: a DataFrame.

    Columns method, L0, mean, low, high (95 % t interval over seeds). Variances explained are
    divided; of other columns the difference is taken. NaN where nothing can be compared.
    """
    rows = []
    for method in table.method.unique():
        for l0 in l0s if method != to else ():
            ours, theirs = (by_seed(table, m, column, l0) for m in (method, to))
            ours = ours / theirs if column.startswith("fvu") else ours - theirs
            rows.append((method, l0, *interval(ours.dropna())))
    return pd.DataFrame(rows, columns=["method", "L0", "mean", "low", "high"])
