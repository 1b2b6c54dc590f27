"""Notebook 2 under plain gradient descent: the loss, the growth of the weights, convergence."""

import math

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab.train import train

LOOKED_AT = 5_120  # training inputs on which units are looked at after each epoch
# The paper's means over three seeds [P, section 4.5]
PAPER = pd.DataFrame(
    {"loss": [-967, -795, -676, -999], "probe": [93.5, 93.6, 92.6, 93.5]},
    index=["SGD, 0.1", "SGD, 0.01", "SGD, 0.001", "Adam, 0.001"],
)
PAPER_CONVERGED = 70, 72, 70, 73  # epochs; by a report and a script in the paper's repository


def paper_loss(model, x, decay=0.0):
    """The paper's loss at lambda 1, with `decay` times ||W||_F^2: -> ()."""
    return h.published_loss(model(x)) + decay * len(x) / h.BATCH_SIZE * model.W.square().sum()


def watch(x, n_units, epochs, rates, seeds, optimizer=torch.optim.SGD, **arguments):
    """Train layers on the paper's loss, and look at their units after each epoch.

    rates, seeds and `arguments` of `paper_loss`: a value for each layer, or one for all. Returns a
    dict for each layer: "loss" (T,), the mean over the minibatches of each epoch t; "norm2"
    (T + 1,), |W|^2 + |b|^2 from the start on; of the first LOOKED_AT inputs "L0" (T,), "loss of a
    sample" (T,), without decay, taking them as one minibatch but per 128 of them, and "living",
    units that are active on some of them at the end; "K", "lr" and "model".
    """
    models = [h.Encoder(x.shape[1], n_units, seed=seed) for seed in seeds]
    start = [squared_length(model) for model in models]

    @torch.no_grad()
    def look(model):
        E = model(x[:LOOKED_AT])
        sample = h.published_loss(E) * h.BATCH_SIZE / len(E)
        seen = {"L0": h.l0(E), "loss of a sample": sample, "living": n_units - h.dead(E)}
        return {"norm2": squared_length(model)} | seen

    options = {"epochs": epochs, "lr": rates, "optimizer": optimizer, "seed": seeds}
    seen = train(models, paper_loss, x, arguments=arguments, monitor=look, **options)
    rates = np.broadcast_to(rates, len(models)).tolist()
    return [
        {
            "loss": h.BATCH_SIZE * seen["loss"][:, i],
            "norm2": np.array([start[i], *seen["norm2"][:, i]]),
            "L0": seen["L0"][:, i],
            "loss of a sample": seen["loss of a sample"][:, i],
            "living": int(seen["living"][-1, i]),
            "K": n_units,
            "lr": rates[i],
            "model": model,
        }
        for i, model in enumerate(models)
    ]


def squared_length(model):
    """|W|^2 + |b|^2 of an encoder."""
    return float(sum(p.detach().square().sum() for p in model.parameters()))


def predicted_norm2(run, steps_per_epoch):
    """(T + 1,): |theta|^2 if each living unit's grows by 4 lr a step, after the first epoch."""
    epochs = np.arange(len(run["norm2"])) - 1
    return run["norm2"][1] + 4 * run["living"] * run["lr"] * steps_per_epoch * epochs


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


@torch.no_grad()
def loss_without_scale(loss, model, x_test, eps=1e-6):
    """The loss of a layer as if each living unit had |theta_j| = 1, and each dead one cost nothing.

    A living unit's variance term is lower by log |theta_j|^2 than at length 1; a dead unit's is
    -log eps.
    """
    E = model(x_test)
    norm2 = (model.W.square().sum(1) + model.b.square())[(E > 0).any(0)].double()
    return loss + float(norm2.log().sum()) + h.dead(E) * math.log(eps)


def measured_criteria(convergence, decay_run):
    """What claims.csv asks of the runs under SGD: {id: values}, see `lab.check.judge`.

    convergence: of `convergence_table`; decay_run: of `watch`, with weight decay.
    """
    norm2 = decay_run["norm2"][1:]
    fifth, half = max(1, len(norm2) // 5), len(norm2) // 2
    return {
        "convergence": fitted_line(convergence, "averaged")[0] - 1,
        "decay_limits": norm2[-fifth:].mean() / norm2[half - fifth : half].mean() - 1,
    }
