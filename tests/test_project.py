"""Package lists, the public address, notebooks without traces of a machine, and style."""

import json
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from lab import ROOT
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
