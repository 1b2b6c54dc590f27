"""What all figures have in common: one style, labels, and pictures of units and digits.

Each function of lab/plots_*.py takes what it shows and returns a figure, with its description for
those who cannot see it, fig.alt. No text in a figure is below 7 points; the three of README.md's
strip, where they are 280 pixels wide, have large labels and no legends.
"""

import matplotlib.patheffects
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from sklearn.isotonic import isotonic_regression
from torch.nn.functional import pad

TWO = 6.9  # inches: two columns of a journal
GREY = "0.45"
LARGE = dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 14)
LARGE |= dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 13)
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
    ticks = {"major.width": 0.6, "major.size": 3, "minor.width": 0.4, "minor.size": 1.5}
    rc |= {f"{axis}tick.{name}": value for axis in "xy" for name, value in ticks.items()}
    sns.set_theme("paper", "ticks", "colorblind", rc=rc)


style()
large = plt.rc_context(LARGE)  # decorates the functions of the figures in README.md's strip


def frame(axis, title, x=None, y=None, log="", **settings):
    """Title and labels of an axis, logarithmic in what `log` names: "x", "y" or "xy"."""
    scales = {f"{name}scale": "log" for name in log}
    axis.set(title=title, xlabel=x, ylabel=y, **scales, **settings)


def label(axis, text, at, **look):
    """Write a text at a point, on a white rim that keeps it from lines and dots behind it."""
    look = {"ha": "center", "va": "center", "fontsize": 7, "clip_on": True} | look
    axis.text(*np.asarray(at), text, path_effects=RIM, **look)


def label_ends(axis, gap=9, **look):
    """Write the label of each line beside its last point, in its colour; where labels would
    overlap, moved apart as little as possible. gap: the height of a line of text, in points."""
    axis.figure.draw_without_rendering()  # the scales must be known
    lines = [line for line in axis.lines if line.get_label()[0] != "_"]
    lines.sort(key=lambda line: line.get_xydata()[-1, 1])
    ends = np.stack([line.get_xydata()[-1] for line in lines])
    heights = axis.transData.transform(ends)[:, 1] * 72 / axis.figure.dpi
    stacked = gap * np.arange(len(lines))
    for line, end, up in zip(
        lines, ends, isotonic_regression(heights - stacked) + stacked - heights
    ):
        colour = {"color": line.get_color(), "va": "center", "path_effects": RIM}
        place = {"xytext": (6, up), "textcoords": "offset points"}
        look = {"fontsize": 7} | look
        axis.annotate(line.get_label(), end, **place, **colour, **look, annotation_clip=False)


def tiles(axis, images, columns, signed=True, names=()):
    """Draw the rows of images (n, D) as square pictures, each scaled separately.

    signed: weights, in red where positive and blue where negative; otherwise digits, in grey.
    names: of the lines of pictures, on their left.
    """
    images = torch.as_tensor(images).detach().cpu().float()
    scale = images.abs().quantile(0.99, dim=1, keepdim=True)  # single pixels may be extreme
    side = round(images.shape[1] ** 0.5)
    images = pad(images / scale.clamp_min(1e-12), (0, 0, 0, -len(images) % columns))
    images = pad(images.view(-1, columns, side, side), (1, 1, 1, 1))
    look = {"cmap": "RdBu_r", "vmin": -1} if signed else {"cmap": "Greys", "vmin": 0}
    axis.imshow(
        images.transpose(1, 2).flatten(2).flatten(0, 1).numpy(),
        vmax=1,
        interpolation="nearest",
        **look,
    )
    axis.set_xticks([])
    axis.set_yticks((side + 1) / 2 + (side + 2) * np.arange(len(names)), names)
    axis.tick_params(length=0, labelsize=8)
    axis.spines[:].set_visible(False)


def log_l0(axis):
    """A logarithmic axis of active units, with round numbers as its ticks."""
    low, high = axis.get_xlim()
    ticks = [t for t in (2, 5, 10, 20, 50) if low < t < high]
    axis.set_xscale("log")
    axis.set_xticks(ticks, ticks)
    axis.xaxis.set_minor_formatter(plt.NullFormatter())
