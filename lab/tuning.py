"""Search for the settings of lab/methods.py: `make tune` writes figures/tuning.json.

Models learn from the training digits but the last sixth, and are judged on that sixth. The paper's
loss has no minimum, so that a larger rate always gives a lower loss; it is judged by the variance
that W^T explains. All other methods are judged by their own loss.
"""

import itertools
import warnings
from functools import partial

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import ROOT, data, measures, record
from lab.methods import ADAM, MOMENTUM, SGD, Method, methods, paper_loss, train_methods
from lab.train import side_by_side, train

RATES = (0.001, 0.002, 0.004, 0.008, 0.016)
# Not searched: the paper's own settings, what `search_ways` chooses, and a control
NOT_BY_LOSS = ("the paper's loss", "the paper's loss, tuned", "k-means", "L1 SAE, twice its rate")
OPTIMIZERS = {"Adam": ADAM, "SGD": SGD, "momentum .9": MOMENTUM}
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
            optimizer=OPTIMIZERS[optimiser],
            slow_start=slow,
            look=("k", "o", "-"),  # so that it has all seeds
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
    return sorted(found, key=lambda row: -(row["explained"] or 0))


def search_rates(chosen, x, n_units, *, epochs, batch_size=h.BATCH_SIZE, seeds=(0, 1, 2)):
    """{name: {rate: loss}} of methods {name: Method} at their middle setting, for RATES.

    The loss is per held-out row, a mean over seeds; NaN where training diverged.
    """
    learned, held_out = _split(x)
    batches = [batch for batch in held_out.split(batch_size) if len(batch) == batch_size]

    def validation_loss(name, lr):
        method = chosen[name]
        setting = method.settings[len(method.settings) // 2]
        models = [method.model(x.shape[1], n_units, setting, seed) for seed in seeds]
        loss = partial(method.loss, **({method.argument: setting} if method.argument else {}))
        how = {"epochs": epochs, "batch_size": batch_size, "optimizer": method.optimizer}
        schedule = h.rate_schedule(epochs, method.slow_start)
        train(models, loss, learned, lr=lr, schedule=schedule, seed=seeds, **how)
        with torch.no_grad():
            losses = [float(loss(model, batch)) for model in models for batch in batches]
        return sum(losses) / len(losses) / batch_size

    tried = list(itertools.product(chosen, RATES))
    jobs = [partial(validation_loss, *case) for case in tried]
    losses = dict(zip(tried, side_by_side(jobs, "rates", epochs * len(jobs))))
    return {name: {lr: losses[name, lr] for lr in RATES} for name in chosen}


def _split(x):
    """All rows but the last sixth, and the last sixth."""
    n = len(x) // 6
    return x[:-n], x[-n:]


def show(found):
    """Print the ways, best first, or the losses {name: {rate: loss}}."""
    if isinstance(found, dict):
        print(pd.DataFrame(found).T.round(3).to_string())
    else:
        print(pd.DataFrame(found).drop(columns="dead").round(3).to_string())


def main():
    """Search on digits, print, and write figures/tuning.json."""
    # A rate that is too large shows as NaN, and a lambda that is far off as None.
    warnings.simplefilter("ignore")
    x = data.load_images()[0]
    mean = x.mean(0)
    x -= mean
    first = search_ways(ways(WAYS, FIRST_LAMBDAS), x, mean, 64, seeds=[0], l0s=[10], epochs=6)
    show(first)
    best = [row["how"] for row in first[:N_BEST]]
    again = {how: way for how, way in ways(WAYS, SECOND_LAMBDAS).items() if how in best}
    second = search_ways(again, x, mean, 64, seeds=[0, 1, 2], l0s=L0S, epochs=6)
    show(second)
    chosen = {n: m for n, m in methods(h.kappa(x, 64)).items() if n not in NOT_BY_LOSS}
    rates = search_rates(chosen, x, 64, epochs=6)
    show(rates)
    rates = {name: [*losses.items()] for name, losses in rates.items()}
    content = {"all ways": first, "best ways": second, "rates": rates}
    record.write_json(ROOT / "figures" / "tuning.json", content)


if __name__ == "__main__":
    main()
