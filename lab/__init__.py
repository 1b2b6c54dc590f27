"""What the notebooks need beside helpers.py: CONTRIBUTING.md says where things are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ["1_theorem", "2_ablation", "3_benchmark"]
