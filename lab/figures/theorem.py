"""The figures of notebook 1."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap

from lab.figures.style import GREY, TWO_COLUMNS, UNIT_COLORS, bare, label
from lab.plane import mixture_energies, votes_without_competition

HALF_SIDE = 6  # half of the side of the plane that is drawn
POINT_COLORS = [*UNIT_COLORS, "#56b4e9"]  # and a sixth, of the same palette
UNEXPLAINED_COLOR = "0.6"  # a point that is far from all means
PALE, SEVERAL_ACTIVE = "#e0d8c2", "0.2"  # a point on which no unit is active, or several
MODEL_NAMES = {"mixture": "a mixture", "B": "B: without decorrelation", "C": "C: the paper's loss"}


# --- The theorem ----------------------------------------------------------------------------------


def draw_theorem(compared):
    """Draw gradients against responsibilities. compared: {name: (responsibilities, gradients)}, of
    random energies and of a layer."""
    fig, axis = plt.subplots(figsize=(2.5, 2.4))
    axis.axline((0.1, 0.1), (0.2, 0.2), color=GREY, lw=0.8, zorder=0)
    styles = (
        ("o", "0.65", "0.4", 5, "max", "right", -14),
        ("+", "0.1", "0.1", 3.5, "min", "left", 8),
    )
    for (name, (r, gradient)), (marker, color, ink, size, *at) in zip(compared.items(), styles):
        marks = {"marker": marker, "ls": "", "ms": size, "mew": 0.6, "color": color}
        axis.plot(r.flatten(), gradient.flatten(), **marks, mfc="none", rasterized=True)
        end, side, shift = at
        place = [float(getattr(r, end)())] * 2
        label(axis, name, place, (shift, 0), ha=side, color=ink, fontsize=8)
    least = min(float(r.min()) for r, _ in compared.values()) / 4
    ticks = 10.0 ** np.arange(2 * np.ceil(np.log10(least) / 2), 1, 2)
    axis.set(xlabel="responsibility", ylabel="gradient", xscale="log", yscale="log")
    axis.set(xlim=(least, 3), ylim=(least, 3), xticks=ticks, yticks=ticks, aspect="equal")
    axis.minorticks_off()
    fig.alt = (
        "Gradient against responsibility on logarithmic axes, for random energies and for a layer, "
        "and the line on which the two are equal."
    )
    return fig


# --- Points, means and units in the plane ---------------------------------------------------------


def add_points(axis, points, colors, votes=None, area=4):
    """Draw points (N, 2); the area of each, in square points of type, is its vote times `area`, or
    of a vote below a tenth, a tenth of it. votes: (N,), or None: one each."""
    votes = torch.ones(len(points)) if votes is None else votes.float().clamp_min(0.1)
    axis.scatter(*points.T, s=area * votes.numpy(), c=colors, lw=0, zorder=2, rasterized=True)
    axis.set(xlim=(-HALF_SIDE, HALF_SIDE), ylim=(-HALF_SIDE, HALF_SIDE), aspect="equal")
    bare(axis, framed=True)


def add_mixture(axis, points, means, competition=True, area=4):
    """Draw points, in the colour of the mean that fits them best, and means (5, 2); of means in one
    place, each is moved a little, so that all can be seen."""
    E = mixture_energies(means.to(points), points)
    together = torch.cdist(means, means) < 0.5
    first = together.int().argmax(1)  # of those in one place
    colors = [POINT_COLORS[first[j]] if e < 4 else UNEXPLAINED_COLOR for e, j in zip(*E.min(1))]
    add_points(axis, points, colors, None if competition else votes_without_competition(E), area)
    for j, mean in enumerate(means):
        place = int(together[j, :j].sum())
        turn = 2 * np.pi * place / int(together[j].sum())
        out = 0.45 if together[j].sum() > 1 else 0
        at = mean[0] + out * np.cos(turn), mean[1] + out * np.sin(turn)
        axis.plot(*at, "o", color=POINT_COLORS[j], ms=8, mec="w", mew=1.2, zorder=4)


def add_layer(axis, points, layer, competition=True, start=None, area=4):
    """Draw points and the units of a layer, an `Encoder`: the line of each, shaded where it is
    active, and dashed if it is active on no point.

    A point has the colour of the unit that is active on it. start: an earlier layer, whose lines
    are drawn in grey.
    """
    W, b = layer.W, layer.b
    pre = layer.pre_activations(points)
    active = pre > 0
    colors = []
    for units in active:
        which = units.nonzero()[:, 0].tolist()
        colors.append(
            PALE if not which else POINT_COLORS[which[0]] if len(which) == 1 else SEVERAL_ACTIVE
        )
    votes = None if competition else votes_without_competition(torch.relu(pre))
    add_points(axis, points, colors, votes, area)
    for w, offset in zip(start.W, start.b) if start else ():
        axis.plot(*line_of_unit(w, offset)[1].T, color="0.6", lw=0.9, zorder=2.5)
    drawn = []
    for j, color in enumerate(POINT_COLORS[: len(W)]):
        foot, ends = line_of_unit(W[j], b[j])
        side = torch.cat([ends, ends.flip(0) + 99 * W[j] / W[j].norm()])
        axis.fill(*side.T, color=color, alpha=0.1, lw=0, zorder=1)
        # A line that would hide another is drawn wider, below it
        hidden = sum(torch.dist(foot, other) < 0.3 for other in drawn)
        drawn.append(foot)
        style = {"lw": 1.6 + 2 * float(hidden), "zorder": 3 - 0.1 * float(hidden)}
        axis.plot(*ends.T, "-" if active[:, j].any() else "--", color=color, **style)


def line_of_unit(w, b):
    """Return the point of the line w x + b = 0 that is nearest to the origin, (2,), and two of its
    points outside the picture, (2, 2)."""
    foot = -b * w / w.square().sum()
    along = torch.stack([-w[1], w[0]]) / w.norm()
    return foot, torch.stack([foot - 99 * along, foot + 99 * along])


def draw_layer(points, layer, title, start=None):
    """Draw points and a layer, as `add_layer`."""
    fig, axis = plt.subplots(figsize=(3, 3.15))
    add_layer(axis, points, layer, start=start)
    axis.set_title(title, loc="center", fontsize=9)
    of_start = ", and in grey where their lines were at the start" if start else ""
    fig.alt = f"{title}. Points in the plane, and the units of a layer{of_start}."
    return fig


def draw_unit(points, layer, unit):
    """Draw one unit of a layer, whose line is nearly level: the points on which it is active, in
    its colour, and lines of equal energy, numbered on the right."""
    w, b, color = layer.W[unit], layer.b[unit], POINT_COLORS[unit]
    fig, axis = plt.subplots(figsize=(3.5, 3.2))
    colors = [color if z > 0 else PALE for z in points @ w + b]
    add_points(axis, points, colors)
    side = torch.linspace(-HALF_SIDE, HALF_SIDE, 200)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)
    energy = torch.relu(grid @ w + b).numpy()
    shades = LinearSegmentedColormap.from_list("energy", ["white", color])
    box = (-HALF_SIDE, HALF_SIDE, -HALF_SIDE, HALF_SIDE)
    top = float(energy.max())
    axis.imshow(energy, extent=box, origin="lower", cmap=shades, vmax=2 * top, zorder=0)
    levels = np.arange(2, top, 2)
    axis.contour(side.numpy(), side.numpy(), energy, levels, colors=color, linewidths=0.7, zorder=1)
    axis.plot(*line_of_unit(w, b)[1].T, color=color, lw=2, zorder=3)

    def height(energy, x):  # of the line of equal energy
        return float((energy - b - x * w[0]) / w[1])

    ends = {f"{level:.0f}": height(level, HALF_SIDE) for level in levels}
    ends = {"$E=0$": height(0, HALF_SIDE)} | ends
    axis.yaxis.tick_right()
    axis.set_yticks([*ends.values()], [*ends])
    axis.set_ylim(-HALF_SIDE, HALF_SIDE)
    axis.tick_params(axis="y", length=2)
    slope = float(torch.rad2deg(torch.atan(-w[0] / w[1])))
    style = {"ha": "center", "rotation_mode": "anchor", "fontsize": 8.5}
    label(axis, "active, $E>0$: a worse fit", (-3, height(3, -3)), rotation=slope, **style)
    label(axis, "inactive, $E=0$: a perfect fit", (-2.5, -5.4), **style)
    fig.alt = (
        "Points in the plane and the line of a unit. Beyond the line, the points on which it is "
        "active, and lines of equal energy, parallel to it."
    )
    return fig


def draw_competition(points, ends, shares):
    """Draw a mixture and layers with competition and without, and how many starts find all.

    ends: {(model, "on" or "off"): means (5, 2) of the "mixture", and layers "B" and "C"}. shares:
    a DataFrame of the shares of starts, in percent, with these rows and columns.
    """
    fig, axes = plt.subplots(2, 3, figsize=(TWO_COLUMNS, 0.71 * TWO_COLUMNS))
    for row, (switch, side) in enumerate({"on": "with competition", "off": "without"}.items()):
        axes[row, 0].set_ylabel(side, fontsize=9, weight="bold")
        for axis, (model, name) in zip(axes[row], MODEL_NAMES.items()):
            add = add_mixture if model == "mixture" else add_layer
            add(axis, points, ends[model, switch], switch == "on", area=3)
            title = f"{shares.loc[model, switch]:.0f}% of starts find all"
            axis.set_title(title if row else f"{name}\n{title}", loc="center", fontsize=8.5)
    fig.alt = (
        "Five clusters of points, and the five means of a mixture or units of the layers B and C "
        "that look for them, with competition and without. Titles: the share of starts that find "
        "all clusters."
    )
    return fig


# --- Volume control -------------------------------------------------------------------------------


def draw_widths(points):
    """Draw a mixture component and a unit, each narrow and wide, above the points (N,)."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(0.72 * TWO_COLUMNS, 1.7))
    x = np.linspace(-4.4, 4.4, 881)
    gaussians = [np.exp(-((x / s) ** 2) / 2) / s / (2 * np.pi) ** 0.5 for s in (0.5, 1.5)]
    units = [np.exp(-np.maximum(0, 2.5 * (x - edge))) for edge in (-0.6, 2.5)]
    for axis, curves, top in ((a, gaussians, 0.85), (b, units, 1)):
        for curve, color in zip(curves, ("0.6", "0.1")):
            axis.fill_between(x, curve, color=color, alpha=0.15, lw=0)
            axis.plot(x, curve, color=color, lw=1.5)
        axis.plot(points, np.full(len(points), -0.1 * top), "|", c="k", ms=5, mew=0.6)
        axis.set(xlim=(-4.5, 4.5), ylim=(-0.16 * top, 1.35 * top))
        bare(axis)
        axis.plot([-4.4, 4.4], [0, 0], c="0.2", lw=0.6)
        label(axis, "data", (points.min(), -0.1 * top), (-6, 0), ha="right")
    a.set_title("a component: its density", loc="center")
    b.set_title("a unit: $\\exp(-\\mathrm{relu}(wx+b))$", loc="center")
    arrow = {"arrowstyle": "-|>", "color": "0.1", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    a.annotate("", (1.25, 0.3), (0.55, 0.63), arrowprops=arrow)
    label(a, "wider,\nso lower", (1.4, 0.58), ha="left", fontsize=8)
    b.annotate("", (2.5, 1.07), (-0.6, 1.07), arrowprops=arrow)
    label(b, "wider, but no lower", (0.95, 1.2), fontsize=8)
    for height in (0, 1):
        label(b, str(height), (-4.4, height), (-6, 0), ha="right")
    fig.alt = "The density of a Gaussian and exp(-E) of a unit, each narrow and wide, above data."
    return fig


def draw_log_determinant(cases):
    """Draw outputs with the ellipse of two standard deviations, the first in grey. cases: {what it
    shows: (outputs z (N, 2), their -log det Cov)}."""
    fig, axes = plt.subplots(1, len(cases), figsize=(0.72 * TWO_COLUMNS, 2.2))
    circle = np.stack([f(np.linspace(0, 2 * np.pi, 200)) for f in (np.cos, np.sin)])
    for axis, (name, (z, value)), color in zip(axes, cases.items(), ("0.6", "0.1", "0.1")):
        values, vectors = np.linalg.eigh(np.cov(z.T))
        ring = z.mean(0).numpy() + 2 * (circle.T * values**0.5) @ vectors.T
        axis.plot(*z.T, ".", ms=2.5, mew=0, c="0.6", rasterized=True)
        axis.fill(*ring.T, color=color, alpha=0.15, lw=0)
        axis.plot(*ring.T, color=color, lw=1.2)
        axis.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal")
        bare(axis, framed=True)
        axis.set_title(name, loc="center")
        value = round(value, 1) + 0.0  # no -0.0
        axis.set_xlabel(f"$z_1$\n$-\\log\\det\\,\\mathrm{{Cov}}$ = {value:.1f}")
    axes[0].set_ylabel("$z_2$", rotation=0, ha="right", va="center")
    fig.alt = (
        "Two outputs z1 and z2 of 250 inputs, in three cases: as independent, with one that hardly "
        "varies, and as copies; below each, its -log det Cov."
    )
    return fig
