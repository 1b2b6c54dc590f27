"""The front page and the notebooks: their numbers are those of the record, and their code runs."""

import json
import re

import pandas as pd
import pytest
import torch

import helpers as h
from lab import NOTEBOOKS, ROOT, runs
from lab.methods import ADAM, COMPONENTS, DECAY, SGD

B, C = "B: + variance", "C: + decorrelation"
MODEL, SAE, TIED = "the paper's model", "the paper's SAE", "tuned tied SAE"
SAES = ["tied SAE", "L1 SAE", "TopK SAE"]


def read(path):
    return (ROOT / path).read_text("utf-8")


def record(name, folder="figures"):
    """Return the committed record of a run, as `make check` reads it."""
    text = runs.git("show", f"HEAD:./{folder}/{name}.json") or read(f"{folder}/{name}.json")
    return json.loads(text)


def table(name, title, folder="figures"):
    return pd.DataFrame(record(name, folder)["tables"][title])


def means(name, title, by="method", folder="figures"):
    """Return the means over seeds of a table of the record, rounded as the notebooks do."""
    frame = table(name, title, folder)
    numbers = [*frame.select_dtypes("number")]
    return frame.groupby(by)[numbers].agg(lambda values: values.mean())


def span(values, form=".0f"):
    values = [float(f"{value:{form}}") for value in values]
    ends = dict.fromkeys(f"{end(values):{form}}" for end in (min, max))
    return " to ".join(ends)


def starts_that_find_all():
    """Return of each model how many starts do, with competition and without."""
    starts = table("1_theorem", "starts").groupby(["model", "competition"])["starts that find all"]
    first = starts.first()  # of the first seed
    return {model: (first[model, "on"], first[model, "off"]) for model in ("mixture", B, C)}


# --- What each text must say ----------------------------------------------------------------------


def said_in_notebook_1():
    found = starts_that_find_all()
    return [
        f"{found[C][1]} of 200 starts find all clusters, against {found[C][0]}",
        f"in B, {found[B][0]} starts find all with competition and {found[B][1]} without",
    ]


def said_in_notebook_2():
    in_text = table("2_ablation", "in_text").set_index("what").value
    ablation = means("2_ablation", "ablation", "model")
    dense = means("2_ablation", "coverage", ["layer", "change"]).share["64 units"]
    epochs = table("2_ablation", "epochs").set_index("epochs").active
    loss = table("2_ablation", "optimizers").set_index(["optimizer", "rate"])
    pair = loss.loc["SGD", "0.1"] - loss.loc["Adam", "0.1"]
    criteria = record("2_ablation", "figures/fashion")["criteria"]
    still, slopes = (c for c in criteria if not c["holds"])
    far = sorted(value for value in slopes["measured"] if value > slopes["bound"])
    assert len(far) == 2 and len(slopes["measured"]) == 6
    return [
        f"activates {in_text['active units after an epoch']:.0f} of the 64 units; after 100 "
        f"epochs, {ablation.active[C]:.0f}",
        f"about 1/{64 - ablation.active[C]:.0f}",
        f"varies a little, by {ablation['spread of Z'][C]:.0f}%",
        f"$Z_i$ varies by {ablation['spread of Z'][B]:.0f}%",
        f"dealt out at random take the share from {dense['competition off']:.0f} to "
        f"{dense['denominators dealt out at random']:.0f}%, and each digit's own to "
        f"{dense['competition on']:.0f}%",
        f"the formula would say {in_text['formula with decorrelation']:.0f} units",
        f"{epochs['6']:.0f} units are active after six epochs, {epochs['24']:.0f} after 24 and "
        f"{epochs['100']:.1f} after 100",
        f"after 300 epochs {epochs['300']:.1f} are active",
        f"losses differ by {pair.loss:.0f}, of which {pair['variance term']:.0f} is the "
        "variance term, which falls as units grow, and classifiers by "
        f"{abs(pair.classifier):.1f} points",
        f"active units of C change by {still['measured'][0]:.1f}, and with two of six runs of SGD "
        f"the slope is {far[0]:.2f} and {far[1]:.2f} away from 1",
        *said_of_settings(),
        *said_of_convergence(),
    ]


def said_of_settings():
    names = ["units", "inputs", "weight", "decorrelation"]
    share = table("2_ablation", "balance").set_index(names).share.sort_index()
    alone = share.loc["64", "128", "1"]  # by the weight of decorrelation
    first_price = []
    for units, inputs, weight, decorrelation in share.index:
        if weight == decorrelation and float(weight) == int(inputs) / int(units) / 2:
            first_price.append(share[units, inputs, weight, decorrelation])
    return [
        f"leaves the share at {span(alone[['0.25', '1', '4']])}%, and 16 takes it to "
        f"{alone['16']:.0f}%",
        f"{share['128', '128', '1', '1']:.0f}% of 128 units are active",
        f"between {min(first_price):.0f} and {max(first_price):.0f}%, for 16 to 256",
        f"{0.64 * share['64', '128', '64', '32']:.0f} of the 64 units are active, as in D",
    ]


def said_of_convergence():
    convergence = table("2_ablation", "convergence")
    sgd = convergence[convergence.optimizer == "SGD"]
    of_64, of_32, of_16 = (sgd[sgd.units == units] for units in ("64", "32", "16"))
    return [
        f'{span(of_64["living units"])} of them "converge" in epochs {span(of_64.epoch)}, '
        f"{of_32['living units'].iloc[0]:.0f} in epoch {of_32.epoch.iloc[0]:.0f}, and "
        f"{of_16['living units'].iloc[0]:.0f} in epoch {of_16.epoch.iloc[0]:.0f}",
    ]


def said_in_notebook_3():
    methods = means("3_benchmark", "benchmark")
    own, best = methods.explained, methods["best explained"]
    others = [SGD, DECAY]
    gap = own[SAES].to_numpy() - own[others].to_numpy()[:, None]
    of_gap = 100 * (best - own)[others].to_numpy()[:, None] / gap
    yours = table("3_benchmark", "yours").mean(numeric_only=True)
    fashion = means("3_benchmark", "benchmark", folder="figures/fashion")
    model = means("3_benchmark", "paper", folder="figures/fashion").loc[MODEL]
    rows = means("3_benchmark", "other_rows", ["rows", "method"], "figures/fashion").explained
    predicted, weights = (rows[kind] for kind in ("W_j Cov(x) / Var(E_j)", "W_j"))
    return [
        f"$W^\\top$ explains {own[ADAM]:.0f}% of the variance where SAEs explain "
        f"{span(own[SAES])}%; the best linear decoder finds {best[ADAM]:.0f}%",
        f"with SGD or weight decay, {5 * round(of_gap.min() / 5)} to "
        f"{5 * round(of_gap.max() / 5)}% of it is",
        f"$W^\\top$ explains {own[SGD]:.0f}%, and the best decoder {best[SGD]:.0f}%",
        f"principal components explain {own[COMPONENTS]:.0f} and {best[COMPONENTS]:.0f}%",
        f"{span(methods.classifier[[ADAM, SGD, DECAY]], '.1f')}%, against "
        f"{span(methods.classifier[SAES], '.1f')}%",
        f"SGD's gain of {own[SGD] - own[ADAM]:.0f} points",
        f"SGD gains {fashion.explained[SGD] - fashion.explained[ADAM]:.0f} points, but "
        f"{fashion.dead[SGD]:.0f} units die",
        f"a fitted one explains {model['best explained']:.0f}%, where $W^\\top$ explains "
        f"{model.explained:.0f}",
        f"explain {predicted[ADAM]:.0f}, {predicted[DECAY]:.0f} and {predicted[SGD]:.0f}% (Adam, "
        f"weight decay, SGD), where $W$ explains {weights[ADAM]:.0f}, {weights[DECAY]:.0f} and "
        f"{weights[SGD]:.0f}",
        f"such an SAE explains {yours.explained:.0f}% of the variance, where the L1 SAE "
        f"explains {own['L1 SAE']:.0f} and the TopK SAE {own['TopK SAE']:.0f}%",
        *said_of_decoder_rows(),
        *said_of_the_language_model(),
    ]


def said_of_decoder_rows():
    rows = table("3_benchmark", "other_rows").groupby(["method", "rows"]).explained.mean()
    of_paper, of_sgd = rows[MODEL], rows[SGD]
    gain = of_paper - of_paper["W_j"]
    predicted, alone, damped = "W_j Cov(x) / Var(E_j)", "Cov(E_j, x) / Var(E_j)", "W_j, damped"
    assert gain[predicted] / gain["the best"] == pytest.approx(1 / 3, abs=0.05)  # "a third"
    return [
        f"explain {of_paper[predicted]:.0f}%, where $W$ explains {of_paper['W_j']:.0f}: about a "
        "third of what",
        f"over the variance alone, the weights explain {of_paper['W_j / Var(E_j)']:.0f}%",
        f"one unit at a time gives {of_paper[alone]:.0f}%",
        f"Damped weights gain {gain[damped]:.0f} points, too, which we found by trial; with "
        f"deviations of other pixels they lose {-gain['W_j, damped at random']:.0f}",
        f"from {rows[ADAM, 'W_j']:.0f} to {rows[ADAM, damped]:.0f}%",
        f"which explain {of_sgd[predicted]:.0f}% where SGD's $W$ explains {of_sgd['W_j']:.0f}",
    ]


def said_of_the_language_model():
    language = means("language", "results")
    own, best = language.explained, language["best explained"]
    recovered = language.recovered
    return [
        f"decodes badly, {own[ADAM]:.0f}% of the variance",
        f"a fitted one explains {best[ADAM]:.0f}%, where SAEs explain {span(own[SAES])}%",
        f"thresholded principal components {own[COMPONENTS]:.0f}%",
        f"some {language.dead['tied SAE']:.0f} of the tied SAE's",
        f"recovers {recovered[ADAM]:.0f}% of the loss with $W^\\top$ and "
        f"{language['best recovered'][ADAM]:.0f}% with a fitted decoder, where a tied SAE "
        f"recovers {recovered['tied SAE']:.0f}, an L1 SAE {recovered['L1 SAE']:.0f} and a TopK SAE "
        f"{recovered['TopK SAE']:.0f}%",
    ]


def said_on_the_front_page():
    found = starts_that_find_all()
    ablation = means("2_ablation", "ablation", "model")
    agreement = table("2_ablation", "agreement").set_index(["model", "change"]).agreement
    dense = means("2_ablation", "coverage", ["layer", "change"]).share["64 units"]
    paper = means("3_benchmark", "paper")
    return [
        f"from {found['mixture'][0]} of 200 starts with competition and {found['mixture'][1]} "
        f"without; in the layer, each gets a unit of its own from {found[C][0]} and {found[C][1]}",
        f"number of inactive units, and varies by {ablation['spread of Z'][C]:.0f}%",
        f"some {64 - ablation.active[C]:.0f} inactive units",
        f"with the original ones by at least {agreement['C', 'competition off'].min():.3f}",
        f"better linear classifier ({paper.classifier[MODEL]:.1f} against "
        f"{paper.classifier[SAE]:.1f}%)",
        f"better ({paper.classifier[TIED]:.1f}%) and reconstructs better "
        f"({paper.explained[TIED]:.0f}% of the variance, against {paper.explained[MODEL]:.0f}%, or "
        f"{paper['best explained'][MODEL]:.0f}% with a fitted decoder)",
        f"add up to {ablation.redundancy[B]:,.0f} without decorrelation and to "
        f"{ablation.redundancy[C]:.0f} with it",
        f"{dense['competition off']:.0f}% of the digits go unexplained without competition, and "
        f"{dense['competition on']:.0f}% with it",
    ]


SAID = {
    "notebooks/1_theorem.ipynb": said_in_notebook_1,
    "notebooks/2_ablation.ipynb": said_in_notebook_2,
    "notebooks/3_benchmark.ipynb": said_in_notebook_3,
    "README.md": said_on_the_front_page,
}


@pytest.mark.parametrize("path", SAID)
def test_numbers_of_the_text_are_those_of_the_record(path):
    text = read(path)
    if path.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = " ".join(text.split())
    assert not [said for said in SAID[path]() if said not in text]


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
