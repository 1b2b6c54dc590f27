"""Whether two runs agree: `python -m lab.check` compares the run in figures/ with the record.

The record is figures/ as committed at HEAD. Another machine amounts to other seeds, so two numbers,
means over seeds, agree if they differ by at most 3%; or, where there are three seeds or more, by at
most five standard errors of the difference. Counts may differ by one. A verdict counts as changed
if it flips and its number does not agree. Exit status: 0 if all that was compared agrees, 1 if
something does not, 2 if nothing could be compared.
"""

import json
import sys
from math import hypot

import pandas as pd

from lab import ROOT
from lab.record import git

RECORDS = ("1_theorem", "2_ablation", "3_benchmark", "language")
KEYS_END = "seed"  # the last of the columns of a table that say which row it is


def check():
    """Compare figures/ with the record, print what differs -> exit status."""
    compared, differing = 0, 0
    for name in RECORDS:
        lines, n = compare_file(name)
        print(f"figures/{name}.json: {lines[0]}", *lines[1:], sep="\n  ")
        compared, differing = compared + n, differing + (len(lines) - 1) * (n > 0)
    if not compared:
        print("Nothing was compared: run `make figures` first, with the record's parameters")
        return 2
    print(f"{compared} numbers and verdicts compared, {differing} of them differ")
    return int(differing > 0)


def compare_file(name):
    """(lines of a report, how many numbers and verdicts were compared) of figures/<name>.json."""
    path = f"figures/{name}.json"
    committed = git("show", f"HEAD:./{path}")
    if not committed or not (ROOT / path).exists():
        return ["missing here, or in the record"], 0
    try:
        record, run = json.loads(committed), json.loads((ROOT / path).read_text(encoding="utf-8"))
    except ValueError:
        return ["damaged: run `make figures` or `make language`"], 0
    if record == run:
        return ["the committed record itself, which shows nothing about a run of yours"], 0
    return compare(record, run)


def compare(record, run):
    """(lines: a head, and one for each difference; how many were compared), of two records."""
    a, b = record["parameters"], run["parameters"]
    if other := [key for key in {**a, **b} if a.get(key) != b.get(key) and key != "OUTPUT"]:
        return [f"of other parameters than the record: {', '.join(other)}"], 0
    numbers, others = all_numbers(record), all_numbers(run)
    lines = [f"compared with a run of commit {record['environment']['commit']}"]
    for key in {**numbers, **others}:
        if not agree(numbers.get(key), others.get(key)):
            there, here = (_mean(side.get(key)) for side in (numbers, others))
            lines.append(f"{', '.join(map(str, key))}: {there} in the record, {here} in your run")
    verdicts, here = ({row["claim"]: row for row in r["criteria"]} for r in (record, run))
    for claim in {**verdicts, **here}:
        row, other = (
            side.get(claim, {"holds": None, "measured": None}) for side in (verdicts, here)
        )
        if row["holds"] != other["holds"] and not agree(row["measured"], other["measured"]):
            lines.append(f"criterion: {claim}: another verdict")
    return lines, len({**numbers, **others}) + len({**verdicts, **here})


def all_numbers(record):
    """{(table, which row, column): a list of a value for each seed} of a record."""
    found = {}
    for name, rows in record["tables"].items():
        table = pd.DataFrame(rows)
        last = list(table.columns).index(KEYS_END)
        keys, measured = list(table.columns[:last]), table.columns[last + 1 :]
        groups = table.groupby(keys, sort=False, dropna=False) if keys else [((), table)]
        for key, group in groups:
            for column in measured:
                if len(values := group[column].dropna()):
                    found[(name, *key, column)] = list(values)
    return found


def agree(a, b):
    """Whether two lists of a value for each seed agree. Counts are whole numbers."""
    if a is None or b is None or len(a) != len(b):
        return False
    a, b = pd.Series(a), pd.Series(b)
    difference = abs(a.mean(skipna=False) - b.mean(skipna=False))
    error = hypot(a.sem(), b.sem()) if len(a) >= 3 else 0
    counts = (a % 1 == 0).all() and (b % 1 == 0).all()
    return difference <= max(0.03 * abs(a.mean()), 5 * error, float(counts))


def _mean(values):
    return "nothing" if values is None else f"{sum(values) / len(values):.4g}"


if __name__ == "__main__":
    sys.exit(check())
