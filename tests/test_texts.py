"""The front page and the notebooks: their numbers are those of the record, and their code runs."""

import json
import re

import numpy as np
import pytest
import torch

import helpers as h
from lab import NOTEBOOKS, ROOT, record
from lab.benchmark import COMPONENTS, PAPER_ADAM, PAPER_DECAY, PAPER_METHODS, PAPER_SGD
from lab.figures.benchmark import SAES


def read(path):
    return (ROOT / path).read_text("utf-8")


def staged(name):
    """Return the record that is staged or, in a clone, committed: where figures/ has been run again
    on another machine, the texts are still about the record."""
    path = f"figures/{name}.json"
    return json.loads(record.git("show", f":./{path}") or read(path))


def tables(name):
    return record.read_tables(staged(name))


# --- What each text must say ----------------------------------------------------------------------


def said_in_notebook_1(tables):
    """Return what the text of notebook 1 must say. tables: of its record, {title: DataFrame}, as
    `record.read_tables` returns them."""
    starts = tables["starts"].groupby(["model", "competition"]).mean()
    shares = starts["find all"]
    width = tables["width"].droplevel("seed")
    assert shares["mixture", "on"] == 100
    for model in ("A", "D"):
        assert shares[model, "on"] == 0
    for clusters in ("eight clusters", "six, one of them in the middle"):
        assert not starts.loc[f"C, {clusters}"].any(axis=None)  # "No layer finds"
    for depends in ("seven clusters", "five of unequal sizes", "400 epochs"):  # on the bound
        at_a_third = starts["at a third"][f"C, {depends}", "on"]
        assert abs(shares[f"C, {depends}", "on"] - at_a_third) > 50
    for model in ("mixture", "C"):  # "from fewer starts"
        assert shares[f"{model}, half as wide", "on"] < shares[model, "on"]
    lost = [shares[model, "on"] - shares[model, "off"] for model in ("C, half as wide", "C")]
    assert lost[0] > lost[1]  # "C loses more"
    assert not width["dead units"].any()
    return [
        f"as if each unit took a cluster at random: {shares['B', 'off']:.0f}%",
        f"Competition brings this to {shares['B', 'on']:.0f}%, decorrelation to "
        f"{shares['C', 'off']:.0f}%, and both to {shares['C', 'on']:.0f}%",
    ]


def said_in_notebook_2(tables):
    scores = tables["ablation"].groupby(["loss", "competition"]).mean()
    redundancy, L0 = scores["redundancy"], scores["L0"]
    lost = tables["ablation"].sort_index()["less than a tenth of a vote"]["B", "off"]
    costs = tables["costs"].groupby(["loss", "competition"]).mean()
    cost_of_competition = costs["competition costs"]
    cost_of_decorrelation = costs["decorrelation costs"]
    at_end = tables["at_end"].agreement.groupby("loss").mean()
    balance = tables["balance"].droplevel(["changed", "seed"])
    share, formula = balance["share active"], balance["formula"]
    epochs = tables["epochs"].L0.droplevel("seed")
    spread = scores["spread of Z"]
    like_N_over_2K = [share[k, n, w, w] for k, n, w, v in share.index if w == v == n / 2 / k]
    wide = 512, 128, 1, 1
    return [
        f"from {redundancy['B', 'on']:,.0f} to {redundancy['C', 'on']:.0f}",
        f"correlate by {at_end['C']:.2f} in C, and by {at_end['B']:.2f} in B",
        f"about 1/{64 - L0['C', 'on']:.0f} in C",
        f"in B, {min(lost):.0f} to {max(lost):.0f}% over three",
        f"Why {L0['C', 'on']:.0f} of 64?",
        f"that number varies by {spread['B', 'off']:.0f}%",
        f"In C it varies by {spread['C', 'off']:.0f}%",
        f"competition costs {cost_of_competition['B', 'on']:.0f} in a minibatch, and decorrelation "
        f"would cost {round(cost_of_decorrelation['B', 'on'], -2):,.0f}. In C they cost "
        f"{cost_of_competition['C', 'on']:.1f} and {cost_of_decorrelation['C', 'on']:.0f}",
        f"this is {0.64 * formula[64, 128, 1, 1]:.1f} units",
        f"{epochs[6]:.0f} are active after six epochs, {epochs[100]:.1f} after 100",
        f"{share[wide]:.0f}% are active, and the formula says {formula[wide]:.0f}",
        f"without it {share[512, 128, 1, 0]:.0f}% are active",
        f"{share[128, 128, 1, 1]:.0f}% of 128 are active, and {share[256, 128, 1, 1]:.0f}% of 256",
        f"between {min(like_N_over_2K):.0f} and {max(like_N_over_2K):.0f}%",
    ]


MODEL, SAE, TUNED = (method.name for method in PAPER_METHODS)
LAYERS = [PAPER_ADAM, PAPER_SGD, PAPER_DECAY]


def span(values, form=".0f"):
    ends = dict.fromkeys(f"{end(values):{form}}" for end in (min, max))
    return " to ".join(ends)


def means(table):
    """Return means over seeds, rounded as the notebooks do."""
    return table.groupby("method", sort=False).agg(lambda values: np.asarray(values, float).mean())


def said_in_notebook_3(tables, language):
    paper, scores, predicted = (means(tables[t]) for t in ("paper", "benchmark", "predicted"))
    references = tables["references"]
    own, best = scores["variance explained"], scores["variance explained by the best decoder"]
    mse, error, right, L0 = (paper[c] for c in ("MSE", "norm-matched error", "classifier", "L0"))
    fault = best - own
    shares = [fault[m] / (own[sae] - own[m]) for m in (PAPER_SGD, PAPER_DECAY) for sae in SAES]
    assert 0.38 <= min(shares) and max(shares) <= 0.62, shares  # "two to three fifths"
    assert all(
        fault[PAPER_ADAM] > (own[sae] - own[PAPER_ADAM]) / 2 for sae in SAES
    )  # "more than half"
    assert right[TUNED] > right[MODEL] and mse[TUNED] < mse[MODEL]  # "better at both"
    assert scores.classifier[COMPONENTS] == scores.classifier.min()  # "worst"
    assert scores["dead units"].loc[LAYERS].max() == 0
    assert 0.4 < paper["dead units"][SAE] / 64 < 0.5  # "nearly half"
    rows = predicted["variance explained by predicted rows"][MODEL]
    return [
        f"L0 {L0[MODEL]:.1f}, where its SAE has {L0[SAE]:.1f}",
        f"larger, {mse[MODEL]:.3f} for each pixel against {mse[SAE]:.3f}",
        f"by the paper's own measure, {error[MODEL]:.3f} against {error[SAE]:.3f}",
        f"better, {right[MODEL]:.1f}% against {right[SAE]:.1f}% (pixels: "
        f"{references.classifier['pixels']:.1f}%)",
        f"has an MSE of {mse[TUNED]:.3f} and a classifier of {right[TUNED]:.1f}%",
        f"$W^\\top$ explains {own[PAPER_ADAM]:.0f}% of the variance and SAEs explain "
        f"{span(own[SAES])}%; the best linear decoder finds {best[PAPER_ADAM]:.0f}%",
        f"SGD brings $W^\\top$ to {own[PAPER_SGD]:.0f}%, and weight decay to "
        f"{own[PAPER_DECAY]:.0f}%",
        f"explain {own[COMPONENTS]:.0f}% by their transpose and {best[COMPONENTS]:.0f}% with their "
        f"best decoder, where the layer's code has {span(best[LAYERS])}%",
        f"It explains {own['an SAE that counts']:.0f}% of the variance, where L1 explains "
        f"{own['L1 SAE']:.0f} and TopK {own['TopK SAE']:.0f}",
        f"log-sum-exp ends at {span(scores.strength[LAYERS], '.1f')} times",
        f"Applied to the layer's code, they explain {rows:.0f}%, where $W$ explains "
        f"{paper['variance explained'][MODEL]:.0f} and the best decoder "
        f"{paper['variance explained by the best decoder'][MODEL]:.0f}",
        *said_of_the_language_model(language),
    ]


def said_of_the_language_model(language):
    scores = means(language["results"])
    loss = language["network"]["loss of a token"]
    own, best = scores["variance explained"], scores["variance explained by the best decoder"]
    recovered = scores["loss recovered"].copy()
    recovered[PAPER_ADAM] = scores["loss recovered by the best decoder"][PAPER_ADAM]
    order = ["tied SAE", PAPER_ADAM, "L1 SAE", "TopK SAE"]
    assert [*recovered[order].sort_values().index] == order
    explained = own.copy()
    explained[PAPER_ADAM] = best[PAPER_ADAM]
    assert [*explained[order].sort_values().index] == order
    dead = scores["dead units"]
    assert dead[LAYERS].max() == 0 and dead["tied SAE"] >= 1
    return [
        f"ending at {span(scores.L0)}, and",
        f"Principal components explain {best[COMPONENTS]:.0f}%",
        f"{own[PAPER_ADAM]:.0f}% of the variance, and {best[PAPER_ADAM]:.0f}% with a fitted one. "
        f"The latter is close to an L1 SAE ({own['L1 SAE']:.0f}%; fitted, {best['L1 SAE']:.0f}), "
        f"less than TopK's {own['TopK SAE']:.0f}%, and more than the {own['tied SAE']:.0f}% of "
        "the tied SAE",
        f"Weight decay brings $W^\\top$ to {own[PAPER_DECAY]:.0f}%",
        f"On a small language model $W^\\top$ explains {span(own[LAYERS])}%",
        f"{loss['by nothing']:.2f} nats a token with nothing replaced, and "
        f"{loss['by their mean'] - loss['by nothing']:.2f} more",
        f"ends at {span(scores.strength[LAYERS], '.1f')} times the weight that the paper gives it",
    ]


def said_on_the_front_page(criteria, ablation, benchmark, language):
    paper = means(benchmark["paper"])
    model, sae, tuned = (paper.loc[name] for name in (MODEL, SAE, TUNED))
    pixels = benchmark["references"].classifier["pixels"]
    own, best = "variance explained", "variance explained by the best decoder"
    assert criteria[0]["claim"].startswith("gradient and responsibility")
    digits, power = f"{criteria[0]['measured'][0]:.1e}".split("e-")
    assert 2 < model.MSE / sae.MSE < 2.5 and 0.4 < tuned.MSE / model.MSE < 0.55
    assert model.L0 / sae.L0 < 0.55
    formula = 0.64 * ablation["balance"].formula.xs("nothing").iloc[0]
    L0 = ablation["ablation"].L0.sort_index()
    return [
        f"agrees to a relative ${digits}\\cdot10^{{-{int(power)}}}$",
        f"({model.classifier:.1f}% against {sae.classifier:.1f}; raw pixels {pixels:.1f})",
        f"with half the error and {tuned.classifier:.1f}%",
        f"{formula:.1f} of 64; we count {L0['C', 'on'].mean():.1f}",
        f"{L0['C', 'on'].mean():.1f} units are active on a digit, {L0['C', 'off'].mean():.1f} "
        f"without competition, and {L0['D', 'on'].mean():.1f} without the log-sum-exp",
        f"from {model[own]:.0f}% to {model[best]:.0f} (the tuned SAE: {tuned[own]:.0f})",
        f"layer's {language.loc[PAPER_ADAM, own]:.0f}% to {language.loc[PAPER_ADAM, best]:.0f}; "
        f"an L1 SAE explains {language.loc['L1 SAE', own]:.0f}, and TopK "
        f"{language.loc['TopK SAE', own]:.0f}",
    ]


def cell(name, row, column):
    """Return a cell of the first table of records/fashion/<name>.md that has the row and column."""
    header = []
    for line in read(f"records/fashion/{name}.md").splitlines():
        cells = [text.strip() for text in line.strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells
        elif cells[0] == row and column in header:
            return cells[header.index(column)]
    raise LookupError(f"{name}: no {column} of {row}")


def mean(text):
    return text.partition(" ±")[0]


def said_of_fashion_in_notebook_2():
    B, C = (mean(cell("2_ablation", letter, "L0")) for letter in "BC")
    row = "without decorrelation: redundancy"
    on, off = (
        float(mean(cell("2_ablation", row, column)).replace(",", "")) for column in ("on", "off")
    )
    return [
        f"{B} units are active in B, and {C} in C",
        f"redundancy is some {round(on, -1):,.0f} with it and {round(off, -1):,.0f} without",
    ]


def said_of_fashion_in_notebook_3():
    layer, tied = (float(mean(cell("3_benchmark", m, "classifier, %"))) for m in (MODEL, TUNED))
    assert abs(layer - tied) < 0.5
    return ["On Fashion-MNIST the two classify alike"]


SAID = {
    "notebooks/1_theorem.ipynb": lambda: said_in_notebook_1(tables("1_theorem")),
    "notebooks/2_ablation.ipynb": lambda: [
        *said_in_notebook_2(tables("2_ablation")),
        *said_of_fashion_in_notebook_2(),
    ],
    "notebooks/3_benchmark.ipynb": lambda: [
        *said_in_notebook_3(tables("3_benchmark"), tables("language")),
        *said_of_fashion_in_notebook_3(),
    ],
    "README.md": lambda: said_on_the_front_page(
        staged("1_theorem")["criteria"],
        tables("2_ablation"),
        tables("3_benchmark"),
        means(tables("language")["results"]),
    ),
}


@pytest.mark.parametrize("path", SAID)
def test_numbers_of_the_text_are_those_of_the_record(path):
    text = read(path)
    if path.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = " ".join(text.split())
    assert not [said for said in SAID[path]() if said not in text]


# --- What is there --------------------------------------------------------------------------------


def test_notebooks_hold_no_errors_and_figures_what_they_draw_and_nothing_else():
    sources = []
    for name in NOTEBOOKS:
        text = read(f"notebooks/{name}.ipynb")
        cells = json.loads(text)["cells"]
        sources += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
        assert not re.search(r"/(home|root|Users|tmp|work)/", text)
        assert not [
            cell for cell in cells if cell["metadata"].keys() - {"tags", "jupyter"}
        ]  # no times
    drawn = re.findall(r'(?s)run\.save_and_show\(.*?"(\w+)"\s*\)', "\n".join(sources))
    files = {f"{name}.png" for name in (*drawn, "3c_language_model")}
    files |= {f"{name}.json" for name in (*NOTEBOOKS, "language")}
    tracked = record.git("ls-files", "figures").split()
    assert {path.removeprefix("figures/") for path in tracked} in (files, set())


def test_links_of_the_front_page_lead_somewhere():
    links = re.findall(r'(?:src="|\]\()([\w/.]+)[")]', read("README.md"))
    assert len(links) > 10 and not [path for path in links if not (ROOT / path).exists()]


# --- The code of the front page -------------------------------------------------------------------

SNIPPET = re.search(r"```python\n(.*?)```", read("README.md"), re.DOTALL)[1]


def test_the_loss_of_the_front_page_is_that_of_helpers_but_for_a_constant():
    terms = re.search(r"(?s)C = .*\n    \)\n", SNIPPET)[0]
    losses = []
    for seed in (0, 1):
        E = torch.relu(torch.randn(128, 5, generator=torch.Generator().manual_seed(seed)))
        names = {
            "E": E.requires_grad_(),
            "torch": torch,
            "normalize": torch.nn.functional.normalize,
        }
        exec(re.sub(r"(?m)^    ", "", terms), names)
        of_helpers = h.decoder_free_loss(E)
        losses.append(float((names["loss"] - of_helpers).detach()))
        a, b = (torch.autograd.grad(loss, E)[0] for loss in (names["loss"], of_helpers))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert losses == pytest.approx([5, 5], abs=1e-3)  # the diagonal of C.T @ C


def test_the_code_of_the_front_page_runs_and_ends_sparse(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    torch.manual_seed(0)
    exec(SNIPPET.replace("range(1000)", "range(500)"), {})
    (active,) = re.findall(r"[\d.]+", capsys.readouterr().out)[:1]
    assert 15 < float(active) < 22
