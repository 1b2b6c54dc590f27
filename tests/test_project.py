"""Package lists, Makefile, front page, sizes, style."""

import json
import os
import re
import shutil
import subprocess
import sys
import tokenize

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab import ROOT, claims, packages

STEMS = claims.NOTEBOOKS


def run(*command, status=0, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_package_lists_agree_and_the_record_ran_with_the_lock():
    def specifiers(name, pattern=r"(?m)^([^#\s]+)"):
        text = (ROOT / name).read_text().replace("pytorch-cpu", "torch")
        found = map(Requirement, re.findall(pattern, text))
        return {canonicalize_name(r.name): r.specifier for r in found}

    names, lock = specifiers("requirements.txt"), specifiers("requirements.lock")
    lock = {name: str(pin)[2:] for name, pin in lock.items()}
    assert specifiers("environment.yml", r"(?m)^  - (?!python=|pip$|conda-)([^#\s]+)") == names
    assert all(specifier.contains(lock[name]) for name, specifier in names.items())
    for text in filter(None, (claims.committed(f"figures/{stem}.json") for stem in STEMS)):
        ran = json.loads(text)["environment"]
        assert {k: v for k, v in ran.items() if lock.get(k, v) != v} == {}
        python = ran["python"].rpartition(".")[0]
        assert f"  - python={python}\n" in (ROOT / "environment.yml").read_text()


def test_what_an_environment_lacks_also_by_version(tmp_path):
    (tmp_path / "some.txt").write_text("numpy>=1\npytest<1  # too new\nno-such-thing>=2,<3\n")
    lacking = list(packages.lacking([tmp_path / "some.txt"]))
    assert [line.split(" (")[0] for line in lacking] == ["pytest<1", "no-such-thing<3,>=2"]
    said = run("make", "-C", ROOT, "check", "ACTIVE=1", "LOCK=1", status=2)
    assert "LOCK=1 installs into .venv" in said


def code(stem):
    cells = json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def named(stem):
    """What a notebook saves."""
    return set(re.findall(r"""["'](\d_\w+)["']""", code(stem)))


def imported(text):
    """Modules of lab/ that Python code imports, with what they import in turn."""
    direct = set(re.findall(r"(?m)^ *from lab\.(\w+) import", text))
    for names in re.findall(r"(?m)^ *from lab import ([\w, ]+|\([^)]+\))", text):
        direct |= set(re.findall(r"([a-z]\w*)(?: as \w+)?", names))
    return direct.union(*(imported((ROOT / f"lab/{name}.py").read_text()) for name in direct))


@pytest.mark.parametrize("stem", STEMS)
def test_make_knows_all_that_a_notebook_imports_and_saves(stem):
    rules = run("make", "-C", ROOT, "-pn", "figures", "ACTIVE=0")
    after = set(re.findall(r"lab/(\w+)\.py", re.search(rf"(?m)^build/{stem}.ipynb: .*", rules)[0]))
    assert after == imported(code(stem)) | {"__init__"}
    made = re.findall(rf"(?m)^figures/(\w+)\.png: build/{stem}", rules)
    assert made and set(made) == named(stem) - {*STEMS, "2_for_3"} | {stem}


FAKE = """#!/bin/bash
[ "$1" = -c ] && exec {0} "$@"
[ $2 = papermill ] || exit 0
stem=$(basename $7 .ipynb)
echo -n ${{stem:0:1}} >> log
touch figures/${{stem:0:1}}_*.p* figures/$stem.json
[ -e interrupted ] && exit 1
[ $stem$(cat numbers) = 2_ablationnew ] && echo new > figures/2_for_3.json
echo new > $8
"""


def test_make(tmp_path):
    """In a copy of the project, with a Python that only writes down which notebooks are run."""
    for name in ("lab", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("Makefile", "helpers.py", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    figures = [
        f"figures/{n}.{k}" for s in STEMS for n in named(s) - {"2_for_3"} for k in ("png", "pdf")
    ]
    others = ".venv/bin/python .venv/.installed data/mnist.npz log numbers figures/2_for_3.json"
    for name in (*figures, *others.split()):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(FAKE.format(sys.executable) if "bin" in name else "")
    (tmp_path / ".venv/bin/python").chmod(0o755)

    def made(*touched, goals=("figures",), status=0, numbers=""):
        for path in tmp_path.rglob("*"):  # long ago: some file systems and makes count seconds
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
        (tmp_path / "numbers").write_text(numbers)
        (tmp_path / "log").write_text("")
        for name in touched:
            (tmp_path / name).touch()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        run("make", "-C", tmp_path, "ACTIVE=0", *goals, status=status, env=kept)
        return (tmp_path / "log").read_text()

    assert made(goals=("-j4", "figures")) == "123" and made() == ""
    for touched, runs in (
        ("lab/figures_1.py", "1"),
        ("lab/figures_2.py", "2"),
        ("figures/2_for_3.json", "3"),
        ("lab/training.py", "123"),
    ):
        assert made(touched) == runs and made() == ""
    for goal in ("figures", "figures/3_benchmark.json"):
        assert made("lab/figures_2.py", goals=[goal], numbers="new") == "23"
    (tmp_path / "figures/1_theorem.png").unlink()
    assert made("interrupted", status=2) == "1"  # it leaves figures newer than all else
    (tmp_path / "interrupted").unlink()
    assert made("figures/1_theorem.png") == "1" and made() == ""


def test_use_it_runs_as_it_stands_and_links_lead_somewhere(capsys):
    """It prints what the README shows, but for a few percent of each number."""
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"""(?:\]\(|src=")(?!http)([^)#"]+)""", text)
    assert links and [link for link in links if not (ROOT / link).exists()] == []
    code, shown = re.search(r"(?s)```python\n(.*?)```.*?```text\n(.*?)```", text).groups()
    exec(code, {})
    shown, out = (re.split(r"(\d+\.?\d*)", text) for text in (shown, capsys.readouterr().out))
    assert [*map(str.split, out[::2])] == [*map(str.split, shown[::2])]
    assert [*map(float, out[1::2])] == pytest.approx([*map(float, shown[1::2])], rel=0.03, abs=0.02)


def lines_of_code(path):
    """Without blanks, comments and docstrings."""
    layout = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines, before = set(), tokenize.NEWLINE
    with path.open() as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.NL):
                continue
            if token.type not in layout and not (
                token.type == tokenize.STRING and before in layout
            ):
                lines |= {*range(token.start[0], token.end[0] + 1)}
            before = token.type
    return len(lines)


def test_what_is_not_bounded_grows():
    lab, rows = sorted(ROOT.glob("lab/*.py")), lambda path: len(path.read_text().splitlines())
    assert not {p.name for p in lab if rows(p) > 280} and sum(map(lines_of_code, lab)) <= 2054
    assert lines_of_code(ROOT / "helpers.py") <= 205 and rows(ROOT / "Makefile") <= 95
    assert "lab" not in re.findall(r"(?m)^(?:from|import) (\w+)", (ROOT / "helpers.py").read_text())
    assert sum(map(rows, ROOT.glob("tests/*.py"))) <= 1750
    said = run(sys.executable, "-S", "-m", "lab.claims", cwd=ROOT, status=2)  # without packages
    assert "check   compare figures/" in said


def test_ruff():
    for line in ("check", "format --check"):
        run(sys.executable, "-m", "ruff", *line.split(), ROOT)
