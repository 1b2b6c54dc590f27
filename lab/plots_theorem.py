"""The figures of notebook 1: each function takes what it shows, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from lab.plots import GREY, PAPER, SAE, TWO, frame, label, tiles

BARE = {"xticks": [], "yticks": [], "aspect": "equal"}


def identity(compared):
    """compared: {name: (responsibilities, gradients)}, of random energies and a trained layer."""
    fig, axis = plt.subplots(figsize=(3.4, 3.2))
    axis.axline((0.1, 0.1), (0.2, 0.2), color=GREY, lw=0.8, zorder=0)
    trained = {"marker": "+", "color": PAPER, "s": 18}
    rings = {"marker": "o", "facecolors": "none", "edgecolors": SAE, "s": 10, "zorder": 3}
    places = ((1e-9, 10**-2.5, SAE), (10**-7.5, 1e-14, PAPER))
    for (name, (r, gradient)), look, (x, y, color) in zip(
        compared.items(), (rings, trained), places
    ):
        axis.scatter(r, gradient, **look, lw=0.6, rasterized=True)
        label(axis, name.replace(" ", "\n"), (x, y), color=color, fontsize=9)
    along = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}
    label(axis, "gradient = responsibility", (1e-19, 10**-17.8), color="0.35", **along)
    ticks = [1e-24, 1e-16, 1e-8, 1]
    frame(axis, None, "responsibility", "gradient", log="xy", xticks=ticks, yticks=ticks)
    fig.alt = (
        "Gradient against responsibility on logarithmic axes, for random energies and for those of "
        "a trained layer: all marks lie on the identity line."
    )
    return fig


def mixture(points, em, descent, without, found, n_starts, lucky):
    """points (N, 2); paths of the means (steps, 3, 2); found: a row of "loss", "seed" and "starts",
    how many of n_starts find all clusters; lucky: how many are expected to be lucky."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 2.4), width_ratios=[1, 1, 0.8])
    draw_paths(a, points, descent)
    draw_paths(b, points, without)
    a.plot(*em[1:].flatten(0, 1).T, "ko", mfc="none", ms=7, mew=0.6)
    label(a, "dots: gradient descent\ncircles: EM", (0.9, 9.5), ha="left", va="top")
    label(b, "two means,\none cluster", (3.9, 1.5), ha="left")
    label(b, "no mean here", (8, 5.3))
    a.set_title("(a) gradient descent and EM")
    b.set_title("(b) without the denominator")
    for place, (_, rows) in enumerate(found.groupby("loss", sort=False)):
        c.plot(place + np.linspace(-0.15, 0.15, len(rows)), rows.starts, "o", ms=5, c="k")
    c.axhline(lucky, ls=":", c="k", lw=1)
    label(c, f"lucky starts: {lucky:.0f}", (-0.5, 1.1 * lucky), ha="left", va="bottom")
    title, y = "(c) all clusters found", f"starts, of {n_starts}"
    frame(c, title, "the denominator", y, xlim=(-0.6, 1.6), ylim=(0, 1.04 * n_starts))
    c.set_xticks([0, 1], ["with (EM)", "without"])
    c.locator_params(axis="y", nbins=5)
    fig.alt = (
        "(a) Three clusters of points, and the paths of three means under gradient descent, with "
        "circles for EM. (b) The paths without the denominator: two means arrive in one cluster. "
        "(c) How many of the random starts find all three clusters, with the denominator and "
        "without."
    )
    return fig


def draw_paths(axis, points, path):
    axis.scatter(*points.T, s=5, lw=0, c="0.8")
    axis.plot(path[..., 0], path[..., 1], ".-", lw=1, ms=5)
    axis.plot(*path[0].T, "kx", ms=6, mew=1.2)
    axis.set(**BARE, xlim=(0.6, 10.4), ylim=(0.4, 9.9))
    axis.spines[:].set_visible(True)


def paths(points, path, title):
    """The path of three means, (steps, 3, 2), through points (N, 2)."""
    fig, axis = plt.subplots(figsize=(2.6, 2.6))
    draw_paths(axis, points, path)
    axis.set_title(title)
    fig.alt = "Three clusters of points, and the paths of three means."
    return fig


def active_units(points, cluster, W, b, r, x, weights, E):
    """(a) Three units of the plane, W (3, 2) and b (3,), with points (N, 2), the cluster of each
    (N,), and responsibilities r (N, 3). (b) Of the weights (K, D) of a trained layer two units, one
    that is active on few of the digits x (M, D) and one that is active on many: three digits on
    which each is most active by its energies E (M, K), and three on which it is inactive."""
    often = (E > 0).double().mean(0).argsort()
    units = often[[len(often) // 8, len(often) * 7 // 8]]
    E = E[:, units]
    most = x[E.topk(3, dim=0).indices.T.flatten()]
    zeros = [(E[:, j] == 0).nonzero()[:, 0] for j in range(2)]
    inactive = x[[int(rows[i * len(rows) // 4]) for rows in zeros for i in (1, 2, 3)]]
    fig, (a, *right) = plt.subplots(1, 4, figsize=(TWO, 2.3), width_ratios=[3.3, 1, 3, 3])
    a.scatter(*points.T, s=3, lw=0, c="0.6")
    a.set(**BARE, xlim=(-1.15, 12.15), ylim=(-1.5, 11.8))
    a.spines[:].set_visible(True)
    centre = points.mean(0)
    for j, left, base in zip(range(3), (0.3, 8.0, 4.2), (-1.2, -1.2, 9.2)):
        look = {"color": f"C{j}"}
        foot = centre - (W[j] @ centre + b[j]) / W[j].square().sum() * W[j]
        along = W[j].flip(0) * W[j].new_tensor([-1, 1])
        a.axline(foot, foot + along, lw=1.2, **look)
        side = torch.stack([foot - 30 * along, foot + 30 * along])
        a.fill(*torch.cat([side, side.flip(0) + 30 * W[j]]).T, alpha=0.1, lw=0, **look)
        a.annotate("", foot + 1.7 * W[j], foot, arrowprops={"arrowstyle": "-|>", **look})
        heights = 2.8 * r[cluster == j].mean(0).numpy()
        bars = a.bar(left + 1.3 * np.arange(3), heights, 1, base, color=["C0", "C1", "C2"])
        a.bar_label(bars, ["$r_1$", "$r_2$", "$r_3$"], fontsize=7, padding=0)
    a.set_title("(a) each unit is active on its side")
    titles = ("(b) $w_j$", "most active:\nresponsibility almost 0", "inactive")
    for axis, images, columns, title in zip(
        right, (weights[units], most, inactive), (1, 3, 3), titles
    ):
        tiles(axis, images, columns, signed=columns == 1)
        axis.set_title(title, loc="center")
    fig.alt = (
        "(a) Three clusters, three lines, and bars: of three units, the one that is active on a "
        "cluster has the smallest responsibility there. (b) The weights of two trained units, "
        "digits on which each is most active, and digits on which it is inactive."
    )
    return fig
