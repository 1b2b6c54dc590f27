"""Notebook 3's methods: their losses, settings and looks, in one table of cases."""

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
    look: tuple  # colour, marker and line
    argument: str | tuple | None = "lam"  # of the loss, which the setting is; None: of the model
    lr: float | None = None  # None: tuned
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


def methods(K, kappa, mean=None, noise=1e-3):
    """What is compared at equal L0, {name: Method}, for K units on centred inputs.

    The published form keeps the paper's rate and its inputs, to which `mean` is added: without a
    prior a larger rate always lowers the loss, so no held-out loss can choose one.
    """
    bounded = partial(h.bounded_loss, kappa=kappa, noise=noise)
    with_prior = partial(h.published_loss, kappa=kappa)
    with_l1 = partial(bounded, sparsity=lambda E: h.l1_loss(E) / K)
    tied, saes = partial(_sae, tied=True), {"argument": "penalty", "warm_up": True}
    return {
        "published form": Method(
            _encoder,
            h.published_loss,
            (0.15, 0.35, 0.8),
            ("C1", "v", ":"),
            mean=mean,
            **HOW["Adam"],
        ),
        "published form, SGD": Method(
            _encoder, h.published_loss, (0.25, 0.5), ("C1", ">", "-"), mean=mean, **HOW["SGD"]
        ),
        "published + prior": Method(_encoder, with_prior, (0.1, 0.25, 0.65), ("C5", "<", "-.")),
        "bounded": Method(_encoder, bounded, (0.1, 0.25, 0.75), ("k", "o", "-"), lr=0.008),
        "bounded, L1": Method(_encoder, with_l1, (0.25, 0.5), ("0.5", "o", "--")),
        "L1 SAE": Method(
            _sae, h.sae_loss, (0.45, 1.0, 1.6, 2.6), ("C0", "s", "--"), unit_norm="V", **saes
        ),
        "tied SAE": Method(tied, h.sae_loss, (0.6, 0.8), ("C2", "D", "-."), **saes),
        "TopK SAE": Method(
            _top_k, h.sae_loss, (5, 10, 20), ("C3", "X", "--"), argument=None, unit_norm="V"
        ),
    }


VARIANTS = {  # objectives without and with the prior; of each, lambda on either side of L0 10
    ("published form", "published + prior"): (
        h.published_loss,  # without the prior on raw inputs: TRAINED
        {"raw": ((), (0.2, 0.35)), "centred": ((0.15, 0.25), (0.2, 0.32))},
    ),
    ("log det", "bounded"): (
        h.bounded_loss,
        {"raw": ((0.28, 0.5), (0.17, 0.3)), "centred": ((0.14, 0.25), (0.17, 0.3))},
    ),
}


TRAINED = {  # of `methods`; `variants` leaves these out
    "published form": "published form | Adam | raw",
    "published form, SGD": "published form | SGD | raw",
}


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


def controls(x, methods):
    """What else differs between two optimisers of the published form on raw inputs: the basis,
    whether there is a slow start, and the rate.

    -> {"control | optimiser": (Method, Q)}: it is to learn from x @ Q, with an orthogonal Q (D, D),
    or from x where Q is None.
    """
    some = torch.randn(x.shape[1], x.shape[1], generator=torch.Generator().manual_seed(0))
    found = {}
    rotation, axes = torch.linalg.qr(some)[0].to(x), torch.linalg.eigh(torch.cov(x.T))[1].flip(1)
    for how, name in {"Adam": "published form", "SGD": "published form, SGD"}.items():
        method = methods[name]._replace(settings=(0.3, 0.5))
        found[f"random rotation | {how}"] = method._replace(mean=method.mean @ rotation), rotation
        found[f"principal axes | {how}"] = method._replace(mean=method.mean @ axes), axes
        method = method._replace(settings=(0.25, 0.6))
        found[f"starts exchanged | {how}"] = method._replace(slow_start=not method.slow_start), None
        found[f"rate × 3 | {how}"] = method._replace(lr=3 * method.lr), None
    return found


MORE_UNITS = {  # settings on either side of L0 10, for 25 to 200 units on 50 components
    25: {"bounded": (1.6, 3.4), "L1 SAE": (0.5, 1.0), "tied SAE": (0.4, 0.8), "TopK SAE": (8, 13)},
    50: {"bounded": (0.3, 0.65), "L1 SAE": (0.8, 1.3), "tied SAE": (0.6, 1.0), "TopK SAE": (8, 13)},
    100: {
        "bounded": (0.07, 0.14),
        "L1 SAE": (0.9, 1.8),
        "tied SAE": (0.7, 1.2),
        "TopK SAE": (8, 13),
    },
    200: {
        "bounded": (0.015, 0.04),
        "L1 SAE": (1.2, 2.0),
        "tied SAE": (0.7, 1.3),
        "TopK SAE": (8, 13),
    },
}
