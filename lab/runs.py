"""Stacks of models of a method, trained side by side, tuned, and started from a tied SAE.

Models are kept as {(name, setting, seed): model}. `python -m lab.runs` tunes the rates of
lab/methods.py anew, and writes figures/tuning.json.
"""

import time
import warnings
from functools import partial

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import data, notebook, tables, units
from lab.methods import UNTUNED, methods, paper_sae, paper_sae_loss
from lab.training import side_by_side, train

RATES = (0.004, 0.008, 0.016)  # of Adam, tried first


def stacks(
    name,
    method,
    x,
    K,
    seeds,
    *,
    lr=None,
    settings=None,
    epochs,
    batch_size=128,
    most=12,
    moments=None,
):
    """Jobs for `side_by_side`, each of which trains about so many models of a method.

    The last quarter of the epochs has a tenth of the rate. lr and settings: None for the method's
    own. The models read x (N, D), also where the method's `mean` was added for training.
    moments: a dict, into which go {(name, setting, seed): Adam's second moments of W, (K, D)}.
    """
    settings = method.settings if settings is None else settings
    if method.argument is None:  # the setting is in the model, and a stack has models of one kind
        groups = [[(s, seed) for seed in seeds] for s in settings]
    else:
        parts = np.array_split(seeds, min(len(seeds), -(-len(seeds) * len(settings) // most)))
        groups = [[(s, seed) for seed in part.tolist() for s in settings] for part in parts]
    options = {"lr": lr or method.lr, "epochs": epochs, "batch_size": batch_size}
    options["moments"] = {} if moments is None else moments
    return [partial(_train_stack, name, method, x, K, group, **options) for group in groups]


def _train_stack(name, method, x, K, group, *, lr, epochs, batch_size, moments):
    """Train a model of each (setting, seed) in group: {(name, setting, seed): model}.

    lr: one rate for all, or a list of one for each, which then is in the place of the setting.
    """
    stack = [method.model(x.shape[1], K, seed, s).to(x.device) for s, seed in group]
    epoch = np.arange(epochs)
    schedule = {"lr": np.where(epoch < 0.75 * epochs, 1.0, 0.1)}
    if method.slow_start:
        schedule["lr"][0] = 0.05
    if method.warm_up and method.argument:
        schedule[method.argument] = np.clip(epoch / 2, 0, 1)
    seen = train(
        stack,
        method.loss,
        x if method.mean is None else x + method.mean,
        arguments=_arguments(method, [s for s, _ in group]),
        schedule=schedule,
        seed=[seed for _, seed in group],
        lr=lr,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=method.optimizer,
        unit_norm=method.unit_norm,
        title=str(name),
    )
    if method.mean is not None:  # the same code, of x itself
        for model in stack:
            model.b.data += model.W.data @ method.mean
    keys = group if np.ndim(lr) == 0 else [(rate, seed) for rate, (_, seed) in zip(lr, group)]
    keys = [(name, *key) for key in keys]
    moments.update(zip(keys, seen.get("second_moments", {}).get("W", ())))
    return dict(zip(keys, stack))


def _arguments(method, settings):
    """Of the loss, one value for each of the settings: {argument: list}."""
    if isinstance(method.argument, tuple):
        return dict(zip(method.argument, map(list, zip(*settings))))
    return {method.argument: settings} if method.argument else {}


def train_all(jobs, title="training"):
    """Run the jobs of `stacks` side by side: {(name, setting, seed): model}."""
    return {key: model for part in side_by_side(*jobs, title=title) for key, model in part.items()}


def tune(chosen, x, K, rates, *, seed=0, epochs, batch_size=128):
    """The rate of the lowest validation loss for each of the methods {name: Method}, at its middle
    setting: {name: rate}, and {name: {rate: loss per row}} with NaN where training diverged.

    Models learn from the first half of x, and are judged on its last sixth. Where the best rate is
    the smallest or the largest, two more are tried beyond it, at most three times.
    """
    options = {"seed": seed, "epochs": epochs, "batch_size": batch_size}
    jobs = [partial(_tried, n, m, x, K, rates, **options) for n, m in chosen.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rate that is too large is NaN here
        tried = dict(zip(chosen, side_by_side(*jobs, title="tuning")))
    return {name: _best(losses) for name, losses in tried.items()}, tried


def _best(losses):
    return min(losses, key=lambda lr: np.nan_to_num(losses[lr], nan=np.inf))


def _tried(name, method, x, K, rates, *, seed, epochs, batch_size):
    """Validation loss per row of a method at each of the rates, and beyond an edge that is best."""
    held_out = x[-(len(x) // 6) :].split(batch_size)
    if len(held_out[0]) < batch_size:
        raise ValueError(f"{len(x)} rows: a sixth of them, for validation, is no batch")

    held_out = [batch for batch in held_out if len(batch) == batch_size]
    setting = method.settings[len(method.settings) // 2]
    arguments = {method.argument: setting} if method.argument else {}
    options, tried = {"epochs": epochs, "batch_size": batch_size, "moments": {}}, {}
    for _ in range(4):
        group = [(setting, seed)] * len(rates)
        half = x[: len(x) // 2]
        models = _train_stack(name, method, half, K, group, lr=list(rates), **options)
        with torch.no_grad():
            for lr, model in zip(rates, models.values()):
                total = sum(method.loss(model, rows, **arguments) for rows in held_out)
                tried[lr] = float(total) / len(held_out) / batch_size
        best = _best(tried)
        if min(tried) < best < max(tried):
            break
        rates = (best / 4, best / 2) if best == min(tried) else (2 * best, 4 * best)
    return tried


def paper_comparison(theirs, x, y, x_test, y_test, K, seeds, epochs):
    """The paper's model, which notebook 2 measured, and its SAE, trained here: a row a seed.

    theirs: {"probe", "l0", "norm_matched_error", "transpose_error", "solved_error"}, each a list.
    """
    columns = ["probe, %", "L0", "norm-matched MSE", "MSE", "solved MSE"]
    keys = ("probe", "l0", "norm_matched_error", "transpose_error", "solved_error")
    model = dict(zip(columns, (theirs[key] for key in keys)))
    stack, seeds = [paper_sae(x.shape[1], K, seed) for seed in seeds], list(seeds)
    options = {"epochs": epochs, "lr": 1e-3, "title": "the paper's SAE"}
    halves = [(stack[i::2], seeds[i::2]) for i in range(min(2, len(seeds)))]
    side_by_side(
        *[partial(train, half, paper_sae_loss, x, seed=own, **options) for half, own in halves]
    )
    variance = float(x_test.var(0, correction=0).mean())

    def row(sae):
        found = tables.evaluate(sae, x, x_test)
        errors = [(1 - found[c]) * variance for c in ("own", "solved")]
        probe = units.probe(sae, x, y, x_test, y_test)
        return dict(zip(columns, (probe, found["l0"], h.norm_matched_error(sae, x_test), *errors)))

    sae = pd.DataFrame(side_by_side(*[partial(row, sae) for sae in stack], title="probes"))
    both = {"model": pd.DataFrame(model), "SAE": sae}
    return pd.concat(both, names=["the paper's", "seed"]).reset_index()


def started_from(model, loss, x):
    """An encoder with W and b of a trained SAE, at their common factor of the least loss on x."""

    def at(factor):
        encoder = h.Encoder(model.W.shape[1], len(model.W)).to(model.W)
        encoder.W.data, encoder.b.data = factor * model.W.detach(), factor * model.b.detach()
        with torch.no_grad():
            return float(loss(encoder, x)), encoder

    return min((at(2.0**i) for i in np.arange(-4, 4.5, 0.5)), key=lambda pair: pair[0])[1]


def training_time(chosen, x, K, like="L1 SAE", seeds=(0, 1, 2)):
    """Processor time of an epoch of each method, the least of three, over that of one: {name:
    ratio}."""

    def spent(job):
        start = time.process_time()
        train_all([job])
        return time.process_time() - start

    seconds = {}
    for name, method in chosen.items():
        (job,) = stacks(name, method, x, K, seeds, settings=method.settings[:1], epochs=1)
        seconds[name] = min(spent(job) for _ in range(3))
    return {name: value / seconds[like] for name, value in seconds.items()}


if __name__ == "__main__":
    x = data.load_mnist()[0]
    x, K = x - x.mean(0), 64
    chosen = {n: m for n, m in methods(K, h.prior(x, K)).items() if n not in UNTUNED}
    rates, tried = tune(chosen, x, K, RATES, epochs=6)
    for name, method in chosen.items():
        print(f"{name}: {rates[name]}, in lab/methods.py {method.lr}; tried {tried[name]}")
    notebook.save_numbers(
        "tuning", {n: [*map(list, t.items())] for n, t in tried.items()}, notebook.output_folder()
    )
