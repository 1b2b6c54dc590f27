"""The rule of the record, what check.py says, and how the record is renewed."""

import os
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from check import compare_with_record
from check import main as check_tables
from conftest import ROOT
from record import main as put_into_place

RECORD = pd.DataFrame(
    {
        "loss": ["B", "B", "B", "C", "C", "C", "one"],
        "seed": [0, 1, 2, 0, 1, 2, 0],
        "redundancy": [1617.0, 1815.0, 1916.0, 29.0, 27.6, 28.5, 50.0],
        "L0": [17.7, 16.9, 17.1, 17.6, 17.8, 17.1, 10.0],
    }
)


def differing(change, loss, column):
    run = RECORD.copy()
    run.loc[run["loss"] == loss, column] = change(run.loc[run["loss"] == loss, column])
    both = compare_with_record(run.sample(frac=1, random_state=0), RECORD)
    return [*both.index[both["differs"]]]


@pytest.mark.parametrize(
    "loss, column, small, large",
    [
        ("B", "redundancy", 140, 295),  # one standard deviation is 153
        ("B", "redundancy", -140, -295),
        ("C", "L0", 0.35, 1.5),  # 2% are .35, one standard deviation .37
        ("C", "redundancy", 0.6, 0.8),  # 2% are .57, one standard deviation .71
        ("one", "L0", 0.9, 1.1),  # one seed: 10%
    ],
)
def test_a_number_differs_beyond_the_rule(loss, column, small, large):
    assert differing(lambda v: v + small, loss, column) == []
    assert differing(lambda v: v + large, loss, column) == [(loss, column)]


@pytest.mark.parametrize("seeds, small, large", [([9, 11], 1.4, 1.45), ([9.9, 10.1], 0.9, 1.1)])
def test_two_seeds_are_allowed_one_standard_deviation_or_a_tenth(seeds, small, large):
    record = pd.DataFrame({"loss": "C", "seed": [0, 1], "L0": seeds})
    for off, differs in ((small, False), (large, True)):  # the deviations are 1.41 and .14
        run = record.assign(L0=record["L0"] + off)
        assert compare_with_record(run, record)["differs"].all() == differs


def test_the_more_seeds_the_less_may_a_mean_be_off():
    """Of 84 starts of 100, the standard error is .037."""
    record = pd.DataFrame({"loss": "C", "seed": range(100), "finds all": [1] * 84 + [0] * 16})
    for found, differs in ((90, False), (78, False), (91, True), (77, True)):
        run = record.assign(**{"finds all": [1] * found + [0] * (100 - found)})
        assert compare_with_record(run, record)["differs"].all() == differs


def test_what_only_one_of_them_has_differs():
    for run, record in ((RECORD[3:], RECORD), (RECORD, RECORD[3:])):
        both = compare_with_record(run, record)
        assert {key[0] for key in both.index[both["differs"]]} == {"B"}
    renamed = compare_with_record(RECORD.replace("one", "two"), RECORD)
    assert {key[0] for key in renamed.index[renamed["differs"]]} == {"one", "two"}
    assert compare_with_record(RECORD.drop(columns="L0"), RECORD)["differs"].sum() == 3
    assert compare_with_record(RECORD.assign(L0=float("nan")), RECORD)["differs"].sum() == 3


def test_fewer_seeds_differ():
    lost = RECORD.assign(L0=RECORD["L0"].where(RECORD["seed"] == 0))
    assert compare_with_record(lost, RECORD)["differs"].sum() == 2
    assert compare_with_record(RECORD[RECORD["seed"] < 2], RECORD)["differs"].sum() == 4


def test_truth_values_are_numbers_and_what_neither_has_is_equal():
    record = pd.DataFrame({"loss": "A", "seed": range(4), "dead": [True, True, True, False]})
    assert not compare_with_record(record, record)["differs"].any()
    assert compare_with_record(record.assign(dead=False), record)["differs"].all()
    empty = record.assign(dead=float("nan"))
    assert not compare_with_record(empty, empty)["differs"].any()


def git(folder, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", folder, *name, *words], check=True, capture_output=True)


def test_a_run_is_compared_with_the_last_commit(tmp_path):
    (tmp_path / "tests").mkdir()
    shutil.copy2(ROOT / "tests/check.py", tmp_path / "tests")
    (tmp_path / "figures").mkdir()
    for name in ("a.csv", "other.csv"):  # no run writes the other
        RECORD.to_csv(tmp_path / "figures" / name, index=False)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "record")

    def check():
        command = [sys.executable, tmp_path / "tests/check.py"]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        return done.returncode, done.stdout

    status, said = check()
    assert status == 2 and "make figures" in said  # nothing was run
    (tmp_path / "build/1").mkdir(parents=True)
    table = tmp_path / "build/1/a.csv"
    RECORD.to_csv(table, index=False)
    status, said = check()
    assert status == 2 and "make figures" in said  # it has not ended
    (tmp_path / "build/1.ipynb").touch()
    assert check() == (0, "6 numbers of 1 tables compared, 0 differ\n")
    RECORD.replace(50.0, 70.0).to_csv(table, index=False)
    status, said = check()
    assert status == 1 and "a.csv" in said and "70" in said
    table.rename(tmp_path / "build/1/b.csv")
    status, said = check()
    assert status == 1 and "b.csv" in said


def test_two_folders_are_compared(tmp_path, capsys):
    for name in ("run", "record"):
        (tmp_path / name).mkdir()
        RECORD.to_csv(tmp_path / name / "a.csv", index=False)
    run, record = tmp_path / "run", tmp_path / "record"
    assert check_tables(run, record) == 0
    RECORD.replace(50.0, 70.0).to_csv(run / "a.csv", index=False)
    assert check_tables(run, record) == check_tables(record, run) == 1
    RECORD.to_csv(run / "a.csv", index=False)
    RECORD.to_csv(record / "b.csv", index=False)
    capsys.readouterr()
    assert check_tables(run, record) == 1 and "b.csv" in capsys.readouterr().out


def test_a_notebook_that_has_run_is_put_into_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    result = nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=4)
    printed = nbformat.v4.new_output("stream", text="1")
    cells = [
        nbformat.v4.new_markdown_cell("text", metadata={"papermill": {"duration": 1}}),
        nbformat.v4.new_code_cell("A = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("A = 2", metadata={"tags": ["injected-parameters"]}),
        nbformat.v4.new_code_cell("A", execution_count=4, outputs=[printed, result]),
    ]
    about = {
        "language_info": {"name": "python", "version": "3.11.7"},
        "papermill": {"version": "2"},
    }
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=about)
    nbformat.write(notebook, tmp_path / "build/a.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "a.ipynb")
    os.utime(tmp_path / "a.ipynb", (0, 0))
    put_into_place(["a.ipynb"])
    found = nbformat.read(tmp_path / "a.ipynb", 4)
    assert found.metadata == {"language_info": {"name": "python"}}
    assert [cell.source for cell in found.cells] == ["text", "A = 1", "A"]
    assert [cell.metadata for cell in found.cells] == [{}, {"tags": ["parameters"]}, {}]
    assert [found.cells[i].execution_count for i in (1, 2)] == [1, 2]
    assert [o.get("execution_count") for o in found.cells[2].outputs] == [None, 2]
    executed = tmp_path / "build/a.ipynb"
    assert executed.stat().st_mtime >= (tmp_path / "a.ipynb").stat().st_mtime  # up to date
    os.utime(executed, (0, 0))
    shutil.copy2(tmp_path / "a.ipynb", tmp_path / "first.ipynb")
    nbformat.write(notebook, tmp_path / "build/first.ipynb")
    before = (tmp_path / "first.ipynb").read_bytes()
    with pytest.raises(SystemExit, match="a.ipynb has changed"):
        put_into_place(["first.ipynb", "a.ipynb"])
    assert (tmp_path / "first.ipynb").read_bytes() == before  # all or none
