"""What all figures have in common: one style, colours, labels, and pictures of units and digits.

Each function of lab/plots_*.py takes numbers, and returns a figure with its description for those
who cannot see it, fig.alt. It computes nothing and writes nothing.
"""

import matplotlib.patheffects
import numpy as np
import seaborn as sns
import torch
from matplotlib.transforms import ScaledTranslation
from torch.nn.functional import pad

TWO = 6.9  # inches: two columns of a journal
PAPER, REVISED, SAE, GREY = "#d8700f", "0.1", "#1f6fb4", "0.5"  # a colour for each kind of method
GREEN, PINK = "#0f9d73", "#c2348a"  # B, and fewer units; a method of the reader's
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


def frame(axis, title, x=None, y=None, log="", **settings):
    """Title and labels of an axis, logarithmic in what `log` names: "x", "y" or "xy"."""
    scales = {f"{name}scale": "log" for name in log}
    axis.set(title=title, xlabel=x, ylabel=y, **scales, **settings)


def label(axis, text, at, **look):
    """Write a text at a point, on a white rim that keeps it from lines and dots behind it."""
    look = {"ha": "center", "va": "center", "fontsize": 7, "clip_on": True} | look
    axis.text(*np.asarray(at), text, path_effects=RIM, **look)


def beside(axis, texts, y, inches, **look):
    """Write texts to the right of the axis, at height y, each so many inches from it."""
    for text, inch in zip(texts, inches):
        shift = ScaledTranslation(inch, 0, axis.figure.dpi_scale_trans)
        at = axis.get_yaxis_transform() + shift
        label(axis, text, (1, y), ha="right", clip_on=False, transform=at, **look)


def tiles(axis, images, columns, signed=True, names=(), scale=None, marked=()):
    """Draw the rows of images (n, D) as square pictures, each on its own scale, or all on `scale`.

    signed: weights, in red where positive and blue where negative; otherwise digits, in grey.
    names: of the lines of pictures, on their left. marked: numbers of pictures that get a square.
    """
    images = torch.as_tensor(images).detach().cpu().float()
    if scale is None:  # single pixels may be extreme
        scale = images.abs().quantile(0.99, dim=1, keepdim=True).clamp_min(1e-12)
    side = round(images.shape[1] ** 0.5)
    images = pad(images / scale, (0, 0, 0, -len(images) % columns))
    images = pad(images.view(-1, columns, side, side), (1, 1, 1, 1))
    look = {"cmap": "RdBu_r", "vmin": -1} if signed else {"cmap": "Greys", "vmin": 0}
    axis.imshow(
        images.transpose(1, 2).flatten(2).flatten(0, 1).numpy(),
        vmax=1,
        interpolation="nearest",
        **look,
    )
    places = np.array([divmod(i, columns) for i in marked]).reshape(-1, 2)
    axis.plot(*(places[:, ::-1].T * (side + 2) + side - 2), "s", color="0.1", ms=2.2, mew=0)
    axis.set_xticks([])
    axis.set_yticks((side + 1) / 2 + (side + 2) * np.arange(len(names)), names)
    axis.tick_params(length=0, labelsize=8)
    axis.spines[:].set_visible(False)


def picture(axis, image, title=None, signed=False):
    """One square picture (D,) in a frame, or weights as in `tiles`, with its title above it."""
    image = torch.as_tensor(image)
    tiles(axis, image[None], 1, signed, scale=None if signed else 1)
    axis.spines[:].set_visible(not signed)
    axis.set_title(title, loc="center")
