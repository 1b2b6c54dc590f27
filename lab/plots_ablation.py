"""The figures of notebook 2: each function takes what it shows, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage

import helpers as h
from lab import growth
from lab.plots import GREY, ONE, RIM, TWO, frame, label, label_ends, tiles

ALT = {
    "2_ablation": "A column each for configurations A to D. Above, absolute correlations of all "
    "pairs of units: undefined for A, where no unit varies; large black blocks for B; nearly "
    "nothing off the diagonal for C and D. Below, the sorted usage of units: equal for A, near "
    "1/64 for B and C, very uneven for D.",
    "2_ablation_competition": "(a) Pictures of the weights of eight units. The second line, "
    "without competition, shows the same units as the first, with competition; the third, another "
    "seed, shows others. (b) Redundancy falls as the weight of decorrelation grows. Without "
    "competition it is nearly twice as high at weight 0; from 0.3 on the two curves coincide.",
    "2_ablation_limit": "Redundancy against the competition term, both logarithmic. As the weight "
    "of competition grows from 0 to 30, the term falls a hundredfold and redundancy only from "
    "3,000 to 600. As the weight of decorrelation grows, without competition, the term falls as "
    "far and redundancy to 23, close to the full model. Shuffled competition and variances only "
    "lie where there is no competition at all; covariances only lie with competition.",
    "2_ablation_convergence": "(a) The loss against the logarithm of the epoch: straight lines, as "
    "predicted, for 64, 32 and 16 units; steeper with more units. Adam bends below them. (b) "
    "Epochs at which runs are declared converged lie on the line K / tolerance, or a little above.",
    "2_ablation_decay": "Against the epoch: (a) the squared length of all parameters grows along "
    "the predicted line without weight decay, and stays level with it; (b) the loss falls without "
    "end, or becomes level; (c) L0 becomes level in both.",
}
TITLES = {
    "A": "A: log-sum-exp",
    "B": "B: + variance",
    "C": "C: + decorrelation",
    "D": "D: C without log-sum-exp",
}
TERM = "competition term"
# In Figure 3: marker and colour; where the name stands, in points from their mean, and aligned;
# and from where in the name, as (x, y) from 0 to 1, a thin line leads to them
CONTROLS = {
    "covariances only": ("D", GREY, (-16, -24), "center", (0.6, 1)),
    "shuffled": ("x", "k", (-24, 17), "right", (1, 0.4)),
    "variances only": ("+", "k", (27, 31), "right", (0.6, 0)),
}
PREDICTED = {"color": "0.8", "lw": 4, "zorder": 0, "solid_capstyle": "butt"}


def ablation_figure(energies):
    """energies: {"A": E (N, K) of test digits, ..., "D": E}."""
    fig, axes = plt.subplots(
        2, 5, figsize=(TWO, 3.1), width_ratios=[1, 1, 1, 1, 0.06], height_ratios=[1.55, 1]
    )
    for (name, E), above, below in zip(energies.items(), *axes):
        R = h.correlation(E.double()).abs().cpu().numpy()
        # Similar rows side by side. SciPy would take a diagonal of 0, as of A, for distances.
        order = leaves_list(linkage(1 + R, "average"))
        image = above.imshow(R[order][:, order], cmap="Greys", vmin=0, vmax=1)
        told = f"L0 {h.l0(E):.1f}, redundancy {h.redundancy(E):,.0f}"
        if not R.any():
            told = f"L0 {h.l0(E):.0f}"
            label(above, "no unit varies", (0.5, 0.5), transform=above.transAxes)
        above.set(title=TITLES[name], xticks=[], yticks=[])
        above.set_xlabel(told, fontsize=7)
        above.spines[:].set_visible(True)
        usage, K = h.usage(E).sort(descending=True).values.cpu().numpy(), E.shape[1]
        below.bar(np.arange(1, K + 1), usage, width=1, color="0.55", lw=0)
        below.axhline(1 / K, color="k", ls=":", lw=1)
        below.set(xlabel="unit, by usage", xticks=[1, K // 2, K])
        below.tick_params(labelleft=name == "A")
    fig.colorbar(image, cax=axes[0, 4], label="absolute correlation")
    axes[1, 4].remove()
    top = max(axis.dataLim.y1 for axis in axes[1, :4])
    plt.setp(axes[1, :4], ylim=(0, 1.05 * top))
    axes[1, 0].set_ylabel("usage")
    label(axes[1, 0], f"1/{K}", (K / 2, 1.05 / K), va="bottom")
    return fig


def competition_figure(rows, table):
    """rows: {name: W (8, D)}, the same units in each; table: of `lab.ablation.tabulate`."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.05), width_ratios=[1.75, 1])
    tiles(a, torch.cat([*rows.values()]), 8)
    a.set_yticks(14.5 + 30 * np.arange(len(rows)), [name.replace(" ", "\n") for name in rows])
    a.tick_params(length=0, labelsize=8)
    a.set_title("(a) full model: the same units without competition")
    curves = table[(table.change == "") & (table.lam == 1)]
    weights = sorted(curves[curves.competition == 0].decorrelation.unique())
    looks = {
        1: ("k", "o", "-", "with\ncompetition", -17),
        0: ("C1", "^", "--", "without competition", 9),
    }
    for competition, (colour, marker, line, name, offset) in looks.items():
        some = curves[(curves.competition == competition) & curves.decorrelation.isin(weights)]
        place, look = some.decorrelation.map(weights.index), {"ms": 4, "mfc": "none", "mew": 0.7}
        b.plot(place, some.redundancy, marker, color=colour, **look)
        means = some.groupby("decorrelation").redundancy.mean()
        b.plot(means.index.map(weights.index), means, line, color=colour)
        at = {"xytext": (-4, offset), "textcoords": "offset points", "va": "center"}
        b.annotate(name, (0, means.iloc[0]), color=colour, **at)
    label(b, "no difference", (len(weights) - 0.8, 2.4 * means.iloc[-2]), ha="right", fontsize=8)
    b.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    limits = {"xlim": (-0.25, len(weights) - 0.75), "ylim": (None, 2 * curves.redundancy.max())}
    frame(b, "(b) redundancy of the units", "weight of decorrelation", log="y", **limits)
    return fig


def limit_figure(table, full):
    """table: of `lab.ablation.tabulate`; full: {"competition term": [...], "redundancy": [...]} of
    the full model after long runs, a value for each seed."""
    fig, axis = plt.subplots(figsize=(ONE, 3.3))
    axis.margins(x=0.13, y=0.18)
    frame(axis, None, f"{TERM}, nats per digit", "redundancy", log="xy")

    def write(text, rows, offset, ha="left", **look):
        """A text beside the mean of rows, by an offset in points."""
        at = np.mean(rows[TERM]), np.mean(rows["redundancy"])
        place = {"xytext": offset, "textcoords": "offset points", "ha": ha, "va": "center"}
        axis.annotate(text, at, **place, **look, fontsize=7, path_effects=RIM)

    plain = table[(table.change == "") & (table.lam == 1)]
    doses, weights = plain[plain.decorrelation == 0], plain[plain.competition == 0]
    for rows, varied, colour, look, offset, ha in (
        (doses, "competition", "k", "o-", (-2, 9), "right"),
        (weights, "decorrelation", "C1", "^--", (7, -4), "left"),
    ):
        axis.plot(rows[TERM], rows.redundancy, look[0], color=colour, ms=2.5, alpha=0.5, mew=0)
        means = rows.groupby(varied)[[TERM, "redundancy"]].mean()
        axis.plot(means[TERM], means.redundancy, look, color=colour, ms=4, mfc="w", mew=0.9)
        for weight, some in rows[rows[varied] > 0].groupby(varied):
            write(f"× {weight:g}", some, offset, ha, color=colour)
    for change, (marker, colour, offset, ha, lead) in CONTROLS.items():
        rows = table[table.change == change]
        if len(rows):
            axis.plot(rows[TERM], rows.redundancy, marker, color=colour, ms=4, mew=0.9)
            thin = {"arrowstyle": "-", "lw": 0.5, "color": colour, "shrinkA": 0, "shrinkB": 4}
            thin["relpos"] = lead
            name = f"{change}, × {rows.competition.iloc[0]:g}"
            write(name, rows, offset, ha, color=colour, arrowprops=thin)
    axis.plot(full[TERM], full["redundancy"], "*", color="k", ms=7, mew=0)
    inside = {"transform": axis.transAxes}
    label(axis, "star: the full model (C)", (0.04, 0.05), ha="left", **inside)
    name = f"competition × 0 to {doses.competition.max():g},\nwithout decorrelation"
    label(axis, name, (0.25, 0.86), **inside)
    name = f"decorrelation × 0 to {weights.decorrelation.max():g},\nwithout competition"
    label(axis, name, (0.75, 0.3), color="C1", **inside)
    return fig


def convergence_figure(runs, others, table, rate=0.01):
    """The loss under SGD, and the epochs at which runs are declared converged.

    runs: of `lab.growth.watch`, of which the first seed is shown: the largest layers at all their
    rates, the others at one; others: {name: losses (T,)}; table: `lab.growth.convergence_table`.
    """
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.9), width_ratios=[1.35, 1])
    sizes = sorted({run["K"] for run in runs}, reverse=True)
    looks = dict(zip(sizes, (("k", "-", "o"), ("C0", "--", "s"), ("C3", "-.", "^"))))
    shown = {(run["K"], run["lr"]): run for run in reversed(runs)}
    for (K, lr), run in shown.items():
        if K < sizes[0] and lr != rate:
            continue
        colour, line, _ = looks[K]
        loss, epoch = run["loss"], growth.converged(run["loss"])
        middle = np.arange(len(loss)) + 0.5  # a mean over epoch t stands for its middle
        circle = {"markevery": [] if epoch is None else [epoch], "mfc": "w", "ms": 5, "mew": 1}
        name = f"{K} units, rate {lr:g}"
        a.plot(middle[1:], growth.predicted_loss(run)[1:], **PREDICTED)
        a.plot(middle, loss, line, marker="o", color=colour, lw=1, label=name, **circle)
    for name, loss in others.items():
        middle = np.arange(len(loss)) + 0.5
        a.plot(middle, loss, ":", color=GREY, label=name)
    frame(a, "(a) the loss", "epoch", "loss, summed over a minibatch", log="x")
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100) if t < 1.1 * a.dataLim.x1]
    a.set_xticks(ticks, ticks)
    label_ends(a)
    most = 1.12 * max(*table["K / tolerance"], *growth.PAPER_CONVERGED)
    b.plot([0, most], [0, most], ":", color=GREY, lw=1)
    for K, (colour, _, marker) in looks.items():
        rows = table[table.K == K]
        look = {"color": colour, "ls": "", "marker": marker, "ms": 4, "mew": 0.8}
        b.plot(rows["K / tolerance"], rows["raw"], mfc="none", **look)
        b.plot(rows["K / tolerance"], rows["averaged"], **look, label=f"{K} units")
    b.plot([64] * 4, growth.PAPER_CONVERGED, "x", color="k", ms=5, label="the paper's four")
    b.plot([], [], "o", color=GREY, mfc="none", ms=4, mew=0.8, label="open: not averaged")
    b.legend(loc="upper left", handletextpad=0.2, borderpad=0, labelspacing=0.3)
    limits = {"xlim": (0, most), "ylim": (0, most)}
    frame(b, '(b) epoch of "convergence"', "K / tolerance", "epoch", **limits)
    return fig


def decay_figure(runs, steps_per_epoch):
    """runs: {"without weight decay": run, "with weight decay": run}, of `lab.growth.watch`."""
    fig, axes = plt.subplots(1, 3, figsize=(TWO, 2.0))
    looks = {"without weight decay": ("k", "-"), "with weight decay": ("C1", "--")}
    for name, (colour, line) in looks.items():
        for axis, column in zip(axes, ("norm2", "loss of a sample", "L0")):
            values = runs[name][column]  # norm2 from the start on, the others after each epoch
            epochs = np.arange(len(runs[name]["norm2"]))[-len(values) :]
            axis.plot(epochs, values, line, color=colour)
    without, having = runs.values()
    predicted = growth.predicted_norm2(without, steps_per_epoch)
    axes[0].plot(predicted, **PREDICTED)
    label(axes[0], "without weight decay", (0, predicted[-1]), ha="left")
    label(axes[0], "(grey: predicted)", (0, 0.9 * predicted[-1]), ha="left", color=GREY)
    at = len(predicted) - 1, having["norm2"][-1] + 0.07 * predicted[-1]
    label(axes[0], "with weight decay", at, ha="right", color="C1")
    frame(axes[0], "(a) squared length, $|θ|^2$", "epoch", ylim=(0, None))
    frame(axes[1], "(b) loss, without the decay term", "epoch")
    frame(axes[2], "(c) L0: active units", "epoch", ylim=(0, None))
    return fig
