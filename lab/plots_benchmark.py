"""The figures of notebook 3: each function takes what it shows, and returns a figure."""

from itertools import accumulate

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgb

from lab.plots import GREY, PAPER, PINK, REVISED, SAE, TWO, beside, frame, label, picture, tiles


def color_of(method):
    """One colour for each kind of method: warm for the paper's loss and its changes."""
    if "SAE" in method:
        return SAE
    if "revised" in method:
        return REVISED
    if method == "principal components":
        return GREY
    return PAPER


def paper(table, references):
    """table: for each model a row of "method", "seed", "parameters", "l0", "classifier" and
    "norm-matched"; references: {column: (name, number)}, a dotted line each."""
    columns = {
        "parameters": ("parameters", "{:,.0f}", True),
        "l0": ("active units", "{:.1f}", True),
        "classifier": ("classifier, %", "{:.1f}", False),
        "norm-matched": ("error, norm-matched", "{:.3f}", True),
    }
    fig, axes = plt.subplots(1, len(columns), figsize=(TWO, 1.9))
    methods = table.method.unique()
    for axis, (column, (title, text, from_zero)) in zip(axes, columns.items()):
        for place, method in enumerate(methods):
            values = table[table.method == method][column]
            look = {"color": color_of(method), "ms": 5, "mew": 0, "alpha": 0.7}
            axis.plot(place + np.linspace(-0.12, 0.12, len(values)), values, "o", **look)
            up = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "va": "bottom"}
            axis.annotate(text.format(values.mean()), (place, values.max()), fontsize=8, **up)
        low, high = 0, 1.25 * table[column].max()
        if column in references:
            name, number = references[column]
            axis.axhline(number, color="0.3", ls=":", lw=1)
            label(axis, name, (0.5, number), color="0.3", va="bottom")
            if not from_zero:
                low, high = min(number, table[column].min()), max(number, table[column].max())
                low, high = low - 0.3 * (high - low), high + 0.3 * (high - low)
        axis.set(xlim=(-0.6, len(methods) - 0.4), ylim=(low, high))
        axis.set_xticks(
            range(len(methods)),
            [m.replace("the paper's", "paper's").replace("paper's ", "paper's\n") for m in methods],
        )
        axis.set_title(title, loc="center")
        axis.yaxis.set_major_formatter("{x:,g}")
    fig.alt = (
        "Four panels, a dot for each seed of the paper's model and of its SAE: parameters, active "
        "units, accuracy of a linear classifier, and norm-matched error."
    )
    return fig


def dumbbell(table, right, x="variance of test digits explained, %", mine=()):
    """table: a row of "method", "seed", "explained" and "explained_best" for each model; right: a
    column whose means are written on the right, beside those of the two, its heading, and its
    decimals; mine: methods that are pink, and stand last, after SAEs."""
    methods = sorted(table.method.unique(), key=lambda m: (m in mine, "SAE" in m))
    fig, axis = plt.subplots(figsize=(TWO, 0.3 * len(methods) + 0.7))
    column, heading, digits = right
    inches = (0.4, 0.8, 0.9 + 0.055 * max(map(len, heading.split("\n"))))  # of columns of numbers

    for y, method in enumerate(methods):
        rows, color = table[table.method == method], PINK if method in mine else color_of(method)
        own, best = 100 * rows.explained, 100 * rows.explained_best
        pale = 1 - 0.3 * (1 - np.array(to_rgb(color)))
        axis.plot([own.mean(), best.mean()], [y, y], color=pale, lw=3.5, solid_capstyle="round")
        axis.plot(best, np.full(len(rows), y), "o", color=color, mfc="w", ms=6, mew=1.2)
        axis.plot(own, np.full(len(rows), y), "o", color=color, mec="w", ms=6, mew=0.5)
        if not y:
            look = {"color": color, "clip_on": False, "va": "bottom"}
            label(axis, "own decoder", (own.mean(), y - 0.4), **look)
            label(axis, "best linear decoder", (best.mean(), y - 0.4), **look)
        numbers = f"{own.mean():.1f}", f"{best.mean():.1f}", f"{rows[column].mean():.{digits}f}"
        beside(axis, numbers, y, inches, fontsize=8)
    beside(axis, ("own", "best", heading), -0.75, inches, color="0.35")
    axis.set_yticks(range(len(methods)), methods)
    axis.set_ylim(len(methods) - 0.5, -1.1)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0, labelsize=8)
    frame(axis, "", x)
    fig.alt = (
        "A line for each method: dots for the variance that its own decoder explains, filled, and "
        "that the best linear decoder explains, open, with a bar between the means; right, these "
        f"means, and {heading}."
    )
    return fig


def directions(models):
    """models: {name: for each unit {"decoder row", "step" and "weights": (D,)}}. The units of a
    line stand beside each other, with cosines with the decoder row below."""
    n = len(next(iter(models.values())))
    fig, grid = plt.subplots(
        len(models),
        4 * n - 1,
        figsize=(TWO, 1.3 * len(models)),
        squeeze=False,
        width_ratios=[1, 1, 1, 0.35] * (n - 1) + [1, 1, 1],
    )
    for i, (row, (name, units)) in enumerate(zip(grid, models.items())):
        for axis in row[3::4]:
            axis.axis("off")
        for j, parts in enumerate(units):
            for axis, (title, image) in zip(row[4 * j :], parts.items()):
                picture(axis, image, None if i else title, signed=True)
                if title != "decoder row":
                    cosine = torch.cosine_similarity(image, parts["decoder row"], dim=0)
                    axis.set_xlabel(f"{cosine:.2f}", labelpad=2)
        row[0].set_ylabel(name)
    fig.alt = (
        "For two units, from the same start, without weight decay and with it: the row of the best "
        "decoder, a step of gradient descent, and the weights, which are grainy without decay."
    )
    return fig


def units(models, shown, scale, dead, purities, reference):
    """models: {"model": W (K, D), "sae": W (K, D)}, dead units last; shown (D,): True where weights
    of (c) are drawn; scale of (b); dead: how many of the SAE's units are; purities: {heading: rows
    of "method", "l0" and "purity"}; reference: (name, purity), a dotted line."""
    fig = plt.figure(figsize=(TWO, 5.4))
    top, bottom = fig.subfigures(2, 1, height_ratios=[1, 1.15])
    a, b, c = top.subplots(1, 3)
    W, V = models["model"], models["sae"]
    marked = range(len(V) - dead, len(V))
    tiles(a, W, 8)
    tiles(b, V, 8, scale=scale, marked=marked)
    tiles(c, V * shown, 8, marked=marked)
    for axis, title in zip(
        (a, b, c),
        ("(a) the paper's model", "(b) its SAE, one scale", "(c) the same, each on its own"),
    ):
        axis.set_title(title)
    axis = bottom.subplots()
    y, names = 0, []
    for heading, rows in purities.items():
        label(axis, heading, (0, y), transform=axis.get_yaxis_transform(), ha="left", color="0.35")
        names.append((y, ""))
        for method in sorted(rows.method.unique(), key=lambda m: "SAE" in m):
            of, y = rows[rows.method == method], y + 1
            look = {"color": color_of(method), "ms": 5, "mew": 0, "alpha": 0.75}
            axis.plot(of.purity, np.full(len(of), y), "o", **look)
            names.append((y, f"{method} ({of.l0.mean():.0f} active)"))
        y += 1
    name, purity = reference
    axis.axvline(purity, color="0.3", ls=":", lw=1)
    label(axis, name, (purity, -0.2), color="0.3", ha="right")
    axis.set_yticks(*zip(*names))
    axis.set_ylim(y - 0.5, -0.7)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0, labelsize=7.5)
    frame(axis, "(d) purity: part of a unit's activation that falls on its best class", "purity")
    fig.alt = (
        "(a) The weights of 64 units of the paper's model, some of which look like digits. (b) The "
        "encoder of its SAE on one scale: noise, and units that look empty. (c) The same, each on "
        "a scale of its own: living units have structure, dead ones are noise. (d) Dots for the "
        "purity of each method."
    )
    return fig


def one_digit(digit, codes):
    """A digit (D,) and for each of {method: (A (K,), decoder rows (K, D), reconstruction (D,))} a
    line: the digit, its reconstruction, and under bars of their part in it five decoder rows."""
    fig, axes = plt.subplots(
        len(codes),
        8,
        figsize=(TWO, 1.05 * len(codes) + 0.1),
        squeeze=False,
        width_ratios=[1, 1, 0.25, 1, 1, 1, 1, 1],
    )
    for i, (row, (name, (A, V, x_hat))) in enumerate(zip(axes, codes.items())):
        picture(row[0], digit, None if i else "digit")
        picture(row[1], x_hat, None if i else "reconstruction")
        row[0].set_ylabel(name.replace(", ", ",\n").replace(": ", ":\n"), color=color_of(name))
        row[2].axis("off")
        parts = A * V.norm(dim=1)
        largest = parts.argsort(descending=True)[: min(5, int((A > 0).sum()))]
        for axis, unit in zip(row[3:], largest):
            picture(axis, V[unit], signed=True)
            width = float(parts[unit] / parts[largest[0]])
            look = {"color": color_of(name), "lw": 3, "clip_on": False}
            axis.plot([0, width], [1.06, 1.06], transform=axis.transAxes, **look)
        for axis in row[3 + len(largest) :]:
            axis.axis("off")
    axes[0, 5].set_title("five decoder rows, and their part", loc="center", pad=10)
    fig.alt = (
        "A line for each method: a digit, its reconstruction, and the five decoder rows with the "
        "largest part in it, with bars for their part."
    )
    return fig


def by_l0(table):
    """table: a row of "method", "active", the L0 that was asked for, "l0" and "explained" for each
    model: a line for each method."""
    fig, axis = plt.subplots(figsize=(TWO, 2.6))
    wanted = sorted(table.active.unique())
    dashed = {
        "tied SAE": "-.",
        "TopK SAE": ":",
        "the paper's loss, by SGD": "--",
        "+ weight decay": "-.",
        "+ log-determinant": ":",
    }
    ends = {}
    for method, rows in table.groupby("method", sort=False):
        means = rows.groupby("active")[["l0", "explained"]].mean()
        look = {"color": color_of(method), "ls": dashed.get(method, "-")}
        axis.plot(means.l0, 100 * means.explained, marker="o", ms=4, mfc="w", **look)
        ends[method] = 100 * float(means.explained.iloc[-1]), look
    # Names near the ends of lines, a line of text apart: half of the way that they are pushed up,
    # from the lowest on, and half of the way that they are pushed down, from the highest on
    names = sorted(ends, key=lambda name: ends[name][0])
    gap = 7.5 * (table.explained.max() - table.explained.min())
    up = list(accumulate((ends[name][0] for name in names), lambda last, y: max(y, last + gap)))
    down = accumulate((ends[name][0] for name in names[::-1]), lambda last, y: min(y, last - gap))
    right = table.l0.max()
    for name, y in zip(names, (np.array(up) + [*down][::-1]) / 2):
        axis.plot([1.05 * right, 1.15 * right], [y, y], clip_on=False, **ends[name][1])
        label(axis, name, (1.17 * right, y), ha="left", color=color_of(name), clip_on=False)
    frame(axis, "", "active units on a digit", "variance explained, %", log="x")
    axis.set_xticks(wanted, wanted)
    axis.xaxis.set_minor_locator(plt.NullLocator())
    axis.set_xlim(0.9 * wanted[0], 1.9 * right)
    axis.spines["bottom"].set_bounds(0.9 * wanted[0], right)
    fig.alt = "Variance explained by each method's own decoder against the number of active units."
    return fig
