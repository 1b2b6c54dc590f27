"""The figures of notebook 2."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.stats import gaussian_kde

import helpers as h
from lab.ablation import LOSSES, inputs_without_vote, predicted_share_active
from lab.figures.style import BLUE, GREEN, GREY, ORANGE, TWO_COLUMNS, bare, label, tiles
from lab.show import lowest_to_highest

LOSS_COLORS = dict(zip(LOSSES, (GREY, GREEN, ORANGE, BLUE)))
DECORRELATION_NAMES = {"C": "with decorrelation", "B": "without decorrelation"}
MARKERS = {  # of what is changed in `lab.ablation.BALANCE_SETTINGS`
    "nothing": "P",
    "units": "X",
    "inputs": "s",
    "weight of both": "^",
    "units, with weight N/2K": "D",
    "512 units, no decorrelation": "o",
}
COMPETITION_NAMES = {"on": "with competition", "off": "without competition"}


def draw_ablation(layers):
    """Draw layers of one seed, A to D. layers: {letter: (energies (N, K), weights (K, D))}."""
    size = {"figsize": (TWO_COLUMNS, 5.1), "height_ratios": [1.5, 0.7, 1.5]}
    fig, axes = plt.subplots(3, 4, **size)
    for (letter, (E, W)), (similarity, used, weights) in zip(layers.items(), axes.T):
        K, color = len(W), LOSS_COLORS[letter]
        similarity.set_title(
            f"{letter}\n{LOSSES[letter].name}", loc="center", color=color, weight="bold"
        )
        R, order = sort_correlations(h.correlation(E))
        similarity.imshow(R, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
        bare(similarity, framed=True)
        dead = h.dead_units(E)
        if dead == K:
            style = {"xycoords": "axes fraction", "fontsize": 9}
            label(similarity, f"collapse:\n{dead} of {K} units\nare dead", (0.5, 0.5), **style)
        else:
            similarity.set_xlabel(f"redundancy {h.redundancy(E):,.0f}".replace("nan", "–"))
        usage = h.usage(E).sort(descending=True).values.numpy()
        used.bar(np.arange(K), usage, width=1, color=color, lw=0)
        used.set(xlim=(-0.5, K - 0.5), ylim=(0, 1), xticks=[], yticks=[0, 0.5, 1])
        used.set_xlabel(f"L0 {h.l0(E):.1f}")
        used.tick_params(labelleft=used is axes[1, 0])
        tiles(weights, W[order[units_of_largest_block(R)]], 4)
    names = "similarity of units", "feature usage", "weights of\nsixteen units"
    for axis, name in zip(axes[:, 0], names):
        axis.set_ylabel(name)
    fig.align_ylabels(axes[:, 0])
    add_bracket(axes[0, 1], axes[0, 3], "InfoMax")
    fig.alt = (
        "For each of the losses A to D: absolute correlations of all pairs of units, similar ones "
        "side by side; the share of digits that activates each unit; the weights of sixteen units."
    )
    return fig


def add_bracket(left, right, text):
    """Draw a bracket from above one axis to above another, and a text on it."""
    fig = left.figure
    fig.get_layout_engine().set(rect=(0, 0, 1, 0.95))
    fig.draw_without_rendering()
    x0, x1 = left.get_position().x0, right.get_position().x1
    y = left.get_tightbbox().transformed(fig.transFigure.inverted()).y1 + 0.008
    line = plt.Line2D([x0, x0, x1, x1], [y, y + 0.01, y + 0.01, y], color="0.1", lw=0.8)
    fig.add_artist(line)
    fig.text((x0 + x1) / 2, y + 0.014, text, ha="center", va="bottom", fontsize=9, weight="bold")


def sort_correlations(R):
    """Return absolute correlations (K, K) with similar units side by side, and their order (K,)."""
    R = np.abs(np.asarray(R, dtype=float))
    # SciPy would take a diagonal of 0, as of dead units, for distances
    order = leaves_list(linkage(1 + R, "average"))
    return R[order][:, order], order


def units_of_largest_block(R, n=16):
    """Return the places of n neighbours in R (K, K), from the end of its largest block: the last
    n - 3 of the longest row of neighbours with correlations above 0.9, and the three after it; of
    all, if there are fewer."""
    n = min(n, len(R))
    copies = np.zeros(len(R), int)  # of units before, in the same row
    for i in range(1, len(R)):
        copies[i] = (copies[i - 1] + 1) * (R[i - 1, i] > 0.9)
    first = copies.argmax() - (n - 4)
    return np.arange(n) + min(max(first, 0), len(R) - n)


def draw_two_by_two(layers):
    """Draw weights of the first 36 units of B and C, with competition and without. layers:
    {(letter, "on" or "off"): (energies (N, K), weights (K, D))}."""
    fig, axes = plt.subplots(2, 2, figsize=(0.8 * TWO_COLUMNS, 0.88 * TWO_COLUMNS))
    for row, (letter, decorrelation) in zip(axes, DECORRELATION_NAMES.items()):
        for axis, (competition, name) in zip(row, COMPETITION_NAMES.items()):
            E, W = layers[letter, competition]
            tiles(axis, W[:36], 6)
            axis.set_xlabel(f"redundancy {h.redundancy(E):,.0f}", fontsize=9)
            if letter == "C":
                axis.set_title(name, loc="center", weight="bold", fontsize=9.5)
        row[0].set_ylabel(f"{letter}: {decorrelation}", weight="bold", fontsize=9.5)
    fig.alt = (
        "Weights of 36 units in four trainings: with decorrelation and without, each with "
        "competition and without."
    )
    return fig


def draw_dose(table):
    """Draw redundancy against the weight of decorrelation. table: "redundancy" by decorrelation,
    competition and seed."""
    fig, axis = plt.subplots(figsize=(0.62 * TWO_COLUMNS, 2.5))
    doses = [*table.index.unique("decorrelation")]
    styles = {
        "on": ("0.1", "-", "0.1", "min", (-50, -17)),
        "off": ("0.45", "--", "w", "max", (-10, 8)),
    }
    for competition, (color, line, face, end, shift) in styles.items():
        of_one = table.redundancy.xs(competition, level="competition")
        means = of_one.groupby("decorrelation").mean()
        axis.plot(range(len(doses)), means, line, color=color, lw=1.4)
        at = of_one.index.get_level_values("decorrelation").map(doses.index)
        axis.plot(at, of_one, "o", color=color, mfc=face, ms=4, mew=0.9)
        second = 1, of_one.groupby("decorrelation").agg(end).iloc[1]
        style = {"ha": "left", "color": color, "fontsize": 8.5}
        label(axis, COMPETITION_NAMES[competition], second, shift, **style)
    names = [f"{dose:g}" for dose in doses]
    names[0], names[-1] = "0\n(B)", "1\n(C)"
    axis.set_xticks(range(len(doses)), names)
    axis.set(yscale="log", xlabel="weight of decorrelation", ylabel="redundancy")
    axis.set_xlim(-0.35, len(doses) - 0.65)
    axis.set_ylim(top=1.8 * table.redundancy.max())
    ticks = [30, 100, 300, 1000, 3000]
    axis.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    fig.alt = "Redundancy against the weight of decorrelation, with competition and without."
    return fig


def draw_votes(digits, votes):
    """Draw digits (n, D), each as dark as its vote. votes: {title: (votes of these digits (n,),
    votes of all test digits (N,))}."""
    fig, axes = plt.subplots(1, len(votes), figsize=(TWO_COLUMNS, 2.65), squeeze=False)
    for axis, (title, (of_drawn, of_all)) in zip(axes[0], votes.items()):
        tiles(axis, digits * of_drawn.clamp(max=1)[:, None], 10, signed=False, scale=1)
        axis.set_title(title, loc="center")
        axis.set_xlabel(f"less than a tenth of a vote: {inputs_without_vote(of_all):.0f}%")
        axis.spines[:].set_visible(True)
    fig.alt = (
        f"A hundred digits, each as dark as its vote without competition, in {', '.join(votes)}."
    )
    return fig


def draw_one_digit(digit, layers):
    """Draw a digit (D,), and of each unit E and exp(-E), sorted by energy. layers: {title: its
    energies (K,)}, of C."""
    mosaic = [["digit", *(f"{row}{i}" for i in range(len(layers)))] for row in "Ez"]
    size = {"figsize": (TWO_COLUMNS, 2), "width_ratios": [0.72] + [2] * len(layers)}
    fig, axes = plt.subplot_mosaic(mosaic, **size)
    tiles(axes["digit"], digit[None], 1, signed=False, scale=1)
    axes["digit"].set_title("a test digit", loc="center")
    for i, (title, E) in enumerate(layers.items()):
        E = E.sort(descending=True).values.double().numpy()
        K, n, z = len(E), int((E > 0).sum()), np.exp(-E)
        active, inactive = (n - 1) / 2, (K + n - 1) / 2  # the middle of either
        a, b = axes[f"E{i}"], axes[f"z{i}"]
        for axis, values, room in ((a, E, 1.05), (b, z, 1.5)):
            color = [ORANGE] * n + ["0.45"] * (K - n)
            axis.bar(np.arange(K), values, 0.8, color=color, lw=0)
            axis.axhline(0, c="0.2", lw=0.6)
            axis.set(xlim=(-0.8, K - 0.2), xticks=[], ylim=(0, room * values.max()))
            axis.spines["bottom"].set_visible(False)
        a.set_title(title, loc="center", weight="bold")
        label(a, f"{n} active", (active, 0), (0, -7), color=ORANGE)
        label(a, f"{K - n} inactive: $E=0$", (inactive, 0), (0, -7), color="0.35")
        b.set_yticks([0, 1])
        label(b, f"sum {z[:n].sum():.1f}", (active, 1.26), color=ORANGE)
        label(b, f"sum {K - n}", (inactive, 1.26), color="0.35")
        if i == 0:
            a.set_ylabel("energy\n$E_j$", rotation=0, ha="right", va="center", fontsize=8.5)
            b.set_ylabel(
                "part of $Z$\n$e^{-E_j}$", rotation=0, ha="right", va="center", fontsize=8.5
            )
    fig.align_ylabels()
    fig.alt = f"Energies and exp(-E) of units on a digit, {', '.join(layers)}."
    return fig


def draw_loss_by_count(energies):
    """Draw losses of digits against their active units, and how many digits have so many. energies:
    {letter: E (N, K)}, of B, C and D."""
    K = energies["C"].shape[1]
    size = {"figsize": (0.8 * TWO_COLUMNS, 3.6), "height_ratios": [2, 1], "sharex": True}
    fig, (a, b) = plt.subplots(2, 1, **size)
    n = np.linspace(0, K - 1, 400)
    a.plot(n, -np.log(K - n), color="0.8", lw=4, zorder=0)
    for letter, E in energies.items():
        color = LOSS_COLORS[letter]
        active = (E > 0).sum(1)
        loss = -torch.logsumexp(-E, 1)
        style = {"ms": 4, "mew": 0, "alpha": 0.7, "rasterized": True}
        a.plot(active[::20], loss[::20], ".", color=color, **style)
        share = 100 * torch.bincount(active, minlength=K + 1) / len(E)
        b.fill_between(np.arange(K + 1), share, step="mid", color=color, alpha=0.5, lw=0)
        top = int(share.argmax()), float(share.max())
        label(b, letter, top, (0, 7), color=color, fontsize=10, weight="bold")
    label(a, f"$-\\log({K}-n)$", (0.9 * K, -np.log(0.1 * K)), (-8, 8), ha="right", fontsize=9)
    a.set(xlim=(-0.01 * K, K + 0.6), ylim=(-np.log(K) - 0.3, 0.5), ylabel="log-sum-exp loss")
    b.set(ylim=(0, 1.3 * b.dataLim.y1), ylabel="digits, %", xlabel="active units $n$ on a digit")
    add_price_of_one_unit(a.inset_axes([0.1, 0.5, 0.34, 0.46]), K, int(h.l0(energies["C"])))
    fig.alt = (
        "A dot for each digit, its log-sum-exp loss against its active units, along the curve "
        "-log(K - n); and how many digits have n active units."
    )
    return fig


def add_price_of_one_unit(axis, K, n):
    """Draw the step of -log(K - n) from n active units to one more."""
    near = np.linspace(n - 0.7, n + 1.7, 50)
    low, high = -np.log(K - n), -np.log(K - n - 1)
    axis.plot(near, -np.log(K - near), color="0.3", lw=1.2)
    axis.plot([n, n + 1, n + 1], [low, low, high], color="k", lw=1)
    axis.spines[["top", "right"]].set_visible(True)
    axis.set(xticks=[n, n + 1], yticks=[], xlim=(near[0], near[-1]))
    axis.set_title(f"one more costs 1/{K - n}", loc="center", fontsize=8.5)


def draw_strangers(losses):
    """Draw how badly digits, clothes and noise are explained, as smooth densities: a layer's losses
    are nearly those of whole numbers of units. losses: {title of a panel: {"digits": losses (N,)}},
    of these inputs and perhaps of others."""
    fig, axes = plt.subplots(1, len(losses), figsize=(TWO_COLUMNS, 1.9), squeeze=False)
    styles = {"digits": ("0.1", "-"), "clothes": ("0.45", "--"), "noise": ("0.6", ":")}
    for axis, (title, of_inputs) in zip(axes[0], losses.items()):
        groups = {name: of_inputs[name] for name in styles if name in of_inputs}
        everything = torch.cat([*groups.values()])
        low, high = everything.quantile(0.001), everything.quantile(0.995)
        at = np.linspace(float(low), float(high), 200)
        for name, values in groups.items():
            color, line = styles[name]
            heights = gaussian_kde(values, 0.3)(at)
            axis.plot(at, heights, line, color=color, lw=1.5, label=name)
        axis.set(yticks=[], ylim=(0, 1.3 * axis.dataLim.y1), title=title)
        axis.set_xlabel("log-sum-exp loss")
        axis.spines["left"].set_visible(False)
    axes[0, 0].legend(loc="upper right")
    fig.alt = (
        "Densities of the log-sum-exp loss of digits, and of inputs of other kinds, in each of: "
        f"{'; '.join(losses)}."
    )
    return fig


def draw_how_sparse(table, n_units=64, batch_size=128):
    """Draw what an active unit costs and what variance pays for it, in the paper's setting; and the
    share of active units against N / (lambda K). table: "share active" as of
    `lab.ablation.shares_active`."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO_COLUMNS, 2.7), width_ratios=[1, 1.9])
    add_price_and_pay(a, n_units, batch_size)
    add_shares(b, table)
    fig.alt = (
        "Price and pay of an active unit against the share of active units; and this share against "
        "N over lambda K, measured in several settings, beside the formula."
    )
    return fig


def add_price_and_pay(axis, n_units, batch_size):
    """Draw the slopes of the log-sum-exp and the variance term by the share of active units."""
    p = np.linspace(0.02, 0.9, 300)
    price = batch_size / (n_units * (1 - p))
    pay = 1 / p - 1 / (2 - p)
    axis.plot(100 * p, price, color="0.1")
    axis.plot(100 * p, pay, "--", color="0.45")
    balance = predicted_share_active(n_units, batch_size)
    height = batch_size / (n_units * (1 - balance / 100))
    axis.plot(balance, height, "o", color="0.1", ms=5)
    axis.plot([balance] * 2, [0, height], ":", color="0.1", lw=0.8)
    label(axis, f"{balance:.0f}%", (balance, 0), (4, 7), ha="left", fontsize=9)
    at = np.abs(pay - 10).argmin()
    style = {"fontsize": 8.5}
    label(axis, "variance pays", (100 * p[at], pay[at]), (7, 0), ha="left", color="0.4", **style)
    label(axis, "the price", (62, batch_size / n_units / 0.38), (-6, 9), ha="right", **style)
    axis.set(xlim=(0, 90), ylim=(0, 14), xlabel="active, $p$, %", title="(a) price and pay")
    axis.set_ylabel("slope of the loss by $p$")


def add_shares(axis, table):
    """Draw shares of active units against N / (lambda K), beside the formula and the paper's. Marks
    at the paper's ratio, 2, stand side by side."""
    ratios = np.logspace(-3.4, 4, 200, base=2)
    formula = predicted_share_active(n_units=1, batch_size=ratios)
    axis.plot(ratios, formula, color="0.8", lw=4, zorder=0)
    style = {"ha": "left", "color": "0.45", "fontsize": 9}
    label(axis, "$1-\\sqrt{N/(N+2\\lambda K)}$", (0.1, 10), **style)
    aside = 0.7
    for changed, marker in MARKERS.items():
        rows = table[table.index.get_level_values("changed") == changed]["share active"]
        marks = []
        for (_, units, inputs, weight, _, _), share in rows.items():
            ratio = inputs / weight / units
            if changed == "units, with weight N/2K":
                ratio, aside = aside * ratio, 1.08 * aside
            marks.append((ratio, share))
            if (units, weight) == (512, 1):
                name = "512 units,\nno decorrelation" if marker == "o" else "512 units"
                label(axis, name, marks[-1], (8, 0), ha="left")
        face = "w" if marker == "o" else ORANGE
        name = "_" if marker == "o" else changed  # it has a label of its own
        style = {"ls": "", "mec": ORANGE, "mfc": face, "ms": 5, "label": name}
        axis.plot(*np.transpose(marks or [(np.nan, np.nan)]), marker=marker, **style)
    axis.plot(2.3, 100 * 17.2 / 64, "*", color="k", ms=9, mec="w", zorder=4, label="the paper")
    axis.plot([1.3, 1.3, 2.5, 2.5], [21, 19, 19, 21], color="0.45", lw=0.8)
    label(axis, "all at 2", (1.8, 19), (0, -6), color="0.45")
    axis.legend(loc="upper right", title="changed", alignment="left")
    axis.set_xscale("log", base=2)
    ticks = [2.0**k for k in range(-3, 5)]
    axis.set_xticks(ticks, [f"1/{round(1 / t)}" if t < 1 else f"{t:g}" for t in ticks])
    axis.set(ylim=(0, 100), ylabel="active units, %", xlabel="$N/(\\lambda K)$")
    axis.set_title("(b) measured, and the formula")


def draw_fall_of_loss(losses, table, tolerance=1):
    """Draw the fall of the loss. losses: {(rate, units): of each epoch (T,)}; table: "living units"
    and "epoch of convergence", or NaN, by rate, units and seed. A fall stands at the end of the
    earlier epoch."""
    fig, axis = plt.subplots(figsize=(0.8 * TWO_COLUMNS, 3))
    last, bottom = max(map(len, losses.values())), 0.12 * tolerance
    sizes = sorted({units for _, units in losses}, reverse=True)
    for units, color in zip(sizes, (ORANGE, "0.4", "0.1")):
        runs = table.xs(units, level="units")
        for (rate, _), epoch in runs["epoch of convergence"].items():
            add_falls(axis, losses[rate, units], epoch, color)
        living, fewest = int(runs["living units"].max()), int(runs["living units"].min())
        end = 2.2 * units / tolerance
        axis.plot([1, end], [living, living / end], color="0.85", lw=4, zorder=0)
        name = f"{living}" if fewest == living else f"{fewest} to {living}"
        name += f" living units, {len(runs)} learning rates" if units == sizes[0] else ""
        if units == sizes[0]:
            label(axis, name, (last / 12, 12 * living / last), (6, 9), ha="left", color=color)
        else:
            label(axis, name, (3, living / 3), (-4, -9), ha="right", color=color)
        ends = runs["epoch of convergence"].dropna()
        if len(ends):
            epochs = lowest_to_highest(ends, 0)
            label(axis, epochs, (float(ends.mean()), bottom), (0, 8), color=color, fontsize=9)
    axis.axhline(tolerance, color="k", lw=0.8)
    label(axis, f"the script's tolerance: {tolerance:g}", (1, tolerance), (6, -8), ha="left")
    label(axis, "pale: $K/t$", (1.05, 4 * tolerance), (2, 0), ha="left", color="0.45", fontsize=8.5)
    text = "○ declared converged in epoch"
    label(axis, text, (1.05, bottom), (2, 8), ha="left", fontsize=8.5)
    axis.set(xlabel="epoch $t$", ylabel="fall of the loss in the epoch", xlim=(1, last))
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100) if t <= last]
    axis.set(ylim=(bottom, 2.6 * sizes[0]), xticks=ticks)
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter("{x:g}")
    axis.minorticks_off()
    fig.alt = "The fall of the loss in each epoch, beside pale lines K / t; circles: convergence."
    return fig


def add_falls(axis, losses, epoch, color):
    """Draw how much losses (T,) fall in each epoch, and a circle where they converge."""
    falls = -np.diff(np.asarray(losses))
    axis.loglog(range(1, len(falls) + 1), falls, color=color, lw=0.9, nonpositive="mask")
    if np.isfinite(epoch):
        height = falls[int(epoch) - 1 :][:5].mean()
        axis.plot(epoch, height, "o", color=color, mfc="w", ms=7, mew=1.4, zorder=5)


def draw_two_units(x, weights, E):
    """Draw two units of a trained layer's weights (K, D), with digits of x (N, D) on which each is
    most active by its energies E (N, K), and on which it is inactive."""
    fig, axes = plt.subplots(1, 3, figsize=(0.74 * TWO_COLUMNS, 1.75), width_ratios=[1, 3, 3])
    often = (E > 0).sum(0)
    both = ((often > 2) & (often < len(E) - 2)).nonzero()[:, 0]  # active and inactive on some
    units = both[often[both].argsort()][[len(both) // 8, len(both) * 7 // 8]]
    order = E[:, units].argsort(dim=0, stable=True).T
    off, on = order[:, :3], order[:, -3:]
    r = h.responsibilities(E)
    r_on, r_off = (r[rows, units[:, None]] for rows in (on, off))
    tiles(axes[0], weights[units], 1, names=["active on\nfew digits", "active on\nmany digits"])
    tiles(axes[1], x[on.flatten()], 3, signed=False)
    tiles(axes[2], x[off.flatten()], 3, signed=False)
    power = int(np.ceil(np.log10(float(r_on.max()))))
    axes[0].set_title("weights", loc="center")
    axes[1].set_title(f"most active, the worst fit:\n$r<10^{{{power}}}$", loc="center")
    axes[2].set_title(
        f"inactive, a perfect fit:\n$r$ = 1/{1 / float(r_off.mean()):.0f}", loc="center"
    )
    fig.alt = "Weights of two trained units, digits on which they are active, and inactive."
    return fig


def draw_page(layer, digit, decoded):
    """Draw a layer as the page does: its weights, those that are active on a digit (D,) framed; the
    digit, and the same decoded, {title: (D,)}; and a bar of its responsibilities."""
    E = layer(digit[None])[0]
    side = round(len(E) ** 0.5)
    pictures = {"a test digit": digit} | decoded
    mosaic = [["units", *pictures], ["units", *["bar"] * len(pictures)]]
    size = {"figsize": (TWO_COLUMNS, 2.6), "width_ratios": [2.4] + [1] * len(pictures)}
    fig, axes = plt.subplot_mosaic(mosaic, height_ratios=[1, 0.32], **size)
    tiles(axes["units"], layer.W, side, framed=(E > 0).nonzero()[:, 0].tolist())
    axes["units"].set_title(f"{len(E)} units; framed: active", loc="center")
    for title, image in pictures.items():
        tiles(axes[title], image.clamp(min=0)[None], 1, signed=False)
        axes[title].set_title(title, loc="center")
    axis = axes["bar"]
    active_last = E.sort().values
    r = h.responsibilities(active_last)
    colors = ["0.7" if energy == 0 else ORANGE for energy in active_last]
    left = (r.cumsum(0) - r).tolist()
    axis.barh(0, r.tolist(), 1, left=left, color=colors, ec="w", lw=0.5)
    axis.set(xlim=(0, 1), ylim=(-0.5, 0.5))
    bare(axis)
    axis.set_title("responsibilities: inactive units, and active ones", loc="center", color="0.2")
    fig.alt = (
        "Weights of a layer, those of units that are active on a digit framed; the digit, and as "
        f"{' and '.join(decoded)}; and a bar of the responsibilities of all units."
    )
    return fig
