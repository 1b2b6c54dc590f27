"""The notebooks run from end to end, fail clearly, and are committed as they ran."""

import json
import re
import subprocess
import sys

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from lab import ROOT, record

STEMS = record.NOTEBOOKS
# Decimal numbers of the prose that no output of the same notebook shows, and where they are from.
EXCEPTIONS = {
    "0.01": "the paper's threshold of a low variance, and a rate of SGD",
    "0.001": "the paper's rate",
    "93.43": "the paper's probe",
    "90.26": "the paper's probe of its SAE",
    "3.10": "Python's version",
    "4.0": "of the licence CC BY",
}


def read(stem, notebooks=ROOT / "notebooks", figures=ROOT / "figures"):
    """A notebook's results, its cells of code, their outputs, its prose, and the text displayed."""
    results = json.loads((figures / f"{stem}.json").read_text())
    cells = nbformat.read(notebooks / f"{stem}.ipynb", 4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    outputs, prose = (
        [o for c in code for o in c.outputs],
        [c.source for c in cells if c not in code],
    )
    data = [o.get("data", {"text/plain": o.get("text", "")}) for o in outputs]
    shown = [d[kind] for d in data for kind in ("text/plain", "text/markdown") if kind in d]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    return results, code, outputs, "\n".join(prose), "\n".join(shown)


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """`make quick` into a folder of the tests: notebook 1 beside notebook 2 and then 3."""
    folder, mine = tmp_path_factory.mktemp("quick"), [f"PYTHON={sys.executable}", "INSTALLED="]
    line = ["make", "-C", ROOT, "quick", "ACTIVE=0", f"QUICK={folder}", *mine]
    for run in [
        subprocess.Popen([*line, f"NOTEBOOKS={n}"]) for n in (STEMS[0], " ".join(STEMS[1:]))
    ]:
        run.wait()
    return folder


@pytest.mark.parametrize("stem", STEMS)
def test_runs_quickly(quick, stem):
    results, code, *_ = read(stem, quick, quick / "figures")
    assert results["parameters"]["QUICK"] is True
    assert [c["id"] for c in results["claims"] if c["holds"] is None] == []
    if stem == "1_theorem":  # which is mathematics, and so holds at any size
        assert [c["id"] for c in results["claims"] if not c["holds"]] == []
    saved = re.findall(
        r"""(?s)save_figure\(.*?["'](\d_\w+)["']""", "\n".join(c.source for c in code)
    )
    files = {path.name for path in (quick / "figures").iterdir()}
    assert saved and {f"{name}.{kind}" for name in saved for kind in ("png", "pdf")} <= files


@pytest.mark.parametrize("stem", STEMS)
def test_faults_are_said_before_the_long_run(stem):
    """By the third cell, which is the first after the parameters."""
    python = [TransformerManager().transform_cell(cell.source) for cell in read(stem)[1][:3]]
    for fault, said in (("SEEDS = []", "(?i)one.* seed"), ("OUTPUT = 'README.md'", "be written")):
        with pytest.raises((ValueError, OSError), match=said):
            exec("\n".join([*python[:2], fault, python[2]]), {})


def test_the_first_cell_fetches_the_repository(tmp_path):
    """As in Colab, a notebook alone in an empty folder: from a local clone; or it says so."""
    (fetch,) = {re.search(r"(?s)root = next.*?insert.*?\n", read(s)[1][0].source)[0] for s in STEMS}
    fetch = (
        f"import sys\nfrom pathlib import Path\n{fetch}\nimport helpers\nprint(helpers.__file__)"
    )
    git = ["git", "-C", ROOT, "branch", "--show-current"]
    branch = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    for place, said in (("nowhere", "not fetched; clone it"), (ROOT, "companion/helpers.py\n")):
        mine = f'repository, revision = "file://{place}", "{branch}"'
        (tmp_path / "cell.ipy").write_text(re.sub("repository, revision = .*", mine, fetch))
        line = [sys.executable, "-m", "IPython", "cell.ipy"]
        out = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True).stdout
        assert said in out or not branch  # of a checkout without a branch nothing can be cloned


@pytest.mark.parametrize("stem", STEMS)
def test_committed_notebooks_are_executed_and_clean(stem):
    results, code, outputs, _, shown = read(stem)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures = [o.metadata["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]
    assert pictures and all(pictures)
    runs = (
        results,
        json.loads(record.committed(f"figures/{stem}.json") or "{}"),
    )  # yours, the record
    verdicts = [[c["holds"] for c in run["claims"]] for run in runs if run]
    table = re.findall(r"\| (yes|\*\*no\*\*) \|$", shown.rpartition("| holds |\n")[2], re.M)
    assert [word == "yes" for word in table] in verdicts
    text = (ROOT / "notebooks" / f"{stem}.ipynb").read_text()
    assert len(text) < 1_000_000 and not re.search(r"/(home|root|Users|tmp|work)/", text)
    lines = [line for cell in code for line in cell.source.splitlines() if "claims[" in line]
    assert not [line for line in lines if re.search(r"(?<!np\.)\b(max|min)\(", line)]  # lose NaN


def unsupported(prose, shown):
    """Decimal numbers of the prose that do not stand verbatim in what is shown."""
    elsewhere = r"\]\([^)]*\)|https?://\S+|<[^>]*>|arXiv\S* \S+|(?s:```.*?```)|Figures? [\d., and]+"
    number = r"(?<![\d.])\d[\d,]*\.\d+"
    given = {*re.findall(number, re.sub("(?s)```.*?```", "", shown)), *EXCEPTIONS}
    return sorted({*re.findall(number, re.sub(elsewhere, " ", prose))} - given)


@pytest.mark.parametrize("stem", STEMS)
def test_decimals_of_the_prose_stand_in_an_output(stem):
    assert unsupported(*read(stem)[3:]) == []


def test_decimals_of_the_readme_stand_in_an_output():
    paths = ROOT.glob("figures/[3l]*.json")
    runs = [run for p in paths for run in (p.read_text(), record.committed(f"figures/{p.name}"))]
    results = [json.dumps(json.loads(run).get("result")) for run in runs if run]
    claims, prose = ((ROOT / n).read_text() for n in ("notebooks/claims.csv", "README.md"))
    assert unsupported(prose, "\n".join([*(read(s)[4] for s in STEMS), *results, claims])) == []
