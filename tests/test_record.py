"""record.py, on small records in a git repository made here."""

import json
import shutil
import subprocess
import sys

import pytest

import record

README = "# Title\n\n<!-- results -->\nold\n<!-- /results -->\n\nThe end.\n"


def claim(key, by, *measured, bound=0.05):
    criteria = [
        {"quantity": "|gap|", "comparison": "<=", "bound": bound, "measured": m, "holds": True}
        for m in measured
    ]
    words = {"claim": f"claim {key}", "published": "0.03" if by == "paper" else None}
    return {"key": key, "by": by, **words, "criteria": criteria, "holds": True}


def run():
    rows = [
        {"method": "ours", "seed": seed, "mse": 0.04, "accuracy": 93.2, "dead_units": 0, "l0": l0}
        | {"probe": 93.2}
        for seed, l0 in enumerate((17.0, None))
    ]
    claims = [
        claim("first", "paper", [0.01, 0.02, 0.03]),
        claim("second", "companion", 0.0499, None),
    ]
    return {"parameters": {"EPOCHS": 9}, "environment": {}, "claims": claims, "table": rows}


def call(folder, command):
    line = [sys.executable, folder / "record.py", command]
    return subprocess.run(line, capture_output=True, text=True)


def write(folder, results, stem="2_ablation"):
    (folder / "figures" / f"{stem}.json").write_text(json.dumps(results))


@pytest.fixture
def folder(tmp_path):
    """A folder with README.md and figures/ for all three notebooks; no clone yet."""
    shutil.copy(record.ROOT / "record.py", tmp_path)
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "figures").mkdir()
    for stem in ("1_theorem", "2_ablation", "3_benchmark"):
        write(tmp_path, run(), stem)
    return tmp_path


@pytest.fixture
def clone(folder):
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=b@c"]
    for step in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "record"]):
        subprocess.run([*git, *step], check=True)
    return folder


FAULTS = {
    "verdict of a criterion": lambda r: r["claims"][0]["criteria"][0].update(holds=False),
    "measured": lambda r: r["claims"][0]["criteria"][0]["measured"].__setitem__(2, 0.04),
    "bound": lambda r: r["claims"][0]["criteria"][0].update(bound=0.06),
    "missing claim": lambda r: r["claims"].pop(),
    "missing row": lambda r: r["table"].pop(),
    "extra row": lambda r: r["table"].append(r["table"][0]),
    "table": lambda r: r["table"][0].update({"mse": 0.05}),
    "probe": lambda r: r["table"][0].update({"accuracy": 93.8}),
    "probe of a model": lambda r: r["table"][0].update({"probe": 91.6}),
    "dead units": lambda r: r["table"][0].update({"dead_units": 3}),
    "defined no more": lambda r: r["table"][0].update({"l0": None}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(clone, fault):
    results = run()
    FAULTS[fault](results)
    write(clone, results)
    found = call(clone, "check")
    assert found.returncode == 1 and "| NO" in found.stdout, found.stdout + found.stderr


def test_small_differences_agree_and_are_told(clone):
    results = run()
    for row in results["table"]:
        row |= {"mse": 1.001 * row["mse"], "accuracy": 93.5, "probe": 92.1, "dead_units": 1}
    results["claims"][0]["criteria"][0]["measured"] = [0.0101, 0.02, 0.0299]
    results["claims"][1]["criteria"][0] |= {"measured": 0.0501, "holds": False}  # at its bound
    write(clone, results)
    found = call(clone, "check")
    assert found.returncode == 0 and "NO" not in found.stdout
    assert "2_ablation, mse: 0.1 %" in found.stdout
    assert "1_theorem.json is the record itself" in found.stdout


def test_what_cannot_be_compared(clone):
    write(clone, run() | {"parameters": {"EPOCHS": 8}})
    found = call(clone, "check")
    assert found.returncode == 2 and "other EPOCHS" in found.stdout
    (clone / "figures" / "2_ablation.json").unlink()
    found = call(clone, "check")
    assert found.returncode == 2 and "make figures" in found.stderr


def test_outside_a_clone(folder):
    found = call(folder, "check")
    assert found.returncode == 2 and "no git clone" in found.stderr


def test_readme(folder):
    results = run()
    results["claims"][1]["holds"] = results["claims"][1]["criteria"][0]["holds"] = False
    write(folder, results, "3_benchmark_language")
    assert call(folder, "readme").returncode == 0
    text = (folder / "README.md").read_text()
    assert text.startswith("# Title\n") and text.endswith("\n\nThe end.\n") and "\nold" not in text
    paper, companion = text.split("| this companion adds")
    assert r"| claim first | \|gap\| <= 0.05 | 0.03 | 0.01 to 0.03 | holds |" in paper
    row = r"| claim second | \|gap\| <= 0.05; \|gap\| <= 0.05 | – | 0.0499; – | holds"
    assert companion.count(f"{row} |") == 2
    assert f"{row}; language model: **fails** in 1 of 2 |" in companion
