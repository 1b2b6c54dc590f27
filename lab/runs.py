"""Stacks of models of a method, trained side by side, tuned, and started from a tied SAE.

Models are kept as {(name, setting, seed): model}.
"""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import tables, units
from lab.methods import HOW, VARIANTS, Method, _encoder, methods, paper_sae, paper_sae_loss
from lab.training import side_by_side, train


def stacks(name, method, x, K, seeds, *, lr=None, settings=None, epochs, batch_size=128, most=12):
    """Jobs for `side_by_side`, each of which trains about so many models of a method.

    The last quarter of the epochs has a tenth of the rate. lr and settings: None for the method's
    own. The models read x (N, D), also where the method's `mean` was added for training.
    """
    settings = method.settings if settings is None else settings
    if method.argument is None:  # the setting is in the model, and a stack has models of one kind
        groups = [[(s, seed) for seed in seeds] for s in settings]
    else:
        parts = np.array_split(seeds, min(len(seeds), -(-len(seeds) * len(settings) // most)))
        groups = [[(s, seed) for seed in part.tolist() for s in settings] for part in parts]
    options = {"lr": lr or method.lr, "epochs": epochs, "batch_size": batch_size}
    return [partial(_train_stack, name, method, x, K, group, **options) for group in groups]


def _train_stack(name, method, x, K, group, *, lr, epochs, batch_size):
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
    train(
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
    return {(name, *key): model for key, model in zip(keys, stack)}


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
    return run_tuning({n: partial(_tried, n, m, x, K, rates, **options) for n, m in chosen.items()})


def run_tuning(jobs):
    """Run {name: job that gives {rate: loss}} side by side: what `tune` returns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rate that is too large is NaN here
        tried = dict(zip(jobs, side_by_side(*jobs.values(), title="tuning")))
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
    options, tried = {"epochs": epochs, "batch_size": batch_size}, {}
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


def variants(x, K, kappa, mean, seeds, epochs):
    """Jobs that train the objectives without a decoder, with and without the prior, under both
    optimisers, on raw and on centred inputs, but for TRAINED:
    {("objective | optimiser | inputs", lambda, seed): model}."""
    jobs = []
    for pair, (loss, lams) in VARIANTS.items():
        for optimiser, how in HOW.items():
            for inputs, added in (("raw", mean), ("centred", None)):
                names = [f"{objective} | {optimiser} | {inputs}" for objective in pair]
                kappas = dict(zip((0.0, kappa), names))  # one stack has both
                both = [(lam, k) for k, two in zip(kappas, lams[inputs]) for lam in two]
                method = Method(_encoder, loss, both, (), ("lam", "kappa"), mean=added, **how)
                own = stacks(" and ".join(pair), method, x, K, seeds, epochs=epochs)
                jobs += [partial(_by_prior, kappas, job) for job in own]
    return jobs


def _by_prior(names, job):
    return {(names[k], lam, seed): model for (_, (lam, k), seed), model in job().items()}


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


def overcomplete(x, x_test, settings, rates, l0, seeds, steps):
    """Methods at several numbers of units K, each tuned and trained there.

    settings: {K: {method: (below, above)}}, on either side of the L0; steps: {method: about so many
    of them}. Batches of 2K rows, or 128. Returns a table with a column "units", and the rates
    {"method, K": lr}.
    """
    tuning, training, jobs = {}, {}, []
    for K, chosen in sorted(settings.items(), reverse=True):  # the longest first: no core waits
        size, named = max(128, 2 * K), methods(K, h.prior(x, K))
        for m, own in chosen.items():
            method, epochs = named[m]._replace(settings=own), steps[m] / (len(x) // size)
            options = {"epochs": max(4, round(epochs)), "batch_size": size}
            training[m, K] = partial(stacks, m, method, x, K, seeds, **options)
            options |= {"epochs": max(4, options["epochs"] // 2), "seed": seeds[0]}
            tuning[m, K] = partial(_tried, m, method, x, K, rates, **options)
    best, _ = run_tuning(tuning)
    for K in settings:
        l0s = 0.8 * l0, 1.25 * l0
        jobs += [(K, partial(units.untrained, K, x, l0s, s, ["k-means templates"])) for s in seeds]
    jobs += [(K, job) for (m, K), stack in training.items() for job in stack(lr=best[m, K])]
    parts = side_by_side(*[job for _, job in jobs], title="more units")
    table = pd.concat(
        [
            tables.tabulate(part, x[:20_000], x_test).assign(units=K)
            for (K, _), part in zip(jobs, parts)
        ]
    )
    best = {f"{m}, {K} units": best[m, K] for K, chosen in settings.items() for m in chosen}
    return table.reset_index(drop=True), best
