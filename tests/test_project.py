"""Package lists, Makefile, front page, style."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab import ROOT, claims

STEMS = claims.NOTEBOOKS
README, MAKEFILE = ((ROOT / name).read_text() for name in ("README.md", "Makefile"))


def run(*command, status=0, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_package_lists_agree_and_the_record_ran_with_the_lock():
    def specifiers(name, pattern=r"(?m)^()([^#\s]+)"):
        text = (ROOT / name).read_text().replace("pytorch-cpu", "torch")
        found = [Requirement(package) for _, package in re.findall(pattern, text)]
        return {canonicalize_name(r.name): r.specifier for r in found}

    names, lock = specifiers("requirements.txt"), specifiers("requirements.lock")
    lock = {name: str(pin)[2:] for name, pin in lock.items()}
    assert specifiers("environment.yml", r"(?m)^(  - )(?!python=|pip$|conda-)([^#\s]+)") == names
    assert all(specifier.contains(lock[name]) for name, specifier in names.items())
    for text in filter(None, (claims.committed(f"figures/{stem}.json") for stem in STEMS)):
        ran = json.loads(text)["environment"]
        assert {k: v for k, v in ran.items() if lock.get(k, v) != v} == {}
        python = ran["python"].rpartition(".")[0]
        assert f"  - python={python}\n" in (ROOT / "environment.yml").read_text()


@pytest.mark.parametrize("stem", STEMS)
def test_make_knows_all_figures_and_all_that_notebooks_read(stem):
    def listed(name):
        return (re.findall(rf"(?m)^{name}:?=? (.*)", MAKEFILE.replace("\\\n", "")) or [""])[0]

    cells = json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    saved = re.findall(r"""(?s)save_figure\(.*?["'](\d_\w+)["']""", code)
    assert sorted(listed(f"FIGURES_{stem} ").split()) == sorted(saved)
    read = listed("INPUTS ") + listed(f"build/{stem}.ipynb")
    modules = ", ".join(re.findall(r"from lab import ([\w, ]+)", code)).split(", ")
    assert [name for name in modules if f"{name}.py" not in read] == []


FAKE = """#!/bin/sh
[ $1 = -c ] && exec {0} ${{COMPLETE--S}} "$@"
echo ${{0%/bin/python}} $2 >> log
[ $2 = papermill ] || exit 0
echo new > figures/$(basename $7 .ipynb).png
[ -e interrupted ] && exit 1
echo new | tee figures/$(basename $7 .ipynb).json > $8
"""


def test_make(tmp_path):
    """In a copy of the project, with Pythons that only write down what they are asked to run."""
    hidden = shutil.ignore_patterns(".*", "build", "*.npz")
    shutil.copytree(ROOT, tmp_path, ignore=hidden, dirs_exist_ok=True)
    fakes, figures = (".venv/bin/python", "conda/bin/python"), re.findall(r"\b\d_\w+", MAKEFILE)
    new = [f"figures/{name}.{kind}" for name in figures for kind in ("png", "pdf")]
    new += ["lab/units.py", "data/mnist.npz", "figures/language.json", ".venv/.installed", "log"]
    for path in (tmp_path / name for name in (*fakes, *new)):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(FAKE.format(sys.executable) * (path.name == "python"))
        path.chmod(0o755)

    def make(*goals, status=0, **variables):
        """What was asked for, and what was said."""
        mine = ("MAKE", "MFLAGS", "CONDA", "LOCK", "ACTIVE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
        said = run("make", "-C", tmp_path, *goals, status=status, env=kept | variables)
        asked = (tmp_path / "log").read_text().splitlines()
        (tmp_path / "log").write_text("")
        for path in tmp_path.rglob("*"):  # long ago: some file systems and makes count seconds
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
        return asked, said

    one, rest = [".venv papermill"], [".venv pip", ".venv nbstripout", ".venv pytest"]
    assert make("-j4", "notebooks", "test")[0] == 3 * one + rest and make("figures")[0] == []
    (tmp_path / "figures" / "1_theorem.png").unlink()
    (tmp_path / "interrupted").touch()
    make("figures", status=2)
    (tmp_path / "interrupted").unlink()  # it has left that figure, newer than all else
    assert make("figures")[0] == one and make("figures")[0] == []
    (tmp_path / "figures" / "2_ablation.pdf").unlink()
    assert make("figures/1_theorem.png")[0] == [] and make("figures")[0] == 2 * one  # 2, and 3
    (tmp_path / "requirements.txt").touch()
    assert "pip install --quiet --requirement requirements.txt" in make("-n", "test")[1]
    (tmp_path / ".venv" / ".installed").touch()
    study = {"CONDA_DEFAULT_ENV": "study", "CONDA_PREFIX": f"{tmp_path}/conda"}
    assert make("test", **study)[0] == [".venv pip", ".venv pytest"]  # for it lacks packages
    asked, said = make("test", "ACTIVE=1", status=2, **study)
    assert f"Missing in {tmp_path}/conda: torch numpy" in said and asked == []
    assert make("test", COMPLETE="", **study)[0] == [f"{tmp_path}/conda pytest"]
    assert make("test", "ACTIVE=0", COMPLETE="", **study)[0] == [".venv pytest"]


def test_use_it_runs_as_it_stands_and_links_lead_somewhere(capsys):
    """It prints what the README shows, but for a few percent of each number."""
    links = re.findall(r"""(?:\]\(|src=")(?!http)([^)#"]+)""", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []
    code, shown = re.search(r"(?s)```python\n(.*?)```.*?```text\n(.*?)```", README).groups()
    exec(code, {})
    shown, out = (re.split(r"(\d+\.?\d*)", text) for text in (shown, capsys.readouterr().out))
    assert [*map(str.split, out[::2])] == [*map(str.split, shown[::2])]
    assert [*map(float, out[1::2])] == pytest.approx([*map(float, shown[1::2])], rel=0.03, abs=0.02)


def test_ruff():
    run(sys.executable, "-m", "ruff", "check", ROOT)
    run(sys.executable, "-m", "ruff", "format", "--check", ROOT)
