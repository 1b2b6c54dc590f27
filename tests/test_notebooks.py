"""The notebooks run from end to end, fail clearly, and are committed as they ran."""

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from lab import ROOT, claims, notebook

STEMS = claims.NOTEBOOKS
EXCEPTIONS = {"3.10", "4.0"}  # of the prose, in no output: versions of Python and of the licence


def read(stem, folder=ROOT / "notebooks", figures=ROOT / "figures"):
    """A notebook's results, its cells of code, their outputs, its prose, and the text displayed."""
    results = json.loads((figures / f"{stem}.json").read_text())
    cells = nbformat.read(folder / f"{stem}.ipynb", 4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    data = [o.get("data", {"text/plain": o.get("text", "")}) for o in outputs]
    shown = [d[kind] for d in data for kind in ("text/plain", "text/markdown") if kind in d]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    prose = [cell.source for cell in cells if cell not in code]
    return results, code, outputs, "\n".join(prose), "\n".join(shown)


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """`make quick` into a folder of the tests. Two notebooks at once would wait for each other."""
    folder = tmp_path_factory.mktemp("quick")
    line = ["make", "-C", ROOT, "quick", "ACTIVE=0", "INSTALLED=", f"PYTHON={sys.executable}"]
    subprocess.run([*line, f"QUICK={folder}"])
    return folder


@pytest.mark.parametrize("stem", STEMS)
def test_runs_quickly(quick, stem):
    results, code, *_ = read(stem, quick, quick / "figures")
    verdicts = {c["holds"] for c in results["claims"]}
    assert results["parameters"]["QUICK"] is True and None not in verdicts
    assert stem != "1_theorem" or False not in verdicts  # mathematics holds at any size
    sources = "\n".join(cell.source for cell in code)
    saved = {*re.findall(r"""(?s)save_figure\(.*?["'](\d_\w+)["']""", sources)}
    for kind in ("png", "pdf"):
        assert saved and saved <= {path.stem for path in quick.glob(f"figures/*.{kind}")}


@pytest.mark.parametrize("stem", STEMS)
def test_faults_are_said_before_the_long_run(stem):
    """By the third cell, which is the first after the parameters."""
    python = [TransformerManager().transform_cell(cell.source) for cell in read(stem)[1][:3]]
    for fault, said in (("SEEDS = []", "(?i)one.* seed"), ("OUTPUT = 'README.md'", "be written")):
        with pytest.raises((ValueError, OSError), match=said):
            exec("\n".join([*python[:2], fault, python[2]]), {})


@pytest.mark.parametrize("stem", STEMS)
def test_committed_notebooks_are_executed_and_clean(stem):
    results, code, outputs, _, shown = read(stem)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures = [o.metadata["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]
    assert pictures and all(pictures)
    runs = results, json.loads(claims.committed(f"figures/{stem}.json") or '{"claims": []}')
    verdicts = [[c["holds"] for c in run["claims"]] for run in runs]  # yours, the record's
    table = re.findall(r"\| (yes|\*\*no\*\*) \|$", shown.rpartition("| holds |\n")[2], re.M)
    assert table and [word == "yes" for word in table] in verdicts
    front = {[*row.values()][0] for row in runs[1].get("result", [])}  # on the front page
    assert front <= {n["method"] for n in runs[1].get("numbers", []) if n["seeds"]}  # and compared
    text = (ROOT / "notebooks" / f"{stem}.ipynb").read_text()
    assert len(text) < 1_000_000 and not re.search(r"/(home|root|Users|tmp|work)/", text)
    lines = [line for cell in code for line in cell.source.splitlines() if "claims[" in line]
    assert not [line for line in lines if re.search(r"(?<![\w.])(max|min)\(", line)]  # lose NaN


def numbers(text):
    """Decimals, and integers above twelve, as they are written, but for a thousand's comma."""
    found = {re.sub("[,_]", "", n) for n in re.findall(r"(?<![\w.])\d[\d,_]*(?:\.\d+)?", text)}
    return {n for n in found if "." in n or int(n) > 12}


def unsupported(prose, shown):
    """Numbers of the prose that stand neither in what is shown nor in a quotation."""
    given = numbers(shown) | numbers(" ".join(re.findall(r'"[^"]*"|“[^”]*”', prose))) | EXCEPTIONS
    elsewhere = r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|https?://\S+|<[^>]*>"
    elsewhere += r"|arXiv[: ]*[\d.]+|Figures? [\d., and]+|\b(?:19|20)\d\d\b"
    return sorted(numbers(re.sub(f"(?s){elsewhere}", " ", prose)) - given)


def test_numbers_of_the_prose_stand_in_an_output():
    """Of each notebook in its own outputs or parameters; of the README in any, or in a result."""
    texts = {stem: read(stem) for stem in STEMS}
    shown = {s: t[4] + "\n".join(c.source for c in t[1][1:2]) for s, t in texts.items()}
    found = {stem: unsupported(texts[stem][3], shown[stem]) for stem in STEMS}
    assert found == dict.fromkeys(STEMS, [])
    results = (json.loads(p.read_text()).get("result") for p in ROOT.glob("figures/[3l]*.json"))
    prose = re.sub("(?s)```.*?```", "", (ROOT / "README.md").read_text())
    listed = (ROOT / "notebooks/claims.csv").read_text()
    assert unsupported(prose, "\n".join([*shown.values(), *map(json.dumps, results), listed])) == []


def test_numbers_tables_and_what_is_written(tmp_path, monkeypatch):
    """0.410 stands beside 0.538; neither K nor functions are settings; a Mac counts bytes; numbers
    for another notebook are written where they change; without git nothing is lost."""
    shown = [notebook.number(v, 3) for v in (0.41, 1.05, [2, 1.5], float("nan"))]
    assert shown == ["0.410", "1.05", "1.50 to 2.00", "–"]
    assert notebook.parameters({"RATE": 1, "L0": 4, "A_B": len, "PARAMETERS": {}}) == {"RATE": 1}
    monkeypatch.setattr("resource.getrusage", lambda _: type("usage", (), {"ru_maxrss": 2**30}))
    for platform, gigabytes in (("darwin", 1), ("linux", 1024)):
        monkeypatch.setattr("sys.platform", platform)
        assert notebook._peak_memory() == gigabytes
    for content, written in (({"a": [1]}, 1), ({"a": [1]}, 0), ({"a": [2]}, 1)):
        notebook.save_numbers("some", content, tmp_path)
        assert ((tmp_path / "some.json").stat().st_mtime > 0) == written
        os.utime(tmp_path / "some.json", (0, 0))
    monkeypatch.setenv("PATH", "")
    notebook.save_results("n", parameters={}, claims=claims.Claims("1_theorem"), folder=tmp_path)
    assert json.loads((tmp_path / "n.json").read_text())["environment"]["commit"] == "unknown"
