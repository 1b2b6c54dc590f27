"""The figures of notebook 2: each function takes what it draws, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from lab.plots import GREEN, GREY, PAPER, PINK, SAE, TWO, label, rows, tiles

OF_MODEL = {"A": GREY, "B": GREEN, "C": PAPER, "D": SAE}


def configurations(models, subtitles):
    """models: {"A: what it has": (correlations (K, K), usage (K,), redundancy, L0, weights of eight
    units (8, D))}, redundancy and L0 means over seeds; subtitles: {that name: what one sees}."""
    size = {"figsize": (TWO, 4.4), "height_ratios": [1.6, 0.75, 0.75], "squeeze": False}
    fig, axes = plt.subplots(3, len(models), **size)
    for (name, (R, usage, redundancy, active, W)), (a, b, c) in zip(models.items(), axes.T):
        color, K = OF_MODEL.get(name[0], GREY), len(usage)
        style = {"xycoords": "axes fraction", "fontsize": 8.5}
        a.set_title(name.replace("without ", "without\n"), loc="center", weight="bold", pad=15)
        label(a, subtitles.get(name, ""), (0.5, 1.02), va="bottom", color=color, **style)
        correlations_and_usage(a, b, R, usage, color)
        if np.asarray(R).any():
            a.set_xlabel(f"redundancy {redundancy:,.0f}")
        else:
            label(a, f"all {K} units\nare dead", (0.5, 0.5), **style)
        b.set_title(f"{active:.0f} of {K} active on average", loc="center", fontsize=7.5)
        b.tick_params(labelleft=b is axes[1, 0])
        tiles(c, W, 4)
    names = "correlations\nof pairs", "active on this\nshare of digits", "weights of\n8 units"
    for axis, name in zip(axes[:, 0], names):
        axis.set_ylabel(name)
    fig.align_ylabels(axes[:, 0])
    fig.alt = (
        f"For each of {'; '.join(models)}: correlations of all pairs of units, with blocks if they "
        "are copies; the share of digits that activates each unit; the weights of eight units."
    )
    return fig


def correlations_and_usage(a, b, R, usage, color):
    """Absolute correlations (K, K), similar units side by side, and the usage (K,), sorted."""
    R = np.abs(np.asarray(R, dtype=float))
    # SciPy would take a diagonal of 0, as of dead units, for distances
    order = leaves_list(linkage(1 + R, "average"))
    a.imshow(R[order][:, order], cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    a.set(xticks=[], yticks=[])
    a.spines[:].set_visible(True)
    b.bar(np.arange(len(R)), np.sort(np.asarray(usage))[::-1], width=1, color=color, lw=0)
    b.set(xlim=(-0.5, len(R) - 0.5), ylim=(0, 1), xticks=[], yticks=[0, 0.5, 1])
    b.set_xlabel(f"{len(R)} units, sorted")


def count(digits, n_units):
    """digits: {"B" or "B: a name": (active units of each digit (N,), its loss (N,)), ...}."""
    fig, axis = plt.subplots(figsize=(0.7 * TWO, 2.5))
    n = np.linspace(0, n_units - 1, 400)
    axis.plot(n, -np.log(n_units - n), color="0.45", lw=1.5, label=f"$-\\log({n_units}-n)$")
    for name, (active, loss) in digits.items():
        axis.plot(active, loss, ".", ms=4.5, mew=0, color=OF_MODEL[name[0]], label=name)
    axis.set(xlim=(-0.01 * n_units, n_units - 0.4), ylim=(-np.log(n_units) - 0.2, 0.2))
    axis.set(xlabel="active units $n$ on a digit", ylabel="log-sum-exp loss of the digit")
    axis.legend(loc="upper left", labelcolor="linecolor", fontsize=9, markerscale=2)
    fig.alt = "A dot for each digit: its log-sum-exp against its active units, and -log(K - n)."
    return fig


def competition(weights, table, agreement):
    """weights: {name: W (8, D)}, the same units in each; table: a row of "decorrelation" and
    "competition", the weights of the two, "seed" and "redundancy" for each model; agreement: the
    mean correlation of the units of the two models."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.1), width_ratios=[2, 1])
    names = [name.replace("without ", "without\n") for name in weights]
    tiles(a, np.concatenate([np.asarray(W) for W in weights.values()]), 8, names=names)
    a.set_title("(a) eight units, from the same start")
    for text, shift, size in (("}", 1, 24), (f"agreement\n{agreement:.2f}", 16, 8.5)):
        label(a, text, (1, 0.5), (shift, 0), ha="left", fontsize=size, xycoords="axes fraction")
    doses = sorted(table.decorrelation.unique())
    places = np.log10([dose or doses[1] / 8 for dose in doses])  # zero has a place of its own
    known, others = {0: (GREY, "without"), 1: (PAPER, "as it is")}, iter(["0.1", GREEN, SAE, PINK])
    for strength in sorted(table.competition.unique()):
        color, name = known.get(strength) or (next(others, GREY), f"× {strength:g}")
        by_dose = table[table.competition == strength].groupby("decorrelation").redundancy
        b.fill_between(places, by_dose.min(), by_dose.max(), color=color, alpha=0.25, lw=0)
        b.plot(places, by_dose.mean(), "o-", color=color, ms=4, mew=0, label=name)
    b.legend(title="competition", loc="lower left", alignment="left", labelcolor="linecolor")
    b.set_xticks(places, [f"{dose:g}" for dose in doses])
    b.set(title="(b) redundancy of units", xlabel="weight of decorrelation", yscale="log")
    b.yaxis.set_major_formatter("{x:,.0f}")
    fig.alt = "Weights of units with and without competition; redundancy against decorrelation."
    return fig


def plateau(losses, table, tolerance=1):
    """losses: {(rate, units): of each epoch (T,)}; table: a row of "rate", "units", "living units"
    and "epoch", that of convergence or NaN, for each. A fall stands at the end of the earlier one.
    """
    fig, axis = plt.subplots(figsize=(0.75 * TWO, 3))
    sizes, ticks = sorted(table.units.unique(), reverse=True), [1, 2, 5]
    last, bottom = max(map(len, losses.values())), 0.2 * tolerance
    for units, color in zip(sizes, (PAPER, SAE, GREEN, PINK)):
        of = table[table.units == units]
        for rate, epoch in zip(of.rate, of.epoch):
            falls = -np.diff(np.asarray(losses[rate, units]))
            axis.loglog(range(1, len(falls) + 1), falls, color=color, lw=0.9, nonpositive="mask")
            if np.isfinite(epoch):
                height = falls[int(epoch) - 1 :][:5].mean()
                axis.plot(epoch, height, "o", color=color, mfc="w", ms=7, mew=1.4, zorder=5)
        living = int(of["living units"].max())
        name = f"{units} units" if living == units else f"{units} units, {living} living"
        name += f", rates {of.rate.min():g} to {of.rate.max():g}" if len(of) > 1 else ""
        end = 1.6 * units / tolerance
        axis.plot([1, end], [living, living / end], color="0.75", lw=3, zorder=0)
        ticks.append(living / tolerance)  # where K/t falls below the tolerance
        axis.plot(2 * ticks[-1:], [bottom, tolerance], color=color, ls=":", label=name)
        if len(ends := of.epoch.dropna()):
            name = "○ " + " to ".join(dict.fromkeys(f"{f(ends):.0f}" for f in (min, max)))
            label(axis, name, (min(ends), 1.3 * bottom), (-7, 0), color=color, ha="right")
    axis.axhline(tolerance, color="k", lw=0.8)
    label(axis, f"the script's tolerance: {tolerance:g}", (1, tolerance), (6, -7), ha="left")
    axis.legend(loc="upper right", handlelength=0, labelcolor="linecolor", fontsize=8)
    axis.set(xlabel="epoch $t$", ylabel="fall of the loss in the epoch", xlim=(1, last))
    axis.set(ylim=(bottom, 1.4 * sizes[0]), xticks=[t for t in ticks if 1 <= t <= last])
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter("{x:g}")
    axis.minorticks_off()
    fig.alt = "The fall of the loss in each epoch, beside grey lines K / t; circles: convergence."
    return fig


def optimizers(table):
    """table: "optimizer", "rate", "variance term", "the rest", "loss", "dead" and "classifier"."""
    fig, axis = plt.subplots(figsize=(TWO, 0.24 * len(table) + 0.7))
    places, rest = np.arange(1, len(table) + 1), -table["the rest"]
    for column, left, color in (("the rest", 0, "0.8"), ("variance term", rest, PAPER)):
        bars = axis.barh(places, -table[column], 0.7, left, color=color)
        axis.bar_label(bars, [f"{part:,.0f}" for part in table[column]], label_type="center")
    label(axis, "the rest", (rest.mean() / 2, 0), color="0.35")
    label(axis, "variance term", (1.02 * rest.mean(), 0), color=PAPER, ha="left")
    right = {"xycoords": axis.get_yaxis_transform(), "ha": "right"}
    columns = (30, "loss", "{:,.0f}"), (58, "dead", "{}"), (106, "classifier", "{:.1f}%")
    for points, column, form in columns:
        for y, text in enumerate([column, *map(form.format, table[column])]):
            label(axis, text, (1, y), (points, 0), **right)
    rows(axis, ["", *(f"{row.optimizer}, {row.rate:g}" for row in table.itertuples())])
    axis.set(xticks=[], xlim=(0, max(1, -table.loss.min())), xlabel="lower reaches further right →")
    axis.spines[:].set_visible(False)
    fig.alt = "Bars for each optimiser and rate: the rest of the loss, and the variance term."
    return fig


def one_epoch(R, usage, W, titles):
    """Of one model: correlations (K, K), usage (K,), sixteen rows of W (16, D), and two titles."""
    fig, axes = plt.subplots(1, 3, figsize=(TWO, 1.7), width_ratios=[1, 1, 2.3])
    correlations_and_usage(*axes[:2], R, usage, PAPER)
    tiles(axes[2], W, 8)
    for axis, title in zip(axes, (*titles, f"weights of {len(W)} units")):
        axis.set_title(title, loc="center")
    fig.alt = "Correlations of the units, on what share of the digits each is active, and weights."
    return fig
