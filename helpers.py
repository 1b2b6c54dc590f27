"""The paper's loss and layer, an SAE to compare with, training, linear decoders and measures.

This file needs PyTorch alone, and is made to be copied. Inputs are x (N, D), weights W (K, D),
biases b (K,), energies E (N, K) and decoders V (K, D). A low energy is a good fit. A unit is active
on an input if its energy is above zero; the energies of an input are its code. § marks sections of
A. Oursland, "Deriving Decoder-Free Sparse Autoencoders from First Principles", arXiv 2601.06478.

Copyright (c) 2026 The authors of this companion. MIT licence.
"""

import math
from functools import partial

import torch
from torch import nn
from torch.nn.functional import linear, normalize

# --- The loss: terms of energies E (N, K), or of several layers at once (..., N, K) ---------------


def responsibilities(E):
    """Return r_ij = exp(-E_ij) / sum_k exp(-E_ik), (..., N, K); rows sum to 1 (§2)."""
    return torch.softmax(-E, dim=-1)


def lse_loss(E, competition=True):
    """Return the log-sum-exp loss -sum_i log Z_i, with Z_i = sum_j exp(-E_ij) (§2).

    Its gradient is the responsibility, exp(-E_ij) / Z_i. Without competition, all inputs share one
    denominator, the mean of Z: the loss is -N log mean Z, and its gradient exp(-E_ij) / mean Z.
    """
    log_Z = torch.logsumexp(-E, dim=-1)
    if competition:
        return -log_Z.sum()
    N = log_Z.shape[-1]
    return -N * (torch.logsumexp(log_Z, dim=-1) - math.log(N)).sum()


def variance_loss(E):
    """Return -sum_j log(Var(E_j) + 1e-6), which keeps units alive (§3)."""
    C = E - E.mean(-2, keepdim=True)
    variance = C.square().sum(-2) / (E.shape[-2] - 1)  # faster than E.var
    return -torch.log(variance + 1e-6).sum()


def correlation(E):
    """Return the correlations of units, (..., K, K). Those of a constant unit are zero."""
    mean = E.mean(-2, keepdim=True)
    C = E - mean
    norm = torch.linalg.vector_norm(C, dim=-2, keepdim=True)
    rounding = 1e-6 * E.shape[-2] ** 0.5 * mean.detach().abs() + 1e-12  # of a constant unit
    C = C / norm.where(norm > rounding, torch.inf)
    return C.mT @ C


def decorrelation_loss(E):
    """Return sum_{j != k} Corr(E_j, E_k)^2, which keeps units from being alike (§3)."""
    R = correlation(E)
    diagonal = R.diagonal(dim1=-2, dim2=-1).detach()  # 1 or 0: no gradient
    return R.square().sum() - diagonal.square().sum()


def decoder_free_loss(E, lse=1, variance=1, decorrelation=1, competition=True):
    """Return the paper's loss of a minibatch (§3); the numbers are the weights of its terms."""
    return (
        lse * lse_loss(E, competition)
        + variance * variance_loss(E)
        + decorrelation * decorrelation_loss(E)
    )


# --- Models: model(x) is the code -----------------------------------------------------------------


class Encoder(nn.Module):
    """The paper's layer, E = relu(W (x - mean) + b), without a decoder (§3).

    Parameters
    ----------
    n_inputs, n_units : D and K
    mean : (D,), what to subtract from inputs, or None as in the paper; inputs whose mean is large
        beside their standard deviation need it, or units die
    seed : of the weights at the start, and of the order of inputs in `fit`
    """

    def __init__(self, n_inputs, n_units, mean=None, seed=0):
        super().__init__()
        self.seed = seed
        rng = torch.Generator().manual_seed(seed)
        bound = n_inputs**-0.5  # as PyTorch's layers
        self.W = nn.Parameter(torch.empty(n_units, n_inputs).uniform_(-bound, bound, generator=rng))
        self.b = nn.Parameter(torch.empty(n_units).uniform_(-bound, bound, generator=rng))
        mean = None if mean is None else torch.as_tensor(mean).detach().to(self.W).clone()
        self.register_buffer("mean", mean)

    def pre_activations(self, x):
        x = x.to(self.W)
        return linear(x if self.mean is None else x - self.mean, self.W, self.b)

    def forward(self, x):
        return torch.relu(self.pre_activations(x))


class SparseAutoencoder(Encoder):
    """An SAE: its code is A = relu(W (x - mean) + b), and its reconstruction A V + c.

    Parameters
    ----------
    n_inputs, n_units, mean, seed : as of `Encoder`
    tied : whether V is W
    k : how many activations of an input stay, the largest, or None for all
    """

    def __init__(self, n_inputs, n_units, mean=None, seed=0, tied=False, k=None):
        super().__init__(n_inputs, n_units, mean, seed)
        self.tied = tied
        self.V = self.W if tied else nn.Parameter(normalize(self.W.detach(), dim=1))
        self.c = nn.Parameter(torch.zeros(n_inputs) if mean is None else self.mean.clone())
        self.k = k

    def forward(self, x):
        A = super().forward(x)
        if self.k is None:
            return A
        top = A.topk(self.k, dim=-1)
        return torch.zeros_like(A).scatter(-1, top.indices, top.values)

    def decode(self, A):
        return A @ self.V + self.c

    def reconstruct(self, x):
        return self.decode(self(x))


# --- Training -------------------------------------------------------------------------------------

fused_adam = partial(torch.optim.Adam, fused=True)  # the same steps in half of the time


def fit(
    model,
    loss,
    x,
    *,
    epochs,
    lr=1e-3,
    batch_size=128,
    optimizer=fused_adam,
    schedule=None,
    order_seed=None,
    after_epoch=None,
):
    """Train a model on minibatches of x, and return the mean loss of each epoch, (epochs,).

    Parameters
    ----------
    loss : loss(model, minibatch), a number to be minimised
    x : (N, D); of each epoch the last rows, too few for a minibatch, are left out
    optimizer : optimizer(parameters, lr=lr)
    schedule : a factor of the learning rates for each epoch, or None
    order_seed : of the order of inputs, else the model's seed, else 0
    after_epoch : after_epoch(model)

    Raises ValueError if x, epochs, batch_size or schedule cannot be used, and FloatingPointError if
    training diverges. On Ctrl-C the model is left as it is.
    """
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}: a variance needs 2 rows or more")
    if not (torch.is_tensor(x) and x.dim() == 2 and len(x) >= batch_size):
        raise ValueError(f"x must be a tensor (N, D) of {batch_size} rows or more")
    if not all(part.isfinite().all() for part in x.split(4096)):
        raise ValueError("x has entries that are not finite numbers")
    factors = [1.0] * epochs if schedule is None else list(schedule)
    if epochs < 1 or len(factors) != epochs:
        raise ValueError(f"{epochs} epochs, {len(factors)} factors of schedule: needs 1 or more")

    parameters = [p for p in model.parameters() if p.requires_grad]
    algorithm = optimizer(parameters, lr=lr)
    rates = [group["lr"] for group in algorithm.param_groups]
    x = x.to(parameters[0])
    seed = getattr(model, "seed", 0) if order_seed is None else order_seed
    rng = torch.Generator().manual_seed(seed)
    means = []
    model.train()
    for factor in factors:
        for group, rate in zip(algorithm.param_groups, rates):
            group["lr"] = rate * factor
        losses = []
        order = torch.randperm(len(x), generator=rng).to(x.device)
        for rows in order.split(batch_size)[: len(x) // batch_size]:
            value = loss(model, x.index_select(0, rows))  # faster than x[rows]
            algorithm.zero_grad()
            value.backward()
            algorithm.step()
            losses.append(value.detach())
        means.append(torch.stack(losses).mean())
        if not all(p.isfinite().all() for p in (means[-1], *parameters)):
            raise FloatingPointError(f"diverged in epoch {len(means)}; try a smaller lr")
        if after_epoch:
            after_epoch(model)
    model.eval()
    return torch.stack(means)


# --- A trained model with a linear decoder: x_hat = A V + offset, by least squares on rows of x ---


@torch.no_grad()
def _moments(model, x, rows=4096):
    """Return A = model(x), the means of A and of x, N Cov(A) and N Cov(A, x), in float64."""
    A = torch.cat([model(part) for part in x.split(rows)]).double()
    A_mean = A.mean(0)
    x_mean = sum(part.to(A).sum(0) for part in x.split(rows)) / len(x)
    C = A - A_mean
    cross = sum(c.T @ (part.to(A) - x_mean) for c, part in zip(C.split(rows), x.split(rows)))
    return A, A_mean, x_mean, C.T @ C, cross


def with_best_decoder(model, x, min_active=10):
    """Return the model with the best V and offset. The row of V is 0 for a unit that is constant,
    or active on fewer rows of x."""
    A, A_mean, x_mean, scatter, cross = _moments(model, x)
    norm = scatter.diagonal().sqrt()
    rounding = 1e-6 * len(x) ** 0.5 * A_mean.abs()  # of a constant unit, which is not inverted
    norm[((A != 0).sum(0) < min_active) | (norm <= rounding)] = torch.inf
    R, cross = scatter / norm / norm[:, None], cross / norm[:, None]
    V = torch.linalg.pinv(R, rtol=1e-6, hermitian=True) @ cross / norm[:, None]
    return WithDecoder(model, V, x_mean - A_mean @ V)


def with_own_decoder(model, x, V=None):
    """Return the model with its own V, times the one gain that fits best, and the best offset.

    V : another decoder (K, D) in its place
    """
    _, A_mean, x_mean, scatter, cross = _moments(model, x)
    V = (decoder_rows(model) if V is None else V).detach().double()
    gain = (V * cross).sum() / (scatter * (V @ V.T)).sum().clamp_min(1e-300)
    return WithDecoder(model, gain * V, x_mean - gain * (A_mean @ V))


def decoder_rows(model):
    """Return the decoder V (K, D) of an SAE; that of the paper's layer is W (§4.3)."""
    return model.V if hasattr(model, "V") else model.W


class WithDecoder(nn.Module):
    """A trained model with the decoder V (K, D) and offset (D,)."""

    def __init__(self, model, V, offset):
        super().__init__()
        self.model = model
        parameter = next(model.parameters())
        self.register_buffer("V", V.to(parameter))
        self.register_buffer("offset", offset.to(parameter))

    def forward(self, x):
        return self.model(x)

    def decode(self, A):
        return A @ self.V + self.offset

    def reconstruct(self, x):
        return self.decode(self(x))


# --- Measures -------------------------------------------------------------------------------------


@torch.no_grad()
def variance_explained(sae, x):
    """Return 1 - FVU: one minus the squared error of sae.reconstruct(x) over that of x's mean."""
    x_hat, x = sae.reconstruct(x).double(), x.double()
    error = (x_hat.to(x.device) - x).square().sum()
    return float(1 - error / (x - x.mean(0)).square().sum())


def l0(E):
    """Return the mean number of active units of an input."""
    return float((E > 0).sum(-1).double().mean())


def usage(E):
    """Return on what share of the inputs each unit is active, (K,); a dead unit is on none."""
    return (E > 0).double().mean(0)
