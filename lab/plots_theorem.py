"""The figures of notebook 1: each function takes what it shows, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap

from lab.plots import GREY, ONE, TWO, frame, label, tiles

BARE = {"xticks": [], "yticks": [], "aspect": "equal"}
FILLS = ["#3b76ab", "#e3a64e", "#cdeadf"]  # blue, orange and green, from dark to light


def identity_figure(compared):
    """compared: {name: (responsibilities, gradients)}, in float32."""
    fig, (above, below) = plt.subplots(
        2, 1, figsize=(ONE, 3.9), height_ratios=[2.6, 1], sharex=True
    )
    above.axline((0.1, 0.1), (0.2, 0.2), color=GREY, lw=0.6, zorder=0)
    below.axhline(0, color=GREY, lw=0.6, zorder=0)
    looks = (
        {"marker": "o", "facecolors": "none", "edgecolors": "C0"},
        {"marker": "+", "facecolors": "C1"},
    )
    for (name, (r, gradient)), look in zip(compared.items(), looks):
        r, gradient = r.cpu().flatten(), gradient.cpu().flatten()
        dots = look | {"s": 7, "lw": 0.6, "rasterized": True, "label": name}
        above.scatter(r, gradient, **dots)
        below.scatter(r, (gradient - r) / (r * torch.finfo(r.dtype).eps), **dots)
    above.legend(loc="upper left", handletextpad=0, markerscale=1.5)
    ticks = [1e-24, 1e-18, 1e-12, 1e-6, 1]
    frame(above, None, None, "gradient, by backpropagation", log="xy", xticks=ticks, yticks=ticks)
    frame(below, None, "responsibility, by the softmax", "difference\n(roundings)")
    return fig


def toy_figure(points, em, descent, without, found, n_starts, lucky):
    """points (N, 2); paths of the means (steps, 3, 2); found: of n_starts, how many find all three
    clusters, {with the denominator: [one for each seed], without it: [...]}; lucky: how many are
    expected to be lucky."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 2.4), width_ratios=[1, 1, 0.8])
    for axis, path in ((a, descent), (b, without)):
        axis.scatter(*points.T, s=5, lw=0, c="0.8")
        axis.plot(path[..., 0], path[..., 1], ".-", lw=1, ms=5)
        axis.plot(*path[0].T, "kx", ms=6, mew=1.2)
        axis.set(**BARE, xlim=(0.6, 10.4), ylim=(0.4, 9.9))
        axis.spines[:].set_visible(True)
    a.plot(*em[1:].flatten(0, 1).T, "ko", mfc="none", ms=7, mew=0.6)
    label(a, "circles: EM", (2.5, 9.1))
    look = {
        "arrowprops": {"arrowstyle": "-", "color": "k", "lw": 0.6},
        "fontsize": 7,
        "va": "center",
    }
    b.annotate("two means", (3.3, 2.85), (4.6, 1.2), **look)
    label(b, "no mean", (8.3, 5.5))
    a.set_title("(a) gradient descent and EM")
    b.set_title("(b) without the denominator")
    for place, counts in enumerate(found.values()):
        c.plot(place + np.linspace(-0.15, 0.15, len(counts)), counts, "o", ms=5, c="k")
    c.axhline(lucky, ls=":", c="k", lw=1)
    label(c, f"lucky starts: {lucky:.0f}", (-0.5, 1.1 * lucky), ha="left", va="bottom")
    title, y = "(c) all clusters found", f"starts, of {n_starts}"
    frame(c, title, "the denominator", y, xlim=(-0.6, 1.6), ylim=(0, 1.04 * n_starts))
    c.set_xticks([0, 1], ["with (EM)", "without"])
    c.locator_params(axis="y", nbins=5)
    return fig


def relu_figure(points, cluster, theta, r, x, layer, likeness):
    """Three units of the plane, theta (3, 3) of rows (w_1, w_2, b); points (N, 2), the cluster of
    each (N,), and responsibilities r (N, 3). Then four units of a trained layer, at quantiles of
    their likeness (K,): weights, three of the digits x on which each is most active, and three on
    which it is inactive."""
    units = likeness.argsort(descending=True)[[0, *(len(likeness) * i // 4 for i in (1, 2, 3))]]
    E = layer(x).detach()[:, units]
    most = x[E.topk(3, dim=0).indices.T.flatten()]
    zeros = [(E[:, j] == 0).nonzero()[:, 0] for j in range(4)]
    inactive = x[torch.cat([rows[len(rows) // 4 :: len(rows) // 4][:3] for rows in zeros])]
    weights, cosines = layer.W[units], likeness[units]
    fig, (a, b, *c) = plt.subplots(
        1, 5, figsize=(TWO, 1.95), width_ratios=[1.6, 1.6, 0.4, 1.2, 1.2], layout="compressed"
    )
    u, v, E = on_grid(theta, -2, 13)
    a.contourf(u, v, E[..., 2], np.arange(0, 9, 0.75), cmap="Greys", vmin=0, vmax=13)
    edge_line(a, theta[2], color="k", lw=1)
    label(a, "active:\nlow responsibility", (5.5, 10.4))
    label(a, "inactive:\nhigh responsibility", (5.5, -0.2))
    for axis in (a, b):
        axis.scatter(*points.T, s=3, lw=0, c="0.2" if axis is a else "0.65")
        axis.set(**BARE, xlim=(-1.15, 12.15), ylim=(-1.5, 11.8))
        axis.spines[:].set_visible(True)
    centre = points.mean(0)
    for j, left, base in zip(range(3), (0.3, 8.0, 4.2), (-1.2, -1.2, 9.2)):
        w, look = theta[j, :2], {"color": f"C{j}"}
        edge_line(b, theta[j], lw=1.2, **look)
        foot = centre - (w @ centre + theta[j, 2]) / w.square().sum() * w
        b.annotate("", foot + 1.7 * w, foot, arrowprops={"arrowstyle": "-|>", **look})
        heights = 2.8 * np.asarray(r[cluster == j].mean(0))
        bars = b.bar(left + 1.3 * np.arange(3), heights, 1, base, color=["C0", "C1", "C2"])
        b.bar_label(bars, ["$r_1$", "$r_2$", "$r_3$"], fontsize=7, padding=0)
    tiles(c[0], weights, 1)
    tiles(c[1], most, 3, signed=False)
    tiles(c[2], inactive, 3, signed=False)
    c[0].set_yticks(15 + 30 * np.arange(len(cosines)), [f"{value:.2f}" for value in cosines])
    c[0].tick_params(length=0)
    c[0].set_title("(c) weights", loc="right")
    c[1].set_title("most active", loc="center")
    c[2].set_title("inactive", loc="center")
    a.set_title("(a) energy of one unit")
    b.set_title("(b) three units, and $r$")
    return fig


def collapse_figure(runs):
    """runs: {name: (points (N, 2), theta before, theta after (3, 3))}; a row of two for each."""
    fig, axes = plt.subplots(len(runs), 2, figsize=(ONE, 3.5))
    for row, (name, (points, *thetas)) in zip(axes, runs.items()):
        low, high = float(points.min()) - 2, float(points.max()) + 2
        for axis, theta in zip(row, thetas):
            x, y, E = on_grid(theta, low, high)
            lowest = E.argmin(-1)
            extent = {"extent": (low, high, low, high), "origin": "lower"}
            axis.imshow(lowest, ListedColormap(FILLS), vmin=0, vmax=2, **extent)
            for j in np.flatnonzero(np.bincount(lowest.flat) > 0.03 * lowest.size):
                at = np.array([x[lowest == j].mean(), y[lowest == j].mean()])
                at += 0.3 * (at - (low + high) / 2)  # outwards, away from the points
                label(axis, j + 1, at, fontsize=9, weight="bold", zorder=5)
            axis.scatter(*points.T, s=5, c="k", ec="w", lw=0.3)
            axis.plot(0, 0, "k+", ms=9, mew=1.5)
            axis.set(**BARE, xlim=(low, high), ylim=(low, high))
            axis.spines[:].set_visible(True)
        row[0].set_ylabel(name)
    axes[0, 0].set_title("at the start")
    axes[0, 1].set_title("after training")
    return fig


def edge_line(axis, theta, **look):
    """The line on which w x + b = 0, for theta = (w_1, w_2, b)."""
    w, b = np.asarray(theta[:2]), float(theta[2])
    foot = -b / (w @ w) * w
    axis.axline(foot, foot + [-w[1], w[0]], **look)


def on_grid(theta, low, high):
    """x and y (n, n) of the points of a square, and w x + b there (n, n, K), for theta (K, 3)."""
    x, y = np.meshgrid(*2 * [np.linspace(low, high, 381)])
    return x, y, np.stack([x, y, np.ones_like(x)], -1) @ np.asarray(theta).T
