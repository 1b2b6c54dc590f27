"""`make publish`, in a copy of the files that it needs."""

import os
import shutil
import subprocess

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
    """-> (exit status, the lines of each file)."""
    status = subprocess.run(f"PATH=.:$PATH make publish {words}", shell=True, cwd=folder).returncode
    paths = (*OTHERS, *NAMES, *DUPLICATES)
    return status, {path: (folder / path).read_text("utf-8").split("\n") for path in paths}


def test_one_address_is_written_everywhere_and_nothing_else(copy):
    _, before = publish(copy, "")
    assert publish(copy, "REPO=someone/something")[0] == 0
    _, after = publish(copy, "REPO=me/my.copy BRANCH=topic")
    for path, lines in after.items():
        changed = [line for line, old in zip(lines, before[path], strict=True) if line != old]
        assert len(changed) == (2 if path in NAMES else path in ("README.md", "CITATION.cff")), path
        assert all("me/my.copy" in line and "someone" not in line for line in changed)
        assert (copy / path).stat().st_mtime == 7  # `make` need not run it again
        if path in NAMES:
            badges, address = sorted(changed, key=lambda line: "address" in line)
            assert r"address = \"https://github.com/me/my.copy --branch topic\"" in address
            assert f"gh/me/my.copy/HEAD?labpath=notebooks/{NAMES[path]}.ipynb)" in badges
            assert f"github/me/my.copy/blob/topic/notebooks/{NAMES[path]}.ipynb)" in badges
    assert str(after["README.md"]).count("/me/my.copy/") == 2 * len(NOTEBOOKS)
    assert 'repository-code: "https://github.com/me/my.copy"' in after["CITATION.cff"]


@pytest.mark.parametrize("words", ["", "REPO=copy", "REPO=https://github.com/me/copy"])
def test_a_name_that_is_none_is_refused(copy, words, capfd):
    status, after = publish(copy, words)
    assert status and "Usage" in capfd.readouterr().err
    assert not any("me/copy" in line for lines in after.values() for line in lines)
