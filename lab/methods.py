"""The methods of notebook 3: their losses, settings and rates in one table, and how they train.

`python -m lab.methods` searches the rates anew, and writes figures/tuning.json.
"""

import itertools
import json
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch

import helpers as h
from lab import ROOT, compare, data
from lab.train import ADAM, side_by_side, train

SGD = torch.optim.SGD
MOMENTUM = partial(torch.optim.SGD, momentum=0.9)


class Method(NamedTuple):
    """How a model is made and trained. A setting, which sets its L0, is an argument of its loss."""

    loss: Callable  # loss(model, x, **{argument: setting}), see `lab.train.train`
    settings: tuple
    lr: float
    argument: str | None = "lam"  # None: the setting is the k of a TopK SAE
    sae: dict | None = None  # options of a SparseAutoencoder; None: an Encoder
    raw: bool = False  # trained on pixels as they are; otherwise their mean is taken off
    optimizer: Callable = ADAM
    slow_start: bool = False  # the first epoch has a twentieth of the rate

    def model(self, n_inputs, n_units, setting, seed):
        """An untrained model."""
        if self.sae is None:
            return h.Encoder(n_inputs, n_units, seed=seed)
        options = self.sae | ({} if self.argument else {"k": int(setting)})
        return h.SparseAutoencoder(n_inputs, n_units, seed=seed, **options)


def paper_loss(model, x, lam, kappa=0.0):
    """`helpers.published_loss`, with weight decay on W as in `helpers.revised_loss`: -> ()."""
    decay = kappa * model.W.square().sum()
    return h.published_loss(model(x), lam) + lam * len(x) / h.BATCH_SIZE * decay


def revised_loss(model, x, lam, kappa, penalty=h.lse_loss):
    """`helpers.revised_loss` of a model: -> ()."""
    return h.revised_loss(model(x), model.W, lam, kappa, penalty=penalty)


def mean_l1(E):
    """The L1 penalty in place of the log-sum-exp, in units of which its settings are near 1."""
    return E.sum() / E.shape[1]


def methods(kappa):
    """{name: Method} of the benchmark on digits; kappa: see `helpers.kappa`, of the training x."""
    revised = partial(revised_loss, kappa=kappa)
    l1 = Method(h.sae_loss, (0.45, 1.0, 2.4), 0.004, "penalty", sae={})
    return {
        "the paper's loss": Method(paper_loss, (0.15, 0.35, 0.8), 0.001, raw=True),
        "the paper's loss, tuned": Method(
            paper_loss, (0.15, 0.5, 1.3), 0.1, raw=True, optimizer=SGD, slow_start=True
        ),
        "the paper's loss + weight decay": Method(
            partial(paper_loss, kappa=kappa), (0.1, 0.25, 0.65), 0.002
        ),
        "the revised loss": Method(revised, (0.1, 0.25, 0.75), 0.004),
        "the revised loss, pooled": Method(
            partial(revised, penalty=h.pooled_lse_loss), (0.1, 0.25), 0.004
        ),
        "the revised loss, L1": Method(partial(revised, penalty=mean_l1), (0.25, 0.5), 0.004),
        "tied SAE": Method(h.sae_loss, (0.4, 0.8, 1.3), 0.008, "penalty", sae={"tied": True}),
        "L1 SAE": l1,
        "L1 SAE, twice its rate": l1._replace(lr=2 * l1.lr),
        "TopK SAE": Method(h.sae_loss, (5, 10, 20), 0.004, None, sae={}),
    }


def paper_sae(n_inputs, n_units, seed):
    """The SAE of the paper's benchmark: its decoder starts as PyTorch's layers do."""
    model = h.SparseAutoencoder(n_inputs, n_units, seed=seed)
    generator = torch.Generator().manual_seed(100 + seed)
    model.V.data.uniform_(-(n_units**-0.5), n_units**-0.5, generator=generator)
    return model


def paper_sae_loss(model, x):
    """Mean squared error + 0.01 times the mean activation: -> (). [P, section 4.3]"""
    A = model.encode(x)
    return (model.decode(A) - x).square().mean() + 0.01 * A.mean()


def paper_sae_job(x, mean, n_units, seeds, *, epochs):
    """Train the paper's SAEs, with its settings, on raw pixels x + mean; x (N, D), mean (D,).

    -> {("the paper's SAE", None, seed): model}, models of raw pixels.
    """
    models = [paper_sae(x.shape[1], n_units, seed) for seed in seeds]
    train(models, paper_sae_loss, x + mean, epochs=epochs, seed=seeds, title="the paper's SAE")
    return {("the paper's SAE", None, seed): model for seed, model in zip(seeds, models)}


def encoder_from(sae, loss, x):
    """An encoder with W and b of a trained SAE, times the common factor of the least loss on x.

    loss(model, x) is tried at the factors 2^-4, 2^-3.5, ..., 2^4.
    """

    def at(factor):
        encoder = h.Encoder(sae.W.shape[1], len(sae.W)).to(sae.W)
        encoder.W.data, encoder.b.data = factor * sae.W.detach(), factor * sae.b.detach()
        with torch.no_grad():
            return float(loss(encoder, x)), encoder

    return min((at(2.0 ** (i / 2)) for i in range(-8, 9)), key=lambda pair: pair[0])[1]


def go_on_from(saes, method, setting, x, *, epochs):
    """Train encoders that start from SAEs {seed: sae} with an encoder's method: {seed: model}."""
    loss = partial(method.loss, **{method.argument: setting})
    models = {seed: encoder_from(sae, loss, x[:2_000]) for seed, sae in saes.items()}
    schedule = h.rate_schedule(epochs, method.slow_start)
    options = {"epochs": epochs, "lr": method.lr, "optimizer": method.optimizer}
    train([*models.values()], loss, x, schedule=schedule, seed=[*models], **options)
    return models


# The ratio of W^T to least squares near L0 10: lambdas for each optimiser and preprocessing
RATIO_CASES = [("Adam", True), ("Adam", False), ("SGD", True), ("SGD", False)]  # True: raw pixels
RATIO_LAMBDAS = {
    "the paper's loss": (0.365, 0.17, 0.345, 0.19),
    "the revised loss without weight decay": (0.38, 0.16, 0.34, 0.18),
    "the paper's loss + weight decay": (0.24, 0.22, 0.24, 0.23),
    "the revised loss": (0.22, 0.22, 0.22, 0.21),
}


def adamw_on_W(parameters, lr, weight_decay=3):
    """AdamW with weight decay on W alone, of the parameters (W, b) of encoders."""
    W, b = parameters
    groups = [{"params": [W], "weight_decay": weight_decay}, {"params": [b], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr)


def ratio_methods(kappa):
    """{(loss, optimiser, raw pixels): Method} without tuned rates: Adam at .001, SGD at .01."""
    losses = {
        "the paper's loss": paper_loss,
        "the revised loss without weight decay": partial(revised_loss, kappa=0.0),
        "the paper's loss + weight decay": partial(paper_loss, kappa=kappa),
        "the revised loss": partial(revised_loss, kappa=kappa),
    }
    how = {
        "Adam": {"lr": 0.001},
        "SGD": {"lr": 0.01, "optimizer": SGD, "slow_start": True},
    }
    found = {
        (name, optimiser, raw): Method(losses[name], (lam,), raw=raw, **how[optimiser])
        for name, lambdas in RATIO_LAMBDAS.items()
        for (optimiser, raw), lam in zip(RATIO_CASES, lambdas)
    }
    without = found["the revised loss without weight decay", "Adam", False]
    found["AdamW on W", "AdamW", False] = without._replace(optimizer=adamw_on_W, settings=(0.21,))
    return found


# --- Training them ----------------------------------------------------------------------------


def jobs(chosen, x, mean, n_units, seeds, *, epochs, batch_size=h.BATCH_SIZE, most=9):
    """For `lab.train.side_by_side`: jobs that train the methods {name: Method} with all seeds.

    x (N, D): centred inputs; mean (D,): what was taken off them. Each job trains a stack of at most
    `most` models, and gives {(name, setting, seed): model}, models of centred inputs.
    """
    found = []
    for name, method in chosen.items():
        if method.argument is None:  # models of different k do not stack
            stacks = [[(setting, seed) for seed in seeds] for setting in method.settings]
        else:
            n = max(1, most // len(method.settings))  # seeds in a stack
            parts = [seeds[i : i + n] for i in range(0, len(seeds), n)]
            stacks = [[(s, seed) for seed in part for s in method.settings] for part in parts]
        for runs in stacks:
            options = {"epochs": epochs, "batch_size": batch_size}
            found.append(partial(train_stack, name, method, runs, x, mean, n_units, **options))
    return found


def train_stack(name, method, runs, x, mean, n_units, *, epochs, batch_size=h.BATCH_SIZE):
    """Train a model for each (setting, seed) of runs: {(name, setting, seed): model}.

    A model that was trained on x + mean is changed to one that gives the same energies for x.
    """
    settings, seeds = zip(*runs)
    models = [method.model(x.shape[1], n_units, setting, seed) for setting, seed in runs]
    train(
        models,
        method.loss,
        x + mean if method.raw else x,
        arguments={method.argument: settings} if method.argument else {},
        epochs=epochs,
        batch_size=batch_size,
        lr=method.lr,
        optimizer=method.optimizer,
        schedule=h.rate_schedule(epochs, method.slow_start),
        seed=seeds,
        title=str(name),
    )
    if method.raw:
        for model in models:
            model.b.data += model.W.data @ mean
    return {(name, *run): model for run, model in zip(runs, models)}


def train_all(all_jobs, title="training"):
    """Run jobs side by side, the last ones first: {(name, setting, seed): model}."""
    parts = side_by_side(all_jobs[::-1], title)[::-1]
    return {key: model for part in parts for key, model in part.items()}


# --- Searching their rates, on validation digits ----------------------------------------------

NOT_SEARCHED = ("the paper's loss", "the paper's loss, tuned", "L1 SAE, twice its rate")
RATES = (0.001, 0.002, 0.004, 0.008, 0.016)
OPTIMIZERS = {"Adam": ADAM, "SGD": SGD, "momentum .9": MOMENTUM}
SEARCH = {"Adam": (0.0003, 0.001, 0.003, 0.01), "SGD": (0.01, 0.03, 0.1, 0.3)}
SEARCH |= {"momentum .9": (0.003, 0.01, 0.03)}
SEARCH_LAMBDAS = {True: (0.15, 0.35, 0.8), False: (0.07, 0.18, 0.5)}  # on raw pixels, and centred


def candidates(search, lambdas, slow_starts=(True, False)):
    """Ways to train the paper's loss: {description: Method}.

    search: {optimiser: rates}; lambdas: {raw: three lambdas}.
    """
    return {
        f"{optimiser} {lr:g}, {'slow start, ' * slow}{'raw' if raw else 'centred'}": Method(
            paper_loss,
            lambdas[raw],
            lr,
            raw=raw,
            optimizer=OPTIMIZERS[optimiser],
            slow_start=slow,
        )
        for optimiser, rates in search.items()
        for lr in rates
        for slow in slow_starts
        for raw in (True, False)
    }


def search_paper_loss(tried, x, mean, n_units, *, epochs, batch_size=h.BATCH_SIZE, l0=10):
    """The variance that W^T explains at the L0 on held-out inputs, for each of {name: Method}.

    Models of the first seed learn from x (N, D) but its last sixth, by which they are judged.
    Returns a list of dicts, best first: "how"; the L0s and dead units at each lambda; "explained"
    and "least_squares", None where the lambdas do not enclose the L0.
    """
    learned, held_out = x[: -(len(x) // 6)], x[-(len(x) // 6) :]
    options = {"epochs": epochs, "batch_size": batch_size}
    models = train_all(jobs(tried, learned, mean, n_units, [0], **options), "search")
    table = compare.tabulate(models, learned[: compare.FITTED], held_out)
    found = []
    for name in tried:
        rows = table[table.method == name]
        row = {"how": name, "l0": list(rows.l0), "dead": list(rows.dead)}
        for column in ("explained", "least_squares"):
            row[column] = compare.at_l0(table, name, column, l0).get(0)
        found.append(row)
    return sorted(found, key=lambda row: -(row["explained"] or 0))


def search_rates(chosen, x, n_units, *, epochs, batch_size=h.BATCH_SIZE, seeds=(0, 1, 2)):
    """{name: {rate: loss}} of methods {name: Method} at their middle setting, for RATES.

    Models learn from x (N, D) but its last sixth, by which their loss judges them: per row, a mean
    over seeds; NaN where training diverged.
    """
    learned, held_out = x[: -(len(x) // 6)], x[-(len(x) // 6) :].split(batch_size)
    held_out = [batch for batch in held_out if len(batch) == batch_size]
    options = {"epochs": epochs, "batch_size": batch_size}

    def validation_loss(name, lr):
        method = chosen[name]._replace(lr=lr)
        setting = method.settings[len(method.settings) // 2]
        runs = [(setting, seed) for seed in seeds]
        models = train_stack(name, method, runs, learned, 0, n_units, **options).values()
        loss = partial(method.loss, **({method.argument: setting} if method.argument else {}))
        with torch.no_grad():
            losses = [float(loss(model, batch)) for model in models for batch in held_out]
        return sum(losses) / len(losses) / batch_size

    tried = list(itertools.product(chosen, RATES))
    losses = side_by_side([partial(validation_loss, *case) for case in tried], "rates")
    losses = dict(zip(tried, losses))
    return {name: {lr: losses[name, lr] for lr in RATES} for name in chosen}


if __name__ == "__main__":
    # A rate that is too large shows as NaN, and a lambda that is far off as None.
    warnings.simplefilter("ignore")
    x = data.load_mnist()[0]
    mean = x.mean(0)
    x -= mean
    found = search_paper_loss(candidates(SEARCH, SEARCH_LAMBDAS), x, mean, 64, epochs=6)
    print(pd.DataFrame(found).round(3).to_string())
    chosen = methods(h.kappa(x, 64))
    chosen = {name: method for name, method in chosen.items() if name not in NOT_SEARCHED}
    rates = search_rates(chosen, x, 64, epochs=6)
    print(pd.DataFrame(rates).T.round(3).to_string())
    rates = {name: [list(pair) for pair in losses.items()] for name, losses in rates.items()}
    content = {"the paper's loss": found, "rates": rates}
    (ROOT / "figures" / "tuning.json").write_text(json.dumps(content, indent=1) + "\n")
