"""Package lists, the public address, notebooks without traces of a machine, style, and records."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from lab import ROOT, check, criteria, readme
from lab.plots import ALT

NOTEBOOKS = ("1_theorem", "2_ablation", "3_benchmark")
MODULES = {path.stem: ast.parse(path.read_text("utf-8")) for path in ROOT.glob("lab/*.py")}


def read(path):
    return (ROOT / path).read_text("utf-8")


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


def test_modules_do_not_import_each_other_in_a_circle():
    imports = {}
    for name, tree in MODULES.items():
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        of_lab = [alias.name for node in nodes if node.module == "lab" for alias in node.names]
        of_lab += [node.module[4:] for node in nodes if node.module.startswith("lab.")]
        imports[name] = {*of_lab} & {*MODULES} - {"__init__"}
    while leaves := [name for name, of in imports.items() if not of & {*imports}]:
        for name in leaves:
            del imports[name]
    assert not imports


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_name_one_address_and_hold_no_errors_and_no_paths(name):
    text = read(f"notebooks/{name}.ipynb")
    outputs = [o for cell in json.loads(text)["cells"] for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert not re.search(r"/(home|root|Users|tmp|work)/", text)
    address = re.search(r'(?m)^repository-code: "(.+)"', read("CITATION.cff"))[1]
    clones = re.findall(r"git clone [^\n]*?(https://\S+)", "\n".join(sources(name)))
    assert clones == [address]


def test_each_figure_of_a_notebook_has_a_description_and_a_place_in_the_record():
    cells = "\n".join(text for name in NOTEBOOKS for text in sources(name))
    shown = re.findall(r'show\.figure\([^\n]*"(\w+)", output\)', cells)
    assert sorted(shown) == sorted(ALT)
    for name in shown:
        assert (ROOT / f"figures/{name}.png").exists() and (ROOT / f"figures/{name}.pdf").exists()
    assert {path.stem for path in ROOT.glob("figures/*.png")} == {*shown}  # none of old figures


def test_style():
    for command in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, ROOT], check=True)


def test_a_reader_needs_no_history_of_the_text():
    """What is read has no word of former "editions" of itself."""
    texts = {path: read(path) for path in ("README.md", "helpers.py", "CITATION.cff")}
    texts |= {path.name: path.read_text("utf-8") for path in ROOT.glob("lab/*.py")}
    texts |= {name: "\n".join(sources(name)) for name in NOTEBOOKS}
    assert not [name for name, text in texts.items() if "edition" in text.lower()]


def test_no_number_is_left_open():
    """Numbers that wait for a run are written as … until it is made."""
    texts = {"README.md": read("README.md")}
    texts |= {name: "\n".join(sources(name)) for name in NOTEBOOKS}
    assert not {name: text.count("…") for name, text in texts.items() if "…" in text}


# --- The front page -----------------------------------------------------------------------------


def test_links_of_the_front_page_exist():
    for link in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", read("README.md")):
        path = link[0] or link[1]
        assert path.startswith("https://") or (ROOT / path).exists(), path


def test_commands_of_the_front_page_exist():
    targets = {*re.findall(r"(?m)^([a-z]+):", read("Makefile"))}
    commands = {*re.findall(r"make ([a-z]+)", " ".join(re.findall("`[^`]+`", read("README.md"))))}
    assert commands and commands <= targets


def test_the_example_of_the_front_page_prints_what_it_says(tmp_path):
    """With helpers.py alone, as one who copies it would run it."""
    blocks = re.search(r"```python\n(.*?)```\n```text\n(.*?)```", read("README.md"), re.DOTALL)
    shutil.copy(ROOT / "helpers.py", tmp_path)
    (tmp_path / "example.py").write_text(blocks[1], "utf-8")
    command = [sys.executable, "-W", "error", "example.py"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert found.stdout == blocks[2], found.stderr


def test_the_front_page_has_the_table_of_the_record():
    benchmark = json.loads(read("figures/3_benchmark.json"))
    shown = readme.TABLE.search(read("README.md"))
    assert shown[0].strip() == readme.front_table(benchmark)


# --- The record ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", check.RECORDS)
def test_the_record_judges_the_live_criteria_of_today(name):
    """A bound that is changed in claims.csv asks for a new run."""
    rows = criteria.read_claims()
    live = {row["id"]: row for row in rows if row["notebook"] == name and not row["end"]}
    judged = json.loads(read(f"figures/{name}.json"))["criteria"]
    assert {row["id"] for row in judged} == {*live}
    for row in judged:
        today = live[row["id"]]
        assert row["bound"] == float(today["bound"])
        for key in ("statistic", "comparison", "quantity", "methods"):
            assert row[key] == today[key]
        assert row["holds"] == all(criteria.holds_at(row, place) for place in row["judged"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_of_the_record_are_those_of_the_notebook(name):
    """A run with a changed cell of parameters is another run."""
    cell = next(text for text in sources(name) if "\nQUICK = False" in text)
    exec(cell, settings := {})
    recorded = json.loads(read(f"figures/{name}.json"))["parameters"]
    settings = {key: json.loads(json.dumps(settings[key])) for key in settings if key.isupper()}
    may_differ = dict.fromkeys(check.MAY_DIFFER)
    assert recorded | may_differ == settings | may_differ
