"""MLP activations of language models, for notebook 3: one function, `load_activations`.

It needs transformers, and a network or a cache for models and texts that are not local.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

import helpers as h

CACHE = h.ROOT / "build" / "activations"
CORPUS = ("roneneldan/TinyStories", "TinyStories-valid.txt")  # a data set on the hub, and its file
END_OF_DOCUMENT = "<|endoftext|>"


def load_activations(
    model="gpt2",
    module="h.6.mlp.act",
    corpus=None,
    *,
    n_tokens=200_000,
    context=128,
    device="cpu",
    cache=CACHE,
    in_memory=2**30,
):
    """Activations of one module of a language model: x_train, x_test (N, D), float32, on the CPU.

    model: name on the hub, or a folder; module: name of a submodule whose output is
    (sequences, positions, D). corpus: a text file, with documents separated by <|endoftext|> or
    by blank lines; None fetches one from the hub. Documents are cut into sequences of at most
    `context` tokens, each sequence's first position is left out (an outlier in GPT-2), and every
    tenth document is for the test: n_tokens rows in all, a tenth of them test.

    The rows are centred and divided by one scale, both from the training rows, so that a column
    has variance 1 on average. They are cached under a key of all that determines them; above
    `in_memory` bytes the arrays are mapped from that file. An interrupted run leaves no file.

    Raises OSError when model or corpus cannot be loaded, ValueError for an unknown module (lists
    them), a corpus without two documents, or too few tokens.
    """
    text = _read_corpus(corpus)
    what = [_fingerprint(model), module, hashlib.sha256(text.encode()).hexdigest()]
    key = hashlib.sha256(json.dumps([*what, n_tokens, context]).encode()).hexdigest()[:16]
    path = Path(cache) / f"{key}.npy"
    n_train = n_tokens - n_tokens // 10
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tokenizer, network = _load_model(model, module, device)
        split = _sequences(tokenizer, text, (n_train, n_tokens - n_train), context)
        part = path.with_name(f".{path.name}.part")
        try:
            _write_activations(part, network, module, split, device)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    mapped = path.stat().st_size > in_memory
    x = torch.from_numpy(np.load(path, mmap_mode="c" if mapped else None))
    return x[:n_train], x[n_train:]


def _read_corpus(corpus):
    if corpus is None:
        from huggingface_hub import hf_hub_download

        try:
            corpus = hf_hub_download(*CORPUS, repo_type="dataset")
        except Exception as error:  # the hub's client raises many kinds
            raise OSError(
                f"the default corpus {CORPUS} cannot be fetched ({type(error).__name__}); "
                "connect to the network, or set CORPUS to a text file of your own"
            ) from error
    if not Path(corpus).is_file():
        raise FileNotFoundError(f"CORPUS {corpus} is not a file; give the path of a text file")
    return Path(corpus).read_text(encoding="utf-8", errors="replace")


def _fingerprint(model):
    """A name on the hub stands for itself; of a folder, what its files hold."""
    if not Path(model).is_dir():
        return str(model)
    files = sorted(p for p in Path(model).rglob("*") if p.is_file())
    return [[p.name, hashlib.sha256(p.read_bytes()).hexdigest()] for p in files]


def _load_model(model, module, device):
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would stay in the notebook's output
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        network = AutoModel.from_pretrained(model).to(device).eval()
    except (OSError, ValueError) as error:
        raise OSError(
            f"the model {model!r} cannot be loaded: it is no folder with a model in it, and the "
            "hub does not know it or cannot be reached; check the name, connect, or give a folder"
        ) from error
    names = [name for name, _ in network.named_modules() if name]
    if module not in names:
        raise ValueError(f"{model} has no module {module!r}; it has {', '.join(names)}")
    return tokenizer, network


def _sequences(tokenizer, text, wanted, context):
    """Token sequences for training and test, `wanted` tokens each beside the first positions."""
    separator = END_OF_DOCUMENT if END_OF_DOCUMENT in text else "\n\n"
    documents = [d.strip() for d in text.split(separator) if d.strip()]
    if len(documents) < 2:
        raise ValueError(
            f"the corpus has {len(documents)} documents and needs 2 or more; separate them by "
            f"{END_OF_DOCUMENT} or by blank lines"
        )
    every = min(10, len(documents))
    split, missing = ([], []), list(wanted)
    for i, document in enumerate(documents):
        part = int(i % every == every - 1)
        if missing[part] < 1:
            continue
        tokens = tokenizer(document, verbose=False)["input_ids"]
        for start in range(0, len(tokens) - 1, context):
            piece = tokens[start : start + min(context, missing[part] + 1)]
            if len(piece) > 1:
                split[part].append(piece)
                missing[part] -= len(piece) - 1
    if max(missing) > 0:
        found = [n - m for n, m in zip(wanted, missing)]
        raise ValueError(
            f"the corpus gives {found[0]} training and {found[1]} test tokens of the {wanted[0]} "
            f"and {wanted[1]} asked for; lower N_TOKENS, or give a larger corpus"
        )
    return split


class _Found(Exception):
    """Thrown by the hook: what comes after the module need not run."""


@torch.no_grad()
def _write_activations(path, network, module, split, device, batch_size=32):
    """Run the sequences and write centred, scaled activations to `path` as they come."""
    found, n_train = [], sum(len(piece) - 1 for piece in split[0])

    def hook(module, inputs, output):
        found.append(output[0] if isinstance(output, tuple) else output)
        raise _Found

    rows, done, total, power = None, 0, 0.0, 0.0
    n_tokens = sum(len(piece) - 1 for part in split for piece in part)
    handle = network.get_submodule(module).register_forward_hook(hook)
    bar = h.progress_bar(n_tokens, "activations", unit="token")
    try:
        for part in split:
            for batch in _equal_lengths(part, batch_size):
                try:
                    network(torch.tensor(batch, device=device))
                except _Found:
                    A = found.pop()[:, 1:].flatten(0, 1).float().cpu().numpy()
                if rows is None:
                    shape = (n_tokens, A.shape[1])
                    rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
                rows[done : done + len(A)] = A
                done += len(A)
                bar.update(len(A))
                if part is split[0]:
                    total += A.sum(0, dtype=np.float64)
                    power += np.square(A, dtype=np.float64).sum()
    finally:
        handle.remove()
        bar.close()
    mean = total / n_train
    scale = ((power / n_train - np.square(mean).sum()) / len(mean)) ** 0.5
    for chunk in np.array_split(rows, 1 + len(rows) // 8192):
        chunk -= mean.astype(np.float32)
        chunk /= np.float32(scale) or 1
    rows.flush()


def _equal_lengths(sequences, batch_size):
    """Batches of sequences of one length: nothing is padded."""
    by_length = {}
    for sequence in sequences:
        by_length.setdefault(len(sequence), []).append(sequence)
    for _, group in sorted(by_length.items()):
        for i in range(0, len(group), batch_size):
            yield group[i : i + batch_size]
