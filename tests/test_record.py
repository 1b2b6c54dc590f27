"""lab/record.py, on two runs of one commit: the recorded one, and another machine's."""

import json
import re
import shutil
import subprocess
import sys
from copy import deepcopy

import pytest

from lab import ROOT, report

RECORDED, OTHER = (
    json.loads((ROOT / "tests" / f"{n}.json").read_text()) for n in ("recorded", "other_machine")
)


def call(folder, command, runs=None):
    """With no package in reach: exit status, and what is said."""
    for stem, run in (runs or {}).items():
        (folder / "figures" / f"{stem}.json").write_text(json.dumps(run))
    line = [sys.executable, "-S", folder / "lab" / "record.py", command]
    found = subprocess.run(line, capture_output=True, text=True)
    return found.returncode, found.stdout + found.stderr


def commit(folder, runs):
    assert call(folder, "readme", runs) == (0, "")
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=b@c"]
    for step in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "record"]):
        subprocess.run([*git, *step], check=True)


@pytest.fixture
def clone(tmp_path):
    for path in (ROOT / "lab" / "record.py", report.CLAIMS, ROOT / "figures" / "1_theorem.json"):
        (tmp_path / path.parent.name).mkdir()
        shutil.copy(path, tmp_path / path.parent.name)
    marks = [f"<!-- {name} -->former<!-- /{name} -->\n" for name in ("result", "verdicts")]
    (tmp_path / "README.md").write_text("# Title\n" + "".join(marks) + "End\n")
    commit(tmp_path, RECORDED)
    return tmp_path


def entry(runs, what, quantity=None):
    """A claim by its id, or a number by method and quantity."""
    rows = [row for run in runs.values() for row in run["claims"] + run["numbers"]]
    return next(
        r
        for r in rows
        if what == r.get("id") or (what, quantity) == (r.get("method"), r["quantity"])
    )


def test_another_machine_agrees(clone):
    status, said = call(clone, "check", OTHER)
    assert status == 0 and not re.search("(?m)^(NO|close)", said)
    assert "tuned 3_benchmark, L1/K: to 0.008, in the record to 0.004" in said
    assert "20 of 20 verdicts agree\n87 of 87 numbers agree\n" in said
    assert "in standard errors: 1.8 (3_benchmark, tied SAE, L0" in said
    runs = deepcopy(OTHER)
    runs["1_theorem"]["parameters"] |= {"DEVICE": "cpu", "OUTPUT": "elsewhere"}  # may differ
    runs["3_benchmark"]["rates"] = RECORDED["3_benchmark"]["rates"]  # so that L1/K is compared
    status, said = call(clone, "check", runs)
    assert (
        status == 1 and "NO    3_benchmark, L1/K, variance explained, setting 0.35: 0.6242" in said
    )


@pytest.mark.parametrize(
    "what, change, message",
    [
        (("bounded", "variance explained"), {"seeds": [0.63] * 5}, "0.6231, yours 0.63, 11.2"),
        (("bounded", "purity"), {"seeds": [None] * 5}, "not in both"),
        (("bounded", "purity"), {"place": "elsewhere"}, "not in both"),
        (("decorrelated",), {"measured": {"": [0] * 3}}, "0.01622, yours 0,"),
        (("tenth_low",), {"holds": False}, "holds, yours fails; inf"),
        (("tenth_low",), {"holds": None}, "holds, yours not measured"),
        (("tenth_low",), {"bound": 0.7}, "not the same criterion"),
        (("identity",), {"judged": {"": [5]}, "holds": False}, "holds, yours fails; 342"),
    ],
)
def test_one_fault_is_found(clone, what, change, message):
    entry(runs := deepcopy(OTHER), *what).update(change)
    status, said = call(clone, "check", runs)
    found = re.findall("(?m)^NO .*", said)
    assert status == 1 and found and all(what[0] in line and message in line for line in found)


@pytest.mark.parametrize(
    "id, bound, holds", [("tenth_low", 0.9162, False), ("sparse", 0.316, True)]
)
def test_a_verdict_near_its_bound_may_differ(clone, id, bound, holds):
    """A mean 0.2 standard errors below its bound, and one seed 0.005 deviations."""
    record, yours = deepcopy(RECORDED), deepcopy(OTHER)
    entry(record, id).update(bound=bound, holds=holds)
    entry(yours, id).update(bound=bound, holds=not holds)
    commit(clone, record)
    status, said = call(clone, "check", yours)
    assert status == 0 and re.search(rf"(?m)^close .*, {id}: (.*), yours .*; 0\.\d stand", said)


def test_what_cannot_be_compared(clone):
    status, said = call(clone, "check")
    assert status == 0 and said.count("is the record itself, not a run of yours") == 3
    status, said = call(clone, "check", {"2_ablation": OTHER["2_ablation"] | {"parameters": {}}})
    assert status == 2 and "other EPOCHS, SEEDS, N_COMPONENTS" in said
    shutil.rmtree(clone / ".git")
    assert call(clone, "check")[0] == 2 == call(clone, "nonsense")[0]


def test_readme(clone):
    """By stem: a missing file stops it, and the language model's table never takes the place."""
    text, failed = (clone / "README.md").read_text(), entry(RECORDED, "features_published")["claim"]
    assert "-->\n\n| at L0 10 | informative by |" in text and "former" not in text
    assert f" criteria hold. 1 failed: *{failed}*" in text and "of earlier editions" in text
    language = {"language": {"parameters": {}, "claims": [], "result": [{"a": 1}]}}
    assert call(clone, "readme", language)[0] == 0 and (clone / "README.md").read_text() == text
    for name, part in (("result", "0.621"), ("verdicts", " criteria hold")):
        (clone / "README.md").write_text(text.replace(part, "2.0"))
        assert f"NO    README.md, {name}: not what the record says" in call(clone, "check")[1]
    (clone / "figures" / "2_ablation.json").unlink()
    assert "no figures/2_ablation.json here: run `make figures`" in call(clone, "check")[1]
    assert call(clone, "readme") == (
        2,
        "record.py: no figures/2_ablation.json: run `make figures`\n",
    )
