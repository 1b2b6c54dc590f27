"""What `make` does, in a copy of empty files: which notebooks it runs, and how."""

import os
import re
import shutil
import subprocess

import pytest

from lab import NOTEBOOKS, ROOT

SAVED = {"fashion/2_ablation.json": "2", "fashion/3_benchmark.json": "3"}  # shown by notebooks
SAVED |= {"language.json": "3", "3d_language_model.png": "3"}
SAVED = {f"figures/{name}": number for name, number in SAVED.items()}
RUNS = {path.relative_to(ROOT).as_posix(): "123" for path in ROOT.glob("lab/*.py")}
RUNS |= {"helpers.py": "123", "data/mnist.npz": "123"}  # {what changes: which notebooks run}
RUNS |= {f"lab/{name}.py": "" for name in ("check", "publish", "language")}
RUNS |= {f"lab/plots_{name[2:]}.py": name[0] for name in NOTEBOOKS}
RUNS |= {f"notebooks/{name}.ipynb": name[0] for name in NOTEBOOKS} | SAVED
RUNS |= dict.fromkeys(["notebooks/1_theorem-Copy1.ipynb", "data/corpus.txt", "README.md"], "")
RUNS |= dict.fromkeys(["figures/2_ablation.json", "figures/1_x.png", "figures/fashion/2_x.png"], "")
PYTHON = """#!/bin/sh
[ "$2" = papermill ] || exit 0
for last; do :; done
[ -z "$EDIT" ] || { sleep 0.1; echo edited > "$EDIT"; sleep 0.1; }
echo "$FIGURES $@" >> ran && echo run > "$last"
"""


@pytest.fixture
def folder(tmp_path):
    """A folder where all notebooks have run once, with a Python that only notes what it runs."""
    built = [f"build/{name}.{end}" for name in NOTEBOOKS for end in ("source", "ipynb")]
    for paths, time in (RUNS, 1), (built, 2):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
            os.utime(tmp_path / path, (time, time))
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def make(folder, words, **environment):
    """-> (exit status, what it printed, what papermill was told, a line for each notebook)."""
    environment = os.environ | {"MAKEFLAGS": "", "PYTHON": "./python", "DATA": ""} | environment
    done = subprocess.run(
        ["make", *words.split()], cwd=folder, env=environment, capture_output=True, text=True
    )
    ran = (folder / "ran").read_text().splitlines() if (folder / "ran").exists() else []
    return done.returncode, done.stdout + done.stderr, ran


def numbers(lines):
    return "".join(re.findall(r" notebooks/(\d)\w+\.ipynb ", "\n".join(lines)))


@pytest.mark.parametrize("changed", RUNS)
def test_a_notebook_runs_again_if_what_it_needs_changes(folder, changed):
    assert make(folder, "figures")[::2] == (0, [])
    (folder / changed).touch()
    status, _, ran = make(folder, "figures")
    assert status == 0 and numbers(ran) == RUNS[changed]
    assert all(line.startswith("figures ") for line in ran)
    assert numbers(make(folder, "figures")[2]) == RUNS[changed]  # it has run, and need not again


@pytest.mark.parametrize("saved", SAVED)
def test_what_a_notebook_shows_is_in_the_repository_and_not_made(folder, saved):
    assert (ROOT / saved).exists()
    (folder / saved).unlink()
    status, printed, ran = make(folder, "figures")
    assert status and f"No rule to make target '{saved}'" in printed.replace("`", "'") and not ran


def test_an_executed_notebook_is_kept_unless_it_was_edited_during_its_run(folder):
    notebook = folder / f"notebooks/{NOTEBOOKS[1]}.ipynb"
    notebook.touch()
    status, printed, ran = make(folder, "notebooks", EDIT=str(notebook))
    assert status and "2_ablation.ipynb was edited" in printed and numbers(ran) == "2"
    assert notebook.read_text() == "edited\n"
    for _ in "again", "and once more, when there is nothing to run":
        status, _, ran = make(folder, "notebooks")
        assert status == 0 and numbers(ran) == "22" and notebook.read_text() == "run\n"


@pytest.mark.parametrize("words", ["", "DATA=data/none.npz", "DATA=data"])
def test_other_images_have_to_be_there(folder, words):
    status, printed, ran = make(folder, f"fashion {words}")
    assert status and "see data/README.md" in printed and not ran


def test_notebooks_2_and_3_run_on_other_images_into_a_folder_of_their_own(folder):
    status, _, ran = make(folder, "fashion DATA=data/mnist.npz")
    assert status == 0 and numbers(ran) == "23"
    for line, options in zip(ran, ("-p EPOCHS 40", "-p PAPER_EPOCHS 40")):
        path = re.search(r"notebooks/(\w+\.ipynb)", line)[1]
        assert line.startswith("figures/fashion ") and line.endswith(f" build/fashion/{path}")
        assert f"-y DATA: data/mnist.npz -y SEEDS: [0, 1] {options} " in line


def test_parameters_are_those_of_the_notebooks(folder):
    runs = make(folder, "fashion DATA=data/mnist.npz")[2] + make(folder, "quick")[2]
    runs += re.findall(r"(?m)^\$run .*", (ROOT / ".ci/run").read_text().replace("\\\n", ""))
    assert len(runs) >= 2 + 3 + 2
    for run in runs:
        text = (ROOT / re.search(r"notebooks/\w+\.ipynb", run)[0]).read_text("utf-8")
        for parameter in re.findall(r"-[py] \"?(\w+)", run):
            assert f'"{parameter} = ' in text, run
