"""Notebook 3's methods at sites of a language model: `python -m lab.language`; `--help` says more.

Site (a) of SmolLM2-135M are the gated activations of an MLP, more than units; site (b) is its
residual stream, in fewer principal components than units. It writes language.json.
"""

import argparse
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import data, notebook, runs, tables, units
from lab.activations import language_model, load_activations, loss_recovered
from lab.claims import Claims
from lab.methods import methods
from lab.training import side_by_side

L0S = (10, 16)  # where methods are compared
CUT, KMEANS = "bounded, batch's mean", "k-means templates"
FITTED = 40_000  # rows to which decoders are fitted
FLOORS = {"transpose": 0.005, "solved": 0.005, "recovered": 1.0}  # of columns, for `make check`


class Site(NamedTuple):
    """Whose rows are learned from, by how many units, and how."""

    module: str
    side: str
    units: int
    components: int  # how many leading principal components; 0: the rows as they are
    epochs: int
    batch_size: int
    sae_batch_size: int
    cases: dict  # {method: ((a setting below the L0s, one above), rate)}


def gated(module, side, penalty=1.0):
    """A site in an MLP of about 1,536 activations; penalty: a factor, for other numbers of them."""
    cases = {
        "published form": ((0.002, 0.008), 0.001),
        "bounded": ((0.0145, 0.048), 0.004),
        CUT: ((0.0145, 0.048), 0.004),
        "L1 SAE": ((6.0 * penalty, 3.1 * penalty), 0.008),
        "TopK SAE": ((9, 17), 0.004),
    }
    return Site(module, side, 256, 0, 4, 512, 512, cases)


SITES = {
    "smollm2": {
        "(a)": gated("layers.11.mlp.down_proj", "input"),
        "(b)": Site(
            *("layers.11", "output", 288, 144, 8, 576, 128),
            {
                "published form": ((0.0017, 0.0075), 0.001),
                "published + prior": ((0.018, 0.058), 0.016),
                "bounded": ((0.0135, 0.037), 0.016),
                CUT: ((0.0135, 0.037), 0.016),
                "bounded, L1": ((0.0245, 0.0635), 0.016),
                "L1 SAE": ((2.2, 1.2), 0.004),
                "tied SAE": ((1.5, 0.95), 0.008),
                "TopK SAE": ((9, 17), 0.004),
            },
        ),
    },
    "gpt2": {"(a)": gated("h.6.mlp.act", "output", penalty=2**0.5)},  # twice the activations
}


def principal(x, n):
    """Directions (D, n) of the n leading principal components of centred x (N, D), by one number
    for all such that x @ them has a mean variance of 1; and the share of the variance they hold."""
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    return vectors[:, -n:] / values[-n:].mean().sqrt(), float(values[-n:].sum() / values.sum())


def chosen(site, x):
    """{name: `lab.methods.Method`} of the site, with its settings and rates, for training on x."""
    known = methods(site.units, h.prior(x, site.units))
    return {n: known[n]._replace(settings=s, lr=lr) for n, (s, lr) in site.cases.items()}


def trained(site, x, seeds):
    """All models of a site on its rows x (N, D): {(method, setting, seed): model}."""
    jobs = []
    for name, method in chosen(site, x).items():
        size = site.sae_batch_size if name.endswith("SAE") else site.batch_size
        options = {"epochs": site.epochs, "batch_size": size, "most": 6}
        jobs += runs.stacks(name, method, x, site.units, seeds, **options)
    ends = 0.8 * L0S[0], 1.25 * L0S[-1]
    jobs += [partial(units.untrained, site.units, x, ends, seed, (KMEANS,)) for seed in seeds]
    return runs.train_all(jobs[::-1])  # the longest first


def measured(site, rows, models, network, basis):
    """A row a model, with the loss recovered by Wᵀ or an SAE's own decoder; and a row for each
    pair of seeds, with the agreement of their units. Also what mean ablation costs."""
    x, x_test = (t if basis is None else t @ basis for t in (rows.x_train[:FITTED], rows.x_test))
    table = tables.tabulate(models, x, x_test)
    saes = {k: h.with_decoder(m, x, h.transpose_decoder) for k, m in models.items()}
    lost = loss_recovered(network, (site.module, site.side), rows, saes, basis)
    table["recovered"] = [lost[key] for key in zip(table.method, table.setting, table.seed)]
    own = [{k: m for k, m in models.items() if k[0] == name} for name in (*site.cases, KMEANS)]
    jobs = [partial(units.pairs, some, x_test) for some in own]
    shared = pd.concat(side_by_side(*jobs, title="agreement"))
    columns = ["method", "setting", "seed", "l0", "agreement"]  # no row, if there is one seed
    return table, shared.reindex(columns=columns), lost["mean ablation"]


def at_equal_l0(table, shared, name):
    """Means over seeds of a method at each L0: rows of numbers, NaN where no seed encloses it."""
    rows = []
    for l0 in L0S:
        row = {"method": name, "L0": l0}
        for column in ("transpose", "solved", "recovered", "dead"):
            row[column] = tables.at_l0(table, name, column, l0).mean()
        rows.append(row | {"agreement": tables.at_l0(shared, name, "agreement", l0).mean()})
    return rows


def not_enclosed(table, cases):
    """A line for each method of {name: ((setting, setting), rate)} of which a model lies on the
    wrong side of an L0: by which setting it might not, as log L0 is about linear in its log."""
    lines = []
    for name, (settings, _) in cases.items():
        l0s = [table.l0[(table.method == name) & (table.setting == s)] for s in settings]
        means = np.array([own.mean() for own in l0s])
        with np.errstate(all="ignore"):  # without active units, or with as many at both
            power = np.log(settings[1] / settings[0]) / np.log(means[1] / means[0])
            better = settings * (np.array([0.85 * L0S[0], 1.2 * L0S[1]]) / means) ** power
        for i, fine in enumerate((l0s[0].max() <= L0S[0], l0s[1].min() >= L0S[1])):
            now = f"{name}: {settings[i]:g} gives L0 {means[i]:.3g}, on the wrong side of {L0S[i]}"
            to = f", perhaps to {better[i]:.2g}" if 0 < better[i] < np.inf else ""
            lines += [] if fine else [f"{now}; change it in SITES{to}"]
    return lines


def main(arguments=None):
    """Notebook 3's methods at sites of a language model, at equal L0."""
    parser = argparse.ArgumentParser("python -m lab.language", description=main.__doc__)
    add = parser.add_argument
    add("--model", default="smollm2", choices=SITES, help="others need sites in SITES")
    add("--tokens", type=int, default=160_000, help="of training and test")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one model each")
    add("--corpus", help="a text file; without it data/corpus.txt")
    add("--device", default="auto", help="cpu, cuda or auto")
    add("--output", help="folder of language.json; without it figures, or build/MODEL")
    args = parser.parse_args(arguments)
    sites = SITES[args.model]
    args.output = args.output or ("figures" if args.model == "smollm2" else f"build/{args.model}")
    folder, device = notebook.output_folder(args.output), data.pick_device(args.device)
    found = {k: {} for k in ("rates", "variance_held", "mean_ablation_nats")}
    found |= {"result": [], "numbers": []}
    claims, rows_of = Claims("language"), []
    try:
        places = [(site.module, site.side) for site in sites.values()]
        options = {"n_tokens": args.tokens, "device": device}
        activations = load_activations(args.model, places, args.corpus, **options)
        _, network = language_model(args.model, device)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    for (part, site), rows in zip(sites.items(), activations):
        x, basis = rows.x_train, None
        if site.components:
            basis, found["variance_held"][part] = principal(x, site.components)
            x = x @ basis
        print(f"{part} {site.units} units on {x.shape[1]} inputs, {len(x)} rows")
        models = trained(site, x, args.seeds)
        table, shared, nats = measured(site, rows, models, network, basis)
        found["mean_ablation_nats"][part] = nats
        print(*not_enclosed(table, site.cases), sep="\n")
        for name in (*site.cases, KMEANS):
            found["result"] += [{"part": part} | r for r in at_equal_l0(table, shared, name)]
            own = tables.numbers(table, [name], L0S, FLOORS)
            own += tables.numbers(shared, [name], L0S, {"agreement": 0.01}) if len(shared) else []
            found["numbers"] += [n | {"method": f"{part} {name}"} for n in own]
        found["rates"] |= {f"{part} {name}": lr for name, (_, lr) in site.cases.items()}
        rows_of.append(table.assign(part=part))
        if site.components:
            ratio = tables.difference(table, "transpose", L0S[0], CUT, "bounded", ratio=True)
            claims["language_prices"] = [value - 1 for value in ratio]
    settings = {k.upper(): v for k, v in vars(args).items()} | {"SITES": {}}
    for part, site in sites.items():
        cases = {name: own for name, (own, _) in site.cases.items()}
        settings["SITES"][part] = site._asdict() | {"cases": cases}
    found["table"] = pd.concat(rows_of, ignore_index=True)
    notebook.save_results("language", parameters=settings, claims=claims, folder=folder, **found)
    print(pd.DataFrame(found["result"]).round(3).to_string(index=False))
    print(*[(c["claim"], c["judged"], c["holds"]) for c in claims.judge()])


if __name__ == "__main__":
    main()
