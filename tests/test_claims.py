"""lab/notebook.py; lab/claims.py on two runs of one commit, here and on another machine."""

import json
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from math import nan as NAN

import pytest

from lab import ROOT, notebook

BOTH = [json.loads((ROOT / f"tests/{n}.json").read_text()) for n in ("recorded", "other_machine")]
MARKS = "<!-- result -->former<!-- /result -->\n<!-- verdicts -->former<!-- /verdicts -->\n"
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
    "level": ([[-3, 2]], [[-3, 0.5], [NAN]]),
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("id", MEASURED)
def test_claims_go_by_id(order, id, tmp_path, monkeypatch):
    (tmp_path / "claims.csv").write_text("\n".join(CLAIMS[:1] + CLAIMS[1:][::order]))
    monkeypatch.setattr(notebook, "display", lambda shown: lines.extend(shown.data.splitlines()))
    for values, holds in ((v, not i) for i in (0, 1) for v in MEASURED[id][i]):
        claims, lines = notebook.Claims("n", tmp_path / "claims.csv"), []
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


def call(folder, command, runs=None):
    """With no package in reach: exit status, and what is said."""
    for stem, run in (runs or {}).items():
        (folder / "figures" / f"{stem}.json").write_text(json.dumps(run))
    line = [sys.executable, "-S", folder / "lab" / "claims.py", command]
    found = subprocess.run(line, capture_output=True, text=True)
    return found.returncode, found.stdout + found.stderr


def commit(folder, runs):
    for name in ("lab/claims.py", "notebooks/claims.csv", "figures/1_theorem.json"):
        (folder / name).parent.mkdir(), shutil.copy(ROOT / name, folder / name)
    (folder / "README.md").write_text(MARKS)
    assert call(folder, "readme", runs) == (0, "")
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=b@c"]
    for step in ("init -q", "add .", "commit -q -m record"):
        subprocess.run([*git, *step.split()], check=True)


def entry(runs, what):
    """A claim by its id, or a number by method and quantity."""
    rows = [row for run in runs.values() for row in run["claims"] + run["numbers"]]
    return next(r for r in rows if what in (r.get("id"), f"{r.get('method')}, {r['quantity']}"))


LOW, NO = "tenth_low", "NO    3_benchmark, "
CHANGES = [  # where, what is changed in both runs, what in yours, what is said
    ("identity", {}, {}, "20 of 20 verdicts agree\n87 of 87 numbers agree"),
    ("identity", {}, {}, "tuned 3_benchmark, L1/K: to 0.008, in the record to 0.004"),
    ("identity", {}, {}, "in standard errors: 1.8 (3_benchmark, tied SAE, L0, setting 0.7: 10.98"),
    (LOW, {"bound": 0.9162, "holds": False}, {"holds": True}, f"close 3_benchmark, {LOW}"),
    ("bounded, solved", {}, {"seeds": [0.67] * 5}, f"{NO}bounded, solved, setting 0.25"),
    ("bounded, purity", {}, {"seeds": [None] * 5}, f"{NO}bounded, purity"),
    ("decorrelated", {}, {"measured": {"": [0] * 3}}, "NO    2_ablation, decorrelated"),
    (LOW, {}, {"holds": False}, f"{NO}{LOW}: holds, yours fails; inf"),
    (LOW, {}, {"bound": 0.7}, f"{NO}{LOW}: not the same criterion"),
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


def test_readme_by_stem_and_runs_that_do_not_compare(tmp_path):
    """A missing file stops it, and the language model's table never takes the place."""
    commit(tmp_path, BOTH[0] | {"language": {"parameters": {}, "claims": [], "result": [{"a": 1}]}})
    text, failed = (tmp_path / "README.md").read_text(), entry(BOTH[0], "features_published")
    assert "-->\n\n| at L0 10 | informative by |" in text and "former<" not in text
    assert f" criteria hold. 1 failed: *{failed['claim']}*" in text
    status, said = call(tmp_path, "check")
    assert status == 0 and said.count("is the record itself, not a run of yours") == 4
    for name, part in (("result", "0.621"), ("verdicts", " criteria hold")):
        (tmp_path / "README.md").write_text(text.replace(part, "2.0"))
        assert f"NO    README.md, {name}: not what the record says" in call(tmp_path, "check")[1]
    yours = deepcopy(BOTH[1])
    yours["2_ablation"]["parameters"] = {}
    status, said = call(tmp_path, "check", yours)
    assert status == 2 and "other EPOCHS, SEEDS, N_COMPONENTS" in said
    (tmp_path / "figures" / "2_ablation.json").unlink()
    for command in ("check", "readme"):
        status, said = call(tmp_path, command)
        assert status == 2 and "no figures/2_ablation.json" in said and "make figures" in said


def test_numbers_settings_and_memory(monkeypatch):
    """0.410 stands beside 0.538; neither K nor functions are settings; a Mac counts bytes."""
    numbers = [notebook.number(v, 3) for v in (0.41, 1.05, [2, 1.5])]
    assert numbers == ["0.410", "1.05", "1.50 to 2.00"]
    assert notebook.parameters({"RATE": 1, "L0": 4, "A_B": len, "PARAMETERS": {}}) == {"RATE": 1}
    monkeypatch.setattr("resource.getrusage", lambda _: type("usage", (), {"ru_maxrss": 2**30}))
    for platform, gigabytes in (("darwin", 1), ("linux", 1024)):
        monkeypatch.setattr("sys.platform", platform)
        assert notebook._peak_memory() == gigabytes
