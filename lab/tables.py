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


def in_words(values, digits=3):
    """The mean of a Series; "–" where there is none."""
    return f"{values.mean():.{digits}f}" if len(values) else "–"


def pairs_in_words(shared, method, l0):
    """Agreement of two seeds: of all pairs, of the worst and of the best."""
    agree = at_l0(shared, method, "agreement", l0)
    ends = {"agreement": agree, "least": agree[agree == agree.min()]}
    ends["most"] = agree[agree == agree.max()]
    return {title: in_words(values, 2) for title, values in ends.items()}


def unit_rows(table, shared, names, l0s, l0):
    """Agreement, probe and solved decoder at one L0, and purity at each: text, a row a method."""
    rows = []
    for name in names:
        row = {f"at L0 {l0:g}": name} | pairs_in_words(shared, name, l0)
        row["probe"] = in_words(at_l0(table, name, "probe", l0), 1)
        row["solved"] = in_words(at_l0(table, name, "solved", l0))
        purity = {f"purity, L0 {n:g}": in_words(at_l0(table, name, "purity", n)) for n in l0s}
        rows.append(row | purity)
    return pd.DataFrame(rows)


def by_price(table, shared, l0, names):
    """*Bounded* under other prices at one L0: text, a row a price."""
    rows = []
    for name in names:
        row = {f"at L0 {l0:g}": name}
        for column, title in (("transpose", "Wᵀ"), ("solved", "solved")):
            values = at_l0(table, name, column, l0)
            row |= {title: in_words(values, 4), f"± {title}": f"{values.std():.4f}"}
        rows.append(row | pairs_in_words(shared, name, l0))
    return pd.DataFrame(rows).replace("nan", "–")


def agreement_margin(shared, l0, name="bounded"):
    """Smallest agreement of two seeds of a method, minus the largest of any SAE; NaN for one
    seed."""
    at = {m: at_l0(shared, m, "agreement", l0) for m in shared.method.unique()}
    others = [values.max() for method, values in at.items() if "SAE" in method]
    return float(at[name].min() - np.max(others)) if others and name in at else np.nan


def agreement_points(table, shared, names, l0):
    """{method: (variance explained, solved; agreement of each pair)} at an L0, where both are."""
    found = {}
    for method in names:
        explained = at_l0(table, method, "solved", l0).mean()
        agree = at_l0(shared, method, "agreement", l0)
        if len(agree) and np.isfinite(explained):
            found[method] = explained, list(agree)
    return found


def principal_axes(x):
    """Orthogonal directions (D, D) of x (N, D), leading ones first; with no copy of x."""
    mean = x.mean(0)
    return torch.linalg.eigh(x.T @ x / len(x) - torch.outer(mean, mean))[1].flip(1)


def floors(table, x, x_test):
    """What needs no training, {name: (L0s, variance explained)}: solved templates, and PCA."""
    rows = table[table.method == "k-means templates"].groupby("setting")[["l0", "solved"]].mean()
    counts = [5, 7, 10, 14, 20]
    power = ((x_test - x.mean(0)) @ principal_axes(x)).square().sum(0).cumsum(0)
    total = (x_test - x_test.mean(0)).square().sum()
    pca = [float(power[n - 1] / total) for n in counts]
    return {"k-means": (list(rows.l0), list(rows.solved)), "PCA": (counts, pca)}


DECODER, SOLVED = "Wᵀ or own decoder", "solved decoder"


def prices(table, l0, names, variance, shape, paper, times):
    """What each method explains at an L0, and what it takes: text, a row a method; below, the
    paper's model and SAE at their own L0.

    variance: of the test inputs, mean over entries; shape: (K, D); paper: of `paper_comparison`;
    times: {method: ratio}.
    """
    K, D = shape
    sizes, rows = (K * (D + 1), 2 * K * D + K + D), []

    def row(name, at, explained, solved, size):
        return {
            "": name,
            "L0": f"{at:.3g}",
            DECODER: in_words(explained),
            "±": f"{explained.std():.3f}",
            "parameters": f"{size:,.0f}",
            SOLVED: in_words(solved),
            "parameters, solved": f"{sizes[1]:,}",
            "MSE": f"{(1 - explained.mean()) * variance:.4f}",
        }

    for name in names:
        explained, solved = (at_l0(table, name, c, l0) for c in ("transpose", "solved"))
        size = table.parameters[table.method == name].max()
        fewer = l0_at(table, "L1 SAE", "transpose", explained.mean())
        more = {"L1 SAE's L0": in_words(fewer, 1), "time": f"{times.get(name, np.nan):.2f}"}
        rows.append(row(name, l0, explained, solved, size) | more)
    for name, own in paper.groupby("the paper's"):
        explained, solved = (1 - own[c] / variance for c in ("MSE", "solved MSE"))
        size = sizes[name != "model"]
        rows.append(row(f"the paper's {name}", own.L0.mean(), explained, solved, size))
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
