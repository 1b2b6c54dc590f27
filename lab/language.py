"""Notebook 3's methods on a language model: `python -m lab.language`, and `--help` says more.

Part (a) are the gated activations of an MLP of SmolLM2-135M, more than units; part (b) is its
residual stream, in fewer components than units. It writes language.json, .png and .pdf.
"""

import argparse
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt

import helpers as h
from lab import data, notebook, plots, runs, tables, units
from lab.activations import language_model, load_activations, loss_recovered
from lab.methods import methods as all_methods


class Part(NamedTuple):
    """Whose rows are learned from, by how many units, and at which L0 methods are compared."""

    module: str
    side: str
    units: int
    components: int  # how many leading principal components; 0: the rows as they are
    l0s: tuple
    batches: dict  # {rows: epochs}: the first is for all, and SAEs are offered the others too
    settings: dict  # of each method


SETTINGS = {  # in parts (a) and (b): above and below the judged L0s; rates are tuned at the second
    "published form": ((0.0135, 0.0044), (0.0075, 0.0022)),
    "published + prior": ((0.08, 0.022), (0.07, 0.014)),
    "bounded": ((0.048, 0.0165), (0.037, 0.0135)),
    "bounded, L1": ((0.05, 0.018), (0.04, 0.015)),
    "L1 SAE": ((2.3, 4.4), (0.9, 2.6)),
    "tied SAE": ((2.2, 4.4), (0.9, 2.2)),
    "TopK SAE": ((17, 9), (17, 9)),
}
GATED, RESIDUAL = ({name: both[i] for name, both in SETTINGS.items()} for i in (0, 1))
PARTS = {
    "(a)": Part("layers.11.mlp.down_proj", "input", 256, 0, (10, 16), {512: 8}, GATED),
    "(b)": Part("layers.11", "output", 288, 144, (10, 16), {576: 10, 128: 8}, RESIDUAL),
}
RATES = (0.002, 0.004, 0.008, 0.016)
PUBLISHED, KMEANS = "published form", "k-means templates"
FLOORS = {"transpose": 0.005, "solved": 0.005}  # of columns, for `make check`


def components(x, x_test, n):
    """Both in the n leading principal components of x (N, D), centred; and what share these hold.

    Scaled by one number, so that their mean variance in x is 1.
    """
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    basis = vectors[:, -n:] / values[-n:].mean().sqrt()
    return x @ basis, x_test @ basis, float(values[-n:].sum() / values.sum())


def beyond(seen, l0s):
    """Settings with which a method's models {setting: [L0 of each seed]} would enclose all of l0s,
    if they do not: log setting is taken as linear in log L0 beyond the nearest two."""
    ends = sorted((np.mean(v), s, min(v), max(v)) for s, v in seen.items() if min(v) > 0)
    low = 0.85 * l0s[0], ends[:2], all(end[3] > l0s[0] for end in ends)
    high = 1.2 * l0s[-1], ends[-2:], all(end[2] < l0s[-1] for end in ends)
    more = []
    for goal, two, needed in (low, high):
        if needed and len(two) > 1 and two[0][0] < two[1][0]:
            (a, setting, *_), (b, other, *_) = two
            power = np.log(other / setting) / np.log(b / a)
            more.append(float(f"{setting * np.clip((goal / a) ** power, 0.1, 10):.3g}"))
    return more


def disagree(seen):
    """Whether at one setting of {setting: [L0 of each seed]} a seed goes another way: by a quarter.

    Tuning looks at one seed; a rate at which another goes wrong is no rate to compare with.
    """
    return any(max(v) > 1.25 * min(v) for v in seen.values())


def experiment(part, x, x_test, seeds):
    """Tune, train and evaluate all methods of a part on x (N, D): {(method, setting, seed): model},
    their table, the best (batch size, rate) of each method, and the loss of all that were tried.

    The best is that of the lowest loss at which all seeds go one way. The published form keeps its
    rate. All learn from centred rows.
    """
    K, methods = part.units, all_methods(part.units, h.prior(x, part.units))
    chosen = {n: methods[n]._replace(settings=s) for n, s in part.settings.items()}
    first = next(iter(part.batches))
    tried = {name: {} for name in chosen}
    for size, epochs in part.batches.items():
        own = [n for n in chosen if n.endswith("SAE") or (size == first and n != PUBLISHED)]
        own, options = {n: chosen[n] for n in own}, {"epochs": epochs, "batch_size": size}
        for name, losses in runs.tune(own, x, K, RATES, **options)[1].items():
            tried[name] |= {(size, lr): loss for lr, loss in losses.items() if loss == loss}
    left = {n: dict(t) or {(first, chosen[n].lr): 0.0} for n, t in tried.items()}
    models, wanted, seen = {}, part.settings, {name: {} for name in chosen}
    for attempt in range(8):
        jobs, best = [], {n: min(t, key=t.get) for n, t in left.items()}
        for name, settings in wanted.items():
            size, lr = best[name]
            options = {"lr": lr, "batch_size": size, "epochs": part.batches[size], "most": 5}
            jobs += runs.stacks(name, chosen[name], x, K, seeds, settings=settings, **options)
        trained = runs.train_all(jobs)
        with torch.no_grad():
            for (name, setting, _), model in trained.items():
                seen[name].setdefault(setting, []).append(h.l0(model.encode(x_test)))
        models |= trained
        # Later rounds have to enclose the judged L0s, and change no rate.
        apart = [n for n in left if attempt < 4 and len(left[n]) > 1 and disagree(seen[n])]
        for name in apart:
            left[name].pop(best[name])
            print(f"{name}: seeds go apart at (batch size, rate) {best[name]}; the next best:")
            models, seen[name] = {k: m for k, m in models.items() if k[0] != name}, {}
        wanted = {n: part.settings[n] if n in apart else beyond(seen[n], part.l0s) for n in chosen}
        wanted = {n: settings for n, settings in wanted.items() if settings}
        if not wanted:
            break
        print("settings to try next:", wanted)
    ends = 0.8 * part.l0s[0], 1.25 * part.l0s[-1]
    jobs = [partial(units.untrained, K, x, ends, seed, (KMEANS,)) for seed in seeds]
    models |= runs.train_all(jobs, "k-means")
    return models, tables.tabulate(models, x, x_test), best, tried


def recover(model, part, rows, models, table, seeds):
    """`loss_recovered` by Wᵀ or own decoder of each method's models nearest to the middle L0:
    {method: [% of each seed]}, and what mean ablation costs."""
    x, middle = rows.x_train[:20_000], part.l0s[len(part.l0s) // 2]
    saes = {
        (m, seed): h.with_decoder(
            tables.nearest(table, models, m, middle, seed), x, h.transpose_decoder
        )
        for m in part.settings
        for seed in seeds[:3]
    }
    _, network = language_model(model, x.device)
    lost = loss_recovered(network, (part.module, part.side), rows, saes)
    found = {m: [v for key, v in lost.items() if key[0] == m] for m in part.settings}
    return found | {"mean ablation, nats": [lost["mean ablation"]]}


def figure(table, titles):
    """Variance explained against L0, a panel for each part of the table (a row a model)."""
    looks = {n: m.look for n, m in all_methods(1, 1.0).items()}
    fig, axes = plt.subplots(1, table.part.nunique(), figsize=(plots.TWO, 2.9), squeeze=False)
    for axis, (part, rows) in zip(axes[0], table.groupby("part")):
        means, ends = rows.groupby(["method", "setting"]).mean(numeric_only=True), {}
        lines = {m: (m, "transpose", *looks[m]) for m in rows.method.unique() if m in looks}
        lines["k-means, solved"] = (KMEANS, "solved", plots.GREY, "", "-")
        lines["bounded, solved"] = ("bounded", "solved", "0.6", "", "-")
        for label, (method, column, colour, marker, ls) in lines.items():
            curve = means.loc[method].sort_values("l0")
            wide = {"lw": 2.5, "zorder": 0} if label == "bounded, solved" else {"lw": 0.9}
            face = {"ms": 4, "mew": 0.8, "mfc": colour if method == "bounded" else "w"}
            axis.plot(curve.l0, curve[column], marker + ls, color=colour, **wide, **face)
            ends[label] = curve.l0.iloc[-1], curve[column].iloc[-1], colour
        axis.set(xscale="log", xlabel="L0: active units per input", title=titles[part])
        low, high = axis.get_xlim()
        ticks = [t for t in (5, 7, 10, 15, 20, 30, 50) if low < t < high]
        axis.set_xticks(ticks, ticks)
        axis.xaxis.set_minor_formatter(plt.NullFormatter())
        right = max(x for x, *_ in ends.values())
        plots.label_ends(axis, {name: (right, *end[1:]) for name, end in ends.items()})
    axes[0, 0].set_ylabel("variance explained")
    sns.despine(fig)
    return fig


def main(arguments=None):
    """All methods on SmolLM2, parts (a) and (b); or on a module that is named."""
    parser = argparse.ArgumentParser("python -m lab.language", description=main.__doc__)
    for name, default, words in (
        ("model", "smollm2", "a name on the hub, or a folder"),
        ("module", "", "whose rows to learn from; without it parts (a) and (b)"),
        ("side", "output", "of the module: input or output"),
        ("units", 256, "how many"),
        ("components", 0, "how many leading principal components; 0: the rows as they are"),
        ("l0", [10.0, 16.0], "where methods are compared"),
        ("epochs", 10, "of training"),
        ("tokens", 160_000, "of training and test"),
        ("seeds", [0, 1, 2], "one model each"),
        ("corpus", "", "a text file; without it data/corpus.txt"),
        ("device", "auto", "cpu, cuda or auto"),
        ("output", "", "folder for the results; without it figures, or build of a named module"),
    ):
        many = {"nargs": "+"} if isinstance(default, list) else {}
        kind = type(default[0] if many else default)
        parser.add_argument(f"--{name}", type=kind, default=default, help=words, **many)
    args = parser.parse_args(arguments)
    parts = PARTS
    if args.module:
        l0s, batches = tuple(sorted(args.l0)), {max(128, 2 * args.units): args.epochs}
        top = tuple(min(args.units, max(1, round(k))) for k in (0.85 * l0s[0], 1.1 * l0s[-1]))
        own = (args.module, args.side, args.units, args.components, l0s, batches)
        parts = {"(a)": Part(*own, GATED | {"TopK SAE": top})}
    elif args.model != "smollm2":
        parser.error("name a --module of this model")
    args.output = args.output or ("build/language" if args.module else "figures")
    folder, device = notebook.output_folder(args.output), data.pick_device(args.device)
    found = {k: {} for k in ("rates", "batches", "tried", "recovered", "variance_held")}
    claims, share, ratio, with_l1 = notebook.Claims("language"), {}, {}, {}
    rows_of, titles, numbers, result = [], {}, [], []
    try:
        places = [(part.module, part.side) for part in parts.values()]
        options = {"n_tokens": args.tokens, "device": device}
        activations = load_activations(args.model, places, args.corpus or None, **options)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    for (name, part), rows in zip(parts.items(), activations):
        x, x_test = rows.x_train, rows.x_test
        if part.components:
            x, x_test, found["variance_held"][name] = components(x, x_test, part.components)
        titles[name] = f"{name} {part.units} units on {x.shape[1]} inputs"
        print(f"{titles[name]}, {len(x)} rows")
        models, table, best, tried = experiment(part, x, x_test, args.seeds)
        rows_of.append(table.assign(part=name))
        for method, losses in tried.items():
            key = f"{name} {method}"
            found["batches"][key], found["rates"][key] = best[method]
            found["tried"][key] = [(*how, loss) for how, loss in losses.items()]
        for method in (*part.settings, KMEANS):
            own = tables.numbers(table, [method], part.l0s, FLOORS)
            row = {"part": name, "method": method, "L0": ", ".join(f"{k:g}" for k in part.l0s)}
            for column in FLOORS:
                seeds = [n["seeds"] for n in own if n["quantity"] == column]
                row[column] = ", ".join(f"{np.mean(v):.3f}" if v else "–" for v in seeds)
            result.append(row)
            numbers += [n | {"method": f"{name} {method}"} for n in own]
        for k in part.l0s:
            place = f"{name}, L0 {k:g}"
            share[place] = list(tables.at_l0(table, "bounded", "share", k))
            ratio[place] = tables.difference(table, "transpose", k, "bounded", ratio=True)
            pair = ("bounded, L1", "bounded", True)
            changed = tables.difference(table, "transpose", k, *pair)
            with_l1[place] = [value - 1 for value in changed]
        if not part.components:
            recovered = recover(args.model, part, rows, models, table, args.seeds)
            found["recovered"] |= {f"{name} {k}": v for k, v in recovered.items()}
    table = pd.concat(rows_of, ignore_index=True)
    claims["language_transpose"], claims["language_floor"] = share, ratio
    claims["language_l1"] = with_l1
    plots.style()
    notebook.save_figure(figure(table, titles), "language", folder)
    found |= {"table": table, "numbers": numbers, "result": result, "claims": claims}
    settings = {k.upper(): v for k, v in vars(args).items()}
    settings["PARTS"] = {name: part._asdict() for name, part in parts.items()}
    notebook.save_results("language", parameters=settings, folder=folder, **found)
    print(pd.DataFrame(result).to_string(index=False))
    for claim in claims.judge():
        print(claim["id"], notebook.criterion(claim), claim["judged"], claim["holds"])


if __name__ == "__main__":
    main()
