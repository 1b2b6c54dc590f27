"""Notebook 3's methods: their losses, how they are tuned and trained, and tables at equal L0.

Models are kept as {(name, setting, seed): model}; a table has a row for each of them.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import mse_loss, normalize

import helpers as h
from lab import units
from lab.report import interval
from lab.training import ADAM, side_by_side, train

# --- Methods ------------------------------------------------------------------------------


class Method(NamedTuple):
    model: Callable  # (D, K, seed, setting) -> model
    loss: Callable
    settings: tuple  # the values that are swept
    look: tuple  # colour, marker and line
    argument: str | tuple | None = "lam"  # of the loss, which the setting is; None: of the model
    lr: float | None = None  # None: tuned
    mean: torch.Tensor | None = None  # (D,), added to the inputs it is trained on
    optimizer: Callable = ADAM
    slow_start: bool = False  # the first epoch at a twentieth of the rate
    warm_up: bool = False  # the penalty grows over the first two epochs
    unit_norm: str | None = None  # the parameter whose rows keep norm 1


def _encoder(D, K, seed, setting):
    return h.Encoder(D, K, seed=seed)


def _sae(D, K, seed, setting, **options):
    return h.SparseAutoencoder(D, K, seed=seed, **options)


def _top_k(D, K, seed, setting):
    return h.SparseAutoencoder(D, K, k=int(setting), seed=seed)


HOW = {  # two optimisers, neither of them tuned: without a prior no loss can choose a rate
    "Adam": {"lr": 1e-3, "optimizer": ADAM},
    "SGD": {"lr": 0.01, "optimizer": torch.optim.SGD, "slow_start": True},
}


def methods(K, kappa, mean=None, noise=1e-3):
    """What is compared at equal L0, {name: Method}, for K units on centred inputs.

    The published form keeps the paper's rate and its inputs, to which `mean` is added: without a
    prior a larger rate always lowers the loss, so no held-out loss can choose one.
    """
    bounded = partial(h.bounded_loss, kappa=kappa, noise=noise)
    with_prior = partial(h.published_loss, kappa=kappa)
    with_l1 = partial(bounded, sparsity=lambda E: h.l1_loss(E) / K)
    tied, saes = partial(_sae, tied=True), {"argument": "penalty", "warm_up": True}
    return {
        "published form": Method(
            _encoder,
            h.published_loss,
            (0.15, 0.35, 0.8),
            ("C1", "v", ":"),
            mean=mean,
            **HOW["Adam"],
        ),
        "published form, SGD": Method(
            _encoder, h.published_loss, (0.25, 0.5), ("C1", ">", "-"), mean=mean, **HOW["SGD"]
        ),
        "published + prior": Method(_encoder, with_prior, (0.1, 0.25, 0.65), ("C5", "<", "-.")),
        "bounded": Method(_encoder, bounded, (0.1, 0.25, 0.75), ("k", "o", "-"), lr=0.008),
        "bounded, L1": Method(_encoder, with_l1, (0.25, 0.5), ("0.5", "o", "--")),
        "L1 SAE": Method(
            _sae, h.sae_loss, (0.45, 1.0, 1.6, 2.6), ("C0", "s", "--"), unit_norm="V", **saes
        ),
        "tied SAE": Method(tied, h.sae_loss, (0.6, 0.8), ("C2", "D", "-."), **saes),
        "TopK SAE": Method(
            _top_k, h.sae_loss, (5, 10, 20), ("C3", "X", "--"), argument=None, unit_norm="V"
        ),
    }


VARIANTS = {  # objectives without and with the prior; of each, lambda on either side of L0 10
    ("published form", "published + prior"): (
        h.published_loss,  # without the prior on raw inputs: TRAINED
        {"raw": ((), (0.2, 0.35)), "centred": ((0.15, 0.25), (0.2, 0.32))},
    ),
    ("log det", "bounded"): (
        h.bounded_loss,
        {"raw": ((0.28, 0.5), (0.17, 0.3)), "centred": ((0.14, 0.25), (0.17, 0.3))},
    ),
}


TRAINED = {  # of `methods`; `variants` leaves these out
    "published form": "published form | Adam | raw",
    "published form, SGD": "published form | SGD | raw",
}


def variants(x, K, kappa, mean, seeds, epochs):
    """Jobs that train the objectives without a decoder, with and without the prior, under both
    optimisers, on raw and on centred inputs, but for TRAINED:
    {("objective | optimiser | inputs", lambda, seed): model}."""
    jobs = []
    for pair, (loss, lams) in VARIANTS.items():
        for optimiser, how in HOW.items():
            for inputs, added in (("raw", mean), ("centred", None)):
                names = [f"{objective} | {optimiser} | {inputs}" for objective in pair]
                kappas = dict(zip((0.0, kappa), names))  # one stack has both
                both = [(lam, k) for k, two in zip(kappas, lams[inputs]) for lam in two]
                method = Method(_encoder, loss, both, (), ("lam", "kappa"), mean=added, **how)
                own = stacks(" and ".join(pair), method, x, K, seeds, epochs=epochs)
                jobs += [partial(_by_prior, kappas, job) for job in own]
    return jobs


def _by_prior(names, job):
    return {(names[k], lam, seed): model for (_, (lam, k), seed), model in job().items()}


def paper_sae(D, K, seed):
    """The SAE of the paper's benchmark: a decoder that starts as PyTorch's layers do."""
    model = h.SparseAutoencoder(D, K, seed=seed)
    generator = torch.Generator().manual_seed(100 + seed)
    model.V.data.uniform_(-(K**-0.5), K**-0.5, generator=generator)
    return model


def paper_sae_loss(model, x):
    """Mean squared error + 0.01 times the mean activation."""
    a = model.encode(x)
    return mse_loss(model.decode(a), x) + 0.01 * a.mean()


@torch.no_grad()
def norm_matched_error(model, x):
    """Mean squared error per entry when each A_i W is given the norm of its input x_i; -> float.

    The reconstruction of the paper's code; its text does not mention it.
    """
    x_hat = normalize(model.encode(x) @ model.decoder, dim=1) * x.norm(dim=1, keepdim=True)
    return float((x_hat - x).square().mean())


# --- Training and tuning ------------------------------------------------------------------


def stacks(name, method, x, K, seeds, *, lr=None, settings=None, epochs, batch_size=128, most=12):
    """Jobs for `side_by_side`, each of which trains about so many models of a method.

    The last quarter of the epochs has a tenth of the rate. lr and settings: None for the method's
    own. The models read x (N, D), also where the method's `mean` was added for training.
    """
    settings = method.settings if settings is None else settings
    if method.argument is None:  # the setting is in the model, and a stack has models of one kind
        groups = [[(s, seed) for seed in seeds] for s in settings]
    else:
        parts = np.array_split(seeds, min(len(seeds), -(-len(seeds) * len(settings) // most)))
        groups = [[(s, seed) for seed in part.tolist() for s in settings] for part in parts]
    options = {"lr": lr or method.lr, "epochs": epochs, "batch_size": batch_size}
    return [partial(_train_stack, name, method, x, K, group, **options) for group in groups]


def _train_stack(name, method, x, K, group, *, lr, epochs, batch_size):
    """Train a model of each (setting, seed) in group: {(name, setting, seed): model}.

    lr: one rate for all, or a list of one for each, which then is in the place of the setting.
    """
    stack = [method.model(x.shape[1], K, seed, s).to(x.device) for s, seed in group]
    epoch = np.arange(epochs)
    schedule = {"lr": np.where(epoch < 0.75 * epochs, 1.0, 0.1)}
    if method.slow_start:
        schedule["lr"][0] = 0.05
    if method.warm_up and method.argument:
        schedule[method.argument] = np.clip(epoch / 2, 0, 1)
    train(
        stack,
        method.loss,
        x if method.mean is None else x + method.mean,
        arguments=_arguments(method, [s for s, _ in group]),
        schedule=schedule,
        seed=[seed for _, seed in group],
        lr=lr,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=method.optimizer,
        unit_norm=method.unit_norm,
        title=str(name),
    )
    if method.mean is not None:  # the same code, of x itself
        for model in stack:
            model.b.data += model.W.data @ method.mean
    keys = group if np.ndim(lr) == 0 else [(rate, seed) for rate, (_, seed) in zip(lr, group)]
    return {(name, *key): model for key, model in zip(keys, stack)}


def _arguments(method, settings):
    """Of the loss, one value for each of the settings: {argument: list}."""
    if isinstance(method.argument, tuple):
        return dict(zip(method.argument, map(list, zip(*settings))))
    return {method.argument: settings} if method.argument else {}


def train_all(jobs, title="training"):
    """Run the jobs of `stacks` side by side: {(name, setting, seed): model}."""
    return {key: model for part in side_by_side(*jobs, title=title) for key, model in part.items()}


def tune(chosen, x, K, rates, *, seed=0, epochs, batch_size=128):
    """The rate of the lowest validation loss for each of the methods {name: Method}, at its middle
    setting: {name: rate}, and {name: {rate: loss per row}} with NaN where training diverged.

    Models learn from the first half of x, and are judged on its last sixth. Where the best rate is
    the smallest or the largest, two more are tried beyond it, at most three times.
    """
    options = {"seed": seed, "epochs": epochs, "batch_size": batch_size}
    return run_tuning({n: partial(_tried, n, m, x, K, rates, **options) for n, m in chosen.items()})


def run_tuning(jobs):
    """Run {name: job that gives {rate: loss}} side by side: what `tune` returns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rate that is too large is NaN here
        tried = dict(zip(jobs, side_by_side(*jobs.values(), title="tuning")))
    return {name: _best(losses) for name, losses in tried.items()}, tried


def _best(losses):
    return min(losses, key=lambda lr: np.nan_to_num(losses[lr], nan=np.inf))


def _tried(name, method, x, K, rates, *, seed, epochs, batch_size):
    """Validation loss per row of a method at each of the rates, and beyond an edge that is best."""
    held_out = x[-(len(x) // 6) :].split(batch_size)
    if len(held_out[0]) < batch_size:
        raise ValueError(f"{len(x)} rows: a sixth of them, for validation, is no batch")

    held_out = [batch for batch in held_out if len(batch) == batch_size]
    setting = method.settings[len(method.settings) // 2]
    arguments = {method.argument: setting} if method.argument else {}
    options, tried = {"epochs": epochs, "batch_size": batch_size}, {}
    for _ in range(4):
        group = [(setting, seed)] * len(rates)
        half = x[: len(x) // 2]
        models = _train_stack(name, method, half, K, group, lr=list(rates), **options)
        with torch.no_grad():
            for lr, model in zip(rates, models.values()):
                total = sum(method.loss(model, rows, **arguments) for rows in held_out)
                tried[lr] = float(total) / len(held_out) / batch_size
        best = _best(tried)
        if min(tried) < best < max(tried):
            break
        rates = (best / 4, best / 2) if best == min(tried) else (2 * best, 4 * best)
    return tried


# --- Tables -------------------------------------------------------------------------------

EXPLAINED = ("transpose", "own", "solved")  # columns of variance explained


@torch.no_grad()
def evaluate(model, x, x_test):
    """A model's code on test inputs, and what its decoders, fitted on x, explain of x_test: a dict.

    "l0"; "dead" units; "parameters"; variance explained by Wᵀ or an SAE's own rows with one gain
    and an offset ("transpose"), by an SAE as it is ("own"), and by the solved decoder ("solved");
    "share", that of Wᵀ in what the solved decoder explains. NaN for a model that diverged.
    """
    parameters = sum(p.numel() for p in model.parameters())
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        empty = dict.fromkeys(["l0", "dead", "parameters", *EXPLAINED, "share"], np.nan)
        return empty | {"parameters": parameters}
    A, moments = model.encode(x_test), h.code_moments(model, x)
    transpose, solved = (
        h.variance_explained(h.with_decoder(model, x, partial(decoder, moments=moments)), x_test)
        for decoder in (h.transpose_decoder, h.fit_decoder)
    )
    own = h.variance_explained(model, x_test) if hasattr(model, "c") else np.nan
    found = {"l0": h.l0(A), "dead": h.dead(A), "parameters": parameters}
    found |= {"transpose": transpose, "own": own, "solved": solved}
    return found | {"share": transpose / solved if solved else np.nan}


def tabulate(models, x, x_test, y_test=None):
    """A row for each of {(method, setting, seed): model}: what `evaluate` gives; with labels also
    "purity"."""

    def row(key):
        found = dict(zip(("method", "setting", "seed"), key)) | evaluate(models[key], x, x_test)
        if y_test is not None:
            with torch.no_grad():
                found["purity"] = units.purity(models[key].encode(x_test), y_test)
        return found

    return pd.DataFrame(side_by_side(*[partial(row, key) for key in models], title="decoders"))


def probes(table, models, x, y, x_test, y_test, l0, seeds):
    """A column for the table: accuracies of the probe where settings bracket the L0, else NaN.

    seeds: {method: seeds}, with None for all other methods.
    """
    keys = list(zip(table.method, table.setting, table.seed))
    near = {method: bracket(table, method, l0) for method in table.method.unique()}
    asked = [(m, s, i) for m, s, i in keys if s in near[m] and i in seeds.get(m, seeds[None])]
    jobs = [partial(units.probe, models[key], x, y, x_test, y_test) for key in asked]
    found = dict(zip(asked, side_by_side(*jobs, title="probes")))
    return [found.get(key, np.nan) for key in keys]


def interpolate(l0s, values, l0, explained=False):
    """A method's value at a given L0, between its models, in log L0.

    explained: of a variance explained, 1 - FVU, by the logarithm of the FVU. NaN outside of the
    models: nothing is extrapolated. A model without active units does not count.
    """
    l0s, values = np.asarray(l0s, float), np.asarray(values, float)
    order = [i for i in np.argsort(l0s) if l0s[i] > 0 and np.isfinite(values[i])]
    if not order:
        return np.nan
    y = np.log1p(-values[order]) if explained else values[order]
    found = np.interp(np.log(l0), np.log(l0s[order]), y, left=np.nan, right=np.nan)
    return float(-np.expm1(found) if explained else found)


def at_l0(table, method, column, l0):
    """A method's value at an L0, seed by seed where its models enclose that L0: a Series."""
    values = {
        seed: interpolate(rows.l0, rows[column], l0, column in EXPLAINED)
        for seed, rows in table[table.method == method].groupby("seed")
    }
    return pd.Series(values, dtype=float).dropna()


def l0_at(table, method, column, explained):
    """The L0 at which a method explains so much variance, seed by seed: a Series."""
    values = {}
    for seed, rows in table[table.method == method].groupby("seed"):
        rows = rows.dropna(subset=[column]).sort_values(column)
        log_fvu, log_l0 = -np.log1p(-rows[column]), np.log(rows.l0)
        at = np.interp(-np.log1p(-explained), log_fvu, log_l0, left=np.nan, right=np.nan)
        values[seed] = float(np.exp(at))
    return pd.Series(values, dtype=float).dropna()


def bracket(table, method, l0, column="l0"):
    """The settings of a method's models just below and just above an L0, by their means."""
    means = table[table.method == method].groupby("setting").l0.mean().sort_values()
    below, above = means[means <= l0].index, means[means > l0].index
    return [*below[-1:], *above[:1]]


def difference(table, column, l0, method, other="L1 SAE", ratio=False):
    """A method's values at an L0 relative to another's, paired by seed: a list."""
    ours, theirs = (at_l0(table, m, column, l0) for m in (method, other))
    return list((ours / theirs if ratio else ours - theirs).dropna())


def compare(table, column, l0s, other="L1 SAE", ratio=False):
    """Every method relative to another at equal L0, paired by seed: a DataFrame.

    Columns method, L0, mean, low, high (95 % t interval over seeds). NaN where nothing compares.
    """
    rows = [
        (method, l0, *interval(difference(table, column, l0, method, other, ratio)))
        for method in table.method.unique()
        for l0 in l0s
        if method != other
    ]
    return pd.DataFrame(rows, columns=["method", "L0", "mean", "low", "high"])


# --- Notebook 3's experiments -----------------------------------------------------------------


def controls(x, methods):
    """What else differs between two optimisers of the published form on raw inputs: the basis,
    whether there is a slow start, and the rate.

    -> {"control | optimiser": (Method, Q)}: it is to learn from x @ Q, with an orthogonal Q (D, D),
    or from x where Q is None.
    """
    some = torch.randn(x.shape[1], x.shape[1], generator=torch.Generator().manual_seed(0))
    found = {}
    rotation, axes = torch.linalg.qr(some)[0].to(x), torch.linalg.eigh(torch.cov(x.T))[1].flip(1)
    for how, name in {"Adam": "published form", "SGD": "published form, SGD"}.items():
        method = methods[name]._replace(settings=(0.3, 0.5))
        found[f"random rotation | {how}"] = method._replace(mean=method.mean @ rotation), rotation
        found[f"principal axes | {how}"] = method._replace(mean=method.mean @ axes), axes
        method = method._replace(settings=(0.25, 0.6))
        found[f"starts exchanged | {how}"] = method._replace(slow_start=not method.slow_start), None
        found[f"rate × 3 | {how}"] = method._replace(lr=3 * method.lr), None
    return found


def spreads(share, names):
    """Of each objective the largest minus the smallest share over all optimisers and inputs."""
    found = {}
    for name in names:
        values = pd.DataFrame({k: v for k, v in share.items() if k.startswith(f"{name} |")})
        found[name] = list((values.max(1) - values.min(1)).dropna())
    return found


def paper_comparison(theirs, x, y, x_test, y_test, K, seeds, epochs):
    """The paper's model, which notebook 2 measured, and its SAE, trained here: a row a seed.

    theirs: {"probe", "l0", "norm_matched_error", "transpose_error", "solved_error"}, each a list.
    """
    columns = ["probe, %", "L0", "norm-matched MSE", "MSE", "solved MSE"]
    keys = ("probe", "l0", "norm_matched_error", "transpose_error", "solved_error")
    model = dict(zip(columns, (theirs[key] for key in keys)))
    stack, seeds = [paper_sae(x.shape[1], K, seed) for seed in seeds], list(seeds)
    options = {"epochs": epochs, "lr": 1e-3, "title": "the paper's SAE"}
    halves = [(stack[i::2], seeds[i::2]) for i in range(min(2, len(seeds)))]
    side_by_side(
        *[partial(train, half, paper_sae_loss, x, seed=own, **options) for half, own in halves]
    )
    variance = float(x_test.var(0, correction=0).mean())

    def row(sae):
        found = evaluate(sae, x, x_test)
        errors = [(1 - found[c]) * variance for c in ("own", "solved")]
        probe = units.probe(sae, x, y, x_test, y_test)
        return dict(zip(columns, (probe, found["l0"], norm_matched_error(sae, x_test), *errors)))

    sae = pd.DataFrame(side_by_side(*[partial(row, sae) for sae in stack], title="probes"))
    both = {"model": pd.DataFrame(model), "SAE": sae}
    return pd.concat(both, names=["the paper's", "seed"]).reset_index()


def started_from(model, loss, x):
    """An encoder with W and b of a trained SAE, at their common factor of the least loss on x."""

    def at(factor):
        encoder = h.Encoder(model.W.shape[1], len(model.W)).to(model.W)
        encoder.W.data, encoder.b.data = factor * model.W.detach(), factor * model.b.detach()
        with torch.no_grad():
            return float(loss(encoder, x)), encoder

    return min((at(2.0**i) for i in np.arange(-4, 4.5, 0.5)), key=lambda pair: pair[0])[1]


def overcomplete(x, x_test, settings, rates, l0, seeds, steps):
    """Methods at several numbers of units K, each tuned and trained there.

    settings: {K: {method: (below, above)}}, on either side of the L0; steps: {method: about so many
    of them}. Batches of 2K rows, or 128. Returns a table with a column "units", and the rates
    {"method, K": lr}.
    """
    tuning, training, jobs = {}, {}, []
    for K, chosen in sorted(settings.items(), reverse=True):  # the longest first: no core waits
        size, named = max(128, 2 * K), methods(K, h.prior(x, K))
        for m, own in chosen.items():
            method, epochs = named[m]._replace(settings=own), steps[m] / (len(x) // size)
            options = {"epochs": max(4, round(epochs)), "batch_size": size}
            training[m, K] = partial(stacks, m, method, x, K, seeds, **options)
            options |= {"epochs": max(4, options["epochs"] // 2), "seed": seeds[0]}
            tuning[m, K] = partial(_tried, m, method, x, K, rates, **options)
    best, _ = run_tuning(tuning)
    for K in settings:
        l0s = 0.8 * l0, 1.25 * l0
        jobs += [(K, partial(units.untrained, K, x, l0s, s, ["k-means templates"])) for s in seeds]
    jobs += [(K, job) for (m, K), stack in training.items() for job in stack(lr=best[m, K])]
    parts = side_by_side(*[job for _, job in jobs], title="more units")
    table = pd.concat(
        [tabulate(part, x[:20_000], x_test).assign(units=K) for (K, _), part in zip(jobs, parts)]
    )
    best = {f"{m}, {K} units": best[m, K] for K, chosen in settings.items() for m in chosen}
    return table.reset_index(drop=True), best


MORE_UNITS = {  # settings on either side of L0 10, for 25 to 200 units on 50 components
    25: {"bounded": (1.6, 3.4), "L1 SAE": (0.5, 1.0), "tied SAE": (0.4, 0.8), "TopK SAE": (8, 13)},
    50: {"bounded": (0.3, 0.65), "L1 SAE": (0.8, 1.3), "tied SAE": (0.6, 1.0), "TopK SAE": (8, 13)},
    100: {
        "bounded": (0.07, 0.14),
        "L1 SAE": (0.9, 1.8),
        "tied SAE": (0.7, 1.2),
        "TopK SAE": (8, 13),
    },
    200: {
        "bounded": (0.015, 0.04),
        "L1 SAE": (1.2, 2.0),
        "tied SAE": (0.7, 1.3),
        "TopK SAE": (8, 13),
    },
}


def by_units(table, l0):
    """{(method, column): {K: values of seeds at an L0}} of the table of `overcomplete`."""
    found = {}
    for method in table.method.unique():
        for column in ("transpose", "solved"):
            by_k = {k: list(at_l0(rows, method, column, l0)) for k, rows in table.groupby("units")}
            if method != "k-means templates" or column == "solved":
                found[method, column] = by_k
    return found


def gap_closed(table, l0):
    """(bounded - k-means) / (L1 SAE - k-means), variance explained by solved decoders, by seed."""
    names = ("bounded", "L1 SAE", "k-means templates")
    ours, sae, floor = (at_l0(table, name, "solved", l0) for name in names)
    return list(((ours - floor) / (sae - floor)).dropna()) or [np.nan]


def compare_moved(table, groups, x, x_test):
    """Groups {name: models}, and the L1 SAE of the table at the L0 of the last group.

    -> {name: (L0, variance explained by Wᵀ, solved)}, means over a group or over seeds.
    """
    columns, found = ["l0", "transpose", "solved"], {}
    for name, models in groups.items():
        rows = side_by_side(*[partial(evaluate, m, x, x_test) for m in models], title="decoders")
        found[name] = tuple(pd.DataFrame(rows)[columns].mean())
    l0 = found[name][0]
    values = [float(at_l0(table, "L1 SAE", column, l0).mean()) for column in columns[1:]]
    return found | {"L1 SAE, at that L0": (l0, *values)}


def unit_rows(table, shared, l0s, l0):
    """Purity at each L0, and agreement, probe and solved decoder at one: text, a row a method."""
    rows = []
    for method in table.method.unique():
        row = {f"at L0 {l0:g}": method}
        for at in l0s:
            row[f"purity, L0 {at:g}"] = f"{at_l0(table, method, 'purity', at).mean():.2f}"
        pairs = at_l0(shared, method, "agreement", l0)
        row["agreement"] = f"{pairs.min():.2f} to {pairs.max():.2f}"
        row["probe, %"] = f"{at_l0(table, method, 'probe', l0).mean():.1f}"
        rows.append(row | {"solved": f"{at_l0(table, method, 'solved', l0).mean():.3f}"})
    return pd.DataFrame(rows).replace({"nan": "–", "nan to nan": "–"})


def agreement_margin(shared, l0):
    """Smallest agreement of a pair of seeds of bounded, minus the largest of tied and TopK."""
    pairs = {m: at_l0(shared, m, "agreement", l0) for m in ("bounded", "tied SAE", "TopK SAE")}
    others = [pairs[m].max() for m in ("tied SAE", "TopK SAE")]
    return float(pairs["bounded"].min() - np.max(others))


def floors(table, x, x_test):
    """What needs no training, {name: (L0s, variance explained)}: solved templates, and PCA."""
    rows = table[table.method == "k-means templates"].groupby("setting")[["l0", "solved"]].mean()
    counts = [5, 7, 10, 14, 20]
    variance = torch.linalg.eigh(torch.cov(x.T))[1].flip(1)
    power = ((x_test - x.mean(0)) @ variance).square().sum(0).cumsum(0)
    total = (x_test - x_test.mean(0)).square().sum()
    pca = [float(power[n - 1] / total) for n in counts]
    return {"k-means": (list(rows.l0), list(rows.solved)), "PCA": (counts, pca)}


def result(table, l0, names, variance, shape):
    """The table at equal L0, as text. variance: of the test inputs, mean over entries; shape:
    (K, D)."""
    K, D = shape
    rows = []
    for name in names:
        value = {c: at_l0(table, name, c, l0).mean() for c in ("transpose", "solved", "probe")}
        row = {f"at L0 {l0:g}": name, "Wᵀ or own decoder": f"{value['transpose']:.3f}"}
        row |= {"solved decoder": f"{value['solved']:.3f}"}
        row |= {"MSE": f"{(1 - value['transpose']) * variance:.4f}"}
        row |= {"parameters": f"{table.parameters[table.method == name].max():,.0f}"}
        row |= {"with the solved decoder": f"{2 * K * D + K + D:,}"}
        rows.append(row | {"probe, %": f"{value['probe']:.1f}"})
    return pd.DataFrame(rows).replace("nan", "–")


def numbers(table, names, l0s, floors):
    """For `make check`: what seeds gave, of each method, column {name: floor} and L0.

    Raises ValueError for a method that the table does not hold.
    """
    if unknown := set(names) - set(table.method):
        raise ValueError(f"no rows of {', '.join(sorted(unknown))}")
    return [
        {"method": name, "quantity": column, "place": f"L0 {l0:g}", "floor": floor}
        | {"seeds": list(at_l0(table, name, column, l0))}
        for name in names
        for column, floor in floors.items()
        for l0 in l0s
    ]


def nearest(table, models, method, l0, seed=0):
    """The model of a method whose L0 is nearest."""
    rows = table[(table.method == method) & (table.seed == seed)]
    return models[method, rows.setting[np.log(rows.l0 / l0).abs().idxmin()], seed]
