"""lab/record.py: what a run saves, and whether it agrees with the record."""

import json
import math
import subprocess

import numpy as np
import pandas as pd
import pytest

from lab import NOTEBOOKS, ROOT, record

NAN = math.nan


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "digests", lambda name, modules: {})
    monkeypatch.setenv("OUTPUT", "out")
    return tmp_path / "out"


def test_results_are_read_as_they_were_saved(folder):
    frame = pd.DataFrame({"L0": [3e-15, NAN], "dead units": [3, 0]})
    names = ["method", "units", "seed"]
    frame.index = pd.MultiIndex.from_tuples([("λ", 64, 0), ("λ", 32, 0)], names=names)
    run = record.Run("a", SEEDS=[0, np.int64(1)])
    with pytest.raises(ValueError, match="two rows"):
        run.save(results=pd.concat([frame, frame]))
    run.save(results=frame)
    saved = json.loads((folder / "a.json").read_text("utf-8"))
    assert saved["parameters"] == {"SEEDS": [0, 1]}
    back = record.read_tables(saved)["results"]
    pd.testing.assert_frame_equal(back, frame, rtol=0, atol=0)


@pytest.mark.parametrize("seeds", [[], [0, 1, 0], 3])
def test_seeds_that_are_none_or_repeated_are_refused(folder, seeds):
    with pytest.raises(ValueError, match="SEEDS"):
        record.Run("a", SEEDS=seeds)


def test_an_empty_output_is_a_folder_of_its_own(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT", "")
    assert record.Run("a", SEEDS=[0]).folder == tmp_path / "build/by_hand"


def test_a_run_names_its_commit_and_whether_what_computes_has_changed(folder, tmp_path):
    (tmp_path / "lab").mkdir()
    for words in ("init -q", "commit -q -m first --allow-empty --no-gpg-sign"):
        record.git("-c", "user.name=a", "-c", "user.email=b@c", *words.split())
    commit = record.git("describe", "--always").strip()
    (tmp_path / "figures.txt").write_text("new")
    assert record.Run("a", SEEDS=[0]).commit == commit
    (tmp_path / "lab/b.py").write_text("new")
    assert record.Run("a", SEEDS=[0]).commit == f"{commit}-dirty"


def test_a_digest_is_of_what_computes(tmp_path, monkeypatch):
    """Not of what shows or draws, nor of an address, nor of prose."""
    (tmp_path / "lab/figures").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    files = ["helpers.py", "lab/plane.py", "lab/show.py", "lab/figures/theorem.py"]
    for file in files:
        (tmp_path / file).write_text("a")

    def write(code='REPOSITORY = ""\nx = 1', prose="a"):
        cells = [("code", code), ("markdown", prose)]
        content = {"cells": [{"cell_type": kind, "source": [text]} for kind, text in cells]}
        (tmp_path / "notebooks/1_theorem.ipynb").write_text(json.dumps(content))
        return record.digests("1_theorem", ["os", "lab", "lab.plane", "lab.show", "lab.figures"])

    monkeypatch.setattr(record, "ROOT", tmp_path)
    before = write()
    assert [*before] == ["helpers.py", "lab/plane.py", "notebooks/1_theorem.ipynb"]
    assert write(prose="b") == write(code='REPOSITORY = "there"\nx = 1') == before
    assert write(code='REPOSITORY = ""\nx = 2') != before
    write()
    (tmp_path / "lab/plane.py").write_text("b")
    assert write() != before


def test_criteria_hold_if_all_numbers_compare_so_and_nan_never_does(folder, monkeypatch):
    shown = []
    monkeypatch.setattr(record, "show_table", lambda frame: shown.append(frame.to_string()))
    run = record.Run("a", SEEDS=[0])
    cases = {">=": True, ">": False, "<=": True, "<": False}
    run.show_criteria([("a", 0.9, comparison, 0.9) for comparison in cases])
    assert [row["holds"] for row in run.criteria] == [*cases.values()]
    run.show_criteria([("b", pd.Series([2, 1.23456]), ">", 0.9), ("c", [1, NAN], ">", 0.9)])
    assert [row["holds"] for row in run.criteria] == [True, False]
    assert "1.23 to 2" in shown[-1] and "**fails**" in shown[-1]
    assert run.criteria[-1]["measured"] == [1, None]


# --- Whether a run agrees with the record ---------------------------------------------------------


def a_run(rows, bound=0.89, holds=True, keys=("method", "seed"), **parameters):
    criteria = [{"claim": "Good.", "comparison": ">", "bound": bound, "holds": holds}]
    tables = {"results": {"keys": [*keys], "rows": rows}}
    return {"parameters": parameters, "criteria": criteria, "tables": tables}


def of_seeds(column, values, method="a"):
    return [{"method": method, "seed": seed, column: v} for seed, v in enumerate(values)]


def differ(column, there, here):
    compared = record.differences_from_record(
        a_run(of_seeds(column, there)), a_run(of_seeds(column, here))
    )
    return bool(compared.differs.loc["results", "a", column])


@pytest.mark.parametrize(
    "column, there, near, far",
    [
        ("classifier", 90, 89.6, 89.4),
        ("loss recovered", 80, 78.1, 77.9),
        ("parameters", 50240, 50240, 50241),
        ("variance explained", 50, 51.9, 52.1),
        ("variance explained by the best decoder", 50, 51.9, 52.1),
        ("L0", 10, 10.29, 10.305),
        ("dead units", 3, 4, 5),
        ("agreement", 0.95, 0.931, 0.929),
        ("redundancy", 0.3, 0, -0.3),
        ("epoch of convergence", 30, 34, 35),
    ],
)
def test_each_column_has_its_tolerance(column, there, near, far):
    assert not differ(column, [there], [near]) and differ(column, [there], [far])


def test_a_column_without_a_tolerance_is_an_error():
    with pytest.raises(ValueError, match="no tolerance for .'width'"):
        differ("width", [1], [1])


def test_a_mean_of_seeds_is_held_closer_but_may_move_by_its_own_error():
    apart = [49, 50, 51]  # two errors are 2 * sqrt(2 / 3) = 1.63
    assert [differ("entropy", apart, [50 - d] * 3) for d in (1.6, 1.7)] == [False, True]
    for column in ("classifier", "variance explained"):
        assert differ(column, [50] * 3, [51.5] * 3)  # a point and a half
        assert not differ(column, [50] * 3, [50.2] * 3)
        assert [differ(column, apart, [50 - d] * 3) for d in (1.3, 1.5)] == [False, True]
    assert differ("L0", [10, 10], [10])


def test_rows_are_told_apart_by_their_keys_and_what_is_missing_or_new_differs():
    A, B, C = (of_seeds("L0", [n], m)[0] for m, n in (("a", 5), ("b", 9), ("c", 7)))
    compared = record.differences_from_record(a_run([A, B]), a_run([C, A]))
    expected = {"Good.": False, "a": False, "b": True, "c": True}
    assert compared.differs.groupby("which").any().to_dict() == expected
    for changed in (a_run([A], bound=0.88), a_run([A], holds=False)):
        assert record.differences_from_record(a_run([A]), changed).differs.sum() == 1
    nothing = [A | {"L0": None}]
    both = a_run(nothing + [B])
    assert not record.differences_from_record(both, both).differs.any()
    assert record.differences_from_record(a_run([A, B]), both).differs.any()
    numbers = [{"units": n, "seed": 0, "L0": n} for n in (32, 64)]  # a key that is a number
    compared = record.differences_from_record(
        a_run(numbers, keys=["units", "seed"]), a_run(numbers, keys=["units", "seed"])
    )
    assert len(compared.loc["results"]) == 2 and not compared.differs.any()


def test_the_exit_status_is_zero_if_all_notebooks_were_compared_and_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()

    def status(*contents):  # of notebooks, and of the language model
        for name, content in zip([*NOTEBOOKS, "language"], contents):
            path = tmp_path / f"figures/{name}.json"
            content = content and content | ({"criteria": []} if name == "language" else {})
            path.write_text(json.dumps(content)) if content else path.unlink(missing_ok=True)
        return record.check_against_record()

    same, again = a_run(of_seeds("L0", [5])), a_run(of_seeds("L0", [5.01]))
    worse, other = a_run(of_seeds("L0", [6])), a_run(of_seeds("L0", [5]), K=9)
    commit = "-c user.name=a -c user.email=b@c commit -q -m record --no-gpg-sign"
    for command in ("init -q", "add .", commit):
        assert status(same, same, same, same) == 1  # without git, and the record itself
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    for last in (None, same, other):
        assert status(again, again, again, last) == 0 and status(again, again, last, again) == 1
    assert status(again, again, again, worse) == 1 and status(worse, again, again, again) == 1


def test_the_record_was_computed_by_the_code_that_is_committed():
    for name in (*NOTEBOOKS, "language"):
        of_run = json.loads((ROOT / f"figures/{name}.json").read_text("utf-8"))["code"]
        files = [file for file in of_run if file.startswith("lab/")]
        modules = [file.removesuffix(".py").replace("/", ".") for file in files]
        assert record.digests(name, modules) == of_run
