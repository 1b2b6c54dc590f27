"""Notebook 1's figures: each function takes what it shows and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch

from lab.plots import GREY, ONE, TWO, label

ALT = {
    "1_theorem_toy": "Three clusters of points, twice. Left: from three starts the means move to "
    "the three centres; the dots of descent on the log-sum-exp lie inside the circles of EM at "
    "every step. Right: without the denominator two of the means end at the same cluster, one at "
    "another, and the third cluster has none.",
    "1_theorem_relu": "Left: the energy of one unit is zero on a half-plane and rises beyond its "
    "edge. Middle: three units, each with an arrow w that points at a cluster; bars beside each "
    "cluster show that this unit has the least responsibility there. Right: three trained rows; "
    "the digits on which each unit is most active look like its row, those on which it is silent "
    "do not.",
    "1_theorem_collapse": "The three clusters on coloured ground: which of three units has the "
    "lowest energy, at four times. Above, raw points: one colour comes to cover every point. "
    "Below, centred points: each unit keeps a sector with one cluster.",
    "1_theorem": "Left: gradient against responsibility lies on the identity line over many "
    "decades. Right: the moves of all means in one step lie on the identity line with EM's.",
}
FILLS = ["#3b76ab", "#e3a64e", "#cdeadf"]  # the units' blue, orange and green; dark to light
DOTS = {"s": 5, "c": "k", "ec": "w", "lw": 0.3}


def toy_figure(points, em, descent, without):
    """Points (N, 2), and the means along three paths (steps, 3, 2)."""
    fig, axes = plt.subplots(1, 2, figsize=(ONE, 1.8))
    for axis, path in zip(axes, (descent, without)):
        axis.scatter(*points.T, s=4, lw=0, c="0.8")
        for j, colour in enumerate(sns.color_palette()[:3]):
            axis.plot(*path[:, j].T, ".-", color=colour, lw=1, ms=4)
            axis.plot(*path[0, j], "x", color="k", ms=5, mew=1)
            if axis is axes[0]:
                axis.plot(*em[1:, j].T, "o", mfc="none", mec="k", ms=6, mew=0.6)
        axis.set(xticks=[], yticks=[], aspect="equal", xlim=(0.6, 10.4), ylim=(0.4, 9.9))
    label(axes[0], "circles: EM", (2.5, 9.1))
    label(axes[1], "two meet", (4.5, 1.3))
    label(axes[1], "nobody", (8, 3))
    axes[0].set_title("(a) log-sum-exp")
    axes[1].set_title("(b) no denominator")
    return fig


def half_planes_figure(points, cluster, theta, r, layer, x, most):
    """Three units relu(w x + b) of the plane, theta (3, 3) of rows (w, b); points (N, 2), the
    cluster of each (N,) and responsibilities r (N, 3). Then rows of a layer trained on x (N, D),
    beside inputs on which its first units are most active, of most (10, K), and silent ones."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 2.1), width_ratios=[1, 1, 1.65])
    colours, view = sns.color_palette()[:3], {"xlim": (-1.15, 12.15), "ylim": (-1.5, 11.8)}
    u, v, z = on_grid(theta, -2, 13)
    a.contourf(u, v, z[..., 2], np.arange(0, 9, 0.75), cmap="Greys", vmin=0, vmax=13)
    edge_line(a, theta[2], color="k", lw=1)
    a.text(-0.7, 10.9, "E > 0: active, rejects", va="top", fontsize=7)
    a.text(5.5, -0.9, "E = 0: silent, claims", ha="center", fontsize=7)
    for axis in (a, b):
        axis.scatter(*points.T, s=3, lw=0, c="k" if axis is a else "0.65")
        axis.set(xticks=[], yticks=[], aspect="equal", **view)
    for j, left, base in zip(range(3), (0.6, 8.6, 4.6), (-0.3, -0.3, 10.2)):
        colour, w = colours[j], theta[j, :2]
        edge_line(b, theta[j], color=colour, lw=1.2)
        foot = points.mean(0) - (w @ points.mean(0) + theta[j, 2]) / w.square().sum() * w
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
        b.annotate("", foot + 1.7 * w, foot, arrowprops=arrow)
        label(b, f"$w_{j + 1}$", foot + 2.2 * w, color=0.7 * np.array(colour), fontsize=8)
        shares = 2.5 * np.asarray(r[cluster == j].mean(0))
        b.bar(left + 0.9 * np.arange(3), shares, 0.7, base, color=colours, ec="k", lw=0.4)
        for k in range(3):
            label(b, f"{k + 1}", (left + 0.9 * k, base - 0.5), fontsize=6)
    left, n, m = 0, 4, 3
    silent = [(layer(x)[:, j] == 0).nonzero()[7 * j : 7 * j + m, 0] for j in range(n)]
    groups = {"row": layer.W[:n, None].detach(), "most active": x[most[:m, :n].T]}
    groups["silent"] = x[torch.stack(silent)]
    for name, group in groups.items():
        look = {"cmap": "RdBu_r" if name == "row" else "Greys", "interpolation": "nearest"}
        for i, images in enumerate(group):
            for k, image in enumerate(images.cpu()):
                high = image.abs().quantile(0.99)
                extent = (left + k, left + k + 0.95, -i - 0.95, -i)
                low = -high if name == "row" else 0
                c.imshow(image.view(28, 28), vmin=low, vmax=high, extent=extent, **look)
        c.text(left + group.shape[1] / 2, 0.15, name, ha="center", fontsize=7)
        left += group.shape[1] + 0.3
    c.set(xlim=(0, 2 * m + 1.6), ylim=(-n, 0.6), xticks=[], yticks=[])
    sns.despine(ax=c, left=True, bottom=True)
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
            axis.scatter(*points.T, **DOTS)
            axis.plot(0, 0, "+", color="k", ms=7, mew=1)
            axis.set(xlim=(low, high), ylim=(low, high), xticks=[], yticks=[], aspect="equal")
            axis.set_title(f"{step} steps" if step else "start")
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
    for (name, (gradient, r)), marker in zip(sets.items(), "o+"):
        look = {"s": 4, "marker": marker, "lw": 0.5, "rasterized": True}
        a.scatter(r.cpu().ravel(), gradient.cpu().ravel(), label=name, **look)
    a.legend(markerscale=1.3, handletextpad=-0.4, borderpad=-0.2, loc="lower right", frameon=False)
    a.set(xscale="log", yscale="log", xlim=(1e-9, 3), ylim=(1e-9, 3), aspect="equal")
    a.set(xlabel="responsibility r", ylabel="gradient dL/dE", title="(a) E-step")
    a.set(xticks=[1e-8, 1e-4, 1], yticks=[1e-8, 1e-4, 1])
    for moves in paths:
        em, descent = ((path[1] - path[0]).ravel() for path in moves)
        b.scatter(em, descent, s=3, lw=0, color="C0", rasterized=True)
    b.set(xlabel="move, EM", ylabel="move, descent", title="(b) M-step", aspect="equal")
    b.locator_params(nbins=3)
    for axis in (a, b):
        axis.axline((0.1, 0.1), (0.2, 0.2), color=GREY, lw=0.6, zorder=0)
    sns.despine(fig)
    return fig
