"""lab/report.py: claims and their verdicts, numbers in words, settings, and what is written."""

import json
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lab import plots, report

NAN = float("nan")
CLAIMS = """id,notebook,by,claim,quantity,statistic,comparison,bound,floor,paper,end
good,n,us,It is good.,a,each,>=,0.9,0.1,,
fast,n,us,It is fast.,b,mean,<,3,inf,2 s,
sure,n,us,It is sure.,c,lower end,>,0,0,,
level,n,us,It is level.,d,|mean|,<=,1,0,,
other,m,us,It is good.,a,mean,>=,1,0,,
former,n,us,It was good.,a,,,,,,failed
""".splitlines()
MEASURED = [
    ("good", [0.95, 0.9], True),
    ("good", [0.95, 0.89], False),
    ("good", {"L0 6": [1, 1], "L0 10": [1, 0.8]}, False),
    ("good", {"L0 6": [1, NAN]}, False),
    ("good", [], False),
    ("good", {}, None),
    ("fast", [1, 4.5], True),
    ("fast", [1, NAN], False),
    ("fast", torch.tensor(3.0).numpy(), False),
    ("sure", [1, 1.2, 0.9], True),
    ("sure", [1, 3, -0.5], False),
    ("sure", [1], False),
    ("level", [-3, 2.5], True),
    ("level", np.array([-3, 0.5]), False),
]


@pytest.fixture(params=[1, -1])
def claims(request, tmp_path):
    """The rows in this order and the other: what is measured goes by id."""
    (tmp_path / "claims.csv").write_text("\n".join(CLAIMS[:1] + CLAIMS[1:][:: request.param]))
    return report.Claims("n", tmp_path / "claims.csv")


@pytest.mark.parametrize("id, values, holds", MEASURED)
def test_verdicts(claims, id, values, holds, monkeypatch):
    claims[id] = values
    expected = dict.fromkeys(("good", "fast", "sure", "level")) | {id: holds}
    assert {c["id"]: c["holds"] for c in claims.judge()} == expected
    monkeypatch.setattr(report, "display", lambda shown: lines.extend(shown.data.splitlines()))
    lines, words = [], {True: "| yes |", False: "| **no** |", None: "| not measured |"}
    claims.show()
    assert [words[holds] in line for line in lines if f"It is {id}." in line] == [True]
    assert sum("| not measured |" in line for line in lines) == 3 + (holds is None)


@pytest.mark.parametrize("id", ["god", "other", "former"])
def test_unknown_claims(claims, id):
    with pytest.raises(KeyError, match=f"no claim '{id}'"):
        claims[id] = 1


def test_the_list_of_claims():
    rows = pd.read_csv(report.CLAIMS)
    live = rows[rows.end.isna()]
    assert rows.id.is_unique and rows.claim.str.endswith(".").all() and len(live) <= 36
    assert set(live.statistic) <= set(report.STATISTICS) and live.bound.notna().all()
    assert (
        set(live.comparison) <= set(report.COMPARISONS)
        and rows[rows.end.notna()].bound.isna().all()
    )


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


def test_memory_on_a_mac_is_in_bytes(monkeypatch):
    usage = SimpleNamespace(getrusage=lambda _: SimpleNamespace(ru_maxrss=2**30), RUSAGE_SELF=0)
    monkeypatch.setitem(sys.modules, "resource", usage)
    for platform, gigabytes in (("darwin", 1), ("linux", 1024)):
        monkeypatch.setattr(sys, "platform", platform)
        assert report._peak_memory() == gigabytes


def test_files(tmp_path, claims, monkeypatch):
    """Whole or not at all; of figures the same bits every day."""
    claims["fast"], folder = [1, NAN], report.output_folder(tmp_path / "new" / "folder")
    table = pd.DataFrame({"a": [torch.pi], "b": [NAN]})
    save = dict(parameters={}, claims=claims, folder=folder, table=table, more=torch.ones(2))
    report.save_results("r", **save)
    content = json.loads(old := (folder / "r.json").read_text())
    assert content["table"] == [{"a": torch.pi, "b": None}] and content["more"] == [1, 1]
    fast = next(c for c in content["claims"] if c["id"] == "fast")
    assert fast["measured"] == {"": [1, None]} and fast["floor"] is None
    (folder / ".r.json.part").mkdir()  # in the way: the new content cannot be written
    with pytest.raises(OSError):
        report.save_results("r", **save | {"more": 0})
    assert (folder / "r.json").read_text() == old
    with plt.rc_context():
        plots.style()
        for i, today in enumerate(("0", "99999999")):
            monkeypatch.setenv("SOURCE_DATE_EPOCH", today)
            report.save_figure(plt.figure(figsize=(3.3, 2)), f"{i}", folder)
    for kind in ("png", "pdf"):
        assert (folder / f"0.{kind}").read_bytes() == (folder / f"1.{kind}").read_bytes()
    assert plt.imread(folder / "0.png").shape[:2] == (600, 990)  # 300 dots an inch, not cropped
    with pytest.raises(OSError, match="OUTPUT .*0.png cannot be written"):  # a file, no folder
        report.output_folder(folder / "0.png")
