"""The paper's loss and layer, a sparse autoencoder (SAE) to compare with, training, and measures.

x (N, D) are inputs, W (K, D) and b (K,) the weights and biases of K units, and E (N, K) energies. A
low energy is a good fit, so that a unit is active where it does not fit: E > 0. § marks sections of
A. Oursland, "Deriving Decoder-Free Sparse Autoencoders from First Principles", arXiv 2601.06478.

Copyright (c) 2026 The authors of this companion. MIT licence.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import mse_loss, normalize, pad
from tqdm import trange

# --- The loss ------------------------------------------------------------------------------------


def loss(E, lse=1, variance=1, decorrelation=1):
    """Return the paper's loss of a minibatch of energies (§3), with the weights of its terms."""
    return lse * lse_loss(E) + variance * variance_loss(E) + decorrelation * decorrelation_loss(E)


def lse_loss(E):
    """Return the log-sum-exp, -sum_i log sum_j exp(-E_ij) (§2)."""
    return -torch.logsumexp(-E, dim=1).sum()


def responsibilities(E):
    """Return r_ij = exp(-E_ij) / sum_k exp(-E_ik), the gradient of the log-sum-exp (§2)."""
    return torch.softmax(-E, dim=1)


def variance_loss(E):
    """Return -sum_j log(Var(E_j) + 1e-6), which keeps units alive (§3)."""
    return -(E.var(0) + 1e-6).log().sum()


def decorrelation_loss(E):
    """Return the sum of Corr(E_j, E_k)^2 over j != k, which keeps units apart (§3). It is also the
    paper's measure of redundancy, ||Corr - I||^2 (§4.2), at most K (K - 1)."""
    return 2 * correlation(E).triu(1).square().sum()


def correlation(E):
    """Return the correlations of units, (K, K); a dead unit has none with any."""
    C = normalize(E - E.mean(0), dim=0, eps=1e-6)
    return C.T @ C


# --- Models: model(x) is a code (N, K), model.decode(code) a reconstruction (N, D) ----------------


class Encoder(nn.Linear):
    """The paper's layer, E = relu(x W^T + b) (§3). It has no decoder: its transposed weights stand
    in for one (§4.3). It starts as PyTorch's layers do, from a seed."""

    def __init__(self, n_inputs, n_units, seed=0):
        torch.manual_seed(seed)
        super().__init__(n_inputs, n_units)

    def forward(self, x):
        return torch.relu(super().forward(x))

    def decode(self, E):
        return E @ self.weight


class SparseAutoencoder(Encoder):
    """An SAE: its code is A = relu(x W^T + b), and its reconstruction A V + c. If tied, V is W."""

    def __init__(self, n_inputs, n_units, seed=0, tied=False):
        super().__init__(n_inputs, n_units, seed)
        bound = n_units**-0.5  # as PyTorch's layers start
        V = torch.empty(n_units, n_inputs).uniform_(-bound, bound)
        self.V = self.weight if tied else nn.Parameter(V)
        self.c = nn.Parameter(torch.zeros(n_inputs))

    def decode(self, A):
        return A @ self.V + self.c


# --- Training ------------------------------------------------------------------------------------


class Objective(nn.Module):
    """A model and its loss as one module, which can be called with other parameters."""

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x, *options):
        return self.loss(self.model, x, *options)


def fit(models, loss, x, epochs, options=(), optimizer=None, schedule=None, batch_size=128, seed=0):
    """Train a list of M models side by side, and return their mean losses, (epochs, M). All see the
    same minibatches of x (N, D); each has its own gradient, as if it were alone. Inputs that fill
    no minibatch are left out, in each epoch other ones. Ctrl-C leaves the models as they then are.

    models : of one class, with parameters of one shape; what else differs is an option or a buffer
    loss : loss(model, minibatch, *options), a number
    options : tensors of M rows, such as weights of the loss; a model gets its row of each
    optimizer : a function of parameters; if None, Adam at the paper's rate
    schedule : a function of the optimizer, such as partial(MultiStepLR, milestones=[75])
    seed : of the order of the inputs

    Raises ValueError if there are no models, one twice, or several kinds, if options do not have a
    row for each, if epochs or batch_size are out of range, or if x is not finite; and
    FloatingPointError, with the losses, if a loss is not.
    """
    models = list(models)
    if len({id(model) for model in models}) != len(models) or not models:
        raise ValueError("models needs one model or more, none of them twice")
    kinds = {(type(m), *((name, p.shape) for name, p in m.named_parameters())) for m in models}
    if len(kinds) > 1:
        raise ValueError(f"models are of {len(kinds)} kinds (class, parameters' names and shapes)")
    for option in options:
        if len(option) != len(models):
            raise ValueError(f"an option has {len(option)} rows for {len(models)} models")
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}, and needs to be 1 or more")
    if not 2 <= batch_size <= len(x):
        raise ValueError(f"batch_size is {batch_size}, and needs to be from 2 to {len(x)}, all x")
    if not torch.sum(x).isfinite():
        raise ValueError("x has entries that are not finite numbers")
    # Where gradients have stopped, Adam's means of them decay to numbers so small that they are
    # slow: they count as zero.
    torch.set_flush_denormal(True)
    objectives = [Objective(model, loss) for model in models]
    parameters, buffers = stack_module_state(objectives)  # (M, ...) each
    losses_of = vmap(
        lambda own, x, *options: functional_call(objectives[0], own, (x, *options)),
        in_dims=(0, None, *(0 for _ in options)),
        randomness="different",  # dropout and noise are each model's own
    )
    optimizer = (optimizer or partial(torch.optim.Adam, lr=1e-3, fused=True))(parameters.values())
    scheduler = schedule(optimizer) if schedule else None
    rng = torch.Generator().manual_seed(seed)
    n_batches = len(x) // batch_size
    one_each = torch.ones(len(models), device=x.device)
    history = []
    try:
        for epoch in trange(epochs, unit="epoch", leave=False):
            order = torch.randperm(len(x), generator=rng).to(x.device)
            total = 0
            for rows in order[: n_batches * batch_size].view(n_batches, batch_size):
                losses = losses_of((parameters, buffers), x[rows], *options)
                optimizer.zero_grad()
                losses.backward(one_each)  # no loss depends on another model's parameters
                optimizer.step()
                total += losses.detach()
            history.append(total / n_batches)
            if not history[-1].isfinite().all():
                raise FloatingPointError(f"losses after epoch {epoch + 1}: {history[-1].tolist()}")
            if scheduler:
                scheduler.step()
    finally:
        for i, objective in enumerate(objectives):
            for name, parameter in objective.named_parameters():
                parameter.data.copy_(parameters[name][i])
            for name, buffer in objective.named_buffers():
                buffer.copy_(buffers[name][i])
    return torch.stack(history)


# --- Measures ------------------------------------------------------------------------------------


def usage(E):
    """Return on what share of the inputs each unit is active, (K,)."""
    return (E > 0).float().mean(0)


def dead_units(E):
    """Return how many units are active on no input."""
    return int((usage(E) == 0).sum())


def l0(E):
    """Return the mean number of active units of an input."""
    return float(usage(E).sum())


def fit_gain_and_offset(decoded, x):
    """Return the gain, a number, and the offset, (D,), with which gain * decoded + offset is
    nearest to x (N, D), by least squares."""
    C = decoded - decoded.mean(0)
    gain = (C * (x - x.mean(0))).sum() / C.square().sum().clamp(min=1e-30)  # a dead model has C = 0
    return gain, x.mean(0) - gain * decoded.mean(0)


def fitted_mse(decoded, x, decoded_test, x_test):
    """Return the mean squared error of reconstructions of x_test (N, D), scaled and shifted by the
    gain and the offset with which those of x fit best: a code is not in units of pixels, and these
    1 + D numbers translate it. Some thousand x are enough."""
    gain, offset = fit_gain_and_offset(decoded, x)
    return float(mse_loss(gain * decoded_test + offset, x_test))


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
    images = images / images.abs().amax(1, keepdim=True).clamp(min=1e-3)
    images = pad(images, (0, 0, 0, -len(images) % columns))  # fill the last row
    images = pad(images.view(-1, columns, side, side), (1, 1, 1, 1))
    return images.transpose(1, 2).flatten(2).flatten(0, 1)
