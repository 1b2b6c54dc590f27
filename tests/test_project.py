"""The front page, package lists, the record; `make` and `make publish` in copies."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from cells import sources
from packaging.requirements import Requirement

import helpers as h
from lab import NOTEBOOKS, ROOT


def read(path):
    return (ROOT / path).read_text("utf-8")


def requirements(lines):
    """{package: range of versions} of lines of a package list."""
    listed = [Requirement(line) for line in (line.partition("#")[0] for line in lines) if line]
    return {requirement.name: requirement.specifier for requirement in listed}


def test_package_lists_agree():
    needed, lock = (
        requirements(read(f"requirements.{end}").splitlines()) for end in ("txt", "lock")
    )
    conda = read("environment.yml").replace("pytorch-cpu", "torch")
    listed = re.findall(r"(?m)^  - (?!python=|pip$|conda-forge$)(.*)", conda)
    assert requirements(listed) == needed
    assert {*needed} - {*lock} == {"nbstripout", "pytest", "ruff"}  # of no influence on a number
    for name in {*needed} & {*lock}:
        assert needed[name].contains(str(lock[name]).removeprefix("==")), name


def test_notebooks_hold_no_errors_and_figures_what_they_draw_and_nothing_else():
    cells = []
    for name in NOTEBOOKS:
        text, cells = read(f"notebooks/{name}.ipynb"), [*cells, *sources(name).values()]
        outputs = [o for cell in json.loads(text)["cells"] for o in cell.get("outputs", [])]
        assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
        assert not re.search(r"/(home|root|Users|tmp|work)/", text)
    drawn = re.findall(r'(?s)record\.save_figure\(.*?"(\w+)",\s*output\s*\)', "\n".join(cells))
    files = {f"{name}.{kind}" for name in (*drawn, "3d_language_model") for kind in ("png", "pdf")}
    files |= {f"{name}.json" for name in (*NOTEBOOKS, "language")} | {"in_the_plane.gif", "fashion"}
    assert {path.name for path in ROOT.glob("figures/*")} == files


def test_links_and_commands_of_the_front_page_exist():
    page = read("README.md")
    for links in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page):
        link = "".join(links)
        assert link.startswith("https://") or (ROOT / link).exists(), link
    targets = {*re.findall(r"(?m)^([a-z]+):", read("Makefile"))}
    commands = {*re.findall(r"make ([a-z]+)", " ".join(re.findall("`+[^`]+`+", page)))}
    assert commands and commands <= targets


def test_the_loss_of_the_front_page_is_that_of_helpers():
    """On inputs of which one unit is silent, too; its gradient is helpers.py's."""
    lines = re.search(r"```python\n(E = .*?)```", read("README.md"), re.DOTALL)[1]
    x = torch.randn(128, 6, generator=torch.Generator().manual_seed(0))
    one, two = h.Encoder(6, 5), h.Encoder(6, 5)
    for model in (one, two):
        model.b.data[2] = -100
    names = {"torch": torch, "normalize": torch.nn.functional.normalize, "x": x}
    names |= {"W": one.W, "b": one.b}
    exec(lines, names)
    names["loss"].backward()
    h.decoder_free_loss(two, x).backward()
    torch.testing.assert_close(one.W.grad, two.W.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.b.grad, two.b.grad, rtol=1e-4, atol=1e-4)


def test_the_example_of_the_front_page_prints_what_it_says(monkeypatch, capsys):
    """With helpers.py alone, as one who copies it would run it, and without a warning. Processors
    round differently, so that training is another draw: from seed to seed, the number of active
    units has a standard deviation of 0.07, and the variance explained of 0.004."""
    blocks = re.search(
        r"```python\n(import (?:(?!```).)*)```\n```text\n(.*?)```", read("README.md"), re.DOTALL
    )
    monkeypatch.delitem(sys.modules, "helpers", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        monkeypatch.setitem(sys.modules, name, None)  # which cannot be imported then
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(blocks[1], {})
    number = r"\d+\.\d+"
    said, printed = blocks[2], capsys.readouterr().out
    assert re.sub(number, "", printed) == re.sub(number, "", said)
    pairs = (re.findall(rf"({number}) .* ({number})", text) for text in (said, printed))
    for (units, explained), pair in zip(*pairs, strict=True):
        assert float(pair[0]) == pytest.approx(float(units), abs=0.3)
        assert float(pair[1]) == pytest.approx(float(explained), abs=0.02)


SAVED = {"fashion/2_ablation.json": "2", "fashion/3_benchmark.json": "3"}  # shown by notebooks
SAVED |= {"language.json": "3", "3d_language_model.png": "3"}
RUNS = {path.relative_to(ROOT).as_posix(): "123" for path in ROOT.glob("lab/*.py")}
RUNS |= {"helpers.py": "123", "data/mnist.npz": "123"}  # {what changes: which notebooks run}
RUNS |= {f"lab/{name}.py": "" for name in ("check", "publish", "language")}
RUNS |= {f"lab/plots_{name[2:]}.py": name[0] for name in NOTEBOOKS}
RUNS |= {f"notebooks/{name}.ipynb": name[0] for name in NOTEBOOKS}
RUNS |= {f"figures/{name}": number for name, number in SAVED.items()} | {"README.md": ""}
PYTHON = '#!/bin/sh\nfor last; do :; done\n[ "$2" != papermill ] || echo "$FIGURES $@" | tee -a ran'


def make(folder, words):
    """-> (exit status, a line of what papermill was told for each notebook)."""
    environment = os.environ | {"MAKEFLAGS": "", "PYTHON": "./python", "DATA": ""}
    done = subprocess.run(["make", *words.split()], cwd=folder, env=environment)
    ran = (folder / "ran").read_text().splitlines() if (folder / "ran").exists() else []
    return done.returncode, ran


def test_make_runs_the_notebooks_that_need_it_with_parameters_that_they_have(tmp_path):
    """With a Python that only notes what it runs."""
    for path in RUNS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "python").write_text(PYTHON + ' > "$last"\n')
    (tmp_path / "python").chmod(0o755)
    for changed, numbers in RUNS.items():
        for name in NOTEBOOKS:
            (tmp_path / f"build/{name}.ipynb").parent.mkdir(exist_ok=True)
            (tmp_path / f"build/{name}.ipynb").touch()
        (tmp_path / "ran").unlink(missing_ok=True)
        os.utime(tmp_path / changed, (2e9, 2e9))
        status, ran = make(tmp_path, "figures")
        os.utime(tmp_path / changed, (1, 1))
        assert "".join(re.findall(r"figures .* notebooks/(\d)", "\n".join(ran))) == numbers, changed
    assert make(tmp_path, "fashion")[0] and make(tmp_path, "fashion DATA=data")[0]
    (tmp_path / "ran").unlink(missing_ok=True)
    runs = make(tmp_path, "fashion DATA=data/mnist.npz")[1]
    for line, options in zip(runs, ("-p EPOCHS 40", "-p PAPER_EPOCHS 40"), strict=True):
        assert line.startswith("figures/fashion ")
        assert f"-y DATA: data/mnist.npz -y SEEDS: [0, 1] {options} " in line
    runs = make(tmp_path, "quick")[1]
    runs += re.findall(r"(?m)^\$run .*", read(".ci/run").replace("\\\n", ""))
    assert len(runs) == 2 + 3 + 2
    for run in runs:
        text = read(re.search(r"notebooks/\w+\.ipynb", run)[0])
        assert all(f'"{name} = ' in text for name in re.findall(r"-[py] \"?(\w+)", run)), run


def test_make_publish_writes_one_address_and_a_cell_that_fetches_it_in_colab(tmp_path, monkeypatch):
    paths = ["README.md", "CITATION.cff", "Makefile", "lab/__init__.py", "lab/publish.py"]
    for path in (*paths, *(f"notebooks/{name}.ipynb" for name in NOTEBOOKS)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    texts = []
    for words in ("REPO=someone/something BRANCH=other", "REPO=me/my.copy BRANCH=topic"):
        assert make(tmp_path, f"publish {words}")[0] == 0
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        texts.append({path.name: path.read_text("utf-8") for path in files})
    old, new = "someone/something", "me/my.copy"
    expected = {n: t.replace(old, new).replace("other/n", "topic/n") for n, t in texts[0].items()}
    assert {n: t.replace("--branch other", "--branch topic") for n, t in expected.items()} == texts[
        1
    ]
    assert texts[1]["README.md"].count("/me/my.copy/") == 2 * len(NOTEBOOKS)
    assert make(tmp_path, "publish REPO=https://github.com/me/copy")[0]

    (tmp_path / "git").write_text("#!/bin/sh\necho $@ > log; mkdir -p companion/notebooks")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path / "notebooks")
    (cell,) = [c for c in json.loads(texts[1]["1_theorem.ipynb"])["cells"] if c["id"] == "colab"]
    (tmp_path / "lab").rename(tmp_path / "other")  # Colab opens the notebook alone
    exec("".join(cell["source"]), {})
    assert Path.cwd() == tmp_path / "notebooks"
    monkeypatch.setitem(sys.modules, "google.colab", None)
    exec("".join(cell["source"]), {})
    assert Path.cwd() == tmp_path / "notebooks/companion/notebooks"
    assert (
        "https://github.com/me/my.copy --branch topic" in (tmp_path / "notebooks/log").read_text()
    )
