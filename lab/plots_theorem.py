"""The figures of notebook 1: each function takes what it draws, and returns a figure."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image
from scipy.spatial.distance import cdist
from torch.nn.functional import normalize

import helpers as h
from lab.plots import GREY, ORANGE, TWO, label, tiles

# A colour for each mean or unit: also the colour-blind tell them apart, and each is lighter or
# darker than the others in grey. None is orange, the paper's loss.
UNITS = ["#5b30bf", "#bf56a0", "#8bbf56", "#3d97f2", "#347334"]
HALF = 6.4  # half of the side of the plane that is drawn
DARKER = 0.65  # times this for each further unit that is active on a point
HIDDEN = 0.97  # a correlation at which one line would hide the other


def identity(compared):
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


# --- Five Gaussians -----------------------------------------------------------------------------


def mixture(points, centres, em, descent, without, success, n_starts, lucky):
    """Draw points (N, 2) of clusters with centres (K, 2), and paths of K means (steps, K, 2): EM's,
    gradient descent's, and the same without competition; success: a row of "model", "seed" and
    "starts", how many of n_starts find all clusters; lucky: how many are expected to be lucky."""
    fig, (a, b, c) = plt.subplots(1, 3, figsize=(TWO, 2.45), width_ratios=[1, 1, 0.8])
    for axis, path in ((a, descent), (b, without)):
        axis.scatter(*points.T, s=4, lw=0, c="0.8", rasterized=True)
        for mean, color in zip(path.swapaxes(0, 1), UNITS):
            axis.plot(*mean.T, ".-", lw=1, ms=5, c=color)
        axis.plot(*path[0].T, "kx", ms=6, mew=1.2)
        for missed in centres[torch.cdist(centres, path[-1]).amin(1) > 1]:
            label(axis, "no mean", missed)
        square(axis)
    a.plot(*em[1:].flatten(0, 1).T, "ko", mfc="none", ms=7, mew=0.6)
    a.set(title="(a) gradient descent and EM", xlabel="dots: gradient descent, circles: EM")
    b.set(title="(b) without competition", xlabel="crosses: start")
    for place, (_, seeds) in enumerate(success.groupby("model", sort=False)):
        c.plot(place + np.linspace(-0.15, 0.15, len(seeds)), seeds.starts, "o", ms=5, c="k", mew=0)
    c.axhline(lucky, ls=":", c="k", lw=1)
    label(c, f"lucky starts: {lucky:.0f}", (-0.5, lucky), (0, 2), ha="left", va="bottom")
    c.set(title="(c) starts that find all clusters", ylabel=f"starts, of {n_starts}")
    names = [fill(name, 16) for name in success.model.unique()]
    c.set(xlim=(-0.6, 1.6), ylim=(0, 1.04 * n_starts), xticks=[0, 1], xticklabels=names)
    fig.alt = "Clusters, and paths of means: EM's, and without competition; starts that succeed."
    return fig


def square(axis):
    """Frame the plane, without ticks."""
    axis.set(xlim=(-HALF, HALF), ylim=(-HALF, HALF), aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(True)


# --- Volume control -----------------------------------------------------------------------------


def widths(points):
    """Draw a mixture component and a unit, each narrow and wide, above the points (N,)."""
    fig, (a, b) = plt.subplots(1, 2, figsize=(0.66 * TWO, 1.7))
    x = np.linspace(-4.4, 4.4, 881)
    gaussians = [np.exp(-((x / s) ** 2) / 2) / s / (2 * np.pi) ** 0.5 for s in (0.5, 1.5)]
    units = [np.exp(-np.maximum(0, 2.5 * (x - edge))) for edge in (-0.6, 2.9)]
    for axis, curves, top in ((a, gaussians, 0.85), (b, units, 1)):
        for curve, color in zip(curves, ("0.6", "0.1")):
            axis.fill_between(x, curve, color=color, alpha=0.15, lw=0)
            axis.plot(x, curve, color=color, lw=1.5)
        axis.plot(points, np.full(len(points), -0.1 * top), "|", c="k", ms=5, mew=0.6)
        axis.set(xlim=(-4.4, 4.4), ylim=(-0.16 * top, 1.35 * top), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
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


def log_det(cases):
    """Draw energies with the ellipse of two standard deviations. cases: {what it shows: (energies
    of two units (N, 2), their -log det Cov)}."""
    fig, axes = plt.subplots(1, len(cases), figsize=(0.66 * TWO, 1.85))
    circle = np.stack([f(np.linspace(0, 2 * np.pi, 200)) for f in (np.cos, np.sin)])
    for axis, (name, (E, value)) in zip(axes, cases.items()):
        values, vectors = np.linalg.eigh(np.cov(E.T))
        ring = E.mean(0).numpy() + 2 * (circle.T * values**0.5) @ vectors.T
        axis.plot(*E.T, ".", ms=2.5, mew=0, c="0.6", rasterized=True)
        axis.fill(*ring.T, color="0.1", alpha=0.15, lw=0)
        axis.plot(*ring.T, color="0.1", lw=1.2)
        axis.set(xlim=(-0.3, 6.3), ylim=(-0.3, 6.3), aspect="equal", xticks=[], yticks=[])
        axis.set_title(name, loc="center")
        axis.set_xlabel(f"$-\\log\\det\\,\\mathrm{{Cov}}$ = {abs(value):.1f}")
    axes[0].set_ylabel("$E_2$", rotation=0, ha="right", va="center")
    label(axes[0], "$E_1$", (1, 0), (-3, 6), ha="right", xycoords="axes fraction")
    fig.alt = "Ellipses of two units' energies: a circle, a flat one, and a thin diagonal."
    return fig


# --- Units in the plane -------------------------------------------------------------------------


def plane(axis, points, W, b, start=None):
    """Draw points (N, 2), and the line and active side of each unit, W (K, 2) and b (K,), and
    return how many units are active on average.

    A point has the colour of the units that are active on it. A unit widens the line that it would
    hide. start: the same of an earlier layer; each dead unit gets an arrow from where it was.
    """
    pre = points @ W.T + b
    on, R = (pre > 0).float(), h.correlation(torch.relu(pre))
    n = on.sum(1, keepdim=True)
    mixed = on @ torch.tensor([to_rgb(color) for color in UNITS])[: len(W)] / n.clamp_min(1)
    mixed = torch.where(n > 0, mixed * DARKER ** (n - 1), 0.75)
    axis.scatter(*points.T, s=3, lw=0, c=mixed.numpy(), zorder=2, rasterized=True)
    feet, normals = -b[:, None] * W / W.square().sum(1, keepdim=True), normalize(W, dim=1)
    for j, (foot, normal, color) in enumerate(zip(feet, normals, UNITS)):
        dead, copies = not on[:, j].any(), int((R[j, j + 1 :] > HIDDEN).sum())
        along = torch.stack([-normal[1], normal[0]])
        ends = torch.stack([foot - 99 * along, foot + 99 * along])
        side = torch.cat([ends, ends.flip(0) + 99 * normal])
        axis.fill(*side.T, color=color, alpha=0.13, lw=0, zorder=1)
        axis.plot(*ends.T, "--" if dead else "-", color=color, lw=1.3 + 1.9 * copies, zorder=3)
        if start is not None and dead:
            was = -start[1][j] * start[0][j] / start[0][j].square().sum()
            arrow = {"arrowstyle": "-|>", "color": color, "lw": 1, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", foot, was, arrowprops=arrow | {"mutation_scale": 7})
    square(axis)
    return float(n.mean())


def key(fig, place="outside lower center"):
    """Say below the panels what lines and points of the plane mean."""
    line, dot = {"color": "0.35", "lw": 1.3}, {"marker": "o", "ls": "", "ms": 4, "mew": 0}
    one = tuple(Line2D([], [], color=color, **dot) for color in UNITS)
    handles = {
        "a unit, active on the shaded side": (Patch(fc="0.85", lw=0), Line2D([], [], **line)),
        "a dead unit": Line2D([], [], ls=(0, (2.6, 1.3)), **line),
        "no unit is active": Line2D([], [], color="0.75", **dot),
        "one is": one,
        "several are": Line2D([], [], color="0.2", **dot),
    }
    style = {"ncol": len(handles), "borderpad": 0, "columnspacing": 1.3, "handletextpad": 0.5}
    style |= {"handlelength": 2.2, "handler_map": {one: HandlerTuple(ndivide=None, pad=0.1)}}
    fig.legend(handles.values(), handles.keys(), loc=place, **style)


def panel(axis, name, fate, points, W, b, start=None):
    """Draw the `plane` below a title in bold and a second line, and say how many are active."""
    active = plane(axis, points, W, b, start)
    axis.set_title(name, loc="center", weight="bold", pad=15)
    style = {"xycoords": "axes fraction", "fontsize": 8.5, "color": "0.2", "va": "bottom"}
    label(axis, fate, (0.5, 1.02), **style)
    axis.set_xlabel(f"{round(active, 1) if active else 0} of {len(b)} active on average")


def in_the_plane(points, layers, fates, start):
    """Draw points (N, 2) and layers: {"A: what it has": (W (K, 2), b (K,))}; fates: what becomes of
    each; start: the layer (W, b) from which all set out."""
    fig, axes = plt.subplots(1, len(layers), figsize=(TWO, 2.45))
    for axis, (name, layer), fate in zip(axes, layers.items(), fates):
        panel(axis, name, fate, points, *layer, start)
    key(fig)
    fig.alt = f"Points in the plane, and the units of four layers: {'; '.join(layers)}."
    return fig


def one_layer(points, W, b, *title):
    """Draw the same for one layer, with two lines as title."""
    fig, axis = plt.subplots(figsize=(3.2, 3.5))
    panel(axis, *title, points, W, b)
    fig.alt = "Points in the plane, and the lines of a layer's units."
    return fig


def film(points, paths, fates, steps):
    """Return the frames of a film, images that are 800 pixels wide. paths: {name: (W (steps, K, 2),
    b (steps, K))}; fates, shown in the last quarter; steps: the numbers of those that are drawn."""
    fig, axes = plt.subplots(1, len(paths), figsize=(TWO, 2.5), dpi=800 / TWO)
    key(fig, "outside lower right")
    number, frames = fig.text(0.008, 0.035, "", fontsize=7.5), []
    for i, step in enumerate(steps):
        for axis, (name, (W, b)), fate in zip(axes, paths.items(), fates):
            axis.clear()
            panel(axis, name, fate if i >= 0.75 * len(steps) else " ", points, W[step], b[step])
        number.set_text(f"step {step}")
        fig.canvas.draw()
        fig.set_layout_engine("none")  # the panels stay where they are in the first frame
        frames.append(Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3].copy()))
    plt.close(fig)
    return frames


def save_film(frames, path):
    """Write an animated GIF in the 192 colours that are most frequent, so that it is small."""
    pixels = np.stack([np.asarray(frame) for frame in frames]) @ [65536, 256, 1]
    colors, which, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    colors = colors[:, None] >> [16, 8, 0] & 255  # red, green and blue again
    palette = colors[counts.argsort(kind="stable")[-192:]]
    nearest = cdist(colors, palette).argmin(1).astype(np.uint8)
    first, *rest = (Image.fromarray(frame) for frame in nearest[which].reshape(pixels.shape))
    for frame in (first, *rest):
        frame.putpalette(palette.flatten().tolist())
    times = [600] + [95] * (len(rest) - 1) + [2200]  # milliseconds
    first.save(path, save_all=True, append_images=rest, duration=times, loop=0, optimize=True)


# --- Units on digits ----------------------------------------------------------------------------


def digits_of_units(x, weights, E):
    """Draw two units of a trained layer's weights (K, D), with digits of x (N, D) on which each is
    most active by its energies E (N, K), and on which it is inactive."""
    fig, axes = plt.subplots(1, 3, figsize=(0.7 * TWO, 1.5), width_ratios=[1, 3, 3])
    often = (E > 0).sum(0)
    both = ((often > 2) & (often < len(E) - 2)).nonzero()[:, 0]  # active and inactive on some
    units = both[often[both].argsort()][[len(both) // 8, len(both) * 7 // 8]]
    order = E[:, units].argsort(dim=0, stable=True).T
    off, on = order[:, :3], order[:, -3:]
    r_on, r_off = (h.responsibilities(E)[rows, units[:, None]] for rows in (on, off))
    tiles(axes[0], weights[units], 1, names=["active on\nfew digits", "active on\nmany digits"])
    tiles(axes[1], x[on.flatten()], 3, signed=False)
    tiles(axes[2], x[off.flatten()], 3, signed=False)
    axes[0].set_title("weights", loc="center")
    axes[1].set_title(f"most active:\nresponsibility up to {r_on.max():.0e}", loc="center")
    axes[2].set_title(f"inactive:\nresponsibility about {r_off.mean():.1g}", loc="center")
    fig.alt = "Weights of two trained units, digits on which they are active, and inactive."
    return fig
