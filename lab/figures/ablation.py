"""The figures of notebook 2."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.stats import gaussian_kde

import helpers as h
from lab.figures.style import BLUE, GREEN, GREY, ORANGE, TWO_COLUMNS, bare, label, name_rows, tiles
from lab.measures import predicted_share_active

BROWN, DARK = "#8a4505", "#2e1600"  # the paper's loss with fewer units
MODEL_COLORS = {"A": GREY, "B": GREEN, "C": ORANGE, "D": BLUE}


def color_of_model(name):
    """Return the colour of a model that is called "C", or "C: what it has"."""
    return MODEL_COLORS.get(name.partition(":")[0], GREY)


def draw_responsibilities(digits, of_mixture, E):
    """Draw who is responsible for digits (n, D): bars of responsibilities of_mixture (n, K), and of
    a layer with energies E (n, K), whose active units come last."""
    n, K = E.shape
    fig, axes = plt.subplots(n, 3, figsize=(TWO_COLUMNS, 0.3 * n + 0.6), width_ratios=[0.6, 6, 6])
    r = h.responsibilities(E)
    for i, (picture, a, b) in enumerate(axes):
        tiles(picture, digits[i][None], 1, signed=False, scale=1)
        largest_first = of_mixture[i].sort(descending=True).values.tolist()
        shades = plt.get_cmap("Greys")([0.85, 0.6, 0.42, 0.3, 0.22]).tolist()
        add_bar(a, largest_first, [shades[min(k, 4)] for k in range(len(largest_first))])
        order = E[i].argsort()
        colors = ["0.75" if E[i, j] == 0 else ORANGE for j in order]
        add_bar(b, r[i, order].tolist(), colors)
        n_inactive = int((E[i] == 0).sum())
        label(b, f"{n_inactive} inactive", (1.01, 0.5), ha="left", xycoords="axes fraction")
    of_gaussians = f"a mixture of {of_mixture.shape[1]} Gaussians: largest first"
    of_units = "the paper's layer: inactive units, then active ones"
    for axis, title in zip(axes[0, 1:], (of_gaussians, of_units)):
        axis.set_title(title, loc="center", fontsize=8.5)
    fig.alt = (
        "For eight digits, how responsibility is shared: in a mixture one or a few components take "
        "most of it; in the paper's layer, the inactive units take equal slices."
    )
    return fig


def add_bar(axis, widths, colors):
    """Draw a bar of length 1, cut into parts."""
    ends = np.cumsum(widths)
    axis.barh(0, widths, 1, left=ends - widths, color=colors, ec="w", lw=0.5)
    axis.set(xlim=(0, 1), ylim=(-0.5, 0.5))
    bare(axis)


def draw_models(models):
    """Draw units of one seed. models: {"A: what it has": (energies (N, K), weights (K, D))}, of A
    to D."""
    fig, axes = plt.subplots(3, 4, figsize=(TWO_COLUMNS, 4.4), height_ratios=[1.6, 0.75, 0.75])
    for (name, (E, W)), (a, b, c) in zip(models.items(), axes.T):
        K, usage = len(W), h.usage(E)
        a.set_title(name, loc="center", weight="bold", color=color_of_model(name), fontsize=7.5)
        R, order = sort_correlations(h.correlation(E))
        a.imshow(R, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
        bare(a, framed=True)
        n_active = float(usage.sum())
        b.bar(
            np.arange(K),
            usage.sort(descending=True).values,
            width=1,
            color=color_of_model(name),
            lw=0,
        )
        b.set(xlim=(-0.5, K - 0.5), ylim=(0, 1), xticks=[], yticks=[0, 0.5, 1])
        b.set_xlabel(f"{n_active:.1f} of {K} active" if n_active else f"all {K} units are dead")
        b.tick_params(labelleft=b is axes[1, 0])
        bare(c)
        if R.any():
            redundancy = (R**2).sum() - (R.diagonal() ** 2).sum()
            a.set_xlabel(f"redundancy {redundancy:,.0f}")
            tiles(c, W[order[units_of_largest_block(R)]], 4)
    n_active = [h.l0(E) for E, _ in models.values()]
    if abs(n_active[1] - n_active[2]) < 0.1 * n_active[2]:
        bracket(axes[1, 1], "equal on average")
    names = "correlations\nof pairs", "active on this\nshare of digits", "weights of\n8 units"
    for axis, name in zip(axes[:, 0], names):
        axis.set_ylabel(name)
    fig.align_ylabels(axes[:, 0])
    fig.alt = (
        f"For each of {'; '.join(models)}: correlations of all pairs of units, with blocks if they "
        "are copies; the share of digits that activates each unit; the weights of eight units."
    )
    return fig


def bracket(axis, text):
    """Draw a bracket over this axis and the next, and a text on it."""
    high = 1.12
    x, y = [0.02, 0.02, 2.06, 2.06], [high - 0.08, high, high, high - 0.08]
    (line,) = axis.plot(x, y, color="0.1", lw=0.8, transform=axis.transAxes, clip_on=False)
    line.set_in_layout(False)
    style = {"xycoords": "axes fraction", "fontsize": 8, "va": "bottom"}
    label(axis, text, (1.04, high), (0, 1), **style).set_in_layout(False)


def sort_correlations(R):
    """Return absolute correlations (K, K) with similar units side by side, and their order (K,)."""
    R = np.abs(np.asarray(R, dtype=float))
    # SciPy would take a diagonal of 0, as of dead units, for distances
    order = leaves_list(linkage(1 + R, "average"))
    return R[order][:, order], order


def units_of_largest_block(R, n=8):
    """Return the places of n neighbours in R (K, K), from the end of its largest block: the last
    n - 3 of the longest row of neighbours with correlations above 0.9, and the three after it."""
    copies = np.zeros(len(R), int)  # of units before, in the same row
    for i in range(1, len(R)):
        copies[i] = (copies[i - 1] + 1) * (R[i - 1, i] > 0.9)
    first = copies.argmax() - (n - 4)
    return np.arange(n) + min(max(first, 0), len(R) - n)


def draw_one_digit(digit, layers):
    """Draw a digit (D,), and of each unit E and exp(-E), sorted by energy. layers: {title: its
    energies (K,)}."""
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
        for axis, name in zip((a, b), ("$E_j$", "$e^{-E_j}$") if i == 0 else ()):
            axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    fig.align_ylabels()
    fig.alt = f"Energies and exp(-E) of units on a digit, {', '.join(layers)}."
    return fig


def draw_count(energies):
    """Draw losses of digits against their active units, and how many digits have so many; dotted,
    how many would if the units of C were independent. energies: {"B": E (N, K), "C", "D"}."""
    K = energies["C"].shape[1]
    size = {"figsize": (0.8 * TWO_COLUMNS, 3.4), "height_ratios": [2, 1], "sharex": True}
    fig, (a, b) = plt.subplots(2, 1, **size)
    n = np.linspace(0, K - 1, 400)
    a.plot(n, -np.log(K - n), color="0.3", lw=1.2, zorder=3)
    places = {}
    for name, E in energies.items():
        active = (E > 0).sum(1)
        loss = -torch.logsumexp(-E, 1)
        style = {"ms": 3, "mew": 0, "alpha": 0.7, "rasterized": True}
        a.plot(active[::20], loss[::20], ".", color=color_of_model(name), **style)
        share = 100 * torch.bincount(active, minlength=K + 1) / len(E)
        b.fill_between(
            np.arange(K + 1), share, step="mid", color=color_of_model(name), alpha=0.5, lw=0
        )
        places[name] = int(share.argmax()), float(share.max())
    usage = h.usage(energies["C"])
    independent = 100 * shares_if_independent(usage.numpy())
    b.plot(np.arange(K + 1), independent, ":", color="0.1", lw=1)
    for name, (at, height) in places.items():
        style = {"color": color_of_model(name), "fontsize": 10, "weight": "bold"}
        label(b, name, (at, height), (0, 6), **style)
    top = places["C"][0] + 4, 0.6 * independent.max()
    label(b, "C, if its units\nwere independent", top, (4, 0), ha="left")
    add_price_of_one_unit(a, K, n=int(usage.sum()))
    label(a, f"$-\\log({K}-n)$", (0.62 * K, -np.log(0.38 * K)), (-4, 12), ha="right", fontsize=9)
    a.set(xlim=(-0.01 * K, K + 0.6), ylim=(-np.log(K) - 0.3, 0.5), ylabel="log-sum-exp loss")
    b.set(ylim=(0, None), ylabel="digits, %", xlabel="active units $n$ on a digit")
    fig.alt = (
        "A dot for each digit, its log-sum-exp loss against its active units, along the curve "
        "-log(K - n); and how many digits have n active units."
    )
    return fig


def shares_if_independent(usage):
    """Return on what share of inputs 0, 1, ..., K units are active if each of usage (K,) is active
    on its own."""
    shares = np.ones(1)
    for one in usage:
        shares = np.convolve(shares, [1 - one, one])
    return shares


def add_price_of_one_unit(axis, K, n):
    """Draw the step of -log(K - n) from n active units to one more."""
    low, high = -np.log(K - n), -np.log(K - n - 1)
    axis.plot([n, n + 1], [low, low], color="k", lw=1)
    axis.plot([n + 1, n + 1], [low, high], color="k", lw=2)
    arrow = {"arrowstyle": "-", "lw": 0.7, "shrinkB": 2}
    at, text = (n + 1, -np.log(K - n - 0.5)), f"one more active unit\ncosts 1/{K - n}"
    label(axis, text, at, (-40, 42), arrowprops=arrow, fontsize=8.5)


def draw_strangers(losses):
    """Draw how badly digits, clothes and noise are explained, as smooth densities: a layer's losses
    are nearly those of whole numbers of units. losses: {title of a panel: {"digits": losses (N,)}},
    of these inputs and perhaps of others."""
    fig, axes = plt.subplots(1, len(losses), figsize=(TWO_COLUMNS, 1.9), squeeze=False)
    colors = {"digits": ORANGE, "clothes": BLUE, "noise": GREY}
    for axis, (title, of_inputs) in zip(axes[0], losses.items()):
        groups = {name: of_inputs[name] for name in colors if name in of_inputs}
        everything = torch.cat([*groups.values()])
        low, high = everything.quantile(0.001), everything.quantile(0.995)
        at = np.linspace(float(low), float(high), 200)
        for i, (name, values) in enumerate(groups.items()):
            heights = gaussian_kde(values, 0.3)(at)
            axis.fill_between(at, heights, color=colors[name], alpha=0.2, lw=0)
            axis.plot(at, heights, color=colors[name], lw=1.4)
            top = at[heights.argmax()], heights.max()
            style = {"color": colors[name], "fontsize": 8.5, "weight": "bold"}
            label(axis, name, top, (4 * i, 5 + 3 * i), **style)
        axis.set(yticks=[], ylim=(0, 1.35 * axis.dataLim.y1), title=title)
        axis.set_xlabel("log-sum-exp loss: worse explained →")
        axis.spines["left"].set_visible(False)
    fig.alt = (
        "Densities of the log-sum-exp loss of digits, and of inputs of other kinds, in each of: "
        f"{'; '.join(losses)}."
    )
    return fig


def draw_agreements(table):
    """Draw how much changes in training change the units. table: for each pair of layers a row of
    "change", "model", "data" and "agreement"."""
    models, changes = [*table.model.unique()], [*table.change.unique()]
    fig, axes = plt.subplots(1, len(models), figsize=(TWO_COLUMNS, 1.7), sharex=True, sharey=True)
    for axis, model in zip(axes, models):
        color = color_of_model(model)
        for i, (data, some) in enumerate(table[table.model == model].groupby("data", sort=False)):
            height = some.change.map(changes.index) + 0.36 * i - 0.18
            face = color if i == 0 else "w"
            axis.plot(some.agreement, height, "o", mec=color, mfc=face, ms=5, label=data)
        axis.axvline(1, color="0.8", lw=0.8, zorder=0)
        name_rows(axis, changes)
        axis.set(xlabel="agreement with the original's units")
        axis.set_title(f"in {model}", loc="center", color=color, weight="bold")
        axis.tick_params(axis="y", labelleft=axis is axes[0])
    axes[-1].legend(loc="lower left", handletextpad=0.1)
    fig.alt = (
        f"Agreement of units with those of the original in {' and '.join(models)} after each of: "
        f"{'; '.join(changes)}."
    )
    return fig


def draw_how_sparse(table, weight=1, n_units=64, batch_size=128):
    """Draw what an active unit costs and what variance pays for it, and the share of active units
    against N / (lambda K). table: for each layer a row of "data", "units", "ratio", which is
    N / (lambda K), and "share"."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(TWO_COLUMNS, 2.6), width_ratios=[1, 1.8])
    add_price_and_pay(a, weight, n_units, batch_size)
    add_shares(b, table)
    fig.alt = (
        "Cost and pay of an active unit against the share of active units; and this share against "
        f"N over lambda K, measured on {' and '.join(table.data.unique())}, beside the formula."
    )
    return fig


def add_price_and_pay(axis, weight, n_units, batch_size):
    """Draw the slopes of the log-sum-exp and the variance term by the share of active units."""
    p = np.linspace(0.02, 0.9, 300)
    charge = batch_size / (n_units * (1 - p))
    pay = weight * (1 / p - 1 / (2 - p))
    axis.plot(100 * p, charge, color=ORANGE)
    axis.plot(100 * p, pay, color=BLUE)
    balance = predicted_share_active(n_units, batch_size, weight)
    cost = batch_size / (n_units * (1 - balance / 100))
    axis.plot(balance, cost, "o", color="0.1", ms=5)
    axis.plot([balance] * 2, [0, cost], ":", color="0.1", lw=0.8)
    label(axis, f"{balance:.0f}%", (balance, 0), (4, 7), ha="left", fontsize=9)
    at = np.abs(pay - 11).argmin()
    style = {"fontsize": 8.5}
    label(axis, "variance pays", (100 * p[at], pay[at]), (6, 0), ha="left", color=BLUE, **style)
    label(axis, "an active\nunit costs", (70, 4.4), (-3, 14), ha="right", color=ORANGE, **style)
    axis.set(xlim=(0, 90), ylim=(0, 14), xlabel="active, $p$, %", title="(a) price and pay")
    axis.set_ylabel("slope of the loss by $p$")


def add_shares(axis, table):
    """Draw shares of active units against N / (lambda K), beside the formula and the paper's."""
    ratios = np.logspace(-1.7, 1.15, 200)
    formula = predicted_share_active(n_units=1, batch_size=ratios)
    axis.plot(ratios, formula, color="0.7", lw=3, zorder=0)
    label(axis, "$1-\\sqrt{N/(N+2\\lambda K)}$", (0.025, 62), ha="left", fontsize=9)
    markers = {"16": "v", "32": "s", "64": "o", "128": "D", "256": "P"}
    for data, face in zip(table.data.unique(), (ORANGE, "w")):
        color = ORANGE if face == ORANGE else BLUE
        for units, some in table[table.data == data].groupby("units"):
            style = {"marker": markers.get(units, "X"), "mec": color, "mfc": face, "ms": 4.5}
            axis.plot(some.ratio, some.share, ls="", **style)
        axis.plot([], [], "o", mec=color, mfc=face, ms=4.5, label=data)
    for units, marker in markers.items():
        axis.plot([], [], ls="", marker=marker, color="0.4", ms=4.5, label=f"{units} units")
    axis.plot(2, 100 * 17.2 / 64, "*", color="k", ms=10, mec="w", zorder=4, label="the paper")
    axis.legend(loc="upper right", handletextpad=0.1, labelspacing=0.3)
    axis.set_xscale("log", base=2)
    ticks = [2.0**k for k in range(-5, 4)]
    axis.set_xticks(ticks, [f"1/{round(1 / t)}" if t < 1 else f"{t:g}" for t in ticks])
    axis.set(ylim=(0, 100), ylabel="active units, %", xlabel="$N/(\\lambda K)$")
    axis.set_title("(b) measured, and the formula")


def draw_fall_of_loss(losses, table, tolerance=1):
    """Draw the fall of the loss. losses: {(rate, units): of each epoch (T,)}; table: a row of
    "rate", "units", "living units" and "epoch", that of convergence or NaN, for each. A fall stands
    at the end of the earlier epoch."""
    fig, axis = plt.subplots(figsize=(0.8 * TWO_COLUMNS, 3))
    last, bottom = max(map(len, losses.values())), 0.12 * tolerance
    sizes = sorted({units for _, units in losses}, reverse=True)
    ticks = [1, 2, 5]
    for units, color in zip(sizes, (ORANGE, BROWN, DARK)):
        runs = table[table.units == str(units)]
        for rate, epoch in zip(runs.rate, runs.epoch):
            add_falls(axis, losses[float(rate), units], epoch, color)
        living, fewest = int(runs["living units"].max()), int(runs["living units"].min())
        end = 2.2 * units / tolerance
        axis.plot([1, end], [living, living / end], color="0.8", lw=4, zorder=0)
        ticks.append(living / tolerance)
        name = f"{living}" if fewest == living else f"{fewest} to {living}"
        if units == sizes[0]:
            name += f" living units, {len(runs)} learning rates"
        label(axis, name, (8, living / 8), (4, 8), ha="left", color=color, fontsize=8.5)
        if len(ends := runs.epoch.dropna()):
            epochs = " to ".join(dict.fromkeys(f"{f(ends):.0f}" for f in (min, max)))
            label(axis, epochs, (float(ends.mean()), bottom), (0, 8), color=color, fontsize=9)
    axis.axhline(tolerance, color="k", lw=0.8)
    text = f"the script's tolerance: {tolerance:g}"
    label(axis, text, (1, tolerance), (6, -7), ha="left")
    label(axis, "grey: $K/t$", (1.05, 4 * tolerance), (2, 0), ha="left", color="0.45", fontsize=8.5)
    label(axis, "○ declared converged in epoch", (1.05, bottom), (2, 8), ha="left", fontsize=8.5)
    axis.set(xlabel="epoch $t$", ylabel="fall of the loss in the epoch", xlim=(1, last))
    axis.set(ylim=(bottom, 2.6 * sizes[0]), xticks=[t for t in ticks if 1 <= t <= last])
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter("{x:g}")
    axis.minorticks_off()
    fig.alt = "The fall of the loss in each epoch, beside grey lines K / t; circles: convergence."
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
    fig, axes = plt.subplots(1, 3, figsize=(0.7 * TWO_COLUMNS, 1.6), width_ratios=[1, 3, 3])
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
    axes[0].set_title("weights", loc="center")
    axes[1].set_title(f"most active:\nresponsibility up to {r_on.max():.0e}", loc="center")
    axes[2].set_title(f"inactive:\nresponsibility about {r_off.mean():.1g}", loc="center")
    fig.alt = "Weights of two trained units, digits on which they are active, and inactive."
    return fig
