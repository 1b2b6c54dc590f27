"""Package lists, Makefile, workflows, README, the public address, style."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab import record

ROOT = record.ROOT
PUBLIC = ["README.md", *(f"notebooks/{stem}.ipynb" for stem in record.NOTEBOOKS)]
README, *NOTEBOOKS = ((ROOT / name).read_text() for name in PUBLIC)
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def run(*command, status=0, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def recorded():
    """After a run of your own figures/ are no record."""
    git = ["git", "-C", ROOT, "diff", "--quiet", "HEAD", "--", "figures"]
    if subprocess.run(git, capture_output=True).returncode:
        pytest.skip("figures/ are not those of the last commit")


def requirements(name):
    found = map(Requirement, re.findall(r"(?m)^[^#\s]+", (ROOT / name).read_text()))
    return {canonicalize_name(r.name): r.specifier for r in found}


LOCK = {name: str(pin)[2:] for name, pin in requirements("requirements.lock").items()}


def test_package_lists_agree():
    both = [Requirement(d) for d in CONDA if not d.startswith(("python=", "pip"))]
    names = {r.name.removesuffix("-cpu").replace("pytorch", "torch"): r.specifier for r in both}
    assert names == requirements("requirements.txt") and requirements("requirements-language.txt")
    assert all(specifier.contains(LOCK[name]) for name, specifier in names.items())


def test_the_record_ran_with_the_lock(recorded):
    for path in (ROOT / "figures").glob("*.json"):
        environment = json.loads(path.read_text())["environment"]
        assert {k: v for k, v in environment.items() if LOCK.get(k, v) != v} == {}
        assert "python=" + environment["python"].rpartition(".")[0] in CONDA


def make(*arguments, **variables):
    mine = ("MAKE", "MFLAGS", "CONDA", "LOCK", "REPO")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
    return run("make", "-C", ROOT, *arguments, env=kept | variables)


def test_make():
    dry = make("-n", "-B", "figures")
    assert "figures" in make() and dry.count("papermill") == 3 and ".venv/bin/python" in dry
    assert "requirements.lock" in make("-n", "-B", "figures", "LOCK=1")
    assert "-f notebooks/language.yaml" in make("-n", "-B", "language")
    assert make("-n", "-B", "figures/2_ablation.png").count("papermill") == 1
    dry = make("-n", "-B", "figures", CONDA_PREFIX="/opt/study", CONDA_DEFAULT_ENV="study")
    assert dry.count("/opt/study/bin/python -m papermill") == 3 and ".venv" not in dry
    assert "/opt" not in make("-n", "-B", "figures", CONDA_PREFIX="/opt", CONDA_DEFAULT_ENV="base")
    for names in re.findall(r"from lab import ([\w, ]+)", "".join(NOTEBOOKS)):
        assert all(f"lab/{n}.py" in (ROOT / "Makefile").read_text() for n in names.split(", "))


def test_readme_is_short_and_its_links_lead_somewhere():
    assert [t for t in re.findall(r"\]\((?!http)([^)#]+)", README) if not (ROOT / t).exists()] == []
    seen = re.sub(r"(?s)<details.*?</details>|<!--.*?-->|\]\([^)]*\)", " ", README).split()
    assert sum(any(map(str.isalnum, word)) for word in seen) <= 950


def test_use_it_runs_as_it_stands(capsys):
    found = {}
    exec(re.search(r"```python\n(.*?)```", README, re.S)[1], found)
    out = capsys.readouterr().out
    assert found["x_hat"].shape == found["x"].shape and out.count("L0") == 7
    assert float(out.split("explained: ")[1]) > 0.4


def test_the_tables_of_the_readme_are_current(recorded):
    for name, content in record.tables().items():
        assert record.fill(README, name, content) == README, "run `make readme`"


def addresses(folder):
    """That of CITATION.cff, and those that each public file names beside the paper's own."""
    citation = yaml.safe_load((folder / "CITATION.cff").read_text())
    own, papers = (c["repository-code"][19:] for c in (citation, citation["preferred-citation"]))
    texts = [(folder / name).read_text() for name in PUBLIC]
    pattern = r"(?:github\.com|mybinder\.org/v2/gh|google\.com/github)/([\w.-]+/[\w.-]+)"
    return own, [set(re.findall(pattern, text)) - {papers} for text in texts], texts


def test_one_public_address_and_no_buttons_without_one():
    own, found, texts = addresses(ROOT)
    assert found[0] <= {own} and found[1:] == 3 * [{own}]
    buttons = re.search(r"mybinder\.org|colab\.research|/actions", "".join(texts))
    assert bool(buttons) != own.startswith("OWNER/"), "run `make address`"


def test_address(tmp_path):
    for name in (*PUBLIC, "CITATION.cff", "lab/record.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    command = [sys.executable, "-S", tmp_path / "lab" / "record.py", "address"]
    for new in ("new-owner/new.name", "a/b"):
        run(*command, new)
        own, found, (readme, *notebooks) = addresses(tmp_path)
        assert own == new and found == 4 * [{new}] and "OWNER" not in readme + "".join(notebooks)
        assert len(re.findall(r"\[!\[[\w ]+\]\(https:", readme)) == 3
        for name, before, after in zip(PUBLIC[1:], NOTEBOOKS, notebooks):
            assert json.loads(after) and after.count(f"{name})") == 2  # Binder's button and Colab's
            lines = zip(before.splitlines(), after.splitlines(), strict=True)
            assert sum(a != b for a, b in lines) == 2
            assert (tmp_path / name).stat().st_mtime == (ROOT / name).stat().st_mtime  # for `make`
    for wrong in ("https://github.com/a/b", ""):
        assert "make address REPO=owner/name" in run(*command, wrong, status=2)


def test_ruff():
    run(sys.executable, "-m", "ruff", "check", ROOT)
    run(sys.executable, "-m", "ruff", "format", "--check", ROOT)
