"""The tables of notebooks 2 and 3, as text, from what the notebooks have measured."""

import numpy as np
import pandas as pd

from lab import ablation, compare, growth
from lab.check import interval
from lab.plots_benchmark import LOOKS
from lab.record import span, spread, summary

# --- Notebook 2 -------------------------------------------------------------------------------


def ablation_table(table):
    """A to D: their terms, and what the paper measures, beside the paper's numbers.

    table: a row for each configuration ("run") and seed, of `lab.ablation.measures`.
    """
    ours = summary(table, "run", {"dead": 0, "redundancy": 1, "entropy": 2, "L0": 1})
    paper = ablation.PAPER.map("{:,.4g}".format).replace("nan", "–")
    shown = pd.DataFrame(index=list("ABCD"))
    shown["log-sum-exp"], shown["variance"], shown["decorrelation"] = "✓✓✓ ", " ✓✓✓", "  ✓✓"
    for term in shown:
        shown[term] = list(shown[term].iloc[0])
    for column in ours:
        shown[column] = ours[column]
        if column != "dead":
            shown[f"{column}, paper"] = paper[column]
    return shown.rename(columns={"dead": "dead units"}).rename_axis("")


def removal_table(removal, short, epochs, short_epochs):
    """C and B, with competition and without: means over seeds."""
    B = short[(short.decorrelation == 0) & (short.change == "") & (short.lam == 1)]
    B = B[B.competition.isin([0, 1])].drop(columns="agreement")
    B = B.assign(run=B.competition.map({1: "B", 0: "B without competition"}))
    both = pd.concat([removal.assign(epochs=epochs), B.assign(epochs=short_epochs)])
    digits = {"epochs": 0, "L0": 1, "redundancy": 1, "entropy": 3, "probe, %": 1, "agreement": 3}
    return summary(both, "run", digits).rename_axis("")


def agreement_table(short):
    """How far units of the full model agree with those of the same run after a change."""
    changes = {
        "initial weights changed by a millionth": (1, "start"),
        "no competition": (0, ""),
        "another order of the digits": (1, "order"),
        "no log-sum-exp at all": (0, "no log-sum-exp"),
        "another seed": (1, ""),
    }
    full = short[short.decorrelation == 1].set_index(["lam", "competition", "change"]).sort_index()
    shown = {
        f"agreement, λ = {lam:g}": {
            name: span(full.loc[(lam, *change), "agreement"], 3) for name, change in changes.items()
        }
        for lam in sorted(full.index.unique("lam"), reverse=True)
    }
    shown |= {
        f"L0, λ = {lam:g}": {
            name: spread(full.loc[(lam, *change), "L0"], 1) for name, change in changes.items()
        }
        for lam in sorted(full.index.unique("lam"), reverse=True)
    }
    return pd.DataFrame(shown).rename_axis("change")


def named_doses(short):
    """The runs of B at lambda 1, named in words, in the order of weights."""
    B = short[(short.decorrelation == 0) & (short.lam == 1)]
    B = B.sort_values(["change", "competition", "seed"])
    words = B.change.replace({"": "competition", "shuffled": "shuffled competition"})
    names = words + " × " + B.competition.map("{:g}".format)
    return B.assign(names=names.replace("competition × 0", "nothing"))


def dose_table(short):
    """Redundancy of B, with weights of competition and with its controls."""
    digits = {"redundancy": 0, "competition term": 4, "L0": 1}
    shown = summary(named_doses(short), "names", digits)
    return shown.rename_axis("in addition to the pooled log-sum-exp")


def optimiser_table(optimisers):
    """Losses and probes after training with several optimisers, beside the paper's."""
    digits = {"loss": 0, "loss without scale": 0, "dead": 1, "probe, %": 1}
    shown = summary(optimisers, "run", digits)
    shown.insert(1, "loss, paper", growth.PAPER.loss)
    return shown.assign(**{"probe, paper": growth.PAPER.probe}).rename_axis("")


# --- Notebook 3 -------------------------------------------------------------------------------


def paper_table(paper):
    """The paper's comparison: "model" and `lab.compare.paper_measures`, beside its numbers."""
    digits = {"parameters": 0, "l0": 1, "probe": 1, "norm_matched": 3, "mse": 3}
    names = {"l0": "L0", "probe": "probe, %", "norm_matched": "MSE, norm-matched", "mse": "MSE"}
    shown = summary(paper, "model", digits).rename(columns=names).rename_axis("")
    reported = {"L0": ("17.2", "32.2"), "probe, %": ("93.4", "90.3")}
    reported["MSE, norm-matched"] = ("0.143", "0.026")
    for column, values in reported.items():
        shown.insert(shown.columns.get_loc(column) + 1, f"{column}, paper", values)
    return shown


def reconstruction_table(table, l0, variance):
    """Variance explained at an L0. variance: of the test inputs, mean over entries."""
    rows = []
    for name in LOOKS:
        explained, best = (
            compare.at_l0(table, name, c, l0) for c in ("explained", "least_squares")
        )
        row = {f"at {l0} active units": name}
        row["parameters"] = f"{table.parameters[table.method == name].max():,}"
        row["MSE"] = f"{(1 - explained.mean()) * variance:.4f}"
        row["variance explained"] = spread(explained, 3)
        rows.append(row | {"with least squares": f"{best.mean():.3f}"})
    return pd.DataFrame(rows)


def ratio_table(ratios):
    """W^T over least squares: a row for each loss, a column for optimiser and pixels."""
    loss, optimiser, raw = (list(values) for values in zip(*ratios.method))
    pixels = [f"{name}, {'raw pixels' if r else 'centred'}" for name, r in zip(optimiser, raw)]
    shown = ratios.assign(loss=loss, pixels=pixels)
    return shown.pivot_table("ratio", "loss", "pixels", sort=False).map("{:.2f}".format)


def units_table(table, pairs, names, l0):
    """Probe, agreement and purity at an L0."""
    rows = []
    for name in names:
        agreement = compare.at_l0(pairs, name, "agreement", l0)
        row = {f"at {l0} active units": name}
        row["probe, %"] = spread(compare.at_l0(table, name, "probe", l0), 1)
        row["agreement of two seeds"] = f"{agreement.mean():.2f}"
        row["lowest and highest"] = span(agreement, 2)
        rows.append(row | {"purity": spread(compare.at_l0(table, name, "purity", l0), 3)})
    return pd.DataFrame(rows)


def purity_table(purity):
    """Differences of purity {(SAE, L0): by seed}, with their 95 % intervals."""
    shown = {}
    for (sae, l0), values in purity.items():
        mean, low, high = interval(values)
        words = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
        shown.setdefault(f"minus the {sae}", {})[f"{l0:g}"] = words
    return pd.DataFrame(shown).rename_axis("purity of the paper's loss, at L0")


def language_table(language):
    """Means over seeds at L0 10 of the record of `lab.language`, with minibatches and steps."""
    of = {(n["method"], n["quantity"]): np.mean(n["seeds"]) for n in language["numbers"]}
    return pd.DataFrame(
        {
            "at 10 active units": name,
            "variance explained": f"{of[name, 'explained']:.3f}",
            "with least squares": f"{of[name, 'least_squares']:.3f}",
            "loss recovered, %": f"{of[name, 'recovered']:.1f}",
            "agreement": f"{of[name, 'agreement']:.2f}",
            "rows in a minibatch": language["batch_sizes"][name],
            "steps": language["steps"][name],
        }
        for name in language["batch_sizes"]
    )
