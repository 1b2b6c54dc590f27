"""Tables of models at equal L0: a row for each of {(method, setting, seed): model}."""

from functools import partial

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import units
from lab.claims import interval
from lab.training import side_by_side

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


def spreads(share, names):
    """Of each objective the largest minus the smallest share over all optimisers and inputs."""
    found = {}
    for name in names:
        values = pd.DataFrame({k: v for k, v in share.items() if k.startswith(f"{name} |")})
        found[name] = list((values.max(1) - values.min(1)).dropna())
    return found


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
