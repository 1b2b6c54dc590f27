import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a network
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
