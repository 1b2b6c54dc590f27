"""Whether two runs agree: `python -m lab.check` compares the run in figures/ with the record.

The record is figures/ as committed at HEAD. Over equal seeds, the mean difference is to be within
3% of the record's mean or, with three seeds or more, within ten of its standard errors (three
differences estimate it badly); of what has a maximum, within a tenth of what is missing to it; of
counts, within one; of the number of parameters, zero. A verdict may flip if its numbers agree.
"""

import json

import numpy as np

from lab import NOTEBOOKS, ROOT
from lab.record import KEYS, git

MAXIMA = {"classifier": 100, "recovered": 100, "agreement": 1}


def check():
    """Print what differs -> exit status: 0 if all agrees, 1 if not, 2 if nothing was compared."""
    compared = differing = 0
    for path in [f"figures/{name}.json" for name in (*NOTEBOOKS, "language")]:
        record = json.loads(git("show", f"HEAD:./{path}") or "null")
        run = json.loads((ROOT / path).read_text("utf-8") if (ROOT / path).exists() else "null")
        head, *lines = compare(record, run) if record and run else ["missing here or there"]
        print(f"{path}: {head}", *filter(None, lines), sep="\n  ")
        compared += len(lines)
        differing += sum(not line.startswith("note: ") for line in filter(None, lines))
    if not compared:
        print("Nothing was compared: it needs git, a clone, and a run with the record's parameters")
    print(f"{compared} numbers and verdicts compared, {differing} of them differ")
    return int(differing > 0) if compared else 2


def compare(record, run):
    """[with what it is compared, then of each number and verdict what differs, a note, or ""]."""
    if record == run:
        return ["the committed record itself, which shows nothing about a run of yours"]
    a, b = record["parameters"], run["parameters"]
    if other := [key for key in {**a, **b} if a.get(key) != b.get(key)]:
        return [f"of other parameters than the record: {', '.join(other)}"]
    lines = [f"compared with a run of commit {record['environment']['commit']}"]
    a, b = numbers(record), numbers(run)
    for *which, column in [key for key in {**a, **b} if key[-1] != "measured"]:
        sides = [side.get((*which, column), {}) for side in (a, b)]
        there, here = (f"{np.mean([*side.values()]):.4g}" if side else "nothing" for side in sides)
        line = f"{', '.join(map(str, which))}, {column}: {there} in the record, {here} in your run"
        hair = column == "holds" and agree(*(s.get((*which, "measured"), {}) for s in (a, b)))
        lines.append("" if agree(*sides, column) else "note: by a hair, " * hair + line)
    return lines


def numbers(record):
    """{(table, *texts and KEYS of a row, column): {seed: number}}."""
    values = {("criterion", c["claim"], "holds"): {0: c["holds"]} for c in record["criteria"]}
    for c in record["criteria"]:
        values["criterion", c["claim"], "measured"] = dict(enumerate(c["measured"]))
    for table, rows in record["tables"].items():
        for row in rows:
            texts = [c for c in row if c != "seed" and (c in KEYS or isinstance(row[c], str))]
            which = [row[c] for c in sorted(texts)]
            for column in [c for c in row if c not in (*texts, "seed") and row[c] is not None]:
                values.setdefault((table, *which, column), {})[row["seed"]] = row[column]
    return values


def agree(record, run, column=""):
    """Whether {seed: number} of a record and of a run agree. Whole numbers are counts."""
    if record.keys() != run.keys() or column in ("parameters", "holds"):
        return record == run
    a, b = (np.array([side[seed] for seed in record], float) for side in (record, run))
    difference = b - a  # NaN agrees with nothing
    error = difference.std(ddof=1) / len(a) ** 0.5 if len(a) >= 3 else 0
    one = {int} == {type(number) for number in (*record.values(), *run.values())}
    near = 0.1 * (MAXIMA[column] - a.mean()) if column in MAXIMA else 0.03 * abs(a.mean())
    return bool(abs(difference.mean()) <= max(near, 10 * error, one, 1e-6))  # below it, rounding


if __name__ == "__main__":
    raise SystemExit(check())
