"""What a run saves; `python -m lab.record` compares a run with the record.

The record is figures/ as committed. `make` moves what a run has saved there when it has ended.
"""

import hashlib
import json
import operator
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np
import pandas as pd

from lab import NOTEBOOKS, ROOT
from lab.show import show_figure, show_table

PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn")
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


# --- What a run saves -----------------------------------------------------------------------------


class Run:
    """A run of a notebook or of the language model, and where it saves.

    Parameters
    ----------
    name : of its record, <name>.json
    parameters : what it was run with

    Raises ValueError if SEEDS, one of the parameters, is no list of seeds, each once.
    """

    def __init__(self, name, *, SEEDS, **parameters):
        if not isinstance(SEEDS, (list, tuple)) or not SEEDS or len({*SEEDS}) < len(SEEDS):
            raise ValueError(f"SEEDS is {SEEDS}: it needs a list of one seed or more, each once")
        self.name = name
        self.parameters = {"SEEDS": SEEDS, **parameters}
        self.code = digests(name, sys.modules)
        self.folder = ROOT / (os.environ.get("OUTPUT") or "build/by_hand")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.commit = _commit()
        self.start = time.time()
        self.criteria = []

    def save_and_show(self, fig, name):
        """Save the figure, and show it."""
        self.save_figure(fig, name)
        show_figure(fig)

    def save_figure(self, fig, name):
        """Write <name>.png and .pdf. The same figure gives the same bytes."""
        for kind, metadata in {"png": {"Software": None}, "pdf": {"CreationDate": None}}.items():
            fig.savefig(self.folder / f"{name}.{kind}", metadata=metadata)

    def show_criteria(self, rows):
        """Show a table of criteria. rows: of a claim, the numbers measured (one, or one a seed), a
        comparison and a bound. A criterion holds if each number compares so; NaN never does.
        """
        shown = []
        self.criteria = []
        for claim, measured, comparison, bound in rows:
            values = [float(value) for value in np.ravel(measured)]
            holds = all(COMPARISONS[comparison](value, bound) for value in values)
            row = {"claim": claim, "comparison": comparison, "bound": bound, "holds": holds}
            finite = [value if np.isfinite(value) else None for value in values]
            self.criteria.append(row | {"measured": finite})
            ends = dict.fromkeys(f"{end(values):,.3g}" for end in (np.min, np.max))
            verdict = "holds" if holds else "**fails**"
            shown.append((claim, f"{comparison} {bound:g}", " to ".join(ends), verdict))
        show_table(pd.DataFrame(shown, columns=["criterion", "bound", "measured", ""]))

    def save(self, **tables):
        """Write <name>.json: parameters, criteria, what has computed them, and tables, DataFrames
        whose index says which row is which."""
        packages = {package: version(package).partition("+")[0] for package in PACKAGES}
        machine = {"python": platform.python_version(), "platform": platform.system()}
        timing = {"commit": self.commit, "seconds": round(time.time() - self.start)}
        content = {
            "parameters": self.parameters,
            "environment": packages | machine | timing,
            "code": self.code,
            "criteria": self.criteria,
            "tables": {title: _as_json(title, table) for title, table in tables.items()},
        }
        text = json.dumps(content, indent=1, allow_nan=False, default=lambda number: number.item())
        (self.folder / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")


def _as_json(title, table):
    if not table.index.is_unique:
        raise ValueError(f"table {title} has two rows of the same {[*table.index.names]}")
    keys = [*table.index.names]
    table = table.replace([np.inf, -np.inf], np.nan).reset_index()
    return {
        "keys": keys,
        "rows": table.astype(object).where(table.notna(), None).to_dict("records"),
    }


def read_tables(record):
    """Return {title: DataFrame} of the tables of a record, with the index that they were saved
    with."""
    return {
        title: pd.DataFrame(table["rows"]).set_index(table["keys"])
        for title, table in record["tables"].items()
    }


def read_record(name):
    """Return the content of figures/<name>.json."""
    return json.loads((ROOT / f"figures/{name}.json").read_text("utf-8"))


def git(*words):
    """Return what git prints in this repository, or "" if it fails, or if there is no git."""
    try:
        command = ["git", "-C", ROOT, *words]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8").stdout
    except OSError:
        return ""


def _commit():
    """Return the commit, with "-dirty" if a file that computes has changed or is new."""
    changed = git("status", "--porcelain", "--", "helpers.py", "lab", "notebooks", "data")
    return (git("describe", "--always").strip() or "unknown") + "-dirty" * bool(changed)


def digests(name, modules):
    """Return {file: digest} of what a run of this name computes with: helpers.py, what it imports
    of lab/ but for what shows, draws or saves, and the code cells of its notebook, without the
    address, or its module."""
    files = {"helpers.py"} if name in NOTEBOOKS else {"helpers.py", f"lab/{name}.py"}
    for module in modules:
        if module.startswith("lab.") and not re.match(r"lab\.(show|figures|record)", module):
            files.add(module.replace(".", "/") + ".py")
    texts = {file: (ROOT / file).read_text("utf-8") for file in sorted(files)}
    if name in NOTEBOOKS:
        path = f"notebooks/{name}.ipynb"
        cells = json.loads((ROOT / path).read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        texts[path] = re.sub('REPOSITORY = ".*"', "", "\n\n".join(code))
    return {file: hashlib.sha256(text.encode()).hexdigest()[:12] for file, text in texts.items()}


# --- Whether a run agrees with the record ---------------------------------------------------------

# How far the number of one seed may be from the record's, or which share of it: as far as another
# processor's rounding moves it. Of a mean of n seeds, 1 / sqrt(n) of that; and any mean may move by
# STANDARD_ERRORS of the difference, from the record's own spread over seeds, but by the last number
# at most.
EXACT, COUNT = (0, 0, 0), (1, 0.05, np.inf)
POINTS, ACCURACY = (2, 0, np.inf), (0.5, 0, 1.4)
EXPLAINED, RELATIVE = (2, 0, 1.4), (1e-6, 0.03, np.inf)
TOLERANCES = {
    "bound": EXACT,
    "holds": EXACT,
    "parameters": EXACT,
    "L0": (0, 0.03, np.inf),
    "dead units": COUNT,
    "low variance": COUNT,
    "living units": COUNT,
    "epoch of convergence": (1, 0.15, np.inf),  # the first passage of a jagged fall
    "classifier": ACCURACY,
    "variance explained": EXPLAINED,
    "variance explained by the best decoder": EXPLAINED,
    "loss recovered": POINTS,
    "loss recovered by the best decoder": POINTS,
    "variance explained by predicted rows": EXPLAINED,
    "loss of a token": (0.01, 0, np.inf),
    "strength": (0, 0.1, np.inf),
    "less than a tenth of a vote": POINTS,
    "share active": POINTS,
    "formula": POINTS,
    "find all": (4, 0, np.inf),
    "at a third": (4, 0, np.inf),
    "eigenvalue": (0.01, 0.03, np.inf),
    "agreement": (0.02, 0, np.inf),
    "AUROC": (0.02, 0, np.inf),
    "redundancy": (0.5, 0.03, np.inf),
    "decorrelation costs": (0.5, 0.03, np.inf),
    "competition costs": (0.02, 0.05, np.inf),
    "by the expansion": (0.02, 0.05, np.inf),
    "of single units": (0.02, 0.05, np.inf),
    "entropy": RELATIVE,
    "spread of Z": (0.3, 0.03, np.inf),
    "slope": RELATIVE,
    "MSE": RELATIVE,
    "norm-matched error": RELATIVE,
    "purity": (0.02, 0, np.inf),
}
STANDARD_ERRORS = 2


def means_over_seeds(record):
    """Return a DataFrame of the means over seeds of all that a record holds: a row for each table,
    row of it and column, with "mean", "std" and "count" of seeds."""
    criteria = pd.DataFrame(record["criteria"], columns=["claim", "bound", "holds"])
    tables = {"criteria": criteria.set_index("claim"), **read_tables(record)}
    parts = []
    for title, table in tables.items():
        keys = [name for name in table.index.names if name != "seed"]
        which = [
            ", ".join(map(str, key)) for key in table.reset_index()[keys].itertuples(index=False)
        ]
        values = table.reset_index(drop=True).assign(which=which).melt("which", var_name="column")
        parts.append(values.dropna().assign(table=title))
    every = pd.concat(parts)
    unknown = {*every.column} - {*TOLERANCES}
    if unknown:
        raise ValueError(f"lab/record.py has no tolerance for {sorted(unknown)}")
    every["value"] = every["value"].astype(float)
    return every.groupby(["table", "which", "column"])["value"].agg(["mean", "std", "count"])


def differences_from_record(record, run):
    """Return a row for each number of a record or run: "differs" says whether they disagree."""
    both = means_over_seeds(record).join(means_over_seeds(run).add_suffix(" of run"), how="outer")
    allowed = []
    for (_, _, column), row in both.iterrows():
        near, share, most = TOLERANCES[column]
        one_seed = max(near, share * abs(row["mean"])) / row["count"] ** 0.5
        of_spread = STANDARD_ERRORS * np.nan_to_num(row["std"]) * (2 / row["count"]) ** 0.5
        allowed.append(max(one_seed, min(of_spread, most)))
    apart = (both["mean"] - both["mean of run"]).abs()
    same_seeds = both["count"] == both["count of run"]
    return both.assign(differs=~((apart <= allowed) & same_seeds))


def check_against_record():
    """Print what differs between figures/ and the record; return 1 if anything does or a notebook
    was not compared, else 0."""
    failed = False
    n_compared = n_differ = 0
    for name in (*NOTEBOOKS, "language"):
        path = ROOT / f"figures/{name}.json"
        record = json.loads(git("show", f"HEAD:./figures/{name}.json") or "null")
        run = json.loads(path.read_text("utf-8")) if path.exists() else None
        if not record or not run or record == run or record["parameters"] != run["parameters"]:
            command = "make clean`, then `make figures" if name in NOTEBOOKS else "make language"
            print(f"{name}: no other run of these parameters: run `{command}`")
            failed = failed or name in NOTEBOOKS
            continue
        compared = differences_from_record(record, run)
        different = compared[compared.differs]
        for (table, which, column), row in different.iterrows():
            there, here = f"{row['mean']:.6g}", f"{row['mean of run']:.6g}"
            print(f"{name}: {table}, {which}, {column}: {there} in the record, {here} in your run")
        n_compared += len(compared)
        n_differ += len(different)
    print(f"{n_compared} numbers and verdicts compared, {n_differ} of them differ")
    return int(failed or n_differ > 0)


if __name__ == "__main__":
    sys.exit(check_against_record())
