"""Notebook 3's methods on a language model: `python -m lab.language`; `--help` says more.

They learn from the leading principal components of a network's activations: by default, of the
residual stream of SmolLM2-135M-Instruct after its 12th layer. The run writes language.json. With
--search it chooses optimiser, rate and preprocessing of the paper's loss, and the rates of all
other methods, on training rows, and writes language_tuning.json.
"""

import argparse
from functools import partial

import pandas as pd
import torch

import helpers as h
from lab import ROOT, criteria, measures, network, record, tuning
from lab.data import load_documents, pick_device
from lab.methods import benchmark_methods, encoder_loss, train_methods

LAYER = 12  # of network.MODEL; of another model, half of its layers
EPOCHS, L0 = 8, 10
FITTED = 40_000  # training rows to which decoders are fitted
REPLACED = 16  # about so many test sequences, on which the loss recovered is measured

# {method: (two settings that enclose L0 10 for SmolLM2, learning rate)}. All have minibatches of
# twice as many rows as there are units, for the log-determinant needs about as many.
SETTINGS = {
    "the paper's loss": ((0.011, 0.026), 0.001),
    "the paper's loss, tuned": ((0.019, 0.038), 0.01),
    "the paper's loss + weight decay": ((0.015, 0.034), 0.016),
    "the revised loss": ((0.0115, 0.024), 0.016),
    "the revised loss, no competition": ((0.0115, 0.024), 0.016),
    "the revised loss, L1": ((0.02, 0.042), 0.016),
    "tied SAE": ((1.7, 0.9), 0.008),
    "L1 SAE": ((2.7, 1.3), 0.004),
    "TopK SAE": ((9, 11), 0.004),
}

# What --search tries for the paper's loss, with a slow start but for Adam, by what W^T explains;
# the best are tried again, with three seeds
WAYS = {"Adam": (0.001, 0.004, 0.016), "SGD": (0.03, 0.1), "momentum .9": (0.003, 0.01, 0.03)}
WAYS_LAMBDAS = {True: (0.008, 0.022, 0.06), False: (0.0015, 0.005, 0.018)}
N_BEST = 4
# and by their loss, these; those without competition and with L1 have the revised loss's rate
BY_LOSS = (
    "the paper's loss + weight decay",
    "the revised loss",
    "tied SAE",
    "L1 SAE",
    "TopK SAE",
)
# What the record holds of each method at L0 10, and how closely another run must agree
TOLERANCES = {"explained": 0.005, "least_squares": 0.005, "recovered": 1.0, "agreement": 0.01}

# --- Models of them -----------------------------------------------------------------------------


def chosen_methods(data, wide=False):
    """{name: Method} of SETTINGS, for training on `Activations`.

    wide: with settings of half the smaller and twice the larger of these too, for another network.
    """
    kappa = h.variance_per_unit(data.x, data.n_units)
    known = benchmark_methods(kappa)
    pooled = partial(encoder_loss, kappa=kappa, penalty=h.pooled_lse_loss)
    known["the revised loss, no competition"] = known["the revised loss"]._replace(loss=pooled)
    found = {}
    for name, (settings, lr) in SETTINGS.items():
        if wide and known[name].argument:
            settings = (min(settings) / 2, *settings, 2 * max(settings))
        found[name] = known[name]._replace(settings=settings, lr=lr, n_seeds=None)
    return found


def with_and_without_competition(at, table, models, x_test):
    """`measures.of_competition` of each seed's model nearest to L0 10, with competition and
    without: a DataFrame with "method" and "seed"."""
    rows = []
    for name, seed in at.index:
        if name in criteria.LANGUAGE_COMPETITION:
            with torch.no_grad():
                E = measures.nearest(table, models, name, L0, seed)(x_test)
            rows.append({"method": name, "seed": seed} | measures.of_competition(E))
    return pd.DataFrame(rows)


def search(data):
    """The ways for the paper's loss, and the rates by loss: what language_tuning.json holds."""
    how = {"epochs": EPOCHS, "batch_size": 2 * data.n_units}
    ways = {
        name: way
        for name, way in tuning.ways(WAYS, WAYS_LAMBDAS).items()
        if way.slow_start == (way.optimizer != "Adam")
    }
    l0s = {"n_best": N_BEST, "first_l0": L0, "l0s": [L0]}
    found = tuning.search_twice(ways, ways, data.x, data.mean, data.n_units, **l0s, **how)
    chosen = {name: method for name, method in chosen_methods(data).items() if name in BY_LOSS}
    rates = tuning.search_rates(chosen, data.x, data.n_units, seeds=(0,), **how)
    return found | {"rates": {name: [*losses.items()] for name, losses in rates.items()}}


# --- The run ------------------------------------------------------------------------------------


def results(site, test_sequences, data, seeds, wide=False):
    """Train all models, measure them and print a table: what the record holds, a dict."""
    chosen = chosen_methods(data, wide)
    how = {"epochs": EPOCHS, "batch_size": 2 * data.n_units, "most": 6, "title": "models"}
    models = train_methods(chosen, data.x, data.mean, data.n_units, seeds, **how)
    x = data.x[:FITTED]
    table = measures.tabulate(models, x, data.x_test)
    saes = {key: h.with_decoder(model, x, h.transpose_decoder) for key, model in models.items()}
    sample = test_sequences[:: max(1, len(test_sequences) // REPLACED)]
    recovered, mean_ablation = network.loss_recovered(site, sample, data, saes)
    table["recovered"] = [recovered[key] for key in models]
    agreements = measures.agreements(models, data.x_test)
    at, agree = measures.at_l0(table, L0), measures.at_l0(agreements, L0)
    print(at.groupby("method", sort=False).mean().round(3).to_string())
    entries = record.numbers(at, {n: t for n, t in TOLERANCES.items() if n in at}, f"L0 {L0}")
    entries += record.numbers(agree, {"agreement": TOLERANCES["agreement"]}, f"L0 {L0}")
    return {
        "criteria": criteria.judge("language", criteria.language_values(at)),
        "numbers": entries,
        "rates": {name: method.lr for name, method in chosen.items()},
        "settings": {name: method.settings for name, method in chosen.items()},
        "batch_size": how["batch_size"],
        "steps": EPOCHS * (len(data.x) // how["batch_size"]),
        "components": data.x.shape[1],
        "units": data.n_units,
        "tokens": {"train": len(data.x), "test": len(data.x_test)},
        "variance_held": data.variance_held,
        "mean_ablation": mean_ablation,
        "competition": with_and_without_competition(at, table, models, data.x_test),
        "table": table,
        "agreements": agreements,
        "at_l0": at,
    }


def main(arguments=None):
    """Notebook 3's methods on principal components of a language model's activations."""
    parser = argparse.ArgumentParser("python -m lab.language", description=main.__doc__)
    add = parser.add_argument
    add("--model", default="", help="causal model of transformers, by name or folder; else SmolLM2")
    add("--site", default="residual", choices=["residual", "mlp"], help="what is read of a layer")
    add("--layer", type=int, help=f"counted from 1; else {LAYER} of SmolLM2, or half of the layers")
    add("--tokens", type=int, default=160_000, help="of training and test")
    add(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="one model each; the search has its own",
    )
    add("--device", default="auto", help="cpu, cuda or auto")
    add("--output", default="figures", help="folder of the record")
    add("--search", action="store_true", help="search for optimisers and rates")
    args = parser.parse_args(arguments)
    other = bool(args.model) or args.site != "residual" or args.layer not in (None, LAYER)
    smaller = any(getattr(args, name) != parser.get_default(name) for name in ("tokens", "seeds"))
    if (other or smaller) and (ROOT / args.output).resolve() == ROOT / "figures":
        parser.exit(
            2, "figures/ holds the full record of SmolLM2: give another folder, --output FOLDER\n"
        )
    try:
        folder = record.output_folder(args.output)
        documents = load_documents()
        tokenizer, model = network.load_language_model(args.model, pick_device(args.device))
        layer = LAYER if args.layer is None and not args.model else args.layer
        site = network.find_site(model, args.site, layer)
        documents = [tokenizer(text, verbose=False)["input_ids"] for text in documents]
        sequences, test_sequences = network.split(documents, args.tokens)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    data = network.load_activations(site, sequences, test_sequences)
    print(f"{len(data.x):,} and {len(data.x_test):,} tokens for training and test")
    if args.search:
        record.write_json(folder / "language_tuning.json", search(data))
        return
    parameters = {"TOKENS": args.tokens, "SEEDS": args.seeds, "MODEL": args.model or network.MODEL}
    parameters |= {"SITE": args.site, "LAYER": site.layer, "EPOCHS": EPOCHS}
    parameters |= {"DEVICE": args.device, "OUTPUT": args.output}
    found = results(site, test_sequences, data, args.seeds, wide=other)
    record.save_results("language", folder, parameters=parameters, **found)


if __name__ == "__main__":
    main()
