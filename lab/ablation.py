"""Notebook 2 under Adam: configurations A to D, and competition removed, increased and spoiled."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import compare
from lab.train import side_by_side, train

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

# --- The losses -------------------------------------------------------------------------------


def ablation_loss(model, x, lse=1.0, pooled=0.0, variance=1.0, decorrelation=1.0, lam=1.0):
    """The paper's loss with a factor for each of its terms, and the pooled log-sum-exp: -> ().

    Competition is the log-sum-exp minus the pooled one, so competition times c beside the pooled
    log-sum-exp is lse = c and pooled = 1 - c.
    """
    E = model(x)
    infomax = variance * h.variance_loss(E) + decorrelation * h.decorrelation_loss(E)
    penalty = lse * h.lse_loss(E) + pooled * h.pooled_lse_loss(E)
    return penalty + lam * len(E) / h.BATCH_SIZE * infomax


CONFIGURATIONS = {
    "A": {"variance": 0.0, "decorrelation": 0.0},
    "B": {"decorrelation": 0.0},
    "C": {},
    "C without competition": {"lse": 0.0, "pooled": 1.0},
    "D": {"lse": 0.0},
}


def competition(E):
    """The competition term, sum_i log(Zbar / Z_i) with Z_i = sum_j exp(-E_ij): (N, K) -> ()."""
    return h.lse_loss(E) - h.pooled_lse_loss(E)


def shuffled_competition(E):
    """Competition after the energies of unit j are moved by j rows: it cannot see which units are
    active together. (N, K) -> ()."""
    N, K = E.shape
    rows = (torch.arange(N)[:, None] + torch.arange(K)) % N
    return competition(E.gather(0, rows.to(E.device)))


def _second_order(E, variance):
    """N / (2 Zbar^2) times a part of Var(Z)."""
    Zbar = torch.exp(-E).sum(1).mean()
    return len(E) / 2 * variance / Zbar.square()


def variances_only(E):
    """N / (2 Zbar^2) sum_j Var(exp(-E_j)): (N, K) -> ()."""
    return _second_order(E, torch.exp(-E).var(0, correction=0).sum())


def covariances_only(E):
    """N / (2 Zbar^2) sum_{j != k} Cov(exp(-E_j), exp(-E_k)): (N, K) -> ()."""
    e = torch.exp(-E)
    covariances = e.sum(1).var(0, correction=0) - e.var(0, correction=0).sum()
    return _second_order(E, covariances)


CONTROLS = {
    "shuffled": shuffled_competition,
    "variances only": variances_only,
    "covariances only": covariances_only,
}


def controlled_loss(model, x, weight, control):
    """B without competition, plus `weight` times a control in its place: -> ()."""
    E = model(x)
    infomax = h.variance_loss(E) * len(E) / h.BATCH_SIZE
    return h.pooled_lse_loss(E) + weight * control(E) + infomax


# --- Long runs: A to D ------------------------------------------------------------------------


def configurations(names, x, n_units, seeds, *, epochs, lr=1e-3):
    """Train configurations with every seed, in one stack: {(name, seed): (model, losses (T,))}."""
    runs = [(name, seed) for seed in seeds for name in names]
    models = [h.Encoder(x.shape[1], n_units, seed=seed) for _, seed in runs]
    full = {"lse": 1.0, "pooled": 0.0, "variance": 1.0, "decorrelation": 1.0}
    factors = {
        term: [CONFIGURATIONS[name].get(term, factor) for name, _ in runs]
        for term, factor in full.items()
    }
    seen = train(
        models,
        ablation_loss,
        x,
        arguments=factors,
        epochs=epochs,
        lr=lr,
        seed=[seed for _, seed in runs],
        title=", ".join(names),
    )
    losses = h.BATCH_SIZE * seen["loss"]
    return {run: (model, losses[:, i]) for i, (run, model) in enumerate(zip(runs, models))}


def measures(E):
    """What the paper measures, of test energies E (N, K), and L0: a dict."""
    return {
        "dead": h.dead(E),
        "low variance": int((E.double().var(0, correction=0) < 0.01).sum()),  # the paper's dead
        "redundancy": h.redundancy(E),
        "entropy": h.responsibility_entropy(E),
        "L0": h.l0(E),
    }


@torch.no_grad()
def competition_measures(E):
    """Of energies E (N, K): the competition term in nats per input, what it is to second order, and
    Var(Z) with its two parts: a dict."""
    e = torch.exp(-E.double())
    Z = e.sum(1)
    total, variances = float(Z.var(correction=0)), float(e.var(0, correction=0).sum())
    return {
        "competition term": float(competition(E.double())) / len(E),
        "second order": total / (2 * float(Z.mean()) ** 2),
        "Var(Z)": total,
        "variances": variances,
        "covariances": total - variances,
        "spread of active units": float((E > 0).double().sum(1).std()),
    }


# --- Short runs: competition changed ----------------------------------------------------------


class Run(NamedTuple):
    """A short run: the full model (C), unless something is changed."""

    seed: int
    competition: float = 1.0  # its weight; 0: the pooled log-sum-exp alone
    decorrelation: float = 1.0  # 0: configuration B
    lam: float = 1.0
    change: str = ""  # "start", "order" and "no log-sum-exp", or one of CONTROLS


def competition_runs(seeds, *, weights, doses, lams, denser, control_weight):
    """The short runs of section 4, a list of lists, each for one stack.

    weights: of decorrelation, with competition and without; doses: weights of competition in B;
    lams: at which the full model is compared with its controls; denser: a lambda for B;
    control_weight: of the CONTROLS, in B.
    """
    stacks = []
    for seed in seeds:
        run = partial(Run, seed)
        runs = [run(c, w) for w in weights for c in (1.0, 0.0)]
        runs += [run(dose, 0.0) for dose in doses] + [run(1.0, 0.0, denser)]
        for lam in lams:
            full = [run(c, 1.0, lam) for c in (1.0, 0.0)]
            full += [run(1.0, 1.0, lam, "start"), run(0.0, 1.0, lam, "no log-sum-exp")]
            runs += full
        runs = list(dict.fromkeys(runs))
        stacks += [runs[::2], runs[1::2]]
    stacks.append([Run(seed, 1.0, 1.0, lam, "order") for seed in seeds for lam in lams])
    for control in CONTROLS:
        stacks.append([Run(seed, control_weight, 0.0, 1.0, control) for seed in seeds])
    return stacks


def train_runs(runs, x, n_units, *, epochs, lr=1e-3):
    """Train runs in one stack: {run: model}. All are CONTROLS of one kind, or none is."""
    models = [h.Encoder(x.shape[1], n_units, seed=run.seed) for run in runs]
    for run, model in zip(runs, models):
        if run.change == "start":
            noise = torch.randn(model.W.shape, generator=torch.Generator().manual_seed(0))
            model.W.data += 1e-6 * noise
    weights = [run.competition for run in runs]
    if runs[0].change in CONTROLS:
        loss = partial(controlled_loss, control=CONTROLS[runs[0].change])
        arguments = {"weight": weights}
    else:
        none = [run.change == "no log-sum-exp" for run in runs]
        loss = ablation_loss
        arguments = {
            "lse": [0.0 if no else c for no, c in zip(none, weights)],
            "pooled": [0.0 if no else 1 - c for no, c in zip(none, weights)],
            "decorrelation": [run.decorrelation for run in runs],
            "lam": [run.lam for run in runs],
        }
    # The order of the digits goes with the seed; "order" takes one that no seed has.
    order = [run.seed + 1000 * (run.change == "order") for run in runs]
    train(models, loss, x, arguments=arguments, epochs=epochs, lr=lr, seed=order)
    return dict(zip(runs, models))


@torch.no_grad()
def tabulate(models, x):
    """A DataFrame with a row for each of {run: model}: the run, its measures on x, and "agreement".

    Agreement is with the run of the same seed that has competition and no change, where there is
    one; for such a run, with that of the next seed.
    """
    energies = {run: model(x) for run, model in models.items()}
    seeds, rows = list(dict.fromkeys(run.seed for run in models)), []
    for run, E in energies.items():
        row = run._asdict() | measures(E) | competition_measures(E)
        other = run._replace(competition=1.0, change="")
        if other == run:
            other = run._replace(seed=seeds[(seeds.index(run.seed) + 1) % len(seeds)])
        known = other in energies and other != run
        row["agreement"] = compare.agreement(energies[other], E) if known else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def remove_competition(trained, energies, probe):
    """C with and without competition after a long run: a DataFrame of `measures`, "probe, %", and
    "agreement" of the units of each seed; of {(name, seed): (model, losses)} and test energies.

    probe(model) -> accuracy in %.
    """
    runs = [run for run in trained if run[0] in ("C", "C without competition")]
    probes = side_by_side([partial(probe, trained[run][0]) for run in runs], "probes")
    rows = []
    for (name, seed), accuracy in zip(runs, probes):
        E = energies[name, seed]
        row = {"run": name, "seed": seed, "probe, %": accuracy} | measures(E)
        without = name != "C"
        row["agreement"] = compare.agreement(energies["C", seed], E) if without else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def redundancy_ratios(table, denser):
    """Redundancy of B without competition over that with it: {"equal λ": by seed, "equal L0": ...}.

    At equal L0 the redundancy with competition is interpolated between lambda 1 and `denser`, as
    logarithms in log L0; NaN where these do not enclose the L0.
    """
    B = table[(table.decorrelation == 0) & (table.change == "")]
    found = {"equal λ": [], "equal L0": []}
    for _, rows in B.groupby("seed"):
        without = rows[rows.competition == 0].iloc[0]
        having = rows[(rows.competition == 1) & rows.lam.isin([1.0, denser])].sort_values("L0")
        logs = np.log(having[["L0", "redundancy"]].to_numpy()).T
        equal = np.interp(np.log(without.L0), *logs, left=np.nan, right=np.nan)
        found["equal L0"].append(without.redundancy / np.exp(equal))
        found["equal λ"].append(without.redundancy / having.redundancy[having.lam == 1].item())
    return found


def measured_criteria(table, removal, short, ratios):
    """What claims.csv asks of the runs under Adam: {id: values}, see `lab.check.judge`.

    table: of `measures` of A to D; removal: of `remove_competition`; short: of `tabulate`.
    """
    of = {name: table[table.run == name] for name in "ABCD"}
    having, without = (removal[removal.run == n] for n in ("C", "C without competition"))
    change = {
        name: list(np.abs(without[name].to_numpy() / having[name].to_numpy() - 1))
        for name in ("L0", "redundancy", "entropy")
    }
    B = short[(short.decorrelation == 0) & (short.lam == 1)]
    doses = B[B.change == ""].pivot(index="seed", columns="competition", values="redundancy")
    controls = {
        name: B[B.change == name].set_index("seed").redundancy / doses[0.0] - 1
        for name in ("shuffled", "variances only")
    }
    return {
        "entropies": {n: list(of[n].entropy - PAPER.entropy[n]) for n in "ABCD"},
        "redundancies": {n: list(np.log(of[n].redundancy / PAPER.redundancy[n])) for n in "BCD"},
        "not_sparser": list(of["B"].L0.to_numpy() / of["C"].L0.to_numpy() - 1),
        "idle": change | {"agreement": list(1 - without.agreement)},
        "not_idle": ratios,
        "dose": {
            f"{b:g} after {a:g}": list(doses[b] / doses[a])
            for a, b in zip(doses.columns, doses.columns[1:])
        },
        "dose_controls": {name: list(values) for name, values in controls.items()},
    }
