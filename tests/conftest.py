import os
import sys
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a network
os.environ["MPLBACKEND"] = "Agg"  # figures need no screen
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
torch.set_num_threads(1)  # the tensors are small: on a busy machine threads wait for each other


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt  # after MPLBACKEND

    plt.close("all")


@pytest.fixture
def float64():
    """New models are of double precision: two ways to compute the same agree closely."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def one_after_the_other(monkeypatch):
    """Processes take seconds to start; tests/test_parallel.py tests them."""
    from lab import ablation, benchmark, parallel, plane

    for module in (ablation, benchmark, parallel, plane):
        monkeypatch.setattr(module, "run_in_parallel", lambda f, items, title: [*map(f, items)])
