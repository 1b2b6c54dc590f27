import os
import sys
from pathlib import Path

os.environ.update(MPLBACKEND="Agg", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")  # before torch's tqdm

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "questions")]
torch.set_num_threads(1)  # the tensors are small: on a busy machine threads wait for each other


@pytest.fixture
def float64():
    """New models are of double precision: two ways to compute the same agree closely."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
