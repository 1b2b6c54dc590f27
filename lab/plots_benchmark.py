"""The figures of notebook 3: each function takes what it draws, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from lab.plots import GREEN, PAPER, PINK, REVISED, SAE, TWO, label, picture, rows, tiles

ADAM, BEST, SGD = (f"the paper's loss, with {way}" for way in ("Adam", "Adam, best rate", "SGD"))
DECAY, NEW, COMPONENTS = "+ weight decay", "the revised loss", "principal components"
GROUPS = {
    "the paper's loss": [ADAM, BEST, SGD],
    "our changes, with Adam": [DECAY, NEW],
    "for comparison": [COMPONENTS],
    "tuned SAEs": ["tied SAE", "L1 SAE", "TopK SAE"],
}
SHORT = {ADAM: "with Adam, the paper's rate", BEST: "with Adam, best rate", SGD: "with SGD"}
CLASSIFIER = "classifier", "(b) classify (linear)", "accuracy, %", ".1f"


def color_of(method):
    """One colour for each kind of method: warm for the paper's loss and its changes."""
    kinds = {"SAE": SAE, "revised": REVISED, COMPONENTS: GREEN}
    return next((color for kind, color in kinds.items() if kind in method), PAPER)


def paper(table, references):
    """table: for each model a row of "method", "seed", "parameters", "l0", "classifier" and
    "norm-matched"; references: {column: (name, number)}, a dotted line each."""
    columns = {
        "parameters": ("parameters", ",.0f"),
        "l0": ("active units", ".1f"),
        "classifier": ("classifier, %\nhigher is better", ".1f"),
        "norm-matched": ("error, norm-matched\nlower is better", ".3f"),
    }
    fig, axes = plt.subplots(1, len(columns), figsize=(TWO, 2.1))
    for axis, (column, (title, form)) in zip(axes, columns.items()):
        names = []
        for place, (method, of) in enumerate(table.groupby("method", sort=False)):
            values, color = of[column], color_of(method)
            if column == "parameters":
                axis.bar(place, values.mean(), 0.6, color=color)
            else:
                axis.plot(place + np.linspace(-0.15, 0.15, len(of)), values, "o", color=color)
            label(axis, format(values.mean(), form), (place, values.max()), (0, 9), fontsize=8)
            names.append(method.replace("paper's ", "paper's\n"))
        if column in references:
            name, number = references[column]
            axis.axhline(number, color="0.3", ls=":", lw=1, zorder=0)
            label(axis, name, (0.5, number), color="0.3")
        axis.margins(y=0.3)
        if column == "classifier":  # two strokes across an axis that does not start at 0
            axis.locator_params(axis="y", nbins=5, prune="lower")
            strokes = {"marker": [(-1, -0.5), (1, 0.5)], "ms": 7, "mew": 0.8, "clip_on": False}
            axis.plot([0, 0], [0.05, 0.09], ls="", c="k", transform=axis.transAxes, **strokes)
        else:
            axis.set_ylim(bottom=0)
        axis.set(xlim=(-0.6, len(names) - 0.4), xticks=range(len(names)), xticklabels=names)
        axis.set_title(title, loc="center")
        axis.yaxis.set_major_formatter("{x:,g}")
    fig.alt = "Parameters, active units, accuracy and norm-matched error, a dot for each seed."
    return fig


def ten(table, pixels=None, mine=(), second=CLASSIFIER):
    """table: a row of "method", "seed", "explained", "explained_best" and "classifier" for each
    model; pixels: the classifier's accuracy on pixels; mine: methods that are pink, and last;
    second: what (b) has, a column of the table, title, label and format."""
    column, title, unit, form = second
    methods, known = table.method.unique(), sum(GROUPS.values(), [])
    groups = GROUPS | {"yours": [m for m in methods if m not in known]}
    lines = []  # headings and methods, from above
    for heading, group in groups.items():
        if group := [m for m in group if m in methods]:
            lines += [heading, *group]
    size = TWO, 0.22 * len(lines) + 0.9
    fig, (a, b) = plt.subplots(1, 2, figsize=size, width_ratios=[2.3, 1], sharey=True)
    short = SHORT | ({NEW: "+ log-determinant: " + NEW} if DECAY in lines else {})
    rows(a, [short.get(line, line) for line in lines], groups)
    for y, method in enumerate(lines):
        if method in groups:
            continue
        of, color = table[table.method == method], PINK if method in mine else color_of(method)
        own, best, other = 100 * of.explained, 100 * of.explained_best, of[column]
        ends, high = [min(*own, *best), max(*own, *best)], [y] * len(of)
        a.plot(ends, [y, y], color=color, alpha=0.3, lw=3.5, solid_capstyle="round")
        a.plot(best, high, "o", color=color, mfc="w", ms=6.5, mew=1.2)
        for axis, dots in ((a, own), (b, other)):
            axis.plot(dots, high, "o", color=color, mec="w", ms=6, mew=0.5)
        style = {"color": color, "fontsize": 8}
        label(a, f"{own.mean():.0f}", (ends[0], y), (-6, 0), ha="right", **style)
        label(a, f"{best.mean():.0f}", (ends[1], y), (6, 0), ha="left", **style)
        label(b, format(other.mean(), form), (other.max(), y), (6, 0), ha="left", **style)
    if pixels is not None:
        b.axvline(pixels, color="0.3", ls=":", lw=1, zorder=0)
        label(b, "pixels", (pixels, 0), color="0.3")
    a.set_title("(a) reconstruct:  ● own decoder  ○ best linear decoder")
    a.set(xlabel="variance of test data explained, %", xmargin=0.1)
    b.set(title=title, xlabel=unit, xmargin=0.3)
    b.tick_params(axis="y", labelleft=False, length=0)
    b.spines["left"].set_visible(False)
    fig.alt = (
        f"For each of {', '.join(m for m in lines if m not in groups)}: (a) variance explained by "
        f"its own decoder, filled dots, and by the best linear decoder, open dots; {title}."
    )
    return fig


def language(table):
    """As `ten`, with "recovered" in place of "classifier"; of the methods five are drawn."""
    table = table[table.method.isin([ADAM, SGD, NEW, "L1 SAE", "TopK SAE"])]
    return ten(table, second=("recovered", "(b) loss recovered", "loss recovered, %", ".0f"))


def directions(models):
    """models: {name: for each unit {"decoder row", "step" and "weights": (D,)}}. The units of a
    line stand beside each other, with cosines with the decoder row below."""
    ratios = ([1, 1, 1, 0.3] * len(next(iter(models.values()))))[:-1]
    size = {"figsize": (TWO, 1.1 * len(models) + 0.6), "width_ratios": ratios, "squeeze": False}
    fig, grid = plt.subplots(len(models), len(ratios), **size)
    for i, (line, (name, units)) in enumerate(zip(grid, models.items())):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis in line[3::4]:
            axis.axis("off")
        for j, parts in enumerate(units):
            for axis, (title, image) in zip(line[4 * j :], parts.items()):
                heading = f"$\\bf{{unit\\ {j + 1}}}$\n" if title == "step" else ""
                picture(axis, image, None if i else heading + title, signed=True)
                if title != "decoder row":
                    cosine = torch.cosine_similarity(image, parts["decoder row"], dim=0)
                    axis.set_xlabel(f"{cosine:.2f}", labelpad=2)
    fig.supxlabel("numbers: cosine with the decoder row", fontsize=8)
    fig.alt = "Of units of two models: row of the best decoder, step of gradient descent, weights."
    return fig


def units(models, varies, scale, dead):
    """models: {"model": W (K, D), "sae": W (K, D)}, dead units of the SAE, so many, last; varies
    (D,): True for pixels that (c) has; scale: of (b)."""
    W, V = models["model"], models["sae"]
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 0.27 * max(len(W), len(V)) / 8 + 0.5))
    framed = range(len(V) - dead, len(V))
    tiles(a, W, 8)
    tiles(b, V, 8, scale=scale, framed=framed)
    tiles(c, V * varies, 8, framed=framed)
    a.set_title("(a) the paper's model")
    b.set(title="(b) its SAE, on one scale", xlabel=f"framed: {dead} dead units" if dead else "")
    c.set(title="(c) its SAE, each on its own", xlabel=b.get_xlabel())
    fig.alt = "Weights of the paper's model, and of its SAE on one scale and each on its own scale."
    return fig


def purity(groups):
    """groups: {heading: rows of "method", "l0" and "purity"}."""
    (fig, axis), names = plt.subplots(), []
    for heading, table in groups.items():
        names.append(heading)
        for method, of in table.groupby("method", sort=False):
            axis.plot(of.purity, [len(names)] * len(of), "o", ms=5.5, color=color_of(method))
            names.append(f"{method} ({of.l0.mean():.0f} active)")
    rows(axis, names, groups)
    fig.set_size_inches(0.8 * TWO, 0.21 * len(names) + 0.5)
    axis.set(xlim=(0, None), xlabel="purity: share of activation on the best class")
    fig.alt = "Dots, one for each seed, for the purity of each method."
    return fig


def one_digit(digit, codes):
    """A digit (D,) and for each of {method: (A (K,), decoder rows (K, D), reconstruction (D,))} a
    line: the digit, its reconstruction, and under bars of their part in it five decoder rows."""
    size = {"figsize": (TWO, 0.85 * len(codes) + 0.45), "squeeze": False}
    fig, axes = plt.subplots(len(codes), 8, width_ratios=[1, 1, 0.25, 1, 1, 1, 1, 1], **size)
    for i, (line, (name, (A, V, x_hat))) in enumerate(zip(axes, codes.items())):
        picture(line[0], digit, None if i else "digit")
        picture(line[1], x_hat, None if i else "reconstruction")
        style = {"rotation": 0, "ha": "right", "va": "center", "color": color_of(name)}
        line[0].set_ylabel(name.replace(", ", ",\n"), **style)
        parts = A * V.norm(dim=1)
        largest = parts.argsort(descending=True)[: min(5, int((A > 0).sum()))]
        for axis in [line[2], *line[3 + len(largest) :]]:
            axis.axis("off")
        for axis, unit in zip(line[3:], largest):
            picture(axis, V[unit], signed=True)
            bar = {"color": color_of(name), "lw": 3, "clip_on": False, "transform": axis.transAxes}
            axis.plot([0, float(parts[unit] / parts[largest[0]])], [1.08, 1.08], **bar)
    fig.suptitle("A digit as a sum of decoder rows: the five that contribute most", fontsize=8.5)
    fig.alt = "A line for each method: a digit, its reconstruction, and the largest decoder rows."
    return fig


def by_l0(table):
    """table: a row of "method", "active", the L0 that was asked for, "l0" and "explained" for each
    model: a line for each method."""
    fig, axis = plt.subplots(figsize=(TWO, 2.7))
    wanted, right = sorted(table.active.unique()), table.l0.max()
    curves = table.groupby(["method", "active"])[["l0", "explained"]].mean()
    ends = 100 * curves.explained.groupby("method").last().sort_values()
    steps = 6 * np.ptp(curves.explained) * np.arange(len(ends))  # a line of text each
    heights = np.maximum.accumulate(ends - steps) + steps  # so that no name stands on another
    for method, height in zip(ends.index, np.minimum(heights, ends.max() - steps[::-1])):
        main = method in (ADAM, NEW, COMPONENTS, "L1 SAE")
        color, of = color_of(method) if main else "0.72", curves.loc[method]
        axis.plot(of.l0, 100 * of.explained, "o-", ms=4, mew=0, color=color, zorder=2 + main)
        label(axis, method, (1.06 * right, height), ha="left", color=color if main else "0.4")
    axis.set(xlabel="active units on a digit", ylabel="variance explained, %", xscale="log")
    axis.set(xticks=wanted, xticklabels=wanted, xlim=(0.9 * wanted[0], 1.04 * right))
    axis.minorticks_off()
    fig.alt = "Variance explained by each method's own decoder against the number of active units."
    return fig
