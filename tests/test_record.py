"""lab/check.py and lab/record.py: criteria, comparison with the record, and what is saved."""

import csv
import json
import math
import subprocess

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from lab import check, record

NAN = math.nan
CLAIMS = """id,notebook,by,methods,claim,quantity,statistic,comparison,bound,tolerance,paper,end
each,n,us,the revised loss,It is good.,a,each,>=,0.9,0.1,,
mean,n,us,,It is fast.,b,mean,<,3,0.1,2 s,
size,n,us,,It is small.,c,|mean|,<=,1,0.1,,
sure,n,us,,It is sure.,d,lower end,>,0,0.1,,
former,n,us,,It was good.,e,mean,>,0,0.1,,failed
other,m,us,,It is good elsewhere.,f,mean,>,0,0.1,,
"""
MEASURED = {"each": 1, "mean": 1, "size": 1, "sure": [1.0, 1.1, 1.2]}  # all of them hold


@pytest.fixture(autouse=True)
def claims(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "CLAIMS", tmp_path / "claims.csv")
    check.CLAIMS.write_text(CLAIMS)


@pytest.mark.parametrize(
    "id, values, holds",
    [
        ("each", [0.95, 0.9], True),
        ("each", {"L0 6": np.array(0.9), 10: torch.tensor([1.0, 2.0])}, True),
        ("each", [1, 0.89], False),
        ("each", {"L0 6": [1, 1], "L0 10": [1, 0]}, False),
        ("each", [1, NAN], False),
        ("each", [], False),
        ("each", {}, False),
        ("mean", [1, 4.5], True),
        ("mean", pd.Series([2.9]), True),
        ("mean", 3, False),
        ("mean", [1, NAN], False),
        ("size", [-3, 2], True),
        ("size", [-3, 0.5], False),
        ("sure", [1, 1.2, 0.9], True),
        ("sure", [1, 3, -0.5], False),
        ("sure", [1, 1, NAN], False),
        ("sure", 1, False),  # one value has no interval
    ],
)
def test_judge(id, values, holds):
    rows = check.judge("n", MEASURED | {id: values})
    assert {row["id"]: row["holds"] for row in rows} == dict.fromkeys(MEASURED, True) | {id: holds}


def test_judge_wants_all_live_criteria_and_no_others():
    for id in ("unknown", "other", "former"):
        with pytest.raises(KeyError, match=id):
            check.judge("n", MEASURED | {id: 1})
    with pytest.raises(KeyError, match="sure"):
        check.judge("n", {id: 1 for id in MEASURED if id != "sure"})


def test_interval_is_student_s():
    values = np.random.default_rng(0).normal(size=5).tolist()
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert check.interval(values) == pytest.approx((np.mean(values), *expected))


def test_rows_of_claims_csv():
    with open(check.ROOT / "notebooks" / "claims.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids)
    assert {row["notebook"] for row in rows} <= set(check.RECORDS)
    for row in rows:
        if not row["end"]:
            assert row["statistic"] in check.STATISTICS and row["comparison"] in check.COMPARISONS
            assert math.isfinite(float(row["bound"])) and float(row["tolerance"]) > 0


# --- make check, make readme ----------------------------------------------------------------


def a_record():
    seeds = {"explained": [0.4, 0.41, 0.42], "least_squares": [0.6, 0.6, 0.6]}
    numbers = [
        {"method": m, "quantity": q, "place": "L0 10", "tolerance": 0.01, "seeds": seeds[q]}
        for m in check.README_METHODS
        for q in seeds
    ]
    return {
        "parameters": {"EPOCHS": 6, "OUTPUT": "figures"},
        "environment": {"commit": "1234567"},
        "criteria": check.judge("n", MEASURED | {"each": [0.92, 0.94, 0.96]}),
        "numbers": numbers,
        "rates": dict.fromkeys(check.README_METHODS, 0.004),
        "parameters_of": dict.fromkeys(check.README_METHODS, 50240),
    }


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a record for each notebook and a README.md that agrees with it."""
    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()
    for name in check.RECORDS:
        (tmp_path / "figures" / f"{name}.json").write_text(json.dumps(a_record()))
    (tmp_path / "README.md").write_text("Before. <!-- result --> <!-- /result --> After.\n")
    check.fill_readme()
    for command in ("init", "add .", "-c user.name=a -c user.email=b@c commit -m record"):
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True, capture_output=True)
    return tmp_path


def set_seeds(run, *seeds):
    run["numbers"][0]["seeds"] = seeds


def set_criterion(run, **measured):
    run["criteria"] = check.judge("n", MEASURED | measured)


def retune(run):
    """One method at another rate: its numbers are far off, and those of no other."""
    run["rates"]["the paper's loss"] = 0.1
    for number in run["numbers"]:
        if number["method"] == "the paper's loss":
            number["seeds"] = [9.0, 9.0, 9.0]


@pytest.mark.parametrize(
    "change, status, said",
    [
        (lambda run: set_seeds(run, 0.405, 0.415, 0.425), 0, "agrees"),  # within the tolerance
        (lambda run: set_seeds(run, 0.43, 0.42, 0.45), 0, "agrees"),  # within 5 standard errors
        (lambda run: set_seeds(run, 0.5, 0.51, 0.52), 1, "NO: the paper's loss, explained, L0 10"),
        (lambda run: set_seeds(run, 0.41, 0.42), 1, "3 seeds in the record, 2 in your run"),
        (lambda run: set_seeds(run, 0.41, 0.42, None), 1, "3 seeds in the record, 2 in your run"),
        (lambda run: set_criterion(run, each=[0.89, 0.94, 0.96]), 0, "close to its bound: each"),
        (lambda run: set_criterion(run, mean=5), 1, "NO: mean: holds in the record, fails in your"),
        (lambda run: run["parameters"].update(OUTPUT="elsewhere"), 0, "agrees"),
        (lambda run: run["parameters"].update(EPOCHS=7), 2, "other parameters: EPOCHS"),
        (retune, 0, "left out: the paper's loss, explained, L0 10"),
    ],
)
def test_check(change, status, said, repository, capsys):
    run = a_record()
    change(run)
    (repository / "figures/2_ablation.json").write_text(json.dumps(run))
    assert check.check() == status
    out = capsys.readouterr().out
    assert said in out
    last = out.splitlines()[-1]
    assert last.startswith(f"{int(status != 2)} of 4 files are runs of yours: ")
    assert status == 2 or "1_theorem is the committed record itself" in last


def test_check_of_the_record_itself_of_a_missing_file_and_of_the_readme(repository, capsys):
    assert check.check() == 0
    said = capsys.readouterr().out
    assert said.count("this shows nothing about a run of yours") == 4
    assert said.endswith("0 of 4 files are runs of yours: nothing was compared\n")
    page = repository / "README.md"
    page.write_text(page.read_text().replace("0.410 ± 0.010", "0.900 ± 0.010", 1))
    assert check.check() == 1
    check.fill_readme()
    (repository / "figures/1_theorem.json").unlink()
    assert check.check() == 2


def test_table_of_the_readme(repository):
    lines = (repository / "README.md").read_text().splitlines()
    assert lines[0] == "Before. <!-- result -->" and lines[-1] == "<!-- /result --> After."
    assert lines[4] == "| the paper's loss | 50,240 | 0.410 ± 0.010 | 0.600 |"
    methods = [line.split(" | ")[0][2:] for line in lines[4:-2]]
    assert methods == list(check.README_METHODS)


# --- lab/record.py --------------------------------------------------------------------------


def test_spread():
    assert record.spread([1621, 1802, 1983], 0) == "1,802 ± 181"
    assert record.spread(torch.tensor([0.41]), 3) == "0.410"
    assert record.spread([-0.0001], 2) == "0.00"
    assert record.spread([], 2) == record.spread([1, NAN], 2) == "–"


def test_tables_show_a_named_index_and_escape_bars(monkeypatch):
    shown = []
    monkeypatch.setattr(record, "display", lambda markdown: shown.append(markdown.data))
    frame = pd.DataFrame({"|W|": [50240, 3], "r": [0.62412, NAN]}, index=["C", "D"])
    record.show_table(frame.rename_axis(""))
    record.show_table(frame)
    assert shown == [
        "|  | \\|W\\| | r |\n| --- | --- | --- |\n| C | 50,240 | 0.6241 |\n| D | 3 | – |",
        "| \\|W\\| | r |\n| --- | --- |\n| 50,240 | 0.6241 |\n| 3 | – |",
    ]


def test_settings_are_the_capitals_before_the_line_that_asks_for_them():
    variables = {"SEEDS": [0, 1], "QUICK": False, "K": 64, "small": 1, "LOSS": record.spread}
    settings = {"SEEDS": [0, 1], "QUICK": False, "K": 64}
    assert record.parameters(variables) == settings
    variables |= {"PARAMETERS": settings, "L0": 10}
    assert record.parameters(variables) == settings


def test_results_are_read_as_they_were_saved(tmp_path):
    frame = pd.DataFrame({"l0": [1.0, NAN], "seed": [0, 1]})
    parts = {"parameters": {"SEEDS": [0, 1]}, "criteria": check.judge("n", MEASURED)}
    more = {"rates": {"a": 0.1}, "table": frame, "curve": torch.ones(2), "mean": np.float32(0.5)}
    record.save_results("2_ablation", tmp_path, numbers=[], **parts, **more)
    found = record.read_results("2_ablation", tmp_path)
    assert found.pop("environment")["torch"] in torch.__version__
    table = [{"l0": 1.0, "seed": 0}, {"l0": None, "seed": 1}]
    expected = {"numbers": [], "rates": {"a": 0.1}, "table": table, "curve": [1.0, 1.0]}
    assert found == parts | expected | {"mean": 0.5}
    with pytest.raises(FileNotFoundError, match="run notebooks/1_theorem.ipynb first"):
        record.read_results("1_theorem", tmp_path)
