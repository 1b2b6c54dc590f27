"""lab/record.py, on two runs of one commit: the recorded one, and another machine's."""

import csv
import json
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest

from lab import record

HERE = Path(__file__).parent
RECORDED, OTHER = (
    json.loads((HERE / f"{n}.json").read_text()) for n in ("recorded", "other_machine")
)
PLACES = (
    "# Title\n<!-- result --><!-- /result -->\n<!-- verdicts -->former<!-- /verdicts -->\nEnd\n"
)


def write(folder, runs):
    for stem, run in runs.items():
        (folder / "figures" / f"{stem}.json").write_text(json.dumps(run))


def call(folder, *command):
    """With no package in reach: exit status, and what is said."""
    line = [sys.executable, "-S", folder / "lab" / "record.py", *command]
    found = subprocess.run(line, capture_output=True, text=True)
    return found.returncode, found.stdout + found.stderr


def commit(folder, runs):
    write(folder, runs)
    assert call(folder, "readme") == (0, "")
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=b@c"]
    for step in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "record"]):
        subprocess.run([*git, *step], check=True)


@pytest.fixture
def clone(tmp_path):
    for folder in ("lab", "figures", "notebooks"):
        (tmp_path / folder).mkdir()
    shutil.copy(record.__file__, tmp_path / "lab")
    shutil.copy(record.ROOT / "notebooks" / "claims.csv", tmp_path / "notebooks")
    (tmp_path / "README.md").write_text(PLACES)
    commit(tmp_path, RECORDED)
    return tmp_path


def entry(runs, *which):
    """A claim by its id, or a number by method and quantity."""
    for row in (row for run in runs.values() for row in run["claims"] + run["numbers"]):
        if which in ((row.get("id"),), (row.get("method"), row["quantity"])):
            return row


def test_another_machine_agrees(clone):
    write(clone, OTHER)
    status, said = call(clone, "check")
    assert status == 0 and "NO" not in said and "close" not in said
    assert "tuned 3_benchmark, L1/K: to 0.008, in the record to 0.004" in said
    assert "20 of 20 verdicts agree\n87 of 87 numbers agree\n" in said
    assert "in standard errors: 1.8 (3_benchmark, tied SAE, L0" in said
    runs = deepcopy(OTHER)
    runs["1_theorem"]["parameters"] |= {"DEVICE": "cpu", "OUTPUT": "elsewhere"}  # may differ
    runs["3_benchmark"]["rates"] = RECORDED["3_benchmark"]["rates"]  # so that L1/K is compared
    write(clone, runs)
    status, said = call(clone, "check")
    found = re.findall("(?m)^NO .*", said)
    assert status == 1 and found and all("L1/K, " in line for line in found)


FAULTS = [  # where, what is changed in your run, and what is said
    (("bounded", "variance explained"), {"seeds": [0.63] * 5}, "0.6231, yours 0.63"),
    (("bounded", "purity"), {"seeds": [None] * 5}, "not in both"),
    (("bounded", "purity"), {"place": "elsewhere"}, "not in both"),
    (("decorrelated",), {"measured": {"": [0] * 3}}, "0.01622, yours 0,"),
    (("tenth_low",), {"holds": False}, "holds, yours fails; inf"),
    (("tenth_low",), {"holds": None}, "holds, yours not measured"),
    (("tenth_low",), {"bound": 0.7}, "not the same criterion"),
    (("identity",), {"judged": {"": [5]}, "holds": False}, "holds, yours fails; 342"),
]


@pytest.mark.parametrize("which, change, said", FAULTS)
def test_one_fault_is_found(clone, which, change, said):
    entry(runs := deepcopy(OTHER), *which).update(change)
    write(clone, runs)
    status, out = call(clone, "check")
    found = re.findall("(?m)^NO .*", out)
    assert status == 1 and found and all(f"{which[0]}" in f and said in f for f in found), out


@pytest.mark.parametrize(
    "id, bound, outcome", [("tenth_low", 0.9162, "fails"), ("sparse", 0.316, "holds")]
)
def test_a_verdict_near_its_bound_may_differ(clone, id, bound, outcome):
    """A mean 0.2 standard errors below its bound, and one seed 0.005 deviations."""
    runs = deepcopy(RECORDED), deepcopy(OTHER)
    for run, holds in zip(runs, (outcome == "holds", outcome != "holds")):
        entry(run, id).update(bound=bound, holds=holds)
    commit(clone, runs[0])
    write(clone, runs[1])
    status, said = call(clone, "check")
    assert status == 0 and re.search(
        rf"(?m)^close .*, {id}: {outcome}, yours .*; 0\.\d standard", said
    )


def test_what_cannot_be_compared(clone):
    status, said = call(clone, "check")
    assert status == 0 and said.count("is the record itself, not a run of yours") == 3
    write(clone, {"2_ablation": OTHER["2_ablation"] | {"parameters": {"EPOCHS": 8}}})
    status, said = call(clone, "check")
    assert status == 2 and "other EPOCHS, SEEDS, N_COMPONENTS" in said
    (clone / "figures" / "1_theorem.json").unlink()
    assert "run `make figures`" in call(clone, "check")[1]
    shutil.rmtree(clone / ".git")
    assert call(clone, "check")[0] == 2 == call(clone)[0] == call(clone, "nonsense")[0]


def test_readme(clone):
    """By stem: a missing file stops it, and the language model's table never takes the place."""
    text = (clone / "README.md").read_text()
    assert (
        "-->\n\n| at L0 10 | informative by |" in text and "| bounded | log det + prior |" in text
    )
    failed = entry(RECORDED, "features_published")["claim"]
    rows = csv.DictReader((clone / "notebooks" / "claims.csv").read_text().splitlines())
    live = sum(not row["end"] for row in rows)
    assert f"of {live} criteria hold. 1 failed: *{failed}*" in text and "former" not in text
    language = {"parameters": {}, "claims": [], "result": [{"a": 1}]}
    write(clone, {"language": language})
    assert call(clone, "readme")[0] == 0 and (clone / "README.md").read_text() == text
    (clone / "figures" / "2_ablation.json").unlink()
    status, said = call(clone, "readme")
    assert status == 2 and "no figures/2_ablation.json" in said
    write(clone, RECORDED)
    for part in ("0.621", f"{live} criteria"):
        (clone / "README.md").write_text(text.replace(part, "2.0"))
        status, said = call(clone, "check")
        assert status == 1 and re.search("(?m)^NO .*README.md, (result|verdicts)", said)
