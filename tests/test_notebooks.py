"""The notebooks run from end to end, fail clearly, and are committed as they ran."""

import json
import re
import subprocess
import sys

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from lab import ROOT, claims

STEMS = claims.NOTEBOOKS
# Decimals of the prose that no output shows: the paper's rates and threshold of a low variance, its
# probe and that of its SAE, Python's version, and that of the licence CC BY; a rate to try.
EXCEPTIONS = "0.01 0.001 93.43 90.26 3.10 4.0 0.03".split()


def read(stem, notebooks=ROOT / "notebooks", figures=ROOT / "figures"):
    """A notebook's results, its cells of code, their outputs, its prose, and the text displayed."""
    results = json.loads((figures / f"{stem}.json").read_text())
    cells = nbformat.read(notebooks / f"{stem}.ipynb", 4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    data = [o.get("data", {"text/plain": o.get("text", "")}) for o in outputs]
    shown = [d[kind] for d in data for kind in ("text/plain", "text/markdown") if kind in d]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    prose = [cell.source for cell in cells if cell not in code]
    return results, code, outputs, "\n".join(prose), "\n".join(shown)


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """`make quick` into a folder of the tests: notebook 1 beside notebook 2 and then 3."""
    folder, mine = tmp_path_factory.mktemp("quick"), [f"PYTHON={sys.executable}", "INSTALLED="]
    line = ["make", "-C", ROOT, "quick", "ACTIVE=0", f"QUICK={folder}", *mine]
    some = STEMS[0], " ".join(STEMS[1:])
    for run in [subprocess.Popen([*line, f"NOTEBOOKS={names}"]) for names in some]:
        run.wait()
    return folder


@pytest.mark.parametrize("stem", STEMS)
def test_runs_quickly(quick, stem):
    results, code, *_ = read(stem, quick, quick / "figures")
    verdicts = {c["holds"] for c in results["claims"]}
    assert results["parameters"]["QUICK"] is True and None not in verdicts
    assert stem != "1_theorem" or False not in verdicts  # mathematics holds at any size
    sources = "\n".join(cell.source for cell in code)
    saved = re.findall(r"""(?s)save_figure\(.*?["'](\d_\w+)["']""", sources)
    kinds, figures = ("png", "pdf"), quick / "figures"
    assert saved and all((figures / f"{name}.{k}").exists() for name in saved for k in kinds)


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


def unsupported(prose, shown):
    """Decimal numbers of the prose that do not stand verbatim in what is shown."""
    elsewhere = r"\]\([^)]*\)|https?://\S+|<[^>]*>|arXiv\S* \S+|(?s:```.*?```)|Figures? [\d., and]+"
    number = r"(?<![\d.])\d[\d,]*\.\d+"
    given = {*re.findall(number, re.sub("(?s)```.*?```", "", shown)), *EXCEPTIONS}
    return sorted({*re.findall(number, re.sub(elsewhere, " ", prose))} - given)


def test_decimals_of_the_prose_stand_in_an_output():
    """Of each notebook in its own; of the README in any, in the list of claims, or in a result."""
    texts = [read(stem)[3:] for stem in STEMS]
    found = {stem: unsupported(*text) for stem, text in zip(STEMS, texts)}
    assert found == dict.fromkeys(STEMS, [])
    paths = ROOT.glob("figures/[3l]*.json")
    runs = [run for p in paths for run in (p.read_text(), claims.committed(f"figures/{p.name}"))]
    results = [json.dumps(json.loads(run).get("result")) for run in runs if run]
    claims, prose = ((ROOT / n).read_text() for n in ("notebooks/claims.csv", "README.md"))
    assert unsupported(prose, "\n".join([*(shown for _, shown in texts), *results, claims])) == []
