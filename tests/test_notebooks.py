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
NO_RESULTS = re.compile(  # "Try it", sections, links, formulas, quotations, code
    r"\*\*Try it.*?</details>|§[\d.–]+|\b(19|20)\d\d(?=\))|\]\([^)]*\)"
    r"|\$\$.*?\$\$|\$[^$]*\$|\"[^\"]*\"|“[^”]*”|```.*?```|`[^`]*`"
    r"|<[^>]*>|2601\.06478|Question \d of \d|[Nn]otebooks? \d( of \d)?|Figures? \d|SmolLM2-135M"
    r"|BY 4\.0|^# \d|^\d\. |\[\*\*\d|\[\d",
    re.S | re.M,
)
EXCEPTIONS = {  # sizes and settings that stand in code, the paper's, Python's version
    "1_theorem": ["128", "0.9"],
    "2_ablation": ["4032"],
    "3_benchmark": ["88", "10000", "0.078"],
    "log_sum_exp": ["4032", "256", "512"],
    "decoder": ["20", "16", "30", "143000", "576", "0.08", "4.06"],
    "scale": [".001", "20", "65"],
    "README.md": ["64", "20", "4032", "88", "3.10"],
    "docs/index.html": ["6000", "5000", "3000", "128", ".9", ".004", "1000", "60000"],
}


def cells(path, kind):
    return [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == kind]


def printed(path):
    """Return the numbers of each output of a notebook, each with those of its parameters; but for
    seeds, for deviations, and for the paper's, which stand in brackets."""
    ignored = re.compile(r"SEEDS.*|<style.*?</style>|<[^>]*>|± [\d.,]+| \(.*?\)")
    parameters, outputs = [], []
    for cell in cells(path, "code"):
        if "parameters" in cell["metadata"].get("tags", []):
            parameters = numbers(ignored.sub(" ", "".join(cell["source"])))
        shown = [
            [o.get("text", ""), o.get("data", {}).get("text/html", "")] for o in cell["outputs"]
        ]
        if text := "".join("".join(part) for output in shown for part in output):
            outputs.append(parameters + numbers(ignored.sub(" ", text.replace("\n", " "))))
    return outputs


def numbers(text):
    text = re.sub(r"(?<=\d)_(?=\d)", "", text)
    return [number.replace(",", "") for number in NUMBER.findall(text)]


def decimals(number):
    return len(number.partition(".")[2])


def unsupported(sentence, outputs):
    """Return the numbers of a sentence that do not stand in the one output that has most of them,
    nor with one decimal more."""

    def missing(output):
        for number in numbers(sentence):
            longer = [n for n in output if decimals(n) == decimals(number) + 1]
            near = [float(n) for n in output] + [round(float(n), decimals(number)) for n in longer]
            if not np.isclose(np.abs(near), abs(float(number)), rtol=0, atol=1e-9).any():
                yield number

    return min(([*missing(output)] for output in outputs), key=len)


def sentences(text):
    return re.split(r"(?<=[.:;?!*])\s+|\n+|\|", NO_RESULTS.sub(" ", text))


@of_each_notebook
def test_the_numbers_of_a_sentence_stand_in_one_output_of_its_notebook(path):
    text = "\n\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    outputs = printed(path)
    missing = [n for s in sentences(text) for n in unsupported(s, outputs)]
    assert set(missing) == set(EXCEPTIONS.get(path.stem, []))


def test_those_of_readme_stand_in_the_notebook_that_was_linked_last():
    text = (ROOT / "README.md").read_text("utf-8")
    missing, names = [], [path.name for path in NOTEBOOKS]
    outputs = {path.name: printed(path) for path in NOTEBOOKS}
    for line in re.sub(r"```.*?```|\$\$.*?\$\$", "", text, flags=re.S).splitlines():
        names = re.findall(r"\w+\.ipynb", line) or names
        linked = sum([outputs[name] for name in names], [])
        missing += [n for s in sentences(line) for n in unsupported(s, linked)]
    assert set(missing) == set(EXCEPTIONS["README.md"])


def test_those_of_the_page_stand_in_a_notebook():
    text = (ROOT / "docs/index.html").read_text("utf-8")
    text = re.sub(r"<(style|script|sup|sub).*?</\1>|<canvas[^>]*>", " ", text, flags=re.S)
    outputs = sum([printed(path) for path in NOTEBOOKS], [])
    missing = [n for s in sentences(text) for n in unsupported(s, outputs)]
    assert set(missing) == set(EXCEPTIONS["docs/index.html"])


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
