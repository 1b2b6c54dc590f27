"""lab/show.py: numbers as text, tables, and files of figures."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from lab import show
from lab.record import criterion

NAN = math.nan


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, and its metadata."""
    calls = []
    monkeypatch.setattr(show, "display", lambda what, **more: calls.append((what, more)))
    return calls


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


def test_a_summary_keeps_the_order_of_the_groups_and_adds_the_papers_numbers():
    frame = pd.DataFrame({"run": list("BAB"), "l0": [1, 5, 3], "dead": [0, 7, 0]})
    found = show.summary(frame, "run", ["dead", "l0"], "runs", {"l0": {"A": "4"}})
    assert list(found.index) == ["B", "A"] and found.index.name == "runs"
    assert list(found) == ["dead units", "L0"]
    assert found.values.tolist() == [["0", "2.0 ± 1.4"], ["7", "5.0 (4)"]]
    spans = show.summary(frame, "run", ["l0"], text=show.span)
    assert [*spans.L0] == ["1.0 to 3.0", "5.0"] and spans.index.name == "run"


def test_tables_have_a_named_index_escaped_bars_and_dashes(shown):
    frame = pd.DataFrame({"|W|": [50240, 3], "r": [0.62412, NAN]}, index=["C", "D|E"])
    named = "|  | \\|W\\| | r |\n| --- | --- | --- |\n| C | 50,240 | 0.6241 |\n| D\\|E | 3 | – |"
    show.table(frame.rename_axis(""))
    assert shown[0][0].data == named
    others = pd.DataFrame({"a": [1234.5, 0.00001234, True, None]}, dtype=object)
    rows = ["| a |", "| --- |", "| 1,234 |", "| 1.234e-05 |", "| True |", "| – |"]
    assert show.markdown(others).splitlines() == rows


def test_criteria_show_their_bound_what_was_measured_and_whether_they_hold(shown):
    rows = [("It is good.", [0.96123, 0.9, 0.95], ">=", 0.9), ("It is fast.", 1234.5, "<", 1000)]
    assert show.criteria(rows) == [criterion(*row) for row in rows]
    assert shown[0][0].data.splitlines()[2:] == [
        "| It is good. | >= 0.9 | 0.9 to 0.961 | holds |",
        "| It is fast. | < 1000 | 1,234 | **fails** |",
    ]


@pytest.mark.parametrize("measured", [[NAN, 1.0], [1.0, NAN], [NAN], []])
def test_criteria_do_not_hide_that_a_number_is_missing(measured, shown):
    show.criteria([("It is good.", measured, ">", 0)])
    assert "| **fails** |" in shown[0][0].data
    assert "nan" in shown[0][0].data or "–" in shown[0][0].data


def test_the_same_figure_gives_the_same_files(tmp_path, shown):
    def files(*where):
        fig, axis = plt.subplots(figsize=(1, 1))
        fig.alt = "A line."
        axis.plot([1, 2], label="a")
        show.figure(fig, *where)
        assert not plt.fignum_exists(fig.number)
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert files() == {} and len(shown) == 1
    found = files("1_theorem", tmp_path)
    assert found == files("1_theorem", tmp_path)
    assert sorted(found) == ["1_theorem.pdf", "1_theorem.png"]
    assert b"CreationDate" not in found["1_theorem.pdf"]  # which two files of a second share
    assert found["1_theorem.png"][:4] == b"\x89PNG" and found["1_theorem.pdf"][:4] == b"%PDF"
    assert shown[0][1] == {"metadata": {"image/png": {"alt": "A line."}}}


def test_large_negative_numbers_are_rounded_as_positive_ones():
    frame = pd.DataFrame({"a": [-12345.6], "b": [-0.12345]})
    assert show.markdown(frame).splitlines()[-1] == "| -12,346 | -0.1235 |"
