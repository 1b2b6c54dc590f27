"""What all figures have in common: one style, labels, and pictures of units and digits.

A figure is exactly one column (3.3 in) or two (6.9 in) wide, and no text in it is below 7 points;
those of README.md, where they are 400 pixels wide, have 12 points in two columns.
"""

import matplotlib.patheffects
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from torch.nn.functional import pad

ONE, TWO = 3.3, 6.9  # inches: a column of a journal, and two
GREY = "0.45"
LARGE = dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 12)
LARGE |= dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 11.5)
ALT = {  # for those who cannot see a figure
    "1_theorem": "Gradient against responsibility on logarithmic axes, for random energies and for "
    "those of a trained layer: all dots lie on the identity line. Below, the differences, in units "
    "of rounding.",
    "1_theorem_toy": "Three clusters of points and the paths of three means. (a) Gradient descent "
    "leads one mean to each cluster, inside the circles of EM. (b) Without the denominator two "
    "means arrive in one cluster, and another cluster has no mean. (c) Of random starts, nearly "
    "all find the three clusters with the denominator, and about as many as are lucky without it.",
    "1_theorem_relu": "(a) The energy of a unit is zero on one side of a line and rises on the "
    "other. (b) Of three units, the one that is active on a cluster has the smallest "
    "responsibility there. (c) The weights of four trained units, digits on which each is most "
    "active, and digits on which it is inactive.",
    "1_theorem_collapse": "Which of three units has the lowest energy, at the start and after "
    "training. Where the points lie in one direction from the origin, one unit gets all "
    "points. Where they are centred, each unit gets a sector with one cluster.",
    "2_ablation": "A column each for configurations A to D. Above, absolute correlations of all "
    "pairs of units: none for A, where no unit varies; large dark blocks for B; nearly nothing off "
    "the diagonal for C and D. In the middle, on what part of the digits each unit is active: zero "
    "for A, around a quarter for B and C, near one for D. Below, the usage of units, sorted.",
    "2_ablation_competition": "(a) Pictures of the weights of eight units, in three lines: with "
    "competition; without competition, where they look the same; with another seed, where they "
    "differ. (b) Redundancy falls as the weight of decorrelation grows. Without competition it is "
    "higher at weight 0; from 0.3 on the two curves coincide.",
    "2_ablation_convergence": "(a) The loss against the logarithm of the epoch: straight lines, as "
    "predicted, for 64, 32 and 16 units; steeper with more units. Adam bends below them. (b) "
    "Epochs at which runs are declared converged lie on the line K / tolerance, or a little above.",
    "3_benchmark": "Variance explained against L0 for eight methods. (a) By the transpose or an "
    "SAE's decoder: TopK is highest, then L1 and tied SAE, the revised loss, the paper's loss with "
    "weight decay, tuned, k-means, and far below the paper's loss. (b) With a least-squares "
    "decoder: in nearly the same order, and closer together; PCA is far below at small L0.",
    "3_benchmark_digit": "Energies and responsibilities of all units for one digit, sorted by "
    "energy: the few active units have the smallest responsibilities, inactive ones the same. "
    "Below: the digit, the weights of its active units, and their sum, which resembles the digit.",
    "3_benchmark_balance": "For four units, six pictures each: the means of strongly active, "
    "barely active and inactive inputs; the first minus the second, and the first minus the "
    "third, which resemble each other; and the weights, which resemble both.",
    "3_benchmark_units": "Eight decoder rows of each method. K-means, the revised loss and the "
    "paper's loss show more whole digits, SAEs more strokes.",
}
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
    ticks = [t for t in (2, 3, 5, 7, 10, 15, 20, 30, 50) if low < t < high]
    axis.set_xscale("log")
    axis.set_xticks(ticks, ticks)
    axis.xaxis.set_minor_formatter(plt.NullFormatter())
