"""One function a figure: each takes what it shows and returns a matplotlib figure.

All are exactly one column (3.3 in) or two (6.9 in) wide, colour-blind safe, readable in grey.
"""

import matplotlib.patheffects
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch

from helpers import correlation, usage

ONE, TWO = 3.3, 6.9  # inches: a column of a journal, and two
GREY = "0.45"


def style():
    """One look for all figures."""
    sizes = {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "legend.fontsize": 7}
    lines = {"axes.linewidth": 0.6, "lines.linewidth": 1.2}
    for axis in "xy":
        sizes[f"{axis}tick.labelsize"] = 7
        lines |= {f"{axis}tick.major.width": 0.6, f"{axis}tick.minor.width": 0.4}
        lines |= {f"{axis}tick.major.size": 3, f"{axis}tick.minor.size": 1.5}
    output = {"figure.dpi": 130, "savefig.dpi": 300, "pdf.fonttype": 42}
    layout = {"figure.constrained_layout.use": True, "axes.titlelocation": "left"}
    sns.set_theme("paper", "ticks", "colorblind", rc=sizes | lines | output | layout)


def label_ends(axis, ends, gap=8):
    """Write names {name: (x, y, colour)} beside the ends of lines, and above one another where
    they would overlap; `gap` is a line's height in points."""
    axis.figure.canvas.draw()  # the scales must be known
    points, placed, (low, high) = axis.figure.dpi / 72, [], axis.get_ylim()
    for name, (x, y, colour) in sorted(ends.items(), key=lambda item: item[1][1]):
        if not low <= y <= high:  # outside of the picture
            continue
        left, height = axis.transData.transform((x, y)) / points
        right, at = left + 4.5 * len(name), height
        for a, b, other in placed:  # from below
            if left < b and a < right and at < other + gap:
                at = other + gap
        placed.append((left, right, at))
        look = {"fontsize": 7, "color": colour, "va": "center", "annotation_clip": False}
        axis.annotate(name, (x, y), (5, at - height), textcoords="offset points", **look)


# --- Notebook 1 ---------------------------------------------------------------------------

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


def label(axis, text, at, **look):
    """Write a text at a point, on a white rim that keeps it from lines and dots behind it."""
    rim = [matplotlib.patheffects.withStroke(linewidth=2, foreground="w")]
    rim = {"path_effects": rim, "clip_on": True}
    look = {"ha": "center", "va": "center", "fontsize": 7} | rim | look
    axis.text(*np.asarray(at), text, **look)


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


# --- Notebook 2 ---------------------------------------------------------------------------

TERMS = {"A": "log-sum-exp", "B": "+ variance", "C": "+ decorrelation", "D": "C, no log-sum-exp"}
LINES = {"A": ("C0", "-."), "B": ("C1", "--"), "C": ("k", "-"), "D": ("C3", ":"), "V": ("C2", "-")}
SMALL = {"textcoords": "offset points", "fontsize": 7}
WIDE = {"color": "0.6", "lw": 3, "alpha": 0.5, "zorder": 0, "solid_capstyle": "butt"}


def shades(values):
    """A colour for each of the values, dark to light, however many there are."""
    values = sorted(set(values))
    return dict(zip(values, plt.get_cmap("viridis")(np.linspace(0.05, 0.7, len(values)))))


def ablation_figure(energies, beginning, trained, seed, steps):
    """Correlations and usage of energies {(config, seed): (N, K)}, and what was seen in training.

    beginning, trained: {(config, seed): (model, {name: values})}, seen before every step, and
    after every epoch of `steps`. Of one seed.
    """
    energies = {config: E for (config, s), E in energies.items() if s == seed}
    fig = plt.figure(figsize=(TWO, 3.9))
    upper, lower = fig.subfigures(2, 1, height_ratios=[1, 1])
    shown = {config: E for config, E in energies.items() if config in TERMS}
    for axis, (config, E) in zip(upper.subplots(1, len(shown)), shown.items()):
        R = correlation(E.double()).cpu().abs()
        axis.set(xticks=[], yticks=[], title=f"{config}: {TERMS[config]}", xlabel="unit")
        if R.diagonal().any():
            order = cluster_order(R)
            image = axis.imshow(R[order][:, order], cmap="Greys", vmin=0, vmax=1)
        else:
            axis.text(0.5, 0.5, "no unit varies:\nundefined", ha="center", va="center", size=7)
            axis.set_box_aspect(1)
    upper.colorbar(image, ax=upper.axes, shrink=0.7, label="|correlation|", aspect=12)
    a, b, c = lower.subplots(1, 3)
    for axis, name in ((a, "L0"), (b, "redundancy")):
        ends = {}
        for config in energies:
            colour, ls = LINES[config]
            begin, then = (run[config, seed][1][name] for run in (beginning, trained))
            at = np.r_[1 + np.arange(len(begin)), 1 + steps * (1 + np.arange(len(then)))]
            y = np.r_[begin, then]
            axis.plot(at, y, color=colour, ls=ls, lw=0.9)
            if np.isfinite(y[-1]):
                below = 5 if (name, config) == ("L0", "B") else 0  # where C goes on
                ends[config] = at[-1], y[-1] - below, colour
        axis.set(xlabel="step", xscale="log")
        if name == "redundancy":
            axis.set(yscale="log", ylim=(1, None))
        label_ends(axis, ends)
    ends = {}
    for config, E in shown.items():
        colour, ls = LINES[config]
        share, at = np.sort(usage(E).cpu())[::-1], 1 + np.arange(E.shape[1])
        c.plot(at, share, color=colour, ls=ls, lw=0.9)
        ends[config] = at[-1], share[-1], colour
    c.set(xlabel="unit, by usage", xlim=(1, None), ylim=(0, None))
    label_ends(c, ends)
    a.set_title("(a) L0: active units")
    b.set_title("(b) redundancy")
    c.set_title("(c) usage: mean responsibility")
    sns.despine(lower)
    return fig


def price_figure():
    """What an energy costs: under the log-sum-exp, under an L1 penalty, and where it is counted."""
    fig, axis = plt.subplots(figsize=(ONE, 1.9))
    E = np.linspace(0, 3, 300)
    axis.plot(E, 1 - np.exp(-E), "k")
    axis.plot(E, 1 - np.exp(-10 * E), "k", lw=0.7)
    axis.plot(E, E, color="C0", ls="--")
    axis.plot([0, 3], [1, 1], color="C1", ls=":")
    axis.plot(0, 0, "o", color="C1", ms=3, clip_on=False)
    axis.plot(0, 1, "o", mfc="w", mec="C1", ms=3.5, clip_on=False, zorder=5)
    axis.text(1.25, 1.33, "L1: E", color="C0", fontsize=7, ha="right", va="bottom")
    axis.text(1.1, 0.6, "log-sum-exp: $1 - e^{-E}$", fontsize=7, va="top")
    axis.text(0.03, 1.05, "all energies × 10", fontsize=7)
    axis.text(3, 1.05, "counted: 1 if E > 0", color="C1", fontsize=7, ha="right")
    axis.set(xlabel="energy E", ylabel="price", xlim=(0, 3), ylim=(0, 1.6))
    sns.despine(fig)
    return fig


def growth_figure(runs, largest):
    """|theta_j|^2 of every unit of the runs of `largest` units, and how fast it grows in each run.

    runs: dicts as of `lab.law.watch`.
    """
    from lab import law

    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.6), width_ratios=[1, 1.25])
    colour = shades([run["lr"] for run in runs])
    of_rate = {run["lr"]: run for run in reversed(runs) if run["K"] == largest}  # the first seed
    for lr, run in of_rate.items():
        alive = law.living(run)
        a.plot(run["tau"][1:], run["norm2"][1:, alive], color=colour[lr], lw=0.4)
        a.plot(run["tau"][1:], run["norm2"][1:, ~alive], color=colour[lr], lw=0.8, ls=":")
        end, last = (run["tau"][-1], np.median(run["norm2"][-1])), lr == max(of_rate)
        at, side = ((-10, 2), "right") if last else ((3, -9), "left")
        a.annotate(f"rate {lr:g}", end, at, ha=side, color=colour[lr], **SMALL)
    tau = np.sort(np.concatenate([run["tau"][1:] for run in of_rate.values()]))
    a.plot(tau, 4 * tau + np.mean([run["norm2"][0] for run in of_rate.values()]), **WIDE)
    a.set(xscale="log", yscale="log", xlabel="τ = rate × steps", ylabel="$|θ_j|^2$ of each unit")
    a.set_title(f"(a) {largest} units")
    rng, order = np.random.default_rng(0), sorted(runs, key=lambda run: (run["K"], run["lr"]))
    for i, run in enumerate(order):
        rise, predicted = law.growth(run)
        at = i + rng.uniform(-0.25, 0.25, len(rise))
        b.plot(at, rise, ".", color=colour[run["lr"]], ms=2.5, mew=0)
        if (alive := law.living(run)).any():
            b.plot([i - 0.4, i + 0.4], [predicted[alive].mean()] * 2, "k", lw=0.9)
    b.set_xticks(range(len(order)), [f"{run['lr']:g}" for run in order], rotation=90)
    sizes = [run["K"] for run in order]
    for k in sorted(set(sizes)):
        first, n = sizes.index(k), sizes.count(k)
        b.text(first + (n - 1) / 2, 4.8, f"{k} units", ha="center", fontsize=7)
        if first:
            b.axvline(first - 0.5, color=GREY, lw=0.5, ls=":")
    b.annotate("dead", (len(order) - 0.5, 0), (0, 5), ha="right", color=GREY, **SMALL)
    b.set(
        ylim=(-0.3, 5.2), xlabel="rate", ylabel="growth of $|θ_j|^2$ per τ", title="(b) every run"
    )
    sns.despine(fig)
    return fig


def law_figure(runs, others):
    """The loss in the logarithm of the clock, and how much it falls in an epoch.

    runs: dicts as of `lab.law.watch`, under SGD; others: {name: losses}.
    """
    from lab import law

    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.8), width_ratios=[1.5, 1])
    colour, ends = shades([run["K"] for run in runs]), {}
    for run in runs:
        loss, k, t = run["loss"], run["K"], law.clock(run)
        half, alive = len(loss) // 2, int(law.living(run).sum())
        a.plot(t, loss, color=colour[k], lw=0.9)
        level = np.mean(loss[half:] + alive * np.log(t[half:]))
        a.plot(t[1:], level - alive * np.log(t[1:]), **WIDE)
        b.plot(t[1:], -np.diff(loss), color=colour[k], lw=0.6)
        b.plot(t[1:], alive / t[1:], **WIDE)
        if epoch := law.converged(loss):
            a.plot(t[epoch], loss[epoch], "o", mfc="w", mec=colour[k], ms=4, mew=0.9, zorder=3)
        name = f"{k} units"
        if name not in ends or loss[-1] > ends[name][1]:  # the highest of its rates
            ends[name] = t[-1], loss[-1], colour[k]
    for name, loss in others.items():
        a.plot(np.arange(len(loss)) + 0.5, loss, color=GREY, lw=0.9, ls=":")
        ends[name] = len(loss), loss[-1], GREY
    a.set(xscale="log", xlabel="epoch t", ylabel="loss, summed over a minibatch")
    a.set_title("(a) the loss")
    label_ends(a, ends, gap=7)
    b.axhline(1, color=GREY, lw=0.6, ls="--")
    b.text(2.2, 0.93, "the test's tolerance", fontsize=7, color=GREY, va="top")
    for k, shade in colour.items():
        b.annotate(f"{k}", (k, 1), (2, 7), color=shade, **SMALL)
    b.set(xscale="log", yscale="log", xlabel="epoch t", ylabel="fall from epoch to epoch")
    b.set(xlim=(2, None), ylim=(0.4, 40), title="(b) its fall")
    sns.despine(fig)
    return fig


def killed_figure(runs, since):
    """|theta|^2 and the loss of {name: run}, dicts as of `lab.law.watch`, from epoch `since` on."""
    from lab import law

    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 1.9))
    ends_a, ends_b = {}, {}
    for (name, run), (colour, ls) in zip(runs.items(), (("k", "-"), ("C3", "--"))):
        t, total = since + np.arange(len(run["tau"])), run["norm2"].sum(1)
        alive, fall = int(law.living(run).sum()), run["loss"] - run["loss"][0]
        a.plot(t, total, color=colour, ls=ls)
        a.plot(t, total[0] + 4 * alive * run["tau"], **WIDE)
        b.plot(law.clock(run, since), fall, color=colour, ls=ls)
        b.plot(t[1:] - 0.5, -alive * np.log((t[1:] - 0.5) / (t[1] - 0.5)), **WIDE)
        label = f"{name}: {alive} living"
        ends_a[label], ends_b[name] = (t[-1], total[-1], colour), (t[-1] - 0.5, fall[-1], colour)
    a.set(xlabel="epoch t", ylabel="$|θ|^2$", title="(a) the scale")
    b.set(xscale="log", xlabel="epoch t", ylabel="change of the loss", title="(b) the loss")
    ticks = [tick for tick in (5, 7, 10, 15, 20, 30, 50) if since <= tick <= t[-1]]
    b.set_xticks(ticks, ticks)
    b.xaxis.set_minor_formatter(plt.NullFormatter())
    label_ends(a, ends_a)
    label_ends(b, ends_b)
    sns.despine(fig)
    return fig


def ends_figure(runs, floor):
    """Loss and |theta|^2 of {name: run}, dicts as of `lab.law.watch`, and a bound on the loss."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 1.9))
    ends_a, ends_b = {}, {}
    for (name, run), (colour, ls) in zip(runs.items(), (("C2", "-"), ("k", "-."))):
        t, total = np.arange(len(run["tau"])), run["norm2"].sum(1)
        a.plot(t[1:], run["loss"], color=colour, ls=ls)
        b.plot(t[1:], total[1:], color=colour, ls=ls)
        ends_a[name], ends_b[name] = (t[-1], run["loss"][-1], colour), (t[-1], total[-1], colour)
    a.axhline(floor, color="C2", lw=0.8, ls=":")
    a.annotate("floor", (1, floor), (2, 3), textcoords="offset points", fontsize=7, color="C2")
    a.set(xscale="log", xlabel="epoch t", ylabel="loss", title="(a) the loss")
    b.set(xscale="log", yscale="log", xlabel="epoch t", ylabel="$|θ|^2$", title="(b) the scale")
    label_ends(a, ends_a)
    label_ends(b, ends_b)
    sns.despine(fig)
    return fig


def cluster_order(R):
    """Order of units that puts correlated ones side by side; R (K, K)."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - np.abs(np.asarray(R))
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance, checks=False), "average"))


# --- Notebook 3 ---------------------------------------------------------------------------


def tiles(axis, W, columns):
    """Rows of W (n, D) as square pictures, each with its own symmetric scale; red is positive."""
    W = torch.as_tensor(W).detach().cpu().float()
    W = W / W.abs().quantile(0.99, dim=1, keepdim=True).clamp_min(1e-12)  # edges may be extreme
    side, n = round(W.shape[1] ** 0.5), -(-len(W) // columns) * columns
    sheet = torch.zeros(n, side + 2, side + 2)
    sheet[: len(W), 1:-1, 1:-1] = W.view(-1, side, side)
    image = sheet.view(-1, columns, side + 2, side + 2).permute(0, 2, 1, 3)
    image = image.reshape(-1, columns * (side + 2))
    axis.imshow(image, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    sns.despine(ax=axis, left=True, bottom=True)


def digit_figure(x, E, r, W, x_hat, n=7):
    """One picture x (D,) followed: energies E and responsibilities r (K,), up to n rows of W (K, D)
    that reject it, and what Wᵀ makes of its code, x_hat (D,)."""
    order = torch.argsort(E, descending=True)
    fig = plt.figure(figsize=(TWO, 2.7))
    upper, lower = fig.subfigures(2, 1, height_ratios=[1.5, 1])
    a, b = upper.subplots(1, 2)
    units, active = np.arange(len(E)), int((E > 0).sum())
    a.bar(units, E[order], width=1, color="C3", linewidth=0)
    a.set(
        xlabel="unit, by energy",
        ylabel="energy E",
        title=f"(a) {active} of {len(E)} units reject it",
    )
    b.bar(units, r[order], width=1, color="0.5", linewidth=0)
    b.set(xlabel="unit, by energy", ylabel="responsibility r", title="(b) the silent ones claim it")
    sns.despine(fig)
    axes = lower.subplots(1, n + 2)
    for axis, image, title in ((axes[0], x, "input"), (axes[-1], x_hat, "by Wᵀ")):
        axis.imshow(image.view(28, 28), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, loc="center")
    for i, axis in enumerate(axes[1:-1]):
        axis.axis("off")
        if i < active:
            tiles(axis, W[order[i]][None], 1)
            axis.set_title(f"E = {E[order[i]]:.1f}", loc="center")
    return fig


def decoder_figure(pairs, n=3):
    """pairs: {title: (W, V)}: n rows of W, each beside its row of the best decoder V."""
    fig, axes = plt.subplots(1, len(pairs), figsize=(TWO, 2.6))
    for axis, (title, (W, V)) in zip(axes, pairs.items()):
        tiles(axis, torch.stack([W[:n], V[:n]], 1).flatten(0, 1), 2)
        axis.set_title(title, loc="center")
        axis.set_xlabel("$W_j$ | solved $V_j$")
    return fig


def units_figure(rows, columns=4):
    """rows: {title: (n, D)}: units as pictures, the title over each group."""
    fig, axes = plt.subplots(2, 2, figsize=(TWO, 4.1))
    for axis, (title, W) in zip(axes.flat, rows.items()):
        tiles(axis, W, columns)
        axis.set_title(title, loc="center")
    return fig


def benchmark_figure(table, looks, lines):
    """Variance explained against L0 by Wᵀ or an SAE's own decoder, and by the solved one.

    table: a row a model; looks: {method: (colour, marker, line)}; lines: {name: (L0s, variance
    explained)}, thin, in the panel of solved decoders.
    """
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 2.7), sharey=True)
    for axis, column in zip(axes, ("transpose", "solved")):
        ends = {}
        for method, (colour, marker, ls) in looks.items():
            rows = table[table.method == method]
            axis.scatter(rows.l0, rows[column], s=3, color=colour, alpha=0.35, lw=0)
            means = rows.groupby("setting")[["l0", column]].mean().sort_values("l0")
            face = {"mfc": colour if method == "bounded" else "w", "ms": 4, "mew": 0.8}
            axis.plot(means.l0, means[column], marker + ls, color=colour, lw=0.9, **face)
            ends[method] = means.l0.iloc[-1], means[column].iloc[-1], colour
        for name, (l0s, values) in lines.items() if column == "solved" else ():
            axis.plot(l0s, values, "-", color=GREY, lw=0.6)
            axis.annotate(
                name,
                (l0s[1], values[1]),
                (4, -5),
                textcoords="offset points",
                fontsize=7,
                color=GREY,
                va="center",
            )
        _log_l0(axis)
        right = max(end[0] for end in ends.values())
        label_ends(axis, {name: (right, *end[1:]) for name, end in ends.items()})
    axes[0].set(ylabel="variance explained", title="(a) by Wᵀ, or an SAE's own decoder")
    axes[1].set(title="(b) solved for afterwards")
    sns.despine(fig)
    return fig


def _log_l0(axis):
    ticks = [
        t for t in (2, 3, 5, 7, 10, 15, 20, 30, 50) if axis.get_xlim()[0] < t < axis.get_xlim()[1]
    ]
    axis.set(xscale="log", xlabel="L0: active units per input")
    axis.set_xticks(ticks, ticks)
    axis.xaxis.set_minor_formatter(plt.NullFormatter())


def dots_figure(shares, controls):
    """How much of its code Wᵀ reads: dots, one a seed.

    shares: {"objective | optimiser | inputs": values}; controls: {"what | optimiser": values}.
    """
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.6), width_ratios=[1.4, 1], sharex=True)
    looks = {"Adam | raw": ("C1", "o"), "Adam | centred": ("C1", "s")}
    looks |= {"SGD | raw": ("C0", "o"), "SGD | centred": ("C0", "s")}
    order = {how: i for i, how in enumerate(looks)}
    for axis, found in ((a, shares), (b, {f"{key} | raw": v for key, v in controls.items()})):
        rows = list(dict.fromkeys(key.partition(" | ")[0] for key in found))
        for key, values in found.items():
            row, _, how = key.partition(" | ")
            colour, marker = looks[how]
            height = np.full(len(values), rows.index(row) + 0.17 * (order[how] - 1.5))
            face = colour if how.endswith("raw") else "w"
            axis.plot(values, height, marker, color=colour, ms=3.5, mew=0.8, mfc=face)
            if axis is a and row == rows[0] and len(values):
                right = np.mean(values) < 0.4
                axis.annotate(
                    how.replace(" | ", ", "),
                    ((max if right else min)(values), height[0]),
                    (6 if right else -6, 0),
                    textcoords="offset points",
                    fontsize=6.5,
                    color=colour,
                    ha="left" if right else "right",
                    va="center",
                )
        axis.set(yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.5))
        axis.tick_params(axis="y", length=0)
        for i in range(1, len(rows)):
            axis.axhline(i - 0.5, color="0.85", lw=0.5)
        axis.set(xlabel="share of its code that Wᵀ reads", xlim=(0, 1))
    a.set_title("(a) four objectives")
    b.set_title("(b) published form, raw: controls")
    sns.despine(fig)
    return fig


def limits_figure(values, looks, D):
    """Variance explained at one L0 against the number of units per input.

    values: {(method, column): {K: values of seeds}}; looks: {method: (colour, marker, line)}.
    """
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 2.6), sharey=True)
    titles = {
        "transpose": "(a) by Wᵀ, or an SAE's own decoder",
        "solved": "(b) solved for afterwards",
    }
    for axis, (column, title) in zip(axes, titles.items()):
        ends = {}
        for (method, which), by_k in values.items():
            if which != column:
                continue
            colour, marker, ls = looks[method]
            ratios = [k / D for k in by_k]
            means = [np.mean(v) if len(v) else np.nan for v in by_k.values()]
            for ratio, v in zip(ratios, by_k.values()):
                axis.plot(np.full(len(v), ratio), v, ".", color=colour, ms=2, alpha=0.4)
            axis.plot(
                ratios,
                means,
                marker + ls,
                color=colour,
                lw=0.9,
                ms=4,
                mew=0.8,
                mfc=colour if method == "bounded" else "w",
            )
            ends[method] = ratios[-1], means[-1], colour
        axis.set(xscale="log", xlabel="units per input, K / D", title=title)
        axis.set_xticks(ratios, [f"{r:g}" for r in ratios])
        axis.xaxis.set_minor_locator(plt.NullLocator())
        label_ends(axis, ends)
    axes[0].set_ylabel("variance explained at L0 10")
    sns.despine(fig)
    return fig
