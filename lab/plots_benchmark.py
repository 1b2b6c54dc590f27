"""The figures of notebook 3: each function takes what it shows, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.transforms import offset_copy
from sklearn.isotonic import isotonic_regression
from torch.nn.functional import cosine_similarity

from lab.plots import GREY, TWO, frame, label, log_l0, tiles

ALT = {
    "3_benchmark": "Variance explained against L0 for eight methods. (a) By the transpose or an "
    "SAE's decoder: TopK is highest, then L1 and tied SAE, the revised loss, the paper's loss with "
    "weight decay, tuned, k-means, and far below the paper's loss. (b) With a least-squares "
    "decoder: in nearly the same order, and closer together; PCA is far below at small L0.",
    "3_benchmark_digit": "Energies and responsibilities of 64 units for one digit, sorted by "
    "energy: the few active units have the smallest responsibilities, all inactive ones the same. "
    "Below: the digit, the weights of its active units, and their sum, which resembles the digit.",
    "3_benchmark_balance": "For two units, pictures of an equation: the least-squares decoder, "
    "minus two sums, equals kappa times the weights, which look like the decoder, plus a remainder "
    "of next to nothing.",
    "3_benchmark_units": "Eight decoder rows of each method. K-means, the revised loss and the "
    "paper's loss show more whole digits, SAEs more strokes.",
}
# The methods of the benchmark's table, {method: (colour, marker, line)}. Warm: the paper's loss and
# its changes, from light to dark; blue: models that are trained to reconstruct.
LOOKS = {
    "the paper's loss": ("#dd9326", "v", ":"),
    "the paper's loss, tuned": ("#cc6410", "<", "-."),
    "the paper's loss + weight decay": ("#963a0a", ">", "--"),
    "the revised loss": ("k", "o", "-"),
    "k-means": ("#4f9d69", "X", ":"),
    "tied SAE": ("#5aa9dd", "s", "-."),
    "L1 SAE": ("#1f6fb4", "D", "--"),
    "TopK SAE": ("#0b2d5c", "^", "-"),
}


def benchmark_figure(table, pca):
    """table: a row for each model, see `lab.compare.tabulate`; pca: (L0s, variance explained)."""
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 3.0), sharex=True, sharey=True)
    for axis, column in zip(axes, ("explained", "least_squares")):
        for name in LOOKS:
            rows, (colour, marker, line) = table[table.method == name], LOOKS[name]
            axis.plot(rows.l0, rows[column], ".", color=colour, ms=3, alpha=0.6, mew=0)
            means = rows.groupby("setting")[["l0", column]].mean().sort_values("l0")
            look = {"color": colour, "marker": marker, "ls": line, "ms": 4.5, "mew": 0.9}
            name = name.removeprefix("the ")
            axis.plot(means.l0, means[column], mfc="w", label=name, **look)
    axes[1].plot(*pca, color=GREY, lw=0.7)
    middle = len(pca[0]) // 2
    at = pca[0][middle], pca[1][middle] - 0.01
    label(axes[1], "PCA", at, color=GREY, ha="left", va="top")
    for axis in axes:
        log_l0(axis)
        name_lines(axis)
    frame(axes[0], "(a) by $W^⊤$, or an SAE's decoder", axes[0].get_xlabel(), "variance explained")
    axes[1].set_title("(b) with a least-squares decoder")
    return fig


def digit_figure(x, E, r, W, x_hat):
    """One digit x (D,): the energies E and responsibilities r (K,) of all units, the weights W
    (K, D) of the active ones, at most seven, and what the transpose makes of E, x_hat (D,)."""
    x, E, r, W, x_hat = (t.detach().cpu() for t in (x, E, r, W, x_hat))
    order, n_active = E.argsort(descending=True), int((E > 0).sum())
    fig = plt.figure(figsize=(TWO, 2.8))
    upper, lower = fig.subfigures(2, 1, height_ratios=[1.55, 1])
    a, b = upper.subplots(1, 2)
    colours = ["C3" if E[unit] > 0 else "0.75" for unit in order]
    for axis, values in ((a, E), (b, r)):
        axis.bar(np.arange(1, len(E) + 1), values[order].numpy(), width=1, color=colours, lw=0)
        axis.set(xlabel="unit, by energy", xlim=(0, len(E) + 1))
    label(a, "active", (n_active + 1, 0.6 * E.max()), color="C3", ha="left")
    label(b, "inactive", ((n_active + len(E)) / 2, r.max() / 2))
    a.set(ylabel="energy E", title=f"(a) {n_active} of {len(E)} units are active")
    b.set(ylabel="responsibility r", title="(b) inactive units have the largest responsibility")
    first, *axes, last = lower.subplots(1, min(n_active, 7) + 2)
    picture(first, x, "digit")
    picture(last, x_hat, "$W^⊤E$")
    for axis, unit in zip(axes, order):
        tiles(axis, W[unit][None], 1)
        axis.set_title(f"E = {E[unit]:.2f}", loc="center", color="C3")
    return fig


def balance_figure(terms, W, kappa, units):
    """V_j - (inactive part + log-sum-exp part) = kappa w_j + remainder: a row for each unit.

    terms: of `lab.balance.terms`; W (K, D).
    """
    W = W.detach()
    remainder = terms["V"] - terms["inactive"] - terms["penalty"] - kappa * W
    parts = {
        "$V_j$": terms["V"],
        "inactive part": terms["inactive"],
        "log-sum-exp part": terms["penalty"],
        "$κ\\,w_j$": kappa * W,
        "remainder": remainder,
    }
    ratios = {"width_ratios": [1, 0.3] * 4 + [1]}
    fig, grid = plt.subplots(
        len(units), 9, figsize=(TWO, 1.4 * len(units)), squeeze=False, **ratios
    )
    for row, unit in zip(grid, units):
        limit = float(torch.stack([part[unit] for part in parts.values()]).abs().quantile(0.995))
        for axis, (name, part) in zip(row[::2], parts.items()):
            look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            picture(axis, part[unit], name if axis in grid[0] else None, **look)
            axis.spines[:].set_visible(False)
            cosine = float(cosine_similarity(part[unit], terms["V"][unit], dim=0))
            axis.set_xlabel(f"{cosine:.2f}".replace("-", "−"))
        row[0].set_xlabel("cosine with $V_j$:")
        for axis, sign in zip(row[1::2], ("− (", "+", ") =", "+")):
            axis.set_axis_off()
            axis.text(0.5, 0.5, sign, ha="center", va="center", fontsize=12)
    return fig


def units_figure(rows):
    """rows: {method: decoder rows of eight units (8, D)}."""
    fig, axis = plt.subplots(figsize=(TWO, 0.7 * len(rows)), layout="compressed")
    tiles(axis, torch.cat([W.detach().cpu() for W in rows.values()]), 8)
    axis.set_yticks(14.5 + 30 * np.arange(len(rows)), rows)
    axis.tick_params(length=0, labelsize=8)
    return fig


def name_lines(axis, gap=8.5):
    """Write the label of each line on the right, in its colour, as near to the height of its last
    point as the others allow. gap: between two labels, in points."""
    axis.figure.canvas.draw()  # the scales must be known
    lines = [line for line in axis.lines if line.get_label()[0] != "_"]
    lines.sort(key=lambda line: line.get_ydata()[-1])
    right, points = axis.get_xlim()[1], axis.figure.dpi / 72
    last = np.array([line.get_xydata()[-1] for line in lines])
    height = axis.transData.transform(last)[:, 1] / points
    apart = gap * np.arange(len(lines))
    moved = isotonic_regression(height - apart) + apart - height
    for line, (x, y), up in zip(lines, last, moved):
        thin = {"arrowstyle": "-", "lw": 0.4, "color": line.get_color(), "relpos": (0, 0.5)}
        axis.annotate(
            line.get_label(),
            (x, y),
            (right, y),
            textcoords=offset_copy(axis.transData, axis.figure, 4, up, units="points"),
            color=line.get_color(),
            fontsize=7,
            va="center",
            annotation_clip=False,
            arrowprops=thin | {"shrinkA": 0, "shrinkB": 3},
        )


def picture(axis, image, title, **look):
    """A square picture (D,) with its title: a digit, black on white, or as `look` says."""
    look = {"cmap": "Greys", "vmin": 0, "vmax": 1, "interpolation": "nearest"} | look
    image = torch.as_tensor(image).detach().cpu()
    side = round(len(image) ** 0.5)
    axis.imshow(image.reshape(side, side).numpy(), **look)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(True)
    axis.set_title(title, loc="center")
