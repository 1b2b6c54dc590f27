import json
import os
import sys
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a network
os.environ["MPLBACKEND"] = "Agg"  # figures need no screen
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
torch.set_num_threads(1)  # the tensors are small: on a busy machine threads wait for each other


@pytest.fixture
def float64():
    """New models are of double precision: two ways to compute the same agree closely."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def committed_record():
    """Skips the tests of texts where figures/ holds another run than the committed one."""
    from lab import ROOT, check, record

    for name in check.RECORDS:
        path = f"figures/{name}.json"
        committed, file = record.git("show", f"HEAD:./{path}"), ROOT / path
        here = file.read_text(encoding="utf-8") if file.exists() else "{}"
        ours, yours = (json.loads(text or here) | {"environment": {}} for text in (committed, here))
        if ours != yours:
            pytest.skip(f"{path} is not the run that the texts tell of: `make check` compares it")
