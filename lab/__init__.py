"""The apparatus of the notebooks: none of it is needed to use helpers.py."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
