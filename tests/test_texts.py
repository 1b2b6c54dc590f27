"""The numbers in the texts are those of the record."""

import json

import numpy as np
import pandas as pd
import pytest

from lab import ROOT
from lab.methods import ADAM, DECAY, REVISED, SGD
from lab.record import git

A, B, C, D = "A: log-sum-exp", "B: + variance", "C: + decorrelation", "D: without log-sum-exp"
WITHOUT, MODEL, SAE, SAES = (
    "C, without competition",
    "the paper's model",
    "its SAE",
    ["tied SAE", "L1 SAE", "TopK SAE"],
)


def content(path):
    """The record, as committed."""
    text = git("show", f"HEAD:./figures/{path}.json")
    return json.loads(text or (ROOT / "figures" / f"{path}.json").read_text("utf-8"))


def table(path, name, by=None):
    """A table of the record, or the means over seeds of its groups."""
    frame = pd.DataFrame(content(path)["tables"][name])
    return frame.groupby(by).mean(numeric_only=True) if by else frame


def prose(path):
    """The Markdown cells of a notebook, or a page, on one line."""
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return " ".join(text.split())


def span(values, form=".0f", to=" to "):
    return to.join(dict.fromkeys(f"{end:{form}}" for end in (min(values), max(values))))


def of_theorem():
    plane = table("1_theorem", "plane", "model")["starts that find all clusters"]
    starts = table("1_theorem", "starts").groupby("model").starts
    said = table("1_theorem", "in_text").set_index("what").value
    assert said["responsibility for the most active digits"] < 1e-6
    assert said.filter(like="gradient descent").max() < 1e-10 and len(starts) == 2
    assert (starts.get_group("with competition") == 200).all()  # "every start"
    return [
        f"{plane[C]:.0f} of 200 random starts, against {plane[B]:.0f} in B",
        f"{plane[WITHOUT]:.0f} of 200 starts find all clusters, against {plane[C]:.0f}",
        f"without it, {span(starts.get_group('without competition'))} of 200 do",
        f"without it, in {plane['B, competition × 10']:.0f} starts",
        "agree to ten decimals",
        "below $10^{-6}$",
    ]


def of_optimizers():
    runs = table("2_ablation", "optimizers")
    rank = runs.loss.corr(-runs.classifier, method="spearman")
    accuracies = {name: of.classifier for name, of in runs.groupby("optimizer")}
    return runs, rank, {name: span(values, ".1f") for name, values in accuracies.items()}


def of_ablation():
    model = table("2_ablation", "ablation", "model")
    agree = table("2_ablation", "agreement").groupby(["model", "change"]).agreement
    spread = table("2_ablation", "spread", "model")["spread of Z"]
    weights, six = (
        table("2_ablation", "weights", "model"),
        table("2_ablation", "diversity", "model"),
    )
    runs, rank, accuracies = of_optimizers()
    first, energy, late = table("2_ablation", "in_text").value
    convergence = table("2_ablation", "convergence")
    small, smaller = (convergence[convergence.units == units].iloc[0] for units in (32, 16))
    epochs = span(convergence.epoch[convergence.units == 64])
    inactive = 64 - model.l0[C]
    change = ("C", "without competition"), ("C", "another order")
    without, order = (agree.get_group(which) for which in change)
    two_sided = agree.get_group(("C, two-sided, 6 epochs", "without competition"))
    of_B = agree.get_group(("B, 6 epochs", "without competition"))
    order_of_B = agree.get_group(("B, 6 epochs", "another order"))
    fashion = table("fashion/2_ablation", "agreement").groupby(["model", "change"]).agreement
    fashion_without = fashion.get_group(("C", "without competition"))
    fashion_order = fashion.get_group(("C", "another order"))
    (fashion_two_sided,) = (of for which, of in fashion if which[0].startswith("C, two-sided"))
    sgd = runs[runs.optimizer == "SGD"].set_index("rate").loss
    saved = table("fashion/2_ablation", "optimizers")
    saved_rank = saved.loss.corr(-saved.classifier, method="spearman")
    in_fashion = table("fashion/2_ablation", "ablation", "model").l0
    return [
        f"activates {first:.0f} of the 64 units, and after 100 epochs {model.l0[C]:.0f}",
        f"activates {model.l0[D]:.0f} of the 64 units",
        f"B has {model.l0[B]:.0f} active units, as few as C",
        f"D has {model.l0[D]:.0f}",
        f"energy of {energy:.1f} after one epoch, but of {late:.0f} after",
        f"{weights.l0['weights 64 and 32']:.0f} of the 64 units are active, nearly",
        f"{weights.l0['weights N_j/2 and 1']:.0f} units are active, as with",
        f"{weights.l0['minibatches of 256']:.0f} units are active in place of {six.l0['C']:.0f}",
        f"some {inactive:.0f} of them",
        f"{model.entropy[C]:.2f}, is the logarithm of {inactive:.0f}",
        f"is {spread[C]:.0%} of its mean",
        f"it is {spread[B]:.0%}",
        f"mean correlation of {without.mean():.2f}",
        f"the correlation is only {order.mean():.1f}",
        f"correlations of {span(fashion_without, '.2f')} against {fashion_order.mean():.1f}. It",
        f"{six.classifier['B']:.0f} against {six.classifier['B, without competition']:.0f}%. Here",
        f"an agreement of {of_B.mean():.2f} against {order_of_B.mean():.2f}",
        f"mean correlations of {span(two_sided, '.2f')}, and on",
        f"denominator varies by {spread['C, two-sided']:.0%}",
        f"64 units in epochs {epochs}",
        f"{small['living units']:.0f} living units in epoch {small.epoch:.0f}",
        f"{smaller['living units']:.0f} in epoch {smaller.epoch:.0f}",
        f"differ by up to {np.ptp(runs.loss):.0f}, almost",
        f"(rank correlation {rank:.1f})",
        f"(−{-saved_rank:.1f})",
        f"ours {accuracies['SGD']}%",
        f"ours reach {accuracies['Adam']}%",
        f"is {span(saved.classifier[saved.optimizer == 'SGD'], '.1f')}%",
        f"lower by {sgd[0.0001] - sgd[0.1]:.0f} in our runs",
        f"B has {in_fashion[B]:.0f} active units and C has {in_fashion[C]:.0f}, but",
        f"{six.l0['C']:.0f} after six",
        "entropy of {:.2f}, {:.2f}, {:.2f} and {:.2f}".format(*model.entropy[[A, B, C, D]]),
        f"on Fashion-MNIST of {span(fashion_two_sided, '.2f')}",
    ]


def of_benchmark():
    rows, paper = (table("3_benchmark", name, "method") for name in ("benchmark", "paper"))
    ways, others = (table("3_benchmark", name, "method") for name in ("cosines", "sparsity"))
    own, best = 100 * rows.explained, 100 * rows.explained_best
    classifier, purity, of_paper = rows.classifier, rows.purity, 100 * paper.explained
    language = 100 * table("language", "results", "method").explained
    step, with_l1 = "step and decoder row", f"{ADAM}, with L1"
    fashion = table("fashion/3_benchmark", "cosines", "method")[step][ADAM]
    on_fashion = 100 * table("fashion/3_benchmark", "benchmark", "method").explained
    saved = table("fashion/3_benchmark", "paper", "method").classifier
    saved_pixels = table("fashion/3_benchmark", "references").pixels[0]
    dead = table("3_benchmark", "in_text").value[0]
    paper_loss = purity[[ADAM, SGD]]
    gap = paper.classifier["tuned tied SAE"] - paper.classifier[MODEL]
    assert paper_loss.min() > purity[SAES].max()
    assert abs(ways["step and other rows"][ADAM]) < 0.05
    return [
        f"at {paper.classifier['tuned tied SAE']:.1f}%, and reconstructs",
        f"explains {of_paper[MODEL]:.0f}% of the variance, and the",
        f"the paper's SAE {of_paper[SAE]:.0f}%",
        f"({dead:.0f} of 64)",
        f"{own[ADAM]:.0f}% of the variance with Adam and {own[SGD]:.0f}% with SGD",
        f"where SAEs explain {span(own[SAES])}%",
        f"finds {best[ADAM]:.0f} and {best[SGD]:.0f}% in the same codes",
        f"at {classifier[ADAM]:.1f}% with Adam and {classifier[SGD]:.1f}% with SGD",
        f"against {classifier['TopK SAE']:.1f}% for a TopK SAE",
        f"{span(classifier[['tied SAE', 'L1 SAE']], '.1f', ' and ')}% for",
        f"is {span(paper_loss, '.2f')}, and that of SAEs {span(purity[SAES], '.2f')}",
        f"median cosine with this row is {ways[step][ADAM]:.2f}, and with other rows about zero",
        f"median cosine is only {fashion:.2f}",
        f"from {own[ADAM]:.0f} to {own[DECAY]:.0f}%, and the",
        f"and the classifier to {classifier[DECAY]:.1f}%. SGD",
        f"{language[ADAM]:.0f}% of the variance with Adam, {language[SGD]:.0f}% with SGD, and "
        f"{language[REVISED]:.0f}% with the revised loss, against {span(language[SAES])}% for SAEs",
        f"takes $W^\\top$ to {own[REVISED]:.0f}%",
        f"the classifier to {classifier[REVISED]:.1f}%",
        f"{others.classifier[with_l1]:.1f} against {classifier[ADAM]:.1f}%, but $W^\\top$ explains "
        f"{100 * others.explained[with_l1]:.0f} against {own[ADAM]:.0f}% of the variance",
        f"classify better by up to {gap:.1f} points",
        f"comes within {gap:.1f} points of tuned",
        f"weights and step is {ways['weights and step'][f'{SGD}, + weight decay']:.2f}",
        f"made as sparse, {own['principal components']:.0f}%",
        f"at {saved[MODEL]:.1f} against {saved[SAE]:.1f}%, where pixels reach {saved_pixels:.1f}%",
        f"{on_fashion[ADAM]:.0f}% of the variance with Adam, {on_fashion[SGD]:.0f}% with SGD and "
        f"{on_fashion[REVISED]:.0f}% with the revised loss, where principal components explain "
        f"{on_fashion['principal components']:.0f}% and SAEs {span(on_fashion[SAES])}%",
    ]


def of_front_page():
    model, tied = table("3_benchmark", "paper", "method"), "tuned tied SAE"
    runs, _, accuracies = of_optimizers()
    weights = table("2_ablation", "weights", "model").l0
    convergence = table("2_ablation", "convergence")
    epochs = span(convergence.epoch[convergence.units == 64])
    inactive = 64 - table("2_ablation", "ablation", "model").l0[C]
    agreement = table("2_ablation", "agreement", ["model", "change"]).agreement["C"]
    spread = table("2_ablation", "spread", "model")["spread of Z"]
    explained = 100 * model.explained
    rows, others = (table("3_benchmark", name, "method") for name in ("benchmark", "sparsity"))
    pixels, with_l1 = table("3_benchmark", "references").pixels[0], f"{ADAM}, with L1"
    score = rows.classifier
    gaps = [score[sae] - score[way] for sae in SAES[:2] for way in (ADAM, SGD)]
    return [
        f"reach {accuracies['SGD']}% with plain SGD, and {accuracies['Adam']}% with Adam",
        f"reaches {model.classifier[MODEL]:.1f}%, near the paper's 93.4, against "
        f"{model.classifier[SAE]:.1f}% on the",
        f"{pixels:.1f}% on raw pixels, and {model.classifier[tied]:.1f}% on a tuned tied SAE",
        f"{explained[MODEL]:.0f}% of the variance against {explained[SAE]:.0f}%",
        f"{others.classifier[with_l1]:.1f} in place of {rows.classifier[ADAM]:.1f}%",
        f"{100 * others.explained[with_l1]:.0f} in place of {100 * rows.explained[ADAM]:.0f}%",
        f"classifies at {model.classifier[tied]:.1f}%",
        f"{min(gaps):.1f} to {max(gaps):.1f} points behind tuned L1 and tied SAEs",
        f"Some {inactive:.0f} inactive units",
        f"varies by only {spread['C: + decorrelation']:.0%}",
        f"units correlate at {agreement['without competition']:.2f} with the originals",
        f"in another order, at {agreement['another order']:.2f}",
        f"in epochs {epochs} for",
        f"{weights['weights 64 and 32']:.0f} of 64 units are active",
        f"and {weights['weights N_j/2 and 1']:.0f} are active",
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
