"""Package lists, Makefile, front page, sizes, style."""

import ast
import io
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
README = (ROOT / "README.md").read_text()


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


def test_what_an_environment_lacks_also_by_version(tmp_path):
    (tmp_path / "some.txt").write_text("numpy>=1\npytest<1  # too new\nno-such-thing>=2,<3\n")
    lacking = list(packages.lacking([tmp_path / "some.txt"]))
    assert [line.split(" (")[0] for line in lacking] == ["pytest<1", "no-such-thing<3,>=2"]
    line = ["make", "-C", ROOT, "check", "ACTIVE=1", "LOCK=1"]
    assert "LOCK=1 installs into .venv" in run(*line, status=2)


def code(stem):
    cells = json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def imported(text):
    """Modules of lab/ that Python code imports, with what they import in turn."""
    text = re.sub(r"(?m)^( *)!", r"\1pass  #", text)  # a shell's line in a notebook
    direct = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "lab":
            direct |= {name.name for name in node.names if name.name != "ROOT"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lab."):
            direct.add(node.module.removeprefix("lab."))
    return direct.union(*(imported((ROOT / f"lab/{name}.py").read_text()) for name in direct))


@pytest.mark.parametrize("stem", STEMS)
def test_make_knows_all_that_a_notebook_imports_and_saves(stem):
    rules = run("make", "-C", ROOT, "-pn", "figures", "ACTIVE=0")
    after = set(re.findall(r"lab/(\w+)\.py", re.search(rf"(?m)^build/{stem}.ipynb: .*", rules)[0]))
    assert after == imported(code(stem)) | {"__init__"}
    made = re.findall(rf"(?m)^figures/(\w+)\.png: build/{stem}", rules)
    saved = re.findall(r"""["'](\d_\w+)["']""", code(stem))
    assert made and set(made) == set(saved) - {*STEMS, "2_for_3"} | {stem}


FAKE = """#!/bin/bash
[ "$1" = -c ] && exec {0} "$@"
[ $2 = papermill ] || exit 0
stem=$(basename $7 .ipynb)
echo $stem >> log
touch figures/${{stem:0:1}}_*.p* figures/$stem.json
[ -e interrupted ] && exit 1
[ $stem$(cat numbers) = 2_ablationnew ] && echo new > figures/2_for_3.json
echo new > $8
"""


def test_make(tmp_path):
    """In a copy of the project, with a Python that only writes down which notebooks are run."""
    hidden = shutil.ignore_patterns(".*", "build", "*.npz", "__pycache__")
    shutil.copytree(ROOT, tmp_path, ignore=hidden, dirs_exist_ok=True)
    for name in (".venv/bin/python", ".venv/.installed", "data/mnist.npz", "log", "numbers"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(FAKE.format(sys.executable) if "bin" in name else "")
    (tmp_path / ".venv/bin/python").chmod(0o755)
    (tmp_path / "figures/2_for_3.json").write_text("old")

    def made(*goals, touched=(), status=0, numbers=""):
        for path in tmp_path.rglob("*"):  # long ago: some file systems and makes count seconds
            os.utime(path, (path.stat().st_mtime - 10,) * 2, follow_symlinks=False)
        (tmp_path / "numbers").write_text(numbers)
        (tmp_path / "log").write_text("")
        for name in touched:
            os.utime(tmp_path / name)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        run("make", "-C", tmp_path, "ACTIVE=0", *goals, status=status, env=kept)
        return "".join(line[0] for line in (tmp_path / "log").read_text().split())

    for stem in STEMS:  # figures that the record has not yet
        for name in re.findall(r"""["'](\d_\w+)["']""", code(stem)):
            for kind in ("png", "pdf") if name != "2_for_3" else ():
                (tmp_path / f"figures/{name}.{kind}").touch()
    assert made("-j4", "figures") == "123" and made("figures") == ""
    for touched, runs in (
        ("lab/figures_1.py", "1"),
        ("lab/figures_2.py", "2"),
        ("lab/figures_3.py", "3"),
        ("figures/2_for_3.json", "3"),
        ("lab/training.py", "123"),
    ):
        assert made("figures", touched=[touched]) == runs and made("figures") == ""
    assert made("figures", touched=["lab/figures_2.py"], numbers="new") == "23"
    assert made("figures/3_benchmark.json", touched=["lab/figures_2.py"], numbers="new") == "23"
    (tmp_path / "figures/1_theorem.png").unlink()
    (tmp_path / "interrupted").touch()
    assert made("figures", status=2) == "1"  # it leaves figures newer than all else
    (tmp_path / "interrupted").unlink()
    (tmp_path / "figures/1_theorem.png").touch()
    assert made("figures") == "1" and made("figures") == ""


def test_use_it_runs_as_it_stands_and_links_lead_somewhere(capsys):
    """It prints what the README shows, but for a few percent of each number."""
    links = re.findall(r"""(?:\]\(|src=")(?!http)([^)#"]+)""", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []
    code, shown = re.search(r"(?s)```python\n(.*?)```.*?```text\n(.*?)```", README).groups()
    exec(code, {})
    shown, out = (re.split(r"(\d+\.?\d*)", text) for text in (shown, capsys.readouterr().out))
    assert [*map(str.split, out[::2])] == [*map(str.split, shown[::2])]
    assert [*map(float, out[1::2])] == pytest.approx([*map(float, shown[1::2])], rel=0.03, abs=0.02)


def lines_of_code(path):
    """Without blanks, comments and docstrings."""
    text, skipped = path.read_text(), {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            skipped |= dict.fromkeys(range(first.lineno, first.end_lineno + 1))
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*blank, tokenize.ENDMARKER):
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - set(skipped))


def test_what_is_not_bounded_grows():
    lab = sorted(ROOT.glob("lab/*.py"))
    long = {p.name: n for p in lab if (n := len(p.read_text().splitlines())) > 280}
    assert not long and sum(map(lines_of_code, lab)) <= 2054
    assert lines_of_code(ROOT / "helpers.py") <= 205
    assert "lab" not in re.findall(r"(?m)^(?:from|import) (\w+)", (ROOT / "helpers.py").read_text())
    assert len((ROOT / "Makefile").read_text().splitlines()) <= 95
    assert sum(len(p.read_text().splitlines()) for p in ROOT.glob("tests/*.py")) <= 1050
    run(sys.executable, "-S", "-c", "import lab.claims", cwd=ROOT)


def test_ruff():
    run(sys.executable, "-m", "ruff", "check", ROOT)
    run(sys.executable, "-m", "ruff", "format", "--check", ROOT)
