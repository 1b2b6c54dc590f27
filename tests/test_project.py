"""Package lists, publishing, the record, the front page; notebooks without traces of a machine."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement

from lab import NOTEBOOKS, ROOT, publish
from lab.record import git


def read(path):
    return (ROOT / path).read_text("utf-8")


def recorded(name):
    """The record, which is figures/ as committed, and not a run of yours."""
    path = f"figures/{name}.json"
    return json.loads(git("show", f"HEAD:./{path}") or read(path))


def sources(name):
    """The source of each cell of a notebook."""
    cells = json.loads(read(f"notebooks/{name}.ipynb"))["cells"]
    return ["".join(cell["source"]) for cell in cells]


def requirements(lines):
    """{package: range of versions} of lines of a package list."""
    found = [Requirement(line) for line in (line.partition("#")[0] for line in lines) if line]
    return {requirement.name: requirement.specifier for requirement in found}


def test_package_lists_agree():
    files = ("requirements.txt", "requirements-language.txt", "requirements.lock")
    needed, language, lock = (requirements(read(path).splitlines()) for path in files)
    conda = read("environment.yml").replace("pytorch-cpu", "torch")
    listed = requirements(re.findall(r"(?m)^  - (?!python=|pip$|conda-forge$)(.*)", conda))
    assert listed == needed | language
    assert {*needed} - {*lock} == {"nbstripout", "pytest", "ruff"}  # of no influence on a number
    for name in {*listed} & {*lock}:
        assert listed[name].contains(str(lock[name]).removeprefix("==")), name


def test_notebooks_hold_no_errors_and_no_paths():
    for name in NOTEBOOKS:
        text = read(f"notebooks/{name}.ipynb")
        outputs = [o for cell in json.loads(text)["cells"] for o in cell.get("outputs", [])]
        assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
        assert not re.search(r"/(home|root|Users|tmp|work)/", text)


def test_each_figure_of_a_notebook_has_files():
    cells = "\n".join(text for name in NOTEBOOKS for text in sources(name))
    names = re.findall(r'(?s)record\.save_figure\(.*?"(\w+)",\s*output\s*\)', cells)
    for kind in ("png", "pdf"):  # and no old ones
        assert {path.stem for path in ROOT.glob(f"figures/*.{kind}")} == {*names}


def test_no_best_decoder_is_worse_than_the_models_own():
    compared = 0
    for name in ("3_benchmark", "language"):
        for rows in recorded(name)["tables"].values():
            for row in rows:
                if row.get("explained_best") is not None:
                    assert row["explained_best"] >= row["explained"] - 0.005, row
                    compared += 1
    assert compared > 50


# --- Publishing ---------------------------------------------------------------------------------


def test_publish_writes_one_address_everywhere_and_can_be_run_again(tmp_path):
    """Also into the runs of `make`, none of which it needs to run again."""
    copies = {f"build/{name}.{end}": name for name in NOTEBOOKS for end in ("source", "ipynb")}
    copies = {path: f"notebooks/{name}.ipynb" for path, name in copies.items()}
    copies |= {path: path for path in ("README.md", "CITATION.cff", *copies.values())}
    for path, original in copies.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / original, tmp_path / path)
        os.utime(tmp_path / path, (7, 7))
    publish.publish("someone/something", root=tmp_path)
    publish.publish("me/my.copy", "topic", tmp_path)
    for path in copies:
        text = (tmp_path / path).read_text("utf-8")
        assert "me/my.copy" in text and "someone" not in text, path
        assert (tmp_path / path).stat().st_mtime == 7
        if path.startswith(("notebooks", "build")):
            assert r"address = \"https://github.com/me/my.copy --branch topic\"" in text
            assert f"gh/me/my.copy/HEAD?labpath={copies[path]})" in text
            assert f"github/me/my.copy/blob/topic/{copies[path]})" in text
    assert (tmp_path / "README.md").read_text("utf-8").count("colab-badge") == len(NOTEBOOKS)
    for path, original in copies.items():  # nothing but the address and the badges has changed
        after = (tmp_path / path).read_text("utf-8").splitlines()
        changed = [line for line in zip(read(original).splitlines(), after) if line[0] != line[1]]
        assert len(after) == len(read(original).splitlines()) and len(changed) <= 2, path


def test_what_cannot_be_published_is_refused_and_left(tmp_path):
    with pytest.raises(ValueError, match="owner/name"):
        publish.publish("https://github.com/me/copy", root=tmp_path)
    for text in ("", "a = 1\na = 1\n"):
        (tmp_path / "file").write_text(text, "utf-8")
        with pytest.raises(ValueError, match="not one place"):
            publish.replace(tmp_path / "file", "a = .", "a = 2")
        assert (tmp_path / "file").read_text("utf-8") == text


def test_publishing_needs_no_packages():
    """-S: none of those that are installed are found."""
    subprocess.run([sys.executable, "-S", "-c", "import lab.publish"], cwd=ROOT, check=True)


def test_without_the_repository_the_first_cell_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [])
    for name in NOTEBOOKS:
        setup = next(cell for cell in sources(name) if "address = " in cell)
        setup = re.sub(r"(?m)^( *)!.*$", r"\1pass", re.sub('address = ".*"', 'address = ""', setup))
        with pytest.raises(FileNotFoundError, match="make publish"):
            exec(setup, {})


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
    blocks = re.search(
        r"```python\n((?:(?!```).)*)```\n```text\n(.*?)```", read("README.md"), re.DOTALL
    )
    monkeypatch.delitem(sys.modules, "helpers", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        monkeypatch.setitem(sys.modules, name, None)  # which cannot be imported then
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(blocks[1], found := {})
    assert capsys.readouterr().out == blocks[2]
    # It learns from the same numbers, whatever the scale of the data is
    to_scaled, _, _ = blocks[1].partition("new_encoder =")
    for scale in (" * 0.01", " * 255"):
        code = to_scaled.replace("load_digits().data", f"load_digits().data{scale}")
        exec(code, scaled := {})
        assert code != to_scaled and np.allclose(scaled["x"], found["x"])


def means(name, table, by):
    """Means over seeds of a table of the record, with a row for each `by`."""
    return pd.DataFrame(recorded(name)["tables"][table]).groupby(by).mean(numeric_only=True)


def test_the_numbers_of_the_front_page_are_those_of_the_record():
    ablation, ten = (
        means("2_ablation", "ablation", "model"),
        means("3_benchmark", "benchmark", "method"),
    )
    explained = 100 * ten.explained
    B, C = ablation.redundancy["B: + variance"], ablation.redundancy["C: + decorrelation"]
    optimizers = pd.DataFrame(recorded("2_ablation")["tables"]["optimizers"])
    agreement = means("2_ablation", "agreement", ["model", "change"]).agreement
    by_rate = optimizers.pivot(index="rate", columns="optimizer", values="classifier")
    gain, sgd_gains = by_rate.Adam - by_rate.SGD, by_rate.SGD.diff().dropna()
    adam, sgd = (explained[f"the paper's loss, by {name}"] for name in ("Adam", "SGD"))
    decay = explained["+ weight decay"]
    one_size = 100 * means("3_benchmark", "cosines", "method").explained["by Adam, one size a unit"]
    pixels = recorded("3_benchmark")["tables"]["references"][0]["pixels"]
    said = [
        f"makes redundancy {B / C:.0f} times smaller",
        f"losses differ by up to {np.ptp(optimizers.loss):.0f}; without the variance term, in "
        f"which the scale of units counts, by up to {np.ptp(optimizers['the rest']):.0f}",
        f"correlate by {agreement['C', 'without competition']:.2f}",
        f"gains at most {gain.max():.1f} points by Adam; at its smallest rate SGD is "
        f"{sgd_gains.iloc[0]:.1f} points worse than at the next",
        f"explains {adam:.1f}% of the variance by Adam, {one_size:.1f}% by Adam without this "
        f"rescaling, {sgd:.1f}% by SGD, and {decay:.1f}% by Adam with weight decay",
        f"tuned SAEs explain {explained['tied SAE']:.0f} to {explained['TopK SAE']:.0f}% of the "
        "variance",
        f"explains {adam:.1f}% by Adam, and {sgd:.1f}% by SGD, which we tuned for this; with our "
        f"changes and centred pixels {explained['+ centred: the revised loss']:.1f}%",
        f"by a threshold, explain {explained['principal components']:.1f}%",
        f"(on pixels {pixels:.1f}%)",
    ]
    page = read("README.md")
    assert not [sentence for sentence in said if sentence not in page]
