"""Package lists, Makefile, README, the public address, and the pages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import helpers as h
import publish

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


# --- README and the public address --------------------------------------------------------


def between(mark):
    text = (h.ROOT / "README.md").read_text()
    return re.search(rf"<!-- {mark} -->\n(.*?)\n<!-- /{mark} -->", text, re.S)[1]


def test_results_table_is_current():
    assert between("results") == publish.results_table(), "run `make readme`"


def test_one_public_address():
    """Whatever points to the repository, Binder or Colab does so by the address in CITATION.cff."""
    assert between("badges") == publish.badge_line("1_theorem"), "run `make badges`"
    name = "/".join(publish.address().split("/")[-2:])
    hosts = r"(?:github\.com|mybinder\.org/v2/gh|colab\.research\.google\.com/github)"
    for path in [h.ROOT / "README.md", *(h.ROOT / "notebooks").glob("*.ipynb")]:
        found = re.findall(rf"{hosts}/([\w.-]+/[\w.-]+)", path.read_text())
        assert found and set(found) == {name}, "run `make badges`"
    for stem in publish.STEMS:
        cells = nbformat.read(h.ROOT / "notebooks" / f"{stem}.ipynb", 4).cells
        assert publish.run_line(stem) in cells[0].source
        assert f'repository = "{publish.address()}"' in cells[1].source


def test_badges_follow_the_address(tmp_path, monkeypatch):
    for name in ("README.md", "CITATION.cff", *(f"notebooks/{s}.ipynb" for s in publish.STEMS)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (h.ROOT / name).read_text()
        if name == "CITATION.cff":
            text = text.replace(publish.address(), "https://github.com/someone/else.where")
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    publish.badges()
    for path in [tmp_path / "README.md", *(tmp_path / "notebooks").glob("*.ipynb")]:
        assert "OWNER" not in path.read_text() and "someone/else.where" in path.read_text()


def test_readme_is_short_and_its_links_lead_somewhere():
    text = (h.ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (h.ROOT / target).exists(), target


def test_publish_says_what_it_can_do():
    run = subprocess.run(
        [sys.executable, h.ROOT / "publish.py", "x"], capture_output=True, text=True
    )
    assert run.returncode == 1 and "clean NAME" in run.stderr


# --- Pages --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages():
    publish.pages()
    folder = h.ROOT / "build" / "html"
    return {path.stem: path.read_text() for path in folder.glob("*.html")}


def test_pages_need_nothing_else(pages):
    assert set(pages) == {*publish.STEMS, "index"}
    for stem, text in pages.items():
        assert not re.findall(r"<(?:script|link)\b", text), stem
        assert all(src.startswith("data:") for src in re.findall(r'src="([^"]+)"', text)), stem
        for target, anchor in re.findall(r'href="([^"#]*)(?:#([^"]*))?"', text):
            if target.startswith("http") or not (target.endswith(".html") or anchor):
                continue
            there = Path(target).stem if target else stem
            assert there in pages, (stem, target)
            assert not anchor or f'id="{anchor}"' in pages[there], (stem, target, anchor)
        assert all(alt for alt in re.findall(r'<img[^>]*alt="([^"]*)"', text)), stem
        assert len(re.findall("<img", text)) == len(re.findall(r"<img[^>]*alt=", text)), stem


def test_pages_have_their_formulas(pages):
    for stem in publish.STEMS:
        formulas = re.findall("<math.*?</math>", pages[stem], re.S)
        assert len(formulas) > 10 and all(re.search("<m[ino]>", f) for f in formulas)
        assert any('display="block"' in formula for formula in formulas)
        assert "$\\" not in re.sub(r"<pre.*?</pre>", "", pages[stem], flags=re.S)


# --- Style --------------------------------------------------------------------------------


@pytest.mark.parametrize("check", (["check"], ["format", "--check"]))
def test_ruff(check):
    run = subprocess.run(
        [sys.executable, "-m", "ruff", *check, h.ROOT], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout
