"""lab/report.py: claims and their verdicts, numbers in words, settings, and what is written."""

import json
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lab import report

NAN = float("nan")
CLAIMS = """id,notebook,by,claim,quantity,statistic,comparison,bound,floor,paper,end
good,n,us,It is good.,a,each,>=,0.9,0.1,,
fast,n,us,It is fast.,b,mean,<,3,inf,2 s,
sure,n,us,It is sure.,c,lower end,>,0,0,,
level,n,us,It is level.,d,|mean|,<=,1,0,,
other,m,us,It is good.,a,mean,>=,1,0,,
former,n,us,It was good.,a,,,,,,failed""".split("\n")
MEASURED = {  # what holds, and what does not
    "good": ([[0.95, 0.9], {"L0 6": 0.9}], [[1, 0.89], {"6": [1, 1], "10": [1, 0]}, [1, NAN], []]),
    "fast": ([[1, 4.5]], [[1, NAN], 3.0]),
    "sure": ([[1, 1.2, 0.9]], [[1, 3, -0.5], [1]]),
    "level": ([[-3, 2]], [np.array([-3, 0.5]), [NAN]]),
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("id", MEASURED)
def test_claims_go_by_id(order, id, tmp_path, monkeypatch):
    (tmp_path / "claims.csv").write_text("\n".join(CLAIMS[:1] + CLAIMS[1:][::order]))
    monkeypatch.setattr(report, "display", lambda shown: lines.extend(shown.data.splitlines()))
    for values, holds in ((v, not i) for i in (0, 1) for v in MEASURED[id][i]):
        claims, lines = report.Claims("n", tmp_path / "claims.csv"), []
        claims[id] = values
        claims.show()
        judged = {c["id"]: c["holds"] for c in claims.judge()}
        assert judged == dict.fromkeys(MEASURED) | {id: holds}
        said = {line.split(" | ")[1]: line.split(" | ")[-1] for line in lines}
        assert said[f"It is {id}."] == ("yes |" if holds else "**no** |")
        assert list(said.values()).count("not measured |") == 3
    for id in ("god", "other", "former"):  # unknown, another notebook's, retired
        with pytest.raises(KeyError, match=f"no claim '{id}'"):
            claims[id] = 1


def test_the_list_of_claims():
    rows = pd.read_csv(report.CLAIMS)
    live = rows[rows.end.isna()]
    assert rows.id.is_unique and rows.claim.str.endswith(".").all() and len(live) <= 36
    assert {*live.statistic} <= {*report.STATISTICS} and {*live.comparison} <= {*report.COMPARISONS}
    assert live[["bound", "floor", "quantity"]].notna().all(axis=None)


def test_numbers_in_words():
    values = 0.41, 1.05, 0.0123456, 1234.5, 7, True, "text", None, NAN, [], [3.0, 3.0], [2, 1.5]
    words = "0.4100 1.050 0.01235 1,234 7 True text  – – 3.000 1.500_to_2.000".split(" ")
    assert [report.number(v).replace(" ", "_") for v in values] == words
    frame = pd.DataFrame({"method": ["a", "a", "b", "c"], "v": [1, 3, 2, NAN]})
    assert list(report.summary(frame, "method", ["v"]).v) == ["2.000 ± 1.4", "2.000", "–"]


def test_settings_are_plain_values_in_capitals():
    """Also where cells ran before: neither sizes of one letter nor functions are settings."""
    plain = {"SEEDS": [0, 1], "QUICK": False, "RATE": 0.1, "N_TRAIN": None, "OUTPUT": "figures"}
    later = {"K": 64, "L0": report.number, "ADAM": torch.optim.Adam, "X": torch.ones(2), "x": 1}
    assert report.parameters(plain | later | {"TABLE": pd.DataFrame()}) == plain


@pytest.mark.parametrize("platform, gigabytes", [("darwin", 1), ("linux", 1024)])
def test_memory_on_a_mac_is_in_bytes(platform, gigabytes, monkeypatch):
    usage = SimpleNamespace(getrusage=lambda _: SimpleNamespace(ru_maxrss=2**30), RUSAGE_SELF=0)
    monkeypatch.setitem(sys.modules, "resource", usage)
    monkeypatch.setattr(sys, "platform", platform)
    assert report._peak_memory() == gigabytes


def test_files_are_whole_and_figures_the_same_bits_every_day(tmp_path, monkeypatch):
    folder, claims = report.output_folder(tmp_path / "new" / "folder"), report.Claims("1_theorem")
    claims["identity"], table = [1, NAN], pd.DataFrame({"a": [torch.pi], "b": [NAN]})
    save = dict(parameters={}, claims=claims, folder=folder, table=table, more=torch.ones(2))
    report.save_results("r", **save)
    content = json.loads(old := (folder / "r.json").read_text())
    assert content["table"] == [{"a": torch.pi, "b": None}] and content["more"] == [1, 1]
    assert content["claims"][0]["measured"] == {"": [1, None]} and not content["claims"][0]["floor"]
    (folder / ".r.json.part").mkdir()  # in the way: the new content cannot be written
    with pytest.raises(OSError):
        report.save_results("r", **save | {"more": 0})
    assert (folder / "r.json").read_text() == old
    for today in ("0", "99999999"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", today)
        report.save_figure(plt.figure(figsize=(3.3, 2)), today, folder)
    for kind in ("png", "pdf"):
        assert (folder / f"0.{kind}").read_bytes() == (folder / f"99999999.{kind}").read_bytes()
    with pytest.raises(OSError, match="OUTPUT .*0.png cannot be written"):  # a file, no folder
        report.output_folder(folder / "0.png")
