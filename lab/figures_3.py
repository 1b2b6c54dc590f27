"""Notebook 3's figures: each function takes what it shows and returns a matplotlib figure."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch

from lab.methods import PRIORS
from lab.plots import GREY, SMALL, TWO, label_ends, log_l0, tiles

ALT = {
    "3_benchmark_input": "Sorted energies of one digit: few units are active, and have the least "
    "responsibility. Below: the digit, weights of units that reject it, and its reconstruction.",
    "3_benchmark": "Variance explained against L0, by the transpose or an own decoder, and by a "
    "solved one. TopK is highest, then the L1 SAE, then bounded; solved, they are closer.",
    "3_benchmark_balance": "Two units, four pictures each on one scale: the least-squares "
    "decoder, the step, their difference, which looks like kappa W, and next to nothing left over.",
    "3_benchmark_currency": "Share of the solved decoder's variance that the transpose explains "
    "without a prior. Under Adam it depends on the basis, is smallest on centred pixels, and comes "
    "near that with a prior in Adam's currency with a fast bias. SGD falls back on centred pixels.",
    "3_benchmark_units": "Eight units each: bounded and k-means show whole digits, SAEs strokes.",
    "3_story": "Eight units each of three models. Two curves of redundancy that meet as "
    "decorrelation grows. One digit and four reconstructions: the published form's is blurred.",
}


def picture(axis, image, title, **look):
    """A picture (784,) with its title: ink, black on white, or as `look` says."""
    look = {"cmap": "gray_r", "vmin": 0, "vmax": 1} | look
    axis.imshow(torch.as_tensor(image).detach().cpu().view(28, 28), **look)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, loc="center", fontsize=7)


def digit_figure(x, E, r, W, x_hat):
    """One picture x (D,) followed: energies E and responsibilities r (K,), up to seven rows of
    W (K, D) that reject it, and what Wᵀ makes of its code, x_hat (D,)."""
    x, E, r, W, x_hat = (t.detach().cpu() for t in (x, E, r, W, x_hat))
    order, active = E.argsort(descending=True), int((E > 0).sum())
    fig = plt.figure(figsize=(TWO, 2.7))
    upper, lower = fig.subfigures(2, 1, height_ratios=[1.5, 1])
    a, b = upper.subplots(1, 2)
    a.bar(range(len(E)), E[order], width=1, color="C3", linewidth=0)
    a.set(ylabel="energy E", title=f"(a) {active} of {len(E)} units reject it")
    b.bar(range(len(E)), r[order], width=1, color="0.5", linewidth=0)
    b.set(ylabel="responsibility r", title="(b) the silent ones claim it")
    upper.supxlabel("unit, by energy", fontsize=8)
    sns.despine(fig)
    first, *axes, last = lower.subplots(1, min(active, 7) + 2)
    picture(first, x, "input")
    picture(last, x_hat, "by Wᵀ")
    for axis, unit in zip(axes, order):
        tiles(axis, W[unit][None], 1)
        axis.set_title(f"E = {E[unit]:.1f}", loc="center", fontsize=7)
    return fig


def benchmark_figure(table, looks, lines):
    """Variance explained against L0 by Wᵀ or an SAE's own decoder, and by the solved one.

    table: a row a model; looks: {method: (colour, marker, line)}; lines: {name: (L0s, variance
    explained)}, thin, in the panel of solved decoders.
    """
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 2.7), sharey=True)
    for axis, column in zip(axes, ("transpose", "solved")):
        ends, thin = {}, {"ms": 4, "mew": 0.8, "mfc": "w", "lw": 0.9}
        for method, (colour, marker, line) in looks.items():
            rows = table[table.method == method]
            axis.scatter(rows.l0, rows[column], s=4, color=colour, alpha=0.5, lw=0)
            means = rows.groupby("setting")[["l0", column]].mean().sort_values("l0")
            axis.plot(means.l0, means[column], marker + line, color=colour, **thin)
            ends[method] = means[column].iloc[-1], colour
        for name, (l0s, values) in lines.items() if column == "solved" else ():
            axis.plot(l0s, values, "-", color=GREY, lw=0.6)
            axis.annotate(name, (l0s[1], values[1]), (4, -5), color=GREY, va="center", **SMALL)
        log_l0(axis)
        label_ends(axis, {name: (axis.dataLim.x1, *end) for name, end in ends.items()})
    axes[0].set(ylabel="variance explained", title="(a) by Wᵀ, or an SAE's own decoder")
    axes[1].set(title="(b) solved for afterwards")
    sns.despine(fig)
    return fig


def balance_figure(rows, units):
    """rows: {title: (K, D)}: pictures of some units, those of one unit on one scale."""
    fig = plt.figure(figsize=(TWO, 1.05))
    for part, unit in zip(fig.subfigures(1, len(units), wspace=0.06), units):
        some = {title: W[unit].detach().cpu() for title, W in rows.items()}
        limit = float(torch.cat([*some.values()]).abs().quantile(0.995))
        for axis, (title, image) in zip(part.subplots(1, len(some)), some.items()):
            picture(axis, image, title, cmap="RdBu_r", vmin=-limit, vmax=limit)
    sns.despine(fig, left=True, bottom=True)
    return fig


MARKS = {  # of Figure 3.4: the column, bias, marker, colour and fill; where it is named
    "as it is": ("as it is", "own", "o", "k", "k", "Adam, principal axes", (0, 8)),
    "in its currency": ("currency", "own", "D", "C1", "C1", "Adam, principal axes", (-20, 8)),
    "another model: fast bias": ("as it is", "fast", "^", "C0", "w", "Adam, centred", (0, 8)),
    "fast bias, and currency": ("currency", "fast", "P", "C2", "C2", "Adam, centred", (-15, -8)),
}


def currency_figure(table, inputs):
    """Shares of two objectives without a prior, of `lab.reasons.run_cases`; dots are seeds, and a
    grey bar is the same objective with a prior."""
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 3.2), sharey=True, sharex=True)
    of = dict([*table.groupby(["objective", "optimiser", "inputs"])])
    for axis, (objective, prior), letter in zip(axes, PRIORS.items(), "ab"):
        for optimiser, name in product(("Adam", "SGD"), inputs):
            case, rows = f"{optimiser}, {name}", of[objective, optimiser, name]
            held = of.get((prior, optimiser, name), rows[:0])["as it is"].mean()  # NaN: not run
            axis.plot(held, case, "|", color="0.6", ms=18, mew=3, zorder=0)
            for words, (column, bias, marker, colour, fill, place, at) in MARKS.items():
                own = rows[rows.bias == bias][column]
                if optimiser == "Adam" or column == "as it is":
                    axis.plot(own, [case] * len(own), marker, color=colour, ms=4, mfc=fill)
                if axis is axes[0] and case == place:
                    look = {"ha": "right" if own.mean() > 0.4 else "left", "va": "center"} | SMALL
                    axis.annotate(words, (own.mean(), case), at, color=colour, **look)
        axis.axhline(len(inputs) - 0.5, color="0.8", lw=0.6)
        axis.set(xlabel="share of the solved decoder's variance", xlim=(0, 1.02))
        axis.set_title(f"({letter}) {objective}")
    axes[0].annotate("grey: with a prior", (0.02, "SGD, raw"), (0, -3), color=GREY, **SMALL)
    axes[0].invert_yaxis()
    sns.despine(fig)
    return fig


def units_figure(rows):
    """rows: {title: (8, D)}: units as pictures."""
    fig, axes = plt.subplots(1, len(rows), figsize=(TWO, 1.2))
    for axis, (title, W) in zip(axes, rows.items()):
        tiles(axis, W, 4)
        axis.set_title(title, loc="center")
    return fig


def story_figure(units, curves, digit):
    """The companion in three panels: units {title: (8, D)}; curves {title: {weight of
    decorrelation: redundancies}}; and one digit's pictures {title: (D,)}."""
    fig = plt.figure(figsize=(TWO, 2.75))
    upper, lower = fig.subfigures(2, 1, height_ratios=[1.55, 1])
    left, right = upper.subfigures(1, 2, width_ratios=[1.25, 1])
    for axis, (title, W) in zip(left.subplots(1, len(units)), units.items()):
        tiles(axis, W, 2)
        axis.set_title(title, loc="center", fontsize=7)
    axis = right.subplots()
    for (title, curve), marker, colour, up in zip(curves.items(), "o^", ("k", "C1"), (-20, 8)):
        x = [max(float(weight), 1e-3) for weight in curve]  # 0 at the left end of the axis
        means = [np.mean(values) for values in curve.values()]
        axis.plot(x, means, marker + "-", color=colour, ms=3.5, mfc="w", mew=0.9)
        axis.annotate(title, (x[0], means[0]), (-2, up), color=colour, va="center", **SMALL)
    axis.set(xscale="log", yscale="log", xlabel="weight of decorrelation", ylabel="redundancy")
    axis.set(ylim=(None, 1.6 * max(means[0], 4000)))
    axis.set_xticks([1e-3, 1e-2, 1e-1, 1], ["0", ".01", ".1", "1"])
    axis.xaxis.set_minor_locator(plt.NullLocator())
    sns.despine(ax=axis)
    for axis, (title, image) in zip(lower.subplots(1, len(digit)), digit.items()):
        picture(axis, image, title)
    return fig
