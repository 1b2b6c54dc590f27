"""Images, MNIST or yours, a thousand clothes, and the corpus of the language model."""

import hashlib

import numpy as np
import torch

from lab import ROOT

CHECKSUMS = {  # of data/README.md
    "mnist.npz": "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64",
    "clothes.npz": "ee99fce453e6c5f444c32b880dea594404175030c64fe45412a86c339ee91847",
    "corpus.txt": "3ed624e602911d7a611fc92df7413f3c603b5840b9ab3027bcff3c6f06a077db",
}
ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")
WHAT_IS_NEEDED = "bytes x_train, x_test (N, side, side), whole numbers y_train, y_test (N,)"


def verified_path(file):
    """Return the path of one of CHECKSUMS. Raises ValueError if it is missing or damaged."""
    path = ROOT / "data" / file
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != CHECKSUMS[file]:
        raise ValueError(f"data/{file} is missing or damaged: `git checkout -- data/{file}`")
    return path


def as_rows(images):
    """Return bytes (N, side, side) as pixels from 0 to 1, (N, D)."""
    return torch.from_numpy(images).flatten(1).float() / 255


def load_images(path=""):
    """Return x_train (N, D), y_train, x_test (M, D) and y_test: pixels from 0 to 1, and labels.

    path: an .npz of arrays of these names, seen from the repository: square images of bytes
    (N, side, side), and labels; training rows are shuffled, since a file may be sorted by label.
    "": MNIST in its own order, x_train (60000, 784). Raises ValueError, which says what is wrong.
    """
    file = ROOT / path if path else verified_path("mnist.npz")
    try:
        with np.load(file) as archive:
            x_train, y_train, x_test, y_test = (archive[name] for name in ARRAY_NAMES)
    except Exception as error:  # of many kinds: no file, no archive, a part of one, no such array
        raise ValueError(f"DATA: {file} is no .npz of {WHAT_IS_NEEDED}: {error!r}") from None
    for x, y in ((x_train, y_train), (x_test, y_test)):
        square = x.ndim == 3 and x.shape[1] == x.shape[2] == x_train.shape[1]
        if x.dtype != np.uint8 or not square or y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
            raise ValueError(f"DATA: {file} needs {WHAT_IS_NEEDED}")
    y_train, y_test = (torch.from_numpy(y.astype(np.int64)) for y in (y_train, y_test))
    x_train, x_test = as_rows(x_train), as_rows(x_test)
    if path:
        order = torch.randperm(len(x_train), generator=torch.Generator().manual_seed(0))
        x_train, y_train = x_train[order], y_train[order]
    return x_train, y_train, x_test, y_test


def load_clothes():
    """Return the first thousand test images of Fashion-MNIST, (1000, 784)."""
    with np.load(verified_path("clothes.npz")) as archive:
        return as_rows(archive["x"])


def load_documents():
    """Return the documents of data/corpus.txt, a list of texts."""
    text = verified_path("corpus.txt").read_text(encoding="utf-8")
    return [document.strip() for document in text.split("<|endoftext|>")]
