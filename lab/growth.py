"""Notebook 2 under plain gradient descent: the loss, the growth of the weights, convergence."""

import math

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab.train import train

PAPER_CONVERGED = 70, 72, 70, 73  # epochs; by a report and a script in the paper's repository
LOOKED_AT = 5_120  # training inputs on which units are looked at after each epoch


def train_by_sgd(x, n_units, epochs, rates, seeds):
    """Train layers on the paper's loss by SGD, and look at their units after each epoch.

    rates, seeds: one for each layer. Returns a dict for each layer: "loss" (T,), the mean over the
    minibatches of each epoch; on the first LOOKED_AT inputs "l0" (T,) and "living", units that are
    active on some of them at the end; "K", "lr".
    """
    models = [h.Encoder(x.shape[1], n_units, seed=seed) for seed in seeds]

    def loss(model, x):
        return h.published_loss(model(x))

    @torch.no_grad()
    def look(model):
        E = model(x[:LOOKED_AT])
        return {"l0": h.l0(E), "living": n_units - h.dead(E)}

    options = {"epochs": epochs, "lr": rates, "optimizer": torch.optim.SGD, "seed": seeds}
    seen = train(models, loss, x, monitor=look, **options)
    return [
        {
            "loss": h.BATCH_SIZE * seen["loss"][:, i],
            "l0": seen["l0"][:, i],
            "living": int(seen["living"][-1, i]),
            "K": n_units,
            "lr": lr,
        }
        for i, lr in enumerate(rates)
    ]


def predicted_loss(run):
    """(T,): -living log t plus a constant, which is fitted to the second half of the run."""
    middle = np.arange(len(run["loss"])) + 0.5  # a mean over epoch t stands for its middle
    half, law = len(middle) // 2, -run["living"] * np.log(middle)
    return law + np.mean(run["loss"][half:] - law[half:])


def converged(losses, tolerance=1.0, width=1):
    """The epoch at which the script in the paper's repository declares convergence, or None.

    It is the first of five epochs in a row in which the loss changes by less than the tolerance,
    counted from 0 as there. width: of a trailing mean that is taken of the losses first.
    """
    means = np.convolve(losses, np.ones(width) / width, "valid")
    small = np.abs(np.diff(means)) < tolerance
    runs = (i for i in range(len(small) - 4) if small[i : i + 5].all())
    return next((i + width for i in runs), None)


def convergence_table(runs, tolerances):
    """A DataFrame with a row for each run and tolerance: K / tolerance, and the epochs at which it
    is declared converged, "raw", and "averaged" over five epochs; NaN if it is not."""
    rows = [
        {
            "K": run["K"],
            "lr": run["lr"],
            "tolerance": tolerance,
            "K / tolerance": run["K"] / tolerance,
            "raw": converged(run["loss"], tolerance),
            "averaged": converged(run["loss"], tolerance, width=5),
        }
        for run in runs
        for tolerance in tolerances
    ]
    return pd.DataFrame(rows).astype({"raw": float, "averaged": float})


def fitted_line(table, column):
    """(slope, intercept) of the epochs in a column against K / tolerance, by least squares; NaN
    if there are not two values of it."""
    found = table.dropna(subset=[column])
    if found["K / tolerance"].nunique() < 2:
        return math.nan, math.nan
    return tuple(np.polyfit(found["K / tolerance"], found[column], 1).tolist())
