"""lab/record.py, on small records in a git repository made here."""

import json
import shutil
import subprocess
import sys

import pytest

from lab import record


def claim(quantity, bound, measured, holds=True, data="digits"):
    words = {"by": "us", "claim": "it |works|", "data": data, "published": "0.03", "key": "first"}
    numbers = {"comparison": "<=", "bound": bound, "measured": measured, "holds": holds}
    return words | {"quantity": quantity} | numbers


def run():
    row = {"method": "ours", "knob": 0.25, "fvu": 0.5, "probe": 93.2, "dead": 0, "l0": 17.0}
    claims = [claim("|gap|", 0.05, [0.01, 0.0499]), claim("dE against it, relative", 1e-10, 1e-14)]
    parts = {"claims": claims, "table": [row, row | {"l0": None}], "result": [{"method": "ours"}]}
    return {"parameters": {"EPOCHS": 9}} | parts


def call(folder, *command, stem="2_ablation", **parts):
    """With parts of the results changed, and with no package in reach."""
    (folder / "figures" / f"{stem}.json").write_text(json.dumps(run() | parts))
    line = [sys.executable, "-S", folder / "lab" / "record.py", *command]
    found = subprocess.run(line, capture_output=True, text=True)
    return found.returncode, found.stdout + found.stderr


@pytest.fixture
def clone(tmp_path):
    (tmp_path / "lab").mkdir(), (tmp_path / "figures").mkdir()
    shutil.copy(record.__file__, tmp_path / "lab")
    for stem in record.NOTEBOOKS:
        call(tmp_path, stem=stem)
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=b@c"]
    for step in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "record"]):
        subprocess.run([*git, *step], check=True)
    return tmp_path


FAULTS = [("claims", 0, {"measured": [0.04, 0.0499]}), ("claims", 0, {"bound": 0.06})]
FAULTS += [("claims", 1, {"measured": 1e-9, "holds": False}), ("claims", 1, None)]
FAULTS += [("claims", 0, {"measured": [0.01]})]
FAULTS += [("table", 0, {k: v}) for k, v in (("knob", 0.2501), ("fvu", 0.47), ("probe", 91.6))]
FAULTS += [("table", 0, {"dead": 3}), ("table", 0, {"l0": None}), ("table", 1, None)]


@pytest.mark.parametrize("part, i, fault", FAULTS)
def test_a_fault_is_found(clone, part, i, fault):
    items = run()[part]
    items[i : i + 1] = [] if fault is None else [items[i] | fault]
    status, said = call(clone, "check", **{part: items})
    assert status == 1 and "NO  2_ablation, " in said


def test_small_differences_agree_and_are_told(clone):
    (first, second), table = run()["claims"], run()["table"]
    claims = [first | {"measured": [0.01, 0.0501], "holds": False}, second | {"measured": 3e-14}]
    table[0] |= {"fvu": 0.505, "probe": 92.1, "dead": 1}
    status, said = call(clone, "check", claims=claims, table=table)
    assert status == 0 and "NO" not in said and "fvu 0.99 %" in said and "5 of 6 verdicts" in said
    said = call(clone, "check")[1]
    assert "all 6 verdicts agree" in said and "1_theorem.json is the record itself" in said


def test_what_cannot_be_compared(clone):
    status, said = call(clone, "check", parameters={"EPOCHS": 8})
    assert status == 2 and "other EPOCHS" in said
    (clone / "figures" / "1_theorem.json").unlink()
    assert "run `make figures`" in call(clone, "check")[1]
    shutil.rmtree(clone / ".git")
    assert call(clone, "check")[0] == 2 == call(clone)[0] == call(clone, "nonsense")[0]


def test_readme(clone):
    places = (
        "# Title\n<!-- result --><!-- /result -->\n<!-- claims -->former<!-- /claims -->\nEnd\n"
    )
    (clone / "README.md").write_text(places)
    language = [claim("share", 0.85, [0.9, None], False, "language model")]
    for _ in range(2):
        assert call(clone, "readme", stem=record.LANGUAGE, claims=language)[0] == 0
    text = (clone / "README.md").read_text()
    assert text.startswith("# Title\n") and text.endswith("\nEnd\n") and "former" not in text
    assert "-->\n\n| method |\n| --- |\n| ours |\n\n<!-- /result -->" in text
    row = r"| it \|works\| | us | digits | \|gap\| <= 0.05 | 0.03 | 0.01 to 0.0499 | yes |"
    assert text.count(row) == 3
    assert "| us | language model | share <= 0.85 | 0.03 | 0.9 | **no** |" in text
