"""The paper's loss and layer, a sparse autoencoder (SAE) to compare with, training, and measures.

Models train side by side, in a stack: W[m] are the weights of model m, all see the same inputs, and
their losses are summed, so that no gradient mixes two of them. Inputs are x (N, D), weights W
(M, K, D), biases b (M, K) and energies E (M, N, K), of M models, N inputs and K units. A low energy
is a good fit; a unit is active on an input if its energy is above zero. § marks sections of
A. Oursland, "Deriving Decoder-Free Sparse Autoencoders from First Principles", arXiv 2601.06478.

Copyright (c) 2026 The authors of this companion. MIT licence.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear, mse_loss
from tqdm import trange

# Where gradients have stopped, Adam's means of them decay to numbers so small that they are slow:
# from here on they are zero. Before the first product, so that all threads follow.
torch.set_flush_denormal(True)

# --- The loss: of energies (..., N, K), a number for each model ----------------------------------


def loss(E, lse=1, variance=1, decorrelation=1):
    """Return the paper's loss of a minibatch (§3). The weights of its terms are numbers or (M,).
    The log-sum-exp is summed over inputs, so that it weighs more in a larger minibatch."""
    return lse * lse_loss(E) + variance * variance_loss(E) + decorrelation * decorrelation_loss(E)


def lse_loss(E):
    """Return -sum_i log sum_j exp(-E_ij), which is summed over inputs i; its gradient is the
    responsibility r_ij (§2)."""
    return -logsumexp(-E, -1).sum(-1)


def logsumexp(u, dim):
    """Return torch.logsumexp(u, dim), several times faster where entries of u are far apart: MKL is
    slow at terms of less than exp(-87) of the largest. All below exp(-70), of which nothing is left
    in the sum, are raised to it."""
    floor = u.detach().amax(dim, keepdim=True) - 70
    return torch.logsumexp(u + torch.relu(floor - u), dim)  # u itself, if it is above the floor


def responsibilities(E):
    """Return r_ij = exp(-E_ij) / sum_k exp(-E_ik), the share of unit j in input i (§2)."""
    return torch.softmax(-E, -1)


def variance_loss(E):
    """Return -sum_j log(Var(E_j) + 1e-6), which keeps units alive (§3)."""
    C = E - E.mean(-2, keepdim=True)
    variance = C.square().sum(-2) / (E.shape[-2] - 1)  # E.var takes longer
    return -(variance + 1e-6).log().sum(-1)


def decorrelation_loss(E):
    """Return the sum of Corr(E_j, E_k)^2 over j != k, which keeps units apart (§3). It is also the
    paper's measure of redundancy, ||Corr - I||^2 (§4.2), at most K (K - 1); constant units count as
    uncorrelated."""
    return 2 * correlation(E).triu(1).square().sum((-2, -1))


def correlation(E):
    """Return the correlations of units, (..., K, K); those of a constant unit are zero."""
    C = E - E.mean(-2, keepdim=True)
    squares = C.square().sum(-2, keepdim=True)
    # the mean of a constant unit is rounded, so that its C is not exactly zero
    rounding = (10 * torch.finfo(E.dtype).eps) ** 2 * E.square().sum(-2, keepdim=True)
    varies = squares > rounding.clamp(min=1e-20)  # below it, gradients overflow
    C = C / squares.where(varies, torch.inf).sqrt()
    return C.mT @ C


# --- Models: model(x) is the code (M, N, K), model.decode(code) a reconstruction (M, N, D) -------


class Encoder(nn.Module):
    """The paper's layer, E = relu((x - mean) W^T + b), one for each seed; in the paper the mean is
    0 (§3). It has no decoder: its transposed weights stand in for one (§4.3)."""

    def __init__(self, n_inputs, n_units, seeds=(0,), mean=0.0, activation=torch.relu):
        super().__init__()
        self.activation = activation
        self.rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.W = self.uniform(n_units, n_inputs, fan_in=n_inputs)
        self.b = self.uniform(n_units, fan_in=n_inputs)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=self.W.dtype))

    def uniform(self, *shape, fan_in):
        """Return parameters (M, *shape), distributed as at the start of PyTorch's layers."""
        numbers = [2 * torch.rand(shape, generator=rng) - 1 for rng in self.rngs]
        return nn.Parameter(torch.stack(numbers) / fan_in**0.5)

    def forward(self, x):
        z = linear(x - self.mean, self.W.flatten(0, 1), self.b.flatten())  # as of one wide layer
        return self.activation(z.unflatten(-1, self.b.shape).movedim(-2, 0))

    def decode(self, E, i=slice(None)):
        """Return the reconstruction, E W + mean, of codes (M, N, K), or of those of model i,
        (N, K)."""
        return (E @ self.W[i]).add_(self.mean)  # in place: it saves memory


class SparseAutoencoder(Encoder):
    """An SAE: its code is A = relu((x - mean) W^T + b), and its reconstruction A V + c. If it is
    tied, V is W."""

    def __init__(self, n_inputs, n_units, seeds=(0,), tied=False, **options):
        super().__init__(n_inputs, n_units, seeds, **options)
        self.V = self.W if tied else self.uniform(n_units, n_inputs, fan_in=n_units)
        self.c = nn.Parameter(self.mean.expand(len(seeds), 1, n_inputs).clone())

    def decode(self, A, i=slice(None)):
        return (A @ self.V[i]).add_(self.c[i])  # in place, too


# --- Training ------------------------------------------------------------------------------------


def fit(model, losses, x, epochs, optimizer=None, after_epoch=None, batch_size=128, seed=0):
    """Train a stack on minibatches of x (N, D), and return its mean losses, (epochs, M). Inputs
    that make no whole minibatch are left out, in each epoch other ones.

    losses : losses(model, minibatch), a number for each model, (M,)
    optimizer : Adam at the paper's rate, if None
    after_epoch : a function without arguments, such as the step of a torch.optim.lr_scheduler
    seed : of the order of inputs, which is one for all models

    Raises ValueError if epochs or batch_size is out of range, or x is not finite, and
    FloatingPointError if a loss is not.
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}, and needs to be 1 or more")
    if not 2 <= batch_size <= len(x):
        raise ValueError(
            f"batch_size is {batch_size}, and needs to be from 2 to the number of inputs, {len(x)}"
        )
    if not x.isfinite().all():
        raise ValueError("x has entries that are not finite numbers")
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    rng = torch.Generator().manual_seed(seed)
    n_batches = len(x) // batch_size
    history = []
    for epoch in trange(epochs, unit="epoch", leave=False):
        order = torch.randperm(len(x), generator=rng).to(x.device)
        total = 0
        for rows in order[: n_batches * batch_size].view(n_batches, batch_size):
            batch_losses = losses(model, x.index_select(0, rows))
            optimizer.zero_grad()
            batch_losses.sum().backward()  # no model sees another's loss
            optimizer.step()
            total += batch_losses.detach()
        history.append(total / n_batches)
        if not history[-1].isfinite().all():
            raise FloatingPointError(f"losses after epoch {epoch + 1}: {history[-1].tolist()}")
        if after_epoch:
            after_epoch()
    return torch.stack(history)


# --- Measures ------------------------------------------------------------------------------------


def sum_squared_error(decoded, x):
    """Return the squared error of reconstructions (M, N, D) of x (N, D), summed over N and D."""
    x = x.expand_as(decoded)
    return mse_loss(decoded, x, reduction="none").sum((-2, -1))  # less to store than a square


def usage(E):
    """Return on what share of the inputs each unit is active, (..., K)."""
    return (E > 0).float().mean(-2)


def dead_units(E):
    """Return how many units are active on no input."""
    return (usage(E) == 0).sum(-1)


def l0(E):
    """Return the mean number of active units of an input."""
    return usage(E).sum(-1)


def fit_gain_and_offset(decoded, x):
    """Return the gain, a number, and the offset, (D,), with which gain * decoded + offset is
    nearest to x (N, D), by least squares."""
    centre, mean = decoded.mean(0), x.mean(0)
    with_x = squares = 0
    for part, x_part in zip(decoded.split(4096), x.split(4096)):  # it saves memory
        C = part - centre
        with_x += (C * (x_part - mean)).sum()
        squares += C.square().sum()
    gain = with_x / squares.clamp(min=1e-30)  # a dead model has C = 0
    return gain, mean - gain * centre


def probe_accuracy(A, y, A_test, y_test):
    """Return the test accuracy, in percent, of a linear classifier on codes A (N, K)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return 100 * classifier.fit(A, y).score(A_test, y_test)


# --- For notebooks -------------------------------------------------------------------------------


def mean_table(table, by, decimals, paper=None):
    """Return means ± standard deviations over seeds, as text, and the paper's numbers in brackets.

    table : a DataFrame with a row for each seed; by : the column, or columns, that name its rows
    decimals : {column: how many}; paper : {column: {row: the paper's number, as text}}
    """

    def mean_and_deviation(v):
        d = decimals[v.name]
        return f"{v.mean(skipna=False):,.{d}f}" + (f" ± {v.std():,.{d}f}" if v.std() > 0 else "")

    text = table.groupby(by, sort=False)[[*decimals]].agg(mean_and_deviation)
    for column, numbers in (paper or {}).items():
        for row in text.index.intersection([*numbers]):
            text.loc[row, column] += f" ({numbers[row]})"
    return text


def load_images(path=Path(__file__).parent / "data/mnist.npz"):
    """Return x (60000, 784), pixels from 0 to 1, labels y (60000,), and those of the test set.

    path : of an .npz of bytes x_train and x_test (N, side, side), and labels y_train, y_test (N,)

    Raises ValueError if there is no such file, or if it is damaged.
    """
    try:
        with np.load(path) as file:
            if not file["x_train"].dtype == file["x_test"].dtype == np.uint8:
                raise TypeError("x_train and x_test are not of bytes, from 0 to 255")
            x, x_test = (torch.from_numpy(file[k] / np.float32(255)) for k in ("x_train", "x_test"))
            y, y_test = (torch.from_numpy(file[k].astype(int)) for k in ("y_train", "y_test"))
    except Exception as error:  # of many kinds: no file, no archive, a part of one, no such array
        raise ValueError(
            f"{path} is missing or damaged, or has no x_train, y_train, x_test and y_test "
            f"({error!r}). In a clone, `git checkout -- :/data` brings MNIST back."
        ) from error
    return x.flatten(1), y, x_test.flatten(1), y_test


def tile_images(images, columns):
    """Return square images (n, D), each on its own scale, side by side in one picture."""
    side = round(images.shape[1] ** 0.5)
    largest = images.abs().quantile(0.99, dim=1, keepdim=True)
    images = images / largest.clamp(min=1e-3)  # or what decay leaves of a dead unit would be shown
    images = nn.functional.pad(images, (0, 0, 0, -len(images) % columns))  # fill the last row
    images = nn.functional.pad(images.view(-1, columns, side, side), (1, 1, 1, 1))
    return images.transpose(1, 2).flatten(2).flatten(0, 1)
