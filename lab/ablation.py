"""Notebook 2 under Adam: configurations A to D, and short runs in which competition is changed."""

from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import measures
from lab.train import train, train_side_by_side

# The paper's means over three seeds [P, section 4.2], and the L0 of its benchmark [P, 4.3]
PAPER = pd.DataFrame(
    {
        "dead": [64, 0, 0, 0],
        "redundancy": [None, 1875, 29, 28],
        "entropy": [4.16, 3.77, 3.85, 1.99],
        "L0": [None, None, 17.2, None],
    },
    index=list("ABCD"),
)
WITHOUT = "C without competition"
FACTORS = ("lse", "variance", "decorrelation")  # of a loss, in the order of a table's columns

# --- Configurations: rows of a table of factors -------------------------------------------------


def train_configurations(configurations, loss, x, n_units, seeds, *, epochs):
    """Train A to D and, beside them, C without competition, for section 4 of the notebook.

    configurations: a row for each, with the FACTORS of loss(model, x, lse, variance,
    decorrelation). A is trained until all units are dead. Returns {(name, seed): (model, losses
    (T,))}, losses of a minibatch.
    """

    def pooled(model, x, **factors):
        return h.published_loss(model(x), penalty=h.pooled_lse_loss)

    options = {"x": x, "n_units": n_units, "epochs": epochs}
    runs = {
        "B, C": _stack(configurations.loc[["B", "C"]], loss, seeds=seeds, **options),
        "D": _stack(configurations.loc[["D"]], loss, seeds=seeds, **options),
        WITHOUT: _stack(
            configurations.loc[["C"]].set_axis([WITHOUT]), pooled, seeds=seeds, **options
        ),
    }
    histories = train_side_by_side([stack for _, stack in runs.values()], "A to D")
    found = {}
    for (keys, stack), history in zip(runs.values(), histories):
        for key, model, losses in zip(keys, stack["models"], history["loss"].T):
            found[key] = model, h.BATCH_SIZE * losses

    keys, stack = _stack(configurations.loc[["A"]], loss, seeds=seeds, **options)
    losses = []
    while len(losses) < epochs and any(model(x).any() for model in stack["models"]):
        order = [seed + 1000 * len(losses) for _, seed in keys]  # another one in each epoch
        losses.append(h.BATCH_SIZE * train(**stack | {"epochs": 1, "seed": order})["loss"][0])
    for key, model, of_model in zip(keys, stack["models"], np.array(losses).T):
        found[key] = model, of_model
    return found


def train_variants(variants, loss, x, n_units, seeds, *, epochs):
    """Train rows of FACTORS and a size of minibatch with every seed: {(name, seed): model}."""
    options = {"x": x, "n_units": n_units, "epochs": epochs}
    stacks = [
        _stack(rows.iloc[:, :3], loss, seeds=some, batch_size=int(size), **options)
        for size, rows in variants.groupby(variants.columns[3])
        for some in ([seeds] if len(rows) == 1 else [[seed] for seed in seeds])
    ]
    train_side_by_side([stack for _, stack in stacks], "variants")
    return {key: m for keys, stack in stacks for key, m in zip(keys, stack["models"])}


def _stack(table, loss, *, x, n_units, seeds, epochs, batch_size=h.BATCH_SIZE):
    """Keys (name, seed), and arguments of `train` for a model of each row and seed."""
    keys = [(name, seed) for seed in seeds for name in table.index]
    rows = table.set_axis(FACTORS, axis=1).astype(float)
    return keys, {
        "models": [h.Encoder(x.shape[1], n_units, seed=seed) for _, seed in keys],
        "loss": loss,
        "x": x,
        "epochs": epochs,
        "batch_size": batch_size,
        "arguments": {factor: [rows.loc[name, factor] for name, _ in keys] for factor in FACTORS},
        "seed": [seed for _, seed in keys],
    }


# --- Competition, and what is put in its place --------------------------------------------------


def shuffled_competition(E):
    """Competition after the energies of unit j are moved by j rows: it cannot see which units are
    active together. (N, K) -> ()."""
    N, K = E.shape
    rows = (torch.arange(N)[:, None] + torch.arange(K)) % N
    moved = E.gather(0, rows.to(E.device))
    return h.lse_loss(moved) - h.pooled_lse_loss(moved)


def covariances_only(E):
    """N / (2 Zbar^2) sum_{j != k} Cov(exp(-E_j), exp(-E_k)): (N, K) -> ()."""
    e = torch.exp(-E)
    covariances = e.sum(1).var(0, correction=0) - e.var(0, correction=0).sum()
    return len(E) / 2 * covariances / e.sum(1).mean().square()


def variances_only(E):
    """N / (2 Zbar^2) sum_j Var(exp(-E_j)): (N, K) -> ()."""
    e = torch.exp(-E)
    return len(E) / 2 * e.var(0, correction=0).sum() / e.sum(1).mean().square()


CONTROLS = {
    "shuffled": shuffled_competition,
    "variances only": variances_only,
    "covariances only": covariances_only,
}


def controlled_loss(model, x, weight, control):
    """B without competition, plus `weight` times a control in its place: -> ()."""
    E = model(x)
    return h.pooled_lse_loss(E) + weight * control(E) + h.variance_loss(E)


# --- Short runs ---------------------------------------------------------------------------------


class Run(NamedTuple):
    """A short run: C, the full model, unless something is changed."""

    seed: int
    weight: float = 1.0  # of competition; 0: the pooled log-sum-exp alone
    decorrelation: float = 1.0  # 0: configuration B
    lam: float = 1.0
    change: str = ""  # "start", "order", or one of CONTROLS


FIELDS = ("weight", "decorrelation", "lam")  # of a run, which its loss takes


def short_runs(seeds, *, decorrelations, doses, strong_doses, lams):
    """All short runs of the notebook, a list without repetitions.

    decorrelations: with competition and without; doses: weights of competition in B, and in C at
    lambda 1 and .35; strong_doses: in C at lambda 1 alone; lams: {"B": {lambda: number of seeds},
    "C": ...}, with competition and without.
    """
    found = []
    for seed in seeds:
        C, B = partial(Run, seed), partial(Run, seed, decorrelation=0.0)
        found += [C(c, w) for w in decorrelations for c in (1.0, 0.0)]
        found += [of(dose) for dose in doses for of in (B, C, partial(C, lam=0.35))]
        found += [C(dose) for dose in strong_doses]
        for lam in (1.0, 0.35):
            found += [C(c, lam=lam) for c in (1.0, 0.0)]
            found += [C(lam=lam, change=change) for change in ("start", "order")]
        found += [B(10.0, change=control) for control in CONTROLS]
        for name, w in (("B", 0.0), ("C", 1.0)):
            some = [lam for lam, n_seeds in lams[name].items() if seed in seeds[:n_seeds]]
            found += [Run(seed, c, w, lam) for lam in some for c in (1.0, 0.0)]
    return list(dict.fromkeys(found))


def train_runs(runs, loss, x, n_units, *, names=FIELDS, most=9, **options):
    """Train short runs of loss(model, x, **fields) in stacks side by side: {run: model}.

    names: the fields of a run that the loss takes; options: of `lab.train.train`, epochs at least.
    """

    def kind(run):
        return run.change if run.change in ("order", *CONTROLS) else ""

    stacks = []
    for change, group in groupby(sorted(runs, key=kind), kind):
        group = sorted(group, key=lambda run: run.seed)
        parts = [group]
        if len(group) > most:
            of_seeds = [list(some) for _, some in groupby(group, lambda run: run.seed)]
            parts = [part for some in of_seeds for part in _parts(some, most)]
        for part in parts:
            stack = {"models": [_start(run, x.shape[1], n_units) for run in part], "x": x}
            fields, stack["loss"] = names, loss
            if change in CONTROLS:
                fields = ("weight",)
                stack["loss"] = partial(controlled_loss, control=CONTROLS[change])
            stack["arguments"] = {name: [getattr(run, name) for run in part] for name in fields}
            # The order of the digits goes with the seed; "order" takes one that no seed has.
            stack["seed"] = [run.seed + 1000 * (change == "order") for run in part]
            stacks.append((part, stack | options))
    train_side_by_side([stack for _, stack in stacks], "short runs")
    return {run: model for part, stack in stacks for run, model in zip(part, stack["models"])}


def _parts(runs, most):
    """Lists of equal lengths, to one, and of at most `most`."""
    n = -(-len(runs) // most)
    return [runs[i::n] for i in range(n)]


def _start(run, n_inputs, n_units):
    """An untrained encoder; "start" changes its weights by a millionth."""
    model = h.Encoder(n_inputs, n_units, seed=run.seed)
    if run.change == "start":
        noise = torch.randn(model.W.shape, generator=torch.Generator().manual_seed(0))
        model.W.data += 1e-6 * noise
    return model


@torch.no_grad()
def measure(models, x):
    """A DataFrame with a row for each of {run: model}: the run, its measures on x, and "agreement"
    and units "replaced", by the run of the same seed that has competition and no change, where
    there is one."""
    energies, rows = {run: model(x) for run, model in models.items()}, []
    for run, E in energies.items():
        row = run._asdict() | measures.of_energies(E) | measures.of_competition(E)
        other = energies.get(run._replace(weight=1.0, change=""))
        known = other is not None and other is not E
        row["agreement"] = measures.agreement(other, E) if known else np.nan
        rows.append(row | {"replaced": measures.replaced(other, E) if known else np.nan})
    return pd.DataFrame(rows)
