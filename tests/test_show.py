"""lab/show.py: numbers as text, tables, and files of figures."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import torch

from lab import show

NAN = math.nan


def test_numbers_of_seeds_as_text():
    assert show.spread([1621, 1802, 1983], 0) == "1,802 ± 181"
    assert show.spread(torch.tensor([0.25]), 2) == "0.25" and show.spread([0.5, 0.5], 1) == "0.5"
    assert show.spread([-0.0001], 2) == show.mean([-0.0001], 2) == "0.00"
    assert show.span([-0.0001, 0.0001], 2) == "0.00"
    assert show.mean([1, NAN, 2000], 1) == "1,000.5"
    assert show.span(pd.Series([0.996, 0.984, 0.99]), 3) == "0.984 to 0.996"
    assert show.span([0.9961, 0.9959], 3) == "0.996"
    for text in (show.spread, show.mean, show.span):  # a dash stands for no number
        assert text([], 2) == text([NAN], 2) == "–"
    assert show.spread([1, NAN], 2) == show.span([1, NAN], 2) == "–"


def test_spreads_keep_the_order_of_the_groups():
    frame = pd.DataFrame({"run": list("BAB"), "l0": [1, 5, 3], "dead": [0, 7, 0]})
    found = show.spreads(frame, "run", {"dead": 0, "l0": 1})
    assert list(found.index) == ["B", "A"] and list(found) == ["dead", "l0"]
    assert found.values.tolist() == [["0", "2.0 ± 1.4"], ["7", "5.0"]]


def test_tables_have_a_named_index_escaped_bars_and_dashes():
    frame = pd.DataFrame({"|W|": [50240, 3], "r": [0.62412, NAN]}, index=["C", "D|E"])
    named = "|  | \\|W\\| | r |\n| --- | --- | --- |\n| C | 50,240 | 0.6241 |\n| D\\|E | 3 | – |"
    assert show.markdown(frame.rename_axis("")) == named
    others = pd.DataFrame({"a": [1234.5, 0.00001234, True, None]}, dtype=object)
    rows = ["| a |", "| --- |", "| 1,234 |", "| 1.234e-05 |", "| True |", "| – |"]
    assert show.markdown(others).splitlines() == rows


def test_the_same_figure_gives_the_same_files(tmp_path, monkeypatch):
    described = []
    monkeypatch.setattr(show, "display", lambda _, metadata: described.append(metadata))

    def files():
        fig, axis = plt.subplots(figsize=(1, 1))
        axis.plot([1, 2], label="a")
        show.figure(fig, "1_theorem", tmp_path)
        assert not plt.fignum_exists(fig.number)
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    found = files()
    assert found == files() and sorted(found) == ["1_theorem.pdf", "1_theorem.png"]
    assert b"CreationDate" not in found["1_theorem.pdf"]  # which two files of a second share
    assert found["1_theorem.png"][:4] == b"\x89PNG" and found["1_theorem.pdf"][:4] == b"%PDF"
    assert described[0]["image/png"]["alt"].startswith("Gradient against responsibility")
