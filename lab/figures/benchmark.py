"""The figures of notebook 3, and that of the language model."""

import matplotlib.pyplot as plt

import helpers as h
from lab.benchmark import PAPER_ADAM, PAPER_DECAY, PAPER_SGD, misses_target
from lab.figures.style import BLUE, GREY, ORANGE, PINK, TWO_COLUMNS, label, name_rows, tiles

SAES = ["tied SAE", "L1 SAE", "TopK SAE"]
DARK_GREY = "0.3"
METHOD_COLORS = {  # others are pink
    **dict.fromkeys(["the paper's model", PAPER_ADAM, PAPER_SGD, PAPER_DECAY], ORANGE),
    **dict.fromkeys([*SAES, "tuned tied SAE"], BLUE),
    "the paper's SAE": GREY,
    "principal components": DARK_GREY,
}
SHORT_NAMES = {
    PAPER_ADAM: "the paper's loss, Adam",
    PAPER_SGD: "the paper's loss, SGD",
    PAPER_DECAY: "the paper's loss, weight decay",
}


def by_method(table):
    """Return [(method, its rows)] of a table with the index "method", "seed", in its order."""
    return [*table.groupby("method", sort=False)]


def draw_benchmark(table, pixels):
    """Draw the plan's benchmark. table: a row for each "method" and "seed"; pixels: the accuracy of
    the classifier on pixels."""
    panels = {
        "parameters": ("parameters", "← better", ",.0f"),
        "L0": ("L0", "← better", ".1f"),
        "MSE": ("MSE, decoded by $W^\\top$\nor by an SAE's own", "← better", ".3f"),
        "classifier": ("linear classifier, %", "better →", ".1f"),
    }
    rows = by_method(table)
    size = {"figsize": (TWO_COLUMNS, 0.36 * len(rows) + 0.95), "sharey": True}
    fig, axes = plt.subplots(1, len(panels), **size)
    for axis, (column, (title, better, form)) in zip(axes, panels.items()):
        for y, (method, runs) in enumerate(rows):
            values, color = runs[column], METHOD_COLORS.get(method, PINK)
            axis.plot(values, [y] * len(runs), "o", color=color, mec="w", ms=6, mew=0.5)
            label(axis, format(values.mean(), form), (values.mean(), y), (0, 9), color=color)
        axis.set(xlabel=better, xmargin=0.35)
        if column != "classifier":
            axis.set_xlim(0, 1.3 * table[column].max())
        axis.locator_params(axis="x", nbins=3)
        axis.set_title(title, loc="center")
    axes[0].xaxis.set_major_formatter("{x:,.0f}")
    add_pixels(axes[3], pixels, top=-0.75, bottom=len(rows) - 0.6)
    name_rows(axes[0], [method for method, _ in rows])
    axes[0].set_ylim(len(rows) - 0.6, -1.15)
    for axis in axes[1:]:
        axis.tick_params(axis="y", labelleft=False, length=0)
        axis.spines["left"].set_visible(False)
    names = ", ".join(method for method, _ in rows)
    fig.alt = f"Parameters, L0, MSE and linear classifier of {names}: a dot for each seed."
    return fig


def add_pixels(axis, pixels, top, bottom):
    axis.plot([pixels, pixels], [top, bottom], color=DARK_GREY, ls=":", lw=1, zorder=0)
    label(axis, "pixels", (pixels, top), (0, 2), va="bottom", color=DARK_GREY)


def draw_decoded(digits, rows, framed, same_code):
    """Draw digits (n, D), and below them the same, decoded.

    rows: {name: (decoded digits (n, D), active units, variance explained, both as text)}
    framed: the number of the digit that gets a frame. same_code: numbers of the first and of the
    last of the rows that decode one code
    """
    n = len(rows) + 1
    height = 0.44 * n + 0.04
    fig = plt.figure(figsize=(TWO_COLUMNS, height))
    fig.set_layout_engine("none")  # in this way it stays none when the figure is saved
    left, right = 0.275, 0.835

    def middle(row):
        return (0.44 * (n - row) - 0.2) / height

    for row, (name, (images, *numbers)) in enumerate({"test digits": (digits,), **rows}.items()):
        bottom = middle(row) - 0.205 / height
        axis = fig.add_axes((left, bottom, right - left, 0.41 / height), anchor="W")
        tiles(axis, images, len(images), signed=False, scale=1, framed=[framed])
        fig.text(left - 0.012, middle(row), name, ha="right", va="center", fontsize=8)
        for x, number in zip((0.885, 0.96), numbers):
            fig.text(x, middle(row), number, ha="center", va="center", fontsize=8)
    for x, head in {0.885: "active\nunits", 0.96: "variance\nexplained"}.items():
        fig.text(x, middle(0), head, ha="center", va="center", fontsize=7.5, color=DARK_GREY)
    top, bottom = middle(same_code[0]) + 0.12 / height, middle(same_code[1]) - 0.12 / height
    x = 0.032
    line = plt.Line2D(
        [x + 0.008, x, x, x + 0.008], [top, top, bottom, bottom], color=DARK_GREY, lw=0.9
    )
    fig.add_artist(line)
    style = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 7.5, "color": DARK_GREY}
    fig.text(x - 0.006, (top + bottom) / 2, "same code", **style)
    fig.alt = f"{len(digits)} test images, and the same, decoded by: {'; '.join(rows)}."
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


OWN, BEST = "variance explained", "variance explained by the best decoder"
CLASSIFIER_PANEL = "classifier", "linear classifier, %", ".1f"
RECOVERED_PANEL = "loss recovered", "loss recovered, %", ".0f"


def draw_code_or_decoder(table, target_l0, pixels=None, second=CLASSIFIER_PANEL):
    """Draw how well codes are decoded, and classify.

    table: a row for each "method" and "seed". pixels: the accuracy of the classifier on pixels.
    second: what (b) has, a column of the table, its name and format. A method that misses_target
    target_l0 active units is marked with its number.
    """
    rows = by_method(table)
    size = {"figsize": (TWO_COLUMNS, 0.25 * len(rows) + 1.25), "width_ratios": [2.3, 1]}
    fig, (a, b) = plt.subplots(1, 2, **size, sharey=True)
    column, unit, form = second
    add_methods(a, rows, OWN, ".0f")
    add_methods(b, rows, column, form)
    lowest = table[[OWN, BEST]].min(axis=None)
    if add_saes_and_gap(a, table):
        top, left = -2.1, min(0, lowest - 10)
    else:
        top, left = -1.1, lowest - 0.14 * (100 - lowest)
    if pixels is not None:
        add_pixels(b, pixels, top=-0.7, bottom=len(rows) - 0.5)
    names = []
    for method, runs in rows:
        l0 = runs["L0"].mean()
        mark = f" ({l0:.1f} active)" if misses_target(l0, target_l0) else ""
        names.append(SHORT_NAMES.get(method, method) + mark)
    name_rows(a, names)
    a.set_ylim(len(rows) - 0.4, top)
    a.set_title("(a) ● own decoder  ○ best linear decoder")
    a.set(xlabel="variance of test data explained, %", xlim=(left, 100))
    b.set(title=f"(b) {unit.removesuffix(', %')}", xlabel=unit, xmargin=0.3)
    b.tick_params(axis="y", labelleft=False, length=0)
    b.spines["left"].set_visible(False)
    fig.alt = (
        f"For each of {', '.join(method for method, _ in rows)}: (a) variance explained by its own "
        f"decoder, filled, and by the best linear decoder, open dots; (b) {unit}."
    )
    return fig


def draw_language_model(table, target_l0):
    """Draw the same with the loss that reconstructions recover in place of a classifier."""
    return draw_code_or_decoder(table, target_l0, second=RECOVERED_PANEL)


def add_methods(axis, rows, column, form):
    """Draw a line for each method: dots at a column of its rows, open ones at that of the best
    decoder if there is one, and their means."""
    for y, (method, runs) in enumerate(rows):
        color = METHOD_COLORS.get(method, PINK)
        style, level = {"color": color, "fontsize": 8}, [y] * len(runs)
        own = runs[column]
        right, high = own.max(), own.mean()
        if f"{column} by the best decoder" in runs:
            best = runs[f"{column} by the best decoder"]
            left, right = min(*own, *best), max(*own, *best)
            low, high = sorted([own.mean(), best.mean()])
            axis.plot([left, right], [y, y], color=color, alpha=0.3, lw=3.5, solid_capstyle="round")
            axis.plot(best, level, "o", color=color, mfc="w", ms=6.5, mew=1.2)
            label(axis, format(low, form), (left, y), (-6, 0), ha="right", **style)
        axis.plot(own, level, "o", color=color, mec="w", ms=6, mew=0.5)
        label(axis, format(high, form), (right, y), (6, 0), ha="left", **style)


def add_saes_and_gap(axis, table):
    """Shade what SAEs explain, and divide what the paper's loss with Adam lacks of it, drawn in the
    first row, into the decoder's part and the code's. Return whether there are both."""
    means = table[[OWN, BEST]].groupby("method", sort=False).mean()
    saes = means[OWN][[name for name in SAES if name in means.index]]
    if saes.empty or PAPER_ADAM not in means.index:
        return False
    axis.axvspan(saes.min(), saes.max(), color=BLUE, alpha=0.13, lw=0, zorder=0)
    label(axis, "SAEs", (saes.mean(), -1.65), color=BLUE)
    own, best = means.loc[PAPER_ADAM]
    bar = {
        "arrowstyle": "|-|,widthA=0.2,widthB=0.2",
        "color": DARK_GREY,
        "lw": 0.8,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    for name, start, end in (("decoder", own, best), ("code", best, saes.min())):
        if end > start:
            axis.annotate("", (start, -0.62), (end, -0.62), arrowprops=bar)
            middle = (start + end) / 2, -0.72
            label(axis, name, middle, (0, 1), va="bottom", color=DARK_GREY)
    return True
