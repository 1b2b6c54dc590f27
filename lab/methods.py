"""The methods that notebook 3 and `make language` compare, and how they are trained."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch

import helpers as h
from lab import variants
from lab.parallel import side_by_side, tick

# Kinds of methods, and names of some
PAPER, OURS, OTHERS, SAES = "the paper's loss", "our changes", "for comparison", "tuned SAEs"
ADAM, SGD = f"{PAPER}, with Adam", f"{PAPER}, with SGD"
DECAY, REVISED, COMPONENTS = "+ weight decay", "the revised loss", "principal components"


@dataclass(frozen=True)
class Method:
    """A way to encode inputs.

    Parameters
    ----------
    name : of its rows in tables
    kind : its heading and colour in figures; new kinds are pink
    new : new(x, n_units, l0, seed), a model for inputs x (N, D)
    loss : loss(model, x, strength), see `helpers.fit`, or None if nothing is trained
    options : of `helpers.fit`; here schedule is schedule(epochs)
    steered : whether the strength of the loss is steered to l0 active units
    finish : finish(model, x), what is done after training
    """

    name: str
    kind: str
    new: Callable
    loss: Callable | None
    options: dict = field(default_factory=dict)
    steered: bool = True
    finish: Callable = lambda model, x: None


class Trained(NamedTuple):
    """A model, where it comes from, and the strength of its loss at the end."""

    method: Method
    seed: int
    model: torch.nn.Module
    strength: float


def train(method, seed, x, n_units, l0, epochs, **options):
    """Return the `Trained` model of a method, whose own options override those given here."""
    model, strength = method.new(x, n_units, l0, seed), 1.0
    if method.loss:
        options = {"after_epoch": tick, "schedule": lr_schedule} | options | method.options
        options = {"epochs": epochs} | options
        options["schedule"] = options["schedule"](options["epochs"])
        history = h.fit(model, method.loss, x, l0=l0 if method.steered else None, **options)
        strength = history.strengths[-1] if history.strengths else strength
    method.finish(model, x)
    return Trained(method, seed, model, strength)


def train_all(methods, seeds, x, n_units, l0, epochs, title="methods", **options):
    """Return {(name, seed): Trained}; what is not trained has the first seed alone.

    Raises ValueError if two methods have one name, since the name is that of their rows.
    """
    of = {method.name: method for method in methods}
    if len(of) < len(methods):
        raise ValueError(f"each method needs a name of its own: {[m.name for m in methods]}")
    items = [(name, s) for name in of for s in (seeds if of[name].loss else seeds[:1])]

    def train_one(item):
        return train(of[item[0]], item[1], x, n_units, l0, epochs, **options)

    return side_by_side(train_one, items, title)


def lr_schedule(epochs, slow_start=False):
    """Return a factor of the rate for each epoch: 1, and for the last quarter of several 0.1.

    With slow_start, the first is a twentieth, so that SGD kills no units.
    """
    last = max(epochs // 4, int(epochs > 1))
    factors = [1.0] * (epochs - last) + [0.1] * last
    return [0.05, *factors[1:]] if slow_start and epochs > 2 else factors


def constant_rate(epochs):
    return None


def decayed_loss(model, x, strength=1.0):
    """Return the paper's loss with weight decay."""
    decay = len(x) / h.BATCH_SIZE * h.weight_decay(model, x)
    return h.decoder_free_loss(model, x, strength) + decay


def for_sgd(loss):
    """Return the loss of 128 inputs, over 1 + strength.

    So that steps of SGD grow neither with the size of the minibatch nor with the strength. (It is
    not strength * sparsity + the rest, so `Steering` does not start where the two are balanced.)
    """

    def scaled(model, x, strength=1.0):
        return loss(model, x, strength) / (len(x) / h.BATCH_SIZE * (1 + strength))

    return scaled


def encoder(x, n_units, l0, seed):
    return h.Encoder(x.shape[1], n_units, seed=seed)


def sae(x, n_units, l0, seed, of=h.SparseAutoencoder, **options):
    return of(x.shape[1], n_units, x.mean(0), seed, **options)


def top_k(x, n_units, l0, seed, **options):
    return sae(x, n_units, l0, seed, k=l0, **options)


IN_PAPER = [  # of its benchmark
    Method(
        "the paper's model", PAPER, encoder, h.decoder_free_loss, {"schedule": constant_rate}, False
    ),
    Method(
        "its SAE",
        SAES,
        variants.paper_sae,
        variants.paper_sae_loss,
        {"schedule": constant_rate},
        False,
    ),
]
MOMENTUM = {"optimizer": partial(torch.optim.SGD, momentum=0.9), "lr": 0.03}
MOMENTUM |= {"schedule": partial(lr_schedule, slow_start=True)}
TIED = Method("tied SAE", SAES, partial(sae, tied=True), h.sae_loss, {"lr": 0.008})
METHODS = [  # rates of SGD and SAEs: data/README.md
    Method(ADAM, PAPER, encoder, h.decoder_free_loss),
    Method(SGD, PAPER, encoder, for_sgd(h.decoder_free_loss), MOMENTUM),
    Method(DECAY, OURS, encoder, decayed_loss),
    Method(REVISED, OURS, encoder, h.revised_loss),
    Method(COMPONENTS, OTHERS, variants.principal_components, None),
    TIED,
    Method("L1 SAE", SAES, sae, h.sae_loss, {"lr": 0.004}),
    Method("TopK SAE", SAES, top_k, h.sae_loss, {"lr": 0.008}, steered=False),
]
