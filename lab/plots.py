"""What all figures share: one style, labels, colours, pictures of units.

All are exactly one column (3.3 in) or two (6.9 in) wide, colour-blind safe, readable in grey.
"""

import matplotlib.patheffects
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch

ONE, TWO = 3.3, 6.9  # inches: a column of a journal, and two
GREY = "0.45"


def style():
    """One look for all figures."""
    sizes = {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "legend.fontsize": 7}
    lines = {"axes.linewidth": 0.6, "lines.linewidth": 1.2}
    for axis in "xy":
        sizes[f"{axis}tick.labelsize"] = 7
        lines |= {f"{axis}tick.major.width": 0.6, f"{axis}tick.minor.width": 0.4}
        lines |= {f"{axis}tick.major.size": 3, f"{axis}tick.minor.size": 1.5}
    output = {"figure.dpi": 130, "savefig.dpi": 300, "pdf.fonttype": 42}
    layout = {"figure.constrained_layout.use": True, "axes.titlelocation": "left"}
    sns.set_theme("paper", "ticks", "colorblind", rc=sizes | lines | output | layout)


def label_ends(axis, ends, gap=8):
    """Write names {name: (x, y, colour)} beside the ends of lines, and above one another where
    they would overlap; `gap` is a line's height in points."""
    axis.figure.canvas.draw()  # the scales must be known
    points, placed, (low, high) = axis.figure.dpi / 72, [], axis.get_ylim()
    for name, (x, y, colour) in sorted(ends.items(), key=lambda item: item[1][1]):
        if not low <= y <= high:  # outside of the picture
            continue
        left, height = axis.transData.transform((x, y)) / points
        right, at = left + 4.5 * len(name), height
        for a, b, other in placed:  # from below
            if left < b and a < right and at < other + gap:
                at = other + gap
        placed.append((left, right, at))
        look = {"fontsize": 7, "color": colour, "va": "center", "annotation_clip": False}
        axis.annotate(name, (x, y), (5, at - height), textcoords="offset points", **look)


def label(axis, text, at, **look):
    """Write a text at a point, on a white rim that keeps it from lines and dots behind it."""
    rim = [matplotlib.patheffects.withStroke(linewidth=2, foreground="w")]
    rim = {"path_effects": rim, "clip_on": True}
    look = {"ha": "center", "va": "center", "fontsize": 7} | rim | look
    axis.text(*np.asarray(at), text, **look)


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
    side, n = round(W.shape[1] ** 0.5), -(-len(W) // columns) * columns
    sheet = torch.zeros(n, side + 2, side + 2)
    sheet[: len(W), 1:-1, 1:-1] = W.view(-1, side, side)
    image = sheet.view(-1, columns, side + 2, side + 2).permute(0, 2, 1, 3)
    image = image.reshape(-1, columns * (side + 2))
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
