"""The Makefile and docs/publish.py, tried in a copy of the repository."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import ROOT

PLAN = [f"notebooks/{name}.ipynb" for name in ("1_theorem", "2_ablation", "3_benchmark")]
RUNNER = """#!/bin/sh
# Stands in for Python: for papermill it writes a picture, a table and the notebook that has run
test "$2" = papermill || exit 0
while test $# -gt 2; do
  test "$1 $2" != "-p FIGURES" || folder=$3
  shift
done
echo "$1" >> ran
echo "$1" | tee "$folder/$(basename "$1" .ipynb).png" > "$folder/$(basename "$1" .ipynb).csv"
test -z "$FAIL" && cp "$1" "$2"
"""


@pytest.fixture
def copy(tmp_path):
    for name in ("Makefile", "README.md", "CITATION.cff", "helpers.py", "requirements.txt"):
        shutil.copy2(ROOT / name, tmp_path)
    for name in ("notebooks", "questions", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for path in ("data/mnist.npz", "figures/language.csv"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "runner").write_text(RUNNER)
    (tmp_path / "runner").chmod(0o755)
    return tmp_path


def make(folder, *words, **variables):
    """Run make there, as from a new terminal."""
    unset = {"PYTHON", "ARGS", "REPO", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CONDA_PREFIX"}
    new = {name: value for name, value in os.environ.items() if name not in unset}
    command = ["make", "-C", folder, *words]
    return subprocess.run(command, env=new | variables, capture_output=True, text=True)


def ran(folder):
    paths = (folder / "ran").read_text().split()
    (folder / "ran").unlink()
    return sorted(paths)


def test_a_notebook_runs_again_if_what_it_needs_has_changed(copy):
    run = "PYTHON=./runner"
    assert not make(copy, "figures", run).returncode
    assert ran(copy) == PLAN
    assert len([*copy.glob("figures/*.png")]) == 3
    assert not make(copy, "figures", run).returncode
    assert not (copy / "ran").exists()
    later = (copy / "build/3_benchmark.ipynb").stat().st_mtime + 2
    for changed, again in (("notebooks/2_ablation.ipynb", PLAN[1:2]), ("helpers.py", PLAN)):
        os.utime(copy / changed, (later, later))
        assert not make(copy, "figures", run).returncode
        assert ran(copy) == again
        os.utime(copy / changed, (0, 0))


def test_a_run_that_fails_changes_no_figure(copy):
    assert make(copy, "figures", "PYTHON=./runner", FAIL="1").returncode
    assert ran(copy) and not [*copy.glob("figures/[0-9]*")]
    assert not [*copy.glob("build/[0-9]_*.ipynb")]


def test_with_conda_nothing_is_installed_unasked(copy):
    stopped = make(copy, "quick", CONDA_PREFIX="/conda")
    assert stopped.returncode and "make PYTHON=python quick" in stopped.stderr
    assert not (copy / ".venv").exists()
    said = make(copy, "-n", "quick", "PYTHON=python", CONDA_PREFIX="/conda").stdout
    assert "python -m papermill" in said and "pip install" not in said


@pytest.mark.parametrize(
    "stand_in, said",
    [("exit 1", "Python 3.10"), ('test "$2" != venv', "python3-venv")],
)
def test_without_a_python_that_will_do_make_says_so(copy, stand_in, said):
    (copy / "bin").mkdir()
    (copy / "bin/python3").write_text(f"#!/bin/sh\n{stand_in}\n")
    (copy / "bin/python3").chmod(0o755)
    stopped = make(copy, "quick", PATH=f"{copy}/bin:{os.environ['PATH']}")
    assert stopped.returncode and said in stopped.stderr


def test_the_last_address_is_published_and_makes_no_notebook_run_again(copy):
    assert not make(copy, "figures", "PYTHON=./runner").returncode
    ran(copy)
    page = copy / "docs/index.html"
    before = page.read_text("utf-8")
    for repository in ("owner/first", "Other/2.nd"):
        assert not make(copy, "publish", f"REPO={repository}").returncode
    written = [copy / "README.md", copy / "CITATION.cff", page, *copy.glob("[nbq]*/*.ipynb")]
    texts = {path.name: path.read_text("utf-8") for path in written}
    for name, text in texts.items():
        assert "Other/2.nd" in text, name
        assert not re.search("owner/first|owner.github|OWNER/NAME", text), name
    assert "https://other.github.io/2.nd/" in texts["README.md"]
    assert texts["index.html"].replace("Other/2.nd", "OWNER/NAME") == before
    assert not make(copy, "figures", "PYTHON=./runner").returncode
    assert not (copy / "ran").exists()


@pytest.mark.parametrize("repository", ["", "a", "a/b/c", "https://github.com/a/b", "a/b c"])
def test_what_is_no_address_is_refused(copy, repository):
    before = (copy / "README.md").read_text("utf-8")
    refused = make(copy, "publish", f"REPO={repository}")
    assert refused.returncode and "REPO=owner/name" in refused.stderr
    assert (copy / "README.md").read_text("utf-8") == before
