"""Tables of models at equal L0: a row for each of {(method, setting, seed): model}."""

from functools import partial

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import units
from lab.training import side_by_side

EXPLAINED = ("transpose", "own", "solved")  # columns of variance explained


@torch.no_grad()
def evaluate(model, x, x_test):
    """A model's code on test inputs, and what its decoders, fitted on x, explain of x_test: a dict.

    "l0"; "dead" units; "parameters"; variance explained by Wᵀ or an SAE's own rows with one gain
    and an offset ("transpose"), by an SAE as it is ("own"), and by the solved decoder ("solved");
    "share", that of Wᵀ in what the solved decoder explains. NaN for a model that diverged.
    """
    found = dict.fromkeys(["l0", "dead", "parameters", *EXPLAINED, "share"], np.nan)
    found["parameters"] = sum(p.numel() for p in model.parameters())
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        return found
    A, moments = model.encode(x_test), h.code_moments(model, x)
    found |= {"l0": h.l0(A), "dead": h.dead(A)}
    for column, decoder in {"transpose": h.transpose_decoder, "solved": h.fit_decoder}.items():
        sae = h.with_decoder(model, x, partial(decoder, moments=moments))
        found[column] = h.variance_explained(sae, x_test)
    if hasattr(model, "c"):
        found["own"] = h.variance_explained(model, x_test)
    if found["solved"]:
        found["share"] = found["transpose"] / found["solved"]
    return found


def tabulate(models, x, x_test, y_test=None):
    """A row for each of {(method, setting, seed): model}: what `evaluate` gives; with labels also
    "purity"."""

    def row(key):
        found = dict(zip(("method", "setting", "seed"), key)) | evaluate(models[key], x, x_test)
        if y_test is not None:
            found["purity"] = units.purity(models[key].encode(x_test).detach(), y_test)
        return found

    return pd.DataFrame(side_by_side(*[partial(row, key) for key in models], title="decoders"))


def probes(table, models, x, y, x_test, y_test, l0, seeds):
    """A column for the table: accuracies of the probe where settings of some seeds bracket the L0,
    else NaN."""
    keys = list(zip(table.method, table.setting, table.seed))
    near = {method: bracket(table, method, l0) for method in table.method.unique()}
    asked = [(m, s, seed) for m, s, seed in keys if s in near[m] and seed in seeds]
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


def _by_seed(table, method, value):
    """value(rows) of each seed of a method, where it is a number: a Series."""
    groups = table[table.method == method].groupby("seed")
    return pd.Series({seed: value(rows) for seed, rows in groups}, dtype=float).dropna()


def at_l0(table, method, column, l0):
    """A method's value at an L0, seed by seed where its models enclose that L0: a Series."""
    explained = column in EXPLAINED
    return _by_seed(table, method, lambda rows: interpolate(rows.l0, rows[column], l0, explained))


def l0_at(table, method, column, explained):
    """The L0 at which a method explains so much variance, seed by seed: a Series."""

    def value(rows):
        rows = rows.dropna(subset=[column]).sort_values(column)
        log_fvu, ends = -np.log1p(-rows[column]), {"left": np.nan, "right": np.nan}
        return np.exp(np.interp(-np.log1p(-explained), log_fvu, np.log(rows.l0), **ends))

    return _by_seed(table, method, value)


def bracket(table, method, l0):
    """The settings of a method's models just below and just above an L0, by their means."""
    means = table[table.method == method].groupby("setting").l0.mean().sort_values()
    return [*means[means <= l0].index[-1:], *means[means > l0].index[:1]]


def difference(table, column, l0, method, other="L1 SAE", ratio=False):
    """A method's values at an L0 relative to another's, paired by seed: a list."""
    ours, theirs = (at_l0(table, m, column, l0) for m in (method, other))
    return list((ours / theirs if ratio else ours - theirs).dropna())


def gap_closed(table, l0):
    """(bounded - k-means) / (L1 SAE - k-means), variance explained by solved decoders, by seed."""
    names = ("bounded", "L1 SAE", "k-means templates")
    ours, sae, floor = (at_l0(table, name, "solved", l0) for name in names)
    return list(((ours - floor) / (sae - floor)).dropna()) or [np.nan]


def in_words(values, digits=3):
    """The mean of a Series; "–" where there is none."""
    return f"{values.mean():.{digits}f}" if len(values) else "–"


def in_rows(table, shared, names, l0, columns):
    """Text, a row a method: agreement of all pairs of seeds at an L0, of the worst and the best
    pair, and the values of columns {title: (column, L0, digits)}, means ± deviations."""
    rows = []
    for name in names:
        agree = at_l0(shared, name, "agreement", l0)
        ends = {"agreement": agree, "least": agree.nsmallest(1), "most": agree.nlargest(1)}
        row = {f"at L0 {l0:g}": name} | {title: in_words(v, 2) for title, v in ends.items()}
        for title, (column, at, digits) in columns.items():
            values = at_l0(table, name, column, at)
            row[title] = f"{in_words(values, digits)} ± {values.std():.{digits}f}"
        rows.append(row)
    return pd.DataFrame(rows).replace(" ± nan", "", regex=True)


def agreement_margin(shared, l0, name="bounded"):
    """Smallest agreement of two seeds of a method, minus the largest of any SAE; NaN for one
    seed."""
    at = {m: at_l0(shared, m, "agreement", l0) for m in shared.method.unique()}
    others = [values.max() for method, values in at.items() if "SAE" in method]
    return float(at[name].min() - np.max(others)) if others and name in at else np.nan


def principal_axes(x):
    """Orthogonal directions (D, D) of x (N, D), leading ones first; with no copy of x."""
    mean = x.mean(0)
    return torch.linalg.eigh(x.T @ x / len(x) - torch.outer(mean, mean))[1].flip(1)


def floors(table, x, x_test):
    """What needs no training, {name: (L0s, variance explained)}: solved templates, and PCA."""
    rows = table[table.method == "k-means templates"].groupby("setting")[["l0", "solved"]].mean()
    counts, total = [5, 7, 10, 14, 20], (x_test - x_test.mean(0)).square().sum()
    power = ((x_test - x.mean(0)) @ principal_axes(x)).square().sum(0).cumsum(0)
    pca = [float(power[n - 1] / total) for n in counts]
    return {"k-means": (list(rows.l0), list(rows.solved)), "PCA": (counts, pca)}


DECODER, SOLVED = "Wᵀ or own decoder", "solved decoder"


def prices(table, l0, names, variance, shape, paper, times):
    """What each method explains at an L0, and what it takes: text, a row a method; below, the
    paper's model and SAE at their own L0.

    variance: of the test inputs, mean over entries; shape: (K, D); paper: of `paper_comparison`;
    times: {method: ratio}.
    """
    (K, D), rows = shape, []
    sizes = {"model": K * (D + 1), "SAE": 2 * K * D + K + D}

    def row(name, at, explained, solved, size, **more):
        return {
            "": name,
            "L0": f"{at:.3g}",
            DECODER: in_words(explained),
            "±": f"{explained.std():.3f}",
            "parameters": f"{size:,.0f}",
            SOLVED: in_words(solved),
            "parameters, solved": f"{sizes['SAE']:,}",
            "MSE": f"{(1 - explained.mean()) * variance:.4f}",
        } | more

    for name in names:
        explained, solved = (at_l0(table, name, c, l0) for c in ("transpose", "solved"))
        size = table.parameters[table.method == name].max()
        fewer = l0_at(table, "L1 SAE", "transpose", explained.mean())
        more = {"L1 SAE's L0": in_words(fewer, 1), "time": f"{times.get(name, np.nan):.2f}"}
        rows.append(row(name, l0, explained, solved, size, **more))
    for name, own in paper.groupby("the paper's"):
        explained, solved = (1 - own[c] / variance for c in ("MSE", "solved MSE"))
        rows.append(row(f"the paper's {name}", own.L0.mean(), explained, solved, sizes[name]))
    return pd.DataFrame(rows).fillna("–").replace("nan", "–")


def front_page(result, l0, names):
    """The rows and columns of `prices` that README.md shows."""
    columns = ["", DECODER, "±", "parameters", SOLVED, "parameters, solved"]
    return result[result[""].isin(names)][columns].rename(columns={"": f"at L0 {l0:g}"})


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


def nearest(table, models, method, l0, seed=None):
    """The model of a method whose L0 is nearest, of the seed given or else of its first."""
    rows = table[table.method == method]
    seed = rows.seed.iloc[0] if seed is None else seed
    rows = rows[rows.seed == seed]
    return models[method, rows.setting[np.log(rows.l0 / l0).abs().idxmin()], seed]
