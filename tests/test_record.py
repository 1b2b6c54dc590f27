"""lab/record.py: what a notebook saves, and where."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from lab import ROOT, record

NAN = math.nan


def test_settings_are_the_capitals_before_the_line_that_asks_for_them():
    variables = {"SEEDS": [0, 1], "QUICK": False, "K": 64, "small": 1, "LOSS": record.write}
    settings = {"SEEDS": [0, 1], "QUICK": False, "K": 64}
    assert record.parameters(variables) == settings
    variables |= {"PARAMETERS": settings, "L0": 10}
    assert record.parameters(variables) == settings


def test_numbers_of_a_frame_have_the_seeds_of_each_name():
    index = pd.MultiIndex.from_tuples([("b", 0), ("a", 0), ("b", 1)])
    frame = pd.DataFrame({"l0": [1.0, 2, 3], "cut": [NAN, 5, NAN], "more": 0}, index)
    assert record.numbers(frame, {"l0": 0.5, "cut": 0.1}, "L0 10") == [
        {"method": m, "quantity": q, "place": "L0 10", "tolerance": t, "seeds": seeds}
        for m, q, t, seeds in [
            ("b", "l0", 0.5, [1, 3]),
            ("b", "cut", 0.1, []),
            ("a", "l0", 0.5, [2]),
            ("a", "cut", 0.1, [5]),
        ]
    ]
    by_run = pd.DataFrame({"run": ["C", "C"], "L0": [1.0, 2.0]}).set_index("run")
    assert record.numbers(by_run, {"L0": 1})[0]["seeds"] == [1, 2]


def test_results_are_read_as_they_were_saved(tmp_path):
    frame = pd.DataFrame({"l0": [1.0, NAN], "seed": [0, 1]})
    named = frame.set_index("seed").set_axis(pd.Index(["λ", "b"], name="method"))
    parts = {"parameters": {"SEEDS": [0, 1]}, "criteria": [{"measured": {"": [0.5]}}]}
    more = {"rates": {"a": 0.1}, "table": frame, "curve": torch.ones(2), "mean": np.float32(0.5)}
    nested = {"x": [np.int64(3), (NAN, math.inf)], 6: named}
    record.save_results("2_ablation", tmp_path, numbers=[], **parts, **more, nested=nested)
    found = record.read_results("2_ablation", tmp_path)
    environment = found.pop("environment")
    assert environment["torch"] in torch.__version__ and environment["seconds"] >= 0
    assert 0.05 < environment["peak_memory_gb"] < 100
    assert found == parts | {
        "numbers": [],
        "rates": {"a": 0.1},
        "table": [{"l0": 1.0, "seed": 0}, {"l0": None, "seed": 1}],
        "curve": [1.0, 1.0],
        "mean": 0.5,
        "nested": {"x": [3, [None, None]]}
        | {"6": [{"method": "λ", "l0": 1.0}, {"method": "b", "l0": None}]},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["2_ablation.json"]  # and no part
    for name, first in {"1_theorem": "notebooks/1_theorem.ipynb", "language": "`make lang"}.items():
        with pytest.raises(FileNotFoundError, match=f"is missing: run {first}"):
            record.read_results(name, tmp_path)


def test_an_interrupted_run_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    record.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        record.write_json(path, {"a": object()})
    assert path.read_text() == '{\n "a": 1\n}\n'


def test_figures_are_for_the_record_and_quick_runs_go_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert record.output_folder() == tmp_path / "figures"
    assert record.output_folder("", quick=True) == tmp_path / "build/quick/figures"
    assert record.output_folder("mine", quick=True) == tmp_path / "mine"
    assert record.output_folder(str(tmp_path / "a/b")) == tmp_path / "a/b"
    found = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert (tmp_path / "a/b").is_dir() and not found
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="OUTPUT .*file.* cannot be written"):
        record.output_folder("file")


def test_it_works_where_there_is_no_module_resource_and_no_git():
    """As on Windows, which has the one in no Python and the other not always."""
    code = (
        "import sys, os; sys.modules['resource'] = None; os.environ['PATH'] = ''\n"
        "from lab import record\n"
        "found = record._environment('cpu')\n"
        "assert found['commit'] == 'unknown' and 'peak_memory_gb' not in found, found"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
