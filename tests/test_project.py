"""Package lists, Makefile, front page, public address, data, style."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from numpy.testing import assert_allclose
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab import ROOT, data, record

PUBLIC = ["README.md", *(f"notebooks/{stem}.ipynb" for stem in record.NOTEBOOKS)]
README, *NOTEBOOKS = ((ROOT / name).read_text() for name in PUBLIC)
MAKEFILE = (ROOT / "Makefile").read_text().replace("\\\n", "")


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
    for stem in record.NOTEBOOKS:
        ran = json.loads(record.committed(f"figures/{stem}.json"))["environment"]
        assert {k: v for k, v in ran.items() if lock.get(k, v) != v} == {}
        assert "python=" + ran["python"].rpartition(".")[0] in conda


def figures(stem):
    return re.search(rf"FIGURES_{stem} := (.*)", MAKEFILE)[1].split()


def test_make_knows_all_figures_and_all_that_notebooks_read():
    for stem in record.NOTEBOOKS:
        cells = json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text())["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        saved = re.findall(r"""(?s)save_figure\(.*?["'](\d_\w+)["']""", code)
        assert sorted(figures(stem)) == sorted(saved)
        rule = re.search("INPUTS := (.*)", MAKEFILE)[1]
        rule += re.search("build/3_benchmark.ipynb: (.*)", MAKEFILE)[1] * (stem == "3_benchmark")
        for names in re.findall(r"from lab import ([\w, ]+)", code):
            assert all(f"{name}.py" in rule for name in names.split(", "))


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


@pytest.fixture
def make(tmp_path):
    """In a copy of the project, with a Python that only writes down what it is asked to run."""
    ignore = shutil.ignore_patterns(".*", "build", "mnist.npz")
    shutil.copytree(ROOT, tmp_path, ignore=ignore, dirs_exist_ok=True)
    names = [
        f"figures/{n}.{kind}"
        for s in record.NOTEBOOKS
        for n in figures(s)
        for kind in ("png", "pdf")
    ]
    for name in (
        *names,
        "figures/language.json",
        "data/mnist.npz",
        "lab/units.py",
        ".venv/.installed",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for folder in (".venv", "conda"):
        (tmp_path / folder / "bin").mkdir(parents=True)
        (tmp_path / folder / "bin" / "python").write_text(FAKE.format(sys.executable))
        (tmp_path / folder / "bin" / "python").chmod(0o755)

    def call(*goals, status=0, **variables):
        (tmp_path / "log").write_text("")
        mine = ("MAKE", "MFLAGS", "CONDA", "LOCK", "ACTIVE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
        said = run("make", "-C", tmp_path, *goals, status=status, env=kept | variables)
        return said, (tmp_path / "log").read_text().split("\n")[:-1]

    return call


def test_make_runs_what_is_out_of_date_and_in_order(make, tmp_path):
    one = ".venv papermill"
    asked = make("-j4", "notebooks", "test")[1]
    assert asked == [one] * 3 + [".venv pip", ".venv nbstripout", ".venv pytest"]
    assert "Nothing to be done for 'figures'" in make("-n", "figures")[0]
    (tmp_path / "notebooks" / "1_theorem.ipynb").touch()
    (tmp_path / "interrupted").touch()
    make("figures", status=2)
    (tmp_path / "interrupted").unlink()  # it has left a figure newer than all else
    assert make("figures")[1] == [one] and make("figures")[1] == []
    (tmp_path / "figures" / "2_ablation_law.pdf").unlink()
    assert "again" not in make("figures/1_theorem.png")[1] == []
    assert make("-n", "figures")[0].count("-m papermill") == 2  # notebook 3 shows what 2 measured
    (tmp_path / "requirements.txt").touch()
    assert "pip install --quiet --requirement requirements.txt" in make("-n", "test")[0]


def test_make_installs_nothing_into_an_environment_of_others(make, tmp_path):
    study = {"CONDA_DEFAULT_ENV": "study", "CONDA_PREFIX": f"{tmp_path}/conda"}
    assert make("test", **study)[1] == [".venv pip", ".venv pytest"]  # for it lacks packages
    said, asked = make("test", "ACTIVE=1", status=2, **study)
    assert f"Missing in {tmp_path}/conda: torch numpy" in said and asked == []
    assert make("test", COMPLETE="1", **study)[1] == ["conda pytest"]
    assert make("test", "ACTIVE=0", COMPLETE="1", **study)[1] == [".venv pytest"]


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


def test_one_public_address(tmp_path):
    """No buttons without one; `make address` sets it everywhere, and touches nothing else."""

    def addresses(folder):
        citation = yaml.safe_load((folder / "CITATION.cff").read_text())
        own, papers = (
            c["repository-code"][19:] for c in (citation, citation["preferred-citation"])
        )
        texts = [(folder / name).read_text() for name in PUBLIC]
        pattern = r"(?:github\.com|mybinder\.org/v2/gh|google\.com/github)/([\w.-]+/[\w.-]+)"
        return own, [set(re.findall(pattern, text)) - {papers} for text in texts], texts

    own, found, texts = addresses(ROOT)
    assert found[0] <= {own} and found[1:] == 3 * [{own}]
    buttons = re.search(r"mybinder\.org|colab\.research|/actions", "".join(texts))
    assert bool(buttons) != own.startswith("OWNER/"), "run `make address`"
    for name in (*PUBLIC, "CITATION.cff", "lab/record.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    command = [sys.executable, "-S", tmp_path / "lab" / "record.py", "address"]
    for new in ("new-owner/new.name", "a/b"):
        run(*command, new)
        own, found, (readme, *notebooks) = addresses(tmp_path)
        assert own == new and found == 4 * [{new}]
        assert len(re.findall(r"\[!\[[\w ]+\]\(https:", readme)) == 3
        for name, before, after in zip(PUBLIC[1:], NOTEBOOKS, notebooks):
            assert json.loads(after) and after.count(f"{name})") == 2  # Binder's button and Colab's
            lines = zip(before.splitlines(), after.splitlines(), strict=True)
            assert sum(a != b for a, b in lines) == 2
            assert (tmp_path / name).stat().st_mtime == (ROOT / name).stat().st_mtime  # for `make`
    assert "make address REPO=owner/name" in run(*command, "https://github.com/a/b", status=2)


def test_mnist(tmp_path):
    x_train, y_train, x_test, y_test = data.load_mnist()
    assert x_train.shape == (60_000, 784) and (x_test.min(), x_test.max()) == (0, 1)
    assert y_train.bincount().tolist()[:3] == [5923, 6742, 5958] and len(y_test) == 10_000
    (tmp_path / "damaged").write_text("x")
    for name, error in (("damaged", ValueError), ("missing", FileNotFoundError)):
        with pytest.raises(error, match="git checkout"):
            data.load_mnist(path=tmp_path / name)


def test_ruff():
    run(sys.executable, "-m", "ruff", "check", ROOT)
    run(sys.executable, "-m", "ruff", "format", "--check", ROOT)
