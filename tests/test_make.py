"""Which notebooks `make figures` runs, in a copy of empty files."""

import os
import re
import shutil
import subprocess

import pytest

from lab import NOTEBOOKS, ROOT

DRAWN = {"1_x.json": "1", "1a_x.png": "1", "2_x.pdf": "2", "3d_x.png": "", "fashion/2.png": ""}
DRAWN = {f"figures/{name}": number for name, number in DRAWN.items()}
NONE_RUNS = [f"lab/{name}.py" for name in ("check", "publish", "language")]
NONE_RUNS += ["notebooks/1_theorem-Copy1.ipynb", *DRAWN]
ALL_RUN = ("helpers.py", "data/mnist.npz", "lab/__init__.py", "lab/plots.py", "lab/measures.py")
RUNS = [(path, "") for path in NONE_RUNS] + [(path, "123") for path in ALL_RUN]
RUNS += [(f"notebooks/{name}.ipynb", name[0]) for name in NOTEBOOKS]
RUNS += [(f"lab/plots_{name[2:]}.py", name[0]) for name in NOTEBOOKS]


@pytest.fixture(params=["in a clone", "without git"])
def to_run(request, tmp_path):
    """A function that tells which notebooks are to run in tmp_path, where all have run once."""
    for paths, time in (dict(RUNS), 1), ([f"build/{name}.ipynb" for name in NOTEBOOKS], 2):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
            os.utime(tmp_path / path, (time, time))
    shutil.copy(ROOT / "Makefile", tmp_path)
    if request.param == "in a clone":
        subprocess.run("git init -q && git add figures", shell=True, cwd=tmp_path, check=True)

    def numbers():
        command = "MAKEFLAGS= PYTHON=python3 make -n figures"
        printed = subprocess.check_output(command, shell=True, cwd=tmp_path, text=True)
        return "".join(re.findall(r"papermill.* notebooks/(\d)\w+\.ipynb ", printed))

    return numbers


@pytest.mark.parametrize("edited, numbers", RUNS)
def test_a_notebook_runs_again_if_what_it_needs_changes(tmp_path, to_run, edited, numbers):
    assert to_run() == ""
    (tmp_path / edited).touch()
    assert to_run() == numbers


@pytest.mark.parametrize("deleted, numbers", DRAWN.items())
def test_a_notebook_runs_again_if_its_figure_is_deleted(tmp_path, to_run, deleted, numbers):
    (tmp_path / deleted).unlink()
    assert to_run() == (numbers if (tmp_path / ".git").exists() else "")
