"""Notebook 2's figures: each function takes what it shows and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from scipy.cluster.hierarchy import leaves_list, linkage

from helpers import correlation
from lab import law
from lab.plots import GREY, ONE, SMALL, TWO, WIDE, frame, shades

ALT = {
    "2_ablation": "Correlation matrices: undefined for A, blocks of copies for B, nearly diagonal "
    "for C and D. Below: active units fall to none in A, settle near 17 in B and C, near 60 in D "
    "and V; redundancy is high in V and B, low in C and D.",
    "2_ablation_cut": "Redundancy against decorrelation: nearly twice as high with the batch's "
    "mean at weight 0; then the curves meet. Units agree with those of the cut nearly perfectly.",
    "2_ablation_scale": "The squared norm of all weights grows without end; L0 becomes level.",
    "2_ablation_growth": "The squared norm of each unit's weights against rate times steps: at "
    "three rates all living units lie on one line, 4 tau; dead ones stay where they are.",
    "2_ablation_law": "Loss against the logarithm of the epoch: lines of slope minus the number of "
    "living units. Epochs at which the author's test stops lie on K over its tolerance.",
    "2_ablation_killed": "With half of the units killed all weights grow half as fast.",
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
    upper, lower = plt.figure(figsize=(TWO, 3.9)).subfigures(2, 1)
    for axis, (config, terms) in zip(upper.subplots(1, len(TERMS)), TERMS.items()):
        R = correlation(energies[config, seed].double()).cpu().abs()
        # Similar rows side by side. SciPy would take a diagonal of 0, as of A, for distances.
        order = leaves_list(linkage(1 + R, "average"))
        image = axis.imshow(R[order][:, order], cmap="Greys", vmin=0, vmax=1)
        name = "unit" if R.any() else "no unit varies: undefined"
        axis.set(xticks=[], yticks=[], title=f"{config}: {terms}", xlabel=name)
    upper.colorbar(image, ax=upper.axes, shrink=0.7, label="|correlation|", aspect=12)
    a, b = lower.subplots(1, 2)
    for axis, name in ((a, "L0"), (b, "redundancy")):
        for config, (colour, ls) in LINES.items():
            begin, then = (run[config, seed][1][name] for run in (beginning, trained))
            look = {"color": colour, "ls": ls, "lw": 0.9}
            axis.plot(1 + np.arange(len(begin)), begin, **look)
            axis.plot(steps * (1 + np.arange(len(then))), then, label=config, **look)
    frame(a, "(a) L0: active units", "step", log="x")
    frame(b, "(b) redundancy", "step", log="xy", ylim=(1, None))
    return upper.figure


def cut_figure(table, twins):
    """Redundancy against the weight of decorrelation, own denominators and the batch's mean; and
    how far units agree with those of the same run as it was.

    table: as of `lab.cut.table`; twins: agreements after the long run at lambda 1.
    """
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.3), width_ratios=[1, 1.1])
    curve, colours = table[table.lam == 1], {"own": "k", "cut": "C1"}
    look = {"linestyles": ["-", "--"], "markers": ["o", "s"], "palette": colours, "legend": False}
    look |= {"errorbar": ("pi", 100), "formatter": "{:g}".format, "lw": 1.2, "ms": 3}
    sns.pointplot(curve, x="weight", y="redundancy", hue="kind", hue_order=colours, ax=a, **look)
    start = curve[curve.weight == 0].groupby("kind").redundancy.mean()
    a.annotate("own denominator", (0, start["own"]), (-12, -24), color="k", **SMALL)
    a.annotate("batch's mean", (0, start["cut"]), (4, 6), color="C1", **SMALL)
    frame(a, "(a) redundancy", "weight of decorrelation", log="y", ylim=(None, 6e3))
    kinds = {"start": "start changed by 1e-6", "cut": "batch's mean", "order": "another order"}
    kinds |= {"none": "no log-sum-exp", "own": "another seed"}
    rows = table[(table.weight == 1) & table.agreement.notna()]
    colour, down = shades(rows[rows.kind == "cut"].lam), 0.16
    for (lam, shade), marker in zip(colour.items(), "o^Dvs"):
        some = rows[rows.lam == lam]
        place = some.kind.map(list(kinds).index) - down
        b.plot(some.agreement, place, marker, ms=3.5, mfc="none", mec=shade)
        at = some[some.kind == "own"].agreement.max(), len(kinds) - 1 - down
        b.annotate(f"λ {lam:g}", at, (5, -2.5), color=shade, **SMALL)
        down -= 0.32
    b.plot(twins, [1] * len(twins), "kx", ms=3.5)
    b.annotate("λ 1, long run", (0.95, 1), (-5, -2.5), ha="right", **SMALL)
    b.set_yticks(range(len(kinds)), kinds.values())
    look = {"xlim": (0, 1.03), "ylim": (len(kinds) - 0.5, -0.5)}
    frame(b, "(b) units, beside those of the run as it was", "agreement, 1: the same units", **look)
    return fig


def scale_figure(runs):
    """|theta|^2 and L0 after each epoch of runs {name: [(norm2, L0) of each seed]}."""
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 2.1))
    colours = shades(runs)
    for (name, seeds), ls in zip(runs.items(), ("-", "--", "-.", ":") * len(runs)):
        for axis, y in ((axis, y) for seen in seeds for axis, y in zip(axes, seen)):
            look = {"color": colours[name], "ls": ls, "lw": 0.9, "label": name}
            axis.plot(1 + np.arange(len(y)), y, **look)
    frame(axes[0], "(a) the scale, $|θ|^2$", "epoch", log="xy")
    frame(axes[1], "(b) L0: active units", "epoch", log="x", ylim=(0, None))
    return fig


def growth_figure(runs, largest):
    """|theta_j|^2 of every unit of the runs of `largest` units; dicts as of `lab.law.watch`."""
    fig, axis = plt.subplots(figsize=(ONE, 2.4))
    of_rate = {run["lr"]: run for run in reversed(runs) if run["K"] == largest}  # the first seed
    colour = shades(of_rate)
    for lr, run in of_rate.items():
        tau, norm2, alive = run["tau"][1:], run["norm2"][1:], law.living(run)
        axis.plot(tau, norm2[:, alive], lw=0.4, color=colour[lr])
        axis.plot(tau, norm2[:, ~alive], lw=0.8, ls=":", color=colour[lr])
        look = {"ha": "right", "color": colour[lr], **SMALL}
        axis.annotate(f"rate {lr:g}", (tau[-1], np.median(norm2[-1])), (-8, 2), **look)
    tau = np.sort(np.concatenate([run["tau"][1:] for run in of_rate.values()]))
    axis.plot(tau, 4 * run["volume"] * tau + run["norm2"][0].mean(), **WIDE)
    frame(axis, "", "τ = rate × steps", "$|θ_j|^2$ of each unit", log="xy")
    return fig


def law_figure(runs, others, stops):
    """The loss in the logarithm of the clock, and where the author's test stops the runs.

    runs: dicts as of `lab.law.watch`, under SGD; others: {name: losses}; stops: `lab.law.stops`.
    """
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.8), width_ratios=[1.35, 1])
    colour = shades([run["K"] for run in runs])
    for run in reversed(runs):  # the first, slowest one is labelled
        loss, k, t, stop = run["loss"], run["K"], law.clock(run), law.stop(run["loss"])
        half, slope = len(loss) // 2, run["volume"] * int(law.living(run).sum())
        look = {"markevery": [] if stop is None else [stop], "mfc": "w", "ms": 4, "mew": 0.9}
        a.plot(t, loss, "-o", color=colour[k], lw=0.9, label=f"{k} units", **look)
        level = np.mean(loss[half:] + slope * np.log(t[half:]))
        a.plot(t[1:], level - slope * np.log(t[1:]), **WIDE)
    for name, loss in others.items():
        a.plot(np.arange(len(loss)) + 0.5, loss, color=GREY, lw=0.9, ls=":", label=name)
    frame(a, "(a) the loss", "epoch t", "loss, summed over a minibatch", log="x")
    most = 1.15 * max(64, stops["K / tolerance"].max())
    b.plot([0, most], [0, most], **WIDE)
    for (k, shade), marker in zip(colour.items(), "^so" * len(colour)):
        rows = stops[stops.K == k]
        x = rows["K / tolerance"]
        b.plot(x, rows.smoothed, marker, ms=3.5, mfc="none", mec=shade, mew=0.8)
        b.annotate(f"{k} units", (x.max(), x.max()), (2, -13), color=shade, **SMALL)
    b.plot([64] * len(law.PUBLISHED_STOPS), law.PUBLISHED_STOPS, "kx", ms=4, mew=0.9)
    b.annotate("the paper's four", (64, max(law.PUBLISHED_STOPS)), (-4, 4), ha="right", **SMALL)
    limits = {"xlim": (0, 1.06 * most), "ylim": (0, None)}
    frame(b, "(b) where the test stops", "K / tolerance", "epoch of the stop", **limits)
    return fig


def pair_figure(runs, lawful, since=0, floor=None):
    """|theta|^2 and the loss of {name: run}, dicts as of `lab.law.watch`, from epoch `since` on;
    the law beside those named in `lawful`; and a bound on the loss."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 1.9))
    for (name, run), look in zip(runs.items(), ("k-", "C3--")):
        t, total, loss = since + np.arange(len(run["tau"])), run["norm2"].sum(1), run["loss"]
        loss = loss - loss[0] if floor is None else loss
        a.plot(t, total, look, label=name)
        b.plot(t[1:] - 0.5, loss, look, label=name)
        if name in lawful:
            pace, clock = run["volume"] * int(law.living(run).sum()), law.clock(run, since)
            a.plot(t, total[0] + 4 * pace * run["tau"], **WIDE)
            b.plot(t[1:] - 0.5, loss[-1] - pace * np.log(clock / clock[-1]), **WIDE)
    if floor is not None:
        b.plot(t[1:] - 0.5, 0 * loss + floor, color=GREY, lw=0.8, ls=":", label="floor")
    scale = {"ylim": (0, None)} if floor is None else {"yscale": "log"}
    frame(a, "(a) the scale, $|θ|^2$", "epoch", **scale)
    frame(b, "(b) the loss" + ", its change" * (floor is None), "epoch")
    return fig
