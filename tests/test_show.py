"""lab/show.py: the tables that notebooks show."""

import math

import pandas as pd
import pytest

from lab import show


@pytest.fixture
def lines(monkeypatch):
    """The lines of the tables shown, without spaces."""
    shown = []
    monkeypatch.setattr(
        show, "display", lambda table: shown.append(table.data.replace(" ", "").splitlines())
    )
    return shown


def test_numbers_of_seeds():
    assert show.mean_and_deviation([1621, 1802, 1983], 0) == "1,802 ± 181"
    for values, text in {(0.5, 0.5): "0.50", (-0.0001,): "0.00", (1, math.nan): "–"}.items():
        assert show.mean_and_deviation(values, 2) == text
    assert show.lowest_to_highest([0.984, 0.921, 0.95], 2) == "0.92 to 0.98"
    assert show.lowest_to_highest([0.984, 0.983], 2) == "0.98"


def test_a_summary_has_the_rows_in_their_order_and_the_papers_numbers(lines):
    keys = pd.MultiIndex.from_tuples([("B", 0), ("A", 0), ("B", 1)], names=["run", "seed"])
    table = pd.DataFrame({"L0": [1, 5, 3], "dead units": [0, 7, 0]}, keys)
    columns = {"dead units": ("dead", 0), "L0": ("L0", 2)}
    beside = pd.DataFrame({"expected": ["few", "many"]}, index=["B", "A"])
    show.show_summary("run", table, columns, {"A": {"L0": "17.10"}}, beside)
    assert lines[0] == [
        "|run|expected|dead|L0|",
        lines[0][1],
        "|B|few|0|2.00±1.41|",
        "|A|many|7|5.00(17.10)|",
    ]
    two = pd.concat({"on": table, "off": table}, names=["competition"])
    show.show_summary("run", two, {"L0": ("L0", 0)})
    assert lines[1][2:] == ["|on,B|2±1|", "|on,A|5|", "|off,B|2±1|", "|off,A|5|"]


def test_ranges_and_crossed_tables_have_a_part_of_the_index_across(lines):
    keys = [("C", "on", 0), ("C", "on", 1), ("B", "on", 0), ("B", "off", 0), ("C", "off", 0)]
    names = ["loss", "competition", "seed"]
    index = pd.MultiIndex.from_tuples(keys, names=names)
    table = pd.DataFrame({"L0": [1, 3, 5, 7, 9], "redundancy": [2, 4, 6, 8, 10]}, index)
    show.show_ranges("loss", table, "L0", 0)
    assert lines[0] == ["|loss|on|off|", lines[0][1], "|C|1to3|9|", "|B|5|7|"]
    show.show_two_way("loss", table, {"redundancy": ("red", 0), "L0": ("L0", 0)})
    assert lines[1][2:] == ["|C:red|3±1|10|", "|C:L0|2±1|9|", "|B:red|6|8|", "|B:L0|5|7|"]


def test_a_page_is_whole_where_it_may_load_no_other_files(monkeypatch):
    page = show.whole_page("on_digits.html")
    assert "const DIGITS = " in page and '<script src="' not in page
    shown = []
    monkeypatch.setattr(show, "display", lambda content, raw: shown.append(content["text/html"]))
    for by_hand in (True, False):
        monkeypatch.setattr(show, "RUN_BY_HAND", by_hand)
        show.show_page("on_digits.html", 900)
    assert "const DIGITS" in shown[0] and 'src="on_digits.html"' in shown[1]
