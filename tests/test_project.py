"""Package lists, Makefile, README, the public address, pages, style."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import record

ROOT = record.ROOT
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def environments():
    """Those of the committed record; after a run of your own figures/ say something else."""
    status = ["git", "-C", ROOT, "status", "--porcelain", "--", "figures"]
    run = subprocess.run(status, capture_output=True)
    if run.returncode or run.stdout:
        pytest.skip("figures/ are not those of the last commit")
    return [json.loads(p.read_text())["environment"] for p in (ROOT / "figures").glob("*.json")]


# --- Package lists ------------------------------------------------------------------------


def requirements(name):
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(r.name): r.specifier for r in found}


def conda():
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_both_lists_name_the_same_packages_and_ranges():
    both = [Requirement(d) for d in conda() if not d.startswith(("python=", "pip"))]
    names = {r.name.removesuffix("-cpu").replace("pytorch", "torch"): r.specifier for r in both}
    assert names == requirements("requirements.txt")


def test_binder_reads_the_python_version_of_the_record(environments):
    found = [re.match(r"python\s*=+\s*([\d\.]*)", d) for d in conda()]  # Binder's own pattern
    (version,) = [match[1] for match in found if match]
    assert {re.match(r"\d+\.\d+", e["python"])[0] for e in environments} == {version}


def test_the_lock_is_within_the_ranges_and_what_the_record_ran_with(environments):
    lock = {name: str(pin)[2:] for name, pin in requirements("requirements.lock").items()}
    for name, specifier in requirements("requirements.txt").items():
        assert specifier.contains(lock[name]), name
    for environment in environments:
        both = environment.keys() & lock.keys()
        assert both and {k: environment[k] for k in both} == {k: lock[k] for k in both}


# --- Makefile -----------------------------------------------------------------------------


def make(*arguments, **variables):
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "CONDA", "LOCK"))
    }
    command = ["make", "-C", str(ROOT), *arguments]
    run = subprocess.run(command, env=kept | variables, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_make_is_readable():
    assert "figures" in make() and "notebooks" in make("help")
    dry = make("-n", "-B", "figures")
    assert dry.count("papermill") == 3 and ".venv/bin/python" in dry
    assert "requirements.lock" in make("-n", "-B", "figures", "LOCK=1")


def test_make_uses_an_active_conda_environment():
    dry = make("-n", "-B", "figures", CONDA_PREFIX="/opt/study", CONDA_DEFAULT_ENV="study")
    assert dry.count("/opt/study/bin/python -m papermill") == 3 and ".venv" not in dry
    base = make("-n", "-B", "figures", CONDA_PREFIX="/opt/conda", CONDA_DEFAULT_ENV="base")
    assert "/opt/conda" not in base


def test_a_missing_figure_is_made_by_its_notebook():
    dry = make("-n", "-B", "figures/2_ablation.png")
    assert "mv build/2_ablation.running.ipynb build/2_ablation.ipynb" in dry
    assert dry.count("papermill") == 1


# --- README and the public address --------------------------------------------------------


def test_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 130
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / target).exists(), target


def test_the_results_table_is_current(environments):
    text = (ROOT / "README.md").read_text()
    assert f"<!-- results -->\n{record.results()}\n<!-- /results -->" in text, "run `make readme`"


@pytest.mark.parametrize("path", [ROOT / "README.md", *NOTEBOOKS], ids=lambda path: path.name)
def test_one_public_address(path):
    """Whatever points to the repository, Binder or Colab does so by the address in CITATION.cff."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    hosts = r"(?:github\.com|mybinder\.org/v2/gh|colab\.research\.google\.com/github)"
    found = re.findall(rf"{hosts}/([\w.-]+/[\w.-]+)", path.read_text())
    assert {f"https://github.com/{name}" for name in found} == {citation["repository-code"]}


# --- Pages and style ----------------------------------------------------------------------


@pytest.mark.skipif(find_spec("pypandoc") is None, reason="pypandoc is not installed")
def test_pages_need_nothing_but_a_browser():
    make("html", f"BIN={Path(sys.executable).parent}/", "INSTALLED=")
    folder = ROOT / "build" / "html"
    pages = {
        name: (folder / f"{name}.html").read_text()
        for name in ("index", *(path.stem for path in NOTEBOOKS))
    }
    for name, text in pages.items():
        assert not re.findall(r"<(?:script|link|iframe)\b|@import|url\(", text), name
        assert all(src.startswith("data:") for src in re.findall(r'src="([^"]+)"', text)), name
        assert all(re.search(r'alt="[^"]', image) for image in re.findall(r"<img[^>]*>", text))
        assert name == "index" or len(re.findall(r"<math.*?<m[ino]>", text, re.S)) > 10
        assert "object&gt;</code>" not in text  # the plain-text stand-in of a rich output
        for target, anchor in re.findall(r'href="(?!https?:)([^"#]*)(?:#([^"]*))?"', text):
            assert (folder / target).exists(), (name, target)
            there = pages.get(Path(target).stem if target else name, "")
            assert not anchor or f'id="{anchor}"' in there, (name, target, anchor)


@pytest.mark.parametrize("check", (["check"], ["format", "--check"]), ids=" ".join)
def test_ruff(check):
    command = [sys.executable, "-m", "ruff", *check, ROOT]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
