"""The paper's loss and layer, a sparse autoencoder (SAE) to compare with, training, and measures.

This file needs PyTorch alone, and is made to be copied. Inputs are x (N, D), weights W (K, D),
biases b (K,) and energies E (N, K). A low energy is a good fit. A unit is active on an input if its
energy is above zero; the energies of an input are its code. § marks sections of A. Oursland,
"Deriving Decoder-Free Sparse Autoencoders from First Principles", arXiv 2601.06478.

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


def lse_loss(E):
    """Return the log-sum-exp loss -sum_i log sum_j exp(-E_ij), whose gradient is the responsibility
    r_ij (§2)."""
    return -torch.logsumexp(-E, dim=-1).sum()


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
    rounding = 8 * torch.finfo(E.dtype).eps * E.shape[-2] ** 0.5 * mean.detach().abs() + 1e-12
    C = C / norm.where(norm > rounding, torch.inf)  # a constant unit varies by rounding alone
    return C.mT @ C


def decorrelation_loss(E):
    """Return sum_{j != k} Corr(E_j, E_k)^2, which keeps units from being alike (§3)."""
    R = correlation(E)
    diagonal = R.diagonal(dim1=-2, dim2=-1).detach()  # 1 or 0: no gradient
    return R.square().sum() - diagonal.square().sum()


def decoder_free_loss(E, lse=1, variance=1, decorrelation=1):
    """Return the paper's loss of a minibatch (§3), the sum of its terms. The numbers are their
    weights; a term of weight 0 is not computed."""
    weights = {lse_loss: lse, variance_loss: variance, decorrelation_loss: decorrelation}
    return sum(weight * term(E) for term, weight in weights.items() if weight)


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
    lr_factors=None,
    order_seed=None,
    after_epoch=None,
):
    """Train a model on minibatches of x, and return the mean loss of each epoch, (epochs,).

    Parameters
    ----------
    loss : loss(model, minibatch), a number to be minimised
    x : (N, D); of each epoch the last rows, too few for a minibatch, are left out
    epochs, lr, batch_size : how often all of x is seen, the learning rate, rows of a minibatch
    optimizer : optimizer(parameters, lr=lr)
    lr_factors : a factor of the learning rates for each epoch, or None
    order_seed : of the order of inputs, else the model's seed, else 0
    after_epoch : after_epoch(model)

    Raises ValueError if x or epochs cannot be used or the first loss is not finite, and
    FloatingPointError if training diverges. On Ctrl-C the model is left as it is.
    """
    if not 2 <= batch_size <= len(x):
        raise ValueError(
            f"x has {len(x)} rows, and a minibatch {batch_size}: it needs 2 to {len(x)}"
        )
    if not all(part.isfinite().all() for part in x.split(4096)):
        raise ValueError("x has entries that are not finite numbers")
    factors = [1.0] * epochs if lr_factors is None else list(lr_factors)
    if epochs < 1 or len(factors) != epochs:
        raise ValueError(f"{epochs} epochs and {len(factors)} lr_factors: needs 1 or more, as many")

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
            if not (means or losses or value.isfinite()):
                raise ValueError("the loss is not finite before the first step: see loss and x")
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


# --- What the paper's experiments measure ---------------------------------------------------------


def dead_units(E):
    """Return how many units are active on none of the inputs of E (N, K)."""
    return int((usage(E) == 0).sum())


def usage(E):
    """Return on what share of the inputs each unit is active, (..., K)."""
    return (E > 0).double().mean(-2)


def l0(E):
    """Return L0, the mean number of active units of an input."""
    return float((E > 0).sum(-1).double().mean())


@torch.no_grad()
def redundancy(E):
    """Return ||Corr - I||^2 of energies E (N, K), the squared correlations of all pairs of units,
    at most K (K - 1), or NaN if fewer than two units vary (§4.2)."""
    return float(decorrelation_loss(E.double())) if (E.var(0) > 0).sum() > 1 else math.nan


def mse(x_hat, x):
    """Return the mean squared error of an entry of reconstructions x_hat (N, D) of x (N, D)."""
    return float((x_hat.double() - x.double()).square().mean())
