"""The figures of notebook 2: each function takes what it shows, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from scipy.cluster.hierarchy import leaves_list, linkage

import helpers as h
from lab import growth
from lab.plots import GREY, LARGE, TWO, frame, label, label_ends, tiles

PREDICTED = {"color": "0.8", "lw": 4, "zorder": 0, "solid_capstyle": "butt"}


@plt.rc_context(LARGE)
def ablation_figure(energies, terms):
    """energies: {"A": E (N, K) of test digits, ..., "D": E}; terms: a row of 0 and 1 for each
    configuration, a column for each term."""
    fig, axes = plt.subplots(3, len(energies), figsize=(TWO, 6.2), height_ratios=[1.5, 1, 1])
    for (name, E), (above, middle, below) in zip(energies.items(), axes.T):
        R = h.correlation(E.double()).abs().cpu().numpy()
        # Similar rows side by side. SciPy would take a diagonal of 0, as of A, for distances.
        order = leaves_list(linkage(1 + R, "average"))
        bar = {"label": "|correlation|", "shrink": 0.5, "ticks": [0, 0.5, 1]}
        last = {"cbar": name == [*energies][-1], "cbar_kws": bar}
        look = {"cmap": "Greys", "vmin": 0, "vmax": 1, "square": True, "rasterized": True}
        sns.heatmap(
            R[order][:, order], ax=above, xticklabels=False, yticklabels=False, **look, **last
        )
        above.set_title(name, loc="center", weight="bold")
        above.spines[:].set_visible(True)
        if not R.any():
            label(above, "no unit\nvaries", (0.5, 0.5), transform=above.transAxes, fontsize=11.5)
        used = terms.columns[terms.loc[name] == 1]
        above.set_xlabel("\n".join([*used, *[""] * (3 - len(used))]), fontsize=10.5)
        K = E.shape[1]
        active, units = (E > 0).double().mean(0).sort(descending=True, stable=True)
        for axis, values in ((middle, active), (below, h.usage(E)[units])):
            axis.bar(np.arange(1, K + 1), values.cpu().numpy(), width=1, color="0.45", lw=0)
            axis.set(xticks=[1, K], xlim=(0, K + 1))
            axis.tick_params(labelleft=name == [*energies][0])
        middle.set_ylim(0, 1)
        below.axhline(1 / K, color="k", ls=":", lw=1.2)
        below.set_xlabel("unit")
    top = max(axis.dataLim.y1 for axis in axes[2])
    plt.setp(axes[2], ylim=(0, 1.05 * top))
    axes[0, 0].set_ylabel("units")
    axes[1, 0].set_ylabel("part of the\ndigits on which\na unit is active")
    axes[2, 0].set_ylabel("usage")
    fig.align_ylabels(axes[:, 0])
    return fig


def competition_figure(rows, runs):
    """rows: {name: W (8, D)}, the same units in each; runs: of `lab.ablation.measure`."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.05), width_ratios=[1.75, 1])
    tiles(a, torch.cat([*rows.values()]), 8, names=[name.replace(" ", "\n") for name in rows])
    a.set_title("(a) weights of eight units")
    curves = runs[(runs.change == "") & (runs.lam == 1)]
    weights = sorted(curves[curves.weight == 0].decorrelation.unique())
    curves = curves[curves.decorrelation.isin(weights) & curves.weight.isin([0, 1])]
    curves = curves.assign(
        place=curves.decorrelation.map(weights.index),
        competition=curves.weight.map({1: "with", 0: "without"}),
    )
    look = {"palette": {"with": "k", "without": "C1"}, "markers": {"with": "o", "without": "^"}}
    look |= {"dashes": {"with": "", "without": (4, 2)}, "mfc": "w", "mew": 0.9, "ms": 4.5}
    kinds = {"hue": "competition", "style": "competition", "hue_order": ["without", "with"]}
    sns.lineplot(
        curves, x="place", y="redundancy", ax=b, errorbar=("pi", 100), mec="auto", **kinds, **look
    )
    b.legend(title="competition", title_fontsize=7, loc="lower left")
    b.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    frame(b, "(b) redundancy of the units", "weight of decorrelation", "", log="y")
    return fig


def convergence_figure(runs, others, table, rate=0.01):
    """The loss under SGD, and the epochs at which runs are declared converged.

    runs: of `lab.growth.train_by_sgd`, of which the first seed is shown: the largest layers at all
    their rates, the others at one; others: {name: losses (T,)}; table: of
    `lab.growth.convergence_table`.
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
    a.xaxis.set_minor_formatter(plt.NullFormatter())
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
