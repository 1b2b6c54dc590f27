"""The figures of notebook 1, and the animation of the front page."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

from lab.figures.style import GREY, ORANGE, TWO_COLUMNS, UNIT_COLORS, bare, label
from lab.plane import (
    active_on_clusters,
    energies,
    units_find_all,
    votes_without_competition,
)

HALF_SIDE = 6  # half of the side of the plane that is drawn
AREA_OF_VOTE = 4  # of a point with one vote, in square points of type
SEVERAL_ACTIVE, NONE_ACTIVE = "0.2", "0.72"  # of a point on which several units are active, or none


def draw_identity(compared):
    """Draw gradients against responsibilities. compared: {name: (responsibilities, gradients)}, of
    random energies and a trained layer."""
    fig, axis = plt.subplots(figsize=(3, 2.7))
    axis.axline((0.1, 0.1), (0.2, 0.2), color=GREY, lw=0.8, zorder=0)
    inside, marks = {"xycoords": "axes fraction"}, {"mfc": "none", "ms": 4, "mew": 0.6, "ls": ""}
    styles = ("o", "0.2", 3, (0.64, 0.86)), ("+", ORANGE, 2, (0.72, 0.4))
    for (name, (r, gradient)), (marker, color, zorder, at) in zip(compared.items(), styles):
        style = marks | {"marker": marker, "color": color, "zorder": zorder, "rasterized": True}
        axis.plot(r.flatten(), gradient.flatten(), **style)
        label(axis, name.replace(" ", "\n"), at, color=color, fontsize=9, **inside)
    label(axis, "gradient = responsibility", (0.26, 0.35), color="0.35", rotation=45, **inside)
    if below := sum(int((r < 1e-16).sum()) for r, _ in compared.values()):
        label(axis, f"marks that are smaller: {below}", (0.97, 0.03), ha="right", **inside)
    axis.set(xlabel="responsibility", ylabel="gradient", xscale="log", yscale="log")
    ticks = [1e-16, 1e-12, 1e-8, 1e-4, 1]
    axis.set(xlim=(1e-16, 3), ylim=(1e-16, 3), xticks=ticks, yticks=ticks, aspect="equal")
    axis.minorticks_off()
    fig.alt = "Gradient against responsibility, on logarithmic axes: marks along the identity line."
    return fig


# --- Points, means and units in the plane ---------------------------------------------------------


def add_points(axis, points, colors, E=None, area=AREA_OF_VOTE):
    """Draw points (N, 2); the area of each is its vote: one, or if competition is off Z / mean Z
    of the energies E (N, K)."""
    n_votes = torch.ones(len(points)) if E is None else votes_without_competition(E).float()
    axis.scatter(*points.T, s=area * n_votes.numpy(), c=colors, lw=0, zorder=2, rasterized=True)
    axis.set(xlim=(-HALF_SIDE, HALF_SIDE), ylim=(-HALF_SIDE, HALF_SIDE), aspect="equal")
    bare(axis, framed=True)


def add_mixture(axis, points, means, competition, area=AREA_OF_VOTE, **style):
    """Draw points, in the colour of the mean that fits them best, and means (5, 2); of means in one
    place, each is moved a little, so that all can be seen."""
    E = energies(means.to(points), points)
    colors = [UNIT_COLORS[j] if e < 4 else NONE_ACTIVE for e, j in zip(*E.min(1))]
    add_points(axis, points, colors, None if competition else E, area)
    together = torch.cdist(means, means) < 0.5
    for j, mean in enumerate(means):
        place = int(together[j, :j].sum())
        turn = 2 * np.pi * place / int(together[j].sum())
        out = 0.45 if together[j].sum() > 1 else 0
        at = mean[0] + out * np.cos(turn), mean[1] + out * np.sin(turn)
        style = {"ms": 8, "mec": "w", "mew": 1.2, "zorder": 4} | style
        axis.plot(*at, "o", color=UNIT_COLORS[j], **style)


def add_layer(axis, points, W, b, competition=True, start=None, area=AREA_OF_VOTE):
    """Draw points and the units W (5, 2), b (5,): the line of each, shaded where it is active.

    A point has the colour of the unit that is active on it. A dead unit is dashed. start: the same
    of an earlier layer; each dead unit gets an arrow from where it was.
    """
    pre = points @ W.T + b
    active = pre > 0
    n = active.sum(1).tolist()
    which = active.int().argmax(1).tolist()
    colors = [
        NONE_ACTIVE if k == 0 else UNIT_COLORS[j] if k == 1 else SEVERAL_ACTIVE
        for k, j in zip(n, which)
    ]
    add_points(axis, points, colors, None if competition else torch.relu(pre), area)
    drawn = []
    for j, color in enumerate(UNIT_COLORS):
        foot, ends = line_of_unit(W[j], b[j])
        side = torch.cat([ends, ends.flip(0) + 99 * W[j] / W[j].norm()])
        dead = not active[:, j].any()
        axis.fill(*side.T, color=color, alpha=0.1, lw=0, zorder=1)
        # A line that would hide another is drawn wider, below it
        hidden = sum(torch.dist(foot, other) < 0.3 for other in drawn)
        drawn.append(foot)
        style = {"lw": 1.6 + 2 * float(hidden), "zorder": 3 - 0.1 * float(hidden)}
        axis.plot(*ends.T, "--" if dead else "-", color=color, **style)
        if dead and start is not None:
            was, _ = line_of_unit(start[0][j], start[1][j])
            arrow = {"arrowstyle": "-|>", "color": color, "lw": 1, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", foot.tolist(), was.tolist(), arrowprops=arrow | {"mutation_scale": 7})


def line_of_unit(w, b):
    """Return the point of the line w x + b = 0 that is nearest to the origin, (2,), and two of its
    points outside the picture, (2, 2)."""
    foot = -b * w / w.square().sum()
    along = torch.stack([-w[1], w[0]]) / w.norm()
    return foot, torch.stack([foot - 99 * along, foot + 99 * along])


def draw_competition(points, means, layers, counts, n_starts):
    """Draw a mixture and a layer, with competition and without. means: [(5, 2), (5, 2)]; layers:
    [(W, b), (W, b)]; counts: [[of the mixture], [of the layer]] starts that find all clusters."""
    fig, axes = plt.subplots(2, 2, figsize=(0.75 * TWO_COLUMNS, 0.8 * TWO_COLUMNS))
    titles = "with competition", "competition off"
    for k, competition in enumerate((True, False)):
        add_mixture(axes[0, k], points, means[k], competition)
        add_layer(axes[1, k], points, *layers[k], competition)
        for i, axis in enumerate(axes[:, k]):
            text = f"{titles[k]}: {counts[i][k]} of {n_starts}\nstarts find all five clusters"
            axis.set_title(text, loc="center", fontsize=9)
    for axis, name in zip(axes[:, 0], ("a mixture", "the paper's layer")):
        axis.set_ylabel(name, fontsize=9, weight="bold")
    fig.alt = (
        "Five clusters of points, and the five means of a mixture or units of the paper's layer "
        "that look for them, with competition and without. Titles say how many starts find all."
    )
    return fig


def draw_unit(points, W, b, unit):
    """Draw one of the units W (5, 2), b (5,): its line, and its energy in shades of its colour."""
    w, b, color = W[unit], b[unit], UNIT_COLORS[unit]
    fig, axis = plt.subplots(figsize=(0.6 * TWO_COLUMNS, 0.42 * TWO_COLUMNS))
    size = w.norm()
    normal = w / size
    distance = points @ normal + b / size
    side = torch.linspace(-HALF_SIDE, HALF_SIDE, 200)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)
    shades = LinearSegmentedColormap.from_list("energy", ["white", color])
    energy = torch.relu(grid @ normal + b / size)
    box = (-HALF_SIDE, HALF_SIDE, -HALF_SIDE, HALF_SIDE)
    axis.imshow(energy, extent=box, origin="lower", cmap=shades, vmin=0, vmax=6, zorder=0)
    add_points(axis, points, [SEVERAL_ACTIVE if d > 0 else NONE_ACTIVE for d in distance], area=5)
    axis.plot(*line_of_unit(w, b)[1].T, color=color, lw=2)
    inside = points.abs().amax(1) < 0.8 * HALF_SIDE
    far = (distance * inside).argmax()
    furthest, start = points[far], points[far] - distance[far] * normal
    arrow = {"arrowstyle": "<|-|>", "color": "k", "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", furthest.tolist(), start.tolist(), arrowprops=arrow, zorder=5)
    labels = {
        0.95: "active, $E>0$:\na worse fit",
        0.55: "energy: the length of\nthe arrow, times $|w|$",
        0.08: "inactive, $E=0$:\na perfect fit",
    }
    for height, text in labels.items():
        style = {"ha": "left", "fontsize": 9, "xycoords": "axes fraction"}
        label(axis, text, (1.04, height), **style)
    fig.alt = (
        "Points in the plane and the line of a unit; beyond it the energy grows with distance."
    )
    return fig


# --- Volume control -------------------------------------------------------------------------------


def draw_widths(points):
    """Draw a mixture component and a unit, each narrow and wide, above the points (N,)."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(0.66 * TWO_COLUMNS, 1.7))
    x = np.linspace(-4.4, 4.4, 881)
    gaussians = [np.exp(-((x / s) ** 2) / 2) / s / (2 * np.pi) ** 0.5 for s in (0.5, 1.5)]
    units = [np.exp(-np.maximum(0, 2.5 * (x - edge))) for edge in (-0.6, 2.9)]
    for axis, curves, top in ((a, gaussians, 0.85), (b, units, 1)):
        for curve, color in zip(curves, ("0.6", "0.1")):
            axis.fill_between(x, curve, color=color, alpha=0.15, lw=0)
            axis.plot(x, curve, color=color, lw=1.5)
        axis.plot(points, np.full(len(points), -0.1 * top), "|", c="k", ms=5, mew=0.6)
        axis.set(xlim=(-4.4, 4.4), ylim=(-0.16 * top, 1.35 * top))
        bare(axis)
        axis.plot([-4.4, 4.4], [0, 0], c="0.2", lw=0.6)
        label(axis, "data", (points.min(), -0.1 * top), (-6, 0), ha="right")
    a.set_title("a component: its density", loc="center")
    b.set_title("a unit: $\\exp(-\\mathrm{relu}(wx+b))$", loc="center")
    arrow = {"arrowstyle": "-|>", "color": "0.1", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    a.annotate("", (1.25, 0.25), (0.55, 0.58), arrowprops=arrow)
    label(a, "wider,\nso lower", (1.3, 0.52), ha="left", fontsize=8)
    b.annotate("", (2.9, 1.07), (-0.6, 1.07), arrowprops=arrow)
    label(b, "wider, but no lower", (1.15, 1.2), fontsize=8)
    for height in (0, 1):
        label(b, str(height), (-4.4, height), (-4, 0), ha="right")
    fig.alt = "A Gaussian that widens gets lower; a unit that widens does not."
    return fig


def draw_log_determinant(cases):
    """Draw outputs with the ellipse of two standard deviations. cases: {verdict: (outputs z (N, 2),
    their -log det Cov)}."""
    fig, axes = plt.subplots(1, len(cases), figsize=(0.72 * TWO_COLUMNS, 2))
    circle = np.stack([f(np.linspace(0, 2 * np.pi, 200)) for f in (np.cos, np.sin)])
    for axis, (name, (z, value)) in zip(axes, cases.items()):
        values, vectors = np.linalg.eigh(np.cov(z.T))
        ring = z.mean(0).numpy() + 2 * (circle.T * values**0.5) @ vectors.T
        axis.plot(*z.T, ".", ms=2.5, mew=0, c="0.6", rasterized=True)
        axis.fill(*ring.T, color="0.1", alpha=0.15, lw=0)
        axis.plot(*ring.T, color="0.1", lw=1.2)
        axis.set(xlim=(-3.3, 3.3), ylim=(-3.3, 3.3), aspect="equal")
        bare(axis, framed=True)
        axis.set_title(name, loc="center")
        value = round(value, 1) + 0.0  # no -0.0
        axis.set_xlabel(f"$-\\log\\det\\,\\mathrm{{Cov}}(z)$ = {value:.1f}")
    axes[0].set_ylabel("$z_2$", rotation=0, ha="right", va="center")
    label(axes[0], "$z_1$", (1, 0), (-3, 6), ha="right", xycoords="axes fraction")
    fig.alt = "Ellipses of two outputs: a circle, a flat one, and a thin diagonal."
    return fig


# --- The loss, term by term -----------------------------------------------------------------------


def draw_term_by_term(points, cluster, layers, counts, n_starts, start):
    """Draw layers {"A: what it has": (W, b)}, what became of each, and how many starts find all
    clusters; start: the layer (W, b) from which all set out."""
    fig, axes = plt.subplots(2, 2, figsize=(0.75 * TWO_COLUMNS, 0.88 * TWO_COLUMNS))
    for axis, (name, (W, b)), count in zip(axes.flat, layers.items(), counts):
        add_layer(axis, points, W, b, start=start)
        verdict = describe_layer(torch.relu(points @ W.T + b), cluster)
        axis.set_title(f"{name}\n{verdict}", loc="center", fontsize=9)
        axis.set_xlabel(f"one unit for each cluster: {count} of {n_starts} starts")
    fig.alt = f"Points in the plane, and the units of four layers: {'; '.join(layers)}."
    return fig


def describe_layer(E, cluster):
    """Return in words what has become of a layer, from its energies E (N, K) of points."""
    active = (E > 0).double()
    if not active.any():
        return "all units are dead"
    has = active_on_clusters(E, cluster)  # (cluster, unit)
    if (has.sum(0) > 1).all():
        return f"units are active on {100 * float(active.mean()):.0f}% of the points"
    missed = int((~has.any(1)).sum())
    if missed:
        return f"clusters missed: {missed}"
    found = units_find_all(E[None], cluster)
    return "one unit for each cluster" if found else "clusters share units"


# --- The animation --------------------------------------------------------------------------------


def save_film(path, points, means, layers, counts, n_starts):
    """Draw the animation of the front page, 800 pixels wide, and save it as a GIF.

    means: paths of the mixture with competition and without, two of (steps, 5, 2); layers: paths of
    W (steps, 5, 2) and b (steps, 5), two of them; counts: as of `draw_competition`.
    """
    points = points[::2]
    fig, axes = plt.subplots(1, 4, figsize=(8, 2.62), dpi=100, layout="none")
    fig.subplots_adjust(0.006, 0.02, 0.994, 0.76, 0.03)
    names = "competition", "competition off", "competition", "competition off"
    heads = [fig.text(x, 0.9, "", ha="center", fontsize=12) for x in (0.25, 0.75)]
    below = [fig.text((2 * i + 1) / 8, 0.795, "", ha="center", fontsize=10) for i in range(4)]
    images, times = [], []

    def keep(milliseconds):
        fig.canvas.draw()
        images.append(np.asarray(fig.canvas.buffer_rgba())[..., :3].copy())
        times.append(milliseconds)

    def draw(i, step):
        axes[i].clear()
        if i < 2:
            add_mixture(axes[i], points, means[i][step], i == 0, area=9, ms=9)
        else:
            W, b = layers[i - 2]
            add_layer(axes[i], points, W[step], b[step], i == 2, area=9)

    for axis in axes:
        add_points(axis, points, ["0.5"] * len(points), area=9)
    heads[0].set_text("Five clusters. Five components to find them.")
    keep(1500)
    heads[0].set_text("A mixture of five Gaussians")
    for text, name in zip(below[:2], names):
        text.set_text("one point, one vote" if name == "competition" else name)
    n_steps = len(means[0])
    for step in range(n_steps):
        for i in (0, 1):
            draw(i, step)
        keep(110)
    for text, of_mixture in zip(below[:2], means):
        text.set_text(describe_means(of_mixture[-1]))
    keep(1800)
    heads[1].set_text("A layer derived from it")
    for text, name in zip(below[2:], names):
        text.set_text(name)
    n_steps = len(layers[0][0])
    for step in range(n_steps):
        for i in (2, 3):
            draw(i, step)
        keep(110)
    finals = [count for row in counts for count in row]
    for text, name, count in zip(below, ("with", "off", "with", "off"), finals):
        text.set_text(f"{name}: {count} of {n_starts} starts")
    keep(4000)
    plt.close(fig)
    write_gif(path, images, times)


def describe_means(means):
    """Return in words on how many places means lie."""
    together = (torch.cdist(means, means) < 0.5).sum(1)
    words = ["", "one", "two", "three", "four", "all five"]
    if int(together.max()) == 1:
        return "all five found"
    return f"{words[int(together.max())]} on one cluster"


def write_gif(path, images, times, n_colors=64):
    """Write images, each shown for some milliseconds, in few colours, so that the file is small."""
    together = Image.fromarray(np.concatenate(images))
    palette = together.quantize(n_colors, Image.Quantize.FASTOCTREE)  # others lose hues, or white
    first, *rest = (
        Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE)
        for image in images
    )
    first.save(path, save_all=True, append_images=rest, duration=times, loop=0, optimize=True)
