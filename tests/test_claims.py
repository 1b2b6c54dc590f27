"""lab/claims.py: how criteria are judged, and two runs of one commit, here and elsewhere."""

import csv
import json
import re
import subprocess
from copy import deepcopy
from math import nan as NAN

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from lab import ROOT, claims

BOTH = [json.loads((ROOT / f"tests/{n}.json").read_text()) for n in ("recorded", "other_machine")]
CLAIMS = """id,notebook,by,methods,claim,quantity,statistic,comparison,bound,floor,paper,end
other,m,us,,It is good.,a,mean,>=,1,0,,
former,n,us,,It was good.,a,,,,,,failed
level,n,us,,It is level.,d,|mean|,<=,1,0,,
good,n,us,a;b,It is good.,a,each,>=,0.9,0.1,,
sure,n,us,,It is sure.,c,lower end,>,0,0,,
fast,n,us,,It is fast.,b,mean,<,3,inf,2 s,"""
MEASURED = {  # what holds, and what does not
    "good": (
        [[0.95, 0.9], {"L0 6": 0.9}, np.array(0.9), torch.tensor([1.0, 2])],
        [[1, 0.89], {"6": [1, 1], "10": [1, 0]}, [1, NAN], []],
    ),
    "fast": ([[1, 4.5], pd.Series([2.9])], [[1, NAN], 3.0]),
    "sure": ([[1, 1.2, 0.9]], [[1, 3, -0.5], [1], [0.9, 1.2, 2.1, 0.1]]),
    "level": ([[-3, 2]], [[-3, 0.5], [NAN]]),
}


@pytest.mark.parametrize("id", MEASURED)
def test_claims_go_by_id(id, tmp_path):
    (tmp_path / "claims.csv").write_text(CLAIMS)
    for values, holds in ((v, not i) for i in (0, 1) for v in MEASURED[id][i]):
        found = claims.Claims("n", tmp_path / "claims.csv")
        found[id] = values
        judged = {c["id"]: c["holds"] for c in found.judge()}
        assert judged == dict.fromkeys(MEASURED) | {id: holds}
    for id in ("god", "other", "former"):  # unknown, another notebook's, retired
        with pytest.raises(KeyError, match=f"no claim '{id}'"):
            found[id] = 1


def test_interval_is_student_s():
    for n in range(2, 15):
        values = np.random.default_rng(n).normal(size=n).tolist()
        t = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert claims.interval(values) == pytest.approx((np.mean(values), *t), abs=1e-3)
    assert np.isnan(claims.interval([1.0])[1]) and np.isnan(claims.interval([])).all()


def test_every_former_criterion_is_live_or_has_an_end():
    """As it was measured: a row that is live asks no less than any edition did under its id."""
    now = {row["id"]: row for row in csv.DictReader((ROOT / "notebooks/claims.csv").open())}
    for old in csv.DictReader((ROOT / "tests/former_claims.csv").open()):
        row = now[old["id"]]
        assert row["end"] or old["edition"] == "3" or row["comparison"] == old["comparison"]
        if not row["end"] and old["edition"] == "4" and old["bound"]:
            easier = float(row["bound"]) - float(old["bound"])
            assert easier * (1 if row["comparison"] in (">", ">=") else -1) >= 0, row["id"]
    live, ids = [r for r in now.values() if not r["end"]], list(now)
    assert len(ids) == len(set(ids)) and all(r["notebook"] in claims.STEMS for r in now.values())
    assert all(len(r["end"]) >= 4 for r in now.values() if r["end"])
    assert {r["statistic"] for r in live} <= set(claims.STATISTICS)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """`check` or `readme`, of a record and a run of yours: exit status, and what is said."""
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "README.md").write_text("<!-- result -->former<!-- /result -->\n")

    def call(command, yours, record):
        known = {f"figures/{stem}.json": json.dumps(run) for stem, run in record.items()}
        monkeypatch.setattr(claims, "committed", lambda path: known.get(path, ""))
        for stem, run in yours.items():
            (tmp_path / "figures" / f"{stem}.json").write_text(json.dumps(run))
        try:
            status = getattr(claims, command)()
        except SystemExit as stopped:
            status = stopped.code
        return int(status or 0), "".join(capsys.readouterr())

    return call


def entry(runs, what):
    """A claim by its id, or a number by method and quantity."""
    rows = [row for run in runs.values() for row in run["claims"] + run["numbers"]]
    return next(r for r in rows if what in (r.get("id"), f"{r.get('method')}, {r['quantity']}"))


LOW, NO = "tenth_low", "NO    3_benchmark, "
EACH = {"statistic": "each", "bound": 0.87, "floor": 1, "holds": True}
EACH |= dict.fromkeys(("measured", "judged"), {"": [0.9, 0.91, 0.92, 0.93, 0.94]})
BELOW = {"judged": {"": [0.86]}, "holds": False}
FLOOR = {"seeds": [0.6] * 5, "floor": 0.01}
CHANGES = [  # where, what is changed in both runs, what in yours, what is said
    ("identity", {}, {}, "20 of 20 verdicts agree\n86 of 92 numbers agree\n6 numbers are left out"),
    ("identity", {}, {}, "tuned 3_benchmark, L1/K: to 0.008, in the record to 0.004"),
    ("identity", {}, {}, "in standard errors: 1.8 (3_benchmark, tied SAE, L0, setting 0.7: 10.98"),
    (LOW, {"bound": 0.9162, "holds": False}, {"holds": True}, f"close 3_benchmark, {LOW}"),
    ("bounded, purity", {}, {"seeds": [None] * 5}, f"{NO}bounded, purity"),
    ("bounded, purity", {}, {"seeds": [0.686] * 4}, "of 5 seeds in the record, of 4 in yours"),
    (LOW, {}, {"holds": False}, f"{NO}{LOW}: holds, yours fails; inf"),
    (LOW, EACH, BELOW, f"close 3_benchmark, {LOW}: holds, yours fails; 1.9"),  # deviations
    ("bounded, solved", FLOOR, {"seeds": [0.615] * 5}, f"{NO}bounded, solved, setting 0.25"),
    ("bounded, solved", FLOOR, {"seeds": [0.609] * 5}, "86 of 92 numbers agree"),
    (LOW, {}, {"bound": 0.7}, f"{NO}{LOW}: not the same criterion"),
    ("identity", {}, {"judged": {"": [5]}, "holds": False}, "NO    1_theorem, identity: holds"),
]


@pytest.mark.parametrize("what, in_both, in_yours, message", CHANGES)
def test_check(call, what, in_both, in_yours, message):
    record, yours = deepcopy(BOTH)
    entry(record, what).update(in_both), entry(yours, what).update(in_both | in_yours)
    yours["1_theorem"]["parameters"] |= {"DEVICE": "cpu", "OUTPUT": "elsewhere"}  # may differ
    for page in (record, yours):  # the front page is that of either, and hides nothing
        assert call("readme", page, record) == (0, "")
        status, said = call("check", yours, record)
        assert message in said and "README" not in said
        assert status == ("NO" in message or "of 4 in" in message)
    assert set(re.findall("(?m)^(?:NO|close) +[^,]*, ([a-z_]+)", said)) <= {what.partition(",")[0]}


@pytest.mark.parametrize("method", ["bounded", "bounded, L1"])
def test_a_retuned_method_is_left_out_by_name_with_all_its_numbers_and_no_others(call, method):
    """Also where its name is a part of another's; but not all of them."""
    record, yours = (json.loads(json.dumps(BOTH[0]).replace("L1/K", "bounded, L1")) for _ in "ab")
    mine, rates = 0, yours["3_benchmark"]["rates"]
    rates[method] *= 2
    for row in yours["3_benchmark"]["claims"]:  # far off, wherever the method has a part
        if method in row["methods"].split(";"):
            row["measured"] = {place: [v + 9 for v in vs] for place, vs in row["measured"].items()}
            mine += len(row["measured"]) * (row["floor"] is not None)
    for row in yours["3_benchmark"]["numbers"]:
        if row["method"] == method:
            row["seeds"] = [v + 9 for v in row["seeds"]]
            mine += 1
    call("readme", record, record)
    _, said = call("check", yours, record)
    assert f"{mine} numbers are left out" in said and "NO    3" not in said
    assert said.count("(by the rate of") == said.count(f"(by the rate of {method})\n") == mine
    yours["3_benchmark"]["rates"] = dict.fromkeys(rates, 1)
    status, said = call("check", yours, record)
    assert status == 1 and "over a third of the numbers is left out" in said


def test_the_front_page_and_runs_that_do_not_compare(call, tmp_path):
    record, page = BOTH[0], tmp_path / "README.md"
    assert "no figures/3_benchmark.json" in call("readme", {}, record)[1]
    assert call("readme", record, record) == (0, "")
    assert "-->\n\n| at L0 10 | informative by |" in page.read_text()
    status, said = call("check", record, record)
    assert status == 0 and said.count("is the record itself, not a run of yours") == 3
    page.write_text(page.read_text().replace("0.621", "2.0"))
    status, said = call("check", record, record)
    assert status == 1 and "NO    README.md: its table is not what figures/ say" in said
    status, said = call("check", record, {})
    assert status == 2 and "no figures/1_theorem.json in a clone's commit" in said
    other = {"2_ablation": BOTH[1]["2_ablation"] | {"parameters": {}}}
    status, said = call("check", other, record)
    assert status == 2 and "other EPOCHS, SEEDS, N_COMPONENTS" in said


def test_the_record_is_the_file_as_last_committed(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    (tmp_path / "some").write_text("old")
    assert claims.committed("some") == ""
    for step in ("init -q", "add .", "-c user.name=a -c user.email=b@c commit -qm record"):
        subprocess.run(["git", "-C", tmp_path, *step.split()], check=True)
    (tmp_path / "some").write_text("new")
    assert claims.committed("some") == "old"
