"""Package lists, Makefile, front page, public address, data, style."""

import json
import os
import re
import shutil
import subprocess
import sys

import yaml
from numpy.testing import assert_allclose
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab import ROOT, record

STEMS = record.NOTEBOOKS
README, MAKEFILE = ((ROOT / name).read_text() for name in ("README.md", "Makefile"))


def run(*command, status=0, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_package_lists_agree_and_the_record_ran_with_the_lock():
    def requirements(name):
        found = map(Requirement, re.findall(r"(?m)^[^#\s]+", (ROOT / name).read_text()))
        return {canonicalize_name(r.name): r.specifier for r in found}

    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    both = [Requirement(d) for d in conda if not d.startswith(("python=", "pip"))]
    names = {r.name.removesuffix("-cpu").replace("pytorch", "torch"): r.specifier for r in both}
    lock = {name: str(pin)[2:] for name, pin in requirements("requirements.lock").items()}
    assert names == requirements("requirements.txt")
    assert all(specifier.contains(lock[name]) for name, specifier in names.items())
    for text in filter(None, (record.committed(f"figures/{stem}.json") for stem in STEMS)):
        ran = json.loads(text)["environment"]
        assert {k: v for k, v in ran.items() if lock.get(k, v) != v} == {}
        assert "python=" + ran["python"].rpartition(".")[0] in conda


def listed(name):
    """What a variable or rule of the Makefile lists."""
    return re.search(rf"(?m)^{name}:?=? (.*)", MAKEFILE.replace("\\\n", ""))[1].split()


def test_make_knows_all_figures_and_all_that_notebooks_read():
    for stem in STEMS:
        cells = json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text())["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        saved = re.findall(r"""(?s)save_figure\(.*?["'](\d_\w+)["']""", code)
        assert sorted(listed(f"FIGURES_{stem} ")) == sorted(saved)
        read = str(listed("INPUTS ")) + str(listed("build/3_benchmark.ipynb")) * (stem[0] == "3")
        modules = ", ".join(re.findall(r"from lab import ([\w, ]+)", code)).split(", ")
        assert [name for name in modules if f"{name}.py" not in read] == []


FAKE = """#!{0}
import os, sys
from pathlib import Path
if sys.argv[1] == "-c":
    os.execv("{0}", ["{0}", "-c" if "COMPLETE" in os.environ else "-Sc", *sys.argv[2:]])
with open("log", "a") as log:
    print(sys.argv[0].split("/")[-3], sys.argv[2], file=log)
if sys.argv[2] == "papermill":
    figure = Path("figures", Path(sys.argv[-2]).stem + ".png")
    figure.write_text("new")
    if Path("interrupted").exists():
        sys.exit(1)
    figure.with_suffix(".json").write_text("new")
    Path(sys.argv[-1]).write_text("new")
"""


def test_make(tmp_path):
    """In a copy of the project, with Pythons that only write down what they are asked to run."""
    ignore = shutil.ignore_patterns(".*", "build", "mnist.npz")
    shutil.copytree(ROOT, tmp_path, ignore=ignore, dirs_exist_ok=True)
    fakes, new = (".venv/bin/python", "conda/bin/python"), ("lab/units.py", "data/mnist.npz")
    stems = [figure for stem in STEMS for figure in listed(f"FIGURES_{stem} ")]
    pictures = [f"figures/{figure}.{kind}" for figure in stems for kind in ("png", "pdf")]
    for name in (*fakes, *new, *pictures, "figures/language.json", ".venv/.installed", "log"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(FAKE.format(sys.executable) * (name in fakes))
        (tmp_path / name).chmod(0o755)

    def make(*goals, status=0, **variables):
        """What was asked for, and what was said."""
        mine = ("MAKE", "MFLAGS", "CONDA", "LOCK", "ACTIVE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
        said = run("make", "-C", tmp_path, *goals, status=status, env=kept | variables)
        asked = (tmp_path / "log").read_text().split("\n")[:-1]
        (tmp_path / "log").write_text("")
        for path in tmp_path.rglob("*"):  # long ago: some file systems and makes count seconds
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
        return asked, said

    one, rest = [".venv papermill"], [".venv pip", ".venv nbstripout", ".venv pytest"]
    assert make("-j4", "notebooks", "test")[0] == 3 * one + rest
    assert "Nothing to be done for" in make("-n", "figures")[1]
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
    assert make("test", COMPLETE="1", **study)[0] == ["conda pytest"]
    assert make("test", "ACTIVE=0", COMPLETE="1", **study)[0] == [".venv pytest"]


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"""(?:\]\(|src=")(?!http)([^)#"]+)""", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_use_it_runs_as_it_stands(capsys):
    """And prints what the README shows, but for a few percent of each number."""
    code, shown = re.search(r"(?s)```python\n(.*?)```.*?```text\n(.*?)```", README).groups()
    exec(code, {})
    out, number = capsys.readouterr().out, r"\d+\.?\d*"
    assert re.sub(number, "", out).split() == re.sub(number, "", shown).split()
    found, expected = ([float(v) for v in re.findall(number, text)] for text in (out, shown))
    assert_allclose(found, expected, rtol=0.03, atol=0.02)


def test_one_public_address(tmp_path, monkeypatch):
    """No buttons without one; `make address` sets it everywhere, and touches nothing else."""
    names = ["CITATION.cff", "README.md", *(f"notebooks/{stem}.ipynb" for stem in STEMS)]
    (tmp_path / "notebooks").mkdir()
    for name in names:
        shutil.copy2(ROOT / name, tmp_path / name)
    pattern = r'repository-code: "https://github.com/(.*)"'
    own, papers = re.findall(pattern, (ROOT / names[0]).read_text())
    hosts = r"(?:github\.com|mybinder\.org/v2/gh|google\.com/github)/([\w.-]+/[\w.-]+)"
    monkeypatch.setattr(record, "ROOT", tmp_path)
    for new in (own, "new-owner/new.name", "a/b"):
        if new != own:
            record.address(new)
        texts = [(tmp_path / name).read_text() for name in names]
        assert [set(re.findall(hosts, text)) - {papers} for text in texts[2:]] == 3 * [{new}]
        buttons = [len(re.findall(r"mybinder\.org/v2|colab\.research|/ci.yml", t)) for t in texts]
        assert buttons == ([0] * 5 if new.startswith("OWNER/") else [0, 4, 2, 2, 2])
    for name, after in zip(names[2:], texts[2:]):
        lines = zip((ROOT / name).read_text().splitlines(), after.splitlines(), strict=True)
        assert json.loads(after) and sum(a != b for a, b in lines) == 2
        assert (tmp_path / name).stat().st_mtime == (ROOT / name).stat().st_mtime  # for `make`


def test_ruff():
    run(sys.executable, "-m", "ruff", "check", ROOT)
    run(sys.executable, "-m", "ruff", "format", "--check", ROOT)
