"""The figures of notebook 3: each function takes what it shows, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from lab.plots import GREY, LARGE, TWO, label, log_l0, tiles


@plt.rc_context(LARGE)
def benchmark_figure(table, looks, pca):
    """table: a row for each model, see `lab.measures.tabulate`; looks: {method: (colour, marker,
    line)}; pca: (L0s, variance explained)."""
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 5.0), sharex=True, sharey=True)
    for axis, column in zip(axes, ("explained", "least_squares")):
        for name, (colour, marker, line) in looks.items():
            rows = table[table.method == name]
            axis.plot(rows.l0, rows[column], ".", color=colour, ms=4, alpha=0.6, mew=0)
            means = rows.groupby("setting")[["l0", column]].mean().sort_values("l0")
            look = {"color": colour, "marker": marker, "ls": line, "ms": 6, "mew": 1.1, "lw": 1.6}
            axis.plot(means.l0, means[column], mfc="w", label=name.removeprefix("the "), **look)
        log_l0(axis)
    axes[1].plot(*pca, color=GREY, lw=0.9)
    middle = len(pca[0]) // 2
    at = pca[0][middle], pca[1][middle] - 0.01
    label(axes[1], "PCA", at, color=GREY, ha="left", va="top", fontsize=11.5)
    axes[0].set(title="(a) own decoder", ylabel="variance explained", xlabel="active units (L0)")
    axes[1].set(title="(b) least-squares decoder", xlabel="active units (L0)")
    lines = axes[0].get_legend_handles_labels()
    fig.legend(*lines, loc="outside lower center", ncols=2, columnspacing=1.2, handlelength=3.2)
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
    b.set(ylabel="responsibility r", title="(b) responsibilities")
    first, *axes, last = lower.subplots(1, min(n_active, 7) + 2)
    picture(first, x, "digit")
    picture(last, x_hat, "$\\hat x$")
    for axis, unit in zip(axes, order):
        tiles(axis, W[unit][None], 1)
        axis.set_title(f"E = {E[unit]:.2f}", loc="center", color="C3")
    return fig


def means_figure(found, units):
    """A row for each of some units: the means of `lab.balance.means`, their differences, and the
    weights."""
    A, R, inactive = (found[name].cpu() for name in ("x_A", "x_R", "x_I"))
    columns = {
        "$\\bar x_A$": A,
        "$\\bar x_R$": R,
        "$\\bar x_I$": inactive,
        "$\\bar x_A-\\bar x_R$": A - R,
        "$\\bar x_A-\\bar x_I$": A - inactive,
        "$w$": found["W"].cpu(),
    }
    names = ("strongly active", "barely active", "inactive", "gradient", "decoder row", "weights")
    fig, grid = plt.subplots(
        len(units), len(columns), figsize=(TWO, 1.22 * len(units)), squeeze=False
    )
    for row, unit in zip(grid, units):
        means = torch.stack([part[unit] for part in (A, R, inactive)])
        for i, (axis, part) in enumerate(zip(row, columns.values())):
            # The three means of a unit have one scale; differences and weights have their own
            limit = float(means.abs().max() if i < 3 else part[unit].abs().quantile(0.995))
            picture(axis, part[unit], None, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axis.spines[:].set_visible(False)
    for axis, name, word in zip(grid[0], columns, names):
        axis.set_title(f"{word}\n{name}", loc="center")
    return fig


def units_figure(rows):
    """rows: {method: decoder rows of eight units (8, D)}."""
    fig, axis = plt.subplots(figsize=(TWO, 0.7 * len(rows)), layout="compressed")
    tiles(axis, torch.cat([W.detach().cpu() for W in rows.values()]), 8, names=[*rows])
    return fig


def picture(axis, image, title, **look):
    """A square picture (D,) with its title: a digit, black on white, or as `look` says."""
    look = {"cmap": "Greys", "vmin": 0, "vmax": 1, "interpolation": "nearest"} | look
    image = torch.as_tensor(image).detach().cpu()
    side = round(len(image) ** 0.5)
    axis.imshow(image.reshape(side, side).numpy(), **look)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(True)
    if title:
        axis.set_title(title, loc="center")
