"""What all figures share: one style, colours, labels, and pictures of units and digits."""

import matplotlib.patheffects
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from torch.nn.functional import pad

TWO_COLUMNS = 6.9  # inches: two columns of a journal; 800 pixels on the front page
# Losses A to D, methods of notebook 3, and a pink for those of the reader
GREY, GREEN, ORANGE, BLUE, PINK = "0.5", "#0f9d73", "#d8700f", "#1f6fb4", "#c2348a"
# And one for each mean or unit of notebook 1 (Okabe and Ito)
UNIT_COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"]
WHITE_RIM = [matplotlib.patheffects.withStroke(linewidth=2, foreground="w")]

STYLE = {
    **dict.fromkeys(["font.size", "axes.labelsize", "axes.titlesize"], 8),
    **dict.fromkeys(["xtick.labelsize", "ytick.labelsize", "legend.fontsize"], 7.5),
    **dict.fromkeys(["axes.spines.top", "axes.spines.right", "legend.frameon"], False),
    **dict.fromkeys(["axes.linewidth", "xtick.major.width", "ytick.major.width"], 0.6),
    **dict.fromkeys(["xtick.major.size", "ytick.major.size"], 3),
    "axes.titlelocation": "left",
    "lines.linewidth": 1.2,
    "legend.title_fontsize": 7.5,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
}
sns.set_theme("paper", "ticks", "colorblind", rc=STYLE)


def label(axis, text, at, shift=(0, 0), **style):
    """Write a text, shifted by points of type, on a white rim, and return it; style: as of
    `annotate`."""
    usual = {"ha": "center", "va": "center", "fontsize": 7.5, "path_effects": WHITE_RIM}
    fixed = {"textcoords": "offset points", "annotation_clip": False}
    return axis.annotate(text, at, shift, **usual | style | fixed)


def bare(axis, framed=False):
    """Take off ticks and spines, or leave the frame."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(framed)


def tiles(axis, images, columns, signed=True, names=(), scale=None, framed=()):
    """Draw the rows of images (n, D) as square pictures, each on its own scale, or all on `scale`.

    signed: weights, in red where positive and blue where negative; otherwise digits, in grey.
    names: of the lines of pictures, on their left. framed: numbers of pictures that get a frame.
    """
    images = torch.as_tensor(images).detach().cpu().float()
    if scale is None:  # single pixels may be extreme
        scale = images.abs().quantile(0.99, dim=1, keepdim=True).clamp_min(1e-12)
    side = round(images.shape[1] ** 0.5)
    images = pad(images / scale, (0, 0, 0, -len(images) % columns))
    images = pad(images.view(-1, columns, side, side), (1, 1, 1, 1))
    images = images.transpose(1, 2).flatten(2).flatten(0, 1).numpy()
    style = {"cmap": "RdBu_r", "vmin": -1} if signed else {"cmap": "Greys", "vmin": 0}
    axis.imshow(images, vmax=1, interpolation="nearest", **style)
    for y, x in (divmod(i, columns) for i in framed):
        corner = (side + 2) * x, (side + 2) * y
        axis.add_patch(plt.Rectangle(corner, side + 1, side + 1, fill=False, lw=0.8, ec="0.1"))
    bare(axis)
    axis.set_yticks((side + 1) / 2 + (side + 2) * np.arange(len(names)), names)
    axis.tick_params(length=0, labelsize=8)


def name_rows(axis, names):
    """Name the rows 0, 1, ... of a figure from above."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.7)
    axis.tick_params(axis="y", length=0, labelsize=8)
    axis.spines["left"].set_visible(False)
