"""Notebook 3's methods: their losses, settings, rates and looks, in one table of cases.

Rates are fixed here. `python -m lab.runs` finds them anew on digits, and figures/tuning.json holds
what it tried.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch.nn.functional import mse_loss

import helpers as h
from lab.training import ADAM


class Method(NamedTuple):
    model: Callable  # (D, K, seed, setting) -> model
    loss: Callable
    settings: tuple  # the values that are swept
    lr: float
    look: tuple = ("k", "o", "-")  # colour, marker and line
    argument: str | tuple | None = "lam"  # of the loss, which the setting is; None: of the model
    mean: torch.Tensor | None = None  # (D,), added to the inputs it is trained on
    optimizer: Callable = ADAM
    slow_start: bool = False  # the first epoch at a twentieth of the rate
    warm_up: bool = False  # the penalty grows over the first two epochs
    unit_norm: str | None = None  # the parameter whose rows keep norm 1


def _encoder(D, K, seed, setting):
    return h.Encoder(D, K, seed=seed)


def _sae(D, K, seed, setting, **options):
    return h.SparseAutoencoder(D, K, seed=seed, **options)


def _top_k(D, K, seed, setting):
    return h.SparseAutoencoder(D, K, k=int(setting), seed=seed)


HOW = {  # two optimisers, neither of them tuned: without a prior no loss can choose a rate
    "Adam": {"lr": 1e-3, "optimizer": ADAM},
    "SGD": {"lr": 0.01, "optimizer": torch.optim.SGD, "slow_start": True},
}
HALF = "L1 SAE, half its rate"  # a control of purity and agreement
UNTUNED = ("published form", HALF)


def methods(K, kappa, mean=None, noise=1e-3):
    """What is compared at equal L0, {name: Method}, for K units on centred inputs.

    The published form keeps the paper's rate and its inputs, to which `mean` is added: without a
    prior a larger rate always lowers the loss, so no held-out loss can choose one.
    """
    form, bounded = h.published_loss, partial(h.bounded_loss, kappa=kappa, noise=noise)
    with_prior, by_mean = partial(form, kappa=kappa), partial(bounded, sparsity=h.uncoupled_loss)
    with_l1 = partial(bounded, sparsity=lambda E: h.l1_loss(E) / K)
    ours, sae, unit = partial(Method, _encoder), h.sae_loss, {"unit_norm": "V"}
    l1 = {"argument": "penalty", "warm_up": True}
    standard, tied = partial(Method, _sae, sae, **l1, **unit), partial(_sae, tied=True)
    return {
        "published form": ours(form, (0.15, 0.35, 0.8), 0.001, ("C1", "v", ":"), mean=mean),
        "published + prior": ours(with_prior, (0.1, 0.25, 0.65), 0.008, ("C5", "<", "-.")),
        "bounded": ours(bounded, (0.1, 0.25, 0.75), 0.004, ("k", "o", "-")),
        "bounded, batch's mean": ours(by_mean, (0.1, 0.25), 0.004, ("0.4", "^", "--")),
        "bounded, L1": ours(with_l1, (0.25, 0.5), 0.008, ("0.6", "o", "--")),
        "L1 SAE": standard((0.45, 1.0, 2.4), 0.008, ("C0", "s", "--")),
        HALF: standard((0.45, 0.9, 2.4), 0.004, ("C9", "s", ":")),
        "tied SAE": Method(tied, sae, (0.6, 0.8), 0.016, ("C2", "D", "-."), **l1),
        "TopK SAE": Method(_top_k, sae, (5, 10, 20), 0.004, ("C3", "X", "--"), None, **unit),
    }


# --- What holds the decoder: one lambda a case, with an L0 near 10 ---------------------------

INPUTS = ("raw", "rotated", "principal axes", "centred")
PRIORS = {"published form": "published + prior", "log det": "bounded"}  # with the prior
# {(objective, optimiser): lambdas without and with the prior on INPUTS, and with a fast bias}
LAMBDAS = {
    ("published form", "Adam"): ((0.365, 0.24), (0.39, 0.24), (0.305, 0.24), (0.17, 0.22), 0.38),
    ("published form", "SGD"): ((0.345, 0.24), (0.365,), (0.355,), (0.19, 0.23), 0.35),
    ("log det", "Adam"): ((0.38, 0.22), (0.38, 0.22), (0.33, 0.22), (0.16, 0.21), 0.4),
    ("log det", "SGD"): ((0.34, 0.22), (0.34,), (0.34,), (0.18, 0.21), 0.335),
}  # under SGD the path with a prior is the same in any basis


def cases(inputs, kappa, mean):
    """Objectives without and with the prior on one of INPUTS: {"objective | optimiser | bias":
    Method}, a setting being (lambda, 0) or (lambda, kappa).

    mean (D,): of raw pixels, in the basis of these inputs. On raw pixels the mean image is a second
    bias, which is faster by |mean|^2 under SGD, and by |mean|_1 under Adam, whose steps ignore the
    size of a gradient. "fast" gives b that rate on centred pixels.
    """
    rate, found = bias_rate(mean), {}
    how = {"argument": ("lam", "kappa"), "mean": None if inputs == "centred" else mean}
    for (objective, optimiser), lams in LAMBDAS.items():
        loss = h.published_loss if objective == "published form" else h.bounded_loss
        settings = tuple(zip(lams[INPUTS.index(inputs)], (0.0, kappa)))
        method = Method(_encoder, loss, settings, **how, **HOW[optimiser])
        found[f"{objective} | {optimiser} | own"] = method
        if inputs == "centred":
            fast = partial(_two_groups, method.optimizer, rate[optimiser])
            method = method._replace(optimizer=fast, settings=((lams[-1], 0.0),))
            found[f"{objective} | {optimiser} | fast"] = method
    return found


def bias_rate(mean):
    """How much faster than b alone it and the mean image together are: {optimiser: factor}."""
    return {"Adam": 1 + float(mean.abs().sum()), "SGD": 1 + float(mean.square().sum())}


def decays(K, kappa):
    """Where weight decay acts on the bias too, or outside of the loss; centred pixels: {name:
    Method}."""
    bounded = methods(K, kappa)["bounded"]
    both = partial(torch.optim.AdamW, weight_decay=3)
    alone = partial(_two_groups, both, 1, weight_decay=0)
    log_det = bounded._replace(loss=partial(h.bounded_loss, kappa=0.0), **HOW["Adam"])
    decayed = partial(bounded_with_bias_decay, kappa=kappa)
    return {
        "bounded, decay on b too": bounded._replace(loss=decayed, settings=(0.115,)),
        "log det, AdamW on W and b": log_det._replace(optimizer=both, settings=(0.092,)),
        "log det, AdamW on W alone": log_det._replace(optimizer=alone, settings=(0.21,)),
    }


def bounded_with_bias_decay(model, x, lam, kappa):
    """`bounded_loss` with kappa |b|^2 beside kappa |W|_F^2; -> ()."""
    decay = kappa * model.b.square().sum()
    return h.bounded_loss(model, x, lam, kappa) + len(x) / 128 * lam * decay


def _two_groups(optimizer, factor, parameters, lr, **of_b):
    """W at the rate lr, and b at `factor` times that."""
    W, b = parameters
    return optimizer([{"params": [W]}, {"params": [b], "lr": factor * lr} | of_b], lr=lr)


def paper_sae(D, K, seed):
    """The SAE of the paper's benchmark: a decoder that starts as PyTorch's layers do."""
    model = h.SparseAutoencoder(D, K, seed=seed)
    generator = torch.Generator().manual_seed(100 + seed)
    model.V.data.uniform_(-(K**-0.5), K**-0.5, generator=generator)
    return model


def paper_sae_loss(model, x):
    """Mean squared error + 0.01 times the mean activation."""
    a = model.encode(x)
    return mse_loss(model.decode(a), x) + 0.01 * a.mean()
