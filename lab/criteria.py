"""The criteria of notebooks/claims.csv: what is measured for each, and whether it holds."""

import csv
import operator
from math import nan
from statistics import fmean

import numpy as np
import pandas as pd
from scipy import stats

from lab import ROOT

CLAIMS = ROOT / "notebooks" / "claims.csv"


def interval(values):
    """(mean, low, high): Student's 95 % confidence interval; NaN where there are too few."""
    n = len(values)
    mean = fmean(values) if n else nan
    half_width = stats.t.ppf(0.975, n - 1) * stats.sem(values) if n > 1 else nan
    return mean, mean - half_width, mean + half_width


STATISTICS = {  # from the values of all seeds, what is compared with the bound
    "each": lambda values: values,
    "mean": lambda values: [fmean(values)],
    "|mean|": lambda values: [abs(fmean(values))],
    "lower end": lambda values: [interval(values)[1]],
}
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


def read_claims():
    """The rows of claims.csv: a list of dicts. Those without an end are live."""
    with open(CLAIMS, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def judge(notebook, measured):
    """Judge the live criteria of a notebook.

    measured: {id: a number, a list of one number per seed, or {place: either of these}}, where a
    place is an L0 or a method, say. Returns a list with a dict for each criterion: its row, and
    "measured" {place: values}, "judged" {place: what is compared with the bound} and "holds",
    whether it holds at all places. NaN never holds. Raises KeyError if a measured id is not a live
    criterion of the notebook, or if a live criterion was not measured.
    """
    live = {r["id"]: r for r in read_claims() if r["notebook"] == notebook and not r["end"]}
    if unknown := [id for id in measured if id not in live]:
        raise KeyError(f"claims.csv has no live criterion of {notebook} named {unknown}")
    if missing := [id for id in live if id not in measured]:
        raise KeyError(f"these live criteria of {notebook} were not measured: {missing}")
    return [_judge_row(row, measured[id]) for id, row in live.items()]


def _judge_row(row, measured):
    measured = measured if isinstance(measured, dict) else {"": measured}
    measured = {str(place): np.atleast_1d(values) for place, values in measured.items()}
    measured = {place: values.astype(float).tolist() for place, values in measured.items()}
    statistic = STATISTICS[row["statistic"]]
    judged = {place: statistic(values) if values else [nan] for place, values in measured.items()}
    row = row | {"bound": float(row["bound"]), "tolerance": float(row["tolerance"])}
    row |= {"measured": measured, "judged": judged}
    return row | {"holds": bool(judged) and all(holds_at(row, place) for place in judged)}


def holds_at(row, place):
    """Whether a row of `judge` holds at a place."""
    compare, values = COMPARISONS[row["comparison"]], row["judged"][place]
    return all(v is not None and compare(v, row["bound"]) for v in values)  # None: NaN in a record


def failing(rows):
    """The rows of `judge` that do not hold, in words: a text."""
    lines = []
    for row in rows:
        for place in row["judged"]:
            if not holds_at(row, place):
                values = ", ".join(f"{value:.3g}" for value in row["judged"][place])
                name = f"{row['id']} ({place})" if place else row["id"]
                lines.append(f"{name}: {values} is not {row['comparison']} {row['bound']:g}")
    return "criteria that fail: " + ("; ".join(lines) or "none")


# --- What they measure, {id: values} of `judge` -------------------------------------------------


def ablation_values(ablation, paper, strong, removal, runs, slope):
    """Of notebook 2.

    ablation: a row of `measures.of_energies` for each run and seed after 100 epochs; paper: the
    paper's numbers; strong: L0 of D with ten times the decorrelation over that of D, by seed;
    removal: agreement of C and C without competition, by seed; runs: of
    `ablation.measure`; slope: of the epochs of convergence on K / tolerance.
    """
    by_name = {name: rows.set_index("seed") for name, rows in ablation.groupby("run")}
    having, without = by_name["C"], by_name["C without competition"]
    change = {
        name: list((without[name] / having[name] - 1).abs())
        for name in ("l0", "redundancy", "entropy")
    }
    plain = runs[runs.change == ""]
    C, B = (plain[plain.decorrelation == w] for w in (1, 0))
    doses = B[B.lam == 1].pivot(index="seed", columns="weight", values="redundancy")
    ten = C[(C.lam == 1) & (C.weight == 10)]
    controls = {
        name: list(runs[runs.change == name].set_index("seed").redundancy / doses[0.0] - 1)
        for name in ("shuffled", "variances only")
    }
    return {
        "entropies": {n: list(by_name[n].entropy - paper.entropy[n]) for n in "ABCD"},
        "redundancies": {
            n: list(np.log(by_name[n].redundancy / paper.redundancy[n])) for n in "BCD"
        },
        "not_sparser": list(by_name["B"].l0 / by_name["C"].l0 - 1),
        "strong_decorrelation": strong,
        "idle": change | {"agreement": [1 - value for value in removal]},
        "ten_times": list(ten.agreement),
        "without_raises_redundancy": {
            f"λ {lam:g}": list(v) for lam, v in redundancy_ratios(B).items()
        },
        "idle_at_any_sparsity": {
            f"λ {lam:g}": [v - 1 for v in values] for lam, values in redundancy_ratios(C).items()
        },
        "dose": {
            f"{b:g} after {a:g}": list(doses[b] / doses[a])
            for a, b in zip(doses.columns, doses.columns[1:])
        },
        "dose_controls": controls,
        "convergence": slope - 1,
    }


def redundancy_ratios(rows):
    """Redundancy without competition over that with it, of runs of `ablation.measure`, by seed, for
    each lambda with both: {lambda: Series}."""
    table = rows.pivot_table("redundancy", ["lam", "seed"], "weight")[[0.0, 1.0]].dropna()
    ratio = table[0.0] / table[1.0]
    return {lam: values.droplevel("lam") for lam, values in ratio.groupby(level="lam")}


def benchmark_values(at, agree, saes, paper, purity, competition, baseline, fixed):
    """Of notebook 3.

    at, agree: of `measures.at_l0`, {L0: of models}, and of pairs of seeds at the first of these L0;
    saes: the methods that the revised loss's agreement is compared with; paper: a row of
    `measures.paper_benchmark` for each "model" and seed; purity: differences {place: by seed};
    competition: of `ablation.measure`, with "explained", at weights 0, 1 and 10; baseline: error of
    the L1 SAE over a known one, {place: by seed}; fixed: of `evaluate`, "ratio" with fixed biases
    minus that of the revised loss, by seed.
    """
    l0, first = next(iter(at.items()))
    explained = first.explained

    def change(name, other):
        if not {name, other} <= {*explained.index.get_level_values(0)}:
            return [nan]
        return list((explained[name] / explained[other] - 1).dropna())

    def minus(column, reported):
        return {n: list(paper[column][paper.model == n] - value) for n, value in reported.items()}

    runs = competition.set_index(["weight", "change", "seed"]).sort_index()

    def competition_change(weight):
        return list(runs.explained[weight, ""] / runs.explained[1.0, ""] - 1)

    of_saes = agree.agreement[agree.index.isin(saes, level=0)].max()
    lowest = agree.agreement.get("the revised loss", pd.Series(dtype=float)).min()
    return {
        "their_probe": minus("probe", {"the paper's model": 93.43, "the paper's SAE": 90.26}),
        "their_error": minus("norm_matched", {"the paper's model": 0.143}),
        "their_sae_error": minus("norm_matched", {"the paper's SAE": 0.026}),
        "baseline": baseline,
        "transpose": {
            f"L0 {n:g}": list(frame.ratio["the revised loss"]) for n, frame in at.items()
        },
        "tuned": list(
            (explained["the revised loss"] - explained["the paper's loss, tuned"]).dropna()
        ),
        "fixed_bias": fixed,
        "resolution": list(runs.agreement[1.0, "start"]),
        "units_revised": list(runs.agreement[0.0, ""]),
        "explained_revised": {f"competition × {w:g}": competition_change(w) for w in (0.0, 10.0)},
        "penalty_revised": {
            name: change(f"the revised loss, {name}", "the revised loss")
            for name in ("L1", "saturating")
        },
        "penalty_sae": change("SAE, log-sum-exp", "L1 SAE"),
        "denominator_sae": change("SAE, saturating", "SAE, log-sum-exp"),
        "purity_paper": purity,
        "agreement": lowest - of_saes,
    }


def language_values(at):
    """Of the language model; at: of `measures.at_l0`."""
    having, without = (at.explained.get(name, np.array([])) for name in LANGUAGE_COMPETITION)
    return {"language_competition": list((without / having - 1).dropna()) if len(having) else nan}


LANGUAGE_COMPETITION = ("the revised loss", "the revised loss, no competition")
