"""One function a figure: each takes what it shows and returns a matplotlib figure.

All are fit for print: one column (3.3 in) or two (6.9 in), colour-blind safe, readable in grey.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch

from helpers import correlation, usage

PICTURE = 28 * 28  # inputs of this length are shown as pictures


def style():
    """One look for all figures: fit for one column (3.3 in) in print, colour-blind safe."""
    sizes = {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "legend.fontsize": 7}
    ticks = {"xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6}
    output = {"figure.dpi": 130, "savefig.dpi": 300, "pdf.fonttype": 42, "savefig.bbox": "tight"}
    layout = {"figure.constrained_layout.use": True, "lines.linewidth": 1.2}
    sns.set_theme("paper", "ticks", "colorblind", rc=sizes | ticks | output | layout)


def toy_figure(points, r, em, lse, inflated, widths):
    """EM and LSE descent on points (N, 2) with responsibilities r (N, 3), and free widths.

    em, lse: means along the paths (steps, 3, 2); inflated: the means (3, 2), widths (3,) and
    responsibilities (N, 3) without volume; widths: {name: (steps, 3)}.
    """
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(6.9, 2.2), width_ratios=[1, 1, 1.1])
    colours = np.array(sns.color_palette()[:3])
    grid = np.stack(np.meshgrid(np.linspace(-6, 6, 90), np.linspace(-6, 6, 90)), -1)
    for axis, (means, sigma, share) in ((a, (lse[-1], np.ones(3), r)), (b, inflated)):
        axis.scatter(*points.T, s=4, lw=0, c=np.clip(share.numpy() @ colours, 0, 1))
        for mean, s, colour in zip(np.asarray(means), sigma, colours):
            energy = ((grid - mean) ** 2).sum(-1) / 2 / s**2
            axis.contour(
                grid[..., 0], grid[..., 1], energy, [0.5, 2], colors=[colour], linewidths=0.6
            )
        axis.set(xlim=(-6, 6), ylim=(-6, 6), xticks=[], yticks=[], aspect="equal")
    for j in range(3):
        a.plot(*lse[:, j].T, color="k", lw=0.8)
        a.plot(*em[:, j].T, "o", mfc="none", mec="k", ms=3.5, mew=0.7)
    for (name, values), style in zip(widths.items(), ("-", "--")):
        lines = c.loglog(1 + np.arange(len(values)), values, color="k", ls=style, lw=0.9)
        lines[0].set_label(name)
    c.legend(frameon=False)
    a.set(title="(a) EM (circles), LSE descent (lines)")
    b.set(title="(b) free widths, no volume")
    c.set(title="(c) widths", xlabel="step", ylabel="width σ")
    sns.despine(ax=c)
    return fig


def identity_figure(sets, moves, paths):
    """sets: {name: (gradient, r, residual)}; moves: [(EM, LSE)]; paths: [(LSE, EM)] per start."""
    fig, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(3.35, 3.3))
    for (name, arrays), marker in zip(sets.items(), "o+x"):
        gradient, r, residual = (t.ravel() for t in arrays)
        style = {"s": 5, "marker": marker, "lw": 0.5, "rasterized": True}
        a.scatter(r, gradient, label=name, **style)
        b.scatter(r, residual, **style)
    low = 1e-12
    a.legend(markerscale=1.5, handletextpad=-0.3, loc="lower right", frameon=False, fontsize=6)
    a.set(xscale="log", yscale="log", xlim=(low, 3), ylim=(low, 3), title="(a) identity")
    a.set(xlabel="responsibility r", ylabel="gradient dL/dE")
    b.set(xscale="log", xlim=(low, 3), ylim=(-1.2, 1.2), title="(b) residual")
    b.set(xlabel="responsibility r", ylabel="in rounding units")
    for em, lse in moves:
        c.scatter(em.ravel(), lse.ravel(), s=2, lw=0, alpha=0.5, color="C0", rasterized=True)
    c.set(xlabel="move, EM (scikit-learn)", ylabel="move, LSE step", title="(c) M-step")
    for axis in (a, c):
        axis.axline((0.1, 0.1), (0.2, 0.2), color="0.4", lw=0.6, zorder=0)
    for (lse, em), colour in zip(paths, sns.color_palette()):
        steps, end = np.arange(1, len(em)), em[-1]
        d.loglog(steps, lse[:-1] - end, color=colour)
        d.loglog(steps, em[:-1] - end, "o", mfc="none", ms=3, mew=0.6, color=colour)
    d.set(xlabel="E-step number", ylabel="NLL above its end", title="(d) path")
    sns.despine(fig)
    return fig


STYLES = {"A": ("C0", "-"), "B": ("C1", "--"), "C": ("C2", "-."), "D": ("C3", ":")}
STYLES |= {"log det": ("C4", "--"), "bounded": ("k", "-")}


def ablation_figure(energies, curves, names):
    """Similarity matrices and usage of energies {name: (N, K)}, and collapse while it happens.

    curves: DataFrame with config, seed, step, dead, redundancy; names: {config: its terms}.
    """
    fig = plt.figure(figsize=(6.9, 3.9))
    upper, lower = fig.subfigures(2, 1, height_ratios=[1, 1])
    for axis, (config, E) in zip(upper.subplots(1, len(energies)), energies.items()):
        R = correlation(E.double()).cpu()
        axis.set(xticks=[], yticks=[], title=f"{config}: {names[config]}", xlabel="unit")
        if R.diagonal().any():
            order = cluster_order(R)
            image = axis.imshow(R[order][:, order], cmap="RdBu_r", vmin=-1, vmax=1)
        else:
            axis.text(0.5, 0.5, "no unit varies:\nundefined", ha="center", va="center", size=7)
            axis.set_box_aspect(1)
    upper.colorbar(image, ax=upper.axes, shrink=0.7, label="correlation", aspect=12)
    a, b, c = lower.subplots(1, 3)
    for config, E in energies.items():
        colour, ls = STYLES[config]
        a.plot(np.sort(usage(E).cpu())[::-1], color=colour, ls=ls)
        for _, run in curves[curves.config == config].groupby("seed"):
            b.plot(run.step + 1, run.dead, color=colour, ls=ls, lw=0.9)
            lines = c.plot(run.step + 1, run.redundancy, color=colour, ls=ls, lw=0.9)
        lines[0].set_label(config)
    a.set(
        xlabel="unit, most used first", ylabel="usage (mean r)", ylim=(0, None), title="(a) usage"
    )
    b.set(xlabel="step", xscale="log", ylabel="dead units", title="(b) units that die")
    c.set(
        xlabel="step",
        xscale="log",
        ylabel="redundancy",
        yscale="log",
        ylim=(1, None),
        title="(c) redundancy",
    )
    c.legend(frameon=False, ncols=2)
    for axis in (a, b, c):
        sns.despine(ax=axis)
    return fig


def scale_figure(curves, scales, lse):
    """Mean energy over epochs {(config, seed): array}; L_LSE and its two limits over scales."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(6.9, 2.1))
    for (config, _), energy in curves.items():
        colour, ls = STYLES[config]
        (line,) = a.plot(1 + np.arange(len(energy)), energy, color=colour, ls=ls, lw=0.9)
        if config not in a.get_legend_handles_labels()[1]:
            line.set_label(config)
    a.set(xlabel="epoch", ylabel="mean energy", yscale="log", title="(a) scale during training")
    a.legend(frameon=False, ncols=2, loc=(0.5, 0.12))
    for (name, values), ls in zip(lse.items(), ("-", ":", "--")):
        b.plot(scales, values, "k" if ls == "-" else "0.45", ls=ls, label=name)
    low, high = lse["log-sum-exp"].min(), lse["log-sum-exp"].max()
    b.set(xscale="log", xlabel="energies of C times", ylabel="nats per input")
    b.set(ylim=(low - 0.03, high + 0.12), title="(b) the log-sum-exp and its two limits")
    b.legend(frameon=False)
    sns.despine(fig)
    return fig


def cluster_order(R):
    """Order of units that puts correlated ones side by side; R (K, K)."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - np.abs(np.asarray(R))
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance, checks=False), "average"))


def tiles(axis, W, columns):
    """Rows of W (n, D) as square pictures, each with its own symmetric scale; red is positive."""
    W = torch.as_tensor(W).detach().cpu().float()
    W = W / W.abs().quantile(0.99, dim=1, keepdim=True).clamp_min(1e-12)  # edges may be extreme
    side, n = round(W.shape[1] ** 0.5), -(-len(W) // columns) * columns
    sheet = torch.zeros(n, side + 2, side + 2)
    sheet[: len(W), 1:-1, 1:-1] = W.view(-1, side, side)
    image = sheet.view(-1, columns, side + 2, side + 2).permute(0, 2, 1, 3)
    axis.imshow(
        image.reshape(-1, columns * (side + 2)),
        cmap="RdBu_r",
        vmin=-1,
        vmax=1,
        interpolation="nearest",
    )
    axis.set(xticks=[], yticks=[])
    sns.despine(ax=axis, left=True, bottom=True)


def weights_figure(weights):
    """Pictures of all rows of the weights {title: W}."""
    fig, axes = plt.subplots(1, len(weights), figsize=(6.9, 1.9))
    for axis, (title, W) in zip(axes, weights.items()):
        tiles(axis, W, round(len(W) ** 0.5))
        axis.set_title(title)
    return fig


def digit_figure(x, E, r, W, x_hat, n=8):
    """One input x (D,) followed: energies E and responsibilities r (K,), rows W, x_hat (D,).

    Pictures, where D is a square: the input, the n rows that reject it most, what W' makes of it.
    """
    order = torch.argsort(E, descending=True)
    pictures = len(x) == PICTURE
    fig = plt.figure(figsize=(6.9, 2.9 if pictures else 1.7))
    upper, lower = fig.subfigures(2, 1, height_ratios=[2, 1]) if pictures else (fig, None)
    a, b = upper.subplots(1, 2)
    units = np.arange(len(E))
    bar = {"width": 1, "linewidth": 0 if len(E) > 100 else None}  # edges would cover thin bars
    a.bar(units, E[order], color=["C3" if e > 0 else "0.6" for e in E[order]], **bar)
    a.set(xlabel="unit, by energy", ylabel="energy E", title="(a) active = does not match")
    b.bar(units, r[order], color="0.4", **bar)
    b.axhline(1 / len(E), color="k", lw=0.6, ls=":")
    b.set(xlabel="unit, by energy", ylabel="responsibility r", title="(b) claimed by those at rest")
    sns.despine(fig)
    if pictures:
        axes = lower.subplots(1, n + 2)
        for axis, image, title in ((axes[0], x, "input"), (axes[-1], x_hat, "by W′")):
            axis.imshow(image.view(28, 28), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[], title=title)
        for axis, unit in zip(axes[1:-1], order):
            tiles(axis, W[unit][None], 1)
            axis.set_title(f"{E[unit]:.1f}")
    return fig


def decoder_figure(cosines, pairs, n=6):
    """cosines {method: (K,)} of W_j and its best decoder row V_j; pairs {method: (W, V)}."""
    square = all(W.shape[1] == PICTURE for W, _ in pairs.values())
    fig = plt.figure(figsize=(6.9, 0.65 * len(pairs)))
    left, right = fig.subfigures(1, 2, width_ratios=[1, 1.6]) if square else (fig, None)
    a = left.subplots()
    frame = pd.DataFrame({m: np.asarray(c) for m, c in cosines.items()}).melt()
    np.random.seed(0)  # of the jitter: the same data make the same picture
    sns.stripplot(frame, x="value", y="variable", color="0.4", size=2, jitter=0.25, ax=a)
    a.scatter(
        [float(np.nanmean(c)) for c in cosines.values()],
        range(len(cosines)),
        c="k",
        marker="|",
        s=150,
    )
    a.set(
        xlabel="cosine of W and its best decoder V", ylabel="", xlim=(min(0, frame.value.min()), 1)
    )
    sns.despine(ax=a)
    if square:
        for axis, (method, (W, V)) in zip(right.subplots(len(pairs), 1), pairs.items()):
            tiles(axis, torch.stack([W[:n], V[:n]], 1).flatten(0, 1), 2 * n)
            axis.set_title(method, pad=2)
    return fig


METHODS = {  # colour, marker and line of each method in Figure 3
    "published form": ("C1", "v", ":"),
    "log det": ("C4", "^", ":"),
    "bounded": ("k", "o", "-"),
    "L1 SAE": ("C0", "s", "--"),
    "tied SAE": ("C2", "D", "-."),
    "TopK SAE": ("C3", "X", "--"),
}


def benchmark_figure(table, lines, published, strips):
    """Read-out error and features against L0; strips {name: (n, D)}: inputs, reconstructions.

    table: DataFrame of models; lines: {name: (fvu, probe)} drawn across; published: {name: (L0,
    fvu)}. Without probes the second panel shows the error of the least-squares decoder.
    """
    labels = table.probe.notna().any()
    fig = plt.figure(figsize=(3.4, 5.9 if strips else 4.6))
    upper, lower = fig.subfigures(2, 1, height_ratios=[4.6, 1.3]) if strips else (fig, None)
    a, b = upper.subplots(2, 1, sharex=True)
    second = "probe" if labels else "least squares"
    for method, (colour, marker, ls) in METHODS.items():
        rows = table[table.method == method]
        means = rows.groupby("weight", sort=False)[["l0", "gain", "least squares", "probe"]].mean()
        means = means.sort_values("l0")
        for axis, column in ((a, "gain"), (b, second)):
            axis.scatter(rows.l0, rows[column], s=3, color=colour, alpha=0.35, lw=0)
            face = {"mfc": colour if method == "bounded" else "w", "ms": 4, "mew": 0.8}
            axis.plot(
                means.l0, means[column], marker + ls, color=colour, lw=0.9, label=method, **face
            )
        if method == "bounded":
            name = "bounded, least squares"
            a.plot(means.l0, means["least squares"], "-", color="0.5", lw=2.5, zorder=0, label=name)
    for name, values in lines.items():
        for axis, value in zip((a, b), values):
            if value is not None:
                axis.axhline(value, color="0.6", lw=0.7, ls="-")
                axis.annotate(name, (0.92, value), xycoords=("axes fraction", "data"), fontsize=6,
                              ha="right", va="bottom")  # fmt: skip
    for (name, (l0, fvu)), marker in zip(published.items(), "*P"):
        a.plot(l0, fvu, marker, color="0.35", ms=7, mfc="none", label=name)
    a.set(xscale="log", yscale="log", ylabel="FVU (1: the mean input)")
    b.set(xlabel="L0: active units per input")
    b.set(ylabel="probe accuracy (%)" if labels else "FVU, least squares")
    ticks = [
        t
        for t in (2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200)
        if a.get_xlim()[0] < t < a.get_xlim()[1]
    ]
    b.set_xticks(ticks, ticks)
    low, high = a.get_ylim()
    ticks = (0.2, 0.3, 0.5, 0.7, 1, 2) if low < 0.5 else (0.6, 0.7, 0.8, 0.9, 1)
    a.set_yticks([t for t in ticks if low < t < high])
    for scale in (a.yaxis, a.xaxis):
        scale.set_minor_formatter(plt.NullFormatter())
    a.yaxis.set_major_formatter("{x:g}")
    a.set_title("(a) reconstruction by W′ (gain + offset)")
    b.set_title("(b) features" if labels else "(b) reconstruction by least squares")
    upper.legend(
        *a.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        handlelength=3,
    )
    for axis in (a, b):
        sns.despine(ax=axis)
    if strips:
        for axis, (name, X) in zip(lower.subplots(len(strips), 1), strips.items()):
            side = round(X.shape[1] ** 0.5)
            strip = X.cpu().view(-1, side, side).permute(1, 0, 2).reshape(side, -1)
            axis.imshow(strip, cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=6)
            sns.despine(ax=axis, left=True, bottom=True)
    return fig
