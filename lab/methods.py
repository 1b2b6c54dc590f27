"""The methods that notebook 3 and `make language` compare, and how they are trained.

`python -m lab.methods` prints how their learning rates were chosen: data/README.md.
"""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd
import torch

import helpers as h
from lab import measures
from lab.data import load_images
from lab.runs import run_in_parallel

ADAM, SGD = "the paper's loss, with Adam", "the paper's loss, with SGD"
DECAY, COMPONENTS = f"{ADAM}, + weight decay", "principal components"


def rates_that_fall(epochs):
    """Return a factor of the learning rate for each epoch: 1, and for the last quarter of several
    0.1."""
    last = max(epochs // 4, int(epochs > 1))
    return [1.0] * (epochs - last) + [0.1] * last


def rates_that_start_low(epochs):
    """Return the same, but the first of three or more is 0.05, so that SGD kills no units."""
    factors = rates_that_fall(epochs)
    return [0.05, *factors[1:]] if epochs > 2 else factors


@dataclass(frozen=True)
class Method:
    """A way to encode inputs.

    Parameters
    ----------
    name : of its rows in tables
    new_model : new_model(x, n_units, target_l0, seed), for inputs x (N, D)
    loss : loss(model, x), of a minibatch, a pair of what makes the code sparse and the rest; or
        None if nothing is trained
    options : of `helpers.fit`
    steered : whether the first of the pair is weighted so that target_l0 units are active
    schedule : schedule(epochs), a factor of the learning rate for each; or None, as of `fit`
    """

    name: str
    new_model: Callable
    loss: Callable | None
    options: dict = field(default_factory=dict)
    steered: bool = True
    schedule: Callable | None = rates_that_fall


# --- Losses: what makes the code sparse, and the rest ---------------------------------------------


def paper_loss(model, x):
    E = model(x)
    return h.lse_loss(E), h.variance_loss(E) + h.decorrelation_loss(E)


def paper_loss_with_weight_decay(model, x):
    """Add kappa ||W||^2, with kappa = tr Cov(x) / K."""
    sparsity, rest = paper_loss(model, x)
    kappa = x.var(0).sum() / len(model.W)
    return sparsity, rest + kappa * model.W.square().sum()


def squared_error(model, A, x):
    return (model.decode(A) - x).square().sum()


def l1_sae_loss(model, x):
    """Weigh activations by the norms of V, or they would shrink while V grows; a tied V cannot."""
    A = model(x)
    penalty = A.sum() if model.tied else (A * model.V.norm(dim=1)).sum()
    return penalty, squared_error(model, A, x)


def top_k_sae_loss(model, x):
    return 0, squared_error(model, model(x), x)


def paper_sae_loss(model, x):
    """Return the loss of the SAE of the paper's benchmark (§4.3)."""
    A = model(x)
    return 0.01 * A.mean(), (model.decode(A) - x).square().mean()


# --- Models ---------------------------------------------------------------------------------------


def new_encoder(x, n_units, target_l0, seed):
    return h.Encoder(x.shape[1], n_units, seed=seed)


def new_sae(x, n_units, target_l0, seed, **options):
    return h.SparseAutoencoder(x.shape[1], n_units, x.mean(0), seed, **options)


def new_top_k_sae(x, n_units, target_l0, seed):
    return new_sae(x, n_units, target_l0, seed, k=target_l0)


def new_paper_sae(x, n_units, target_l0, seed):
    """Return the SAE of the paper's benchmark, both of whose layers start as PyTorch's do."""
    model = h.SparseAutoencoder(x.shape[1], n_units, seed=seed)
    bound = n_units**-0.5
    rng = torch.Generator().manual_seed(100 + seed)
    for parameter in (model.V, model.c):
        parameter.data.uniform_(-bound, bound, generator=rng)
    return model


def new_principal_components(x, n_units, target_l0, seed):
    """Return an encoder of n_units / 2 components, or all there are, and their negatives, with one
    bias for all, at which target_l0 units are active. It has no use for the seed."""
    axes = torch.linalg.eigh(torch.cov(x.T)).eigenvectors.T[-n_units // 2 :]
    W = torch.cat([axes, -axes])[:n_units]
    model = h.Encoder(x.shape[1], len(W), x.mean(0)).to(x.device)
    model.W.data = W
    model.b.data.zero_()
    scores = model.pre_activations(x).detach().flatten()
    n_inactive = len(scores) - round(target_l0 * len(x))
    model.b.data -= scores.kthvalue(n_inactive).values
    return model


# --- What is compared -----------------------------------------------------------------------------

SGD_OPTIONS = {"optimizer": partial(torch.optim.SGD, momentum=0.9), "lr": 0.06}
TIED_SAE = Method("tied SAE", partial(new_sae, tied=True), l1_sae_loss, {"lr": 0.008})
METHODS = [  # rates: data/README.md
    Method(ADAM, new_encoder, paper_loss),
    Method(SGD, new_encoder, paper_loss, SGD_OPTIONS, schedule=rates_that_start_low),
    Method(DECAY, new_encoder, paper_loss_with_weight_decay),
    Method(COMPONENTS, new_principal_components, None),
    TIED_SAE,
    Method("L1 SAE", new_sae, l1_sae_loss, {"lr": 0.008}),
    Method("TopK SAE", new_top_k_sae, top_k_sae_loss, {"lr": 0.008}, steered=False),
]
AS_IN_PAPER = {"steered": False, "schedule": None}
PAPER_METHODS = [  # its benchmark's models, and a tuned SAE
    Method("the paper's model", new_encoder, paper_loss, **AS_IN_PAPER),
    Method("the paper's SAE", new_paper_sae, paper_sae_loss, **AS_IN_PAPER),
    replace(TIED_SAE, name="tuned tied SAE"),
]


# --- Training -------------------------------------------------------------------------------------


def steered_loss(loss, target_l0, n_steps):
    """Return the loss (s * sparsity + rest) / (1 + s), whose strength s is moved while it trains.

    At every eighth minibatch, s is multiplied by a power of the number of active units over its
    target, kept between 1/3 and 3: dual ascent on a constraint (Rezende & Viola, 2018;
    Gallego-Posada et al., 2022). The target gets to target_l0 in a sixth of the steps, or units
    die. At first, the gradient of sparsity is half as long as that of the rest. The divisor keeps
    steps of SGD from growing. Its first call raises ValueError if either part has no gradient, or
    if no unit is active.
    """
    step, strength, first_l0 = 0, None, None

    def weighted_loss(model, x):
        nonlocal step, strength, first_l0
        sparsity, rest = loss(model, x)
        if step % 8 == 0:
            with torch.no_grad():
                l0 = h.l0(model(x))
            if step == 0:
                first_l0 = l0
                of_sparsity, of_rest = (gradient_norm(part, model) for part in (sparsity, rest))
                if not (l0 and of_sparsity and of_rest):
                    raise ValueError("sparsity and the rest both need gradients, or units are dead")
                strength = of_rest / of_sparsity / 2
            left = max(1 - 6 * step / n_steps, 0)
            target = target_l0 * (first_l0 / target_l0) ** left
            strength *= min(max(l0 / target, 1 / 3), 3) ** 0.4
        step += 1
        return (strength * sparsity + rest) / (1 + strength)

    return weighted_loss


def gradient_norm(loss, model):
    """Return the length of a gradient, 0 of what does not depend on the model."""
    if not (torch.is_tensor(loss) and loss.requires_grad):
        return 0
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def train(method, seed, x, *, n_units, target_l0, epochs, **options):
    """Return a trained model of a method, whose options of `helpers.fit` those given here override.

    Raises ValueError if target_l0 is not between 0 and n_units.
    """
    if not 0 < target_l0 < n_units:
        raise ValueError(f"target_l0 is {target_l0}: it must be between 0 and {n_units} units")
    model = method.new_model(x, n_units, target_l0, seed)
    if method.loss is None:
        return model
    schedule = method.schedule and method.schedule(epochs)
    usual = {"batch_size": 128, "schedule": schedule, "order_seed": seed}
    options = usual | method.options | options
    if method.steered:
        n_steps = epochs * (len(x) // options["batch_size"])
        loss = steered_loss(method.loss, target_l0, n_steps)
    else:

        def loss(model, x):
            return sum(method.loss(model, x))

    h.fit(model, loss, x, epochs=epochs, **options)
    return model


def train_all(methods, seeds, x, title, *, target_l0, **setting):
    """Return {(name, seed): model}, trained by `train` with the setting; what is not trained has
    the first seed alone. Warns of a steered method that misses its target by more than 5%.

    Raises ValueError if two methods have one name, since the name is that of their rows.
    """
    by_name = {method.name: method for method in methods}
    if len(by_name) < len(methods):
        raise ValueError(f"each method needs a name of its own: {[m.name for m in methods]}")
    keys = [(m.name, seed) for m in methods for seed in (seeds if m.loss else seeds[:1])]

    def train_one(key):
        name, seed = key
        return train(by_name[name], seed, x, target_l0=target_l0, **setting)

    models = run_in_parallel(train_one, keys, title)
    for (name, seed), model in models.items():
        with torch.no_grad():
            l0 = h.l0(model(x[:10_000]))
        if by_name[name].steered and misses_target(l0, target_l0):
            miss = f"{l0:.1f} units are active, not {target_l0}"
            warnings.warn(
                f"{name}, seed {seed}: {miss}; try more epochs or another lr", stacklevel=2
            )
    return models


def train_layer(loss, x, n_units, seed, epochs, noise=0, **options):
    """Train the paper's layer on loss(E), and return it and the mean loss of each epoch.

    noise : standard deviation of the noise added to W at the start, relative to that of W
    options : of `helpers.fit`
    """
    layer = h.Encoder(x.shape[1], n_units, seed=seed)
    rng = torch.Generator().manual_seed(1000 + seed)
    layer.W.data += noise * layer.W.data.std() * torch.randn(layer.W.shape, generator=rng)

    def loss_of_layer(layer, x):
        return loss(layer(x))

    losses = h.fit(layer, loss_of_layer, x, epochs=epochs, **options)
    return layer.requires_grad_(False), losses


def layers_by_epoch(epochs, loss, x, n_units, seed):
    """Return {epoch: the layer after it} for some epochs of one training by `train_layer`."""
    layers = {}
    n_done = 0

    def keep(layer):
        nonlocal n_done
        n_done += 1
        if n_done in epochs:
            layers[n_done] = copy.deepcopy(layer).requires_grad_(False)

    train_layer(loss, x, n_units, seed, max(epochs), after_epoch=keep)
    return layers


def misses_target(l0, target_l0):
    """Return whether the number of active units is more than 5% away from its target."""
    return not math.isclose(l0, target_l0, rel_tol=0.05)


def scores_by_rate(methods, rates, x, seeds, n_held_out, **setting):
    """Return the `decoding_scores` of the last n_held_out rows of x, of models trained on the
    others: a row for each method, rate and seed."""
    x, held_out = x[:-n_held_out], x[-n_held_out:]
    by_name = {method.name: method for method in methods}
    keys = [(name, rate, seed) for name in by_name for rate in rates[name] for seed in seeds]

    def measure(key):
        name, rate, seed = key
        try:
            model = train(by_name[name], seed, x, lr=rate, **setting)
        except FloatingPointError:
            return {}
        return measures.decoding_scores(model, x, held_out)

    found = run_in_parallel(measure, keys, "learning rates")
    rows = [{"method": k[0], "rate": k[1], "seed": k[2]} | row for k, row in found.items()]
    return pd.DataFrame(rows)


def main():
    """Print how rates were chosen: on 10,000 held-out training digits, at 17 active units."""
    of_saes = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032]
    of_sgd = [0.004, 0.0075, 0.015, 0.03, 0.06]
    rates = {"tied SAE": of_saes, "L1 SAE": of_saes, "TopK SAE": of_saes, SGD: of_sgd}
    rates[ADAM] = rates[DECAY] = [0.001, 0.003, 0.01, 0.03]
    methods = [method for method in METHODS if method.name in rates]
    setting = {"n_units": 64, "target_l0": 17, "epochs": 6}
    table = scores_by_rate(methods, rates, load_images()[0], (0, 1), 10_000, **setting)
    columns = ["explained", "active", "dead"]
    print(table.groupby(["method", "rate"], sort=False)[columns].mean().round(1).to_string())


if __name__ == "__main__":
    main()
