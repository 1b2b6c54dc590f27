"""The methods of the benchmark: what they learn with, and their training in notebook 3."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

import helpers as h
from lab.parallel import side_by_side, tick


class Method(NamedTuple):
    """A model new_model(seed=...), its loss, and the argument that sets how many units are active:
    `k` of the model, or `lam` or `weight` of the loss, with a value for each trained model."""

    new_model: Callable
    loss: Callable
    lr: float
    argument: str
    settings: tuple
    optimizer: Callable = h.ADAM
    slow_start: bool = False  # the first epoch has a twentieth of the rate


def train(methods, x, seeds, epochs):
    """Train each of {name: Method} with each setting -> {(name, setting): a layer for each seed}.

    The last epoch, of six, has a tenth of the rate: see `helpers.rate_schedule`.
    """

    def train_one(run):
        name, setting = run
        method, option = methods[name], {methods[name].argument: setting}
        in_model = method.argument == "k"
        model = method.new_model(seed=seeds, **(option if in_model else {}))
        loss = method.loss if in_model else partial(method.loss, **option)
        schedule = h.rate_schedule(epochs, method.slow_start)
        how = {"lr": method.lr, "optimizer": method.optimizer, "schedule": schedule}
        h.fit(model, loss, x, epochs=epochs, **how, after_epoch=tick)
        return model

    runs = [(name, setting) for name, method in methods.items() for setting in method.settings]
    return side_by_side(train_one, runs, "benchmark", len(runs) * epochs)


def paper_sae(n_inputs, n_units, seeds):
    """The SAE of the paper's benchmark, a layer for each seed: its decoder starts as PyTorch's
    layers do."""
    model = h.SparseAutoencoder(n_inputs, n_units, seed=seeds)
    for V, seed in zip(model.V.data, seeds):
        generator = torch.Generator().manual_seed(100 + seed)
        V.uniform_(-(n_units**-0.5), n_units**-0.5, generator=generator)
    return model
