"""Notebook 2's figures: each function takes what it shows and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from helpers import correlation
from lab import law
from lab.plots import GREY, ONE, SMALL, TWO, WIDE, label_ends, shades

ALT = {
    "2_ablation": "Correlation matrices: undefined for A, blocks of copies for B, nearly diagonal "
    "for C and D. Below: active units fall to none in A, settle near 17 in B and C, near 60 in D "
    "and V; redundancy is high in V and B, low in C and D.",
    "2_ablation_cut": "Left: redundancy against the weight of decorrelation: with the batch's mean "
    "it is nearly twice that with own denominators at weight 0, and the curves meet. Right: units "
    "agree nearly perfectly with those of the cut, far less with another order of the data.",
    "2_ablation_price": "The price of an energy: 1 - exp(-E) rises from 0 and saturates at 1; ten "
    "times the energies make it nearly a step; an L1 penalty rises without end.",
    "2_ablation_scale": "The squared norm of all weights grows without end; L0 becomes level.",
    "2_ablation_growth": "The squared norm of each unit's weights against rate times steps: at "
    "three rates all living units lie on one line, 4 tau; dead ones stay where they are.",
    "2_ablation_law": "Left: loss against the logarithm of the epoch: straight lines of slope "
    "minus the number of living units. Right: the epoch at which the author's test stops a run, "
    "against K over its tolerance: all on one line, the paper's four runs among them.",
    "2_ablation_killed": "After half of the units are killed by hand the squared norm of all "
    "weights grows half as fast as in the twin that goes on.",
    "2_ablation_ends": "With the prior the loss and the squared norm of the weights become flat, "
    "above the floor; without it the loss falls on and the norm grows.",
}

TERMS = {"A": "log-sum-exp", "B": "+ variance", "C": "+ decorrelation", "D": "C, no log-sum-exp"}
LINES = {"A": ("C0", "-."), "B": ("C1", "--"), "C": ("k", "-"), "D": ("C3", ":"), "V": ("C2", "-")}


def ablation_figure(energies, beginning, trained, seed, steps):
    """Correlations of energies {(config, seed): (N, K)}, and what was seen in training.

    beginning, trained: {(config, seed): (model, {name: values})}, seen after every step of one
    run, and after every epoch of `steps` of another: they are not joined. Of one seed.
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
    a, b = lower.subplots(1, 2)
    for axis, name in ((a, "L0"), (b, "redundancy")):
        ends = {}
        for config in energies:
            colour, ls = LINES[config]
            begin, then = (run[config, seed][1][name] for run in (beginning, trained))
            at = steps * (1 + np.arange(len(then)))
            axis.plot(1 + np.arange(len(begin)), begin, color=colour, ls=ls, lw=0.9)
            axis.plot(at, then, color=colour, ls=ls, lw=0.9)
            if np.isfinite(then[-1]):
                aside = {("L0", "B"): -5, ("redundancy", "D"): 40}  # of C, which goes on
                ends[config] = at[-1], then[-1] + aside.get((name, config), 0), colour
        axis.set(xlabel="step", xscale="log")
        if name == "redundancy":
            axis.set(yscale="log", ylim=(1, None))
        label_ends(axis, ends)
    a.set_title("(a) L0: active units")
    b.set_title("(b) redundancy")
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


def cut_figure(table, twins):
    """Redundancy against the weight of decorrelation, own denominators and the batch's mean; and
    how far units agree with those of the same run as it was.

    table: as of `lab.cut.table`; twins: agreements after the long run at lambda 1.
    """
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.3), width_ratios=[1, 1.1])
    curve = table[table.lam == 1]
    weights = sorted(curve.weight.unique())
    looks = {"own": ("own denominator", "k-o", (0, -20)), "cut": ("batch's mean", "C1--s", (60, 5))}
    for kind, (name, look, at) in looks.items():
        rows, colour = curve[curve.kind == kind], look.rstrip("-os")
        mean = rows.groupby("weight").redundancy.mean()
        a.plot(range(len(mean)), mean, ls=look[len(colour) : -1], color=colour)
        x = [weights.index(w) for w in rows.weight]
        a.plot(x, rows.redundancy, look[-1], ms=3, mfc="none", mec=colour, mew=0.7)
        a.annotate(name, (0, mean.iloc[0]), at, color=colour, **SMALL)
    a.set_xticks(range(len(weights)), [f"{w:g}" for w in weights])
    a.set(yscale="log", xlabel="weight of decorrelation", title="(a) redundancy")
    a.set_ylim(top=1.6 * curve.redundancy.max())
    kinds = {"start": "start changed by 1e-6", "cut": "batch's mean", "order": "another order"}
    kinds |= {"none": "no log-sum-exp", "own": "another seed"}
    rows = table[(table.weight == 1) & table.agreement.notna()]
    colour, down = shades(rows[rows.kind == "cut"].lam), 0.16
    for (lam, shade), marker in zip(colour.items(), "o^Dvs"):
        for i, kind in enumerate(kinds):
            y = rows[(rows.kind == kind) & (rows.lam == lam)].agreement
            b.plot(y, [i - down] * len(y), marker, ms=3.5, mfc="none", mec=shade)
        b.annotate(f"λ {lam:g}", (y.max(), len(kinds) - 1 - down), (5, -2.5), color=shade, **SMALL)
        down -= 0.32
    b.plot(twins, [1 + down] * len(twins), "kx", ms=3.5)
    b.annotate("λ 1, long run", (min(twins), 1 + down), (-5, -2.5), ha="right", **SMALL)
    b.set_yticks(range(len(kinds)), kinds.values())
    b.set(xlim=(0, 1.03), ylim=(len(kinds) - 0.5, -0.5), xlabel="agreement, 1: the same units")
    b.set_title("(b) units, beside those of the run as it was")
    sns.despine(fig)
    return fig


def scale_figure(runs):
    """|theta|^2 and L0 after each epoch of runs {name: [(norm2, L0) of each seed]}."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.1))
    ends_a, ends_b, colours = {}, {}, shades(runs)
    styles = dict(zip(runs, ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))))
    for name, seeds in runs.items():
        for norm2, L0 in seeds:
            look = {"color": colours[name], "ls": styles.get(name, "-"), "lw": 0.9}
            t = 1 + np.arange(len(L0))
            a.plot(t, norm2, **look)
            b.plot(t, L0, **look)
        ends_a[name], ends_b[name] = ((t[-1], y[-1], colours[name]) for y in (norm2, L0))
    a.set(xscale="log", yscale="log", xlabel="epoch", title="(a) the scale, $|θ|^2$")
    b.set(xscale="log", xlabel="epoch", ylim=(0, None), title="(b) L0: active units")
    label_ends(a, ends_a)
    label_ends(b, ends_b)
    sns.despine(fig)
    return fig


def growth_figure(runs, largest):
    """|theta_j|^2 of every unit of the runs of `largest` units; dicts as of `lab.law.watch`."""
    fig, axis = plt.subplots(figsize=(ONE, 2.4))
    of_rate = {run["lr"]: run for run in reversed(runs) if run["K"] == largest}  # the first seed
    colour, volume = shades(of_rate), runs[0]["volume"]
    for lr, run in of_rate.items():
        alive, look = law.living(run), {"color": colour[lr]}
        axis.plot(run["tau"][1:], run["norm2"][1:, alive], lw=0.4, **look)
        axis.plot(run["tau"][1:], run["norm2"][1:, ~alive], lw=0.8, ls=":", **look)
        end, last = (run["tau"][-1], np.median(run["norm2"][-1])), lr == max(of_rate)
        at, side = ((-10, 2), "right") if last else ((3, -9), "left")
        axis.annotate(f"rate {lr:g}", end, at, ha=side, **look, **SMALL)
    tau = np.sort(np.concatenate([run["tau"][1:] for run in of_rate.values()]))
    start = np.mean([run["norm2"][0] for run in of_rate.values()])
    axis.plot(tau, 4 * volume * tau + start, **WIDE)
    axis.set(xscale="log", yscale="log", xlabel="τ = rate × steps", ylabel="$|θ_j|^2$ of each unit")
    sns.despine(fig)
    return fig


def law_figure(runs, others, stops):
    """The loss in the logarithm of the clock, and where the author's test stops the runs.

    runs: dicts as of `lab.law.watch`, under SGD; others: {name: losses}; stops: `lab.law.stops`.
    """
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.8), width_ratios=[1.35, 1])
    colour, ends = shades([run["K"] for run in runs]), {}
    for run in runs:
        loss, k, t = run["loss"], run["K"], law.clock(run)
        half, slope = len(loss) // 2, run["volume"] * int(law.living(run).sum())
        a.plot(t, loss, color=colour[k], lw=0.9)
        level = np.mean(loss[half:] + slope * np.log(t[half:]))
        a.plot(t[1:], level - slope * np.log(t[1:]), **WIDE)
        if (epoch := law.stop(loss)) is not None:
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
    most = 1.15 * max(64, stops["K / tolerance"].max())
    b.plot([0, most], [0, most], **WIDE)
    for (k, shade), marker in zip(colour.items(), "^so" * len(colour)):
        rows = stops[stops.K == k]
        at = rows["K / tolerance"], rows.smoothed
        b.plot(*at, marker, ms=3.5, mfc="none", mec=shade, mew=0.8)
        b.annotate(f"{k} units", [at[0].max()] * 2, (2, -13), color=shade, **SMALL)
    b.plot([64] * len(law.PUBLISHED_STOPS), law.PUBLISHED_STOPS, "kx", ms=4, mew=0.9)
    b.annotate("the paper's four", (64, max(law.PUBLISHED_STOPS)), (-4, 4), ha="right", **SMALL)
    b.set(xlabel="K / tolerance", ylabel="epoch of the stop", title="(b) where the test stops")
    b.set(xlim=(0, 1.06 * most), ylim=(0, None))
    sns.despine(fig)
    return fig


def pair_figure(runs, lawful, since=0, floor=None):
    """|theta|^2 and the loss of {name: run}, dicts as of `lab.law.watch`, from epoch `since` on;
    the law beside those named in `lawful`; and a bound on the loss."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 1.9))
    ends_a, ends_b = {}, {}
    for (name, run), (colour, ls) in zip(runs.items(), (("k", "-"), ("C3", "--"))):
        t, total, loss = since + np.arange(len(run["tau"])), run["norm2"].sum(1), run["loss"]
        loss = loss - loss[0] if floor is None else loss
        pace = run["volume"] * int(law.living(run).sum())
        a.plot(t, total, color=colour, ls=ls)
        b.plot(t[1:] - 0.5, loss, color=colour, ls=ls)
        if name in lawful:
            a.plot(t, total[0] + 4 * pace * run["tau"], **WIDE)
            clock = law.clock(run, since)
            b.plot(t[1:] - 0.5, loss[-1] - pace * np.log(clock / clock[-1]), **WIDE)
        ends_a[name], ends_b[name] = (t[-1], total[-1], colour), (t[-1] - 0.5, loss[-1], colour)
    if floor is None:
        a.set_ylim(0)
    else:
        b.axhline(floor, color=GREY, lw=0.8, ls=":")
        at = {"xycoords": b.get_yaxis_transform(), "color": GREY, **SMALL}
        b.annotate("the floor, with the prior", (1, floor), (0, 3), ha="right", **at)
        a.set_yscale("log")
    a.set(xlabel="epoch", title="(a) the scale, $|θ|^2$")
    b.set(xlabel="epoch", title="(b) the loss" + ", its change" * (floor is None))
    label_ends(a, ends_a)
    label_ends(b, ends_b)
    sns.despine(fig)
    return fig


def cluster_order(R):
    """Order of units that puts correlated ones side by side; R (K, K)."""
    distance = 1 - np.abs(np.asarray(R))
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance, checks=False), "average"))
