"""The figures of notebook 1: each function takes what it draws, and returns a figure."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import torch

from lab.plots import GREY, PAPER, SAE, TWO, label, tiles


def identity(compared):
    """compared: {name: (responsibilities, gradients)}, of random energies and a trained layer."""
    fig, axis = plt.subplots(figsize=(3, 2.7))
    axis.axline((0.1, 0.1), (0.2, 0.2), color=GREY, lw=0.8, zorder=0)
    inside, marks = {"xycoords": "axes fraction"}, {"mfc": "none", "ms": 4, "mew": 0.6, "ls": ""}
    styles = ("o", SAE, 3, (0.64, 0.86)), ("+", PAPER, 2, (0.72, 0.4))
    for (name, (r, gradient)), (marker, color, zorder, at) in zip(compared.items(), styles):
        style = marks | {"marker": marker, "color": color, "zorder": zorder, "rasterized": True}
        axis.plot(r.flatten(), gradient.flatten(), **style)
        label(axis, name.replace(" ", "\n"), at, color=color, fontsize=9, **inside)
    label(axis, "gradient = responsibility", (0.26, 0.35), color="0.35", rotation=45, **inside)
    if below := sum(int((r < 1e-16).sum()) for r, _ in compared.values()):
        label(axis, f"marks that are smaller: {below}", (0.97, 0.03), ha="right", **inside)
    axis.set(xlabel="responsibility", ylabel="gradient", xscale="log", yscale="log")
    ticks = [1e-16, 1e-12, 1e-8, 1e-4, 1]
    axis.set(xlim=(1e-16, 3), ylim=(1e-16, 3), xticks=ticks, yticks=ticks, aspect="equal")
    axis.minorticks_off()
    fig.alt = "Gradient against responsibility, on logarithmic axes: marks along the identity line."
    return fig


def mixture(points, em, descent, without, success, n_starts, lucky):
    """points (N, 2); paths of three means (steps, 3, 2): EM's, gradient descent's, and the same
    without competition; success: a row of "loss", "seed" and "starts", how many of n_starts find
    all clusters; lucky: how many are expected to be lucky."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 2.4), width_ratios=[1, 1, 0.85])
    paths(points, descent, "(a) gradient descent and EM", a)
    paths(points, without, "(b) without competition", b)
    a.plot(*em[1:].flatten(0, 1).T, "ko", mfc="none", ms=7, mew=0.6)
    label(a, "dots: gradient descent\ncircles: EM", (0.9, 9.6), ha="left", va="top")
    for place, (_, of) in enumerate(success.groupby("loss", sort=False)):
        c.plot(place + np.linspace(-0.15, 0.15, len(of)), of.starts, "o", ms=5, c="k", mew=0)
    c.axhline(lucky, ls=":", c="k", lw=1)
    label(c, f"lucky starts: {lucky:.0f}", (-0.5, lucky), (0, 2), ha="left", va="bottom")
    c.set(title="(c) starts that find all clusters", ylabel=f"starts, of {n_starts}")
    names = [fill(name, 16) for name in success.loss.unique()]
    c.set(xlim=(-0.6, 1.6), ylim=(0, 1.04 * n_starts), xticks=[0, 1], xticklabels=names)
    fig.alt = "Clusters, and paths of means: EM's, and without competition; starts that succeed."
    return fig


def paths(points, path, title, axis=None):
    """The path of three means, (steps, 3, 2), through points (N, 2); on an axis that is given, an
    arrow to a cluster without a mean."""
    marked, axis = axis is not None, axis or plt.subplots(figsize=(2.6, 2.7))[1]
    axis.scatter(*points.T, s=5, lw=0, c="0.8")
    axis.plot(path[..., 0], path[..., 1], ".-", lw=1, ms=5)
    axis.plot(*path[0].T, "kx", ms=6, mew=1.2)
    label(axis, "start", path[0, path[0, :, 1].argmin()], (6, 0), ha="left")
    far = points[torch.cdist(points, path[-1]).amin(1) > 3]
    if marked and len(far) > len(points) / 10:
        shift = 0, -40 if far[:, 1].mean() > 5 else 40  # towards the middle
        arrow = {"arrowstyle": "-|>", "color": "k"}
        label(axis, "no mean here", far.mean(0), shift, arrowprops=arrow)
    axis.set(xlim=(0.6, 10.4), ylim=(0.4, 9.9), xticks=[], yticks=[], aspect="equal", title=title)
    axis.spines[:].set_visible(True)
    axis.figure.alt = "Three clusters of points, and the paths of three means."
    return axis.figure


def active_units(points, cluster, W, b, r, x, weights, E):
    """(a) Three units of the plane, W (3, 2) and b (3,), points (N, 2), the cluster of each (N,),
    and responsibilities r (N, 3). (b) Of a trained layer's weights (K, D) two units, with digits of
    x (M, D) on which each is most active by its energies E (M, K), and on which it is inactive."""
    fig, (a, *right) = plt.subplots(1, 4, figsize=(TWO, 2.3), width_ratios=[2.9, 1, 3, 3])
    a.scatter(*points.T, s=3, lw=0, c="0.6")
    plane = np.stack(np.meshgrid([-1.2, 12.2], [-1.6, 12.4]), -1)
    for j, left, base in zip(range(3), (0.4, 7.7, 4), (-0.4, -0.4, 9.4)):
        color, w = f"C{j}", W[j].numpy()
        z = plane @ w + float(b[j])
        a.contour(*plane.T.swapaxes(1, 2), z, [0], colors=color, linewidths=1.2)
        a.contourf(*plane.T.swapaxes(1, 2), z, [0, 99], colors=color, alpha=0.1)
        middle = points.mean(0).numpy()
        foot = middle - (w @ middle + float(b[j])) / (w @ w) * w
        a.annotate("", foot + 1.7 * w, foot, arrowprops={"arrowstyle": "-|>", "color": color})
        places, heights = left + 1.3 * np.arange(3), r[cluster == j].mean(0).numpy()
        a.bar(places, 3.2 * heights, 1, base, color=["C0", "C1", "C2"], zorder=3)
        for i, place in enumerate(places):
            label(a, f"$r_{i + 1}$", (place, base - 0.15), va="top", fontsize=7)
        for height, name in ((base, "0"), (base + 1.6, ".5")):
            a.plot([left - 0.6, left + 3.2], [height, height], c="0.2", lw=0.5, ls=":")
            label(a, name, (left - 0.7, height), fontsize=6.5, ha="right")
    a.set(xticks=[], yticks=[], aspect="equal", xlim=(-1.15, 12.15), ylim=(-1.5, 12.3))
    a.spines[:].set_visible(True)
    a.set_title("(a) where a unit is active,\nits responsibility is smallest")
    often = (E > 0).sum(0)
    both = ((often > 2) & (often < len(E) - 2)).nonzero()[:, 0]  # active and inactive on some
    units = both[often[both].argsort()][[len(both) // 8, len(both) * 7 // 8]]
    order = E[:, units].argsort(dim=0, stable=True).T
    off, on = order[:, :3], order[:, -3:]
    r_on, r_off = (torch.softmax(-E, 1)[rows, units[:, None]] for rows in (on, off))
    tiles(right[0], weights[units], 1, names=["active on\nfew digits", "active on\nmany digits"])
    tiles(right[1], x[on.flatten()], 3, signed=False)
    tiles(right[2], x[off.flatten()], 3, signed=False)
    right[0].set_title("(b) weights", loc="center")
    right[1].set_title(f"most active:\nresponsibility up to {r_on.max():.0e}", loc="center")
    right[2].set_title(f"inactive:\nresponsibility about {r_off.mean():.1g}", loc="center")
    fig.alt = "Where three units are active, and responsibilities; digits for two trained units."
    return fig
