"""What texts say is what notebooks print, and what they print is the record."""

import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

import helpers as h

NOTEBOOKS = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("questions/*.ipynb")])
of_each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
NUMBER = re.compile(r"(?<![\w.,])-?\d[\d,]*(?:\.\d+)?(?!\w)|(?<![\w.,\d])-?\.\d+")
NO_RESULTS = re.compile(  # answers of a reader, sections, links, formulas, quotations, code
    r"<details><summary>Answers?.*?</details>|§[\d.–]+|\b(19|20)\d\d\b|\]\([^)]*\)"
    r"|\$\$.*?\$\$|\$[^$]*\$|\"[^\"]*\"|“[^”]*”|```.*?```|`[^`]*`"
    r"|<[^>]*>|2601\.06478|Question \d of \d|[Nn]otebooks? \d( of \d)?|Figures? \d|SmolLM2-135M"
    r"|BY 4\.0|^# \d|^\d\. |\[\*\*\d|\[\d",
    re.S | re.M,
)
EXCEPTIONS = {  # sizes and settings that stand in code, the paper's, Python's version
    "1_theorem": ["128", "0.9"],
    "2_ablation": ["4032", "0.01"],
    "3_benchmark": ["88", "10000", "0.078"],
    "log_sum_exp": ["4032", "256", "512"],
    "decoder": ["20", "16", "100", "30", "143000", "576", "0.08", "4.06"],
    "scale": ["65"],
    "README.md": ["4032", "88", "3.10"],
    "docs/index.html": ["6000", "5000", "3000", "128", ".9", "1000", "60000"],
}


def cells(path, kind):
    return [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == kind]


def printed(path):
    """Return the parameters and all outputs of a notebook, as a text."""
    texts = []
    for cell in cells(path, "code"):
        if "parameters" in cell["metadata"].get("tags", []):
            texts.append("".join(cell["source"]))
        for output in cell["outputs"]:
            texts.append("".join(output.get("text", "")))
            texts += ["".join(v) for k, v in output.get("data", {}).items() if "text" in k]
    return "\n".join(texts)


def numbers(text):
    text = re.sub(r"(?<=\d)_(?=\d)", "", text)
    return [number.replace(",", "") for number in NUMBER.findall(text)]


def unsupported(text, source):
    """Return the numbers of a text that are none of a source, rounded."""
    shown = np.abs([float(number) for number in numbers(source)])
    missing = []
    for number in numbers(NO_RESULTS.sub(" ", text)):
        decimals = len(number.partition(".")[2])
        if not np.isclose(np.round(shown, decimals), abs(float(number)), atol=1e-9).any():
            missing.append(number)
    return missing


@of_each_notebook
def test_a_number_of_a_text_is_one_that_its_notebook_prints(path):
    text = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    assert set(unsupported(text, printed(path))) == set(EXCEPTIONS.get(path.stem, []))


@pytest.mark.parametrize("name", ["README.md", "docs/index.html"])
def test_a_number_of_a_page_is_one_that_a_notebook_prints(name):
    text = (ROOT / name).read_text("utf-8")
    if name.endswith("html"):  # its text, not its style and script
        text = re.sub(r"<(style|script).*?</\1>|<canvas[^>]*>", " ", text, flags=re.S)
    source = "\n".join([printed(path) for path in NOTEBOOKS])
    assert set(unsupported(text, source)) == set(EXCEPTIONS.get(name, []))


@of_each_notebook
def test_a_notebook_has_run_once_in_order_without_complaints(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    for output in (output for cell in code for output in cell["outputs"]):
        assert output["output_type"] != "error" and output.get("name") != "stderr"


@of_each_notebook
def test_its_tables_are_those_of_the_record(path):
    """Each cell is a mean, or a mean with a deviation, of a column of figures/*.csv."""
    record = [pd.read_csv(csv) for csv in ROOT.glob(f"figures/{path.stem}*.csv")]

    def as_written(column, decimals):
        for table in record:
            keys = [*table.columns[: table.columns.get_loc("seed")]]
            for by in [keys, *([key] for key in keys)]:
                for _, values in table.drop(columns="seed").groupby(by):
                    for c in [column] if column in values else values.columns.difference(keys):
                        mean, deviation = values[c].mean(skipna=False), values[c].std()
                        text = f"{mean:,.{decimals}f}"
                        yield text + (f" ± {deviation:,.{decimals}f}" if deviation > 0 else "")
                        yield text

    outputs = [o.get("data", {}) for cell in cells(path, "code") for o in cell["outputs"]]
    html = "".join("".join(data.get("text/html", "")) for data in outputs)
    tables = [
        ElementTree.fromstring(table) for table in re.findall("<table.*?</table>", html, re.S)
    ]
    assert tables
    for table in tables:
        columns = [th.text for th in table.find(".//thead/tr") if th.text]
        for row in table.findall(".//tbody/tr"):
            written = [td.text for td in row.findall("td")]
            for column, cell in zip(columns[-len(written) :], written, strict=True):
                if column == "fall":  # the difference of two rows of scale.csv
                    continue
                value = re.sub(r" \(.*\)$", "", cell)  # without the paper's
                decimals = len(value.split(" ")[0].partition(".")[2])
                assert value in set(as_written(column, decimals)), (column, cell)


def test_the_halves_of_the_log_sum_exp_are_those_of_the_text():
    (path,) = ROOT.glob("questions/log_sum_exp.ipynb")
    source = next(
        s for s in map("".join, (c["source"] for c in cells(path, "code"))) if "def price" in s
    )
    functions = {"torch": torch, "math": __import__("math"), "h": h}
    exec(re.search(r"def price_loss.*?(?=\n\n\n[A-Z])", source, re.S)[0], functions)
    E = torch.randn(30, 7, dtype=torch.float64, requires_grad=True)
    e = E.detach().numpy()
    Z = np.exp(-e).sum(1)
    halves = {  # value and gradient
        (1, 0): (-30 * np.log(Z.mean()), np.exp(-e) / Z.mean()),
        (0, 1): (-np.log(Z / Z.mean()).sum(), np.exp(-e) / Z[:, None] - np.exp(-e) / Z.mean()),
        (1, 1): (-np.log(Z).sum(), np.exp(-e) / Z[:, None]),
    }
    for (price, competition), (value, gradient) in halves.items():
        for weight in (0, 2):
            loss = functions["loss"](lambda E: E, E, price, competition, weight)
            found = loss - h.variance_loss(E) - weight * h.decorrelation_loss(E)
            assert found.item() == pytest.approx(value)
            np.testing.assert_allclose(torch.autograd.grad(found, E)[0], gradient, atol=1e-9)


@pytest.mark.parametrize("own", [False, True])
def test_the_snippet_of_readme_runs(own, tmp_path):
    """In a folder beside helpers.py; with x of one's own, without data."""
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)[1]
    (tmp_path / "helpers.py").write_bytes((ROOT / "helpers.py").read_bytes())
    if own:
        rows = "x = torch.rand(2000, 50); x_test = torch.rand(100, 50)"
        snippet = re.sub(r"(?m)^x, y.*$", rows, snippet)
    else:
        (tmp_path / "data").symlink_to(ROOT / "data")
        snippet = snippet.replace("epochs=5", "epochs=1")
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    active = float(done.stdout.split()[0])
    assert own or 5 < active < 45  # without the log-sum-exp more than 50
