"""Whether two runs agree: `python -m lab.check` compares the run in figures/ with the record, which
is figures/ as committed at HEAD: means over seeds, and the bounds and verdicts of criteria.
"""

import json

import numpy as np

from lab import NOTEBOOKS, ROOT
from lab.record import COMPARISONS, KEYS, git

# How far a mean may be from the record's, or which share of it. On another processor, one seed's
# classifier differed by 0.5 points at most (of 105), and what it explains by 0.014 (of 115): what
# was measured with one seed is allowed no more. Cosines and redundancies may be near zero.
TOLERANCES = dict.fromkeys(["parameters", "holds", *COMPARISONS], (0, 0))
TOLERANCES |= {"classifier": (0.5, 0), "recovered": (2, 0), "l0": (0, 0.03), "agreement": (0.01, 0)}
TOLERANCES |= {"explained": (0.02, 0), "explained_best": (0.02, 0), "redundancy": (0.5, 0.03)}
COSINES = ["weights and step", "step and decoder row", "step and other rows"]
TOLERANCES |= dict.fromkeys(COSINES, (0.03, 0))
COUNTS, OTHERS = (1, 0.03), (1e-6, 0.03)  # of whole numbers, and below 1e-6, of rounding
ERRORS = 2  # or so many standard errors of a difference, by the record's spread over seeds


def check():
    """Print what differs, and return 1 if anything does or a notebook was not compared, else 0."""
    compared = differing = failed = 0
    for name in (*NOTEBOOKS, "language"):
        record = json.loads(git("show", f"HEAD:./figures/{name}.json") or "null")
        path = ROOT / f"figures/{name}.json"
        run = json.loads(path.read_text("utf-8") if path.exists() else "null")
        todo = "make clean`, then `make figures" if name in NOTEBOOKS else "make language"
        head, *lines = compare(record, run, f"run `{todo}`")
        note = "" if lines or name in NOTEBOOKS else "note: "
        print(f"figures/{name}.json: {note}{head}", *filter(None, lines), sep="\n  ")
        compared += len(lines)
        differing += sum(not line.startswith("note: ") for line in filter(None, lines))
        failed |= not lines and name in NOTEBOOKS
    print(f"{compared} numbers and verdicts compared, {differing} of them differ")
    return int(failed or differing > 0)


def compare(record, run, todo=""):
    """Return with what it is compared, or why it is not and what to do; and then of each number and
    verdict how it differs, a note, or ""."""
    if not record or not run or record == run:
        what = "not compared, the record itself" if run else "missing"
        return [f"{what}: {todo}" if record else "not found at HEAD: needs git, and a clone"]
    a, b = record["parameters"], run["parameters"]
    if other := [key for key in {**a, **b} if a.get(key) != b.get(key)]:
        return [f"of other parameters than the record, {', '.join(other)}: set them back, {todo}"]
    lines = [f"compared with a run of commit {record['environment']['commit']}"]
    a, b = numbers(record), numbers(run)
    for *which, column in [key for key in {**a, **b} if key[::2] != ("criterion", "measured")]:
        sides = [side.get((*which, column), {}) for side in (a, b)]
        there, here = (f"{np.mean([*side.values()]):.6g}" if side else "nothing" for side in sides)
        line = f"{', '.join(map(str, which))}, {column}: {there} in the record, {here} in your run"
        if column == "holds" and agree(*(s.get((*which, "measured"), {}) for s in (a, b))):
            line = f"note: by a hair, {line}"
        lines.append("" if agree(*sides, column) else line)
    return lines


def numbers(record):
    """Return {(table, *keys of a row, column): {seed: number}}, criteria as a table among them."""
    values = {}
    for c in record["criteria"]:
        row = {c["comparison"]: {0: c["bound"]}, "holds": {0: c["holds"]}}
        row["measured"] = dict(enumerate(c["measured"]))
        values |= {("criterion", c["claim"], column): value for column, value in row.items()}
    for table, rows in record["tables"].items():
        for row in rows:
            keys = [c for c in row if c in KEYS or isinstance(row[c], str)]  # older text: "loss"
            which = [row[c] for c in sorted(keys) if c != "seed"]
            for column in [c for c in row if c not in keys and row[c] is not None]:
                values.setdefault((table, *which, column), {})[row["seed"]] = row[column]
    return values


def agree(record, run, column=""):
    """Return whether the means of {seed: number} of a record and of a run agree."""
    if record.keys() != run.keys():
        return False
    a, b = (np.array([side[seed] for seed in record], float) for side in (record, run))
    whole = np.all(a % 1 == 0) and np.all(b % 1 == 0)
    near, share = TOLERANCES.get(column, COUNTS if whole else OTHERS)
    error = a.std(ddof=1) * (2 / len(a)) ** 0.5 if len(a) > 1 else 0
    return bool(abs(b.mean() - a.mean()) <= max(near, share * abs(a.mean()), ERRORS * error))


if __name__ == "__main__":
    raise SystemExit(check())
