import os
import sys
from pathlib import Path

import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a network
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
torch.set_num_threads(1)  # the tensors are small: on a busy machine threads wait for each other
