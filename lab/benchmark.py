"""The benchmark of notebook 3 and `make language`: its methods, how they are trained and steered.

`python -m lab.benchmark` prints how their learning rates were chosen: data/README.md.
"""

import math
import numbers
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd
import torch
from joblib.externals.loky.backend.reduction import dumps

import helpers as h
from lab.data import load_images
from lab.decoding import decoder_rows, decoding_scores
from lab.parallel import measure_each, run_in_parallel

PAPER_ADAM, PAPER_SGD = "the paper's loss, with Adam", "the paper's loss, with SGD"
PAPER_DECAY, COMPONENTS = f"{PAPER_ADAM}, + weight decay", "principal components"
OPTIONS = {"lr", "batch_size", "optimizer"}  # of `helpers.fit`, that a method may have


def falling_lr_factors(epochs):
    """Return a factor of the learning rate for each epoch: 1, and for the last quarter of several
    0.1."""
    last = max(epochs // 4, int(epochs > 1))
    return [1.0] * (epochs - last) + [0.1] * last


def low_start_lr_factors(epochs):
    """Return the same, but the first of three or more is 0.05, so that SGD kills no units."""
    factors = falling_lr_factors(epochs)
    return [0.05, *factors[1:]] if epochs > 2 else factors


@dataclass(frozen=True)
class Method:
    """A way to encode inputs.

    Parameters
    ----------
    name : of its rows in tables
    new_model : new_model(x, n_units, target_l0, seed), for inputs x (N, D)
    losses : losses(model, x), of a minibatch, a pair: a penalty, which makes the code sparse, and
        the rest; or None if nothing is trained
    options : of `helpers.fit`: lr, batch_size, optimizer
    steered : whether the penalty is weighted so that target_l0 units are active
    schedule : schedule(epochs), a factor of the learning rate for each; or None
    """

    name: str
    new_model: Callable
    losses: Callable | None
    options: dict = field(default_factory=dict)
    steered: bool = True
    schedule: Callable | None = falling_lr_factors

    def __post_init__(self):
        if {*self.options} - OPTIONS or not (self.schedule is None or callable(self.schedule)):
            raise ValueError(
                f"{self.name}: its options may be lr, batch_size and optimizer, its schedule a "
                "function of the number of epochs, or None; epochs are the same for all methods"
            )


# --- Losses: a penalty, which makes the code sparse, and the rest ---------------------------------


def paper_losses(model, x):
    E = model(x)
    return h.lse_loss(E), h.variance_loss(E) + h.decorrelation_loss(E)


def paper_losses_with_weight_decay(model, x):
    """Add kappa ||W||^2, with kappa = tr Cov(x) / K."""
    penalty, rest = paper_losses(model, x)
    kappa = x.var(0).sum() / len(model.W)
    return penalty, rest + kappa * model.W.square().sum()


def squared_error(model, A, x):
    return (model.decode(A) - x).square().sum()


def l1_sae_losses(model, x):
    """Weigh activations by the norms of V, or they would shrink while V grows; a tied V cannot."""
    A = model(x)
    penalty = A.sum() if model.tied else (A * model.V.norm(dim=1)).sum()
    return penalty, squared_error(model, A, x)


def top_k_sae_losses(model, x):
    return 0, squared_error(model, model(x), x)


def paper_sae_losses(model, x):
    """Return the losses of the SAE of the paper's benchmark (§4.3)."""
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
    model = h.Encoder(x.shape[1], len(W), x.mean(0))
    model.W.data = W.to(model.W)
    model.b.data.zero_()
    scores = model.pre_activations(x).detach().flatten()
    n_inactive = max(len(scores) - round(target_l0 * len(x)), 1)
    model.b.data -= scores.kthvalue(n_inactive).values
    return model


# --- What is compared -----------------------------------------------------------------------------

SGD_OPTIONS = {"optimizer": partial(torch.optim.SGD, momentum=0.9), "lr": 0.06}
TIED_SAE = Method("tied SAE", partial(new_sae, tied=True), l1_sae_losses, {"lr": 0.008})
METHODS = [  # rates: data/README.md
    Method(PAPER_ADAM, new_encoder, paper_losses, {"lr": 0.003}),
    Method(PAPER_SGD, new_encoder, paper_losses, SGD_OPTIONS, schedule=low_start_lr_factors),
    Method(PAPER_DECAY, new_encoder, paper_losses_with_weight_decay, {"lr": 0.004}),
    Method(COMPONENTS, new_principal_components, None),
    TIED_SAE,
    Method("L1 SAE", new_sae, l1_sae_losses, {"lr": 0.016}),
    Method("TopK SAE", new_top_k_sae, top_k_sae_losses, {"lr": 0.008}, steered=False),
]
UNTUNED = {"steered": False, "schedule": None}
PAPER_METHODS = [  # its benchmark's models, at its own rate, .001, and a tuned SAE
    Method("the paper's model", new_encoder, paper_losses, **UNTUNED),
    Method("the paper's SAE", new_paper_sae, paper_sae_losses, **UNTUNED),
    replace(TIED_SAE, name="tuned tied SAE"),
]


# --- Training -------------------------------------------------------------------------------------


class SteeredLoss:
    """The loss (s * penalty + rest) / (1 + s), whose strength s is moved while it trains.

    At every eighth minibatch, s is multiplied by a power of the number of active units over its
    target, kept between 1/3 and 3: dual ascent on a constraint (Rezende & Viola, 2018;
    Gallego-Posada et al., 2022). The target gets to target_l0 in a sixth of the steps, or units
    die. At first, the gradient of the penalty is half as long as that of the rest. The divisor
    keeps steps of SGD from growing. The first call raises ValueError if either part has no
    gradient, or if no unit is active.
    """

    def __init__(self, losses, target_l0, n_steps):
        self.losses, self.target_l0, self.n_steps = losses, target_l0, n_steps
        self.step = 0

    def __call__(self, model, x):
        penalty, rest = self.losses(model, x)
        if self.step % 8 == 0:
            with torch.no_grad():
                l0 = h.l0(model(x))
            if self.step == 0:
                self.start(l0, model, penalty, rest)
            left = max(1 - 6 * self.step / self.n_steps, 0)
            target = self.target_l0 * (self.first_l0 / self.target_l0) ** left
            self.strength *= min(max(l0 / target, 1 / 3), 3) ** 0.4
        self.step += 1
        return (self.strength * penalty + rest) / (1 + self.strength)

    def start(self, l0, model, penalty, rest):
        length_of_penalty, length_of_rest = (gradient_norm(p, model) for p in (penalty, rest))
        if not (l0 and length_of_penalty and length_of_rest):
            raise ValueError("penalty and rest both need a gradient, and some unit must be active")
        self.first_l0 = l0
        self.strength = self.first_strength = length_of_rest / length_of_penalty / 2


def gradient_norm(loss, model):
    """Return the length of a gradient, 0 of what does not depend on the model."""
    if not (torch.is_tensor(loss) and loss.requires_grad):
        return 0
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def train(method, seed, x, *, n_units, target_l0, epochs, batch_size=128, **options):
    """Return a trained model of a method.

    batch_size : unless the method has its own. options : of `helpers.fit`, in place of its own

    The strength of the penalty at the end of steering is model.strength, that at its start
    model.first_strength.
    """
    model = method.new_model(x, n_units, target_l0, seed)
    if method.losses is None:
        return model
    factors = method.schedule and method.schedule(epochs)
    options = {"batch_size": batch_size, "lr_factors": factors} | method.options | options
    loss = loss_to_minimise(method, target_l0, epochs * (len(x) // options["batch_size"]))
    h.fit(model, loss, x, epochs=epochs, order_seed=seed, **options)
    if method.steered:
        model.strength, model.first_strength = loss.strength, loss.first_strength
    return model


def loss_to_minimise(method, target_l0, n_steps):
    """Return loss(model, x), which `train` minimises in so many steps."""
    if method.steered:
        return SteeredLoss(method.losses, target_l0, n_steps)
    return lambda model, x: sum(method.losses(model, x))


def train_all(methods, seeds, x, title, *, target_l0, beside=(), **setting):
    """Return {(name, seed): model}, trained by `train` with the setting; what is not trained has
    the first seed alone. Warns if a method that is steered misses its target by more than 5%, or
    the strength of its penalty ends far from its start.

    beside : methods that are trained already, whose names are taken

    Raises ValueError, before it trains, if seeds, target_l0, a name or a method cannot be used.
    """
    if not len(seeds) or len({*seeds}) < len(seeds):
        raise ValueError(f"seeds are {seeds}: it needs one or more, each once")
    names = [method.name for method in (*methods, *beside)]
    if len({*names}) < len(names):
        raise ValueError(f"each method needs a name of its own, which its rows have: {names}")
    for method in methods:
        try_method(method, x, target_l0=target_l0, **setting)
    by_name = {method.name: method for method in methods}
    keys = [(m.name, seed) for m in methods for seed in (seeds if m.losses else seeds[:1])]

    def train_one(key):
        name, seed = key
        return train(by_name[name], seed, x, target_l0=target_l0, **setting)

    models = dict(zip(keys, run_in_parallel(train_one, keys, title)))
    for (name, seed), model in models.items():
        if hasattr(model, "strength"):
            with torch.no_grad():
                warn_of_steering(f"{name}, seed {seed}", model, h.l0(model(x[:10_000])), target_l0)
    return models


def try_method(method, x, *, n_units, target_l0, epochs, batch_size=128):
    """Compute the loss of a method once, on a minibatch of x.

    Raises ValueError, which says what is wrong, if it could not be trained, measured or sent.
    """
    if not isinstance(target_l0, numbers.Integral) or not 0 < target_l0 < n_units:
        raise ValueError(f"L0 is {target_l0}: it must be a whole number, 1 to {n_units - 1} units")
    x = x[: method.options.get("batch_size", batch_size)]
    model = method.new_model(x, n_units, target_l0, 0)
    try:
        decoder_rows(model, model(x).shape[1], x.shape[1])
        if method.losses:
            try_losses(method, model, x, target_l0)
    except ValueError as error:
        raise ValueError(f"{method.name}: {error}") from None
    try:
        dumps(model)
    except Exception as error:  # of many kinds
        raise ValueError(
            f"{method.name}: its model cannot be pickled, and it is trained in a process of its "
            f"own, which has to send it back: {error!r}"
        ) from None


def try_losses(method, model, x, target_l0):
    pair = method.losses(model, x)
    if not isinstance(pair, (tuple, list)) or [torch.as_tensor(p).dim() for p in pair] != [0, 0]:
        raise ValueError("losses(model, x) must be a pair of numbers, a penalty and the rest")
    value = torch.as_tensor(loss_to_minimise(method, target_l0, 1)(model, x))
    if not value.requires_grad:
        raise ValueError("its losses must depend on the model")
    value.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not all(part.isfinite().all() for part in (value, *gradients)):
        raise ValueError("its losses or their gradients are not finite at the start")


def warn_of_steering(which, model, l0, target_l0):
    """Warn if a model misses target_l0, or got there by a penalty of another order."""
    ratio = model.strength / model.first_strength
    if misses_target(l0, target_l0):
        said = f"{l0:.1f} units are active, not {target_l0}; try more epochs or another lr"
    elif not 1e-4 <= ratio <= 1e4:
        said = f"its penalty ended {ratio:.0e} times as strong as it began: can the model evade it?"
    else:
        return
    warnings.warn(f"{which}: {said}", stacklevel=3)


def misses_target(l0, target_l0):
    """Return whether the number of active units is more than 5% away from its target."""
    return not abs(l0 - target_l0) <= 0.05 * target_l0


def score_all(models, measure, title):
    """Return a DataFrame with a row measure(model) for each of {(name, seed): model}, and the
    "strength" of its penalty at the end. Warns of a decoder that explains less than nothing."""
    table = measure_each(models, measure, ["method", "seed"], title)
    table["strength"] = [getattr(model, "strength", math.nan) for model in models.values()]
    for (name, seed), explained in table["variance explained"].items():
        if not explained >= 0:
            said = f"its own decoder explains {explained:.1f}% of the variance"
            warnings.warn(f"{name}, seed {seed}: {said}, less than the mean does", stacklevel=2)
    return table


# --- How learning rates are chosen ----------------------------------------------------------------


def scores_by_rate(methods, rates, x, seeds, n_held_out, **setting):
    """Return the `decoding_scores` of the last n_held_out rows of x, of models trained on the
    others: a DataFrame with a row for each method, rate and seed, empty if training diverged."""
    x, held_out = x[:-n_held_out], x[-n_held_out:]
    for method in methods:
        try_method(method, x, **setting)
    by_name = {method.name: method for method in methods}
    keys = [(name, rate, seed) for name in by_name for rate in rates[name] for seed in seeds]

    def measure(key):
        name, rate, seed = key
        try:
            model = train(by_name[name], seed, x, lr=rate, **setting)
        except FloatingPointError:
            return {}
        return decoding_scores(model, x, held_out)

    scores = run_in_parallel(measure, keys, "learning rates")
    return pd.DataFrame(scores, pd.MultiIndex.from_tuples(keys, names=["method", "rate", "seed"]))


def choose_rates(table, target_l0):
    """Return {method: rate} chosen from `scores_by_rate`: of the rates at which no seed diverges or
    misses target_l0, the smallest of those that explain the most variance, up to a tenth of a
    point. The paper's loss may kill no more units than it does at the paper's rate, .001 with Adam.
    A method for which no rate will do is left out.
    """
    groups = table.groupby(level=["method", "rate"], sort=False)
    means = groups.agg(lambda column: column.mean(skipna=False))
    missed = groups["L0"].agg(lambda column: any(misses_target(l0, target_l0) for l0 in column))
    most_dead = means["dead units"][PAPER_ADAM, 0.001]
    means = means[~missed]
    chosen = {}
    for name, rows in means.groupby("method", sort=False):
        if name in (PAPER_ADAM, PAPER_SGD, PAPER_DECAY):
            rows = rows[rows["dead units"] <= most_dead]
        explained = rows["variance explained"].droplevel("method")
        if len(explained):
            chosen[name] = min(explained[explained >= explained.max() - 0.1].index)
    return chosen


def print_rates(table, target_l0):
    """Print means over seeds of `scores_by_rate`, and which rates are chosen."""
    columns = ["L0", "dead units", "variance explained", "variance explained by the best decoder"]
    groups = table[columns].groupby(level=["method", "rate"], sort=False)
    print(groups.agg(lambda column: column.mean(skipna=False)).round(2).to_string())
    print("chosen:", choose_rates(table, target_l0))


def main():
    """Print how rates were chosen: on 10,000 held-out training digits, at 17 active units."""
    sae = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032]
    rates = {
        PAPER_ADAM: [0.001, 0.002, 0.003, 0.004, 0.006, 0.01],
        PAPER_SGD: [0.004, 0.0075, 0.015, 0.03, 0.06, 0.12, 0.24],
        PAPER_DECAY: [0.001, 0.003, 0.004, 0.006, 0.01, 0.03],
        "tied SAE": [*sae, 0.064],
        "L1 SAE": sae,
        "TopK SAE": sae,
    }
    methods = [method for method in METHODS if method.name in rates]
    setting = {"n_units": 64, "target_l0": 17, "epochs": 6}
    print_rates(scores_by_rate(methods, rates, load_images()[0], (0, 1), 10_000, **setting), 17)


if __name__ == "__main__":
    main()
