"""The figures of notebook 2: each function takes what it shows, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from scipy.cluster.hierarchy import leaves_list, linkage

import helpers as h
from lab.plots import GREY, TWO, frame, label, label_ends, large, tiles


@large
def configurations(energies):
    """energies: {"A": E (N, K) of test digits, ..., "D": E}."""
    fig, axes = plt.subplots(3, len(energies), figsize=(5.2, 4.6), height_ratios=[1.5, 1, 1])
    look = {"cmap": "Greys", "vmin": 0, "vmax": 1, "square": True, "rasterized": True}
    look |= {"xticklabels": False, "yticklabels": False, "cbar": False}
    for (name, E), (above, middle, below) in zip(energies.items(), axes.T):
        R = h.correlation(E.double()).abs().numpy()
        # Similar rows side by side. SciPy would take a diagonal of 0, as of A, for distances.
        order = leaves_list(linkage(1 + R, "average"))
        sns.heatmap(R[order][:, order], ax=above, **look)
        above.set_title(name, loc="center", weight="bold")
        above.spines[:].set_visible(True)
        if not R.any():
            label(above, "no unit\nvaries", (0.5, 0.5), transform=above.transAxes, fontsize=13)
        K = E.shape[1]
        active, units = (E > 0).double().mean(0).sort(descending=True, stable=True)
        for axis, values in ((middle, active), (below, h.usage(E)[units])):
            axis.bar(np.arange(1, K + 1), values.numpy(), width=1, color=GREY, lw=0)
            axis.set(xticks=[], xlim=(0, K + 1))
            axis.tick_params(labelleft=name == [*energies][0])
        middle.set(ylim=(0, 1), yticks=[0, 0.5, 1])
        below.axhline(1 / K, color="k", ls=":", lw=1.2)
    top = max(axis.dataLim.y1 for axis in axes[2])
    plt.setp(axes[2], ylim=(0, 1.05 * top), yticks=[0, 0.03])
    for axis, name in zip(axes[:, 0], ("|Corr|", "active", "usage")):
        axis.set_ylabel(name)
    fig.supxlabel("the 64 units" if K == 64 else "units", fontsize=14)
    fig.align_ylabels(axes[:, 0])
    fig.alt = (
        "A column each for configurations A to D. Above, absolute correlations of all pairs of "
        "units, similar units side by side. In the middle, on what fraction of the digits each "
        "unit is active, sorted. Below, the usage of the same units."
    )
    return fig


def competition(rows, agreements):
    """rows: {name: W (8, D)}, the same units in each; agreements: a row of "decorrelation",
    "change" ("without competition" or "a millionth"), "seed" and "agreement" for each run."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.05), width_ratios=[1.75, 1])
    tiles(a, torch.cat([*rows.values()]), 8, names=[name.replace(" ", "\n") for name in rows])
    a.set_title("(a) weights of eight units")
    weights = sorted(agreements.decorrelation.unique())
    looks = {
        "without competition": ("C1", "-", "o", "without\ncompetition", (0.6, 0.5)),
        "a millionth": ("0.3", ":", "", "start moved by a millionth", (0.5, 0.97)),
    }
    for change, (colour, line, marker, text, at) in looks.items():
        by_weight = agreements[agreements.change == change].groupby("decorrelation").agreement
        mean, low, high = (getattr(by_weight, f)().reindex(weights) for f in ("mean", "min", "max"))
        places = np.arange(len(weights))
        b.fill_between(places, low, high, color=colour, alpha=0.25, lw=0)
        b.plot(places, mean, line, marker=marker, color=colour, mfc="w", ms=4.5)
        label(b, text, at, color=colour, transform=b.transAxes)
    b.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    frame(b, "(b) agreement of units", "weight of decorrelation")
    low, high = b.get_ylim()
    b.set_ylim(low, high + 0.15 * (high - low))
    fig.alt = (
        "(a) Pictures of the weights of eight units, in three lines: of C, of C without "
        "competition, and of C with another seed. (b) Agreement of units trained with competition "
        "and without it, against the weight of decorrelation, beside that of a start moved by a "
        "millionth."
    )
    return fig


def plateau(runs, convergence, paper_epochs):
    """runs: {name: {"losses" (T,), "rest" (T,), its loss without scale, and "model"}}, of Adam
    first, then of SGD, for each number of units three rates; convergence: a row of "units",
    "tolerance" and "epoch" for each run of SGD; paper_epochs: the paper's, of 64 units."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 2.5), width_ratios=[1.4, 1.4, 1])
    first, *others = runs
    n_units = {name: len(run["model"].W) for name, run in runs.items()}
    most_units = max(n_units.values())
    rate = others[1].split(", ")[1]  # at which smaller layers are shown
    shown = [name for name in others if n_units[name] == most_units or f", {rate}," in name]
    colours = {units: f"C{i}" for i, units in enumerate(dict.fromkeys(n_units.values()))}
    for name, line in zip([first, *shown], ["-", "-", "--", "-.", "-", "-"]):
        losses = np.asarray(runs[name]["losses"])
        middle = np.arange(len(losses)) + 0.5  # a mean over epoch t stands for its middle
        look = {"color": colours[n_units[name]], "ls": line, "lw": 1, "label": name}
        if name == first:
            look["color"] = "k"
        else:
            predicted = -n_units[name] * np.log(middle)
            half = len(middle) // 2
            predicted += np.mean(losses[half:] - predicted[half:])
            a.plot(middle[1:], predicted[1:], color="0.85", lw=4, zorder=0)
        a.plot(middle, losses, **look)
        if n_units[name] == most_units:
            b.plot(middle, runs[name]["rest"], **look)
    a.set_ylim(None, max(runs[name]["losses"][1] for name in shown))
    for axis, title in ((a, "(a) loss"), (b, "(b) loss without scale")):
        frame(axis, title, "epoch", log="x")
        ticks = [t for t in (1, 3, 10, 30, 100) if t < 1.1 * axis.dataLim.x1]
        axis.set_xticks(ticks, ticks)
        axis.xaxis.set_minor_formatter(plt.NullFormatter())
    span = np.subtract(*a.get_ylim()[::-1])
    low = min(line.get_ydata().min() for line in b.lines)
    b.set_ylim(low - 0.2 * span, low + 0.8 * span)  # the same scale as (a)
    label_ends(a)
    most = 1.12 * max(*(convergence.units / convergence.tolerance), *paper_epochs)
    c.plot([1, most], [1, most], ":", color=GREY, lw=1)
    for (units, rows), marker in zip(convergence.groupby("units", sort=False), "os^"):
        look = {"ls": "", "marker": marker, "ms": 4, "mew": 0.8, "mfc": "none"}
        c.plot(rows.units / rows.tolerance, rows.epoch, **look, label=f"{units} units")
    c.plot([64] * len(paper_epochs), paper_epochs, "kx", ms=5, label="the paper's")
    c.legend(loc="upper left", handletextpad=0.2, borderpad=0, labelspacing=0.3)
    least = min(4, (convergence.units / convergence.tolerance).min())
    limits = {"xlim": (0.8 * least, most), "ylim": (0.8 * least, most)}
    frame(c, "(c) convergence", "units / tolerance", "epoch", log="xy", **limits)
    for axis in (c.xaxis, c.yaxis):
        axis.set_ticks([4, 8, 16, 32, 64], [4, 8, 16, 32, 64])
        axis.set_minor_formatter(plt.NullFormatter())
    fig.alt = (
        "(a) The loss against the logarithm of the epoch, for Adam and for SGD at three rates and "
        "with three numbers of units; straight lines are predicted. (b) The loss without scale on "
        "the same scale. (c) The epochs at which runs are declared converged, against the number "
        "of units over the tolerance."
    )
    return fig
