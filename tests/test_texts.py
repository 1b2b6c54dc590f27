"""The numbers in the texts are those of the record."""

import json

import numpy as np
import pandas as pd
import pytest

from lab import ROOT
from lab.record import git

ADAM = "the paper's loss, with Adam"
B, C, D = "B: + variance", "C: + decorrelation", "D: C without log-sum-exp"


def table(path, name, by=None):
    """A table of the record, as committed, or the means over seeds of its groups."""
    text = git("show", f"HEAD:./figures/{path}.json")
    text = text or (ROOT / "figures" / f"{path}.json").read_text("utf-8")
    frame = pd.DataFrame(json.loads(text)["tables"][name])
    return frame.groupby(by).mean(numeric_only=True) if by else frame


def prose(path):
    """The Markdown cells of a notebook, or a page, on one line."""
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return " ".join(text.split())


def span(values, form=".0f"):
    return f"{min(values):{form}} to {max(values):{form}}"


def of_theorem():
    assert table("1_theorem", "in_text").value[0] < 1e-6
    return ["below $10^{-6}$"]


def of_optimizers():
    runs = table("2_ablation", "optimizers")
    rank = runs.loss.corr(-runs.classifier, method="spearman")
    losses = f"differ by up to {np.ptp(runs.loss):.0f}, almost"
    return losses, np.ptp(runs["the rest"]), rank


def of_ablation():
    model = table("2_ablation", "ablation", "model")
    agree = table("2_ablation", "agreement").groupby(["model", "change"]).agreement
    spread = table("2_ablation", "spread", "model")["spread of Z"]
    losses, rest, rank = of_optimizers()
    first, energy, late = table("2_ablation", "in_text").value
    convergence = table("2_ablation", "convergence")
    small, smaller = (convergence[convergence.units == units].iloc[0] for units in (32, 16))
    inactive = 64 - model.l0[C]
    two_sided = agree.get_group(("C, two-sided, 6 epochs", "without competition"))
    fashion = table("fashion/2_ablation", "agreement").groupby(["model", "change"]).agreement
    fashion = fashion.get_group(("C", "without competition"))
    of_B = agree.get_group(("B, 6 epochs", "without competition"))
    six, runs = table("2_ablation", "diversity", "model"), table("2_ablation", "optimizers")
    sgd = runs[runs.optimizer == "SGD"].set_index("rate").loss
    return [
        f"are then {span([*two_sided, *fashion], '.1f')}",
        f"mean correlations of {span(of_B, '.2f')}",
        f"mean correlations of {min(fashion):.2f} and {max(fashion):.2f}",
        f"classifier gains, too: {six.classifier['B']:.0f} against "
        f"{six.classifier['B, without competition']:.0f}%",
        f"{six.l0['C']:.0f} after six epochs",
        f"with variance alone, {six.l0['variance alone']:.0f} units",
        f"is {model.purity[C]:.2f} in C and {model.purity[D]:.2f} in D",
        f"on D has {model.classifier[D]:.1f}%, as on pixels, and on C {model.classifier[C]:.1f}%",
        f"lower by {sgd[0.0001] - sgd[0.1]:.0f} in our runs",
        f"activates {first:.0f} of the 64 units; after 100 epochs, {model.l0[C]:.0f} units",
        f"averages {model.l0[B]:.0f} active units",
        f"averages {model.l0[D]:.0f} active units",
        f"energy of {late:.0f} on average",
        f"energy of {energy:.1f}",
        f"32 for decorrelation, gave {model.l0['C, weights 64 and 32']:.0f}",
        f"mean correlation of {agree.get_group(('C', 'without competition')).mean():.2f}",
        f"reach at most {agree.get_group(('C', 'another seed')).max():.2f}",
        f"inactive units, {inactive:.0f} of the 64",
        rf"\log{inactive:.0f}={np.log(inactive):.2f}",
        f"varies by only some {spread[C]:.0%}",
        f"denominator varies by {spread['C, two-sided']:.0%}",
        f"mean correlations of {span(two_sided, '.2f')}",
        losses,
        f"differ by up to {rest:.0f}",
        f"rank correlation {rank:.2f}",
        f"epochs {span(convergence.epoch[convergence.units == 64])} with 64 units",
        f"epoch {small.epoch:.0f} with {small['living units']:.0f} living units",
        f"epoch {smaller.epoch:.0f} with {smaller['living units']:.0f} living units",
    ]


def of_benchmark():
    ten, long = (table("3_benchmark", name, "method") for name in ("benchmark", "longer"))
    ways, step = table("3_benchmark", "cosines", "method"), "step and decoder row"
    paper = table("3_benchmark", "paper", "method")
    error, purity = 1 - paper.explained, paper.purity
    own_purity = purity["the paper's model"]
    recovered = table("language", "results", "method").recovered
    noise, dead = table("3_benchmark", "in_text").value
    own, classifier = 100 * ten.explained, ten.classifier
    best, sgd = f"{ADAM}, best rate", "the paper's loss, with SGD"
    sgd_decay = "with SGD, + weight decay"
    sae = ["tied SAE", "L1 SAE", "TopK SAE"]
    others, l1 = table("3_benchmark", "sparsity", "method"), "the revised loss, with L1"
    paper_l1 = 100 * others.explained[f"{ADAM}, with L1"]
    language = 100 * table("language", "results", "method").explained
    fashion = table("fashion/3_benchmark", "cosines", "method")[step][ADAM]
    assert round(error["the paper's model"] / error["its SAE"]) == 2  # "twice"
    return [
        f"{own_purity:.2f} for the paper's model and {purity['its SAE']:.2f} for",
        f"{ten.purity[ADAM]:.2f} for the paper's loss with Adam and {ten.purity['L1 SAE']:.2f} for",
        f"purity of {ten.purity['TopK SAE']:.2f} and a better classifier",
        f"recovers {recovered[ADAM]:.0f}% (Adam) or {recovered[sgd]:.0f}% (SGD)",
        f"recovers {recovered['the revised loss']:.0f}%, and with an L1 SAE, "
        f"{recovered['L1 SAE']:.0f}%",
        f"{noise:.0f} of the 64 units are hardly ever active",
        f"{dead:.0f} of these units are dead",
        f"{classifier[best]:.1f}% accuracy with Adam and {classifier[sgd]:.1f}% with SGD",
        f"against {span(classifier[sae], '.1f')}% for SAEs",
        f"{own[best]:.0f}% of the variance with Adam and {own[sgd]:.0f}% with SGD",
        f"against {span(own[sae])}% for SAEs",
        f"explain {own['principal components']:.0f}%",
        f"cosine of {ways[step][ADAM]:.2f} with its unit's row ({fashion:.2f} on Fashion-MNIST)",
        f"{ways['step and other rows'][ADAM]:.2f} with other rows",
        f"explain {own['the revised loss']:.0f}% of the variance",
        f"lets a linear classifier reach {classifier['+ weight decay']:.1f}% with Adam",
        f"explain {100 * ways.explained[sgd_decay]:.0f}% of the variance with SGD",
        f"*revised loss*, the classifier reaches {classifier['the revised loss']:.1f}%",
        f"again explains {100 * others.explained[l1]:.0f}% of the variance",
        f"reaches {others.classifier[l1]:.1f}%",
        f"{paper_l1:.1f}% of the variance against {own[ADAM]:.1f}%, and an accuracy of "
        f"{others.classifier[f'{ADAM}, with L1']:.1f}% against {classifier[ADAM]:.1f}",
        f"explains {language[ADAM]:.0f}% of the variance with the paper's loss and Adam",
        f"{language[sgd]:.0f}% with SGD, and {language['the revised loss']:.0f}% with the revised",
        f"against {span(language[['L1 SAE', 'TopK SAE']])}% for L1 and TopK SAEs",
        f"accuracy is {long.classifier[f'{ADAM}, 0.008, 30 epochs']:.1f}% for the paper's loss",
    ]


def of_front_page():
    model, sae = table("3_benchmark", "paper", "method").classifier[
        ["the paper's model", "its SAE"]
    ]
    pixels = table("3_benchmark", "references").pixels[0]
    losses, *_ = of_optimizers()
    runs = table("2_ablation", "optimizers").groupby("optimizer").classifier
    sgd, adam = (span(runs.get_group(name), ".1f") for name in ("SGD", "Adam"))
    return [
        f"reaches {sgd}% with plain SGD, and {adam}% with Adam",
        f"reaches {model:.1f}%, against {sae:.1f}% on the paper's SAE and {pixels:.1f}% on",
        losses,
    ]


@pytest.mark.parametrize(
    "path, numbers",
    [
        ("notebooks/1_theorem.ipynb", of_theorem),
        ("notebooks/2_ablation.ipynb", of_ablation),
        ("notebooks/3_benchmark.ipynb", of_benchmark),
        ("README.md", of_front_page),
    ],
)
def test_numbers_of_the_text_are_those_of_the_record(path, numbers):
    text = prose(path)
    assert not [number for number in numbers() if number not in text]
