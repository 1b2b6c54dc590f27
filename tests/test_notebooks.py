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
    """The results of a notebook, the notebook, its cells of code, and all their outputs."""
    results = json.loads((figures / f"{stem}.json").read_text())
    notebook = nbformat.read(notebooks / f"{stem}.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return results, notebook, code, [o for cell in code for o in cell.outputs]


def is_clean(outputs):
    return not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """`make quick` into a folder of the test: notebook 1 beside notebook 2 and then 3."""
    folder, python = tmp_path_factory.mktemp("quick"), [f"PYTHON={sys.executable}", "INSTALLED="]
    line = ["make", "-C", ROOT, "quick", "ACTIVE=0", f"QUICK={folder}", *python]
    both = [subprocess.Popen([*line, f"NOTEBOOKS={n}"]) for n in (STEMS[0], " ".join(STEMS[1:]))]
    [one.wait() for one in both]
    return folder


@pytest.mark.parametrize("stem", STEMS)
def test_runs_quickly(quick, stem):
    results, _, code, outputs = read(stem, quick, quick / "figures")
    assert results["parameters"]["QUICK"] is True and is_clean(outputs)
    assert all(c["holds"] is not None for c in results["claims"])
    if stem == "1_theorem":  # which is mathematics, and so holds at any size
        assert [c["id"] for c in results["claims"] if not c["holds"]] == []
    saved = re.findall(
        r"""(?s)save_figure\(.*?["'](\d_\w+)["']""", "\n".join(c.source for c in code)
    )
    assert {f"{n}.{kind}" for n in saved for kind in ("png", "pdf")} <= {
        p.name for p in (quick / "figures").iterdir()
    }


def python(cells):
    return "\n".join(TransformerManager().transform_cell(cell.source) for cell in cells)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize(
    "fault, said", [("SEEDS = []", "(?i)one.* seed"), ("OUTPUT = 'README.md'", "cannot be written")]
)
def test_faults_are_said_before_the_long_run(stem, fault, said):
    """By the third cell, which is the first after the parameters."""
    code = read(stem)[2]
    with pytest.raises((ValueError, OSError), match=said):
        exec(f"{python(code[:2])}\n{fault}\n{python(code[2:3])}", {"get_ipython": None})


def test_the_first_cell_fetches_the_repository(tmp_path):
    """As in Colab, a notebook alone in an empty folder: from a local clone; or it says so."""
    git = ["git", "-C", ROOT, "branch", "--show-current"]
    branch = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    if not branch:
        pytest.skip("no git clone, or no branch is checked out")
    pattern = r"(?s)(root = next.*?sys\.path\.insert.*?\n)"
    (fetch,) = {re.search(pattern, read(stem)[2][0].source)[1] for stem in STEMS}
    fetch = (
        "import sys\nfrom pathlib import Path\n" + fetch + "import helpers\nprint(helpers.__file__)"
    )
    for place, said in ((ROOT, "companion/helpers.py\n"), ("nowhere", "was not fetched; clone it")):
        mine = f'repository, revision = "file://{place}", "{branch}"'
        (tmp_path / "cell.ipy").write_text(re.sub("repository, revision = .*", mine, fetch))
        line = [sys.executable, "-m", "IPython", "cell.ipy"]
        assert said in subprocess.run(line, cwd=tmp_path, capture_output=True, text=True).stdout
        subprocess.run(["rm", "-rf", tmp_path / "companion"], check=True)


@pytest.mark.parametrize("stem", STEMS)
def test_committed_notebooks_are_executed_and_clean(stem):
    results, _, code, outputs = read(stem)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert is_clean(outputs) and all(c["holds"] is not None for c in results["claims"])
    pictures = [o.metadata["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]
    assert pictures and all(pictures)
    shown = [o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    verdicts = ["yes" if c["holds"] else "**no**" for c in results["claims"]]
    assert (
        re.findall(r"\| (\S+) \|$", [t for t in shown if "| holds |\n" in t][-1], re.M)[2:]
        == verdicts
    )
    text = (ROOT / "notebooks" / f"{stem}.ipynb").read_text()
    assert len(text) < 1_000_000 and not re.search(r"/(home|root|Users|tmp|work)/", text)
    maxima = [line for cell in code for line in cell.source.splitlines() if "claims[" in line]
    assert not [line for line in maxima if re.search(r"(?<!np\.)\b(max|min)\(", line)]  # lose NaN


def unsupported(prose, outputs):
    """Decimal numbers of the prose that do not stand verbatim in the outputs."""
    links = r"\]\([^)]*\)|https?://\S+|<[^>]*>|arXiv\S* \S+|(?s:```.*?```)|Figures? [\d., and]+"
    numbers = re.findall(r"(?<![\d.])\d[\d,]*\.\d+", re.sub(links, " ", prose))
    given = {*re.findall(r"\d[\d,]*\.\d+", re.sub(r"(?s)```.*?```", "", outputs)), *EXCEPTIONS}
    return sorted({*numbers} - given)


def displayed(stem):
    shown = [o.get("text", "") for o in read(stem)[3]]
    data = [o.get("data", {}) for o in read(stem)[3]]
    return "\n".join(
        shown + [d.get(f"text/{kind}", "") for d in data for kind in ("plain", "markdown")]
    )


@pytest.mark.parametrize("stem", STEMS)
def test_decimals_of_the_prose_stand_in_an_output(stem):
    prose = [c.source for c in read(stem)[1].cells if c.cell_type == "markdown"]
    assert unsupported("\n".join(prose), displayed(stem)) == []


def test_decimals_of_the_readme_stand_in_an_output():
    claims = (ROOT / "notebooks" / "claims.csv").read_text()
    results = [json.loads(p.read_text()).get("result") for p in (ROOT / "figures").glob("*.json")]
    shown = "\n".join([*map(displayed, STEMS), json.dumps(results), claims])
    assert unsupported((ROOT / "README.md").read_text(), shown) == []
