"""lab/show.py: numbers as text, tables, figures and sliders."""

import math
from functools import partial

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


def test_a_summary_keeps_the_order_of_the_groups_and_adds_the_papers_numbers_by_name():
    frame = pd.DataFrame({"run": list("BAB"), "l0": [1, 5, 3], "dead": [0, 7, 0]})
    paper = pd.DataFrame({"l0": [NAN, 1234.5]}, index=["B", "A"])
    found = show.summary(frame, "run", ["dead", "l0"], paper=paper)
    assert list(found.index) == ["B", "A"] and found.index.name == "run"
    assert list(found) == ["dead units", "L0"]
    assert found.values.tolist() == [["0", "2.0 ± 1.4"], ["7", "5.0 (1,234.5)"]]
    cosines = {name: heading for name, (heading, _) in show.COLUMNS.items() if " and " in name}
    assert len(cosines) == 3 and all(name in heading for name, heading in cosines.items())
    names = ("explained", "explained_best", "norm-matched", "mse")
    own, best, matched, mse = (show.COLUMNS[name][0] for name in names)
    assert "best" in best and "best" not in own and "matched" in matched and "gain" in mse
    spans = show.summary(frame, "run", ["l0"], show.span)
    assert [*spans.L0] == ["1.0 to 3.0", "5.0"]


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


def draw(power=2, color="red"):
    fig, axis = plt.subplots(figsize=(1, 1))
    fig.alt = f"{color} {power}"
    return fig


def test_a_figure_is_shown_with_its_description_and_closed(shown):
    show.figure(fig := draw())
    assert shown == [(fig, {"metadata": {"image/png": {"alt": "red 2"}}})]
    assert not plt.fignum_exists(fig.number)


def test_without_a_reader_there_is_the_figure_of_the_defaults_and_no_widget(shown, monkeypatch):
    monkeypatch.setattr(show, "live", lambda: False)
    show.interactive(draw, power=(0, 4), color=["red", "blue"])
    ((fig, _),) = shown
    assert fig.alt == "red 2"


def test_a_reader_gets_a_control_for_each_choice_which_redraws_when_it_is_let_go(
    shown, monkeypatch
):
    monkeypatch.setattr(show, "live", lambda: True)
    show.interactive(partial(draw, power=3), power=(0, 4), color=["red", "blue"])
    *_, (box, _) = shown
    slider, menu, _ = box.children
    assert (slider.min, slider.max, slider.value, slider.description) == (0, 4, 3, "power")
    assert not slider.continuous_update and isinstance(slider.value, int)
    assert menu.options == ("red", "blue") and menu.value == "red"
    assert shown[0][0].alt == "red 3"
    menu.value = "blue"
    slider.value = 1
    assert [what.alt for what, _ in shown[-2:]] == ["blue 3", "blue 1"]
    show.interactive(lambda share=0.5: draw(share), share=(0.0, 1.0, 0.25))
    control = shown[-1][0].children[0]
    assert (control.max, control.step, control.value) == (1.0, 0.25, 0.5)


def test_large_negative_numbers_are_rounded_as_positive_ones():
    frame = pd.DataFrame({"a": [-12345.6], "b": [-0.12345]})
    assert show.markdown(frame).splitlines()[-1] == "| -12,346 | -0.1235 |"
