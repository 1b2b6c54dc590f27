"""MNIST, or images of yours; and the corpus of the language model."""

import hashlib

import numpy as np
import torch

from lab import ROOT

FILES = {  # of data/README.md: name, checksum
    "MNIST": ("mnist.npz", "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"),
    "corpus": ("corpus.txt", "3ed624e602911d7a611fc92df7413f3c603b5840b9ab3027bcff3c6f06a077db"),
}
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
NEEDED = "bytes x_train, x_test (N, side, side), whole numbers y_train, y_test (N,)"


def verified(name):
    """Return the path of one of FILES. Raises ValueError if it is missing or damaged."""
    file, checksum = FILES[name]
    path = ROOT / "data" / file
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
        raise ValueError(f"{name} is missing or damaged: `git checkout -- data/{file}`")
    return path


def load_images(path=""):
    """Return x_train (N, D), y_train, x_test (M, D) and y_test: pixels in [0, 1], and labels.

    path: an .npz of arrays of these names, seen from the repository: square images of bytes
    (N, side, side), and labels; training rows are shuffled, since a file may be sorted by label.
    "": MNIST in its own order, x_train (60000, 784). Raises ValueError, which says what is wrong.
    """
    file = ROOT / path if path else verified("MNIST")
    try:
        with np.load(file) as archive:
            arrays = dict(archive)
        x_train, y_train, x_test, y_test = (torch.from_numpy(arrays[name]) for name in ARRAYS)
    except Exception as error:  # of many kinds: no file, no archive, a part of one, no such array
        raise ValueError(f"DATA: {file} is no .npz of {NEEDED}: {error!r}") from None
    for x, y in ((x_train, y_train), (x_test, y_test)):
        square = x.dim() == 3 and x.shape[1] == x.shape[2] == x_train.shape[1]
        if x.dtype != torch.uint8 or not square or y.is_floating_point() or y.shape != x.shape[:1]:
            shapes = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
            raise ValueError(f"DATA: {file} needs {NEEDED}; it has {shapes}")
    x_train, x_test = (x.flatten(1).float() / 255 for x in (x_train, x_test))
    if path:
        order = torch.randperm(len(x_train), generator=torch.Generator().manual_seed(0))
        x_train, y_train = x_train[order], y_train[order]
    return x_train, y_train.long(), x_test, y_test.long()


def load_documents():
    """Return the documents of data/corpus.txt, a list of texts. Raises ValueError if it is missing
    or damaged."""
    text = verified("corpus").read_text(encoding="utf-8")
    return [document.strip() for document in text.split("<|endoftext|>")]
