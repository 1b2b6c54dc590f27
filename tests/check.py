"""Compare the tables of a run with the record: `make check`, or `check.py FOLDER RECORD`.

In a table, the columns before `seed` are keys, and those after it numbers.

Runs in full, build/NAME/*.csv of notebooks that have ended, are compared with figures/*.csv of the
last commit by their means over seeds. A mean differs if it is off by more than 2% and by more than
one standard deviation of the record's seeds, or of more than three seeds by more than the square
root of 3 standard errors; of one or two seeds, by more than 10%, too.

FOLDER is compared with RECORD row by row, each number at 1%: `make quick` is so small that another
processor's roundings hardly move it.
"""

import io
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
WIDER = {}  # what needs more than 1%


def of_means(run, record):
    """Return the means over seeds of two tables, and by how much they may differ."""

    def summarize(table):
        keys = [*table.columns[: table.columns.get_loc("seed")]]
        numbers = table.melt([*keys, "seed"], var_name="column").astype({"value": float})
        groups = numbers.groupby([*keys, "column"], sort=False, dropna=False)["value"]
        return groups.agg(["mean", "std", "size"])

    both = summarize(record).join(summarize(run).add_prefix("run "), how="outer")
    of_seeds = both["std"] * (3 / both["size"]).clip(upper=1) ** 0.5
    allowed = (0.02 * both["mean"].abs()).clip(lower=of_seeds)
    of_few = allowed.clip(lower=0.1 * both["mean"].abs())
    both["allowed"] = allowed.where(both["size"] > 2, of_few)
    return both.rename(columns={"mean": "record", "run mean": "run"})


def of_rows(run, record):
    """Return the numbers of two tables, and by how much they may differ."""

    def by_row(table):
        keys = [*table.columns[: table.columns.get_loc("seed") + 1]]
        return table.melt(keys, var_name="column").set_index([*keys, "column"])["value"]

    both = pd.DataFrame({"record": by_row(record), "run": by_row(run)}).astype(float)
    share = both.index.get_level_values("column").map(lambda column: WIDER.get(column, 0.01))
    both["allowed"] = share * both["record"].abs() + 1e-9
    return both


def differing(both):
    """Return the numbers that differ: also those that only one of the tables has."""
    alike = (both["run"] - both["record"]).abs() <= both["allowed"]
    return both[~(alike | both["run"].isna() & both["record"].isna())]


def git(*words):
    return subprocess.run(["git", "-C", ROOT, *words], check=True, capture_output=True).stdout


def read_csv_bytes(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.csv")}


def main(folder=None, record=None):
    if folder:
        compare, tables, recorded = of_rows, read_csv_bytes(folder), read_csv_bytes(record)
    else:
        compare = of_means
        ended = [path.stem for path in (ROOT / "build").glob("*.ipynb")]
        ended += ["language"] * (ROOT / "build/language/language.csv").exists()
        folders = [read_csv_bytes(ROOT / "build" / name) for name in ended]
        tables = {name: text for folder in folders for name, text in folder.items()}
        paths = git("ls-tree", "--name-only", "HEAD", "figures/").decode().split()
        names = [p[8:] for p in paths if p.endswith(".csv") and p[8:].startswith(tuple(ended))]
        recorded = {name: git("show", f"HEAD:figures/{name}") for name in names}
    if not tables:
        print("Nothing was run yet: `make figures` or `make questions` first.")
        return 2
    if only := tables.keys() ^ recorded.keys():
        print(f"either the run or the record lacks {sorted(only)}")
    total, bad = 0, len(only)
    for name in sorted(tables.keys() & recorded.keys()):
        run, of_record = (pd.read_csv(io.BytesIO(part[name])) for part in (tables, recorded))
        both = compare(run, of_record)
        wrong = differing(both)
        total, bad = total + len(both), bad + len(wrong)
        if len(wrong):
            print(name, wrong.to_string(), sep="\n")
    print(f"{total} numbers of {len(tables)} tables compared, {bad} differ")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
