"""lab/record.py, on two runs of one commit: the recorded one, and another machine's."""

import json
import re
import shutil
import subprocess
import sys
from copy import deepcopy

import pytest

from lab import ROOT

BOTH = [
    json.loads((ROOT / "tests" / f"{n}.json").read_text()) for n in ("recorded", "other_machine")
]
MARKS = "<!-- result -->former<!-- /result -->\n<!-- verdicts -->former<!-- /verdicts -->\n"


def call(folder, command, runs=None):
    """With no package in reach: exit status, and what is said."""
    for stem, run in (runs or {}).items():
        (folder / "figures" / f"{stem}.json").write_text(json.dumps(run))
    line = [sys.executable, "-S", folder / "lab" / "record.py", command]
    found = subprocess.run(line, capture_output=True, text=True)
    return found.returncode, found.stdout + found.stderr


def commit(folder, runs):
    for name in ("lab/record.py", "notebooks/claims.csv", "figures/1_theorem.json"):
        (folder / name).parent.mkdir(), shutil.copy(ROOT / name, folder / name)
    (folder / "README.md").write_text(MARKS)
    assert call(folder, "readme", runs) == (0, "")
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=b@c"]
    for step in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "record"]):
        subprocess.run([*git, *step], check=True)


def entry(runs, what):
    """A claim by its id, or a number by method and quantity."""
    rows = [row for run in runs.values() for row in run["claims"] + run["numbers"]]
    return next(r for r in rows if what in (r.get("id"), f"{r.get('method')}, {r['quantity']}"))


CHANGES = [  # where, what is changed in both runs, what in yours, what is said
    ("identity", {}, {}, "20 of 20 verdicts agree\n87 of 87 numbers agree"),
    ("identity", {}, {}, "tuned 3_benchmark, L1/K: to 0.008, in the record to 0.004"),
    ("identity", {}, {}, "in standard errors: 1.8 (3_benchmark, tied SAE, L0, setting 0.7: 10.98"),
    (
        "tenth_low",
        {"bound": 0.9162, "holds": False},
        {"holds": True},
        "close 3_benchmark, tenth_low",
    ),
    ("sparse", {"bound": 0.316}, {"holds": False}, "close 2_ablation, sparse: holds, yours fails"),
    (
        "bounded, solved",
        {},
        {"seeds": [0.67] * 5},
        "NO    3_benchmark, bounded, solved, setting 0.25",
    ),
    ("bounded, purity", {}, {"seeds": [None] * 5}, "NO    3_benchmark, bounded, purity"),
    (
        "bounded, purity",
        {},
        {"place": "new"},
        "NO    3_benchmark, bounded, purity, new: not in both",
    ),
    ("decorrelated", {}, {"measured": {"": [0] * 3}}, "NO    2_ablation, decorrelated"),
    ("tenth_low", {}, {"holds": False}, "NO    3_benchmark, tenth_low: holds, yours fails; inf"),
    ("tenth_low", {}, {"holds": None}, "NO    3_benchmark, tenth_low: holds, yours not measured"),
    ("tenth_low", {}, {"bound": 0.7}, "NO    3_benchmark, tenth_low: not the same criterion"),
    ("identity", {}, {"judged": {"": [5]}, "holds": False}, "NO    1_theorem, identity: holds"),
]


@pytest.mark.parametrize("what, in_both, in_yours, message", CHANGES)
def test_check(tmp_path, what, in_both, in_yours, message):
    record, yours = deepcopy(BOTH)
    entry(record, what).update(in_both), entry(yours, what).update(in_both | in_yours)
    yours["1_theorem"]["parameters"] |= {"DEVICE": "cpu", "OUTPUT": "elsewhere"}  # may differ
    commit(tmp_path, record)
    status, said = call(tmp_path, "check", yours)
    assert message in said and status == message.startswith("NO")
    assert set(re.findall("(?m)^(?:NO|close) +[^,]*, ([a-z_]+)", said)) <= {what.partition(",")[0]}


def test_a_rate_is_named_since_numbers_depend_on_it(tmp_path):
    commit(tmp_path, BOTH[0])
    yours = deepcopy(BOTH[1])
    yours["3_benchmark"]["rates"] = BOTH[0]["3_benchmark"]["rates"]
    assert "NO    3_benchmark, L1/K, variance explained" in call(tmp_path, "check", yours)[1]
    yours["2_ablation"]["parameters"] = {}
    status, said = call(tmp_path, "check", yours)
    assert status == 2 and "other EPOCHS, SEEDS, N_COMPONENTS" in said


def test_readme(tmp_path):
    """By stem: a missing file stops it, and the language model's table never takes the place."""
    commit(tmp_path, BOTH[0] | {"language": {"parameters": {}, "claims": [], "result": [{"a": 1}]}})
    text, failed = (tmp_path / "README.md").read_text(), entry(BOTH[0], "features_published")
    assert "-->\n\n| at L0 10 | informative by |" in text and "former<" not in text
    assert f" criteria hold. 1 failed: *{failed['claim']}*" in text
    status, said = call(tmp_path, "check")
    assert status == 0 and said.count("is the record itself, not a run of yours") == 4
    for name, part in (("result", "0.621"), ("verdicts", " criteria hold")):
        (tmp_path / "README.md").write_text(text.replace(part, "2.0"))
        assert f"NO    README.md, {name}: not what the record says" in call(tmp_path, "check")[1]
    (tmp_path / "figures" / "2_ablation.json").unlink()
    for command in ("check", "readme"):
        status, said = call(tmp_path, command)
        assert status == 2 and "no figures/2_ablation.json" in said and "make figures" in said
