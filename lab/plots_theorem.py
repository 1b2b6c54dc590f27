"""The figures of notebook 1: each function takes what it shows, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np

from lab.plots import GREY, TWO, frame, label, large, tiles

BARE = {"xticks": [], "yticks": [], "aspect": "equal"}


@large
def identity(compared):
    """compared: {name: (responsibilities, gradients)}."""
    fig, axis = plt.subplots(figsize=(4.2, 4.2))
    axis.axline((0.1, 0.1), (0.2, 0.2), color=GREY, lw=0.8, zorder=0)
    looks = (
        {"marker": "o", "facecolors": "none", "edgecolors": "C0"},
        {"marker": "+", "facecolors": "C1"},
    )
    for (r, gradient), look in zip(compared.values(), looks):
        axis.scatter(r, gradient, **look, s=14, lw=0.8, rasterized=True)
    label(axis, [*compared][0].replace(" ", "\n"), (1e-9, 1e-3), color="C0", fontsize=14)
    label(axis, [*compared][1].replace(" ", "\n"), (1e-7, 1e-14), color="C1", fontsize=14)
    ticks = [1e-24, 1e-16, 1e-8, 1]
    frame(axis, None, "responsibility", "gradient", log="xy", xticks=ticks, yticks=ticks)
    fig.alt = (
        "Gradient against responsibility on logarithmic axes, for random energies and for those of "
        "a trained layer, with the identity line."
    )
    return fig


def mixture(points, em, descent, without, found, n_starts, lucky):
    """points (N, 2); paths of the means (steps, 3, 2); found: a row of "loss", "seed" and "starts",
    how many of n_starts find all clusters; lucky: how many are expected to be lucky."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 2.4), width_ratios=[1, 1, 0.8])
    for axis, path in ((a, descent), (b, without)):
        axis.scatter(*points.T, s=5, lw=0, c="0.8")
        axis.plot(path[..., 0], path[..., 1], ".-", lw=1, ms=5)
        axis.plot(*path[0].T, "kx", ms=6, mew=1.2)
        axis.set(**BARE, xlim=(0.6, 10.4), ylim=(0.4, 9.9))
        axis.spines[:].set_visible(True)
    a.plot(*em[1:].flatten(0, 1).T, "ko", mfc="none", ms=7, mew=0.6)
    label(a, "circles: EM", (2.5, 9.1))
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
        "circles for EM. (b) The paths without the denominator. (c) How many of the random starts "
        "find all three clusters, with the denominator and without."
    )
    return fig


def active_units(points, cluster, W, b, r, x, layer):
    """(a) Three units of the plane, W (3, 2) and b (3,), with points (N, 2), the cluster of each
    (N,), and responsibilities r (N, 3). (b) Of a trained layer four units, from those that fire
    most often to those that fire least: weights, three of the digits x on which each is most
    active, and three on which it is inactive."""
    E = layer(x).detach()
    often = (E > 0).double().mean(0).argsort(descending=True)
    units = often[[len(often) * i // 8 for i in (1, 3, 5, 7)]]
    E = E[:, units]
    most = x[E.topk(3, dim=0).indices.T.flatten()]
    zeros = [(E[:, j] == 0).nonzero()[:, 0] for j in range(4)]
    inactive = x[[int(rows[i * len(rows) // 4]) for rows in zeros for i in (1, 2, 3)]]
    fig, (a, *right) = plt.subplots(
        1, 4, figsize=(TWO, 2.5), width_ratios=[2.2, 0.45, 1.3, 1.3], layout="compressed"
    )
    a.scatter(*points.T, s=3, lw=0, c="0.65")
    a.set(**BARE, xlim=(-1.15, 12.15), ylim=(-1.5, 11.8))
    a.spines[:].set_visible(True)
    centre = points.mean(0)
    for j, left, base in zip(range(3), (0.3, 8.0, 4.2), (-1.2, -1.2, 9.2)):
        look = {"color": f"C{j}"}
        foot = centre - (W[j] @ centre + b[j]) / W[j].square().sum() * W[j]
        a.axline(foot, foot + W[j].flip(0) * W[j].new_tensor([-1, 1]), lw=1.2, **look)
        a.annotate("", foot + 1.7 * W[j], foot, arrowprops={"arrowstyle": "-|>", **look})
        heights = 2.8 * r[cluster == j].mean(0).numpy()
        bars = a.bar(left + 1.3 * np.arange(3), heights, 1, base, color=["C0", "C1", "C2"])
        a.bar_label(bars, ["$r_1$", "$r_2$", "$r_3$"], fontsize=7, padding=0)
    a.set_title("(a) three units, and $r$")
    for axis, (images, columns, title) in zip(
        right,
        (
            (layer.W[units], 1, "(b) $w_j$"),
            (most, 3, "most active"),
            (inactive, 3, "inactive"),
        ),
    ):
        tiles(axis, images, columns, signed=columns == 1)
        axis.set_title(title, loc="center")
    fig.alt = (
        "(a) Three clusters, three lines, and bars: of three units, the one that is active on a "
        "cluster has the smallest responsibility there. (b) The weights of four trained units, "
        "digits on which each is most active, and digits on which it is inactive."
    )
    return fig
