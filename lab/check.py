"""Which criteria hold, and whether two runs agree. It needs no packages, except for `interval`.

notebooks/claims.csv lists every criterion, and `judge` says which of them hold in a run.

`python -m lab.check` compares the run in figures/ with the record, which is figures/ as committed
at HEAD. Another machine amounts to other seeds. So two numbers agree if their means over seeds
differ by no more than the number's tolerance, or by no more than 5 standard errors of the
difference. Verdicts must be equal, unless the record is within 3 standard errors of the bound
(standard deviations, where each seed is judged). A method that was trained at another learning rate
than in the record is named, and its numbers are left out. README.md's table must be that of the run
or of the record. Exit status: 0 if all that was compared agrees, 1 if something does not, 2 if a
file cannot be compared.

`python -m lab.check readme` fills the table of README.md from figures/3_benchmark.json.
"""

import argparse
import csv
import json
import operator
import re
import subprocess
import sys
from math import hypot, inf, nan
from statistics import fmean, stdev

from lab import ROOT

CLAIMS = ROOT / "notebooks" / "claims.csv"
NOTEBOOKS = ("1_theorem", "2_ablation", "3_benchmark")
RECORDS = (*NOTEBOOKS, "language")
MAY_DIFFER = ("DEVICE", "OUTPUT")  # parameters without influence on a number
README_METHODS = (
    "the paper's loss",
    "the paper's loss, tuned",
    "the paper's loss + weight decay",
    "the revised loss",
    "tied SAE",
    "L1 SAE",
    "TopK SAE",
)
README_TABLE = re.compile(r"(?<=<!-- result -->).*?(?=<!-- /result -->)", re.DOTALL)


def git(*words):
    """What git prints in this repository; nothing if it fails, or if there is no git."""
    try:
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout


# --- Criteria -----------------------------------------------------------------------------


def interval(values):
    """(mean, low, high): Student's 95 % confidence interval; NaN where there are too few."""
    from scipy import stats  # here, so that the command line needs no packages

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


def judge(notebook, measured):
    """Judge the live criteria of a notebook (those of claims.csv without an end).

    measured: {id: a number, a list of one number per seed, or {place: either of these}}, where a
    place is an L0 or a method, say. Returns a list with a dict for each criterion: its row, and
    "measured" {place: values}, "judged" {place: what is compared with the bound} and "holds",
    whether it holds at all places. NaN never holds. Raises KeyError if a measured id is not a live
    criterion of the notebook, or if a live criterion was not measured.
    """
    with open(CLAIMS, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["notebook"] == notebook]
    live = {row["id"]: row for row in rows if not row["end"]}
    if unknown := [id for id in measured if id not in live]:
        raise KeyError(f"claims.csv has no live criterion of {notebook} named {unknown}")
    if missing := [id for id in live if id not in measured]:
        raise KeyError(f"these live criteria of {notebook} were not measured: {missing}")
    return [_judge_row(row, measured[id]) for id, row in live.items()]


def _judge_row(row, measured):
    measured = measured if isinstance(measured, dict) else {"": measured}
    measured = {str(place): _list_of_floats(values) for place, values in measured.items()}
    statistic = STATISTICS[row["statistic"]]
    judged = {place: statistic(values) if values else [nan] for place, values in measured.items()}
    row = row | {"bound": float(row["bound"]), "tolerance": float(row["tolerance"])}
    row |= {"measured": measured, "judged": judged}
    return row | {"holds": bool(judged) and all(_holds_at(row, place) for place in judged)}


def _list_of_floats(values):
    try:
        return [float(value) for value in values]
    except TypeError:  # a single number
        return [float(values)]


def _holds_at(row, place):
    compare, values = COMPARISONS[row["comparison"]], row["judged"][place]
    return all(v is not None and compare(v, row["bound"]) for v in values)  # None: NaN in a record


# --- Two runs -----------------------------------------------------------------------------


def check():
    """Compare figures/ and README.md with the record, print what differs -> exit status."""
    outcomes = {}
    for name in RECORDS:
        outcomes[name], report = compare_file(name)
        print(f"figures/{name}.json: {report[0]}", *report[1:], sep="\n  ")
    readme_agrees = check_readme()
    compared = [name for name, outcome in outcomes.items() if outcome in ("agrees", "differs")]
    details = "; ".join(f"{name} {outcome}" for name, outcome in outcomes.items())
    details = details if compared else "nothing was compared"
    print(f"{len(compared)} of {len(RECORDS)} files are runs of yours: {details}")
    if "differs" in outcomes.values() or not readme_agrees:
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
    record, run = json.loads(committed), json.loads((ROOT / path).read_text())
    if record == run:
        said = "the committed record itself, compared with itself: this shows nothing about a run"
        return "is the committed record itself", [f"{said} of yours"]
    settings = _pairs(record["parameters"], run["parameters"])
    if other := [name for name, a, b in settings if a != b and name not in MAY_DIFFER]:
        return "cannot be compared", [f"the record has other parameters: {', '.join(other)}"]

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
    counts = [f"{sum(ok for ok, _ in some)} of {len(some)}" for some in (verdicts, numbers)]
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
    """(whether two rows of `judge` agree, a line if they do not, or only because of 3 errors)."""
    rule = ("comparison", "bound", "statistic")
    if not (record and run) or any(record[k] != run[k] for k in rule):
        return False, f"NO: {id}: not the same criterion in both"
    if record["holds"] == run["holds"]:
        return True, ""
    crossed = [
        distance_from_bound(record, place)
        for place in record["judged"]
        if place in run["judged"] and _holds_at(record, place) != _holds_at(run, place)
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


# --- README.md ----------------------------------------------------------------------------


def readme_table(benchmark):
    """The table of README.md, from the content of figures/3_benchmark.json."""
    lines = [
        "| MNIST, 10 of 64 units active | parameters | variance explained "
        "| with a least-squares decoder |",
        "| --- | --- | --- | --- |",
    ]
    seeds = {
        (n["method"], n["quantity"]): n["seeds"]
        for n in benchmark["numbers"]
        if n["place"] == "L0 10"
    }
    for method in README_METHODS:
        explained, least_squares = seeds[method, "explained"], seeds[method, "least_squares"]
        cells = [method, f"{benchmark['parameters_of'][method]:,}"]
        cells.append(f"{fmean(explained):.3f} ± {stdev(explained):.3f}")
        cells.append(f"{fmean(least_squares):.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def check_readme():
    """Print and return whether README.md's table is that of the run in figures/ or the record."""
    path = "figures/3_benchmark.json"
    here = (ROOT / path).read_text() if (ROOT / path).exists() else ""
    texts = filter(None, (here, git("show", f"HEAD:./{path}")))
    shown = README_TABLE.search((ROOT / "README.md").read_text())
    agrees = any(shown and shown[0].strip() == readme_table(json.loads(text)) for text in texts)
    said = "what the record says" if agrees else "NOT what the record says: run `make readme`"
    print(f"README.md: its table is {said}")
    return agrees


def fill_readme():
    """Write the table of README.md from figures/3_benchmark.json."""
    benchmark = json.loads((ROOT / "figures" / "3_benchmark.json").read_text())
    page = ROOT / "README.md"
    table = f"\n\n{readme_table(benchmark)}\n\n"
    text, found = README_TABLE.subn(lambda _: table, page.read_text())
    if not found:
        sys.exit("README.md has no <!-- result --> and <!-- /result -->, between which to write")
    page.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m lab.check")
    parser.add_argument("command", nargs="?", choices=["check", "readme"], default="check")
    sys.exit(fill_readme() if parser.parse_args().command == "readme" else check())
