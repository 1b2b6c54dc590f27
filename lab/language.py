"""The methods of notebook 3 on a language model: `python -m lab.language`; `--help` says more.

They learn from the leading principal components of a network's activations, each at about ten
active units. The run prints a table and writes language.json, which notebook 3 shows; with other
settings than the record's it draws the figure, too.
"""

import argparse
import sys
from functools import partial

import pandas as pd
import torch
from tqdm import tqdm

import helpers as h
from lab import ROOT, measures, plots_benchmark, record
from lab.data import load_documents
from lab.methods import Method, principal_components
from lab.network import SMOLLM2, find_site, load_activations, load_network, loss_recovered, split
from lab.parallel import side_by_side

RECORD = {"model": "", "site": "residual", "layer": 12, "tokens": 160_000, "seeds": [0, 1, 2]}
REPLACED = 50  # test sequences, at most, on which the loss recovered is measured
EPOCHS, L0 = 8, 10
RATES = (
    "of SAEs by their loss on training rows; by SGD by what the transpose explains of them "
    "(data/tuning.json); of our changes 0.004, with more of which many units die without centring; "
    "of the revised loss its best by that loss, too; otherwise the paper's"
)


def methods(x, n_units):
    """{name: Method} to learn from x (N, D). A setting is lam, or the weight of L1, that gives ten
    active units on SmolLM2."""
    sizes, mean, kappa = (x.shape[1], n_units), x.mean(0), h.weight_decay_for(x, n_units)
    raw, centred = partial(h.Encoder, *sizes), partial(h.Encoder, *sizes, mean)
    sae = partial(h.SparseAutoencoder, *sizes, mean)
    paper = h.decoder_free_loss
    momentum = partial(torch.optim.SGD, momentum=0.9)
    by_sgd = {"lr": 0.01, "optimizer": momentum, "slow_start": True}
    decayed = partial(paper, weight_decay=kappa)
    log_det = partial(decayed, infomax=h.log_det_loss)
    alone = partial(log_det, sparsity=partial(h.lse_loss, competition=0))
    return {
        "the paper's loss, by Adam": Method(raw, paper, 0.0185),
        "+ weight decay": Method(raw, decayed, 0.0213, lr=0.004),
        "+ log-determinant": Method(raw, log_det, 0.0163, lr=0.004),
        "+ centred: the revised loss": Method(centred, log_det, 0.0107, lr=0.004),
        "revised, four times the rate": Method(centred, log_det, 0.0165, lr=0.016),
        "revised, without competition": Method(centred, alone, 0.0165, lr=0.016),
        "the paper's loss, by SGD": Method(raw, paper, 0.0303, **by_sgd),
        "tied SAE": Method(partial(sae, tied=True), h.sae_loss, 1.636, "l1_weight", lr=0.008),
        "L1 SAE": Method(sae, h.sae_loss, 2.1, "l1_weight", lr=0.004),
        "TopK SAE": Method(sae, h.sae_loss, argument="k", lr=0.004),
    }


def train(x, n_units, seeds):
    """Train all methods at ten active units, of few units at one in eight.

    -> {name: a stack of models}, with "principal components" as the last, and {name: setting}. A
    method that does not get there is left out, and the terminal told why.
    """
    chosen, l0 = methods(x, n_units), min(L0, n_units // 8)
    how = {"seeds": seeds, "epochs": EPOCHS, "tries": 10, "batch_size": 2 * n_units}

    def train_one(name):
        try:
            return chosen[name].fit(x, l0, **how)
        except (h.L0NotReached, FloatingPointError) as error:
            tqdm.write(f"{name} is left out: {error}", file=sys.stderr)

    # The bar expects one training of each method, and goes on beyond its end if there are more
    found = side_by_side(train_one, chosen, "methods", len(chosen) * EPOCHS)
    found = {name: pair for name, pair in found.items() if pair}
    models = {name: model for name, (model, _) in found.items()}
    models["principal components"] = principal_components(x, n_units, l0)
    return models, {name: setting for name, (_, setting) in found.items()}


def measure(models, data, site, sequences):
    """A DataFrame with a row for each model of {name: stack}; and what mean ablation costs, in nats
    per token.

    Columns: "method", "seed"; those of `measures.decoded`; "recovered", see `loss_recovered`, with
    a model's own decoder.
    """
    x = data.x[: measures.FITTED]
    table = measures.rows(models, lambda m: measures.decoded(m, x, data.x_test), "decoders")
    each = [model for stack in models.values() for model in h.split_by_seed(stack)]
    saes = [h.with_decoder(model, x, h.own_decoder) for model in each]
    recovered, cost = loss_recovered(site, sequences, data, saes)
    return table.assign(recovered=recovered), cost


def criteria(table):
    """Three criteria, of means over seeds; one fails if its methods are not there. Their bounds
    follow earlier runs on the same text."""
    names = ("+ weight decay", "+ log-determinant", "revised, four times the rate")
    names += ("revised, without competition", "L1 SAE")
    decay, log_det, revised, alone, sae = table.groupby("method").explained.mean().reindex(names)
    more = "W^T explains more with the log-determinant than with variance and decorrelation"
    same = "without competition, what W^T explains with the revised loss changes by at most .01"
    less = "an L1 SAE explains more than the revised loss"
    rows = (
        (more, log_det - decay, ">", 0),
        (same, abs(alone - revised), "<=", 0.01),
        (less, sae - revised, ">", 0),
    )
    return [record.criterion(f"On a language model, {claim}", *row) for claim, *row in rows]


# --- The run ------------------------------------------------------------------------------------


def options(arguments):
    """Those of a command line, and whether they are the record's."""
    parser = argparse.ArgumentParser("python -m lab.language", description=main.__doc__)
    add, devices = parser.add_argument, ["cuda"] * torch.cuda.is_available() + ["cpu"]
    add("--model", default="", help="causal model of transformers, by name or folder; else SmolLM2")
    add("--site", default="residual", choices=["residual", "mlp"], help="what is read of a layer")
    add("--layer", type=int, help="counted from 1; else 12 of SmolLM2, or half of the layers")
    add("--tokens", type=int, default=160_000, help="of training and test; else 160000")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one model each; else 0 1 2")
    add("--device", default="auto", choices=["auto", *devices], help="auto: a GPU, if any")
    add("--output", help="folder; else figures for the record's settings, or build/language")
    args = parser.parse_args(arguments)
    if not args.model and args.layer is None:
        args.layer = RECORD["layer"]
    is_record = all(vars(args)[name] == value for name, value in RECORD.items())
    args.device = devices[0] if args.device == "auto" else args.device
    args.output = ROOT / (args.output or ("figures" if is_record else "build/language"))
    if args.tokens < 1000:
        parser.error("--tokens is 1000 or more")
    if args.output.resolve() == ROOT / "figures" and not is_record:
        parser.error("figures/ holds the record, of SmolLM2: take another --output FOLDER")
    return args, is_record


def main(arguments=None):
    """Train the methods of notebook 3 on principal components of a language model's activations.
    Measure how well they are decoded, and how much of the language model's loss they recover."""
    args, is_record = options(arguments)
    try:
        record.writable(args.output)
        texts = load_documents()
        tokenizer, network = load_network(args.model, args.device)
        site = find_site(network, args.site, args.layer)
        documents = [tokenizer(text, verbose=False)["input_ids"] for text in texts]
        sequences, test_sequences = split(documents, args.tokens)
        data = load_activations(site, sequences, test_sequences)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    n_units, test_sequences = 2 * data.x.shape[1], test_sequences[:REPLACED]
    models, found = train(data.x, n_units, args.seeds)
    table, cost = measure(models, data, site, test_sequences)
    means = table.drop(columns="seed").groupby("method", sort=False).mean()
    print(means.assign(setting=pd.Series(found)).round(4).to_string())
    parameters = {
        "MODEL": args.model or SMOLLM2,
        "SITE": args.site,
        "LAYER": len(site.below) + 1,
        "TOKENS": args.tokens,
        "SEEDS": args.seeds,
        "texts": len(texts),
        "training tokens": len(data.x),
        "test tokens": len(data.x_test),
        "components": data.x.shape[1],
        "units": n_units,
        "minibatch": 2 * n_units,
        "epochs": EPOCHS,
        "sequences": len(test_sequences),
        "rates": {name: method.lr for name, method in methods(data.x, n_units).items()},
        "choice of rates": RATES,
    }
    of_network = {"seed": 0, "variance held": data.held, "mean ablation": cost}
    tables = {"results": table, "network": pd.DataFrame([of_network])}
    tables["settings"] = pd.DataFrame(found.items(), columns=["method", "setting"]).assign(seed=0)
    record.save("language", args.output, parameters, criteria(table), **tables)
    if not is_record:  # whose figure notebook 3 draws
        right = ("recovered", "loss\nrecovered, %", 0)
        fig = plots_benchmark.dumbbell(table, right, x="variance of test activations explained, %")
        record.save_figure(fig, "language", args.output)


if __name__ == "__main__":
    main()
