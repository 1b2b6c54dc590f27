"""Notebook 1's figures: each function takes what it shows and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from lab.plots import GREY, ONE, TWO, frame, label, tiles

ALT = {
    "1_theorem_toy": "Three clusters. Left: descent on the log-sum-exp leads to all three centres, "
    "inside the circles of EM. Right: without the denominator two means meet.",
    "1_theorem_relu": "One unit's energy is zero on a half-plane. Of three units each has least "
    "responsibility where its weights point. Trained rows look like the digits on which they are "
    "most active, and not like those on which they are silent.",
    "1_theorem_collapse": "Which of three units has the lowest energy, at four times. On raw "
    "points one comes to cover all. On centred points each keeps a sector with one cluster.",
    "1_theorem": "Gradient against responsibility, and the means' moves in one step against EM's: "
    "both lie on the identity line.",
}
FILLS = ["#3b76ab", "#e3a64e", "#cdeadf"]  # the units' blue, orange and green; dark to light
PLAIN = {"xticks": [], "yticks": [], "aspect": "equal"}


def toy_figure(points, em, descent, without):
    """Points (N, 2), and the means along three paths (steps, 3, 2)."""
    fig, axes = plt.subplots(1, 2, figsize=(ONE, 1.8))
    titles = "(a) log-sum-exp", "(b) no denominator"
    for axis, path, title in zip(axes, (descent, without), titles):
        axis.scatter(*points.T, s=4, lw=0, c="0.8")
        axis.plot(path[..., 0], path[..., 1], ".-", lw=1, ms=4)
        axis.plot(*path[0].T, "kx", ms=5, mew=1)
        axis.set(**PLAIN, xlim=(0.6, 10.4), ylim=(0.4, 9.9), title=title)
    axes[0].plot(*em[1:].flatten(0, 1).T, "ko", mfc="none", ms=6, mew=0.6)
    label(axes[0], "circles: EM", (2.5, 9.1))
    label(axes[1], "two meet", (4.5, 1.3))
    label(axes[1], "nobody", (8, 3))
    return fig


def half_planes_figure(points, cluster, theta, r, layer, x, most):
    """Three units relu(w x + b) of the plane, theta (3, 3) of rows (w, b); points (N, 2), the
    cluster of each (N,) and responsibilities r (N, 3). Then rows of a layer trained on x (N, D),
    beside inputs on which its first units are most active, of most (10, K), and silent ones."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 2.35), width_ratios=[1, 1, 1.65])
    u, v, z = on_grid(theta, -2, 13)
    a.contourf(u, v, z[..., 2], np.arange(0, 9, 0.75), cmap="Greys", vmin=0, vmax=13)
    edge_line(a, theta[2], color="k", lw=1)
    a.text(-0.7, 10.9, "E > 0: active, rejects", va="top", fontsize=7)
    a.text(5.5, -0.9, "E = 0: silent, claims", ha="center", fontsize=7)
    for axis, shade in ((a, "k"), (b, "0.65")):
        axis.scatter(*points.T, s=3, lw=0, c=shade)
        axis.set(**PLAIN, xlim=(-1.15, 12.15), ylim=(-1.5, 11.8))
    colours, centre = sns.color_palette()[:3], points.mean(0)
    for j, left, base in zip(range(3), (0.6, 8.6, 4.6), (-0.3, -0.3, 8.6)):
        colour, w = colours[j], theta[j, :2]
        edge_line(b, theta[j], color=colour, lw=1.2)
        foot = centre - (w @ centre + theta[j, 2]) / w.square().sum() * w
        b.annotate("", foot + 1.7 * w, foot, arrowprops={"arrowstyle": "-|>", "color": colour})
        label(b, f"$w_{j + 1}$", foot + 2.2 * w, color=0.7 * np.array(colour), fontsize=8)
        at, shares = left + 0.9 * np.arange(3), 2.5 * np.asarray(r[cluster == j].mean(0))
        bars = b.bar(at, shares, 0.7, base, color=colours, ec="k", lw=0.4)
        b.bar_label(bars, "123", fontsize=6)
    tiles(c, layer.W[:4].detach(), 1)
    for j in range(4):  # beside each row digits, black on white
        silent = (layer(x)[:, j] == 0).nonzero()[7 * j : 7 * j + 3, 0]
        for k, image in enumerate([*x[most[:3, j]], *x[silent]]):
            place = np.array([31 + 30 * k, 59 + 30 * k, 30 * j + 29, 30 * j + 1])
            c.imshow(image.cpu().view(28, 28), cmap="Greys", extent=place)
    c.set(xlim=(-2, 212), ylim=(120, 0))
    c.set_xticks([15, 75, 165], ["row", "most active", "silent"])
    a.set_title("(a) one unit")
    b.set_title("(b) three: who claims?")
    c.set_title("(c) trained rows, and digits")
    return fig


def collapse_figure(runs):
    """runs: {name: (points (N, 2), theta (steps, 3, 3), times)}, a row of territories for each."""
    fig, axes = plt.subplots(len(runs), 4, figsize=(TWO, 3.6))
    for line, (name, (points, path, times)) in zip(axes, runs.items()):
        low, high = float(points.min()) - 2, float(points.max()) + 2
        for axis, step in zip(line, times):
            x, y, E = on_grid(path[step], low, high)
            mine = territory(E)
            axis.contourf(x, y, mine, [-0.5, 0.5, 1.5, 2.5], colors=FILLS)
            for j in np.flatnonzero(np.bincount(mine.ravel()) > 0.03 * mine.size):
                at = x[mine == j].mean(), y[mine == j].mean()
                label(axis, j + 1, at, fontsize=8, weight="bold", zorder=5)
            axis.scatter(*points.T, s=5, c="k", ec="w", lw=0.3)
            axis.plot(0, 0, "k+", ms=7)
            axis.set(**PLAIN, xlim=(low, high), ylim=(low, high), title=f"{step} steps")
        line[0].set_ylabel(name)
    return fig


def territory(E):
    """The unit of lowest energy, (..., K) -> (...)."""
    return np.asarray(E).argmin(-1)


def edge_line(axis, theta, **look):
    """The line on which w x + b = 0, for theta = (w1, w2, b)."""
    w, bias = np.asarray(theta[:2]), float(theta[2])
    axis.axline(-bias / (w @ w) * w, -bias / (w @ w) * w + [-w[1], w[0]], **look)


def on_grid(theta, low, high):
    """x and y (n, n) of the points of a square, and w x + b there (n, n, K), for theta (K, 3)."""
    x, y = np.meshgrid(*2 * [np.linspace(low, high, 381)])
    return x, y, np.stack([x, y, np.ones_like(x)], -1) @ np.asarray(theta).T


def identity_figure(sets, paths):
    """sets: {name: (gradient, r)}; paths: [(EM, descent)], a start each, (steps, K, D)."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(ONE, 1.7))
    dots = {"lw": 0.5, "rasterized": True}
    for (name, (gradient, r)), marker in zip(sets.items(), "o+"):
        a.scatter(r.cpu(), gradient.cpu(), s=4, marker=marker, label=name, **dots)
    a.legend(handletextpad=-0.4, borderpad=-0.2, loc="lower right", frameon=False)
    for moves in paths:
        b.scatter(*(path[1] - path[0] for path in moves), s=3, color="C0", **dots)
    for axis in (a, b):
        axis.axline((0.1, 0.1), (0.2, 0.2), color=GREY, lw=0.6, zorder=0)
    ticks, limits = dict.fromkeys(("xticks", "yticks"), [1e-8, 1e-4, 1]), (1e-9, 3)
    ticks |= {"xlim": limits, "ylim": limits, "aspect": "equal"}
    frame(a, "(a) E-step", "responsibility r", "gradient dL/dE", log="xy", **ticks)
    frame(b, "(b) M-step", "move, EM", "move, descent", aspect="equal")
    return fig
