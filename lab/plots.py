"""What all figures share: one style, labels, colours, pictures of units.

All are exactly one column (3.3 in) or two (6.9 in) wide, colour-blind safe, readable in grey.
"""

import matplotlib.patheffects
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from torch.nn.functional import pad

ONE, TWO = 3.3, 6.9  # inches: a column of a journal, and two
GREY = "0.45"
RIM = [matplotlib.patheffects.withStroke(linewidth=2, foreground="w")]


def style():
    """One look for all figures."""
    rc = {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "legend.fontsize": 7}
    rc |= {"axes.linewidth": 0.6, "lines.linewidth": 1.2, "axes.titlelocation": "left"}
    ticks = {"labelsize": 7, "major.width": 0.6, "major.size": 3, "minor.width": 0.4}
    ticks["minor.size"] = 1.5
    rc |= {f"{axis}tick.{name}": value for axis in "xy" for name, value in ticks.items()}
    rc |= {"figure.dpi": 130, "savefig.dpi": 300, "pdf.fonttype": 42}
    sns.set_theme("paper", "ticks", "colorblind", rc=rc | {"figure.constrained_layout.use": True})


def frame(axis, title, x=None, y=None, log="", **settings):
    """Title and labels of an axis, logarithmic in what `log` names; labels at its lines' ends."""
    scales = {f"{name}scale": "log" for name in log}
    axis.set(title=title, xlabel=x, ylabel=y, **scales, **settings)
    sns.despine(ax=axis)
    label_ends(axis)


def label_ends(axis, ends=None, gap=8):
    """Write names {name: (x, y, colour)}, or else the lines' own labels, beside the ends of lines,
    and above one another where they would overlap; `gap` is a line's height in points."""
    named = {line.get_label(): line for line in axis.lines if line.get_label()[0] != "_"}
    ends = ends or {name: (*v.get_xydata()[-1], v.get_color()) for name, v in named.items()}
    axis.figure.canvas.draw()  # the scales must be known
    points, at, (low, high) = axis.figure.dpi / 72, -np.inf, axis.get_ylim()
    inside = {name: end for name, end in ends.items() if low <= end[1] <= high}
    for name, (x, y, colour) in sorted(inside.items(), key=lambda item: item[1][1]):
        height = axis.transData.transform((x, y))[1] / points
        at = max(height, at + gap)  # from below
        look = {"color": colour, "va": "center", "annotation_clip": False, "path_effects": RIM}
        axis.annotate(name, (x, y), (5, at - height), **look, **SMALL)


def label(axis, text, at, **look):
    """Write a text at a point, on a white rim that keeps it from lines and dots behind it."""
    look = {"ha": "center", "va": "center", "fontsize": 7, "clip_on": True} | look
    axis.text(*np.asarray(at), text, path_effects=RIM, **look)


SMALL = {"textcoords": "offset points", "fontsize": 7}
WIDE = {"color": "0.6", "lw": 3, "alpha": 0.5, "zorder": 0, "solid_capstyle": "butt"}


def shades(values):
    """A colour for each of the values, dark to light, however many there are."""
    values = sorted(set(values))
    return dict(zip(values, plt.get_cmap("viridis")(np.linspace(0.05, 0.7, len(values)))))


def tiles(axis, W, columns):
    """Rows of W (n, D) as square pictures, each with its own symmetric scale; red is positive."""
    W = torch.as_tensor(W).detach().cpu().float()
    W = W / W.abs().quantile(0.99, dim=1, keepdim=True).clamp_min(1e-12)  # edges may be extreme
    side = round(W.shape[1] ** 0.5)
    W = pad(W, (0, 0, 0, -len(W) % columns)).view(-1, columns, side, side)
    image = pad(W, (1, 1, 1, 1)).transpose(1, 2).flatten(2).flatten(0, 1)
    axis.imshow(image, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    sns.despine(ax=axis, left=True, bottom=True)


def log_l0(axis):
    """A logarithmic axis of active units, with round numbers as its ticks."""
    low, high = axis.get_xlim()
    ticks = [t for t in (2, 3, 5, 7, 10, 15, 20, 30, 50) if low < t < high]
    axis.set(xscale="log", xlabel="L0: active units per input")
    axis.set_xticks(ticks, ticks)
    axis.xaxis.set_minor_formatter(plt.NullFormatter())
