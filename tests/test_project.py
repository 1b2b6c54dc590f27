"""Package lists, the public address, notebooks without traces of a machine, style, and records."""

import json
import re
import subprocess
import sys
import warnings

import pytest
from packaging.requirements import Requirement

from lab import ROOT, check, criteria, readme
from lab.plots import ALT
from lab.record import git

NOTEBOOKS = ("1_theorem", "2_ablation", "3_benchmark")


def read(path):
    return (ROOT / path).read_text("utf-8")


def recorded(name):
    """The record, which is figures/ as committed, and not a run of yours."""
    path = f"figures/{name}.json"
    return json.loads(git("show", f"HEAD:./{path}") or read(path))


def sources(name):
    """The source of each cell of a notebook."""
    return [
        "".join(cell["source"]) for cell in json.loads(read(f"notebooks/{name}.ipynb"))["cells"]
    ]


def requirements(lines):
    """{package: range of versions} of lines of a package list."""
    found = [Requirement(line) for line in (line.partition("#")[0] for line in lines) if line]
    return {requirement.name: requirement.specifier for requirement in found}


def test_package_lists_agree():
    needed = requirements(read("requirements.txt").splitlines())
    language = requirements(read("requirements-language.txt").splitlines())
    conda = read("environment.yml").replace("pytorch-cpu", "torch")
    listed = requirements(re.findall(r"(?m)^  - (?!python=|pip$|conda-forge$)(.*)", conda))
    assert listed == needed | {"transformers": language["transformers"]}
    lock = requirements(read("requirements.lock").splitlines())
    pins = {name: str(pin).removeprefix("==") for name, pin in lock.items()}
    assert {*needed} - {*pins} == {"nbstripout", "pytest", "ruff"}  # of no influence on a number
    for name in {*needed, *language} & {*pins}:
        assert (needed | language)[name].contains(pins[name]), name


def test_notebooks_name_one_address_and_hold_no_errors_and_no_paths():
    address = re.search(r'(?m)^repository-code: "(.+)"', read("CITATION.cff"))[1]
    for name in NOTEBOOKS:
        text = read(f"notebooks/{name}.ipynb")
        outputs = [o for cell in json.loads(text)["cells"] for o in cell.get("outputs", [])]
        assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
        assert not re.search(r"/(home|root|Users|tmp|work)/", text)
        clones = re.findall(r"git clone [^\n]*?(https://\S+)", "\n".join(sources(name)))
        assert clones == [address]


def test_each_figure_of_a_notebook_has_a_description_and_files():
    cells = "\n".join(text for name in NOTEBOOKS for text in sources(name))
    shown = re.findall(r'show\.figure\([^\n]*"(\w+)", output\)', cells)
    assert sorted(shown) == sorted(ALT)
    for kind in ("png", "pdf"):
        assert {path.stem for path in ROOT.glob(f"figures/*.{kind}")} == {*shown}  # and no old ones


def test_style():
    for command in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, ROOT], check=True)


# --- The front page -----------------------------------------------------------------------------


def test_links_and_commands_of_the_front_page_exist():
    page = read("README.md")
    for links in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page):
        link = "".join(links)
        assert link.startswith("https://") or (ROOT / link).exists(), link
    targets = {*re.findall(r"(?m)^([a-z]+):", read("Makefile"))}
    commands = {*re.findall(r"make ([a-z]+)", " ".join(re.findall("`+[^`]+`+", page)))}
    assert commands and commands <= targets


def test_the_example_of_the_front_page_prints_what_it_says(monkeypatch, capsys):
    """With helpers.py alone, as one who copies it would run it, and without a warning."""
    blocks = re.search(r"```python\n(.*?)```\n```text\n(.*?)```", read("README.md"), re.DOTALL)
    monkeypatch.delitem(sys.modules, "helpers", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        monkeypatch.setitem(sys.modules, name, None)  # which cannot be imported then
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(blocks[1], {})
    assert capsys.readouterr().out == blocks[2]


def test_make_readme_fills_in_the_table_of_the_record(tmp_path, monkeypatch, capsys):
    """The table that the front page has now; and not one of a quick run or of a single seed."""
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    page, file = tmp_path / "README.md", tmp_path / "figures/3_benchmark.json"
    page.write_text(readme.TABLE.sub(" an old one ", before := read("README.md")), "utf-8")
    file.parent.mkdir()
    assert readme.main() == 2 and "3_benchmark.json is missing" in capsys.readouterr().err
    benchmark = recorded("3_benchmark")
    for changed in ({"QUICK": True}, {"SEEDS": [0]}):
        small = benchmark | {"parameters": benchmark["parameters"] | changed}
        file.write_text(json.dumps(small))
        assert readme.main() == 2 and "is a quick run or one of a" in capsys.readouterr().err
    assert " an old one " in page.read_text("utf-8")  # it is left as it is
    file.write_text(json.dumps(benchmark))
    assert readme.main() == 0 and page.read_text("utf-8") == before


# --- The record ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", check.RECORDS)
def test_the_record_judges_the_live_criteria_of_today(name):
    """A bound that is changed in claims.csv asks for a new run."""
    rows = criteria.read_claims()
    live = {row["id"]: row for row in rows if row["notebook"] == name and not row["end"]}
    judged = {row["id"]: row for row in recorded(name)["criteria"]}
    assert {*judged} == {*live}
    for id, row in judged.items():
        assert row["bound"] == float(live[id]["bound"])
        for key in ("statistic", "comparison", "quantity", "methods"):
            assert row[key] == live[id][key]
        assert row["holds"] == all(criteria.holds_at(row, place) for place in row["judged"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_of_the_record_are_those_of_the_notebook(name):
    """A run with a changed cell of parameters is another run."""
    cell = next(text for text in sources(name) if "\nQUICK = False" in text)
    exec(cell, settings := {})
    ours = recorded(name)["parameters"]
    settings = {key: json.loads(json.dumps(settings[key])) for key in settings if key.isupper()}
    may_differ = dict.fromkeys(check.MAY_DIFFER)
    assert ours | may_differ == settings | may_differ
