"""Compare the tables of a run with the record: `make check`, or `check.py FOLDER RECORD`.

Without folders, the tables of runs in full, build/NAME/*.csv of notebooks that have ended, are
compared with figures/*.csv of the last commit. In a table, the columns before `seed` are keys, and
those after it numbers, of which the means over seeds are compared. A number differs if it is off
by more than 2% and by more than one standard deviation of the record's seeds, or of more than three
seeds by more than the square root of 3 standard errors; of one or two seeds, by more than 10%, too;
and any number, if it has more seeds, or fewer.
"""

import io
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent


def summarize(table):
    """Return mean, standard deviation and number of seeds, a row for each key and column."""
    keys = [*table.columns[: table.columns.get_loc("seed")]]
    numbers = table.melt([*keys, "seed"], var_name="column").astype({"value": float})
    groups = numbers.groupby([*keys, "column"], sort=False, dropna=False)
    return groups["value"].agg(["mean", "std", "count"])


def compare_with_record(run, record):
    """Return a DataFrame of all numbers of two tables, and whether each differs, as does a number
    that only one of them has."""
    both = summarize(record).join(summarize(run).add_prefix("run "), how="outer")
    of_seeds = both["std"] * (3 / both["count"]).clip(upper=1) ** 0.5
    allowed = (0.02 * both["mean"].abs()).clip(lower=of_seeds)
    of_few = allowed.clip(lower=0.1 * both["mean"].abs())
    allowed = allowed.where(both["count"] > 2, of_few)
    missing = both["mean"].isna() & both["run mean"].isna()
    alike = (both["run mean"] - both["mean"]).abs() <= allowed
    both["differs"] = ~(alike | missing) | (both["run count"] != both["count"])
    return both


def git(*words):
    return subprocess.run(["git", "-C", ROOT, *words], check=True, capture_output=True).stdout


def read_csv_bytes(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.csv")}


def main(folder=None, record=None):
    if folder:
        tables, recorded = read_csv_bytes(folder), read_csv_bytes(record)
    else:
        ended = [path.with_suffix("") for path in (ROOT / "build").glob("*.ipynb")]
        folders = [*ended, ROOT / "build/language"]
        tables = {k: v for folder in folders for k, v in read_csv_bytes(folder).items()}
        paths = git("ls-tree", "--name-only", "HEAD", "figures/").decode().split()
        recorded = {p[8:]: git("show", f"HEAD:{p}") for p in paths if p[8:] in tables}
    if not tables:
        print("Nothing was run yet: `make figures` or `make questions` first.")
        return 2
    if only := tables.keys() ^ recorded.keys():
        print(f"either the run or the record lacks {sorted(only)}")
    total, bad = 0, len(only)
    for name in sorted(tables.keys() & recorded.keys()):
        run, of_record = (pd.read_csv(io.BytesIO(part[name])) for part in (tables, recorded))
        both = compare_with_record(run, of_record)
        differing = both.loc[both["differs"], ["mean", "std", "run mean"]]
        total, bad = total + len(both), bad + len(differing)
        if len(differing):
            print(name, differing.to_string(), sep="\n")
    print(f"{total} numbers of {len(tables)} tables compared, {bad} differ")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
