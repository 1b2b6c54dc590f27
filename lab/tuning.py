"""Search for the settings of lab/methods.py: `make tune` writes figures/tuning.json.

Models learn from the training digits but the last sixth, and are judged on that sixth. The paper's
loss has no minimum, so that a larger rate always gives a lower loss; it is judged by the variance
that W^T explains. All other methods are judged by their own loss.
"""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import data, measures, record
from lab.methods import Method, benchmark_methods, paper_loss, stack_of, train_methods
from lab.train import train_stacks

RATES = (0.001, 0.002, 0.004, 0.008, 0.016)
# Not searched: the paper's own settings, what `search_ways` chooses, and a control
NOT_BY_LOSS = ("the paper's loss", "the paper's loss, tuned", "k-means", "L1 SAE, twice its rate")
WAYS = {
    "Adam": (0.0003, 0.001, 0.003, 0.01),
    "SGD": (0.01, 0.03, 0.1, 0.3),
    "momentum .9": (0.003, 0.01, 0.03),
}
FIRST_LAMBDAS = {True: (0.15, 0.35, 0.8), False: (0.07, 0.18, 0.5)}  # on raw pixels, and centred
SECOND_LAMBDAS = {True: (0.12, 0.35, 0.8, 1.6), False: (0.07, 0.18, 0.5, 1.0)}
N_BEST, L0S = 10, (6, 10, 16)  # so many ways are tried again, at these L0


def ways(rates, lambdas, slow_starts=(True, False)):
    """Ways to train the paper's loss: {description: Method}.

    rates: {optimiser: rates}; lambdas: {raw pixels or not: lambdas}.
    """
    return {
        f"{optimiser} {lr:g}, {'slow start, ' * slow}{'raw' if raw else 'centred'}": Method(
            paper_loss,
            lambdas[raw],
            lr,
            raw=raw,
            optimizer=optimiser,
            slow_start=slow,
        )
        for optimiser, of_optimiser in rates.items()
        for lr in of_optimiser
        for slow in slow_starts
        for raw in (True, False)
    }


def search_ways(tried, x, mean, n_units, *, seeds, l0s, epochs, batch_size=h.BATCH_SIZE):
    """The variance that W^T explains on held-out inputs, for each of {description: Method}.

    Returns a list of dicts, best first: "how"; "explained", the mean over L0s and seeds, None where
    a seed's models do not enclose all L0s; "at", for each L0 the values of the seeds; "l0" and
    "dead" of each model.
    """
    learned, held_out = _split(x)
    options = {"epochs": epochs, "batch_size": batch_size, "title": "ways"}
    models = train_methods(tried, learned, mean, n_units, seeds, **options)
    table = measures.tabulate(models, learned[:20_000], held_out)
    found = []
    for name in tried:
        rows = table[table.method == name]
        at = [list(measures.at_l0(rows, l0).explained) for l0 in l0s]
        explained = float(np.mean(at)) if np.isfinite(at).all() else None
        row = {"how": name, "explained": explained, "at": dict(zip(l0s, at))}
        found.append(row | {"l0": list(rows.l0), "dead": list(rows.dead)})
    return sorted(found, key=lambda row: (row["explained"] is None, -(row["explained"] or 0)))


def search_twice(tried, again, x, mean, n_units, *, n_best, first_l0, l0s, **how):
    """`search_ways` with one seed at first_l0, and then the n_best of them with three, at l0s.

    tried, again: {description: Method}, with the lambdas of the first and of the second search.
    Prints what it finds. Returns {"all ways": ..., "best ways": ...}, each best first.
    """
    first = search_ways(tried, x, mean, n_units, seeds=[0], l0s=[first_l0], **how)
    best = {row["how"]: again[row["how"]] for row in first[:n_best]}
    second = search_ways(best, x, mean, n_units, seeds=[0, 1, 2], l0s=l0s, **how)
    for found in first, second:
        print(pd.DataFrame(found).drop(columns="dead").round(3).to_string())
    return {"all ways": first, "best ways": second}


def search_rates(chosen, x, n_units, *, epochs, batch_size=h.BATCH_SIZE, seeds=(0, 1, 2)):
    """{name: {rate: loss}} of methods {name: Method} at their middle setting, for RATES.

    The loss is per held-out row, a mean over seeds; NaN where training diverged. Prints them.
    """
    learned, held_out = _split(x)
    batches = [batch for batch in held_out.split(batch_size) if len(batch) == batch_size]
    stacks, losses = [], {}
    for name, method in chosen.items():
        setting = method.settings[len(method.settings) // 2]
        losses[name] = partial(method.loss, **{method.argument: setting} if method.argument else {})
        for lr in RATES:
            at_rate, runs = method._replace(lr=lr), [(setting, seed) for seed in seeds]
            stack = stack_of(at_rate, runs, learned, n_units, epochs, batch_size)
            stacks.append(([(name, lr, seed) for seed in seeds], stack))
    models = train_stacks(stacks, "rates")[0]

    @torch.no_grad()
    def held_out_loss(name, lr):
        of_seeds = (models[name, lr, seed] for seed in seeds)
        values = [float(losses[name](model, batch)) for model in of_seeds for batch in batches]
        return sum(values) / len(values) / batch_size

    found = {name: {lr: held_out_loss(name, lr) for lr in RATES} for name in chosen}
    print(pd.DataFrame(found).T.round(3).to_string())
    return found


def _split(x):
    """All rows but the last sixth, and the last sixth."""
    n = len(x) // 6
    return x[:-n], x[-n:]


def main():
    """Search on digits, and write figures/tuning.json."""
    # A rate that is too large shows as NaN, and a lambda that is far off as None.
    warnings.simplefilter("ignore")
    folder = record.output_folder()
    x = data.load_images()[0]
    mean = x.mean(0)
    x -= mean
    tried, again = (ways(WAYS, lambdas) for lambdas in (FIRST_LAMBDAS, SECOND_LAMBDAS))
    how = {"n_best": N_BEST, "first_l0": 10, "l0s": L0S, "epochs": 6}
    found = search_twice(tried, again, x, mean, 64, **how)
    known = benchmark_methods(h.variance_per_unit(x, 64))
    chosen = {name: method for name, method in known.items() if name not in NOT_BY_LOSS}
    rates = search_rates(chosen, x, 64, epochs=6)
    rates = {"rates": {name: [*losses.items()] for name, losses in rates.items()}}
    record.write_json(folder / "tuning.json", found | rates)


if __name__ == "__main__":
    main()
