"""lab/record.py: what a notebook saves, and where."""

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lab import record

NAN = math.nan


def test_settings_are_the_capitals_before_the_line_that_asks_for_them():
    variables = {"SEEDS": [0, 1], "QUICK": False, "small": 1, "LOSS": record.write}
    settings = {"SEEDS": [0, 1], "QUICK": False}
    assert record.parameters(variables) == settings
    assert record.parameters(variables | {"PARAMETERS": settings, "L0": 10}) == settings


def test_numbers_of_a_frame_have_the_seeds_of_each_name():
    index = pd.MultiIndex.from_tuples([("b", 0), ("a", 0), ("b", 1)])
    frame = pd.DataFrame({"l0": [1.0, 2, 3], "cut": [NAN, 5, NAN], "more": 0}, index)
    found = record.numbers(frame, {"l0": 0.5, "cut": 0.1}, "L0 10")
    first = {"method": "b", "quantity": "l0", "place": "L0 10", "tolerance": 0.5, "seeds": [1, 3]}
    assert found[0] == first
    assert [(n["method"], n["quantity"], n["tolerance"], n["seeds"]) for n in found[1:]] == [
        ("b", "cut", 0.1, []),
        ("a", "l0", 0.5, [2]),
        ("a", "cut", 0.1, [5]),
    ]


def test_results_are_read_as_they_were_saved(tmp_path):
    frame = pd.DataFrame({"l0": [1.0, NAN]}, pd.Index(["λ", "b"], name="method"))
    plain = {"parameters": {"SEEDS": [0, 1]}, "criteria": [{"measured": {"": [0.5]}}]}
    plain |= {"numbers": [], "rates": {"a": 0.1}}
    more = {"table": frame, "rows": frame.reset_index(drop=True), "curve": torch.ones(2)}
    more |= {"mean": np.float32(0.5), "nested": {6: [np.int64(3), (NAN, math.inf)]}}
    record.save_results("2_ablation", tmp_path, **plain, **more)
    found = record.read_results("2_ablation", tmp_path)
    environment = found.pop("environment")
    assert environment["torch"] in torch.__version__ and environment["seconds"] >= 0
    assert 0.05 < environment["peak_memory_gb"] < 100
    assert found == plain | {
        "table": [{"method": "λ", "l0": 1.0}, {"method": "b", "l0": None}],
        "rows": [{"l0": 1.0}, {"l0": None}],
        "curve": [1.0, 1.0],
        "mean": 0.5,
        "nested": {"6": [3, [None, None]]},
    }
    with pytest.raises(FileNotFoundError, match="is missing: run notebooks/1_theorem.ipynb first"):
        record.read_results("1_theorem", tmp_path)
    assert record.read_results("2_ablation", tmp_path, SEEDS=[0, 1])["rates"] == {"a": 0.1}
    with pytest.raises(ValueError, match="of another DATA: run notebooks/2_ablation.ipynb with"):
        record.read_results("2_ablation", tmp_path, DATA="mine.npz", SEEDS=[0, 1])


def test_an_interrupted_run_leaves_the_old_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    record.write_json(tmp_path / "a.json", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]  # and no part of it
    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        record.write_json(tmp_path / "a.json", {"a": 2})
    assert (tmp_path / "a.json").read_text() == '{\n "a": 1\n}\n'


def test_figures_are_for_the_record_and_quick_runs_go_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert record.output_folder() == tmp_path / "figures"
    assert record.output_folder("", quick=True) == tmp_path / "build/quick/figures"
    assert record.output_folder("mine/a", quick=True) == tmp_path / "mine/a"
    assert (tmp_path / "mine/a").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="OUTPUT .*file.* cannot be written"):
        record.output_folder("file")


def test_it_works_where_there_is_no_module_resource_and_no_git(monkeypatch):
    """As on Windows, which has the one in no Python and the other not always."""
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setenv("PATH", "")
    exec(Path(record.__file__).read_text("utf-8"), module := {"__name__": "on Windows"})
    found = module["_environment"]("cpu")
    assert found["commit"] == "unknown" and "peak_memory_gb" not in found
