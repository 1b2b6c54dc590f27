"""Package lists, the record, the front page; notebooks without traces of a machine."""

import json
import re
import sys
import warnings

import pytest
import torch
from cells import sources
from packaging.requirements import Requirement

import helpers as h
from lab import NOTEBOOKS, ROOT
from lab.record import git


def read(path):
    return (ROOT / path).read_text("utf-8")


def recorded(name):
    """The record, which is figures/ as committed, and not a run of yours."""
    path = f"figures/{name}.json"
    return json.loads(git("show", f"HEAD:./{path}") or read(path))


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


def test_notebooks_hold_no_errors_and_no_paths():
    for name in NOTEBOOKS:
        text = read(f"notebooks/{name}.ipynb")
        outputs = [o for cell in json.loads(text)["cells"] for o in cell.get("outputs", [])]
        assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
        assert not re.search(r"/(home|root|Users|tmp|work)/", text)


def test_figures_holds_what_notebooks_and_the_language_model_draw_and_nothing_else():
    cells = "\n".join(text for name in NOTEBOOKS for text in sources(name).values())
    names = {*re.findall(r'(?s)record\.save_figure\(.*?"(\w+)",\s*output\s*\)', cells)}
    for kind in ("png", "pdf"):
        files = {path.stem for path in ROOT.glob(f"figures/*.{kind}")}
        assert files == names | {"3d_language_model"}
    others = {path.name for path in ROOT.glob("figures/*") if path.suffix not in (".png", ".pdf")}
    records = {f"{name}.json" for name in (*NOTEBOOKS, "language")}
    assert others == records | {"in_the_plane.gif", "fashion"}


def test_no_best_decoder_is_worse_than_the_models_own():
    compared = 0
    for name in ("3_benchmark", "language"):
        for rows in recorded(name)["tables"].values():
            for row in rows:
                if row.get("explained_best") is not None:
                    assert row["explained_best"] >= row["explained"] - 0.005, row
                    compared += 1
    assert compared > 50


# --- The front page -----------------------------------------------------------------------------


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
    assert two.W.grad.abs().max() > 1
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
