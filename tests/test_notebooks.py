"""The notebooks run from end to end, fail clearly, and are committed as they ran."""

import json
import re
import subprocess

import nbclient
import nbformat
import papermill
import pytest
from test_language import tiny_gpt2

from helpers import ROOT

STEMS = ("1_theorem", "2_ablation", "3_benchmark")
SMALL = {"EPOCHS": 2, "SEEDS": [0, 1], "N_COMPONENTS": 8, "N_TRAIN": 1000}
OURS = {
    name: [[0.02, 1], 2]
    for name in ("published form", "published + prior", "log det", "bounded", "L1/K")
}
SAES = {"L1 SAE": [0.1, 1, 4], "tied SAE": [0.1, 2], "TopK SAE": [2, 4], "tied, LSE": [40, 120]}
TINY = {
    "1_theorem": {"N_RANDOM": 8, "N_MIXTURE": 200, "K_MIXTURE": 4, "EM_STEPS": 3, "SEEDS": [0, 1]},
    "2_ablation": SMALL | {"EPOCHS": 4, "BEGINNING": 3, "PRIOR_EPOCHS": 6,
        "LAW": [[4, 12], [8, 12]], "ADAM": [[4, 8]]},
    "3_benchmark": SMALL | {"BATCH_SIZE": 40, "JUDGED_L0": [2, 3], "RATES": [0.001],
        "LONGER": ["bounded"], "PUBLISHED_EPOCHS": {"model": 1, "SAE": 1},
        "CONTESTANTS": OURS | {method: [knobs, 2] for method, knobs in SAES.items()}},
}  # fmt: skip


def read(stem, notebooks=ROOT / "notebooks", figures=ROOT / "figures"):
    """The results of a notebook, and the notebook."""
    results = json.loads((figures / f"{stem}.json").read_text())
    return results, nbformat.read(notebooks / f"{stem}.ipynb", 4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run_small(stem, folder, parameters):
    """Run a notebook, check what it leaves behind, and return its results."""
    parameters, figures = parameters | {"OUTPUT": str(folder / "figures")}, folder / "figures"
    there = {"kernel_name": "python3", "cwd": ROOT / "notebooks", "progress_bar": False}
    source, executed = ROOT / "notebooks" / f"{stem}.ipynb", folder / f"{stem}.ipynb"
    papermill.execute_notebook(source, executed, parameters, **there)
    files = {p.name for p in figures.iterdir()}
    assert {f"{stem}.{kind}" for kind in ("png", "pdf", "json")} <= files
    assert not [name for name in files if name.startswith(".")]
    results, notebook = read(stem, folder, figures)
    assert {"parameters", "environment", "claims", "table"} <= set(results)
    for output in (o for cell in code(notebook) for o in cell.outputs):
        assert output.get("name") != "stderr" and "widget" not in str(output.get("data", {}).keys())
    return results


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stem", STEMS)
def test_runs_small(stem, tmp_path):
    results = run_small(stem, tmp_path, TINY[stem])
    if stem == "1_theorem":  # which is mathematics, and so holds at any size
        assert [c["key"] for c in results["claims"] if not c["holds"]] == []


def test_benchmark_on_a_language_model(tmp_path, monkeypatch):
    """A tiny one with random weights: no labels, hence no probe and no claims about one."""
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")  # GPT-2's token ids exceed its vocabulary
    folder, corpus, _ = tiny_gpt2(tmp_path / "gpt2")
    words = {"DATASET": str(folder), "MODULE": "h.1.mlp.act", "CORPUS": str(corpus)}
    words |= {"N_TOKENS": 500, "PUBLISHED_EPOCHS": {}, "LONGER": []}  # as in language.yaml
    results = run_small("3_benchmark", tmp_path, TINY["3_benchmark"] | words)
    assert "probe" not in results["table"][0] and results["recovered"]["bounded"]
    keys = {c["key"] for c in results["claims"]}
    assert "identities" in keys and not keys & {"benchmark", "features", "purity"}


def execute(folder, *sources):
    """Run cells in a notebook of their own, whatever fails."""
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))
    resources = {"metadata": {"path": str(folder)}}
    return nbclient.NotebookClient(notebook, resources=resources, allow_errors=True).execute().cells


@pytest.mark.parametrize("stem", STEMS)
def test_faults_are_said_before_the_long_run(stem, tmp_path):
    """By the third cell, which is the first after the parameters."""
    setup, parameters, ready = (cell.source for cell in code(read(stem)[1])[:3])
    (tmp_path / "file").touch()
    fault = f"{parameters}\nOUTPUT = {str(tmp_path / 'file')!r}"
    sources = setup, parameters, ready, "SEEDS = []", ready, fault, ready
    _, _, fine, _, no_seeds, _, unwritable = execute(ROOT / "notebooks", *sources)
    assert fine.outputs == [] and re.search("(?i)one.* seed", no_seeds.outputs[-1].evalue)
    assert re.search("OUTPUT .* cannot be written", unwritable.outputs[-1].evalue)


def test_the_first_cell_fetches_the_repository(tmp_path):
    """As in Colab, a notebook alone in an empty folder: from a local clone; or it says so."""
    git = ["git", "-C", ROOT, "branch", "--show-current"]
    branch = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    if not branch:
        pytest.skip("no git clone, or no branch is checked out")
    pattern = r"(?s)import .*?(root = next.*?sys\.path\.insert.*?\n)"
    (fetch,) = {re.search(pattern, code(read(stem)[1])[0].source)[1] for stem in STEMS}
    fetch = "import sys\nfrom pathlib import Path\n" + fetch
    for name in ("there", "missing"):
        local = (
            f'repository, revision = "file://{ROOT if name == "there" else tmp_path}", "{branch}"'
        )
        (tmp_path / name).mkdir()
        first, last = execute(
            tmp_path / name, re.sub("repository, revision = .*", local, fetch),
            "import helpers as h\nprint(h.__file__, len(h.load_mnist()[0]))",
        )  # fmt: skip
        if name == "there":
            assert last.outputs[0].text == f"{tmp_path}/there/companion/helpers.py 60000\n"
        else:
            assert "was not fetched; clone it" in first.outputs[-1].evalue


@pytest.mark.parametrize("stem", STEMS)
def test_committed_notebooks_are_executed_and_clean(stem):
    results, notebook = read(stem)
    cells, outputs = code(notebook), [o for cell in code(notebook) for o in cell.outputs]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert all(o.metadata["image/png"]["alt"] for o in pictures) and pictures
    *_, table = [
        t for o in outputs if "| holds |\n" in (t := o.get("data", {}).get("text/markdown", ""))
    ]
    verdicts = ["yes" if c["holds"] else "**no**" for c in results["claims"]]
    assert re.findall(r"\| (\S+) \|$", table, re.M)[2:] == verdicts  # after the head of the table
    text = (ROOT / "notebooks" / f"{stem}.ipynb").read_text()
    assert len(text) < 1_000_000 and not re.search(r"/(home|root|Users|tmp|work)/", text)
