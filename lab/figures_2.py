"""Notebook 2's figures: each function takes what it shows and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from helpers import correlation, usage
from lab import law
from lab.plots import GREY, ONE, SMALL, TWO, WIDE, label_ends, shades

TERMS = {"A": "log-sum-exp", "B": "+ variance", "C": "+ decorrelation", "D": "C, no log-sum-exp"}
LINES = {"A": ("C0", "-."), "B": ("C1", "--"), "C": ("k", "-"), "D": ("C3", ":"), "V": ("C2", "-")}


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
    distance = 1 - np.abs(np.asarray(R))
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance, checks=False), "average"))
