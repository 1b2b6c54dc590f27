"""Stacks of models of a method, trained side by side, tuned, and started from a tied SAE.

Models are kept as {(name, setting, seed): model}. `python -m lab.runs` tunes the rates of
lab/methods.py anew, and writes figures/tuning.json.
"""

import time
import timeit
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


def stacks(name, method, x, K, seeds, *, epochs, batch_size=128, most=12, moments=None):
    """Jobs for `side_by_side`, each of which trains about so many models of a method.

    The last quarter of the epochs has a tenth of the rate. The models read x (N, D), also where the
    method's `mean` was added for training.
    moments: a dict, into which go {(name, setting, seed): Adam's second moments of W, (K, D)}.
    """
    settings = method.settings
    if method.argument is None:  # the setting is in the model, and a stack has models of one kind
        groups = [[(s, seed) for seed in seeds] for s in settings]
    else:
        parts = np.array_split(seeds, min(len(seeds), -(-len(seeds) * len(settings) // most)))
        groups = [[(s, seed) for seed in part.tolist() for s in settings] for part in parts]
    options = {"lr": method.lr, "epochs": epochs, "batch_size": batch_size}
    options["moments"] = {} if moments is None else moments
    return [partial(_train_stack, name, method, x, K, group, **options) for group in groups]


def _train_stack(name, method, x, K, group, *, lr, epochs, batch_size, moments):
    """Train a model of each (setting, seed) in group: {(name, setting, seed): model}.

    lr: one rate for all, or a list of one for each, which then is in the place of the setting.
    """
    settings, seeds = zip(*group)
    stack = [method.model(x.shape[1], K, seed, s).to(x.device) for s, seed in group]
    epoch, options = np.arange(epochs), {"optimizer": method.optimizer, "title": str(name)}
    schedule = {"lr": np.where(epoch < 0.75 * epochs, 1.0, 0.1)}
    if method.slow_start:
        schedule["lr"][0] = 0.05
    if method.warm_up and method.argument:
        schedule[method.argument] = np.clip(epoch / 2, 0, 1)
    options |= {"arguments": _arguments(method, settings), "schedule": schedule, "seed": seeds}
    options |= {"lr": lr, "epochs": epochs, "batch_size": batch_size}
    inputs = x if method.mean is None else x + method.mean
    seen = train(stack, method.loss, inputs, unit_norm=method.unit_norm, **options)
    if method.mean is not None:  # the same code, of x itself
        for model in stack:
            model.b.data += model.W.data @ method.mean
    keys = [(name, *key) for key in zip(settings if np.ndim(lr) == 0 else lr, seeds)]
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


def tune(chosen, x, K, rates, *, epochs, batch_size=128):
    """Validation losses per row of each of the methods {name: Method} at its middle setting: {name:
    {rate: loss}}, NaN where training diverged.

    Models learn from the first half of x, and are judged on its last sixth. Where the best rate is
    the smallest or the largest, two more are tried beyond it, at most three times.
    """
    some = x, K, rates, epochs, batch_size
    jobs = [partial(_tried, name, method, *some) for name, method in chosen.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rate that is too large is NaN here
        return dict(zip(chosen, side_by_side(*jobs, title="tuning")))


def best_rate(losses):
    """Of {rate: loss}; NaN counts as the greatest loss."""
    return min(losses, key=lambda lr: np.nan_to_num(losses[lr], nan=np.inf))


def _tried(name, method, x, K, rates, epochs, batch_size):
    """Validation loss per row of a method at each of the rates, and beyond an edge that is best."""
    half, held_out = x[: len(x) // 2], x[-(len(x) // 6) :].split(batch_size)
    held_out = [batch for batch in held_out if len(batch) == batch_size]
    if not held_out:
        raise ValueError(f"{len(x)} rows: a sixth of them, for validation, is no batch")
    setting = method.settings[len(method.settings) // 2]
    arguments = {method.argument: setting} if method.argument else {}
    options, tried = {"epochs": epochs, "batch_size": batch_size, "moments": {}}, {}
    for _ in range(4):
        group = [(setting, 0)] * len(rates)
        models = _train_stack(name, method, half, K, group, lr=list(rates), **options)
        with torch.no_grad():
            for lr, model in zip(rates, models.values()):
                total = sum(method.loss(model, rows, **arguments) for rows in held_out)
                tried[lr] = float(total) / len(held_out) / batch_size
        best = best_rate(tried)
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
    stack, seeds = [paper_sae(x.shape[1], K, seed) for seed in seeds], list(seeds)
    options = {"epochs": epochs, "lr": 1e-3, "title": "the paper's SAE"}
    learn = partial(train, loss=paper_sae_loss, x=x, **options)
    halves = [slice(i, None, 2) for i in range(min(2, len(seeds)))]
    side_by_side(*[partial(learn, stack[half], seed=seeds[half]) for half in halves])
    variance = float(x_test.var(0, correction=0).mean())

    def row(sae):
        found = tables.evaluate(sae, x, x_test)
        errors = [(1 - found[c]) * variance for c in ("own", "solved")]
        probe = units.probe(sae, x, y, x_test, y_test)
        return dict(zip(columns, (probe, found["l0"], h.norm_matched_error(sae, x_test), *errors)))

    sae = pd.DataFrame(side_by_side(*[partial(row, sae) for sae in stack], title="probes"))
    model = pd.DataFrame(dict(zip(columns, (theirs[key] for key in keys))))
    return pd.concat({"model": model, "SAE": sae}, names=["the paper's", "seed"]).reset_index()


def started_from(model, loss, x):
    """An encoder with W and b of a trained SAE, at their common factor of the least loss on x."""

    def at(factor):
        encoder = h.Encoder(model.W.shape[1], len(model.W)).to(model.W)
        encoder.W.data, encoder.b.data = factor * model.W.detach(), factor * model.b.detach()
        with torch.no_grad():
            return float(loss(encoder, x)), encoder

    return min((at(2.0**i) for i in np.arange(-4, 4.5, 0.5)), key=lambda pair: pair[0])[1]


def training_time(chosen, x, K, like="L1 SAE"):
    """Processor time of an epoch of three models of each method, the least of three, over that of
    one: {name: ratio}."""
    seconds = {}
    for name, method in chosen.items():
        jobs = stacks(name, method._replace(settings=method.settings[:1]), x, K, range(3), epochs=1)
        repeat = partial(timeit.repeat, timer=time.process_time, repeat=3, number=1)
        seconds[name] = min(repeat(partial(train_all, jobs)))
    return {name: value / seconds[like] for name, value in seconds.items()}


if __name__ == "__main__":
    x = data.load_mnist()[0]
    x, K = x - x.mean(0), 64
    chosen = {n: m for n, m in methods(K, h.prior(x, K)).items() if n not in UNTUNED}
    tried = tune(chosen, x, K, RATES, epochs=6)
    for name, losses in tried.items():
        print(f"{name}: {best_rate(losses)}, here {chosen[name].lr}; tried {losses}")
    content = {name: [*map(list, losses.items())] for name, losses in tried.items()}
    notebook.save_numbers("tuning", content, notebook.output_folder())
