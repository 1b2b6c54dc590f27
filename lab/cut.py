"""Notebook 2's runs: A to D; then the cut, which takes the softmax's competition out, and controls.

A run of the cut is a tuple (kind, lam, weight, seed), with weight that of decorrelation and kind
"own"    each input has its own denominator, as published
"cut"    the batch's mean in place of it (`helpers.uncoupled_loss`)
"start"  as own, with initial weights that are changed by some 1e-6
"order"  as own, with another order of the data
"none"   no log-sum-exp at all
"""

from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment

import helpers as h
from lab import units
from lab.notebook import number, summary
from lab.training import train

# The paper's means over three seeds [P, section 4.2], and the L0 of its benchmark [P, 4.3]
PUBLISHED = pd.DataFrame(
    [[64, None, 4.16, None], [0, 1875, 3.77, None], [0, 29, 3.85, 17.2], [0, 28, 1.99, None]],
    index=list("ABCD"),
    columns=["low variance", "redundancy", "entropy", "L0"],
)
# Of energies (N, K): what the paper measures, and L0 and usage
MEASURED = {"dead": h.dead, "low variance": h.low_variance, "redundancy": h.redundancy}
MEASURED |= {"entropy": h.responsibility_entropy, "L0": h.l0}
MEASURED["largest usage"] = lambda E: float(h.usage(E).max())
MEASURED["effective units"] = lambda E: float(torch.special.entr(h.usage(E)).sum().exp())

# --- A to D -------------------------------------------------------------------------------


TERMS = ("lse", "cut", "variance", "decorrelation")


def two_prices(model, x, lse, cut, **terms):
    """The published loss, with the log-sum-exp and its cut, each by its factor: -> ()."""

    def price(E):
        return lse * h.lse_loss(E) + cut * h.uncoupled_loss(E)

    return h.published_loss(model, x, sparsity=price, **terms)


def ablate(configs, stack, x, shown, *, K, **options):
    """Train a stack of (name, seed), with the factors of TERMS that configs has for the name.

    shown: inputs on which L0 and redundancy are looked at. Returns {(name, seed): (model, what was
    seen of it)}; "norm2" is |theta|^2.
    """
    models = [h.Encoder(x.shape[1], K, seed=seed).to(x.device) for _, seed in stack]
    terms = dict(zip(TERMS, zip(*(configs[name] for name, _ in stack))))

    @torch.no_grad()
    def look(model):
        E, norm2 = model.encode(shown), sum(p.square().sum() for p in model.parameters())
        return {"L0": h.l0(E), "redundancy": h.redundancy(E), "norm2": norm2}

    options |= {"arguments": terms, "seed": [seed for _, seed in stack], "monitor": look}
    seen = train(models, two_prices, x, **options)
    names = ("loss", "L0", "redundancy", "norm2")
    of = ({name: seen[name][:, i] for name in names} for i in range(len(models)))
    return dict(zip(stack, zip(models, of)))


def ablation_table(energies):
    """`MEASURED` of test energies {(config, seed): (N, K)}."""
    return pd.DataFrame(
        {"config": config, "seed": seed} | {name: of(E) for name, of in MEASURED.items()}
        for (config, seed), E in energies.items()
    )


def beside_published(table):
    """Means over seeds of the ablation table, beside the paper's."""
    shown = summary(table, "config", list(table.columns[2:]))
    for name in PUBLISHED:
        words = PUBLISHED[name].map("{:g}".format).replace("nan", "–")
        shown.insert(shown.columns.get_loc(name) + 1, f"{name}, paper", words)
    return shown.fillna("–")


# --- The cut ---------------------------------------------------------------------------------


def jobs(x, K, seeds, *, prices, weights, higher, denser, **options):
    """For `side_by_side`: all runs, in stacks on the same minibatches. Each gives {run: model}.

    prices: lambdas at which the full objective is cut; weights: those of decorrelation at
    lambda 1; higher: a lambda for B; denser: one for the full objective, with the first seed.
    """
    cuts = sorted({(1.0, w) for w in (0.0, 1.0, *weights)} | {(p, 1.0) for p in prices})
    full = [c for c in cuts if c[1] == 1]
    stacks = [[("order", *c, seed) for seed in seeds for c in [(1.0, 0.0), *full]]]
    for seed in seeds:
        own = {*cuts, (higher, 0.0), *[(denser, 1.0)] * (seed == seeds[0])}
        kinds = {"own": sorted(own), "cut": cuts, "start": full, "none": full}
        runs = [(kind, *c, seed) for kind, some in kinds.items() for c in some]
        stacks += [runs[::2], runs[1::2]]
    return [partial(train_stack, stack, x, K, **options) for stack in stacks[::-1]]


def train_stack(stack, x, K, **options):
    """Train runs together: {run: model}."""
    kinds, prices, weights, seeds = (list(v) for v in zip(*stack))
    models = [h.Encoder(x.shape[1], K, seed=seed).to(x.device) for seed in seeds]
    for model, kind in zip(models, kinds):
        if kind == "start":
            noise = torch.randn(model.W.shape, generator=torch.Generator().manual_seed(0))
            model.W.data += 1e-6 * noise.to(model.W)
    terms = {"lam": prices, "decorrelation": weights}
    terms |= {"lse": [float(k not in ("cut", "none")) for k in kinds]}
    terms |= {"cut": [float(k == "cut") for k in kinds]}
    order = [seed + 1000 * (kind == "order") for kind, seed in zip(kinds, seeds)]
    train(models, two_prices, x, arguments=terms, seed=order, **options)
    return dict(zip(stack, models))


@torch.no_grad()
def measures(E):
    """Of energies (N, K): "L0", "redundancy", "entropy"; "on active, %", active units' share of all
    responsibility; "spread of Z, %", the deviation of the denominators over their mean."""
    r, Z = h.responsibilities(E.double()), torch.exp(-E.double()).sum(1)
    shares = {"on active, %": 100 * float((r * (E > 0)).sum(1).mean())}
    shares["spread of Z, %"] = 100 * float(Z.std() / Z.mean())
    return {name: MEASURED[name](E) for name in ("L0", "redundancy", "entropy")} | shares


@torch.no_grad()
def table(models, x):
    """A row for each of {run: model}: its `measures` on x, and the "agreement" of its units with
    those of the same run as it was; of such a run, with those of the next seed."""
    codes, rows = {run: model.encode(x) for run, model in models.items()}, []
    seeds = list(dict.fromkeys(run[-1] for run in models))
    for (kind, lam, weight, seed), E in codes.items():
        row = {"kind": kind, "lam": lam, "weight": weight, "seed": seed} | measures(E)
        other = seeds[(seeds.index(seed) + 1) % len(seeds)] if kind == "own" else seed
        there = codes.get(("own", lam, weight, other))
        row["agreement"] = np.nan if there is None or there is E else units.agreement(there, E)
        rows.append(row)
    return pd.DataFrame(rows)


WORDS = {"own": "own", "cut": "batch's mean"}


def curves(table):
    """{"own", "batch's mean": {weight of decorrelation: redundancy, a list of one a seed}}."""
    of = table[table.lam == 1].groupby(["kind", "weight"]).redundancy.apply(list)
    return {word: {f"{w:g}": v for w, v in of[kind].items()} for kind, word in WORDS.items()}


def say(table):
    """Print the curves, means over seeds, and what comes of the full objective in every run."""
    for word, curve in curves(table).items():
        values = ", ".join(f"{weight}: {np.mean(v):,.1f}" for weight, v in curve.items())
        print(f"redundancy, {word}: {values}")
    words = {"own": "another seed", "cut": "batch's mean", "none": "no log-sum-exp"}
    words |= {"order": "another order", "start": "start changed by 1e-6"}
    for (lam, kind), rows in table[table.weight == 1].groupby(["lam", "kind"]):
        some = f"λ {lam:g}, {words[kind]}: L0 {rows.L0.mean():.1f}, on active"
        found = number(rows.agreement.dropna().tolist(), 3)
        print(f"{some} {rows['on active, %'].mean():.1f} %, agreement {found}")


def ratios(table, kind, higher=None):
    """Redundancy of B of one kind over that with its own denominators, a list of one a seed.

    higher: at equal L0, where B with its own denominators is interpolated between lambda 1 and this
    one, logarithms in the logarithm of L0; NaN outside.
    """
    of = table[table.weight == 0].set_index(["kind", "lam", "seed"]).sort_index()
    found = []
    for seed, row in of.loc[kind, 1.0].iterrows():
        own = of.redundancy["own", 1.0, seed]
        if higher is not None:
            ends = of.loc[[("own", lam, seed) for lam in (1.0, higher)]].sort_values("L0")
            l0s, logs = np.log(ends.L0), np.log(ends.redundancy)
            own = np.exp(np.interp(np.log(row.L0), l0s, logs, left=np.nan, right=np.nan))
        found.append(row.redundancy / own)
    return found


def comparison(long, probes, table, higher):
    """Means over seeds, beside one another: the full objective after a long run, of energies
    {(kind, seed): (N, K)} and their probes, and B as in the table of runs."""
    rows = [
        {"run": f"C, {WORDS[kind]}", **measures(E), "probe, %": probes[kind, seed]}
        | {"agreement": units.agreement(long["own", seed], E) if kind == "cut" else np.nan}
        for (kind, seed), E in long.items()
    ]
    for kind, lam in (("own", 1.0), ("cut", 1.0), ("own", higher)):
        name = f"B, {WORDS[kind]}" + f", λ {lam:g}" * (lam != 1)
        some = table[(table.kind == kind) & (table.lam == lam) & (table.weight == 0)]
        rows += [{"run": name} | row for row in some[list(rows[0])[1:6]].to_dict("records")]
    frame = pd.DataFrame(rows)
    return summary(frame, "run", list(frame.columns[1:])).fillna("–"), frame


# --- For notebook 3 ---------------------------------------------------------------------------


def code_record(models, probes, x, x_test):
    """For notebook 3, a list of one value a model each: probe, L0, and mean squared errors per
    pixel of what is made of the test code: by the paper's script, by W^T with one gain and an
    offset, and by a solved decoder."""
    record = {"probe": probes, "l0": [h.l0(model(x_test)) for model in models]}
    record["norm_matched_error"] = [h.norm_matched_error(model, x_test) for model in models]
    for name, decoder in (("transpose", h.transpose_decoder), ("solved", h.fit_decoder)):
        made = (h.with_decoder(model, x, decoder)(x_test).detach() for model in models)
        errors = [float((x_hat - x_test).double().square().mean()) for x_hat in made]
        record[f"{name}_error"] = errors
    return record


@torch.no_grad()
def matched_rows(one, others, x, n=8):
    """n rows of W of a model, its first, and beside them the rows of the units of each other model
    that match them, one to one over all units, by the correlation of their codes on x."""
    E, K, found = one.encode(x).double(), len(one.W), [one.W[:n]]
    for other in others:
        block = h.correlation(torch.cat([E, other.encode(x).double()], 1))[:K, K:]
        found.append(other.W[linear_sum_assignment(block.cpu(), maximize=True)[1][:n]])
    return [rows.double().cpu().numpy().round(3).tolist() for rows in found]
