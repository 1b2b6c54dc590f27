"""The rules of check.py, and how record.py puts outputs into their places."""

import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from check import differing, of_means, of_rows
from check import main as check_tables
from conftest import ROOT
from record import with_outputs

RECORD = pd.DataFrame(
    {
        "loss": ["B", "B", "B", "C", "C", "C", "one"],
        "seed": [0, 1, 2, 0, 1, 2, 0],
        "redundancy": [1617.0, 1815.0, 1916.0, 29.0, 27.6, 28.5, 50.0],
        "L0": [17.7, 16.9, 17.1, 17.6, 17.8, 17.1, 10.0],
    }
)


def moved(loss, column, by, compare):
    run = RECORD.copy()
    run.loc[run["loss"] == loss, column] += by
    return [*differing(compare(run.sample(frac=1, random_state=0), RECORD)).index]


@pytest.mark.parametrize(
    "loss, column, small, large",
    [
        ("B", "redundancy", 140, 295),  # one standard deviation is 153
        ("B", "redundancy", -140, -295),
        ("C", "L0", 0.35, 1.5),  # 2% are .35, one standard deviation .36
        ("C", "redundancy", 0.6, 0.8),  # 2% are .57, one standard deviation .71
        ("one", "L0", 0.9, 1.1),  # one seed: 10%
    ],
)
def test_means_differ_beyond_the_rule(loss, column, small, large):
    assert moved(loss, column, small, of_means) == []
    assert moved(loss, column, large, of_means) == [(loss, column)]


def test_the_more_seeds_the_less_may_a_mean_be_off():
    """Of 84 starts of 100, the standard error is .037."""
    record = pd.DataFrame({"loss": "C", "seed": range(100), "finds all": [1] * 84 + [0] * 16})
    for found, differs in ((90, False), (78, False), (91, True), (77, True)):
        run = record.assign(**{"finds all": [1] * found + [0] * (100 - found)})
        assert len(differing(of_means(run, record))) == differs


def test_rows_differ_by_more_than_a_hundredth_in_one_of_them():
    assert moved("one", "L0", 0.09, of_rows) == []
    assert moved("one", "L0", -0.11, of_rows) == [("one", 0, "L0")]
    swapped = RECORD.assign(seed=[1, 0, *RECORD["seed"][2:]])
    assert len(differing(of_means(swapped, RECORD))) == 0
    assert len(differing(of_rows(swapped, RECORD))) == 4
    assert not len(differing(of_rows(*2 * [RECORD.assign(L0=float("nan"))])))


@pytest.mark.parametrize("compare", [of_means, of_rows])
def test_what_only_one_of_them_has_differs(compare):
    for run, record in ((RECORD[3:], RECORD), (RECORD, RECORD[3:])):
        assert {key[0] for key in differing(compare(run, record)).index} == {"B"}
    assert {key[-1] for key in differing(compare(RECORD.drop(columns="L0"), RECORD)).index} == {
        "L0"
    }
    assert len(differing(compare(RECORD.assign(L0=float("nan")), RECORD)))


def git(folder, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", folder, *name, *words], check=True, capture_output=True)


def test_full_runs_are_compared_with_the_last_commit(tmp_path):
    for folder in ("tests", "figures", "build/1"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy2(ROOT / "tests/check.py", tmp_path / "tests")
    for name in ("1.csv", "1_more.csv", "other.csv"):  # no run writes the last
        RECORD.to_csv(tmp_path / "figures" / name, index=False)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "figures")
    git(tmp_path, "commit", "-qm", "record")

    def check():
        command = [sys.executable, tmp_path / "tests/check.py"]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        return done.returncode, done.stdout

    RECORD.to_csv(tmp_path / "build/1/1.csv", index=False)
    status, said = check()
    assert status == 2 and "make figures" in said  # it has not ended
    (tmp_path / "build/1.ipynb").touch()
    status, said = check()
    assert status == 1 and "1_more.csv" in said and "other" not in said  # it was not written
    RECORD.to_csv(tmp_path / "build/1/1_more.csv", index=False)
    assert check() == (0, "12 numbers of 2 tables compared, 0 differ\n")
    RECORD.replace(50.0, 70.0).to_csv(tmp_path / "build/1/1.csv", index=False)
    status, said = check()
    assert status == 1 and "70" in said


def test_two_folders_are_compared(tmp_path):
    run, record = tmp_path / "run", tmp_path / "record"
    for folder in (run, record):
        folder.mkdir()
        RECORD.to_csv(folder / "a.csv", index=False)
    assert check_tables(run, record) == 0
    RECORD.replace(50.0, 51.0).to_csv(run / "a.csv", index=False)
    assert check_tables(run, record) == check_tables(record, run) == 1


def test_outputs_are_put_into_the_notebook_whose_code_ran():
    result = nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=4)
    parameter = nbformat.v4.new_code_cell("A = 2", metadata={"tags": ["injected-parameters"]})
    ran = [nbformat.v4.new_code_cell("A = 1", execution_count=1), parameter]
    ran += [nbformat.v4.new_code_cell("A", execution_count=4, outputs=[result])]
    text = nbformat.v4.new_markdown_cell("text, written after the run")
    cells = [nbformat.v4.new_code_cell("A = 1"), text, nbformat.v4.new_code_cell("A")]
    executed = nbformat.v4.new_notebook(cells=ran)
    found = with_outputs(nbformat.v4.new_notebook(cells=cells), executed).cells
    assert [cell.source for cell in found] == ["A = 1", text.source, "A"]
    assert found[2].outputs[0].data["text/plain"] == "2"
    assert found[2].execution_count == found[2].outputs[0].execution_count == 2
    cells[2].source = "A + 1"
    with pytest.raises(ValueError, match="changed"):
        with_outputs(nbformat.v4.new_notebook(cells=cells), executed)
