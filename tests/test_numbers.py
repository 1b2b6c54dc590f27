"""Numbers in the prose of README.md and of the notebooks' head tables, against the record."""

import json

import numpy as np
import pandas as pd
import pytest

from lab import ROOT


def record(name):
    return json.loads((ROOT / "figures" / f"{name}.json").read_text(encoding="utf-8"))


def text(name):
    """README.md, or the Markdown of a notebook."""
    content = (ROOT / name).read_text(encoding="utf-8")
    if name == "README.md":
        return content
    cells = json.loads(content)["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


BENCHMARK, ABLATION, LANGUAGE = (record(name) for name in ("3_benchmark", "2_ablation", "language"))
AT = pd.DataFrame(BENCHMARK["at_l0"]).groupby("method").mean(numeric_only=True)
AGREE = pd.DataFrame(BENCHMARK["agreement_at_l0"]).groupby("method").agreement
THERE = pd.DataFrame(LANGUAGE["at_l0"]).groupby("method").mean(numeric_only=True)
SHORT, LONG = pd.DataFrame(ABLATION["short"]), pd.DataFrame(ABLATION["ablation"])
VARIANTS = [np.mean(row["L0"]) for row in ABLATION["variants"]]
PAPER, REVISED, DECAY = "the paper's loss", "the revised loss", "the paper's loss + weight decay"
TUNED = "the paper's loss, tuned"


def percent(*methods, table=AT):
    return [100 * table.explained[method] for method in methods]


def short(weight, decorrelation, lam=1.0, change=""):
    some = SHORT[(SHORT.weight == weight) & (SHORT.decorrelation == decorrelation)]
    return some[(some.lam == lam) & (some.change == change)]


def hundreds(weight):
    """Redundancy of B at a weight of competition, to hundreds."""
    return round(short(weight, 0.0).redundancy.mean(), -2)


def behind(method):
    """How far the probe is behind the tuned SAEs: the least and the most."""
    saes = AT.probe[["tied SAE", "L1 SAE", "TopK SAE"]] - AT.probe[method]
    return saes.min(), saes.max()


def relative(table):
    return 100 * table.explained[REVISED] / table.explained["L1 SAE"]


NUMBERS = []


@pytest.mark.parametrize("place, template, values", NUMBERS)
def test_a_number_in_prose_is_that_of_the_record(place, template, values):
    assert template.format(*values) in text(place)
