"""lab/show.py: numbers as text, tables, and files of figures."""

import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import helpers as h
from lab import show

matplotlib.use("Agg")
NAN = math.nan


@pytest.mark.parametrize(
    "values, digits, expected",
    [
        ([1621, 1802, 1983], 0, "1,802 ± 181"),
        (torch.tensor([0.25]), 2, "0.25"),
        ([0.5, 0.5], 1, "0.5"),
        ([-0.0001], 2, "0.00"),
        ([], 2, "–"),
        ([1, NAN], 2, "–"),
    ],
)
def test_spread(values, digits, expected):
    assert show.spread(values, digits) == expected


def test_mean_and_span():
    assert show.mean([1, NAN, 2000], 1) == "1,000.5"
    assert show.mean([NAN], 1) == show.mean([], 1) == "–"
    assert show.span(pd.Series([0.996, 0.984, 0.99]), 3) == "0.984 to 0.996"
    assert show.span([0.9961, 0.9959], 3) == "0.996"
    assert show.span([1, NAN], 3) == show.span([], 3) == "–"


def test_spreads_keep_the_order_of_the_groups():
    frame = pd.DataFrame({"run": list("BAB"), "l0": [1, 5, 3], "dead": [0, 7, 0]})
    found = show.spreads(frame, "run", {"dead": 0, "l0": 1})
    assert found.to_dict("index") == {
        "B": {"dead": "0", "l0": "2.0 ± 1.4"},
        "A": {"dead": "7", "l0": "5.0"},
    }
    assert list(found.index) == ["B", "A"] and list(found) == ["dead", "l0"]


def test_tables_have_a_named_index_escaped_bars_and_dashes():
    frame = pd.DataFrame({"|W|": [50240, 3], "r": [0.62412, NAN]}, index=["C", "D|E"])
    named = "|  | \\|W\\| | r |\n| --- | --- | --- |\n| C | 50,240 | 0.6241 |\n| D\\|E | 3 | – |"
    assert show.markdown(frame.rename_axis("")) == named
    unnamed = "| \\|W\\| | r |\n| --- | --- |\n| 50,240 | 0.6241 |\n| 3 | – |"
    assert show.markdown(frame) == unnamed
    others = pd.DataFrame({"a": [1234.5, np.float64(0.00001234), True, None]}, dtype=object)
    cells = [line.strip("| ") for line in show.markdown(others).splitlines()[2:]]
    assert cells == ["1,234", "1.234e-05", "True", "–"]


def test_what_a_notebook_shows_of_a_table_and_of_source(monkeypatch):
    shown = []
    monkeypatch.setattr(show, "display", lambda markdown: shown.append(markdown.data))
    show.table(pd.DataFrame({"a": [1]}))
    show.source(h.l0, h.dead)
    assert shown[0] == "| a |\n| --- |\n| 1 |"
    assert shown[1].startswith("```python\ndef l0(A):") and "\n\n\ndef dead(A):" in shown[1]


def test_the_same_figure_gives_the_same_files(tmp_path, monkeypatch):
    described = []
    monkeypatch.setattr(show, "display", lambda _, metadata: described.append(metadata))

    def files():
        fig, axis = plt.subplots()
        axis.plot([1, 2], label="a")
        show.figure(fig, "1_theorem", tmp_path)
        assert not plt.fignum_exists(fig.number)
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    found = files()
    assert found == files() and sorted(found) == ["1_theorem.pdf", "1_theorem.png"]
    assert b"CreationDate" not in found["1_theorem.pdf"]
    assert found["1_theorem.png"][:4] == b"\x89PNG" and found["1_theorem.pdf"][:4] == b"%PDF"
    assert described[0]["image/png"]["alt"].startswith("Gradient against responsibility")
