"""Whether two runs agree: `python -m lab.check` compares the run in figures/ with the record.

The record is figures/ as committed at HEAD. Another machine amounts to other seeds. So two numbers
agree if their means over seeds differ by no more than the number's tolerance, or by no more than 5
standard errors of the difference. Verdicts must be equal, unless the record is within 3 standard
errors of the bound (standard deviations, where each seed is judged). A method that was trained at
another learning rate than in the record is named, and its numbers are left out. Exit status: 0 if
all that was compared agrees, 1 if something does not, 2 if a file cannot be compared.
"""

import json
import sys
from math import hypot, inf
from statistics import fmean, stdev

from lab import ROOT
from lab.criteria import holds_at
from lab.record import git

RECORDS = ("1_theorem", "2_ablation", "3_benchmark", "language")
MAY_DIFFER = ("DEVICE", "OUTPUT")  # parameters without influence on a number


def check():
    """Compare figures/ with the record, print what differs -> exit status."""
    outcomes = {}
    for name in RECORDS:
        outcomes[name], report = compare_file(name)
        print(f"figures/{name}.json: {report[0]}", *report[1:], sep="\n  ")
    compared = [name for name, outcome in outcomes.items() if outcome in ("agrees", "differs")]
    details = "; ".join(f"{name} {outcome}" for name, outcome in outcomes.items())
    details = details if compared else "nothing was compared"
    print(f"{len(compared)} of {len(RECORDS)} files are runs of yours: {details}")
    if "differs" in outcomes.values():
        return 1
    return 2 if "cannot be compared" in outcomes.values() else 0


def compare_file(name):
    """(outcome, lines of a report) of figures/<name>.json and its version committed at HEAD."""
    path = f"figures/{name}.json"
    committed = git("show", f"HEAD:./{path}")
    if not committed:
        return "cannot be compared", ["no version of it is committed at HEAD"]
    if not (ROOT / path).exists():
        return "cannot be compared", ["it is missing: run `make figures` or `make language`"]
    try:
        record, run = json.loads(committed), json.loads((ROOT / path).read_text(encoding="utf-8"))
    except ValueError:
        return "cannot be compared", ["it is damaged: run `make figures` or `make language`"]
    if record == run:
        said = "the committed record itself, compared with itself: this shows nothing about a run"
        return "is the committed record itself", [f"{said} of yours"]
    settings = _pairs(record["parameters"], run["parameters"])
    if other := [key for key, a, b in settings if a != b and key not in MAY_DIFFER]:
        values = ", ".join(f"{key} = {run['parameters'].get(key)}" for key in other)
        return "cannot be compared", [f"your run has other parameters than the record: {values}"]

    rates = _pairs(record["rates"], run["rates"])
    retuned = [method for method, a, b in rates if a != b]
    criteria = [{row["id"]: row for row in side["criteria"]} for side in (record, run)]
    verdicts = [compare_verdicts(*pair) for pair in _pairs(*criteria)]
    numbers, left_out = [], []
    for key, a, b in _pairs(all_numbers(record), all_numbers(run)):
        if set(retuned) & set((a or b)["methods"]):
            left_out.append(f"left out: {', '.join(filter(None, key))}")
        else:
            numbers.append(compare_numbers(", ".join(filter(None, key)), a, b))
    counts = [f"{sum(ok for ok, _ in pairs)} of {len(pairs)}" for pairs in (verdicts, numbers)]
    commit = record["environment"]["commit"]
    report = [f"your run, compared with the committed record (a run of commit {commit})"]
    report.append(f"{counts[0]} verdicts and {counts[1]} numbers agree")
    report += [line for _, line in verdicts + numbers if line]
    if retuned:
        report += [f"trained at another learning rate: {', '.join(retuned)}", *left_out]
    agrees = all(ok for ok, _ in verdicts + numbers)
    return ("agrees" if agrees else "differs"), report


def _pairs(a, b):
    """[(key, a's value, b's value)] of two dicts, with None for what is in one of them only."""
    return [(key, a.get(key), b.get(key)) for key in {**a, **b}]


def all_numbers(run):
    """{(method or criterion, quantity, place): {"seeds", "tolerance", "methods"}} of a run."""
    found = {}
    for number in run["numbers"]:
        key = (number["method"], number["quantity"], str(number["place"]))
        found[key] = {**number, "methods": [number["method"]]}
    for row in run["criteria"]:
        for place, seeds in row["measured"].items():
            more = {"seeds": seeds, "methods": row["methods"].split(";")}
            found[row["id"], row["quantity"], place] = row | more
    return found


def compare_numbers(name, record, run):
    """(whether two entries of `all_numbers` agree, a line if they do not)."""
    seeds = [[v for v in side["seeds"] if v is not None] if side else [] for side in (record, run)]
    a, b = seeds
    if len(a) != len(b):
        return False, f"NO: {name}: {len(a)} seeds in the record, {len(b)} in your run"
    if not a:
        return True, ""
    difference = abs(fmean(a) - fmean(b))
    error = hypot(*(stdev(v) / len(v) ** 0.5 for v in seeds)) if len(a) > 1 else 0
    rounding = 1e-9 * abs(fmean(a))
    if difference <= max(record["tolerance"], 5 * error, rounding):
        return True, ""
    said = f"NO: {name}: {fmean(a):.4g} in the record, {fmean(b):.4g} in your run"
    return False, f"{said} (tolerance {record['tolerance']:g}, standard error {error:.2g})"


def compare_verdicts(id, record, run):
    """(whether two rows of `criteria.judge` agree, a line if they do not, or only because of 3
    errors)."""
    rule = ("comparison", "bound", "statistic")
    if not (record and run) or any(record[k] != run[k] for k in rule):
        return False, f"NO: {id}: not the same criterion in both"
    if record["holds"] == run["holds"]:
        return True, ""
    crossed = [
        distance_from_bound(record, place)
        for place in record["judged"]
        if place in run["judged"] and holds_at(record, place) != holds_at(run, place)
    ]
    close = max(crossed, default=inf) <= 3
    words = {True: "holds", False: "fails"}
    said = f"{id}: {words[record['holds']]} in the record, {words[run['holds']]} in your run"
    return close, f"close to its bound: {said}" if close else f"NO: {said}"


def distance_from_bound(row, place):
    """In standard errors of the mean, or in standard deviations where each seed is judged."""
    seeds, judged = row["measured"][place], row["judged"][place]
    if None in seeds + judged or len(seeds) < 2:
        return inf
    unit = stdev(seeds) / (1 if row["statistic"] == "each" else len(seeds) ** 0.5)
    distance = min(abs(value - row["bound"]) for value in judged)
    return distance / unit if unit else inf


if __name__ == "__main__":
    sys.exit(check())
