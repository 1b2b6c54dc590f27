"""The methods of the benchmark: what each learns with, and their training at a given L0."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

import helpers as h
from lab.parallel import side_by_side, tick


class Method(NamedTuple):
    """A model new_model(seed=...), its loss, and a setting of the loss, from which the search for
    an L0 starts: a number, or {L0: number}, of which the nearest L0 is taken. `argument` says which
    argument of the loss it is; where it is "k", the model has k = L0, and there is no setting."""

    new_model: Callable
    loss: Callable
    setting: float | dict | None = None
    argument: str = "lam"
    lr: float = 0.001
    optimizer: Callable = h.ADAM
    slow_start: bool = False  # the first epoch has a twentieth of the rate: SGD then kills no units

    def loss_at(self, setting):
        """The loss with its setting: a function of a model and its inputs."""
        return self.loss if self.argument == "k" else partial(self.loss, **{self.argument: setting})

    def start(self, l0):
        """The setting from which the search for l0 active units starts."""
        if isinstance(self.setting, dict):
            return self.setting[min(self.setting, key=lambda known: abs(known - l0))]
        return self.setting

    def fit(self, x, l0, *, seeds, epochs, tries=6, **options):
        """Train a stack of models, one a seed, with l0 active units -> model, setting.

        With tries=1 the setting is taken from which the search would start. options: of
        `helpers.fit`. Raises what `helpers.fit_to_l0` raises.
        """
        how = {"lr": self.lr, "optimizer": self.optimizer, "epochs": epochs, "after_epoch": tick}
        how |= {"schedule": h.lr_schedule(epochs, self.slow_start)} | options
        start = l0 if self.argument == "k" else self.start(l0)

        def new_model():
            k = {"k": l0} if self.argument == "k" else {}
            return self.new_model(seed=seeds, **k).to(x.device)

        def loss(model, x, setting):
            return self.loss_at(setting)(model, x)

        if self.argument != "k" and tries > 1:
            return h.fit_to_l0(new_model, loss, x, l0, start=start, tries=tries, **how)
        model = new_model()
        h.fit(model, self.loss_at(start), x, **how)
        return model, start


def train(methods, x, seeds, epochs, l0=10, **options):
    """Train {name: Method} side by side -> {name: a stack of models with l0 active units}.

    Each keeps its loss, with the setting, as `model.loss`. options: of `Method.fit`. The last of
    six epochs has a tenth of the rate. Where no setting that was tried gives l0, as may be on other
    data, it warns and takes the nearest.
    """
    how = {"seeds": seeds, "epochs": epochs, **options}

    def train_one(name):
        try:
            model, setting = methods[name].fit(x, l0, **how)
        except h.L0NotReached as error:
            warnings.warn(f"{name}: the nearest model is taken. {error}", stacklevel=2)
            model, setting = error.model, error.setting
        except FloatingPointError as error:
            raise FloatingPointError(f"{name}: {error}") from None
        model.loss = methods[name].loss_at(setting)
        return model

    # The bar expects one training of each method, and stays full while there are more
    return side_by_side(train_one, methods, f"{l0} active units", len(methods) * epochs)


class AdamByUnit(torch.optim.Optimizer):
    """Adam for a stack of models, with one second moment for each unit, the mean over its weights
    W (S, K, D), in the place of one for each weight. All else is Adam's. Raises ValueError without
    a stack."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})
        if not any(p.dim() == 3 for group in self.param_groups for p in group["params"]):
            raise ValueError("AdamByUnit is for a stack of models: give a list of seeds, if of one")

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                square = p.grad.square()
                if p.dim() == 3:
                    square = square.mean(-1, keepdim=True)
                state = self.state[p] or {"steps": 0, "mean": 0 * p, "square": 0 * square}
                state["steps"] += 1
                state["mean"].lerp_(p.grad, 0.1)
                state["square"].lerp_(square, 0.001)
                mean = state["mean"] / (1 - 0.9 ** state["steps"])
                square = state["square"] / (1 - 0.999 ** state["steps"])
                p -= group["lr"] * mean / (square.sqrt() + 1e-8)
                self.state[p] = state


def paper_sae(n_inputs, n_units, seeds):
    """The SAE of the paper's benchmark, one a seed: its decoder starts as PyTorch's layers do."""
    model = h.SparseAutoencoder(n_inputs, n_units, seed=seeds)
    for V, seed in zip(model.V.data, seeds):
        generator = torch.Generator().manual_seed(100 + seed)
        V.uniform_(-(n_units**-0.5), n_units**-0.5, generator=generator)
    return model


def principal_components(x, n_units, l0):
    """An encoder that nothing trains, of seed 0: its rows are the n_units / 2 leading principal
    components of x (N, D) and their negatives, on centred inputs; one bias for all units lets l0 of
    them be active on a row of x, on average."""
    model = h.Encoder(x.shape[1], n_units, x.mean(0)).to(x.device)
    axes = torch.linalg.eigh(torch.cov(x.T)).eigenvectors.T[-n_units // 2 :]
    model.W.data = torch.cat([axes, -axes])[:n_units]
    model.b.data.zero_()
    scores = model.pre_activations(x).detach().flatten()
    model.b.data -= scores.kthvalue(len(scores) - round(l0 * len(scores) / n_units)).values
    return model
