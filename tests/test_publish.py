"""`make publish`, in a copy of the files that it needs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import NOTEBOOKS, ROOT

NAMES = {f"notebooks/{name}.ipynb": name for name in NOTEBOOKS}  # of files with an address
NAMES |= {f"build/{name}.{end}": name for name in NOTEBOOKS for end in ("source", "ipynb")}
OTHERS = ("README.md", "CITATION.cff", "Makefile", "lab/__init__.py", "lab/publish.py")
DUPLICATES = ("notebooks/1_theorem-Copy1.ipynb", "build/1_theorem.running.ipynb")


@pytest.fixture
def copy(tmp_path):
    """A folder with notebooks, their runs, and two files that are to be left alone."""
    originals = {path: path for path in OTHERS}
    originals |= {path: f"notebooks/{name}.ipynb" for path, name in NAMES.items()}
    originals |= {path: "notebooks/1_theorem.ipynb" for path in DUPLICATES}
    for path, original in originals.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / original, tmp_path / path)
        os.utime(tmp_path / path, (7, 7))
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec {shutil.which("python3")} -S "$@"\n')
    (tmp_path / "python3").chmod(0o755)  # one without packages
    return tmp_path


def publish(folder, words):
    """-> (exit status, the text of each file)."""
    status = subprocess.run(f"PATH=.:$PATH make publish {words}", shell=True, cwd=folder).returncode
    paths = (*OTHERS, *NAMES, *DUPLICATES)
    return status, {path: (folder / path).read_text("utf-8") for path in paths}


def lines_without_cell(text):
    cell = (
        r'  \{\n   "cell_type": "code",\n   "execution_count": \w+,\n   "id": "colab",.*?\n  \},\n'
    )
    return re.sub(cell, "", text, flags=re.DOTALL).split("\n")


def first_cell(text):
    """The first cell of code of a notebook."""
    return next(cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")


def test_one_address_is_written_everywhere_and_nothing_else(copy):
    _, before = publish(copy, "")
    assert publish(copy, "REPO=someone/something BRANCH=other")[0] == 0
    _, after = publish(copy, "REPO=me/my.copy BRANCH=topic")
    for path, text in after.items():
        assert (copy / path).stat().st_mtime == 7  # `make` need not run it again
        lines, old_lines = lines_without_cell(text), lines_without_cell(before[path])
        changed = [line for line, old in zip(lines, old_lines, strict=True) if line != old]
        assert len(changed) == (path in NAMES or path in ("README.md", "CITATION.cff")), path
        assert all("me/my.copy" in line for line in changed)
        assert "someone/something" not in text and "--branch other" not in text
        if path in NAMES:
            assert f"gh/me/my.copy/HEAD?labpath=notebooks/{NAMES[path]}.ipynb)" in changed[0]
            assert f"github/me/my.copy/blob/topic/notebooks/{NAMES[path]}.ipynb)" in changed[0]
            assert text.index('"id": "colab"') > text.index("<!-- badges -->")  # below the title
            cell = first_cell(text)
            assert (cell["id"], cell["outputs"], text.count('"id": "colab"')) == ("colab", [], 1)
            assert "https://github.com/me/my.copy --branch topic" in "".join(cell["source"])
    assert after["README.md"].count("/me/my.copy/") == 2 * len(NOTEBOOKS)
    assert 'repository-code: "https://github.com/me/my.copy"\n' in after["CITATION.cff"]


def test_the_first_cell_fetches_the_repository_once_and_in_colab_only(copy, monkeypatch):
    _, after = publish(copy, "REPO=me/copy")
    source = "".join(first_cell(after["notebooks/1_theorem.ipynb"])["source"])
    (copy / "git").write_text(
        '#!/bin/sh\necho "$@" >> log\nmkdir -p companion/notebooks companion/lab'
    )
    (copy / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(copy), prepend=":")
    content = copy / "colab/content"
    content.mkdir(parents=True)
    monkeypatch.chdir(content)
    exec(source, {})
    assert not any(content.iterdir())
    monkeypatch.setitem(sys.modules, "google.colab", None)
    for folder in (".", ".", content):  # as it opens, run again, and after a restart
        os.chdir(folder)
        exec(source, {})
        assert Path.cwd() == (content / "companion/notebooks").resolve()
    (told,) = (content / "log").read_text().splitlines()
    assert told.startswith("clone ") and " https://github.com/me/copy --branch main " in told


@pytest.mark.parametrize(
    "words",
    ["", "REPO=copy", "REPO=https://github.com/me/copy", "REPO=me/copy 'BRANCH=a;b'"],
)
def test_a_name_that_is_none_is_refused(copy, words, capfd):
    status, after = publish(copy, words)
    assert status and "Usage" in capfd.readouterr().err
    assert not any("me/copy" in text for text in after.values())
