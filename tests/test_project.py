"""Both lists of packages agree, and the Makefile is readable."""

import os
import re
import subprocess

import helpers as h

CONDA_NAMES = {"pytorch-cpu": "torch"}


def test_both_lists_name_the_same_packages_and_ranges():
    conda = re.findall(r"^  - ([\w-]+)(\S+)$", (h.ROOT / "environment.yml").read_text(), re.M)
    pip = re.findall(r"^([\w-]+)(\S+)$", (h.ROOT / "requirements.txt").read_text(), re.M)
    conda = {CONDA_NAMES.get(name, name): bounds for name, bounds in conda if bounds[0] in "<>="}
    assert conda.pop("python")
    assert conda == dict(pip)


def make(*arguments, **environment):
    command = ["make", "-C", str(h.ROOT), *arguments]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "CONDA"))}
    return subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, check=True
    ).stdout


def test_make_is_readable():
    assert "figures" in make() and "notebooks" in make("help")
    dry = make("-n", "-B", "figures")
    assert dry.count("papermill") == 3 and ".venv/bin/python" in dry


def test_make_uses_an_active_conda_environment():
    dry = make("-n", "-B", "figures", CONDA_PREFIX="/opt/study", CONDA_DEFAULT_ENV="study")
    assert dry.count("/opt/study/bin/python -m papermill") == 3 and ".venv" not in dry
    base = make("-n", "-B", "figures", CONDA_PREFIX="/opt/conda", CONDA_DEFAULT_ENV="base")
    assert "/opt/conda" not in base


def test_a_missing_figure_is_made_by_its_notebook():
    dry = make("-n", "-B", "figures/2_ablation.png")
    assert "mv build/2_ablation.running.ipynb build/2_ablation.ipynb" in dry
    assert dry.count("papermill") == 1
