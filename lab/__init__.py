"""What the notebooks need beside helpers.py.

data, parallel      images, or the corpus; runs side by side, and their bar
methods             the methods of notebook 3's benchmark
measures            what is measured of trained models
plots*, show        what is drawn and shown
record, check       what is saved; a run against the record
network, language   a language model and its activations; the benchmark on them
publish             `make publish`: the repository's address, written into the notebooks
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = tuple(sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")))
