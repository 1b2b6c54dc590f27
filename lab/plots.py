"""What all figures have in common: one style, labels, and pictures of units and digits.

A figure is exactly one column (3.3 in) or two (6.9 in) wide, and no text in it is below 7 points.
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
    """One look for all figures; its colours can be told apart by the colour-blind."""
    rc = {
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "axes.titlelocation": "left",
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "lines.linewidth": 1.2,
        "figure.constrained_layout.use": True,
        "figure.dpi": 130,
        "savefig.dpi": 300,
        "pdf.fonttype": 42,
    }
    for axis in "xy":
        rc |= {f"{axis}tick.major.width": 0.6, f"{axis}tick.major.size": 3}
        rc |= {f"{axis}tick.minor.width": 0.4, f"{axis}tick.minor.size": 1.5}
    sns.set_theme("paper", "ticks", "colorblind", rc=rc)


def frame(axis, title, x=None, y=None, log="", **settings):
    """Title and labels of an axis, logarithmic in what `log` names: "x", "y" or "xy"."""
    scales = {f"{name}scale": "log" for name in log}
    axis.set(title=title, xlabel=x, ylabel=y, **scales, **settings)


def label(axis, text, at, **look):
    """Write a text at a point, on a white rim that keeps it from lines and dots behind it."""
    look = {"ha": "center", "va": "center", "fontsize": 7, "clip_on": True} | look
    axis.text(*np.asarray(at), text, path_effects=RIM, **look)


def label_ends(axis, gap=8):
    """Write the label of each line beside its last point, in its colour; where labels would
    overlap, above one another. gap: the height of a line of text, in points."""
    axis.figure.canvas.draw()  # the scales must be known
    last = {line: line.get_xydata()[-1] for line in axis.lines if line.get_label()[0] != "_"}
    points, at = axis.figure.dpi / 72, -np.inf
    for line, (x, y) in sorted(last.items(), key=lambda item: item[1][1]):
        height = axis.transData.transform((x, y))[1] / points
        at = max(height, at + gap)  # from below
        look = {"color": line.get_color(), "fontsize": 7, "va": "center", "path_effects": RIM}
        place = {"xytext": (5, at - height), "textcoords": "offset points"}
        axis.annotate(line.get_label(), (x, y), **place, **look, annotation_clip=False)


def tiles(axis, images, columns, signed=True):
    """Draw the rows of images (n, D) as square pictures, each scaled separately.

    signed: weights, in red where positive and blue where negative; otherwise digits, in grey.
    """
    images = torch.as_tensor(images).detach().cpu().float()
    scale = images.abs().quantile(0.99, dim=1, keepdim=True)  # single pixels may be extreme
    side = round(images.shape[1] ** 0.5)
    images = pad(images / scale.clamp_min(1e-12), (0, 0, 0, -len(images) % columns))
    images = pad(images.view(-1, columns, side, side), (1, 1, 1, 1))
    look = {"cmap": "RdBu_r", "vmin": -1} if signed else {"cmap": "Greys", "vmin": 0}
    axis.imshow(
        images.transpose(1, 2).flatten(2).flatten(0, 1), vmax=1, interpolation="nearest", **look
    )
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def log_l0(axis):
    """A logarithmic axis of active units, with round numbers as its ticks."""
    low, high = axis.get_xlim()
    ticks = [t for t in (2, 3, 5, 7, 10, 15, 20, 30, 50) if low < t < high]
    axis.set(xscale="log", xlabel="L0: active units per input")
    axis.set_xticks(ticks, ticks)
    axis.xaxis.set_minor_formatter(plt.NullFormatter())
