"""The figures of notebook 2: each function takes what it shows, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from scipy.cluster.hierarchy import leaves_list, linkage

from lab.plots import GREEN, GREY, PAPER, SAE, TWO, beside, frame, label, tiles

OF_MODEL = {"A": GREY, "B": GREEN, "C": PAPER, "D": SAE}


def configurations(models):
    """models: {"A: what it has": (correlations (K, K), usage (K,), redundancy, L0)}, the last two
    means over seeds."""
    fig, axes = plt.subplots(2, len(models), figsize=(TWO, 3.2), height_ratios=[1.5, 1])
    for (name, (R, usage, redundancy, active)), (above, below) in zip(models.items(), axes.T):
        K = len(usage)
        above.set_title(
            name.replace("without ", "without\n"), loc="center", weight="bold", fontsize=8.5
        )
        correlations(above, R)
        if np.asarray(R).any():
            above.set_xlabel(f"redundancy {redundancy:,.0f}")
        else:
            label(
                above, f"all {K} units\nare dead", (0.5, 0.5), transform=above.transAxes, fontsize=9
            )
        usage_bars(below, usage, OF_MODEL.get(name[0], GREY))
        below.set_xlabel(f"{active:.0f} of {K} active")
        below.tick_params(labelleft=above is axes[0, 0])
    axes[0, 0].set_ylabel("correlations\nof units")
    axes[1, 0].set_ylabel("usage: active on\nthis share of digits")
    fig.align_ylabels(axes[:, 0])
    fig.alt = (
        "A column each for configurations A to D. Above, absolute correlations of all pairs of "
        "units, similar units side by side: A has no unit that varies, B a large block of copies, "
        "C and D hardly more than the diagonal. Below, on what share of the digits each unit is "
        "active, sorted."
    )
    return fig


def correlations(axis, R):
    """A matrix of absolute correlations (K, K), similar units side by side."""
    R = np.abs(np.asarray(R, dtype=float))
    # SciPy would take a diagonal of 0, as of dead units, for distances
    order = leaves_list(linkage(1 + R, "average"))
    look = {"cmap": "Greys", "vmin": 0, "vmax": 1, "square": True, "rasterized": True}
    look |= {"xticklabels": False, "yticklabels": False, "cbar": False}
    sns.heatmap(R[order][:, order], ax=axis, **look)
    axis.spines[:].set_visible(True)


def usage_bars(axis, usage, color):
    """The usage (K,) of units, sorted."""
    usage = np.sort(np.asarray(usage))[::-1]
    axis.bar(np.arange(1, len(usage) + 1), usage, width=1, color=color, lw=0)
    axis.set(xticks=[], xlim=(0.5, len(usage) + 0.5), ylim=(0, 1), yticks=[0, 0.5, 1])


def count(digits, n_units):
    """digits: {"B": (active units of each digit (N,), its loss (N,)), "C": ..., "D": ...}."""
    fig, axis = plt.subplots(figsize=(0.7 * TWO, 2.5))
    n = np.linspace(0, n_units - 1.4, 200)
    axis.plot(n, -np.log(n_units - n), color=GREY, zorder=0)
    for name, (active, loss) in digits.items():
        active, loss = np.asarray(active, dtype=float), np.asarray(loss)
        axis.plot(active, loss, ".", color=OF_MODEL[name], ms=4, mew=0, alpha=0.5, label=name)
        place = (np.median(active), np.median(loss) - 0.45)
        label(axis, name, place, color=OF_MODEL[name], fontsize=11, weight="bold")
    label(axis, f"$-\\log({n_units}-n)$", (0.68 * n_units, -2.2), color="0.35", fontsize=9)
    axis.set(xlim=(0, n_units), ylim=(-np.log(n_units) - 0.4, 0.3))
    frame(axis, "", "active units $n$ on a digit", "log-sum-exp loss of the digit")
    fig.alt = (
        "Each dot a digit: its log-sum-exp loss against the number of its active units, under B, C "
        "and D, with the curve -log(K - n), on which nearly all dots lie."
    )
    return fig


STRENGTHS = {  # of competition; others are green
    0: (GREY, "without competition"),
    1: (PAPER, "as it is"),
    10: ("0.1", "× 10"),
}


def competition(weights, table):
    """weights: {name: W (8, D)}, the same units in each; table: a row of "decorrelation" and
    "competition", the weights of the two, "seed" and "redundancy" for each model."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.2), width_ratios=[1.5, 1])
    tiles(a, torch.cat([*weights.values()]), 8, names=[n.replace(" ", "\n") for n in weights])
    a.set_title("(a) the same eight units")
    doses = sorted(table.decorrelation.unique())
    places = np.log10([dose or doses[1] / 8 for dose in doses])  # zero has a place of its own
    for strength in sorted(table.competition.unique()):
        color, name = STRENGTHS.get(strength, (GREEN, f"× {strength:g}"))
        by_dose = table[table.competition == strength].groupby("decorrelation").redundancy
        mean, low, high = by_dose.mean(), by_dose.min(), by_dose.max()
        b.fill_between(places, low, high, color=color, alpha=0.25, lw=0)
        b.plot(places, mean, "o-", color=color, mfc="w", ms=4)
        height, va = (1.15, "bottom") if strength == 0 else (0.84, "top")
        look = {"va": va, "ha": "left", "color": color, "clip_on": False}
        label(b, name, (places[0] - 0.06, mean.iloc[0] * height), **look)
    names = [f"{dose:g}" for dose in doses]
    b.set_xticks(places, [names[0] + "\n(B)", *names[1:-1], names[-1] + "\n(C)"])
    frame(b, "(b) redundancy of units", "weight of decorrelation", log="y")
    ticks = [t for t in (30, 100, 300, 1000, 3000) if t <= table.redundancy.max()]
    b.set_yticks(ticks, [f"{t:,}" for t in ticks])
    b.set_ylim(top=1.6 * table.redundancy.max())
    b.yaxis.set_minor_formatter(plt.NullFormatter())
    fig.alt = (
        "(a) The weights of eight units of C, with competition and without, which can hardly be "
        "told apart. (b) Redundancy against the weight of decorrelation for three strengths of "
        "competition: the curves stand apart without decorrelation and meet at C."
    )
    return fig


def plateau(losses, table, tolerance=1):
    """losses: {(rate, units): of each epoch (T,)}; table: a row of "rate", "units", "living units"
    and "epoch", that of convergence or NaN, for each.

    A fall between the means of two epochs stands at the end of the first.
    """
    fig, axis = plt.subplots(figsize=(0.75 * TWO, 3))
    (_, most), *_ = losses
    rates = [rate for rate, units in losses if units == most]
    convergence = table.set_index(["rate", "units"]).epoch
    shades = dict(zip(rates, plt.get_cmap("Oranges")(np.linspace(0.35, 1, len(rates)))))
    colors = {most: PAPER, most // 2: SAE, most // 4: GREEN}
    for (rate, units), values in losses.items():
        values, color = np.asarray(values), shades[rate] if units == most else colors[units]
        falls, t = values[:-1] - values[1:], np.arange(1, len(values))
        axis.plot(t, np.where(falls > 0, falls, np.nan), color=color, lw=1)
        if np.isfinite(end := convergence[rate, units]):
            height = falls[int(end) - 1 :][:5].mean()
            axis.plot(end, height, "o", color=color, mfc="w", ms=4.5, zorder=5)
    for units, of in table.groupby("units"):
        living, color = of["living units"].max(), colors[units]
        t = np.geomspace(1, units / (0.6 * tolerance), 50)
        axis.plot(t, living / t, color="0.75", lw=3, zorder=0)
        name = f"{units} units" if living == units else f"{units} units, {living} living"
        height = 1.22 * living / 3.2  # the name is written along K/t, a little above it
        look = {"rotation_mode": "anchor", "transform_rotates_text": True, "va": "bottom"}
        look["rotation"] = np.degrees(np.arctan(-height / 3.2))
        label(axis, name, (3.2, height), color=color, **look)
        if len(ends := of.epoch.dropna()):
            name = " to ".join(dict.fromkeys(f"{f(ends):.0f}" for f in (min, max)))
            label(axis, f"epoch {name}", (max(ends), 0.24 * tolerance), color=color, ha="right")
    axis.axhline(tolerance, color="k", lw=0.8)
    text = f"the script's tolerance: {tolerance:g}"
    label(axis, text, (1.1, 0.88 * tolerance), ha="left", va="top")
    label(axis, "$K/t$", (most / 6, 9), color="0.4", fontsize=9)
    for i, (rate, shade) in enumerate(shades.items()):
        look = {"color": shade, "ha": "right", "transform": axis.transAxes}
        label(axis, f"rate {rate:g}", (0.99, 0.96 - 0.07 * i), **look)
    frame(axis, "", "epoch $t$", "fall of the loss in the epoch", log="xy")
    axis.set(xlim=(1, max(map(len, losses.values()))), ylim=(0.18 * tolerance, 1.3 * most))
    ticks = [t for t in (1, 2, 4, 8, 16, 32, 64) if t < axis.get_xlim()[1]]
    axis.set_xticks(ticks, ticks)
    axis.set_yticks([1, 10], [1, 10])
    axis.xaxis.set_minor_formatter(plt.NullFormatter())
    fig.alt = (
        "The fall of the loss in an epoch against the epoch, on logarithmic axes, by SGD: four "
        "rates with 64 units lie on the line K / t, and 32 and 16 units on lower ones. Circles, "
        "where the script declares convergence, are near the epoch that equals the number of units."
    )
    return fig


def optimizers(table):
    """table: a row of "optimizer", "rate", "variance term", "the rest", "loss", "dead" and
    "classifier"."""
    fig, axis = plt.subplots(figsize=(TWO, 0.24 * len(table) + 0.5))
    places = -np.arange(len(table))
    axis.barh(places, -table["the rest"], 0.7, color="0.8")
    axis.barh(places, -table["variance term"], 0.7, -table["the rest"], color=PAPER)
    inches = (0.4, 0.75, 1.5)  # of columns of numbers
    for y, (_, row) in zip(places, table.iterrows()):
        rest, variance = row["the rest"], row["variance term"]
        label(axis, f"{rest:,.0f}", (-rest / 2, y), fontsize=7.5)
        label(axis, f"{variance:,.0f}", (-rest - variance / 2, y), fontsize=7.5)
        numbers = f"{row['loss']:,.0f}", f"{row['dead']:.0f}", f"{row['classifier']:.1f}"
        beside(axis, numbers, y, inches, fontsize=7.5)
    rest, above = -table["the rest"].mean(), {"fontsize": 7.5, "clip_on": False}
    label(axis, "the rest", (rest / 2, 0.85), color="0.35", **above)
    label(axis, "variance term", (1.02 * rest, 0.85), color=PAPER, ha="left", **above)
    beside(axis, ("loss", "dead", "classifier, %"), 0.85, inches, color="0.35", fontsize=7.5)
    axis.set_yticks(places, [f"{row.optimizer}, {row.rate:g}" for row in table.itertuples()])
    axis.set(xticks=[], ylim=(places[-1] - 0.6, 1.2), xlim=(0, -table.loss.min()))
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, labelsize=8)
    fig.alt = (
        "A bar for each optimiser and rate: the rest of the loss, of equal length in all, the "
        "variance term, whose length differs; the loss, dead units, and the accuracy of a linear "
        "classifier."
    )
    return fig


def one_epoch(R, usage, W, said):
    """Of one model: correlations (K, K), usage (K,), sixteen rows of W (16, D), and two titles."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 1.7), width_ratios=[1, 1, 2.3])
    correlations(a, R)
    usage_bars(b, usage, PAPER)
    tiles(c, W, 8)
    for axis, title in zip((a, b, c), (*said, "weights of 16 units")):
        axis.set_title(title, loc="center")
    fig.alt = (
        "Of a model that was trained for one epoch: correlations of its units, on what share of "
        "the digits each is active, and the weights of sixteen."
    )
    return fig
