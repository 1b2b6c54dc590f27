"""What the notebooks need beside helpers.py.

data, parallel      images, or the corpus; runs side by side, and their bar
methods, variants   what notebook 3 compares; losses and models that helpers.py does not have
measures            what is measured of trained models
plots*, show        what is drawn and shown
record, check       what is saved; a run against the record
language            the benchmark on a language model
publish             `make publish`: the repository's address, written into the notebooks
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = re.search("NOTEBOOKS := (.*)", (ROOT / "Makefile").read_text("utf-8"))[1].split()
