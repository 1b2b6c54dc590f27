"""lab/record.py: what a notebook saves, and where."""

import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lab import record

NAN = math.nan


def test_settings_are_plain_values_with_names_in_capitals():
    settings = {"SEEDS": [0, (1.5, None)], "QUICK": False, "DATA": ""}
    others = {"small": 1, "LOSS": record.write, "PARAMETERS": settings, "RUNS": [1, {}], "X": NAN}
    assert record.parameters(settings | others) == settings | {"X": NAN}


def test_a_criterion_holds_if_all_its_numbers_do():
    for comparison, holds in {">=": True, ">": False, "<=": True, "<": False}.items():
        row = {"claim": "It is good.", "comparison": comparison, "bound": 0.9}
        row |= {"measured": [0.9], "holds": holds}
        assert record.criterion("It is good.", 0.9, comparison, 0.9) == row
    for values, holds in {(1, 2): True, (1, 0.8): False, (1, NAN): False, (): False}.items():
        for kind in (list, pd.Series, torch.tensor):
            row = record.criterion("It is good.", kind(values), ">", 0.9)
            assert row["holds"] is holds and len(row["measured"]) == len(values)
    assert not record.criterion("It is good.", [NAN, 0], "<", 0.9)["holds"]


def test_results_are_read_as_they_were_saved(tmp_path):
    frame = pd.DataFrame({"method": ["λ", "b"], "seed": [0, 0], "l0": [1.5, NAN], "dead": [3, 0]})
    parameters = {"SEEDS": [0, np.int64(1)], "LAMS": (0.5, np.float32(0.25), math.inf)}
    criteria = [record.criterion("It is good.", [NAN, np.float64(1)], ">", 0)]
    record.save("2_ablation", tmp_path, parameters, criteria, runs=frame)
    assert "NaN" not in (tmp_path / "2_ablation.json").read_text()
    found = record.read("2_ablation", tmp_path)
    assert found["parameters"] == {"SEEDS": [0, 1], "LAMS": [0.5, 0.25, None]}
    assert found["criteria"] == [criteria[0] | {"measured": [None, 1.0]}]
    pd.testing.assert_frame_equal(found["tables"]["runs"], frame, check_dtype=True)
    environment = found["environment"]
    assert environment["torch"] in torch.__version__ and environment["seconds"] >= 0
    assert 0.05 < environment["peak_memory_gb"] < 100
    for name, first in {"1_theorem": "make figures", "language": "make language"}.items():
        with pytest.raises(FileNotFoundError, match=f"{name}.json is missing: run `{first}`"):
            record.read(name, tmp_path)


def test_a_table_whose_rows_cannot_be_told_apart_is_not_saved(tmp_path):
    for columns, said in (
        ({"method": ["a", "b"], "l0": [1, 2]}, "lack a seed"),
        ({"method": ["a", "a"], "seed": [0, 0], "l0": [1, 2]}, "do not tell its rows apart"),
        ({"loss": [1.5, 2.5], "seed": [0, 0]}, "do not tell its rows apart"),  # measured
    ):
        with pytest.raises(ValueError, match=said):
            record.save("2_ablation", tmp_path, {}, [], runs=pd.DataFrame(columns))
    assert not [*tmp_path.iterdir()]


def test_an_interrupted_run_leaves_the_old_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    record.write(tmp_path / "a.json", b"old")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]  # and no part of it
    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        record.write(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_only_a_run_that_is_told_to_writes_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.delenv("FIGURES", raising=False)
    assert record.output_folder() == tmp_path / "build/figures"
    assert record.output_folder(quick=True) == tmp_path / "build/quick/figures"
    monkeypatch.setenv("FIGURES", "mine/a")
    assert record.output_folder(quick=True) == tmp_path / "mine/a"
    assert (tmp_path / "mine/a").is_dir()
    monkeypatch.setenv("FIGURES", "figures")
    assert record.output_folder() == tmp_path / "figures"
    with pytest.raises(ValueError, match="QUICK is True"):
        record.output_folder(quick=True)
    (tmp_path / "file").touch()
    monkeypatch.setenv("FIGURES", "file")
    with pytest.raises(OSError, match="file cannot be written"):
        record.output_folder()


def test_the_same_figure_gives_the_same_files_and_is_closed(tmp_path):
    def files():
        fig, axis = plt.subplots(figsize=(1, 1))
        axis.plot([1, 2], label="a")
        assert record.save_figure(fig, "1_theorem", tmp_path) is fig
        assert not plt.fignum_exists(fig.number)
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    found = files()
    assert sorted(found) == ["1_theorem.pdf", "1_theorem.png"] and found == files()
    assert b"CreationDate" not in found["1_theorem.pdf"]  # which two files of a second share
    assert found["1_theorem.png"][:4] == b"\x89PNG" and found["1_theorem.pdf"][:4] == b"%PDF"


def test_it_works_where_there_is_no_module_resource_and_no_git(monkeypatch):
    """As on Windows, which has the one in no Python and the other not always."""
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setenv("PATH", "")
    exec(Path(record.__file__).read_text("utf-8"), module := {"__name__": "on Windows"})
    found = module["_environment"]()
    assert found["commit"] == "unknown" and "peak_memory_gb" not in found


def test_a_run_is_found_by_its_parameters_in_the_folders_before_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    for folder, seed, l0 in (("figures", 0, 1.0), ("mine", 0, 2.0), ("other", 1, 3.0)):
        (tmp_path / folder).mkdir()
        runs = pd.DataFrame({"seed": [seed], "l0": [l0]})
        record.save("3_benchmark", tmp_path / folder, {"SEEDS": [seed]}, [], runs=runs)

    def found(seed, *folders):
        run = record.find("3_benchmark", {"SEEDS": (seed,)}, *(tmp_path / f for f in folders))
        return run and run["tables"]["runs"].l0[0]

    assert found(0, "mine") == 2 and found(0) == found(0, "nowhere", "other") == 1
    assert found(1, "mine", "other") == 3 and found(1) is None
