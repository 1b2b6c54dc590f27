"""Losses, models and an optimiser that helpers.py does not have."""

import math

import torch

import helpers as h


def dosed_lse_loss(E, competition):
    """Return `lse_loss` of E (..., N, K) with its competition times a number; 0 is without.

    -sum_i log Z_i with Z_i = sum_j exp(-E_ij) is -N log of the mean of Z, in which all inputs share
    one denominator, plus sum_i log(mean / Z_i), which is competition.
    """
    log_Z = torch.logsumexp(-E, dim=-1)
    shared = torch.logsumexp(log_Z, dim=-1, keepdim=True) - math.log(log_Z.shape[-1])
    return -torch.lerp(shared.expand_as(log_Z), log_Z, competition).sum()


def paper_sae_loss(model, x):
    """Return the loss of the SAE of the paper's benchmark."""
    A = model(x)
    return (model.decode(A) - x).square().mean() + 0.01 * A.mean()


def new_paper_sae(x, n_units, l0, seed):
    """Return the SAE of the paper's benchmark; its decoder starts as PyTorch's layers do."""
    model = h.SparseAutoencoder(x.shape[1], n_units, seed=seed)
    generator, bound = torch.Generator().manual_seed(100 + seed), n_units**-0.5
    model.V.data.uniform_(-bound, bound, generator=generator)
    return model


def new_principal_components(x, n_units, l0, seed):
    """Return an encoder of n_units / 2 components and their negatives, with one bias for all, at
    which l0 units are active. It has no use for the seed."""
    model = h.Encoder(x.shape[1], n_units, x.mean(0)).to(x.device)
    axes = torch.linalg.eigh(torch.cov(x.T)).eigenvectors.T[-n_units // 2 :]
    model.W.data = torch.cat([axes, -axes])[:n_units]
    model.b.data.zero_()
    scores = model.pre_activations(x).detach().flatten()
    model.b.data -= scores.kthvalue(len(scores) - round(l0 * len(scores) / n_units)).values
    return model


class AdamByUnit(torch.optim.Optimizer):
    """Adam with one second moment per unit, the mean over its row of W, not one per weight."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state, square = self.state[p], p.grad.square()
                square = square.mean(1, keepdim=True) if p.dim() == 2 else square
                t = state["steps"] = state.get("steps", 0) + 1
                for name, new, rate in (("mean", p.grad, 0.1), ("square", square, 0.001)):
                    state[name] = state.get(name, torch.zeros_like(new)).lerp(new, rate)
                mean, square = state["mean"] / (1 - 0.9**t), state["square"] / (1 - 0.999**t)
                p -= group["lr"] * mean / (square.sqrt() + 1e-8)
