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


def competition(rows, changes):
    """rows: {name: W (8, D)}, the same units in each; changes: a row of "model", that is
    "decorrelation <weight>", "change", "seed" and "agreement" for each run."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.05), width_ratios=[1.75, 1])
    tiles(a, torch.cat([*rows.values()]), 8, names=[name.replace(" ", "\n") for name in rows])
    a.set_title("(a) weights of eight units")
    by_weight = changes.assign(weight=changes.model.str.split().str[1].astype(float))
    weights = sorted(by_weight.weight.unique())
    looks = {
        "without competition": ("C1", "-", "o", "without competition", (0.68, 0.45)),
        "noise": ("C0", "--", "s", "noise", (0.2, 0.72)),
        "a millionth": ("0.3", ":", "", "a millionth", (0.5, 0.97)),
    }
    for change, (colour, line, marker, text, at) in looks.items():
        agreement = by_weight[by_weight.change == change].groupby("weight").agreement
        mean, low, high = (getattr(agreement, f)().reindex(weights) for f in ("mean", "min", "max"))
        places = np.arange(len(weights))
        b.fill_between(places, low, high, color=colour, alpha=0.25, lw=0)
        b.plot(places, mean, line, marker=marker, color=colour, mfc="w", ms=4.5)
        label(b, text, at, color=colour, transform=b.transAxes)
    b.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    frame(b, "(b) agreement of units", "weight of decorrelation")
    low, high = b.get_ylim()
    b.set_ylim(low, high + 0.15 * (high - low))
    b.set_yticks([tick for tick in b.get_yticks() if low <= tick <= 1])
    fig.alt = (
        "(a) Pictures of the weights of eight units, in three lines: of C, of C without "
        "competition, and of C with another seed. (b) Agreement of units with those of the same "
        "model trained without competition, with noise, and from a start moved by a millionth, "
        "against the weight of decorrelation."
    )
    return fig


def plateau(losses, convergence):
    """losses: {(optimizer, rate, units): of each epoch (T,)}, of Adam and of SGD; convergence: of
    those by SGD, the epoch of a circle, counted from 0, or NaN. Of fewer units only the second rate
    is drawn."""
    fig, a = plt.subplots(figsize=(0.75 * TWO, 2.5))
    sizes = list(dict.fromkeys(units for _, _, units in losses))
    rates = list(dict.fromkeys(rate for optimizer, rate, _ in losses if optimizer == "SGD"))
    highest = []
    for (optimizer, rate, units), values in losses.items():
        values, sgd, full = np.asarray(values), optimizer == "SGD", units == sizes[0]
        if not full and rate != rates[1]:
            continue
        middle = np.arange(len(values)) + 0.5  # a mean over epoch t stands for its middle
        line = ("-", "--", "-.")[rates.index(rate)] if sgd and full else "-"
        name = f"{optimizer}, {rate:g}" + f", {units} units" * (not full)
        color = f"C{sizes.index(units)}" if sgd else "k"
        a.plot(middle, values, ls=line, lw=1, label=name, color=color)
        if sgd:
            predicted = -units * np.log(middle)
            half = len(middle) // 2
            predicted += np.mean(values[half:] - predicted[half:])
            a.plot(middle[1:], predicted[1:], color="0.85", lw=4, zorder=0)
            highest.append(values[1])
            if np.isfinite(epoch := convergence[optimizer, rate, units]):
                at = int(epoch)
                a.plot(middle[at], values[at], "o", color=color, mfc="w", ms=4.5)
    low = min(line.get_ydata().min() for line in a.lines)
    a.set_ylim(low - 40, max(highest) + 40)
    frame(a, "loss", "epoch", log="x")
    ticks = [t for t in (1, 3, 10, 30, 100) if t < 1.1 * a.dataLim.x1]
    a.set_xticks(ticks, ticks)
    a.xaxis.set_minor_formatter(plt.NullFormatter())
    label_ends(a)
    fig.alt = (
        "The loss against the logarithm of the epoch, for Adam and for SGD at three rates and "
        "with three numbers of units; straight lines are predicted. Circles mark convergence."
    )
    return fig
