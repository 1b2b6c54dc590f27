import os
import sys
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a network
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
torch.set_num_threads(1)  # the tensors are small: on a busy machine threads wait for each other


@pytest.fixture
def float64():
    """New models are of double precision: two ways to compute the same agree closely."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def digits():
    """Some MNIST digits of 14 x 14 pixels: x (2000, 196), y, x_test (1000, 196), y_test."""
    from lab.data import load_images

    x, y, x_test, y_test = load_images()
    small = [
        torch.nn.functional.avg_pool2d(images.view(-1, 28, 28), 2).flatten(1)
        for images in (x[:2000], x_test[:1000])
    ]
    return small[0], y[:2000], small[1], y_test[:1000]
