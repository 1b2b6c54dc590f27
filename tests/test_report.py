"""report.py: claims and their verdicts, numbers in words, and what is written to disk."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import helpers as h
import report

NAN = float("nan")


def test_judge():
    good, fast = ("accuracy", ">=", 0.9), ("seconds", "<", 3)
    claims = [report.claim("both", "paper", "It is good and fast", good, fast, published="0.93")]
    claims.append(report.claim("good", "companion", "It is good", good))
    one_too_bad, undefined = ([[0.95, 0.89], 2], [False, True]), ([[1, NAN], NAN], [False, False])
    nothing = [[], 2], [False, True]  # was measured
    for measured, holds in (([[0.95, 0.9], 2.9], [True, True]), one_too_bad, undefined, nothing):
        both, single = report.judge(claims, {"good": [0.9], "both": measured})
        assert [c["holds"] for c in both["criteria"]] == holds and single["holds"] is True
        assert both["holds"] == all(holds) and both["published"] == "0.93"
        assert [c["measured"] for c in both["criteria"]] == measured
    for measured, odd in (({}, "good"), ({"good": [1], "more": [1]}, "more")):
        with pytest.raises(ValueError, match=f"differ: {{'{odd}'}}"):
            report.judge(claims, {"both": [1, 1]} | measured)
    with pytest.raises(ValueError):  # a criterion that nothing was measured for
        report.judge(claims, {"both": [1], "good": [1]})


def test_numbers_in_words():
    values = (0.0123456, 1234.5, 7, True, "text", None, NAN, [], [2, 1.5], [3.0, 3.0])
    words = "0.01235", "1,234", "7", "True", "text", "", *2 * ["undefined"], "1.5 to 2", "3"
    assert tuple(map(report.number, values)) == words
    frame = pd.DataFrame({"method": ["a", "a", "b", "c"], "v": [1, 3, 2, NAN]})
    assert list(report.summary(frame, "method", ["v"]).v) == ["2 ± 1.4", "2", "undefined"]
    half = 4.302653 * (1 / 3) ** 0.5  # Student's t for two degrees of freedom at 97.5 %
    assert report.interval([1, 2, 3]) == pytest.approx((2, 2 - half, 2 + half), rel=1e-6)


def test_ratio_at_equal_l0():
    """Errors 2 / l0 and 1 / l0, for seeds 0 and 1 times 1 or 1.5; seed 2 does not reach L0 6."""
    rows = [("ours", s, n, 2 / n * f, 90 + s) for s, f in ((0, 1), (1, 1.5)) for n in (3, 9)]
    rows += [("SAE", s, n, 1 / n, 90) for s in (0, 1, 2) for n in (2, 12 - 8 * (s == 2))]
    table = pd.DataFrame(rows, columns=["method", "seed", "l0", "gain", "probe"])
    got = report.at_equal_l0(table, "SAE", "gain", 6)
    assert got.to_dict() == pytest.approx({0: 1 / 6, 1: 1 / 6})
    expected = np.exp(report.interval(np.log([2, 3])))
    assert report.ratio(table, "ours", "SAE", "gain", 6) == pytest.approx(tuple(expected))
    expected = report.interval([0, 1])
    assert report.ratio(table, "ours", "SAE", "probe", 6) == pytest.approx(expected)
    assert np.isnan(report.ratio(table, "ours", "SAE", "gain", 20)).all()


def test_results(tmp_path):
    save = dict(parameters={"K": 4}, claims=[], folder=tmp_path, more=torch.tensor([1.0, NAN]))
    report.save_results("r", table=pd.DataFrame({"a": np.float32([0.5]), "b": [NAN]}), **save)
    old = (tmp_path / "r.json").read_bytes()
    environment = (content := json.loads(old)).pop("environment")
    table = [{"a": 0.5, "b": None}]
    assert content == {"parameters": {"K": 4}, "claims": [], "table": table, "more": [1, None]}
    assert environment["numpy"] == np.__version__ and environment["threads"] >= 1
    assert {"python", "torch", "processor", "wall_seconds", "peak_memory_gb"} <= set(environment)
    (tmp_path / ".r.json.part").mkdir()  # in the way: the new content cannot be written
    with pytest.raises(OSError):
        report.save_results("r", table=pd.DataFrame(), **save)
    assert (tmp_path / "r.json").read_bytes() == old


def test_models_for_another_notebook(tmp_path):
    models, path = [h.Encoder(3, 2, seed=s) for s in (0, 1)], tmp_path / "C.pt"
    report.keep_models(models, {"seed": [0, 1]}, path)
    fresh = [h.Encoder(3, 2, seed=s) for s in (2, 3)]
    for other, file in (({"seed": [0, 2]}, path), ({"seed": [0, 1]}, tmp_path / "none.pt")):
        assert not report.fill_models(fresh, other, file)
    assert not report.fill_models(fresh[:1], {"seed": [0, 1]}, path)
    assert not torch.equal(fresh[0].W, models[0].W)
    assert report.fill_models(fresh, {"seed": [0, 1]}, path)
    assert all(torch.equal(a.W, b.W) and torch.equal(a.b, b.b) for a, b in zip(fresh, models))


def test_output(tmp_path, monkeypatch):
    folder, written = report.output_folder(tmp_path / "new" / "folder"), []
    for today in ("0", "99999999"):  # same figure, same bits
        monkeypatch.setenv("SOURCE_DATE_EPOCH", today)
        report.save_figure(plt.figure(), "a", folder)
        written.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert written[0] == written[1] and set(written[0]) == {"a.png", "a.pdf"}
    for path in (folder / "a.png", folder / "a.png" / "below"):  # a file, not a folder
        with pytest.raises(OSError, match=f"OUTPUT {re.escape(str(path))} cannot be written"):
            report.output_folder(path)
