"""Notebook 3's figures: each function takes what it shows and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch

from lab.plots import GREY, TWO, label_ends, log_l0, tiles


def digit_figure(x, E, r, W, x_hat, n=7):
    """One picture x (D,) followed: energies E and responsibilities r (K,), up to n rows of W (K, D)
    that reject it, and what Wᵀ makes of its code, x_hat (D,)."""
    order = torch.argsort(E, descending=True)
    fig = plt.figure(figsize=(TWO, 2.7))
    upper, lower = fig.subfigures(2, 1, height_ratios=[1.5, 1])
    a, b = upper.subplots(1, 2)
    units, active = np.arange(len(E)), int((E > 0).sum())
    a.bar(units, E[order], width=1, color="C3", linewidth=0)
    a.set(
        xlabel="unit, by energy",
        ylabel="energy E",
        title=f"(a) {active} of {len(E)} units reject it",
    )
    b.bar(units, r[order], width=1, color="0.5", linewidth=0)
    b.set(xlabel="unit, by energy", ylabel="responsibility r", title="(b) the silent ones claim it")
    sns.despine(fig)
    axes = lower.subplots(1, n + 2)
    for axis, image, title in ((axes[0], x, "input"), (axes[-1], x_hat, "by Wᵀ")):
        axis.imshow(image.view(28, 28), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, loc="center")
    for i, axis in enumerate(axes[1:-1]):
        axis.axis("off")
        if i < active:
            tiles(axis, W[order[i]][None], 1)
            axis.set_title(f"E = {E[order[i]]:.1f}", loc="center")
    return fig


def decoder_figure(pairs, n=3):
    """pairs: {title: (W, V)}: n rows of W, each beside its row of the best decoder V."""
    fig, axes = plt.subplots(1, len(pairs), figsize=(TWO, 2.6))
    for axis, (title, (W, V)) in zip(axes, pairs.items()):
        tiles(axis, torch.stack([W[:n], V[:n]], 1).flatten(0, 1), 2)
        axis.set_title(title, loc="center")
        axis.set_xlabel("$W_j$ | solved $V_j$")
    return fig


def units_figure(rows, columns=4):
    """rows: {title: (n, D)}: units as pictures, the title over each group."""
    fig, axes = plt.subplots(2, 2, figsize=(TWO, 4.1))
    for axis, (title, W) in zip(axes.flat, rows.items()):
        tiles(axis, W, columns)
        axis.set_title(title, loc="center")
    return fig


def benchmark_figure(table, looks, lines):
    """Variance explained against L0 by Wᵀ or an SAE's own decoder, and by the solved one.

    table: a row a model; looks: {method: (colour, marker, line)}; lines: {name: (L0s, variance
    explained)}, thin, in the panel of solved decoders.
    """
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 2.7), sharey=True)
    for axis, column in zip(axes, ("transpose", "solved")):
        ends = {}
        for method, (colour, marker, ls) in looks.items():
            rows = table[table.method == method]
            axis.scatter(rows.l0, rows[column], s=3, color=colour, alpha=0.35, lw=0)
            means = rows.groupby("setting")[["l0", column]].mean().sort_values("l0")
            face = {"mfc": colour if method == "bounded" else "w", "ms": 4, "mew": 0.8}
            axis.plot(means.l0, means[column], marker + ls, color=colour, lw=0.9, **face)
            ends[method] = means.l0.iloc[-1], means[column].iloc[-1], colour
        for name, (l0s, values) in lines.items() if column == "solved" else ():
            axis.plot(l0s, values, "-", color=GREY, lw=0.6)
            axis.annotate(
                name,
                (l0s[1], values[1]),
                (4, -5),
                textcoords="offset points",
                fontsize=7,
                color=GREY,
                va="center",
            )
        log_l0(axis)
        right = max(end[0] for end in ends.values())
        label_ends(axis, {name: (right, *end[1:]) for name, end in ends.items()})
    axes[0].set(ylabel="variance explained", title="(a) by Wᵀ, or an SAE's own decoder")
    axes[1].set(title="(b) solved for afterwards")
    sns.despine(fig)
    return fig


def dots_figure(shares, controls):
    """How much of its code Wᵀ reads: dots, one a seed.

    shares: {"objective | optimiser | inputs": values}; controls: {"what | optimiser": values}.
    """
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.6), width_ratios=[1.4, 1], sharex=True)
    looks = {"Adam | raw": ("C1", "o"), "Adam | centred": ("C1", "s")}
    looks |= {"SGD | raw": ("C0", "o"), "SGD | centred": ("C0", "s")}
    order = {how: i for i, how in enumerate(looks)}
    for axis, found in ((a, shares), (b, {f"{key} | raw": v for key, v in controls.items()})):
        rows = list(dict.fromkeys(key.partition(" | ")[0] for key in found))
        for key, values in found.items():
            row, _, how = key.partition(" | ")
            colour, marker = looks[how]
            height = np.full(len(values), rows.index(row) + 0.17 * (order[how] - 1.5))
            face = colour if how.endswith("raw") else "w"
            axis.plot(values, height, marker, color=colour, ms=3.5, mew=0.8, mfc=face)
            if axis is a and row == rows[0] and len(values):
                right = np.mean(values) < 0.4
                axis.annotate(
                    how.replace(" | ", ", "),
                    ((max if right else min)(values), height[0]),
                    (6 if right else -6, 0),
                    textcoords="offset points",
                    fontsize=6.5,
                    color=colour,
                    ha="left" if right else "right",
                    va="center",
                )
        axis.set(yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.5))
        axis.tick_params(axis="y", length=0)
        for i in range(1, len(rows)):
            axis.axhline(i - 0.5, color="0.85", lw=0.5)
        axis.set(xlabel="share of its code that Wᵀ reads", xlim=(0, 1))
    a.set_title("(a) four objectives")
    b.set_title("(b) published form, raw: controls")
    sns.despine(fig)
    return fig


def limits_figure(values, looks, D):
    """Variance explained at one L0 against the number of units per input.

    values: {(method, column): {K: values of seeds}}; looks: {method: (colour, marker, line)}.
    """
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 2.6), sharey=True)
    titles = {
        "transpose": "(a) by Wᵀ, or an SAE's own decoder",
        "solved": "(b) solved for afterwards",
    }
    for axis, (column, title) in zip(axes, titles.items()):
        ends = {}
        for (method, which), by_k in values.items():
            if which != column:
                continue
            colour, marker, ls = looks[method]
            ratios = [k / D for k in by_k]
            means = [np.mean(v) if len(v) else np.nan for v in by_k.values()]
            for ratio, v in zip(ratios, by_k.values()):
                axis.plot(np.full(len(v), ratio), v, ".", color=colour, ms=2, alpha=0.4)
            axis.plot(
                ratios,
                means,
                marker + ls,
                color=colour,
                lw=0.9,
                ms=4,
                mew=0.8,
                mfc=colour if method == "bounded" else "w",
            )
            ends[method] = ratios[-1], means[-1], colour
        axis.set(xscale="log", xlabel="units per input, K / D", title=title)
        axis.set_xticks(ratios, [f"{r:g}" for r in ratios])
        axis.xaxis.set_minor_locator(plt.NullLocator())
        label_ends(axis, ends)
    axes[0].set_ylabel("variance explained at L0 10")
    sns.despine(fig)
    return fig
