"""Numbers in the prose of README.md and of the notebooks, against the record, which is figures/ as
committed: a run of yours changes no text. Commit a new record before the texts that tell of it."""

import json

import numpy as np
import pandas as pd
import pytest

from lab import ROOT, check, measures
from lab.record import git


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


RECORD = {
    name: json.loads(git("show", f"HEAD:./figures/{name}.json") or read(f"figures/{name}.json"))
    for name in check.RECORDS
}
CRITERIA = {row["id"]: row for record in RECORD.values() for row in record["criteria"]}
WORDS = "no one two three four five six seven eight nine ten".split()
PAPER, REVISED, DECAY = "the paper's loss", "the revised loss", "the paper's loss + weight decay"
TUNED, TWICE = "the paper's loss, tuned", "L1 SAE, twice its rate"
SAES = ["tied SAE", "L1 SAE", "TopK SAE"]

# Notebook 2: 100 epochs; and six, by weight of competition and of decorrelation, λ, and change
ABLATION = RECORD["2_ablation"]
LONG = pd.DataFrame(ABLATION["ablation"]).groupby("run").mean()
SHORT = pd.DataFrame(ABLATION["short"]).groupby(["weight", "decorrelation", "lam", "change"])
L0, REDUNDANCY, SAME = SHORT.l0.mean(), SHORT.redundancy.mean(), SHORT.agreement
REMOVAL, WITHOUT = np.mean(ABLATION["removal"]), ["C without competition", "C"]
VARIANTS = [np.mean(row["l0"]) for row in ABLATION["variants"]]
RISE = [100 * np.mean(v) - 100 for v in CRITERIA["without_raises_redundancy"]["measured"].values()]

# Notebook 3: at ten active units, on digits and on the language model
DIGITS, LANGUAGE = RECORD["3_benchmark"], RECORD["language"]
AT, THERE = (
    pd.DataFrame(of["at_l0"]).groupby("method").mean(numeric_only=True) for of in (DIGITS, LANGUAGE)
)
PERCENT = 100 * AT.explained
OF_L1 = [100 * at.explained[REVISED] / at.explained["L1 SAE"] for at in (THERE, AT)]
COSINE = {name: of["cosine of the gradient and $V_j$"] for name, of in DIGITS["means"].items()}
AGREE = pd.DataFrame(DIGITS["agreement_at_l0"]).groupby("method").agreement
LOWEST, MEAN, HIGHEST = AGREE.min(), AGREE.mean(), AGREE.max()
OF_LANGUAGE = [number for number in LANGUAGE["numbers"] if number["quantity"] == "agreement"]
MEAN_THERE = {number["method"]: np.mean(number["seeds"]) for number in OF_LANGUAGE}
# The paper's model after 100 epochs, and what its loss explains after six at the same L0
FULL = pd.DataFrame(DIGITS["paper"]).groupby("model")[["l0", "explained"]].mean()
FULL, TABLE = FULL.loc["the paper's model"], pd.DataFrame(DIGITS["table"])
SIX = measures.at_l0(TABLE[TABLE.method == PAPER], FULL.l0).explained.mean()

IN_README = {  # the words, and what stands in them
    "$W^\\top$ explains {:.0f}% of the variance ({:.0f}% with a tuned optimiser), an L1 SAE "
    "{:.0f}%": PERCENT[[PAPER, TUNED, "L1 SAE"]],
    "lowers their redundancy (squared correlations, summed over all pairs of units) from {:,.0f} "
    "to {:,.0f}, and at thirty times its weight competition "
    "lowers it to {:,.0f}": [round(REDUNDANCY[weight, 0, 1, ""], -2) for weight in (0, 1, 30)],
    "decorrelation lowers it to {:.0f}": [REDUNDANCY[1, 1, 1, ""]],
    "correlate at {:.3f} on average after 100 epochs. (After six epochs it is {:.3f}, where "
    "another order of the digits gives {:.2f}; in a sparser model {:.2f} to {:.2f}, where it "
    "gives {:.2f}.)": [
        REMOVAL,
        SAME.mean()[0, 1, 1, ""],
        SAME.mean()[1, 1, 1, "order"],
        SAME.min()[0, 1, 0.35, ""],
        SAME.max()[0, 1, 0.35, ""],
        SAME.mean()[1, 1, 0.35, "order"],
    ],
    "their cosine is {:.2f} for the paper's loss, and {:.2f} for the revised loss": [
        COSINE[PAPER],
        COSINE[REVISED],
    ],
    "$W^\\top$ explains {:.0f}% of the variance; with a log-determinant, which the two terms "
    "approximate where correlations are small, it explains {:.0f}%": PERCENT[[DECAY, REVISED]],
    "at 17 active units this takes $W^\\top$ from {:.0f}% to {:.0f}%": [
        100 * SIX,
        100 * FULL.explained,
    ],
    "correlate at {:.2f} on average (tied SAE {:.2f}, L1 SAE {:.2f}, or {:.2f} at twice its rate, "
    "TopK SAE {:.2f})": MEAN[[REVISED, "tied SAE", "L1 SAE", TWICE, "TopK SAE"]],
    "with 32, 128 and 1,024 inputs, {:.0f}, {:.0f} and {:.0f} of 64 units are active": VARIANTS[:3],
    "is {:.2f} for the paper's loss ({:.2f} tuned, {:.2f} for the revised loss), {:.2f} for an L1 "
    "SAE and {:.2f} for a TopK SAE": AT.purity[[PAPER, TUNED, REVISED, "L1 SAE", "TopK SAE"]],
    "$W^\\top$ explains {:.0f}% as much as an L1 SAE there, on digits {:.0f}%": OF_L1,
    "the worst pair of seeds of the revised loss, {:.2f}, is not above the best pair of an L1 SAE "
    "at twice its rate": [LOWEST[REVISED]],
    "Of the {} that we set before the final runs, {} fail": [
        len(CRITERIA),
        WORDS[sum(not row["holds"] for row in CRITERIA.values())],
    ],
}
IN_NOTEBOOK_2 = {
    "minibatches of 32, 128 and 1,024 inputs leave {:.0f}, {:.0f} and {:.0f} of 64 units "
    "active": VARIANTS[:3],
    "With the weights of the analogy {:.0f} are": VARIANTS[3:4],
    "On average {:.0f} of its 64 units are active, compared with {:.0f} in C": LONG.l0[["D", "C"]],
    "both have {:.0f} active units after 100 epochs, and {:.0f} and {:.0f} after six": [
        LONG.l0["C"],
        L0[1, 0, 1, ""],
        L0[1, 1, 1, ""],
    ],
    "3, 10 and 32 times its weight leave {:.0f}, {:.0f} and {:.0f} units active": VARIANTS[5:],
    "L0 is {:.1f} (with it {:.1f}), redundancy {:.1f} ({:.1f}), units of the same start agree "
    "by {:.3f} on average": [*LONG.l0[WITHOUT], *LONG.redundancy[WITHOUT], REMOVAL],
    "redundancy is still {:,.0f}, where decorrelation leaves {:.0f}": [
        REDUNDANCY[30, 0, 1, ""],
        REDUNDANCY[1, 1, 1, ""],
    ],
    "raises redundancy in B, by {:.0f} to {:.0f}%": [min(RISE), max(RISE)],
}
IN_NOTEBOOK_3 = {
    "$W^\\top$ explains {:.0f}% of the variance with the paper's optimiser and {:.0f}% with a "
    "tuned one. An L1 SAE explains {:.0f}%, a TopK SAE {:.0f}%": PERCENT[
        [PAPER, TUNED, "L1 SAE", "TopK SAE"]
    ],
    "Two changes to the loss with which they explain {:.0f}%": [PERCENT[REVISED]],
    "the gap of {:.0f} points between the L1 SAE and the paper's optimiser is due to the decoder: "
    "with least squares for both it is {:.0f}": [
        PERCENT["L1 SAE"] - PERCENT[PAPER],
        100 * (AT.least_squares["L1 SAE"] - AT.least_squares[PAPER]),
    ],
    "With least squares for both, {:.1f} remain": [
        100 * (AT.least_squares["tied SAE"] - AT.least_squares[REVISED])
    ],
    "points, {:.1f} remain with least squares for both": [
        100 * (THERE.least_squares["L1 SAE"] - THERE.least_squares[REVISED])
    ],
    "It is {:.2f} with the paper's optimiser, {:.2f} tuned, {:.2f} with weight decay and {:.2f} "
    "with the revised loss; SAEs have {:.2f} to {:.2f}, and k-means centroids, which are "
    "prototypes by construction, {:.2f}": [
        *AT.purity[[PAPER, TUNED, DECAY, REVISED]],
        *AT.purity[SAES].agg(["min", "max"]),
        AT.purity["k-means"],
    ],
    "Most of the rise from the paper's {:.2f} appears in the row with weight decay ({:.2f}; "
    "language model {:.2f} to {:.2f}), the rest with the log-determinant ({:.2f}; {:.2f})": [
        *(MEAN[PAPER], MEAN[DECAY]),
        *(MEAN_THERE[PAPER], MEAN_THERE[DECAY]),
        *(MEAN[REVISED], MEAN_THERE[REVISED]),
    ],
    "with L1 in its place the agreement is {:.2f}": [MEAN["the revised loss, L1"]],
    "the worst pair of seeds ({:.2f}) should agree more than the best pair of any SAE. At their "
    "tuned rates these have {:.2f} at most. But it fails by {:.3f} against": [
        LOWEST[REVISED],
        HIGHEST[SAES].max(),
        HIGHEST[TWICE] - LOWEST[REVISED],
    ],
    "$W^\\top$ explains {:.0f}% as much as the L1 SAE, on digits {:.0f}%": OF_L1,
}
PLACES = {
    "README.md": IN_README,
    "notebooks/2_ablation.ipynb": IN_NOTEBOOK_2,
    "notebooks/3_benchmark.ipynb": IN_NOTEBOOK_3,
}
NUMBERS = [(place, *entry) for place, entries in PLACES.items() for entry in entries.items()]


@pytest.mark.parametrize("place, template, values", NUMBERS, ids=range(len(NUMBERS)))
def test_a_number_in_prose_is_that_of_the_record(place, template, values):
    text = read(place)
    if place.endswith(".ipynb"):
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    assert template.format(*values) in text


def test_readme_names_the_criteria_that_fail():
    assert all(id in read("README.md") for id, row in CRITERIA.items() if not row["holds"])
