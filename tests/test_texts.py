"""The front page and the notebooks: their numbers are those of the record, and their code runs."""

import json
import re

import pandas as pd
import pytest
import torch

import helpers as h
from lab import NOTEBOOKS, ROOT, runs
from lab.methods import ADAM, COMPONENTS, DECAY, SGD

A, B, C, D = "A: log-sum-exp", "B: + variance", "C: + decorrelation", "D: without log-sum-exp"
MODEL, SAE = "the paper's model", "the paper's SAE"
SAES = ["tied SAE", "L1 SAE", "TopK SAE"]
BEST, DAMPED = "the best", "W_j, damped"
PREDICTED, ALONE = "W_j Cov(x) / Var(E_j)", "Cov(E_j, x) / Var(E_j)"


def read(path):
    return (ROOT / path).read_text("utf-8")


def table(name, title, folder="figures"):
    """Return a table of the committed record, as `make check` reads it."""
    text = runs.git("show", f"HEAD:./{folder}/{name}.json") or read(f"{folder}/{name}.json")
    return pd.DataFrame(json.loads(text)["tables"][title])


def failing(name, folder):
    """Return the criteria that fail in a record."""
    return [c for c in json.loads(read(f"{folder}/{name}.json"))["criteria"] if not c["holds"]]


def span(values, form=".0f"):
    values = [float(f"{value:{form}}") for value in values]
    ends = dict.fromkeys(f"{end(values):{form}}" for end in (min, max))
    return " to ".join(ends)


@pytest.fixture(scope="module")
def expected():
    """Return {file: what its text must say}, from the record."""
    starts = table("1_theorem", "starts").groupby(["model", "competition"])["starts that find all"]
    first = starts.first()  # of the first seed
    found = {model: (first[model, "on"], first[model, "off"]) for model in ("mixture", B, C)}

    ablation = table("2_ablation", "ablation").groupby("model").mean(numeric_only=True)
    agreement = table("2_ablation", "agreement").set_index(["model", "change"]).agreement
    of_C = agreement["C", "competition off"]
    coverage = table("2_ablation", "coverage").groupby(["layer", "change"]).share.mean()
    dense = coverage["64 units"]
    balance = table("2_ablation", "balance").set_index(
        ["units", "inputs", "weight", "decorrelation"]
    )
    share = balance.share
    joint = share[share.index.get_level_values(2) == share.index.get_level_values(3)]
    one_price = [joint[k] for k in joint.index if float(k[2]) == int(k[1]) / int(k[0]) / 2]
    epochs = table("2_ablation", "epochs").set_index("epochs").active
    convergence = table("2_ablation", "convergence")
    sgd = convergence[convergence.optimizer == "SGD"]
    of_64, of_32, of_16 = (sgd[sgd.units == units] for units in ("64", "32", "16"))
    loss = table("2_ablation", "optimizers").set_index(["optimizer", "rate"])
    pair = loss.loc["SGD", "0.1"] - loss.loc["Adam", "0.1"]
    in_text = table("2_ablation", "in_text").set_index("what").value

    paper = table("3_benchmark", "paper").groupby("method").mean(numeric_only=True)
    methods = table("3_benchmark", "benchmark").groupby("method").mean(numeric_only=True)
    own, best = methods.explained, methods["best explained"]
    yours = table("3_benchmark", "yours").mean(numeric_only=True)
    rows = table("3_benchmark", "other_rows").groupby(["method", "rows"]).explained.mean()
    gain = {name: value - rows[MODEL, "W_j"] for name, value in rows[MODEL].items()}
    fashion = table("3_benchmark", "benchmark", "figures/fashion")
    fashion = fashion.groupby("method").mean(numeric_only=True)
    language = table("language", "results").groupby("method").mean(numeric_only=True)
    language_own, language_best = language.explained, language["best explained"]

    gap = own[SAES].to_numpy() - own[[SGD, DECAY]].to_numpy()[:, None]
    of_gap = 100 * (best - own)[[SGD, DECAY]].to_numpy()[:, None] / gap
    alone = share.sort_index().loc["64", "128", "1"]  # by the weight of decorrelation
    still, slopes = (c["measured"] for c in failing("2_ablation", "figures/fashion"))
    far = sorted(slopes)[-2:]
    assert gain[PREDICTED] / gain[BEST] == pytest.approx(1 / 3, abs=0.05)  # "a third"
    return {
        "notebooks/1_theorem.ipynb": [
            f"{found[C][1]} of 200 starts find all clusters, against {found[C][0]}",
            f"in B, {found[B][0]} starts find all with competition and {found[B][1]} without",
        ],
        "notebooks/2_ablation.ipynb": [
            f"activates {in_text['active units after an epoch']:.0f} of the 64 units; after 100 "
            f"epochs, {ablation.active[C]:.0f}",
            f"about 1/{64 - ablation.active[C]:.0f}",
            f"varies a little, by {ablation['spread of Z'][C]:.0f}%",
            f"$Z_i$ varies by {ablation['spread of Z'][B]:.0f}%",
            f"dealt out at random take the share from {dense['competition off']:.0f} to "
            f"{dense['denominators dealt out at random']:.0f}%, and each digit's own to "
            f"{dense['competition on']:.0f}%",
            f"leaves the share at {span(alone[['0.25', '1', '4']])}%; that 16 takes it to "
            f"{alone['16']:.0f}% we cannot explain",
            f"active units of C change by {still[0]:.1f}, and with two of six runs of SGD "
            f"the slope is {far[0]:.2f} and {far[1]:.2f} away from 1",
            f"the formula would say {in_text['formula with decorrelation']:.0f} units",
            f"{epochs['6']:.0f} units are active after six epochs, {epochs['24']:.0f} after 24 and "
            f"{epochs['100']:.1f} after 100",
            f"after 300 epochs {epochs['300']:.1f} are active",
            f"{share['128', '128', '1', '1']:.0f}% of 128 units are active",
            f"between {min(one_price):.0f} and {max(one_price):.0f}%, for 16 to 256",
            f"{0.64 * share['64', '128', '64', '32']:.0f} of the 64 units are active, as in D",
            f'{span(of_64["living units"])} of them "converge" in epochs {span(of_64.epoch)}, '
            f"{of_32['living units'].iloc[0]:.0f} in epoch {of_32.epoch.iloc[0]:.0f}, and "
            f"{of_16['living units'].iloc[0]:.0f} in epoch {of_16.epoch.iloc[0]:.0f}",
            f"losses differ by {pair.loss:.0f}, of which {pair['variance term']:.0f} is the "
            f"variance term, and classifiers by {abs(pair.classifier):.1f} points",
        ],
        "notebooks/3_benchmark.ipynb": [
            f"$W^\\top$ explains {own[ADAM]:.0f}% of the variance where SAEs explain "
            f"{span(own[SAES])}%; the best linear decoder finds {best[ADAM]:.0f}%",
            f"with SGD or weight decay, {5 * round(of_gap.min() / 5)} to "
            f"{5 * round(of_gap.max() / 5)}% of it is",
            f"$W^\\top$ explains {own[SGD]:.0f}%, and the best decoder {best[SGD]:.0f}%",
            f"principal components explain {own[COMPONENTS]:.0f} and {best[COMPONENTS]:.0f}%",
            f"{span(methods.classifier[[ADAM, SGD, DECAY]], '.1f')}%, against "
            f"{span(methods.classifier[SAES], '.1f')}%",
            f"from {rows[ADAM, 'W_j']:.0f} to {rows[ADAM, DAMPED]:.0f}%",
            f"SGD's gain of {own[SGD] - own[ADAM]:.0f} points",
            f"explain {rows[MODEL, PREDICTED]:.0f}%, where $W$ explains "
            f"{rows[MODEL, 'W_j']:.0f}: a third of what",
            f"which explain {rows[SGD, PREDICTED]:.0f}% where SGD's $W$ explains "
            f"{rows[SGD, 'W_j']:.0f}",
            f"over the variance alone, the weights explain {rows[MODEL, 'W_j / Var(E_j)']:.0f}%",
            f"one unit at a time gives {rows[MODEL, ALONE]:.0f}%",
            f"deviation gain {gain[DAMPED]:.0f} points",
            f"SGD gains {fashion.explained[SGD] - fashion.explained[ADAM]:.0f} points, but "
            f"{fashion.dead[SGD]:.0f} units die",
            f"thresholded principal components {language_own[COMPONENTS]:.0f}%",
            f"such an SAE explains {yours.explained:.0f}% of the variance, where the L1 SAE "
            f"explains {own['L1 SAE']:.0f} and the TopK SAE {own['TopK SAE']:.0f}%",
            f"decodes badly, {language_own[ADAM]:.0f}% of the variance",
            f"a fitted one explains {language_best[ADAM]:.0f}%, where SAEs explain "
            f"{span(language_own[SAES])}%",
            f"recovers {language.recovered[ADAM]:.0f}% of the loss with $W^\\top$ and "
            f"{language['best recovered'][ADAM]:.0f}% with a fitted decoder, where a tied SAE "
            f"recovers {language.recovered['tied SAE']:.0f}, an L1 SAE "
            f"{language.recovered['L1 SAE']:.0f} and a TopK SAE "
            f"{language.recovered['TopK SAE']:.0f}%",
        ],
        "README.md": [
            f"from {found['mixture'][0]} of 200 starts with competition and {found['mixture'][1]} "
            f"without; in the layer each has a unit of its own from {found[C][0]} and "
            f"{found[C][1]}",
            f"without it only {found[B][0]} of 200 starts find all five clusters",
            f"number of inactive units, and varies by {ablation['spread of Z'][C]:.0f}%",
            f"correlate with the original ones by at least {of_C.min():.3f}",
            f"better linear classifier ({paper.classifier[MODEL]:.1f} against "
            f"{paper.classifier[SAE]:.1f}%)",
            f"({paper.classifier['tuned tied SAE']:.1f}%; "
            f"{paper.explained['tuned tied SAE']:.0f}% of the variance against "
            f"{paper.explained[MODEL]:.0f}%, or {paper['best explained'][MODEL]:.0f}% with a "
            "fitted decoder)",
            f"some {64 - ablation.active[C]:.0f} inactive units",
        ],
    }


@pytest.mark.parametrize("path", [f"notebooks/{name}.ipynb" for name in NOTEBOOKS] + ["README.md"])
def test_numbers_of_the_text_are_those_of_the_record(path, expected):
    text = read(path)
    if path.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = " ".join(text.split())
    assert not [said for said in expected[path] if said not in text]


def test_notebooks_hold_no_errors_and_figures_what_they_draw_and_nothing_else():
    sources = []
    for name in NOTEBOOKS:
        text = read(f"notebooks/{name}.ipynb")
        cells = json.loads(text)["cells"]
        sources += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
        assert not re.search(r"/(home|root|Users|tmp|work)/", text)
        assert not [cell for cell in cells if cell["metadata"].keys() - {"tags"}]  # no times
    drawn = re.findall(r'(?s)run\.save_and_show\(.*?"(\w+)"\s*\)', "\n".join(sources))
    files = {f"{name}.{kind}" for name in (*drawn, "3d_language_model") for kind in ("png", "pdf")}
    files |= {f"{name}.json" for name in (*NOTEBOOKS, "language")} | {"in_the_plane.gif", "fashion"}
    assert {path.name for path in ROOT.glob("figures/*")} == files


def test_links_of_the_front_page_lead_somewhere():
    links = re.findall(r'(?:src="|\]\()([\w/.]+)[")]', read("README.md"))
    assert len(links) > 10 and not [path for path in links if not (ROOT / path).exists()]


def test_the_loss_of_the_front_page_is_that_of_helpers():
    """On inputs of which one unit is dead, too; its gradient is helpers.py's."""
    code = re.search(r"```python\n(import torch.*?)```", read("README.md"), re.DOTALL)[1]
    x = torch.randn(128, 6, generator=torch.Generator().manual_seed(0))
    one, two = h.Encoder(6, 5), h.Encoder(6, 5)
    one.b.data[2] = two.b.data[2] = -100
    names = {"x": x, "W": one.W, "b": one.b}
    exec(code, names)
    names["loss"].backward()
    h.decoder_free_loss(two(x)).backward()
    for a, b in ((one.W, two.W), (one.b, two.b)):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)
