"""Notebook 3's figures: each function takes what it shows and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.patheffects import withStroke

from lab.plots import GREY, SMALL, TWO, label_ends, log_l0, tiles

ALT = {
    "3_benchmark_input": "Sorted energies of one digit: few units are active, and they have the "
    "least responsibility. Below: the digit, the weight pictures of the units that reject it most, "
    "most of which show its strokes in red, and the reconstruction by the transpose of W.",
    "3_benchmark": "Variance explained against L0, by the transpose or a decoder of its own, and "
    "by a decoder solved for afterwards. TopK is highest, then the L1 SAE, then bounded, which the "
    "solved decoder brings closer; solved, the published form lies near k-means templates.",
    "3_benchmark_balance": "Three units, four pictures each on one scale: the least-squares "
    "decoder, the step from inputs at which the unit rests to inputs at which it is active, their "
    "difference, which looks like kappa W, and next to nothing, which is left over.",
    "3_benchmark_currency": "Share of the solved decoder's variance that the transpose explains, "
    "for two objectives without a prior. Under Adam it depends on the basis, is smallest on "
    "centred pixels, and comes near the share with a prior when the rows are multiplied by the "
    "root of Adam's second moments and the bias is fast. Under SGD only centred pixels fall back.",
    "3_benchmark_units": "Eight units each: bounded and k-means show whole digits, the L1 SAE's "
    "and the TopK SAE's decoders more strokes. Beside them agreement of seeds against the variance "
    "that a solved decoder explains: bounded agrees more, SAEs explain more.",
    "3_story": "Eight units with their own denominator, the same with the batch's mean, and eight "
    "of another seed. Two curves of redundancy that meet as decorrelation grows. One digit and "
    "four reconstructions: the published form's transpose is blurred, the others are sharper.",
}


def picture(axis, image, title=None, **look):
    """A picture (784,) of ink, black on white."""
    options = {"cmap": "gray_r", "vmin": 0, "vmax": 1} | look
    axis.imshow(torch.as_tensor(image).detach().cpu().view(28, 28), **options)
    axis.set(xticks=[], yticks=[])
    if title is not None:
        axis.set_title(title, loc="center")


def digit_figure(x, E, r, W, x_hat, n=7):
    """One picture x (D,) followed: energies E and responsibilities r (K,), up to n rows of W (K, D)
    that reject it, and what Wᵀ makes of its code, x_hat (D,)."""
    x, E, r, W, x_hat = (t.detach().cpu() for t in (x, E, r, W, x_hat))
    order = torch.argsort(E, descending=True)
    fig = plt.figure(figsize=(TWO, 2.7))
    upper, lower = fig.subfigures(2, 1, height_ratios=[1.5, 1])
    a, b = upper.subplots(1, 2)
    units, active = np.arange(len(E)), int((E > 0).sum())
    a.bar(units, E[order], width=1, color="C3", linewidth=0)
    a.set(xlabel="unit, by energy", ylabel="energy E")
    a.set_title(f"(a) {active} of {len(E)} units reject it")
    b.bar(units, r[order], width=1, color="0.5", linewidth=0)
    b.set(xlabel="unit, by energy", ylabel="responsibility r", title="(b) the silent ones claim it")
    sns.despine(fig)
    axes = lower.subplots(1, n + 2)
    picture(axes[0], x, "input")
    picture(axes[-1], x_hat, "by Wᵀ")
    for i, axis in enumerate(axes[1:-1]):
        axis.axis("off")
        if i < active:
            tiles(axis, W[order[i]][None], 1)
            axis.set_title(f"E = {E[order[i]]:.1f}", loc="center")
    return fig


def benchmark_figure(table, looks, lines):
    """Variance explained against L0 by Wᵀ or an SAE's own decoder, and by the solved one.

    table: a row a model; looks: {method: (colour, marker, line)}; lines: {name: (L0s, variance
    explained)}, thin, in the panel of solved decoders.
    """
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 2.7), sharey=True)
    for axis, column in zip(axes, ("transpose", "solved")):
        ends = {}
        for method, (colour, marker, ls) in looks.items():
            rows = table[table.method == method]
            axis.scatter(rows.l0, rows[column], s=4, color=colour, alpha=0.5, lw=0)
            means = rows.groupby("setting")[["l0", column]].mean().sort_values("l0")
            face = {"mfc": colour if method == "bounded" else "w", "ms": 4, "mew": 0.8}
            axis.plot(means.l0, means[column], marker + ls, color=colour, lw=0.9, **face)
            ends[method] = means.l0.iloc[-1], means[column].iloc[-1], colour
        for name, (l0s, values) in lines.items() if column == "solved" else ():
            axis.plot(l0s, values, "-", color=GREY, lw=0.6)
            look = {"color": GREY, "va": "center"} | SMALL
            axis.annotate(name, (l0s[1], values[1]), (4, -5), **look)
        log_l0(axis)
        right = max(end[0] for end in ends.values())
        label_ends(axis, {name: (right, *end[1:]) for name, end in ends.items()})
    axes[0].set(ylabel="variance explained", title="(a) by Wᵀ, or an SAE's own decoder")
    axes[1].set(title="(b) solved for afterwards")
    sns.despine(fig)
    return fig


def balance_figure(rows, units):
    """rows: {title: (K, D)}: pictures of some units, those of one unit on one scale."""
    fig = plt.figure(figsize=(TWO, 0.78))
    for part, unit in zip(fig.subfigures(1, len(units), wspace=0.06), units):
        some = {title: W[unit].detach().cpu() for title, W in rows.items()}
        limit = float(torch.cat([*some.values()]).abs().quantile(0.995))
        look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        for axis, (title, image) in zip(part.subplots(1, len(some)), some.items()):
            picture(axis, image, **look)
            axis.set_title(title, loc="center", fontsize=7)
            sns.despine(ax=axis, left=True, bottom=True)
    return fig


MARKS = {  # of Figure 3.3: the column and the bias, marker, filled, what it says
    "as it is": ("as it is", "own", "o", "k", "as it is"),
    "currency": ("currency", "own", "D", "C1", "in its currency"),
    "fast": ("as it is", "fast", "^", "C0", "another model: fast bias"),
    "both": ("currency", "fast", "P", "C2", "fast bias, and currency"),
}


def currency_figure(table, inputs):
    """Shares of two objectives without a prior, of `lab.reasons.run_cases`; dots are seeds.

    A thin line joins the means of one case; a grey bar is the same objective with a prior.
    """
    fig, axes = plt.subplots(1, 2, figsize=(TWO, 3.2), sharey=True, sharex=True)
    pairs = {"published form": "published + prior", "log det": "bounded"}
    places = [(optimiser, name) for optimiser in ("Adam", "SGD") for name in inputs]
    for axis, (objective, prior), letter in zip(axes, pairs.items(), "ab"):
        for y, (optimiser, name) in enumerate(places):
            rows = table[(table.optimiser == optimiser) & (table.inputs == name)]
            held = rows[rows.objective == prior]["as it is"]
            if not len(held):  # under SGD, whose path is the same in any basis
                held = table[(table.optimiser == optimiser) & (table.inputs == "raw")]
                held = held[held.objective == prior]["as it is"]
            axis.plot([held.mean()] * 2, [y - 0.36, y + 0.36], color="0.6", lw=3, zorder=0)
            for key, (column, bias, marker, colour, _) in MARKS.items():
                own = rows[(rows.objective == objective) & (rows.bias == bias)][column]
                if optimiser == "SGD" and column == "currency":
                    continue
                face = "w" if key == "fast" else colour
                axis.plot(own, [y] * len(own), marker, color=colour, ms=4, mew=0.8, mfc=face)
        axis.axhline(len(inputs) - 0.5, color="0.8", lw=0.6)
        axis.set_title(f"({letter}) {objective}")
        axis.set(xlabel="share of the solved decoder's variance", xlim=(0, 1.02))
    axes[0].set(yticks=range(len(places)), yticklabels=[f"{o}, {n}" for o, n in places])
    axes[0].set(ylim=(len(places) - 0.5, -0.8))
    axes[0].tick_params(axis="y", length=0)
    _name_marks(axes[0], table, inputs)
    sns.despine(fig)
    return fig


def _name_marks(axis, table, inputs):
    """Say what each mark is, beside one of its kind."""
    own = table[(table.objective == "published form") & (table.optimiser == "Adam")]
    for key, (column, bias, _, colour, words) in MARKS.items():
        place = "centred" if bias == "fast" else "principal axes"
        rows = own[(own.inputs == place) & (own.bias == bias)]
        if len(rows):
            at, below = (rows[column].mean(), inputs.index(place)), key == "both"
            look = {"color": colour, "ha": "right" if at[0] > 0.4 else "left"} | SMALL
            look["path_effects"] = [withStroke(linewidth=2, foreground="w")]
            axis.annotate(words, at, (-13 if at[0] > 0.4 else -4, -9 if below else 5), **look)
    axis.annotate("grey: with a prior", (0.02, -0.6), color="0.45", fontsize=7, va="center")


def units_figure(rows, shared, looks, columns=4):
    """rows: {title: (n, D)}: units as pictures; beside them shared {method: (variance explained,
    agreement of each pair)} as points with the range over pairs; looks: {method: (colour, marker,
    line)}."""
    fig = plt.figure(figsize=(TWO, 2.6))
    left, right = fig.subfigures(1, 2, width_ratios=[1.1, 1])
    for axis, (title, W) in zip(left.subplots(2, 2).flat, rows.items()):
        tiles(axis, W, columns)
        axis.set_title(title, loc="center")
    axis, ends = right.subplots(), {}
    for method, (explained, agree) in shared.items():
        colour, marker, _ = looks.get(method, ("0.45", ".", ":"))
        axis.plot([explained] * 2, [np.min(agree), np.max(agree)], color=colour, lw=0.9)
        axis.plot(explained, np.mean(agree), marker, color=colour, ms=4, mfc="w", mew=0.9)
        ends[method.removesuffix(" templates")] = explained, np.mean(agree), colour
    axis.set(xlabel="variance explained, solved", ylabel="agreement of two seeds")
    low, high = axis.get_xlim()
    axis.set_xlim(low, high + 0.45 * (high - low))  # room for names
    label_ends(axis, ends)
    sns.despine(ax=axis)
    return fig


def story_figure(units, curves, digit):
    """The companion in three panels: units {title: (8, D)}; curves {title: {weight of
    decorrelation: redundancies}}; and one digit's pictures {title: (D,)}."""
    fig = plt.figure(figsize=(TWO, 2.75))
    upper, lower = fig.subfigures(2, 1, height_ratios=[1.55, 1])
    left, right = upper.subfigures(1, 2, width_ratios=[1.25, 1])
    for axis, (title, W) in zip(left.subplots(1, len(units)), units.items()):
        tiles(axis, W, 2)
        axis.set_title(title, loc="center", fontsize=7)
    axis = right.subplots()
    for (title, by_weight), (colour, marker, up) in zip(
        curves.items(), (("k", "o", -2.5), ("C1", "^", 1))
    ):
        weights = sorted(by_weight, key=float)
        x = [max(float(w), 1e-3) for w in weights]  # 0 at the left end of a logarithmic axis
        means = [np.mean(by_weight[w]) for w in weights]
        axis.plot(x, means, marker + "-", color=colour, ms=3.5, mfc="w", mew=0.9)
        look = {"color": colour, "va": "center"} | SMALL
        axis.annotate(title, (x[0], means[0]), (-2, 8 * up), **look)
    axis.set(xscale="log", yscale="log", ylim=(None, 1.6 * max(means[0], 4000)))
    axis.set(xlabel="weight of decorrelation", ylabel="redundancy")
    axis.set_xticks([1e-3, 1e-2, 1e-1, 1], ["0", ".01", ".1", "1"])
    axis.xaxis.set_minor_locator(plt.NullLocator())
    sns.despine(ax=axis)
    for axis, (title, image) in zip(lower.subplots(1, len(digit)), digit.items()):
        picture(axis, image)
        axis.set_title(title, loc="center", fontsize=7)
    return fig
