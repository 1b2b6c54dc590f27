"""Compare the tables of a run with the record: `make check`, or `check.py FOLDER RECORD`.

In a table, the columns before `seed` are keys, and those after it numbers.

Runs in full, build/NAME/*.csv of notebooks that have ended, are compared with figures/*.csv of the
last commit by their means over seeds. A mean differs if it is off by more than 2% and by more than
one standard deviation of the record's seeds, or of more than three seeds by more than the square
root of 3 standard errors; of one or two seeds, by more than 10%, too.

FOLDER is compared with RECORD row by row, each number at 1%: `make quick` is so small that another
processor's roundings hardly move it. Pictures are compared at an eighth of their size, if they are
drawn by the matplotlib of the record, and what notebooks print, line by line.
"""

import io
import itertools
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
# Where units die, next to none of the variance is explained, and other roundings move it by .02 of
# 100: these may be off by .05 in any case.
NEAR_ZERO = {"own decoder": 0.05, "best decoder": 0.05}
# Other roundings move the mean of a square of 128 by 128 pixels, from 0 to 1, by .002 at most; .003
# is off. In 2_ablation they change the order of similar units, and 25 squares: 40 may be off.
SQUARES = {"2_ablation.png": 40}


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
    floor = both.index.get_level_values("column").map(lambda column: NEAR_ZERO.get(column, 1e-9))
    both["allowed"] = (0.01 * both["record"].abs()).clip(lower=pd.Series(floor, both.index))
    return both


def differing(both):
    """Return the numbers that differ: also those that only one of the tables has."""
    alike = (both["run"] - both["record"]).abs() <= both["allowed"]
    return both[~(alike | both["run"].isna() & both["record"].isna())]


def means_of_squares(pixels, by):
    """Return a picture, (height, width, 3), with a pixel in place of squares of by x by."""
    height, width = pixels.shape[:2]
    pixels = np.pad(pixels, ((0, -height % by), (0, -width % by), (0, 0)))
    return pixels.reshape(-(-height // by), by, -(-width // by), by, 3).mean((1, 3))


def reduced(path, by):
    """Return a picture, so many times smaller, (height, width, 3) bytes."""
    return (255 * means_of_squares(plt.imread(path)[..., :3], by)).round().astype(np.uint8)


def differing_pictures(folder, record):
    """Return the names of pictures of a folder that are not those of a record."""
    pinned = re.search(r"(?m)^matplotlib==(.*)$", (ROOT / "requirements.lock").read_text("utf-8"))[
        1
    ]
    if pinned != matplotlib.__version__:
        print(f"pictures not compared: matplotlib is {matplotlib.__version__}, not {pinned}")
        return []
    names = {path.name for part in (folder, record) for path in Path(part).glob("*.png")}

    def differs(name):
        paths = Path(folder, name), Path(record, name)
        if not all(path.exists() for path in paths):
            return True
        run, recorded = reduced(paths[0], 8), reduced(paths[1], 1)
        if run.shape != recorded.shape:
            return True
        off = means_of_squares(np.abs(run / 255 - recorded / 255), 16).mean(2) > 0.003
        return off.sum() > SQUARES.get(name, 0)

    return sorted(filter(differs, names))


def printed(folder):
    """Return what notebooks of a folder printed, line by line, without deviations of few seeds and
    without numbers of the size of rounding."""
    lines = []
    for path in sorted(Path(folder).glob("*.ipynb")):
        for output in (o for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", [])):
            text = output["data"]["text/plain"] if "data" in output else output["text"]
            text = re.sub(r"(?<=± )[\d.,]+|[\d.]+e-\d+", "#", text)
            lines += [f"{path.stem}: {' '.join(line.split())}" for line in text.splitlines()]
    return lines


def differing_lines(run, record):
    """Return pairs of lines with other words, or a number that is off by 1% and its last digit."""

    def alike(one, other):
        parts, others = (re.split(r"(-?\d[\d,]*(?:\.\d+)?)", line) for line in (one, other))
        if len(parts) != len(others) or parts[::2] != others[::2]:
            return False
        for number, expected in zip(parts[1::2], others[1::2]):
            decimals, as_many = (len(n.partition(".")[2]) for n in (number, expected))
            a, b = (float(n.replace(",", "")) for n in (number, expected))
            if decimals != as_many or abs(a - b) > 0.01 * abs(b) + 1.01 * 0.1**decimals:
                return False
        return True

    pairs = itertools.zip_longest(run, record, fillvalue="")
    return [(one, other) for one, other in pairs if not alike(one, other)]


def git(*words):
    return subprocess.run(["git", "-C", ROOT, *words], check=True, capture_output=True).stdout


def read_csv_bytes(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.csv")}


def count_differing(tables, record, compare):
    """Print what differs in tables, {name: bytes}, and return how many numbers and tables do."""
    only = tables.keys() ^ record.keys()
    if only:
        print(f"either the run or the record lacks {sorted(only)}")
    total, bad = 0, len(only)
    for name in sorted(tables.keys() & record.keys()):
        both = compare(*(pd.read_csv(io.BytesIO(part[name])) for part in (tables, record)))
        wrong = differing(both)
        total, bad = total + len(both), bad + len(wrong)
        if len(wrong):
            print(name, wrong.to_string(), sep="\n")
    print(f"{total} numbers of {len(tables)} tables compared, {bad} differ")
    return bad


def check_folder(folder, record):
    bad = count_differing(read_csv_bytes(folder), read_csv_bytes(record), of_rows)
    pictures = differing_pictures(folder, record)
    if pictures:
        print(f"pictures differ: {pictures}")
    lines = Path(record, "printed.txt").read_text("utf-8").splitlines()
    pairs = differing_lines(printed(folder), lines)
    for line, expected in pairs:
        print(f"printed: {line}\n    not: {expected}")
    return bad + len(pictures) + len(pairs)


def check_full_runs():
    ended = [path.stem for path in (ROOT / "build").glob("*.ipynb")]
    ended += ["language"] * (ROOT / "build/language/language.csv").exists()
    if not ended:
        sys.exit("Nothing was run yet: `make figures` or `make questions` first.")
    folders = [read_csv_bytes(ROOT / "build" / name) for name in ended]
    tables = {name: text for folder in folders for name, text in folder.items()}
    paths = git("ls-tree", "--name-only", "HEAD", "figures/").decode().split()
    names = [p[8:] for p in paths if p.endswith(".csv") and p[8:].startswith(tuple(ended))]
    record = {name: git("show", f"HEAD:figures/{name}") for name in names}
    return count_differing(tables, record, of_means)


if __name__ == "__main__":
    differ = check_folder(*sys.argv[1:]) if sys.argv[1:] else check_full_runs()
    sys.exit(int(differ > 0))
