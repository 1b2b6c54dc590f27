"""The figures of notebook 3: each function takes what it shows, and returns a figure."""

import matplotlib.pyplot as plt
import torch

from lab.plots import GREY, TWO, label, label_ends, large, log_l0, tiles

LOOKS = {  # colour, marker, line: warm for the paper's loss and its changes, blue for SAEs
    "the paper's loss": ("#dd9326", "v", ":"),
    "the paper's loss, tuned": ("#cc6410", "<", "-."),
    "the paper's loss + weight decay": ("#963a0a", ">", "--"),
    "the revised loss": ("k", "o", "-"),
    "tied SAE": ("#5aa9dd", "s", "-."),
    "L1 SAE": ("#1f6fb4", "D", "--"),
    "TopK SAE": ("#0b2d5c", "^", "-"),
}
OWN_LOOK = ("#c2348a", "X", "-")  # of a method of the reader's
SHORT = {"the paper's loss, tuned": "tuned", "the paper's loss + weight decay": "+ decay"}


@large
def benchmark(table, pca):
    """table: a row for each layer, see `lab.measures.benchmark`; pca: {L0: variance explained}."""
    fig, axes = plt.subplots(1, 2, figsize=(6, 4.6), sharex=True, sharey=True)
    for axis, column in zip(axes, ("own", "best")):
        for name, of in table.groupby("method", sort=False):
            colour, marker, line = LOOKS.get(name, OWN_LOOK)
            axis.plot(of.l0, of[column], ".", color=colour, ms=4, alpha=0.6, mew=0, label="_")
            means = of.groupby("setting")[["l0", column]].mean().sort_values("l0")
            look = {"color": colour, "marker": marker, "ls": line, "ms": 6, "mew": 1.1, "lw": 1.6}
            text = SHORT.get(name, name.removeprefix("the ").removesuffix(" SAE"))
            axis.plot(means.l0, means[column], mfc="w", label=text, **look)
        axis.plot([*pca], [*pca.values()], color=GREY, lw=0.9, label="_")
        log_l0(axis)
        axis.set_xlabel("active units")
    label(axes[1], "PCA", (12, pca[12] - 0.03), color=GREY, ha="left", va="top", fontsize=13)
    axes[0].set(title="(a) own decoder", ylabel="variance explained")
    axes[1].set_title("(b) best decoder")
    low, high = table[["own", "best"]].min().min(), table[["own", "best"]].max().max()
    axes[1].set_ylim(min(0.3, low - 0.02), high + 0.06)  # with room for labels
    label_ends(axes[0], gap=14, fontsize=13)
    fig.alt = (
        "Variance explained against the number of active units, a line for each method: (a) by the "
        "transpose, or an SAE's own decoder, (b) by the best linear decoder; beside it, principal "
        "components."
    )
    return fig


def one_digit(digit, codes):
    """A digit (D,) and, for each of {method: (A (K,), decoder rows (K, D), reconstruction (D,))},
    a line of the rows of its active units, by their part in the sum, and the reconstruction."""
    active = max(int((A > 0).sum()) for A, _, _ in codes.values())
    n = min(active, 10)
    fig, axes = plt.subplots(
        len(codes), n + 2, figsize=(TWO, 0.78 * len(codes) + 0.2), squeeze=False
    )
    for i, (name, (A, V, x_hat)) in enumerate(codes.items()):
        row = axes[i]
        units = (A * V.norm(dim=1)).argsort(descending=True)[: min(int((A > 0).sum()), n)]
        picture(row[0], digit, None if i else "digit")
        row[0].set_ylabel(name.removeprefix("the ").replace(" loss", "\nloss"), fontsize=8)
        for axis, unit in zip(row[1:], units):
            tiles(axis, V[unit][None], 1)
            axis.set_title(f"{A[unit]:.3g}", loc="center", fontsize=7, pad=2)
        for axis in row[1 + len(units) : -1]:
            axis.axis("off")
        picture(row[-1], x_hat, None if i else "$\\hat x$")
    fig.alt = (
        "A line for each method: a digit, the decoder rows of its active units with their "
        "activations above them, and the reconstruction."
    )
    return fig


def means(models, shown):
    """models: {name: what `lab.balance.means` found}; shown (D,): True where weights are drawn.

    A line each for two units, the one with the longest row of the best decoder, and one of middle
    length: means of its inputs, the step, that row and the weights."""
    lines = []
    for name, found in models.items():
        units = found["V"].norm(dim=1).argsort(descending=True)
        lines += [(name, found, int(unit)) for unit in (units[0], units[len(units) // 2])]
    fig, grid = plt.subplots(len(lines), 5, figsize=(TWO, 1.15 * len(lines)), squeeze=False)
    for row, (name, found, unit) in zip(grid, lines):
        A, R = found["x_A"][unit], found["x_R"][unit]
        parts = [A, R, A - found["rho"][unit] * R, found["V"][unit], found["W"][unit] * shown]
        for i, (axis, part) in enumerate(zip(row, parts)):
            # The two means of a unit have one scale; the others have their own
            limit = float(max(A.abs().max(), R.abs().max()) if i < 2 else part.abs().quantile(0.99))
            picture(axis, part, None, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(f"{name}\n$\\rho_j$ = {found['rho'][unit]:.1f}", fontsize=8)
    names = ("strongly active\n$\\bar x_A$", "barely active\n$\\bar x_R$")
    names += ("step\n$\\bar x_A-\\rho_j\\bar x_R$", "decoder row\n$V_j$", "weights\n$w_j$")
    for axis, name in zip(grid[0], names):
        axis.set_title(name, loc="center")
    fig.alt = (
        "For two units of each model five pictures: the means of strongly and of barely active "
        "inputs, the step, the row of the best decoder, and the weights."
    )
    return fig


def units(rows, shown):
    """rows: {name: rows of W and of the decoder (8, D), of eight units}, a line for each, or one if
    they are the same; shown (D,): True where weights are drawn."""
    lines = {}
    for name, (W, V) in rows.items():
        same = W.equal(V)
        lines |= {name: W} if same else {f"{name}:\nencoder": W, f"{name}:\ndecoder": V}
    fig, axis = plt.subplots(figsize=(TWO, 0.72 * len(lines)), layout="compressed")
    tiles(axis, torch.cat([*lines.values()]) * shown, 8, names=[*lines])
    fig.alt = "Eight rows of weights for each method, of SAEs of encoder and decoder, as pictures."
    return fig


def picture(axis, image, title, **look):
    """A square picture (D,) with its title: a digit, black on white, or as `look` says."""
    look = {"cmap": "Greys", "vmin": 0, "vmax": 1, "interpolation": "nearest"} | look
    image = torch.as_tensor(image).detach()
    side = round(len(image) ** 0.5)
    axis.imshow(image.reshape(side, side).numpy(), **look)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(True)
    if title:
        axis.set_title(title, loc="center")
