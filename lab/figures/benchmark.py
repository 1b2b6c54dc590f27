"""The figures of notebook 3, and that of the language model."""

import matplotlib.pyplot as plt

import helpers as h
from lab.figures.style import BLUE, GREEN, GREY, ORANGE, PINK, TWO_COLUMNS, label, name_rows, tiles
from lab.methods import ADAM, COMPONENTS, DECAY, SGD, misses_target

METHOD_COLORS = {  # others are pink
    **dict.fromkeys(["the paper's model", ADAM, SGD, DECAY], ORANGE),
    **dict.fromkeys(["tied SAE", "tuned tied SAE", "L1 SAE", "TopK SAE"], BLUE),
    "the paper's SAE": GREY,
    COMPONENTS: GREEN,
}
SHORT_NAMES = {
    ADAM: "the paper's loss, Adam",
    SGD: "the paper's loss, SGD",
    DECAY: "the paper's loss, weight decay",
}


def draw_decoded(digits, rows, framed):
    """Draw digits (n, D), and below them the same, decoded. rows: {name: (decoded digits (n, D),
    "active units, variance explained")}; framed: the number of the digit that gets a frame."""
    fig, axes = plt.subplots(len(rows) + 1, 1, figsize=(TWO_COLUMNS, 0.47 * (len(rows) + 1)))
    everything = {"test digits": (digits, "active units,\nvariance explained")} | rows
    for axis, (name, (images, text)) in zip(axes, everything.items()):
        tiles(axis, images, len(images), signed=False, scale=1, framed=[framed])
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        label(axis, text, (1.02, 0.5), ha="left", xycoords="axes fraction")
    fig.alt = f"{len(digits)} test images, decoded by: {'; '.join(rows)}."
    return fig


def draw_papers_comparison(table, pixels):
    """Draw the paper's comparison. table: for each model a row of "method" and what is drawn of it;
    pixels: the classifier's accuracy on pixels."""
    columns = {
        "active": ("active units", "← better", ".1f"),
        "classifier": ("classifier, %", "better →", ".1f"),
        "explained": ("variance explained, %", "better →", ".0f"),
    }
    methods = [*table.method.unique()]
    size = {"figsize": (TWO_COLUMNS, 0.34 * len(methods) + 0.75), "sharey": True}
    fig, axes = plt.subplots(1, len(columns), **size)
    for axis, (column, (title, better, form)) in zip(axes, columns.items()):
        for y, method in enumerate(methods):
            runs = table[table.method == method]
            values, color = runs[column], METHOD_COLORS.get(method, PINK)
            axis.plot(values, [y] * len(runs), "o", color=color, mec="w", ms=6, mew=0.5)
            label(axis, format(values.mean(), form), (values.mean(), y), (0, 9), color=color)
        name_rows(axis, methods)
        axis.set(ylim=(len(methods) - 0.4, -0.7), xmargin=0.35)
        axis.locator_params(axis="x", nbins=3)
        axis.set_title(title, loc="center")
        axis.set_xlabel(better)
        axis.tick_params(axis="y", labelleft=axis is axes[0])
    axes[1].axvline(pixels, color="0.3", ls=":", lw=1, zorder=0)
    label(axes[1], "pixels", (pixels, len(methods) - 0.6), color="0.3")
    fig.alt = f"Active units, accuracy and variance explained of {', '.join(methods)}."
    return fig


def draw_weights(models):
    """Draw weights of units, each on its own scale, the most used first; dead units get a frame.
    models: {title: (weights (K, D), energies (N, K))}."""
    fig, axes = plt.subplots(1, len(models), figsize=(0.85 * TWO_COLUMNS, 0.46 * TWO_COLUMNS))
    for axis, (title, (W, E)) in zip(axes, models.items()):
        used, order = h.usage(E).sort(descending=True, stable=True)
        tiles(axis, W[order], 8, framed=(used == 0).nonzero()[:, 0].tolist())
        axis.set_title(title, loc="center")
    fig.alt = f"Weights of units of {' and '.join(models)}; those of dead units are framed."
    return fig


CLASSIFIER_PANEL = "classifier", "linear classifier, %", ".1f"


def draw_code_or_decoder(table, target_l0, pixels=None, second=CLASSIFIER_PANEL):
    """Draw how well codes are decoded, and classify. table: a row of "method", "active",
    "explained", "best explained" and "classifier" for each model; pixels: the classifier's accuracy
    on pixels; second: what (b) has, a column of the table, its name and format. A method that
    misses_target target_l0 active units is marked with its number."""
    column, unit, form = second
    l0 = table.groupby("method", sort=False).active.mean()
    size = {"figsize": (TWO_COLUMNS, 0.25 * len(l0) + 0.95), "width_ratios": [2.3, 1]}
    fig, (a, b) = plt.subplots(1, 2, **size, sharey=True)
    add_methods(a, table, "explained", ".0f")
    add_methods(b, table, column, form)
    marks = [f" ({n:.1f} active)" if misses_target(n, target_l0) else "" for n in l0]
    name_rows(a, [SHORT_NAMES.get(name, name) + mark for name, mark in zip(l0.index, marks)])
    first = table[table.method == l0.index[0]][["explained", "best explained"]]
    low, high = first.min(axis=None), first.max(axis=None)
    label(a, "the decoder's fault", ((low + high) / 2, 0), (0, 9), color="0.3")
    label(a, "no linear decoder finds", ((high + 100) / 2, 0), (0, 9), color="0.3")
    a.plot([high, 100], [0, 0], ":", color="0.5", lw=1, zorder=0)
    if pixels is not None:
        b.axvline(pixels, color="0.3", ls=":", lw=1, zorder=0)
        label(b, "pixels", (pixels, -0.55), color="0.3")
    a.set_title("(a) ● own decoder  ○ best linear decoder")
    lowest = table[["explained", "best explained"]].min(axis=None)
    a.set(xlabel="variance of test data explained, %", xlim=(lowest - 0.14 * (100 - lowest), 100))
    b.set(title=f"(b) {unit.removesuffix(', %')}", xlabel=unit, xmargin=0.3)
    b.tick_params(axis="y", labelleft=False, length=0)
    b.spines["left"].set_visible(False)
    fig.alt = (
        f"For each of {', '.join(l0.index)}: (a) variance explained by its own decoder, filled, "
        f"and by the best linear decoder, open dots; (b) {unit}."
    )
    return fig


def add_methods(axis, table, column, form):
    """Draw a line for each method: dots at a column of the table, open ones at that of the best
    decoder if there is one, and their means."""
    for y, (method, runs) in enumerate(table.groupby("method", sort=False)):
        color = METHOD_COLORS.get(method, PINK)
        style, level = {"color": color, "fontsize": 8}, [y] * len(runs)
        own = runs[column]
        right, high = own.max(), own.mean()
        if f"best {column}" in runs:
            best = runs[f"best {column}"]
            left, right = min(*own, *best), max(*own, *best)
            low, high = sorted([own.mean(), best.mean()])
            axis.plot([left, right], [y, y], color=color, alpha=0.3, lw=3.5, solid_capstyle="round")
            axis.plot(best, level, "o", color=color, mfc="w", ms=6.5, mew=1.2)
            label(axis, format(low, form), (left, y), (-6, 0), ha="right", **style)
        axis.plot(own, level, "o", color=color, mec="w", ms=6, mew=0.5)
        label(axis, format(high, form), (right, y), (6, 0), ha="left", **style)


def draw_language_model(table, target_l0):
    """Draw the same with the loss that reconstructions recover in place of a classifier."""
    recovered = "recovered", "loss recovered, %", ".0f"
    return draw_code_or_decoder(table, target_l0, second=recovered)
