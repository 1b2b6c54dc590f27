"""Notebook 1's figures: each function takes what it shows and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from lab.plots import GREY, ONE, TWO, label

ALT = {
    "1_theorem_toy": "Three clusters of points. From three starts the means move to the clusters' "
    "centres: the dots of descent on the log-sum-exp lie inside the circles of EM at every step. "
    "With one step size for all means, descent takes other points to the same centres.",
    "1_theorem_relu": "Left: the energy of one unit is zero on a half-plane and rises beyond its "
    "edge. Middle: three units, each with an arrow w that points at a cluster; bars beside each "
    "cluster show that this unit has the least responsibility there. Right: exp(-relu(z)) is 1 for "
    "z below 0, and falls beyond.",
    "1_theorem_collapse": "The same three clusters three times. Left: circles around them grow "
    "until they leave the picture. Middle: the edge of one unit's territory sweeps over all points."
    " Right: the edges of three units leave the points, which then lie where all units are silent.",
    "1_theorem": "Left: gradient against responsibility lies on the identity line over many "
    "decades. Right: the moves of all means in one step lie on the identity line with EM's.",
}


def toy_figure(points, em, descent, fixed):
    """Points (N, 2), and the means along the paths em, descent and fixed (steps, 3, 2)."""
    fig, axis = plt.subplots(figsize=(ONE, 3.1))
    axis.scatter(*points.T, s=4, lw=0, c="0.8")
    for j, colour in enumerate(sns.color_palette()[:3]):
        axis.plot(
            *fixed[:, j].T, "+:", color="k", lw=0.8, ms=5, mew=0.7, markevery=range(1, len(fixed))
        )
        axis.plot(*descent[:, j].T, ".-", color=colour, lw=1, ms=4)
        axis.plot(*em[1:, j].T, "o", mfc="none", mec="k", ms=7, mew=0.7)
        axis.plot(*em[0, j], "x", color="k", ms=5, mew=1)
    looks = {
        "EM, by scikit-learn": {"ls": "", "marker": "o", "mfc": "none", "ms": 7, "mew": 0.7},
        "descent, a step size for each mean": {"marker": ".", "ms": 4, "lw": 1},
        "descent, one step size": {"ls": ":", "marker": "+", "ms": 5, "mew": 0.7, "lw": 0.8},
        "start": {"ls": "", "marker": "x", "ms": 5, "mew": 1},
    }
    lines = [plt.Line2D([], [], color="k", label=name, **look) for name, look in looks.items()]
    fig.legend(handles=lines, loc="outside lower left", frameon=False)
    axis.set(xticks=[], yticks=[], aspect="equal")
    return fig


def half_planes_figure(points, cluster, theta, r):
    """Three units relu(w x + b), theta (3, 3) of rows (w, b); points (N, 2), the cluster of each
    (N,), and the responsibilities r (N, 3) of the units."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 2.3), width_ratios=[1, 1, 1.05])
    colours, view = sns.color_palette()[:3], {"xlim": (-1.15, 12.15), "ylim": (-1.5, 11.8)}
    x, y, z = on_grid(theta, -2, 13)
    a.contourf(x, y, z[..., 2], np.arange(0, 9, 0.75), cmap="Greys", vmin=0, vmax=13)
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
    z = np.linspace(-3, 3, 200)
    c.plot(z, np.exp(-np.maximum(z, 0)), color="k")
    c.plot(z, np.maximum(z, 0), color=GREY, ls="--")
    c.text(-3, 1.1, "exp(−E)", fontsize=7)
    c.text(1.7, 2.1, "E = relu(z)", fontsize=7, color=GREY, ha="right")
    c.set(xlabel="pre-activation z", ylim=(0, 3), yticks=range(4))
    a.set_title("(a) one unit")
    b.set_title("(b) three units: who claims?")
    c.set_title("(c) no density")
    sns.despine(ax=c)
    return fig


def collapse_figure(points, widths, signed, relu):
    """Runs on points (N, 2), {step: theta (3, 3)} of each; rows (mean, log width) or (w, b)."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 2.4))
    colours, low, high = sns.color_palette()[:3], -4, 15
    for axis in (a, b, c):
        axis.scatter(*points.T, s=3, lw=0, c="0.65")
        axis.plot(0, 0, "+", color="k", ms=5, mew=0.7)
        axis.set(xlim=(low, high), ylim=(low, high), xticks=[], yticks=[], aspect="equal")
    for (step, theta), lw in zip(widths.items(), np.linspace(0.5, 1.6, len(widths))):
        for (*mean, log_width), colour in zip(np.asarray(theta), colours):
            a.add_patch(plt.Circle(mean, np.exp(log_width), fill=False, ec=colour, lw=lw))
        (*mean, log_width), turn = np.asarray(theta[1]), np.deg2rad(200)
        label(a, step, mean + np.exp(log_width) * np.array([np.cos(turn), np.sin(turn)]))
    *_, (x, y, E) = (on_grid(theta, low, high) for theta in signed.values())
    won = np.bincount(E.argmin(-1).ravel()).argmax()
    for (step, theta), lw in zip(signed.items(), np.linspace(0.5, 1.6, len(signed))):
        x, y, E = on_grid(theta, low, high)
        lead = np.delete(E, won, -1).min(-1) - E[..., won]
        b.contour(x, y, lead, [0], colors=[colours[won]], linewidths=lw)
        border = [(i, -12) for i in range(380, 12, -1)] + [(12, j) for j in range(368, 0, -1)]
        i, j = next(((i, j) for i, j in border if lead[i, j] < 0), (12, 12))
        label(b, step, (x[i, j], y[i, j]))
    b.contourf(x, y, lead, [0, np.inf], colors=[colours[won]], alpha=0.12)
    for (step, theta), lw in zip(relu.items(), np.linspace(0.5, 1.6, len(relu))):
        for j, colour in enumerate(colours):
            edge_line(c, theta[j], color=colour, lw=lw)
        (w1, w2, bias), left, top = theta[0].tolist(), low + 1.3, high - 0.7
        height = -(w1 * left + bias) / w2
        label(c, step, (left, height) if height < top else (-(w2 * top + bias) / w1, top))
    x, y, E = on_grid(theta, low, high)
    c.contourf(x, y, E.max(-1), [-np.inf, 0], colors=["0.93"], zorder=0)
    label(c, "all silent", (11.5, 6.5))
    a.set_title("(a) free widths: they swell")
    b.set_title("(b) signed: one takes all")
    c.set_title("(c) ReLU: the edges leave")
    return fig


def edge_line(axis, theta, **look):
    """The line on which w x + b = 0, for theta = (w1, w2, b)."""
    w, bias = np.asarray(theta[:2]), float(theta[2])
    axis.axline(-bias / (w @ w) * w, -bias / (w @ w) * w + [-w[1], w[0]], **look)


def on_grid(theta, low, high):
    """x and y (n, n) of the points of a square, and w x + b there (n, n, K), for theta (K, 3)."""
    x, y = np.meshgrid(*2 * [np.linspace(low, high, 381)])
    return x, y, np.stack([x, y, np.ones_like(x)], -1) @ np.asarray(theta).T


def identity_figure(sets, paths):
    """sets: {name: (gradient, r, ...)}; paths: [(EM, descent)], a start each, (steps, K, D)."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(ONE, 1.7))
    for (name, (gradient, r, *_)), marker in zip(sets.items(), "o+"):
        look = {"s": 4, "marker": marker, "lw": 0.5, "rasterized": True}
        a.scatter(r.cpu().ravel(), gradient.cpu().ravel(), label=name, **look)
    a.legend(markerscale=1.3, handletextpad=-0.4, borderpad=0, loc="upper left", frameon=False)
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
