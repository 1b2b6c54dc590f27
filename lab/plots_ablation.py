"""The figures of notebook 2: each function takes what it draws, and returns a figure."""

import matplotlib.pyplot as plt
import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from lab.plots import BLUE, GREEN, GREY, ORANGE, PINK, TWO, label, tiles

BROWN, DARK = "#8a4505", "#2e1600"  # the paper's loss with fewer units
OF_MODEL = {"A": GREY, "B": GREEN, "C": ORANGE, "D": BLUE}


def configurations(models, subtitles):
    """Draw units of one seed. models: {"A: what it has": (correlations (K, K), usage (K,), weights
    (K, D)), ...}; subtitles: {that name: what one sees}."""
    size = {"figsize": (TWO, 4.3), "height_ratios": [1.6, 0.75, 0.75], "squeeze": False}
    fig, axes = plt.subplots(3, len(models), **size)
    for (name, (R, usage, W)), (a, b, c) in zip(models.items(), axes.T):
        color, K = OF_MODEL.get(name.partition(":")[0], GREY), len(usage)
        style = {"xycoords": "axes fraction", "fontsize": 8.5}
        a.set_title(name, loc="center", weight="bold", pad=15)
        label(a, subtitles.get(name, ""), (0.5, 1.02), va="bottom", color=color, **style)
        R, order = correlations_and_usage(a, b, R, usage, color)
        shown = neighbours(R)
        if R.any():
            a.set_xlabel(f"redundancy {(R**2).sum() - (R.diagonal() ** 2).sum():,.0f}")
            ends = shown[0] - 0.5, shown[-1] + 0.5
            style = {"transform": a.get_yaxis_transform(), "solid_capstyle": "butt"}
            a.plot([1.03] * 2, ends, color="0.1", lw=2, clip_on=False, **style)
        else:
            label(a, f"all {K} units\nare dead", (0.5, 0.5), **style)
        b.set_title(f"{float(sum(usage)):.1f} of {K} active", loc="center", fontsize=7.5)
        b.tick_params(labelleft=b is axes[1, 0])
        tiles(c, W[order[shown]], 4)
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
    """Draw absolute correlations, similar units side by side, and the usage (K,), sorted. Return
    the correlations (K, K) as drawn, and which unit stands where (K,)."""
    R = np.abs(np.asarray(R, dtype=float))
    # SciPy would take a diagonal of 0, as of dead units, for distances
    order = leaves_list(linkage(1 + R, "average"))
    R = R[order][:, order]
    a.imshow(R, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    a.set(xticks=[], yticks=[])
    a.spines[:].set_visible(True)
    b.bar(np.arange(len(R)), np.sort(np.asarray(usage))[::-1], width=1, color=color, lw=0)
    b.set(xlim=(-0.5, len(R) - 0.5), ylim=(0, 1), xticks=[], yticks=[0, 0.5, 1])
    b.set_xlabel(f"{len(R)} units, sorted")
    return R, order


def neighbours(R, n=8):
    """Return the places of n neighbours in R (K, K), from the end of its largest block: the last
    n - 3 of the longest row of neighbours with correlations above 0.9, and the three after it."""
    copies = np.zeros(len(R), int)  # of units before, in the same row
    for i in range(1, len(R)):
        copies[i] = (copies[i - 1] + 1) * (R[i - 1, i] > 0.9)
    first = copies.argmax() - (n - 4)
    return np.arange(n) + min(max(first, 0), len(R) - n)


def one_digit(digit, layers):
    """Draw a digit (D,) and of each unit E, exp(-E) and the responsibility, sorted by energy.
    layers: {title: its energies (K,)}."""
    size = {"figsize": (TWO, 2.6), "width_ratios": [0.72] + [2] * len(layers)}
    mosaic = [["digit", *(f"{row}{i}" for i in range(len(layers)))] for row in "Ezr"]
    fig, axes = plt.subplot_mosaic(mosaic, **size)
    tiles(axes["digit"], digit[None], 1, signed=False, scale=1)
    axes["digit"].set_title("a test digit", loc="center")
    for i, (title, E) in enumerate(layers.items()):
        E = E.sort(descending=True).values.double().numpy()
        K, n, z = len(E), int((E > 0).sum()), np.exp(-E)
        active, inactive = (n - 1) / 2, (K + n - 1) / 2  # the middle of either
        a, b, c = (axes[f"{row}{i}"] for row in "Ezr")
        for axis, values, room in ((a, E, 1.05), (b, z, 1.5), (c, z / z.sum(), 1.6)):
            color = np.where(np.arange(K) < n, ORANGE, "0.45")
            axis.bar(np.arange(K), values, 0.8, color=color, lw=0)
            axis.axhline(0, c="0.2", lw=0.6)
            axis.set(xlim=(-0.8, K - 0.2), xticks=[], ylim=(0, room * values.max()))
            axis.spines["bottom"].set_visible(False)
        a.set_title(title, loc="center", weight="bold")
        label(a, f"{n} active", (active, 0), (0, -7), color=ORANGE)
        label(a, f"{K - n} inactive: $E=0$", (inactive, 0), (0, -7), color="0.35")
        b.set_yticks([0, 1])
        of_active = f"{z[:n].sum():.1f}".replace("0.0", "0")
        label(b, f"sum {of_active}", (active, 1.26), color=ORANGE)
        label(b, f"sum {K - n}", (inactive, 1.26), color="0.35")
        c.set_yticks([0, 1 / z.sum()], ["0", f"1/{z.sum():.0f}"])
        text, style = f"divided by the whole sum $Z={z.sum():.1f}$", {"color": "0.35"}
        label(c, text, (0.03, 0.88), ha="left", xycoords="axes fraction", **style)
        for axis, name in zip((a, b, c), ("$E_j$", "$e^{-E_j}$", "$r_j$") if i == 0 else ()):
            axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    fig.align_ylabels()
    fig.alt = f"Energies, exp(-E) and responsibilities of units on a digit, {', '.join(layers)}."
    return fig


def count(digits, n_units):
    """Draw losses of digits against their active units. digits: {"B" or "B: a name": (active units
    of each digit (N,), its loss (N,)), ...}."""
    fig, axis = plt.subplots(figsize=(0.7 * TWO, 2.5))
    n = np.linspace(0, n_units - 1, 400)
    axis.plot(n, -np.log(n_units - n), color="0.45", lw=1.5, label=f"$-\\log({n_units}-n)$")
    for name, (active, loss) in digits.items():
        axis.plot(
            active,
            loss,
            ".",
            ms=4.5,
            mew=0,
            color=OF_MODEL.get(name.partition(":")[0], GREY),
            label=name,
        )
    axis.set(xlim=(-0.01 * n_units, n_units - 0.4), ylim=(-np.log(n_units) - 0.2, 0.2))
    axis.set(xlabel="active units $n$ on a digit", ylabel="log-sum-exp loss of the digit")
    axis.legend(loc="upper left", labelcolor="linecolor", fontsize=9, markerscale=2)
    fig.alt = "A dot for each digit: its log-sum-exp against its active units, and -log(K - n)."
    return fig


def competition(models, table):
    """Draw what competition changes. models: {name: (weights of eight units (8, D), correlations of
    all units with those of the first model (K,))}, units being paired one to one with those of the
    first model; table: a row of "decorrelation" and "competition", the weights of the two, "seed"
    and "redundancy" for each."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO, 2.2), width_ratios=[2.2, 1])
    tiles(a, np.concatenate([W for W, _ in models.values()]), 8, names=[*models])
    a.set_title("(a) eight units of C, and their pairs in two other models")
    for i, (_, r) in enumerate(models.values()):
        style = {"ha": "left", "xycoords": "axes fraction"} | ({} if i else {"color": "0.35"})
        text = f"{float(r.mean()):.2f}" if i else "agreement"
        label(a, text, (1, 1 - (i + 0.5) / len(models)), (4, 0), fontsize=9 if i else 7.5, **style)
    side = (a.get_xlim()[1] + 0.5) / 8
    a.set_xticks(side * (np.arange(8) + 0.5) - 0.5, [f"{value:.2f}" for value in r[:8]])
    a.set_xlabel("correlation of the first unit with the third")
    doses = sorted(table.decorrelation.unique())
    places = np.log10([dose or doses[1] / 8 for dose in doses])  # zero has a place of its own
    known, others = (
        {0: (GREY, "without"), 1: (ORANGE, "as it is")},
        iter(["0.1", GREEN, BLUE, PINK]),
    )
    for strength in sorted(table.competition.unique()):
        color, name = known.get(strength) or (next(others, GREY), f"× {strength:g}")
        by_dose = table[table.competition == strength].groupby("decorrelation").redundancy
        b.fill_between(places, by_dose.min(), by_dose.max(), color=color, alpha=0.25, lw=0)
        b.plot(places, by_dose.mean(), "o-", color=color, ms=4, mew=0, label=name)
    b.legend(title="competition", loc="lower left", alignment="left", labelcolor="linecolor")
    b.set_xticks(places, [f"{dose:g}" for dose in doses])
    b.set(title="(b) redundancy of units", xlabel="weight of decorrelation", yscale="log")
    b.yaxis.set_major_formatter("{x:,.0f}")
    b.minorticks_off()
    fig.alt = (
        f"Weights of units, {', '.join(models)}; redundancy against the weight of decorrelation."
    ).replace("\n", " ")
    return fig


def plateau(losses, table, tolerance=1):
    """Draw the fall of the loss. losses: {(rate, units): of each epoch (T,)}; table: a row of
    "rate", "units", "living units" and "epoch", that of convergence or NaN, for each. A fall stands
    at the end of the earlier epoch."""
    fig, axis = plt.subplots(figsize=(0.75 * TWO, 3))
    sizes, ticks = sorted(table.units.unique(), reverse=True), [1, 2, 5]
    last, bottom = max(map(len, losses.values())), 0.2 * tolerance
    for units, color in zip(sizes, (ORANGE, BROWN, DARK, GREY)):
        runs = table[table.units == units]
        for rate, epoch in zip(runs.rate, runs.epoch):
            falls = -np.diff(np.asarray(losses[rate, units]))
            axis.loglog(range(1, len(falls) + 1), falls, color=color, lw=0.9, nonpositive="mask")
            if np.isfinite(epoch):
                height = falls[int(epoch) - 1 :][:5].mean()
                axis.plot(epoch, height, "o", color=color, mfc="w", ms=7, mew=1.4, zorder=5)
        living = int(runs["living units"].max())
        name = f"{units} units" if living == units else f"{units} units, {living} living"
        name += f", rates {runs.rate.min():g} to {runs.rate.max():g}" if len(runs) > 1 else ""
        end = 1.6 * units / tolerance
        axis.plot([1, end], [living, living / end], color="0.75", lw=3, zorder=0)
        ticks.append(living / tolerance)  # where K/t falls below the tolerance
        axis.plot(2 * ticks[-1:], [bottom, tolerance], color=color, ls=":", label=name)
        if len(ends := runs.epoch.dropna()):
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


def optimizers(tables):
    """Draw classifiers against losses, lower ones on the right. tables: {title: (rows of
    "optimizer", "rate", "loss" and "classifier", the classifier on pixels or None)}."""
    fig, axes = plt.subplots(1, len(tables), figsize=(TWO, 2.8), squeeze=False)
    losses = np.concatenate([table.loss for table, _ in tables.values()])
    ends = losses.max() + 0.24 * np.ptp(losses), losses.min() - 0.12 * np.ptp(losses)
    colors = {"SGD": GREY, "Adam": "0.1"}
    for axis, (title, (table, pixels)) in zip(axes[0], tables.items()):
        axis.set(title=title, xlabel="loss, lower to the right", xlim=ends)
        axis.locator_params(axis="x", nbins=4)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.margins(y=0.15)
        if pixels is not None:
            axis.plot(ends, [pixels] * 2, ":", color="0.1", lw=0.8)
            style = {"ha": "right", "xycoords": axis.get_yaxis_transform()}
            label(axis, "pixels", (0.99, pixels), (0, 5), **style)
        ranks = [rank_correlation(table)]
        for name, runs in table.groupby("optimizer", sort=False):
            style = {"color": colors[name], "mfc": "w" if name == "SGD" else colors[name]}
            axis.plot(runs.loss, runs.classifier, "o-", lw=0.8, ms=5, mew=1.2, label=name, **style)
            ranks.append(f"{name} {rank_correlation(runs)}")
        text = f"and better classifiers: {ranks[0]}\n({', '.join(ranks[1:])})"
        low, high = axis.get_ylim()
        axis.set_ylim(low - 0.2 * (high - low), high)  # room for the text
        style = {"ha": "right", "va": "bottom", "xycoords": "axes fraction", "color": "0.3"}
        label(axis, f"rank correlation of lower losses\n{text}", (1, 0.02), **style)
    axes[0, 0].set_ylabel("linear classifier, %")
    fig.canvas.draw()  # which places the axes
    for axis, (table, _) in zip(axes[0], tables.values()):
        name_rates(axis, table, colors)
    labels = [colors[name] for name in table.optimizer.unique()]
    axes[0, 0].legend(loc="lower left", ncols=2, borderaxespad=0.2, labelcolor=labels)
    fig.alt = "Accuracy of a linear classifier against the loss, for SGD and Adam at four rates."
    return fig


def rank_correlation(table):
    return f"{table.loss.corr(-table.classifier, method='spearman'):+.1f}".replace("-", "−")


def name_rates(axis, table, colors):
    """Write each rate beside its point, on the side where lines and names are fewest."""
    points = 72 / axis.figure.dpi  # in a pixel
    ends = [axis.transData.transform(line.get_xydata()) * points for line in axis.lines]
    taken = np.concatenate([np.linspace(line[:-1], line[1:], 25).reshape(-1, 2) for line in ends])
    for row in table.itertuples():
        at = axis.transData.transform((row.loss, row.classifier)) * points
        size = np.array([2.5 * len(f"{row.rate:g}") + 1, 6])
        angles = np.pi / 4 * np.array([2, 1, 3, 6, 5, 7, 0, 4])  # above first
        sides = [(size + 3) * (np.cos(angle), np.sin(angle)) for angle in angles]
        side = min(sides, key=lambda side: (np.abs(taken - at - side) < size).all(1).sum())
        text, color = f"{row.rate:g}", colors[row.optimizer]
        label(axis, text, (row.loss, row.classifier), side, color=color)
        corners = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
        taken = np.concatenate([taken, at + side + 0.9 * size * np.array(corners)])


def one_epoch(R, usage, W, titles):
    """Draw one model: correlations (K, K), usage (K,), some rows of W (16, D), and two titles."""
    fig, axes = plt.subplots(1, 3, figsize=(TWO, 1.7), width_ratios=[1, 1, 2.3])
    correlations_and_usage(*axes[:2], R, usage, ORANGE)
    tiles(axes[2], W, 8)
    for axis, title in zip(axes, (*titles, f"weights of {len(W)} units")):
        axis.set_title(title, loc="center")
    fig.alt = "Correlations of the units, on what share of the digits each is active, and weights."
    return fig
