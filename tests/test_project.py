"""Package lists, the public address, notebooks without traces of a machine, and style."""

import csv
import json
import re
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from lab import ROOT, check
from lab.check import NOTEBOOKS


def requirements(lines):
    """{package: range of versions} of lines of a package list."""
    found = [Requirement(line) for line in (line.partition("#")[0] for line in lines) if line]
    return {requirement.name: requirement.specifier for requirement in found}


def test_package_lists_agree():
    needed = requirements((ROOT / "requirements.txt").read_text().splitlines())
    conda = (ROOT / "environment.yml").read_text().replace("pytorch-cpu", "torch")
    listed = requirements(re.findall(r"(?m)^  - (?!python=|pip$|conda-forge$)(.*)", conda))
    assert listed == needed
    lock = requirements((ROOT / "requirements.lock").read_text().splitlines())
    pins = {name: str(pin).removeprefix("==") for name, pin in lock.items()}
    assert all(versions.contains(pins[name]) for name, versions in needed.items() if name in pins)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_name_one_address_and_hold_no_errors_and_no_paths(name):
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    cells = json.loads(text)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert not re.search(r"/(home|root|Users|tmp|work)/", text)
    citation = (ROOT / "CITATION.cff").read_text()
    address = re.search(r'(?m)^repository-code: "(.+)"', citation)[1]
    assert address in text


def test_style():
    for command in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, ROOT], check=True)


def test_the_example_of_the_front_page_prints_what_it_says(tmp_path):
    """With helpers.py alone, as one who copies it would run it."""
    page = (ROOT / "README.md").read_text()
    code, printed = re.search(r"```python\n(.*?)```\n```text\n(.*?)```", page, re.DOTALL).groups()
    shutil.copy(ROOT / "helpers.py", tmp_path)
    (tmp_path / "example.py").write_text(code)
    command = [sys.executable, "-W", "error", "example.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout == printed, found.stderr


def test_the_front_page_has_the_table_of_the_record():
    record = json.loads((ROOT / "figures" / "3_benchmark.json").read_text())
    shown = check.README_TABLE.search((ROOT / "README.md").read_text())
    assert shown[0].strip() == check.readme_table(record)


@pytest.mark.parametrize("name", check.RECORDS)
def test_the_record_judges_the_live_criteria_of_today(name):
    """A bound that is changed in claims.csv asks for a new run."""
    rows = csv.DictReader(check.CLAIMS.open(newline=""))
    live = {row["id"]: row for row in rows if row["notebook"] == name and not row["end"]}
    record = json.loads((ROOT / "figures" / f"{name}.json").read_text())
    assert {row["id"] for row in record["criteria"]} == set(live)
    for row in record["criteria"]:
        today = live[row["id"]]
        assert row["bound"] == float(today["bound"])
        assert all(row[key] == today[key] for key in ("statistic", "comparison", "quantity"))


def test_links_of_the_front_page_exist():
    page = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page):
        path = link[0] or link[1]
        assert path.startswith("https://") or (ROOT / path).exists(), path
