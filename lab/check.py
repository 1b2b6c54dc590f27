"""Whether two runs agree: `python -m lab.check` compares the run in figures/ with the record.

The record is figures/ as committed at HEAD. Numbers are compared by equal seeds: the mean of their
differences is to be within 3% of the record's mean or, with three seeds or more, within ten of its
standard errors. (Three differences estimate it badly: in one number of 25 chance alone exceeds
five, in one of 100 ten.) Of accuracies and others with a maximum, a tenth of what is missing to it
takes the place of 3%. Counts may differ by one, the number of parameters not at all. A criterion
that flips differs unless its numbers agree. Exit status: 0 if all that was compared agrees, 1 if
something does not, 2 if nothing could be compared.
"""

import json
import sys

import numpy as np

from lab import NOTEBOOKS, ROOT
from lab.record import KEYS, git

RECORDS = (*NOTEBOOKS, "language")
MAXIMA = {"classifier": 100, "recovered": 100, "agreement": 1}


def check():
    """Compare figures/ with the record, print what differs -> exit status."""
    if not git("ls-tree", "HEAD", "figures/"):
        print("This needs git and the repository's history, which holds the record: use a clone")
        return 2
    compared, differing = 0, 0
    for name in RECORDS:
        (head, *lines), n = compare_file(name)
        print(f"figures/{name}.json: {head}", *lines, sep="\n  ")
        compared += n
        differing += sum(not line.startswith("note: ") for line in lines)
    if not compared:
        print("Nothing was compared: run `make figures` first, with the record's parameters")
        return 2
    print(f"{compared} numbers and verdicts compared, {differing} of them differ")
    return int(differing > 0)


def compare_file(name):
    """What `compare` returns, of figures/<name>.json."""
    path = f"figures/{name}.json"
    committed = git("show", f"HEAD:./{path}")
    if not committed or not (ROOT / path).exists():
        return ["missing here, or in the record"], 0
    try:
        record, run = json.loads(committed), json.loads((ROOT / path).read_text(encoding="utf-8"))
    except ValueError:
        return ["damaged", "run `make figures` or `make language`"], 0
    if record == run:
        return ["the committed record itself, which shows nothing about a run of yours"], 0
    return compare(record, run)


def compare(record, run):
    """(lines: a head, and one for each difference or note; how many were compared), of two
    records."""
    a, b = record["parameters"], run["parameters"]
    if other := [key for key in {**a, **b} if a.get(key) != b.get(key)]:
        return [f"of other parameters than the record: {', '.join(other)}"], 0
    lines = [f"compared with a run of commit {record['environment']['commit']}"]
    a, b = all_numbers(record), all_numbers(run)
    for key in {**a, **b}:
        there, here = a.get(key, {}), b.get(key, {})
        if not agree(there, here, MAXIMA.get(key[-1]), exactly=key[-1] == "parameters"):
            name = ", ".join(map(str, key))
            lines.append(f"{name}: {_mean(there)} in the record, {_mean(here)} in your run")
            lines[-1] += ", of other seeds" * (there.keys() != here.keys())
    verdicts, others = ({row["claim"]: row for row in r["criteria"]} for r in (record, run))
    for claim in {**verdicts, **others}:
        lines += _flip(claim, verdicts.get(claim), others.get(claim))
    return lines, len({**a, **b}) + len({**verdicts, **others})


def _flip(claim, *rows):
    """A line if a criterion holds in one record only, or is in one only: a note, if its numbers
    agree."""
    there, here = (row and row["holds"] for row in rows)
    if there == here:
        return []
    by_a_hair = all(rows) and agree(*(dict(enumerate(row["measured"])) for row in rows))
    words = {True: "holds", False: "fails", None: "is missing"}
    line = f"criterion {claim} {words[there]} in the record"
    line = f"note: {line} by a hair" if by_a_hair else line
    return [f"{line} and {words[here]} in your run"]


def all_numbers(record):
    """{(table, which row, column): {seed: number}} of a record, without NaN."""
    found = {}
    for table, rows in record["tables"].items():
        for row in rows:
            names = sorted(name for name in row if name in KEYS or isinstance(row[name], str))
            which = [row[name] for name in names if name != "seed"]
            for column, value in row.items():
                if column not in names and value is not None:
                    found.setdefault((table, *which, column), {})[row["seed"]] = value
    return found


def agree(record, run, maximum=None, exactly=False):
    """Whether {seed: number} of a record and of a run agree. Whole numbers are counts; others may
    have a maximum."""
    if record.keys() != run.keys() or exactly:
        return record == run
    a, b = (np.array([side[seed] for seed in record], float) for side in (record, run))
    difference = b - a  # NaN agrees with nothing
    error = difference.std(ddof=1) / len(a) ** 0.5 if len(a) >= 3 else 0
    one = all(isinstance(number, int) for number in (*record.values(), *run.values()))
    near = 0.03 * abs(a.mean()) if maximum is None else 0.1 * (maximum - a.mean())
    return abs(difference.mean()) <= max(near, 10 * error, one)


def _mean(values):
    return f"{np.mean([*values.values()]):.4g}" if values else "nothing"


if __name__ == "__main__":
    sys.exit(check())
