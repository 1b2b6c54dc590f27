"""Notebook 2 under Adam: configurations A to D, and short runs in which competition is changed."""

from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import measures
from lab.train import train, train_stacks

# The paper's means over three seeds [P, section 4.2], and the L0 of its benchmark [P, 4.3]
PAPER = pd.DataFrame(
    {
        "dead": [64, 0, 0, 0],
        "redundancy": [None, 1875, 29, 28],
        "entropy": [4.16, 3.77, 3.85, 1.99],
        "l0": [None, None, 17.2, None],
    },
    index=list("ABCD"),
)
WITHOUT = "C without competition"

# --- Configurations: rows of a table of factors -------------------------------------------------


class Configuration(NamedTuple):
    """A row of a table of factors, with a seed."""

    name: object
    seed: int
    lse: float  # factors of the terms of the loss
    variance: float
    decorrelation: float
    rows: int = h.BATCH_SIZE  # of a minibatch
    change: str = ""  # as of a `Run`


FACTORS = Configuration._fields[2:5]


def configurations(table, seeds):
    """Each row of a table with every seed: the columns are FACTORS, and maybe rows."""
    return [
        Configuration(name, seed, *row)
        for seed in seeds
        for name, row in zip(table.index, table.itertuples(index=False, name=None))
    ]


def train_configurations(table, loss, x, n_units, seeds, *, epochs):
    """Train A to D and, beside them, C without competition, for section 4 of the notebook.

    table: a row of FACTORS for each, of loss(model, x, lse, variance, decorrelation, penalty=...),
    whose penalty is the log-sum-exp or what is put in its place. A is trained until all units are
    dead, anew in each epoch (it takes one or two). Returns {(name, seed): model}, and the same of
    losses (T,) of a minibatch.
    """
    options = {"x": x, "n_units": n_units, "epochs": epochs}
    with_lse, pooled = (
        partial(loss, penalty=penalty) for penalty in (h.lse_loss, h.pooled_lse_loss)
    )
    a, b, c, d = (configurations(table.loc[[name]], seeds) for name in "ABCD")
    # Two stacks of one size, one a core. D has no log-sum-exp: its penalty has a factor of 0.
    without = [run._replace(name=WITHOUT) for run in c]
    stacks = [(b + c, with_lse), (d + without, pooled)]
    stacks = [_stack(runs, own_loss, FACTORS, **options) for runs, own_loss in stacks]
    models, losses = train_stacks(stacks, "A to D")

    _, stack = _stack(a, with_lse, FACTORS, **options)
    of_a = []
    while len(of_a) < epochs and any(model(x).any() for model in stack["models"]):
        order = [seed + 1000 * len(of_a) for seed in seeds]  # another one in each epoch
        of_a.append(train(**stack | {"epochs": 1, "seed": order})["loss"][0])
    models |= zip(a, stack["models"])
    losses |= zip(a, np.array(of_a).T)
    named = {(run.name, run.seed): model for run, model in models.items()}
    return named, {(run.name, run.seed): h.BATCH_SIZE * mean for run, mean in losses.items()}


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
    mean, _, covariances = measures.moments_of_denominators(E)
    return len(E) / 2 * covariances / mean.square()


def variances_only(E):
    """N / (2 Zbar^2) sum_j Var(exp(-E_j)): (N, K) -> ()."""
    mean, variances, _ = measures.moments_of_denominators(E)
    return len(E) / 2 * variances / mean.square()


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
    rows: int = h.BATCH_SIZE  # of a minibatch
    change: str = ""  # "start", "order", or one of CONTROLS


FIELDS = Run._fields[1:4]  # which its loss takes


def short_runs(seeds, *, decorrelations, doses, strong_doses, lams):
    """All short runs of the notebook, a list without repetitions.

    decorrelations: with competition and without; doses: weights of competition in B, and in C at
    lambda 1 and .35; strong_doses: in C alone; lams: {"B": lambdas, "C": lambdas}, with
    competition and without.
    """
    found = []
    for seed in seeds:
        C, B = partial(Run, seed), partial(Run, seed, decorrelation=0.0)
        found += [C(c, w) for w in decorrelations for c in (1.0, 0.0)]
        found += [run(dose) for dose in doses for run in (B, C, partial(C, lam=0.35))]
        found += [C(dose, lam=lam) for dose in strong_doses for lam in (1.0, 0.35)]
        for lam in (1.0, 0.35):
            found += [C(c, lam=lam) for c in (1.0, 0.0)]
            found += [C(lam=lam, change=change) for change in ("start", "order")]
        found += [B(10.0, change=control) for control in CONTROLS]
        found += [B(c, lam=lam) for lam in lams["B"] for c in (1.0, 0.0)]
        found += [C(c, lam=lam) for lam in lams["C"] for c in (1.0, 0.0)]
    return list(dict.fromkeys(found))


def train_runs(runs, loss, x, n_units, *, names=FIELDS, most=18, **options):
    """Train runs of loss(model, x, **fields) in stacks side by side: {run: model}.

    runs: each a `Run` or `Configuration`; names: the fields of a run that the loss takes; options:
    of `lab.train.train`, epochs at least.
    """

    def kind(run):  # runs of one kind may be a stack
        return run.change if run.change in ("order", *CONTROLS) else "", run.rows

    stacks = []
    for (change, _), group in groupby(sorted(runs, key=kind), kind):
        parts, own_loss, own_names = [sorted(group, key=lambda run: run.seed)], loss, names
        if change in CONTROLS:
            own_loss, own_names = partial(controlled_loss, control=CONTROLS[change]), ("weight",)
        if len(parts[0]) > most:
            of_seeds = [list(own) for _, own in groupby(parts[0], lambda run: run.seed)]
            parts = [part for own in of_seeds for part in _parts(own, most)]
        stacks += [_stack(part, own_loss, own_names, x, n_units, **options) for part in parts]
    return train_stacks(stacks, "runs")[0]


def _parts(runs, most):
    """Lists of equal lengths, to one, and of at most `most`."""
    n = -(-len(runs) // most)
    return [runs[i::n] for i in range(n)]


def _stack(runs, loss, names, x, n_units, **options):
    """Runs, and arguments of `lab.train.train` for a model of each."""
    return runs, options | {
        "models": [_start(run, x.shape[1], n_units) for run in runs],
        "loss": loss,
        "x": x,
        "batch_size": runs[0].rows,
        "arguments": {name: [float(getattr(run, name)) for run in runs] for name in names},
        # The order of the digits goes with the seed; "order" takes one that no seed has.
        "seed": [run.seed + 1000 * (run.change == "order") for run in runs],
    }


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
        row["replaced"] = measures.n_replaced(other, E) if known else np.nan
        rows.append(row)
    return pd.DataFrame(rows)
