"""Notebook 2's law: what is seen of each unit in training, where a run stops, and what ends it."""

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab.notebook import summary
from lab.training import train

# The paper's means over three seeds [P, section 4.5]
PUBLISHED_DYNAMICS = pd.DataFrame(
    {"loss, paper": [-676, -795, -967, -999], "probe, paper": [92.6, 93.6, 93.5, 93.5]},
    index=["SGD, 0.001", "SGD, 0.01", "SGD, 0.1", "Adam, 0.001"],
)
PUBLISHED_STOPS = 70, 72, 70, 73  # of 64 units, by the author's report and script
ROWS = 5_120  # of the training inputs: on these the units are looked at


def check(p):
    """ValueError for parameters of the notebook, a dict, that would fail after a long run."""
    sizes, epochs = zip((p["N_COMPONENTS"], p["EPOCHS"]), *p["SMALLER"])
    needs = {  # values, and the least that they may be
        "N_COMPONENTS and the sizes in SMALLER": (sizes, 2),
        "EPOCHS, PRIOR_EPOCHS and the epochs in SMALLER": ([*epochs, p["PRIOR_EPOCHS"]], 5),
        "CUT_EPOCHS and the epochs in KILL": ([p["CUT_EPOCHS"], *p["KILL"]], 1),
        "SETTLED for A, B and D": ([p["SETTLED"].get(config, 0) for config in "ABD"], 1),
        "TOLERANCES and CUT_AT": ([*p["TOLERANCES"], *p["CUT_AT"]], 1e-9),
        "BATCH_SIZE": ([p["BATCH_SIZE"]], 2),
        "N_TRAIN, ten minibatches": ([p["N_TRAIN"]], 10 * p["BATCH_SIZE"]),
        "WEIGHTS": (p["WEIGHTS"], 0),
        "name one seed: the number of SEEDS": ([len(p["SEEDS"])], 1),
    }
    for name, (values, least) in needs.items():
        if min(values, default=least - 1) < least:
            raise ValueError(f"{name} must be at least {least}, got {values}")
    for name, values in {"SEEDS": p["SEEDS"], "RATES": p["RATES"], "SMALLER": sizes[1:]}.items():
        if len({*values}) < len(values):
            raise ValueError(f"{name} holds a value twice: {values}")
    if p["RATE"] not in p["RATES"]:
        raise ValueError("RATES must hold RATE")


# --- The law ------------------------------------------------------------------------------


def descend(x, k, epochs, rates, seeds, loss=h.published_loss, **options):
    """Train layers of k units, each at its rate with its seed, and `watch` them."""
    models = [h.Encoder(x.shape[1], k, seed=seed).to(x.device) for seed in seeds]
    return watch(models, loss, x, epochs=epochs, lr=rates, seed=seeds, **options)


def kill(x, K, before, after, *, seed=0, **options):
    """One run; then every other unit of a copy is killed, and both go on, on the same digits."""
    twin, killed = (h.Encoder(x.shape[1], K, seed=seed).to(x.device) for _ in range(2))
    train([twin], h.published_loss, x, epochs=before, seed=seed, **options)
    killed.load_state_dict(twin.state_dict())
    with torch.no_grad():
        killed.W[::2], killed.b[::2] = 0, -1
    runs = watch([twin, killed], h.published_loss, x, epochs=after, seed=seed + 1, **options)
    return dict(zip(("twin", "killed"), runs))


def dead_units(x, K, seeds, first_epoch, **options):
    """Dead units of the full objective after four epochs, the first at that share of the rate: a
    number for each seed."""
    models = [h.Encoder(x.shape[1], K, seed=seed).to(x.device) for seed in seeds]
    schedule = {"lr": [first_epoch, 1, 1, 1]}
    train(models, h.published_loss, x, epochs=4, seed=seeds, schedule=schedule, **options)
    return [h.dead(model(x)) for model in models]


def watch(models, loss, x, *, epochs, lr, batch_size=128, **options):
    """Train models with `lab.training.train`, and look at every unit before and after each epoch.

    Returns a dict for each model, of T epochs and K units: "loss" (T,), the mean loss of a
    minibatch in each epoch; then, from the start on, "norm2" (T + 1, K), |theta_j|^2 of
    theta_j = (W_j, b_j); "S" (T + 1, K), S_j = sum_i r_ij E_ij, summed over a minibatch; "living"
    (T + 1, K), whether it is active on any of the first ROWS rows of x; "L0" (T + 1,); "tau"
    (T + 1,), lr times the number of steps; "lr", "K", "volume", the factor of the volume terms at
    this batch size and lambda 1, and "model", the model itself.
    """
    seen = {id(model): [] for model in models}

    @torch.no_grad()
    def look(model):
        E = model.encode(x[:ROWS])
        S = (h.responsibilities(E) * E).mean(0) * batch_size
        norm2 = model.W.square().sum(1) + model.b.square()
        seen[id(model)].append([v.cpu().numpy() for v in (norm2, S, (E > 0).any(0))] + [h.l0(E)])
        return {}

    for model in models:
        look(model)
    options |= {"epochs": epochs, "lr": lr, "batch_size": batch_size, "monitor": look}
    losses = batch_size * train(models, loss, x, **options)["loss"]
    steps, runs = len(x) // batch_size * np.arange(epochs + 1), []
    for model, rate, values in zip(models, np.broadcast_to(lr, len(models)).tolist(), losses.T):
        run = dict(zip(("norm2", "S", "living", "L0"), map(np.stack, zip(*seen[id(model)]))))
        known = {"lr": rate, "tau": rate * steps, "loss": values, "K": len(model.W), "model": model}
        runs.append(run | known | {"volume": batch_size / 128})
    return runs


def living(run):
    """(K,): the units that live at the end. One that is dead on all inputs never comes back."""
    return run["living"][-1]


def growth(run, since=1, lam=1.0):
    """How much |theta_j|^2 grows per unit of tau, from epoch `since` to the end, of each unit.

    -> (as measured (K,), as predicted for a living one: 4 lam - 2 S_j (K,), with lam times the
    factor of the batch), means over time.
    """
    rise = (run["norm2"][-1] - run["norm2"][since]) / (run["tau"][-1] - run["tau"][since])
    return rise, 4 * lam * run["volume"] - (run["S"][since:-1] + run["S"][since + 1 :]).mean(0)


def growth_error(run):
    """The mean growth of the living units over the mean prediction, minus 1."""
    alive = living(run)
    measured, predicted = (v[alive].mean() if alive.any() else np.nan for v in growth(run))
    return measured / predicted - 1


def clock(run, before=0):
    """(T,): the time in epochs at which each epoch's mean loss stands, t - 1/2 + t0.

    t0: how long |theta_j|^2, growing by 4 per unit of tau, would have taken to its start; or the
    number of epochs before.
    """
    t0 = before or run["norm2"][0].mean() / (4 * run["volume"] * run["tau"][1])
    return np.arange(1, len(run["loss"]) + 1) - 0.5 + t0


def slope(run, before=0):
    """Of the loss in the logarithm of the clock, over the second half or after a start, divided by
    the factor of the volume terms: the law says minus the number of living units."""
    half = 0 if before else len(run["loss"]) // 2
    logs, losses = np.log(clock(run, before)[half:]), run["loss"][half:]
    return np.polyfit(logs, losses, 1)[0] / run["volume"]


def slope_error(run):
    """The slope over minus the number of living units, minus 1."""
    return slope(run) / -max(1, living(run).sum()) - 1


def stop(losses, tolerance=1.0, width=1):
    """The author's test: the epoch of the first of five changes in a row below the tolerance, or
    None; counted from 0, as in his script. width: of a trailing mean, taken of the losses first."""
    means = np.convolve(losses, np.ones(width) / width, "valid")
    small = np.abs(np.diff(means)) < tolerance
    runs = (i for i in range(len(small) - 4) if small[i : i + 5].all())
    return next((i + width for i in runs), None)


def stops(runs, tolerances):
    """A row for each run and tolerance at which it stops: "K / tolerance", where the law expects
    that (times the factor of the volume terms), and where it is, "raw" and "smoothed" by five."""
    rows = [
        {"K": run["K"], "lr": run["lr"], "tolerance": tolerance}
        | {"K / tolerance": run["K"] * run["volume"] / tolerance}
        | {"raw": stop(run["loss"], tolerance), "smoothed": stop(run["loss"], tolerance, 5)}
        for run in runs
        for tolerance in tolerances
    ]
    return pd.DataFrame(rows).astype({"raw": float, "smoothed": float})


def stop_line(table, column):
    """(slope, intercept) of the stops in a column on K / tolerance, by least squares; NaN for fewer
    than two."""
    found = table.dropna(subset=[column])
    if found["K / tolerance"].nunique() < 2:
        return np.nan, np.nan
    return tuple(np.polyfit(found["K / tolerance"], found[column], 1).tolist())


def say(stops):
    """Print the line of the stops, raw and smoothed, and where each run of each size stops, raw."""
    print("the paper's runs of 64 units stop at", *PUBLISHED_STOPS)
    for column in ("raw", "smoothed"):
        line = "{}: slope {:.2f}, intercept {:+.1f}, of".format(column, *stop_line(stops, column))
        print(line, stops[column].notna().sum(), "stops in", len(stops))
    for k, rows in stops.groupby("K"):
        at = rows.groupby("tolerance").raw.agg(lambda v: " ".join(map("{:.0f}".format, v.dropna())))
        print(f"  {k} units, raw;", "; ".join(f"at {t:g}: {words}" for t, words in at.items()))


# --- The optimiser, and the prior -----------------------------------------------------------


@torch.no_grad()
def dynamics_table(rows, x_test, batch_size=128):
    """rows: (optimiser, rate, loss, model, probe), one a run -> a DataFrame with a row for each.

    Loss less scale: the living units' variance terms as if they had |theta_j| = 1, and without what
    each dead unit adds, minus the logarithm of the variance's floor.
    """
    table, volume = [], batch_size / 128
    for optimiser, lr, loss, model, probe in rows:
        E = model.encode(x_test)
        norm2 = (model.W.square().sum(1) + model.b.square())[(E > 0).any(0)].double()
        logs = float(norm2.log().sum()) + h.dead(E) * np.log(1e-6)
        row = {"optimiser, rate": f"{optimiser}, {lr:g}", "loss": float(loss)}
        row |= {"scale": float(norm2.mean().sqrt()), "loss less scale": float(loss) + volume * logs}
        table.append(row | {"L0": h.l0(E), "dead": h.dead(E), "probe, %": probe})
    return pd.DataFrame(table)


def beside_published_dynamics(table):
    """Means over the runs of each optimiser and rate, beside the paper's."""
    shown = summary(table, "optimiser, rate", list(table.columns[1:]))
    return shown.sort_index(ascending=False).join(PUBLISHED_DYNAMICS).fillna("–")


def floor(x, K, kappa, batch_size=128):
    """A bound below the published objective with the prior, at lambda 1, on minibatches of x.

    -B log K + c K (1 - log(l / kappa)), with c = B / 128 and l the largest variance, in any
    direction, of a minibatch; the largest of a hundred.
    """
    batches = torch.stack(x[: 100 * batch_size].split(batch_size)[: len(x) // batch_size])
    centred = batches - batches.mean(1, keepdim=True)
    widest = torch.linalg.eigvalsh(centred @ centred.mT)[:, -1].max() / (batch_size - 1)
    volume = batch_size / 128 * K * (1 - float(torch.log(widest / kappa)))
    return -batch_size * np.log(K) + volume
