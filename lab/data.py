"""Images, MNIST or yours, a thousand clothes, and the corpus of the language model."""

import base64
import hashlib
import io

import numpy as np
import torch
from PIL import Image

from lab import ROOT

CHECKSUMS = {  # of data/README.md
    "mnist.npz": "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64",
    "clothes.npz": "ee99fce453e6c5f444c32b880dea594404175030c64fe45412a86c339ee91847",
    "corpus.txt": "3ed624e602911d7a611fc92df7413f3c603b5840b9ab3027bcff3c6f06a077db",
}
MIN_TRAIN_ROWS = 512  # training rows: the largest minibatch of the notebooks
ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")
ARRAYS_NEEDED = "bytes x_train, x_test (N, side, side), whole numbers y_train, y_test (N,)"


def verified_path(file):
    """Return the path of one of CHECKSUMS. Raises ValueError if it is missing or damaged."""
    path = ROOT / "data" / file
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != CHECKSUMS[file]:
        raise ValueError(f"data/{file} is missing or damaged: `git checkout -- data/{file}`")
    return path


def as_rows(images):
    """Return bytes (N, side, side) as pixels from 0 to 1, (N, D)."""
    return torch.from_numpy(images).flatten(1).float() / 255


def load_images(path="", n_train=None):
    """Return x_train (N, D), y_train, x_test (M, D) and y_test: pixels from 0 to 1, and labels.

    path: an .npz of arrays of these names, seen from the repository: square images of bytes
    (N, side, side), 255 the darkest ink, and labels; training rows are shuffled, since a file may
    be sorted by label. "": MNIST in its own order, x_train (60000, 784). n_train: how many training
    rows at most, the first; all if None. Raises ValueError, which says what is wrong.
    """
    file = ROOT / path if path else verified_path("mnist.npz")
    try:
        with np.load(file) as archive:
            x_train, y_train, x_test, y_test = (archive[name] for name in ARRAY_NAMES)
    except Exception as error:  # of many kinds: no file, no archive, a part of one, no such array
        raise ValueError(f"DATA: {file} is no .npz of {ARRAYS_NEEDED}: {error!r}") from None
    for x, y in ((x_train, y_train), (x_test, y_test)):
        square = x.ndim == 3 and x.shape[1] == x.shape[2] == x_train.shape[1]
        if x.dtype != np.uint8 or not square or y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
            raise ValueError(f"DATA: {file} needs {ARRAYS_NEEDED}")
    if x_train.size == 0 or np.ptp(x_train) < 64:  # units would die
        raise ValueError(
            f"DATA: {file}: the bytes of x_train hardly differ; ink should be near 255"
        )
    if len({*y_train.tolist()}) < 2 or min(np.unique(y_test, return_counts=True)[1], default=0) < 2:
        raise ValueError(
            f"DATA: {file}: y_train needs two classes, and each class of y_test two images or more"
        )
    y_train, y_test = (torch.from_numpy(y.astype(np.int64)) for y in (y_train, y_test))
    x_train, x_test = as_rows(x_train), as_rows(x_test)
    if path:
        order = torch.randperm(len(x_train), generator=torch.Generator().manual_seed(0))
        x_train, y_train = x_train[order], y_train[order]
    if n_train is not None:
        if n_train < MIN_TRAIN_ROWS or len(x_train) < MIN_TRAIN_ROWS:
            raise ValueError(f"N_TRAIN, or DATA, has too few images: it needs {MIN_TRAIN_ROWS}")
        x_train, y_train = x_train[:n_train], y_train[:n_train]
    return x_train, y_train, x_test, y_test


def load_clothes():
    """Return the first thousand test images of Fashion-MNIST, (1000, 784)."""
    with np.load(verified_path("clothes.npz")) as archive:
        return as_rows(archive["x"])


def load_documents():
    """Return the documents of data/corpus.txt, a list of texts."""
    text = verified_path("corpus.txt").read_text(encoding="utf-8")
    return [document.strip() for document in text.split("<|endoftext|>")]


def write_digits(path, n=6000):
    """Write the first n digits of MNIST as the script that notebooks/on_digits.html loads.

    DIGITS is a PNG of 16 greys, one digit in each row of 784 pixels, and LABELS a text of n digits.
    A script, because a page that is opened from disk may read no other files.
    """
    with np.load(verified_path("mnist.npz")) as archive:
        images, labels = archive["x_train"][:n].reshape(n, -1), archive["y_train"][:n]
    picture = Image.fromarray(np.rint(images / 17).astype(np.uint8), "P")
    picture.putpalette([17 * grey for grey in range(16) for _ in "rgb"])
    png = io.BytesIO()
    picture.save(png, "PNG", bits=4, optimize=True)
    lines = [
        f"// The first {n:,} digits of MNIST, Y. LeCun, C. Cortes, C. J. C. Burges, CC BY-SA 3.0",
        "// (https://creativecommons.org/licenses/by-sa/3.0/), in 16 greys: one digit in each row",
        "// of a PNG; and their labels. Written by lab.data.write_digits.",
        f'const DIGITS = "data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}";',
        f'const LABELS = "{"".join(map(str, labels))}";',
    ]
    path.write_bytes("\n".join([*lines, ""]).encode())
