"""The apparatus of the notebooks: none of it is needed to use helpers.py.

data, parallel          images, corpus, device; jobs side by side, and their bar
train                   many models at once
measures                all that is measured of models, one by one and at an equal L0
ablation, growth        the runs of notebook 2, under Adam and under plain gradient descent
methods, tuning         the methods of notebook 3, and the search for their settings
balance                 the gradient and the least-squares decoder, as differences of means
network, language       notebook 3's methods on a language model
criteria, record        what is judged, and what is saved
plots*, tables, show    what is drawn, tabulated and shown
check, readme           a run against the record; the table of README.md
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
