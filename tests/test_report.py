"""lab/report.py: claims and their verdicts, numbers in words, and what is written to disk."""

import json

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

import helpers as h
from lab import plots, report

NAN = float("nan")
CLAIMS = """key,notebook,data,by,claim,quantity,comparison,bound,published
good,n,digits,us,It is good,a,>=,0.9,
fast,n,digits,us,It is fast,b,<,3,2 s
good,n,digits,us,the same,c,<=,2,
good,n,text,us,It is good,a,>=,1,
good,m,digits,us,It is good,d,>,1,
"""


def test_judge(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "CLAIMS", tmp_path / "claims.csv")
    report.CLAIMS.write_text(CLAIMS)
    values = ([0.95, 0.89], 2, NAN), ([0.95, 0.9], [1, NAN], 2.9), (None, [], 3)
    for (a, c, b), holds in zip(values, ((0, 1, 0), (1, 0, 1), (0, 0, 0))):
        judged = report.judge("n", {"fast": [b], "good": [a, c]})
        assert [(row["quantity"], row["holds"]) for row in judged] == list(zip("acb", holds))
        assert [row["measured"] for row in judged] == [a, c, b] and judged[2]["published"] == "2 s"
    assert [row["bound"] for row in report.judge("n", {"good": [1]}, "text")] == [1]
    assert [row["holds"] for row in report.judge("n", {"good": [1, 2.5]})][
        1
    ] is False  # not measured
    for odd in ({"more": [1]}, {"fast": [1, 2]}):  # no claim, and a number too many
        with pytest.raises(ValueError):
            report.judge("n", {"good": [1, 1]} | odd)


def test_numbers_in_words():
    values = (0.0123456, 1234.5, 7, True, "text", None, NAN, [], [2, 1.5], [3.0, 3.0], [1, NAN])
    words = "0.01235", "1,234", "7", "True", "text", "", "–", "–", "1.5 to 2", "3", "–"
    assert tuple(map(report.number, values)) == words
    frame = pd.DataFrame({"method": ["a", "a", "b", "c"], "v": [1, 3, 2, NAN]})
    assert list(report.summary(frame, "method", ["v"]).v) == ["2 ± 1.4", "2", "–"]


def test_files(tmp_path, monkeypatch):
    save = dict(parameters={}, claims=[], folder=tmp_path, more=torch.tensor([1.0, NAN]))
    report.save_results("r", table=pd.DataFrame({"a": [torch.pi], "b": [NAN]}), **save)
    content = json.loads(old := (tmp_path / "r.json").read_text())
    assert content["table"] == [{"a": torch.pi, "b": None}] and content["more"] == [1, None]
    (tmp_path / ".r.json.part").mkdir()  # in the way: the new content cannot be written
    with pytest.raises(OSError):
        report.save_results("r", table=pd.DataFrame(), **save)
    assert (tmp_path / "r.json").read_text() == old
    one, fresh = (h.Encoder(3, 2, seed=s) for s in (0, 1))
    report.keep_models([one], {"seed": 0}, tmp_path / "kept")
    for seed, n, name in ((1, 1, "kept"), (0, 2, "kept"), (0, 1, "missing"), (0, 1, "kept")):
        assert not torch.equal(fresh.W, one.W)
        filled = report.fill_models([fresh] * n, {"seed": seed}, tmp_path / name)
    assert filled and torch.equal(fresh.W, one.W) and torch.equal(fresh.b, one.b)
    folder, written = report.output_folder(tmp_path / "new" / "folder"), []
    with plt.rc_context():
        plots.style()
        for today in ("0", "99999999"):  # same figure, same bits
            monkeypatch.setenv("SOURCE_DATE_EPOCH", today)
            report.save_figure(plt.figure(figsize=(3.3, 2)), "a", folder)
            written.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert written[0] == written[1] and set(written[0]) == {"a.png", "a.pdf"}
    assert plt.imread(folder / "a.png").shape[:2] == (600, 990)  # 300 dots an inch, not cropped
    with pytest.raises(OSError, match="OUTPUT .*a.png cannot be written"):  # a file, no folder
        report.output_folder(folder / "a.png")
