"""What the notebooks need beside helpers.py.

data, parallel   images, or the corpus; runs side by side, and their bar
methods          the methods of notebook 3's benchmark
measures         what is measured of trained models
balance          a step of gradient descent, and a row of the best decoder, as means of inputs
plots*, show     what is drawn and shown
record, check    what is saved; a run against the record
language         the benchmark on a language model: `python -m lab.language`
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
