"""Notebook 2's bookkeeping: the runs of A to D, and what is seen of each unit in training."""

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab.notebook import summary
from lab.training import train

# The paper's means over three seeds [P, section 5.2], and over three more [P, section 5.5].
PUBLISHED = pd.DataFrame(
    {"redundancy": [np.nan, 1875, 29, 28], "entropy": [4.16, 3.77, 3.85, 1.99]}, index=list("ABCD")
)
PUBLISHED_DYNAMICS = pd.DataFrame(
    {"loss, paper": [-676, -795, -967, -999], "probe, paper": [92.6, 93.6, 93.5, 93.5]},
    index=["SGD, 0.001", "SGD, 0.01", "SGD, 0.1", "Adam, 0.001"],
)
ROWS = 5_120  # of the training inputs: on these the units are looked at


def check(p):
    """ValueError for parameters of the notebook, a dict, that would fail after a long run."""
    sizes, epochs = zip((p["N_COMPONENTS"], p["EPOCHS"]), *p["SMALLER"])
    needs = {
        "SEEDS is empty: name at least one seed": p["SEEDS"],
        "RATES must hold RATE": p["RATE"] in p["RATES"],
        "N_COMPONENTS and the sizes in SMALLER must be at least 2": min(sizes) >= 2,
        "EPOCHS, PRIOR_EPOCHS and the epochs in SMALLER must be at least 5": (
            min(*epochs, p["PRIOR_EPOCHS"]) >= 5
        ),
        "SETTLED must hold epochs for A, B and D": set(p["SETTLED"]) == set("ABD"),
        "the epochs in SETTLED and KILL must be at least 1": (
            min(*p["SETTLED"].values(), *p["KILL"]) >= 1
        ),
        "N_TRAIN must be at least ten minibatches of BATCH_SIZE, which is at least 2": (
            2 <= p["BATCH_SIZE"] <= p["N_TRAIN"] / 10
        ),
    }
    for need, met in needs.items():
        if not met:
            raise ValueError(need)


# --- A to D -------------------------------------------------------------------------------


def ablate(configs, stack, x, shown, *, K, **options):
    """Train a stack of (name, seed), with the factors of the terms that configs has for the name.

    shown: inputs on which L0 and redundancy are looked at. Returns {(name, seed): (model, what was
    seen of it)}.
    """
    models = [h.Encoder(x.shape[1], K, seed=seed).to(x.device) for _, seed in stack]
    factors = zip(*(configs[name] for name, _ in stack))
    terms = dict(zip(("lse", "variance", "decorrelation"), factors))

    @torch.no_grad()
    def look(model):
        E = model.encode(shown)
        return {"L0": h.l0(E), "redundancy": h.redundancy(E)}

    options |= {"arguments": terms, "seed": [seed for _, seed in stack], "monitor": look}
    seen = train(models, h.published_loss, x, **options)
    return {
        run: (model, {name: seen[name][:, i] for name in ("loss", "L0", "redundancy")})
        for i, (run, model) in enumerate(zip(stack, models))
    }


def ablation_table(energies):
    """What the paper measures on test energies {(config, seed): (N, K)}, and L0 and usage."""
    return pd.DataFrame(
        {
            "config": config,
            "seed": seed,
            "low variance": h.low_variance(E),
            "redundancy": h.redundancy(E),
            "entropy": h.responsibility_entropy(E),
            "L0": h.l0(E),
            "largest usage": float(h.usage(E).max()),
        }
        for (config, seed), E in energies.items()
    )


def beside_published(table):
    """Means over seeds of the ablation table, beside the paper's."""
    shown = summary(table, "config", list(table.columns[2:]))
    for name in PUBLISHED:
        words = PUBLISHED[name].map("{:g}".format).replace("nan", "–")
        shown.insert(shown.columns.get_loc(name) + 1, f"{name}, paper", words)
    return shown.fillna("–")


# --- The law ------------------------------------------------------------------------------


def watch(models, loss, x, *, epochs, lr, batch_size=128, **options):
    """Train models with `lab.training.train`, and look at every unit before and after each epoch.

    Returns a dict for each model, of T epochs and K units: "loss" (T,), the mean loss of a
    minibatch in each epoch; then, from the start on, "norm2" (T + 1, K), |theta_j|^2 of
    theta_j = (W_j, b_j); "S" (T + 1, K), S_j = sum_i r_ij E_ij, summed over a minibatch; "living"
    (T + 1, K), whether it is active on any of the first ROWS rows of x; "L0" (T + 1,); "tau"
    (T + 1,), lr times the number of steps; "lr", "K", and "model", the model itself.
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
        runs.append(run | known)
    return runs


def living(run):
    """(K,): the units that live at the end. One that is dead on all inputs never comes back."""
    return run["living"][-1]


def growth(run, since=1, lam=1.0):
    """How much |theta_j|^2 grows per unit of tau, from epoch `since` to the end, of each unit.

    -> (as measured (K,), as predicted for a living one: 4 lam - 2 S_j (K,)), means over time.
    """
    rise = (run["norm2"][-1] - run["norm2"][since]) / (run["tau"][-1] - run["tau"][since])
    return rise, 4 * lam - (run["S"][since:-1] + run["S"][since + 1 :]).mean(0)


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
    t0 = before or run["norm2"][0].mean() / (4 * run["tau"][1])
    return np.arange(1, len(run["loss"]) + 1) - 0.5 + t0


def slope(run, before=0):
    """Of the loss in the logarithm of the clock: over the second half, or after a start."""
    half = 0 if before else len(run["loss"]) // 2
    return np.polyfit(np.log(clock(run, before)[half:]), run["loss"][half:], 1)[0]


def slope_error(run):
    """The slope over minus the number of living units, minus 1."""
    return slope(run) / -max(1, living(run).sum()) - 1


def scale_share(run):
    """What the scale alone makes of the slope, -sum log |theta_j|^2 in place of the loss, over
    minus the number of living units."""
    alive, half = living(run), len(run["loss"]) // 2
    scale = -np.log((run["norm2"][:-1, alive] + run["norm2"][1:, alive]) / 2).sum(1)
    return np.polyfit(np.log(clock(run)[half:]), scale[half:], 1)[0] / -max(1, alive.sum())


def converged(losses):
    """The paper's test: index of the first of five changes in a row below 1, or None."""
    small = np.abs(np.diff(losses)) < 1
    return next((i + 1 for i in range(len(small) - 4) if small[i : i + 5].all()), None)


def smoothed(losses, width=5):
    """The same of losses averaged over five epochs, counted from the middle one."""
    found = converged(np.convolve(losses, np.ones(width) / width, "valid"))
    return None if found is None else found + width // 2


def by_place(runs, measure):
    """{"K 64, 0.01": [measure(run) of each seed]}, by size and rate."""
    places = {}
    for run in sorted(runs, key=lambda run: (run["K"], run["lr"])):
        places.setdefault(f"K {run['K']}, {run['lr']:g}", []).append(measure(run))
    return places


def law_table(runs):
    """What the law says and what is measured: a row a size and rate, a value for each seed."""
    columns = {
        "living": lambda run: f"{living(run).sum()}",
        "growth, over 4 − 2S": lambda run: f"{1 + growth_error(run):.3f}",
        "slope, over −living": lambda run: f"{1 + slope_error(run):.2f}",
        "test met at epoch (smoothed)": lambda run: (
            f"{converged(run['loss']) or '–'} ({smoothed(run['loss']) or '–'})"
        ),
    }
    measured = {name: by_place(runs, f) for name, f in columns.items()}
    frame = pd.DataFrame(
        {name: {k: ", ".join(v) for k, v in m.items()} for name, m in measured.items()}
    )
    return frame.rename_axis("units, rate")


# --- The optimiser, and the prior -----------------------------------------------------------


@torch.no_grad()
def dynamics_table(rows, x_test):
    """rows: (optimiser, rate, loss, model, probe), one a run -> a DataFrame with a row for each."""
    table = []
    for optimiser, lr, loss, model, probe in rows:
        E = model.encode(x_test)
        norm2 = (model.W.square().sum(1) + model.b.square())[(E > 0).any(0)].double()
        table.append(
            {
                "optimiser, rate": f"{optimiser}, {lr:g}",
                "loss": float(loss),
                "scale": float(norm2.mean().sqrt()),
                "loss at scale 1": float(loss) + float(norm2.log().sum()),
                "L0": h.l0(E),
                "dead": h.dead(E),
                "probe, %": probe,
            }
        )
    return pd.DataFrame(table)


def beside_published_dynamics(table):
    """Means over the runs of each optimiser and rate, beside the paper's."""
    shown = summary(table, "optimiser, rate", list(table.columns[1:]))
    return shown.sort_index(ascending=False).join(PUBLISHED_DYNAMICS)


def code_record(models, probes, x, x_test):
    """For notebook 3, a list of one value a model each: probe, L0, and mean squared errors per
    pixel of what is made of the test code: by the paper's script, by W^T with one gain and an
    offset, and by a solved decoder."""

    def error(model, decoder):
        x_hat = h.with_decoder(model, x, decoder)(x_test).detach()
        return float((x_hat - x_test).double().square().mean())

    return {
        "probe": probes,
        "l0": [h.l0(model(x_test)) for model in models],
        "norm_matched_error": [h.norm_matched_error(model, x_test) for model in models],
        "transpose_error": [error(model, h.transpose_decoder) for model in models],
        "solved_error": [error(model, h.fit_decoder) for model in models],
    }


def floor(x, K, kappa, batch_size=128):
    """A bound below the published objective with the prior, at lambda 1, on minibatches of x.

    -B log K + K (1 - log(l / kappa)), with l the largest variance, in any direction, of a
    minibatch; the largest of a hundred.
    """
    batches = torch.stack(x[: 100 * batch_size].split(batch_size)[: len(x) // batch_size])
    centred = batches - batches.mean(1, keepdim=True)
    widest = torch.linalg.eigvalsh(centred @ centred.mT)[:, -1].max() / (batch_size - 1)
    return -batch_size * np.log(K) + K * (1 - float(torch.log(widest / kappa)))
