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
PAPERS_LOSS, OUR_CHANGES = "the paper's loss", "our changes"
FOR_COMPARISON, TUNED_SAES = "for comparison", "tuned SAEs"
ADAM, SGD = f"{PAPERS_LOSS}, with Adam", f"{PAPERS_LOSS}, with SGD"
DECAY, REVISED, COMPONENTS = "+ weight decay", "the revised loss", "principal components"


@dataclass(frozen=True)
class Method:
    """A way to encode inputs.

    Parameters
    ----------
    name : of its rows in tables
    kind : its heading and colour in figures; new kinds are pink
    new_model : new_model(x, n_units, l0, seed), for inputs x (N, D)
    loss : loss(model, x, strength), or loss(model, x) if not steered, see `helpers.fit`, or None if
        nothing is trained
    fit_options : of `helpers.fit`, and override those of `train`
    steered : whether the strength of the loss is steered to l0 active units
    after_training : after_training(model, x)
    """

    name: str
    kind: str
    new_model: Callable
    loss: Callable | None
    fit_options: dict = field(default_factory=dict)
    steered: bool = True
    after_training: Callable = lambda model, x: None


class Trained(NamedTuple):
    """A model, where it comes from, and if it was steered the strength of its loss at the end."""

    method: Method
    seed: int
    model: torch.nn.Module
    strength: float | None


def train(method, seed, x, *, n_units, l0, epochs, **fit_options):
    """Return the `Trained` model of a method, whose fit_options override those given here."""
    model, strength = method.new_model(x, n_units, l0, seed), None
    if method.loss:
        usual = {"epochs": epochs, "schedule": lr_schedule, "after_epoch": tick}
        usual |= {"l0": l0 if method.steered else None, "order_seed": seed}
        history = h.fit(model, method.loss, x, **usual | fit_options | method.fit_options)
        strength = history.strengths[-1] if history.strengths else None
    method.after_training(model, x)
    return Trained(method, seed, model, strength)


def train_all(methods, seeds, x, *, n_units, l0, epochs, title="methods", **fit_options):
    """Return {(name, seed): Trained}; what is not trained has the first seed alone.

    Raises ValueError if two methods have one name, since the name is that of their rows.
    """
    if len({method.name for method in methods}) < len(methods):
        raise ValueError(f"each method needs a name of its own: {[m.name for m in methods]}")
    runs = {(m.name, seed): (m, seed) for m in methods for seed in (seeds if m.loss else seeds[:1])}
    fit_options |= {"n_units": n_units, "l0": l0, "epochs": epochs}
    return side_by_side(lambda key: train(*runs[key], x, **fit_options), runs, title)


def lr_schedule(epochs, slow_start=False):
    """Return a factor of the rate for each epoch: 1, and for the last quarter of several 0.1.

    With slow_start, the first of more than two is a twentieth, so that SGD kills no units.
    """
    last = max(epochs // 4, int(epochs > 1))
    factors = [1.0] * (epochs - last) + [0.1] * last
    return [0.05, *factors[1:]] if slow_start and epochs > 2 else factors


def decayed_loss(model, x, strength=1.0, **options):
    """Return `decoder_free_loss`, with its options, plus weight decay."""
    decay = len(x) / h.BATCH_SIZE * h.weight_decay(model, x)
    return h.decoder_free_loss(model, x, strength, **options) + decay


def for_sgd(loss):
    """Return the loss of 128 inputs, over 1 + strength.

    So that steps of SGD grow neither with the size of the minibatch nor with the strength. (It is
    not strength * sparsity + the rest, so `SteeredLoss` does not start where the two are balanced.)
    """

    def scaled(model, x, strength=1.0, **options):
        return loss(model, x, strength, **options) / (len(x) / h.BATCH_SIZE * (1 + strength))

    return scaled


def new_encoder(x, n_units, l0, seed):
    return h.Encoder(x.shape[1], n_units, seed=seed)


def new_sae(x, n_units, l0, seed, model_class=h.SparseAutoencoder, **options):
    return model_class(x.shape[1], n_units, x.mean(0), seed, **options)


def new_top_k_sae(x, n_units, l0, seed, **options):
    return new_sae(x, n_units, l0, seed, k=l0, **options)


AS_IN_PAPER = {"fit_options": {"schedule": None}, "steered": False}
IN_PAPER = [  # of its benchmark
    Method("the paper's model", PAPERS_LOSS, new_encoder, h.decoder_free_loss, **AS_IN_PAPER),
    Method("its SAE", TUNED_SAES, variants.new_paper_sae, variants.paper_sae_loss, **AS_IN_PAPER),
]
SGD_OPTIONS = {"optimizer": partial(torch.optim.SGD, momentum=0.9), "lr": 0.03}
SGD_OPTIONS |= {"schedule": partial(lr_schedule, slow_start=True)}
TIED = Method("tied SAE", TUNED_SAES, partial(new_sae, tied=True), h.sae_loss, {"lr": 0.008})
METHODS = [  # rates of SGD and SAEs: data/README.md
    Method(ADAM, PAPERS_LOSS, new_encoder, h.decoder_free_loss),
    Method(SGD, PAPERS_LOSS, new_encoder, for_sgd(h.decoder_free_loss), SGD_OPTIONS),
    Method(DECAY, OUR_CHANGES, new_encoder, decayed_loss),
    Method(REVISED, OUR_CHANGES, new_encoder, h.revised_loss),
    Method(COMPONENTS, FOR_COMPARISON, variants.new_principal_components, None),
    TIED,
    Method("L1 SAE", TUNED_SAES, new_sae, h.sae_loss, {"lr": 0.004}),
    Method("TopK SAE", TUNED_SAES, new_top_k_sae, h.sae_loss, {"lr": 0.008}, steered=False),
]
