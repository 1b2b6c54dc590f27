"""MNIST, and the device to work on."""

import hashlib

import numpy as np
import torch

from lab import ROOT

MNIST = ROOT / "data" / "mnist.npz"
MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"


def load_mnist(device="cpu"):
    """x_train (60000, 784), y_train, x_test (10000, 784), y_test: pixels in [0, 1], float32.

    Raises ValueError, saying how to restore it, if the file is missing or is not the one whose
    checksum stands in data/README.md.
    """
    content = MNIST.read_bytes() if MNIST.exists() else b""
    if hashlib.sha256(content).hexdigest() != MNIST_SHA256:
        raise ValueError("MNIST is missing or corrupt: `git checkout -- data/mnist.npz`")
    with np.load(MNIST) as data:
        arrays = {k: torch.from_numpy(data[k]).to(device) for k in data.files}
    x = {k: arrays[k].flatten(1).float() / 255 for k in ("x_train", "x_test")}
    return x["x_train"], arrays["y_train"].long(), x["x_test"], arrays["y_test"].long()


def pick_device(name="auto"):
    """torch.device; "auto" is the GPU if there is one."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if name == "auto" else name)
