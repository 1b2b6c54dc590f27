"""The figures of notebook 3: each function takes what it draws, and returns a figure."""

import matplotlib.pyplot as plt
import torch

from lab.methods import ADAM, FOR_COMPARISON, OUR_CHANGES, PAPERS_LOSS, REVISED, SGD, TUNED_SAES
from lab.plots import BLACK, BLUE, GREEN, ORANGE, PINK, TWO, label, name_lines, picture, tiles

# Of kinds; new ones are pink
COLORS = {PAPERS_LOSS: ORANGE, OUR_CHANGES: BLACK, FOR_COMPARISON: GREEN, TUNED_SAES: BLUE}
SHORT = {ADAM: "with Adam, the paper's rate", SGD: "with SGD"}
SHORT |= {REVISED: "+ log-determinant: the revised loss"}
CLASSIFIER = "classifier", "(b) classify (linear)", "accuracy, %", ".1f"


def paper(table, references):
    """Draw the paper's comparison. table: for each model a row of "method", "kind", "seed" and what
    is drawn of it; references: {column: (name, number)}, a dotted line each."""
    columns = {
        "parameters": ("parameters", 1, ",.0f"),
        "l0": ("active units", 1, ".1f"),
        "classifier": ("classifier, %", 1, ".1f"),
        "norm-matched": ("MSE,\nnorm-matched", 1, ".3f"),
        "explained": ("variance\nexplained, %", 100, ".0f"),
    }
    methods = [*table.method.unique()]
    size = {"figsize": (TWO, 0.32 * len(methods) + 0.85), "sharey": True}
    fig, axes = plt.subplots(1, len(columns), **size)
    for axis, (column, (title, scale, form)) in zip(axes, columns.items()):
        for y, method in enumerate(methods):
            runs = table[table.method == method]
            values, color = scale * runs[column], COLORS.get(runs.kind.iloc[0], PINK)
            axis.plot(values, [y] * len(runs), "o", color=color, mec="w", ms=6, mew=0.5)
            label(axis, format(values.mean(), form), (values.mean(), y), (0, 9), color=color)
        if column in references:
            name, number = references[column]
            axis.axvline(number, color="0.3", ls=":", lw=1, zorder=0)
            label(axis, name, (number, len(methods) - 0.4), color="0.3")
        name_lines(axis, methods)
        axis.set(ylim=(len(methods) - 0.1, -0.7), xmargin=0.35)
        if column != "classifier":
            axis.set_xlim(0, 1.3 * axis.dataLim.x1)
        axis.locator_params(axis="x", nbins=2)
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.set_title(title, loc="center")
        axis.tick_params(axis="y", labelleft=axis is axes[0])
    fig.alt = (
        f"Parameters, active units, accuracy, error and variance explained of {', '.join(methods)}."
    )
    return fig


def code_or_decoder(table, pixels=None, second=CLASSIFIER):
    """Draw how well codes are decoded, and classify. table: a row of "method", "kind", "seed",
    "explained", "explained_best" and "classifier" for each model; pixels: the classifier's accuracy
    on pixels; second: what (b) has, a column of the table, title, label and format. Methods stand
    under their kind."""
    column, title, unit, form = second
    kinds = sorted(table.kind.unique(), key=lambda kind: [*COLORS, kind].index(kind))
    lines = []  # from above: a text, and whether it is a heading
    for kind in kinds:
        lines += [(kind, True), *((m, False) for m in table.method[table.kind == kind].unique())]
    size = TWO, 0.22 * len(lines) + 0.9
    fig, (a, b) = plt.subplots(1, 2, figsize=size, width_ratios=[2.3, 1], sharey=True)
    name_lines(a, [SHORT.get(text, text) for text, _ in lines], kinds)
    for y, (method, heading) in enumerate(lines):
        if heading:
            continue
        runs = table[table.method == method]
        own, best, other = 100 * runs.explained, 100 * runs.explained_best, runs[column]
        ends, high = [min(*own, *best), max(*own, *best)], [y] * len(runs)
        color = COLORS.get(runs.kind.iloc[0], PINK)
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
    methods = ", ".join(text for text, heading in lines if not heading)
    fig.alt = (
        f"For each of {methods}: (a) variance explained by its own decoder, filled dots, and by "
        f"the best linear decoder, open dots; {title}."
    )
    return fig


def language(table):
    """Draw `code_or_decoder` with "recovered" in place of "classifier"."""
    recovered = "recovered", "(b) loss recovered", "loss recovered, %", ".0f"
    return code_or_decoder(table, second=recovered)


def directions(models):
    """Draw directions of one unit of each model, and below each picture its cosine with the decoder
    row. models: {name: {"decoder row", "step", "weights", "another row": (D,)}}."""
    titles = [*next(iter(models.values()))]
    size = {"figsize": (0.75 * TWO, 1.12 * len(models) + 0.5), "squeeze": False}
    fig, grid = plt.subplots(len(models), len(titles), **size)
    for i, (line, (name, parts)) in enumerate(zip(grid, models.items())):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis, (title, image) in zip(line, parts.items()):
            picture(axis, image, None if i else title, signed=True)
            if title != "decoder row":
                cosine = torch.cosine_similarity(image, parts["decoder row"], dim=0)
                axis.set_xlabel(f"{cosine:.2f}".replace("-0.00", "0.00"), labelpad=2)
    fig.supxlabel("numbers: cosine with the decoder row", fontsize=8)
    fig.alt = "Of a unit of each model: row of the best decoder, step of gradient descent, weights."
    return fig


def units(models, varies, scale, dead):
    """Draw weights of units. models: {"model": W (K, D), "sae": W (K, D)}, dead units of the SAE,
    so many, last; varies (D,): True for pixels that (c) has; scale: of (b)."""
    W, W_sae = models["model"], models["sae"]
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 0.27 * max(len(W), len(W_sae)) / 8 + 0.5))
    framed = range(len(W_sae) - dead, len(W_sae))
    tiles(a, W, 8)
    tiles(b, W_sae, 8, scale=scale, framed=framed)
    tiles(c, W_sae * varies, 8, framed=framed)
    a.set_title("(a) the paper's model")
    b.set(title="(b) its SAE, on one scale", xlabel=f"framed: {dead} dead units" if dead else "")
    c.set(title="(c) its SAE, each on its own", xlabel=b.get_xlabel())
    fig.alt = "Weights of the paper's model, and of its SAE on one scale and each on its own scale."
    return fig


def one_digit(digit, codes, kinds):
    """Draw a line for each method: a digit (D,), its reconstruction with the mean squared error,
    and under bars of their part in it five decoder rows. codes: {method: (A (K,), decoder rows
    (K, D), reconstruction (D,))}; kinds: {method: kind}."""
    colors = {name: COLORS.get(kinds[name], PINK) for name in codes}
    size = {"figsize": (TWO, 0.85 * len(codes) + 0.45), "squeeze": False}
    fig, axes = plt.subplots(len(codes), 8, width_ratios=[1, 1, 0.25, 1, 1, 1, 1, 1], **size)
    for i, (line, (name, (A, V, x_hat))) in enumerate(zip(axes, codes.items())):
        picture(line[0], digit, None if i else "digit")
        picture(line[1], x_hat, None if i else "reconstruction")
        line[1].set_xlabel(f"error {(x_hat - digit).square().mean():.3f}", labelpad=2)
        style = {"rotation": 0, "ha": "right", "va": "center", "color": colors[name]}
        line[0].set_ylabel(name.replace(", ", ",\n"), **style)
        parts = A * V.norm(dim=1)
        largest = parts.argsort(descending=True)[: min(5, int((A > 0).sum()))]
        for axis in [line[2], *line[3 + len(largest) :]]:
            axis.axis("off")
        for axis, unit in zip(line[3:], largest):
            picture(axis, V[unit], signed=True)
            bar = {"color": colors[name], "lw": 3, "clip_on": False, "transform": axis.transAxes}
            axis.plot([0, float(parts[unit] / parts[largest[0]])], [1.08, 1.08], **bar)
    fig.suptitle("A digit as a sum of decoder rows: the five that contribute most", fontsize=8.5)
    fig.alt = "A line for each method: a digit, its reconstruction, and the largest decoder rows."
    return fig
