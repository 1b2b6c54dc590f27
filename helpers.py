"""Decoder-free sparse autoencoders: losses, models, training, decoders and measures.

This file needs PyTorch alone, and is made to be copied. Inputs are x (N, D), weights W (K, D),
biases b (K,), energies E (N, K) and decoders V (K, D). A low energy is a good fit. A unit is active
on an input if its energy is above zero; the energies of an input are its code. § marks sections of
A. Oursland, "Deriving Decoder-Free Sparse Autoencoders from First Principles", arXiv 2601.06478.

Copyright (c) 2026 The authors of this companion. MIT licence.
"""

import warnings
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import linear, normalize
from torch.nn.utils import parameters_to_vector

BATCH_SIZE = 128  # of the paper
fused_adam = partial(torch.optim.Adam, fused=True)  # the same steps in half of the time

# --- Terms of energies E (N, K), or of several layers (..., N, K), which are added up -------------


def responsibilities(E):
    """Return r_ij = exp(-E_ij) / sum_k exp(-E_ik), (..., N, K); rows sum to 1 (§2)."""
    return torch.softmax(-E, dim=-1)


def lse_loss(E):
    """Return -sum_i log sum_j exp(-E_ij), whose gradient is the responsibility (§2)."""
    return -torch.logsumexp(-E, dim=-1).sum()


def variance_loss(E):
    """Return -sum_j log(Var(E_j) + 1e-6), which keeps units alive (§3)."""
    C = E - E.mean(-2, keepdim=True)
    return -torch.log(C.square().sum(-2) / (E.shape[-2] - 1) + 1e-6).sum()  # faster than E.var


def correlation(E):
    """Return the correlations of units, (..., K, K). Those of a constant unit are zero."""
    C = normalize(E - E.mean(-2, keepdim=True), dim=-2)
    return C.mT @ C


def decorrelation_loss(E):
    """Return sum_{j != k} Corr(E_j, E_k)^2, which keeps units from being alike (§3)."""
    R = correlation(E)
    own = R.diagonal(dim1=-2, dim2=-1).detach()  # 1 or 0: no gradient
    return R.square().sum() - own.square().sum()


def infomax_loss(E):
    """Return variance plus decorrelation, which replace a mixture's log-determinant (§3)."""
    return variance_loss(E) + decorrelation_loss(E)


def log_det_loss(E, s=1e-3):
    """Return -log det(Cov(E) + s I) of one layer, which `infomax_loss` approximates (§2.4).

    Raises ValueError for fewer than K/2 rows, with which Cov(E) is far from full rank.
    """
    N, K = E.shape
    if 2 * N < K:
        raise ValueError(f"Cov(E) of {K} units from {N} rows: take a batch_size of {K} or more")
    C = E.double() - E.double().mean(0)
    return -torch.logdet(C.T @ C / (N - 1) + s * torch.eye(K).to(C)).to(E.dtype)


# --- Losses of a model on a minibatch x (N, D), for `fit`; a larger strength is sparser -----------


def weight_decay(model, x):
    """Return kappa ||W||^2 with kappa = tr Cov(x) / K, which makes W^T decode (ours)."""
    trace = torch.linalg.vector_norm(x - x.mean(0)).square() / (len(x) - 1)
    return trace / len(model.W) * model.W.square().sum()


def decoder_free_loss(model, x, strength=1.0, sparsity=lse_loss):
    """Return the paper's loss (§3), in which another sparsity(E) can replace the log-sum-exp.

    The log-sum-exp is a sum over inputs, and infomax is not: N/128 keeps the paper's balance.
    """
    E = model(x)
    return strength * sparsity(E) + len(x) / BATCH_SIZE * infomax_loss(E)


def revised_loss(model, x, strength=1.0, sparsity=lse_loss):
    """Return our revision of the paper's loss, with the log-determinant and weight decay."""
    E = model(x)
    return strength * sparsity(E) + len(x) / BATCH_SIZE * (log_det_loss(E) + weight_decay(model, x))


def sae_loss(model, x, strength=1.0):
    """Return the squared error of an SAE; without k, plus strength sum_ij a_ij ||V_j||.

    The norm keeps V from growing while activations shrink. A tied V cannot, and needs no norm.
    """
    A = model(x)
    error = (model.decode(A) - x).square().sum()
    if model.k is not None:
        return error
    return error + strength * (A if model.V is model.W else A * model.V.norm(dim=1)).sum()


# --- Models: model(x) is the code -----------------------------------------------------------------


class Encoder(nn.Module):
    """The paper's model, E = relu(W (x - mean) + b), without a decoder (§3).

    Parameters
    ----------
    n_inputs, n_units : D and K
    mean : (D,), or None as in the paper
    seed : of the weights at the start, and of the order of inputs in `fit`
    """

    def __init__(self, n_inputs, n_units, mean=None, seed=0):
        super().__init__()
        self.seed = seed
        rng, bound = torch.Generator().manual_seed(seed), n_inputs**-0.5  # as PyTorch's layers
        self.W = nn.Parameter(torch.empty(n_units, n_inputs).uniform_(-bound, bound, generator=rng))
        self.b = nn.Parameter(torch.empty(n_units).uniform_(-bound, bound, generator=rng))
        self.register_buffer("mean", None if mean is None else torch.as_tensor(mean).to(self.W))

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


def active_units(model, x):
    """Return how many units of a model are active on a row of x (N, D), on average."""
    with torch.no_grad():
        return sum(int((model(part) > 0).sum()) for part in x.split(4096)) / len(x)


class SteeredLoss:
    """A loss whose strength moves during training, until l0 units are active.

    Every eighth minibatch multiplies it by a power of the number of active units over its target,
    dual ascent on a constraint (Rezende & Viola, 2018; Gallego-Posada et al., 2022). The target
    gets to l0 in a sixth of the steps, or units die; sparsity begins half as strong as the rest.
    """

    def __init__(self, loss, l0, steps):
        self.loss, self.l0, self.easing, self.step = loss, l0, steps / 6, 0

    def __call__(self, model, x):
        if self.step % 8 == 0:
            active = active_units(model, x)
            if self.step == 0:
                self.first_active = active or self.l0
                self.strength = self.initial = self.balance(model, x) / 2
            target = self.l0 * (self.first_active / self.l0) ** max(1 - self.step / self.easing, 0)
            self.strength *= min(max(active / target, 1 / 3), 3) ** 0.4
            self.strength = min(max(self.strength, self.initial / 1000), 1000 * self.initial)
        self.step += 1
        return self.loss(model, x, self.strength)

    def balance(self, model, x):
        """Return the strength at which both parts of the loss have gradients of one length."""
        P, losses = [*model.parameters()], (self.loss(model, x, s) for s in (1.0, 2.0))
        gradients = (torch.autograd.grad(v, P, materialize_grads=True) for v in losses)
        one, two = map(parameters_to_vector, gradients)
        sparsity, rest = two - one, 2 * one - two
        if not (sparsity.any() and rest.any()):
            raise ValueError("with l0, both strength * sparsity and the rest need gradients")
        return float(rest.norm() / sparsity.norm())


class History(NamedTuple):
    """What `fit` returns: the mean loss of each epoch and, with l0, the strength at its end."""

    losses: torch.Tensor
    strengths: list


def fit(
    model,
    loss,
    x,
    *,
    epochs,
    lr=1e-3,
    batch_size=BATCH_SIZE,
    optimizer=fused_adam,
    schedule=None,
    l0=None,
    order_seed=None,
    after_epoch=lambda model: None,
):
    """Train a model on minibatches of x, and return the `History`.

    A second call goes on with the model, but begins order, optimiser and strength anew.

    Parameters
    ----------
    loss : loss(model, minibatch); with l0 loss(model, minibatch, strength), which is
        strength * sparsity + the rest, see `SteeredLoss`
    x : (N, D); of each epoch the last rows, too few for a minibatch, are left out
    optimizer : optimizer(parameters, lr=lr)
    schedule : a factor of lr for each epoch, or schedule(epochs), which returns them
    l0 : how many units are to be active on an input, on average
    order_seed : of the order of inputs, else the model's seed, else 0
    after_epoch : after_epoch(model)

    Raises ValueError if x, epochs, schedule, l0 or loss cannot be used, and FloatingPointError if
    training diverges. Warns if the number of active units ends more than 10% away from l0.
    """
    usable = torch.is_tensor(x) and x.dim() == 2 and len(x) >= batch_size
    if not (usable and all(part.isfinite().all() for part in x.split(4096))):
        raise ValueError(f"x must be a tensor (N, D) of finite numbers, {batch_size} rows or more")
    factors = schedule(epochs) if callable(schedule) else schedule
    factors = [1.0] * epochs if factors is None else list(factors)
    if epochs < 1 or len(factors) != epochs:
        raise ValueError(
            f"{epochs} epochs with {len(factors)} factors of schedule: needs 1 or more each"
        )
    if l0 is not None and l0 <= 0:
        raise ValueError(f"l0 must be above zero, and is {l0}")
    x, opt, n = x.to(next(model.parameters())), optimizer(model.parameters(), lr=lr), len(x)
    seed = getattr(model, "seed", 0) if order_seed is None else order_seed
    rng = torch.Generator().manual_seed(seed)
    loss = SteeredLoss(loss, l0, epochs * (n // batch_size)) if l0 else loss
    means, strengths = [], []
    for factor in factors:
        for group in opt.param_groups:
            group["lr"] = lr * factor
        losses, rows = [], torch.randperm(n, generator=rng).to(x.device).split(batch_size)
        for batch in rows[: n // batch_size]:
            value = loss(model, x.index_select(0, batch))  # faster than x[batch]
            opt.zero_grad()
            value.backward()
            opt.step()
            losses.append(value.detach())
        means.append(torch.stack(losses).mean())
        strengths += [loss.strength] if l0 else []
        if not all(p.isfinite().all() for p in (means[-1], *model.parameters())):
            raise FloatingPointError(f"diverged in epoch {len(means)}; try a smaller lr")
        after_epoch(model)
    if l0 and abs((active := active_units(model, x)) / l0 - 1) > 0.1:
        end = f"{active:.1f} units are active, not {l0:g}, at strength {loss.strength:.3g}"
        warnings.warn(f"{end}; more epochs may help, or another l0", stacklevel=2)
    return History(torch.stack(means), strengths)


# --- Decoders of a trained model: x_hat = A V + offset, by least squares on the rows of x ---------


@torch.no_grad()
def moments(model, x, rows=4096):
    """Return A = model(x), the means of A and x, N Cov(A) and N Cov(A, x), in float64."""
    A = torch.cat([model(part) for part in x.split(rows)]).double()
    A_mean, x_mean = A.mean(0), sum(part.to(A).sum(0) for part in x.split(rows)) / len(x)
    C = A - A_mean
    cross = sum(c.T @ (part.to(A) - x_mean) for c, part in zip(C.split(rows), x.split(rows)))
    return A, A_mean, x_mean, C.T @ C, cross


def best_decoder(model, x, min_active=10):
    """Return the best V (K, D), 0 for units active on fewer rows of x, and offset (D,)."""
    A, A_mean, x_mean, scatter, cross = moments(model, x)
    norm = scatter.diagonal().sqrt()  # what float32 has rounded away is not inverted
    norm[((A != 0).sum(0) < min_active) | (norm < 1e-6 * len(x) ** 0.5 * A_mean.abs())] = torch.inf
    R, cross = scatter / norm / norm[:, None], cross / norm[:, None]
    V = torch.linalg.pinv(R, rtol=1e-6, hermitian=True) @ cross / norm[:, None]
    return V, x_mean - A_mean @ V


def own_decoder(model, x):
    """Return the model's V, of an encoder W, times the one gain that fits best, and offset (D,)."""
    _, A_mean, x_mean, scatter, cross = moments(model, x)
    V = (model.V if hasattr(model, "V") else model.W).detach().double()
    V = (V * cross).sum() / (scatter * (V @ V.T)).sum().clamp_min(1e-300) * V
    return V, x_mean - A_mean @ V


class Decoded(nn.Module):
    """A trained model with a decoder fitted to x (N, D): `best_decoder` or `own_decoder`."""

    def __init__(self, model, x, decoder=best_decoder):
        super().__init__()
        self.model = model
        for name, part in zip(("V", "offset"), decoder(model, x)):
            self.register_buffer(name, part.to(next(model.parameters())))

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
    error = (sae.reconstruct(x).to(x.device) - x).double().square().sum()
    return float(1 - error / (x - x.mean(0)).double().square().sum())


def l0(E):
    """Return the mean number of active units of an input."""
    return float((E > 0).sum(-1).double().mean())


def usage(E):
    """Return on what share of the inputs each unit is active, (K,); a dead unit is on none."""
    return (E > 0).double().mean(0)
