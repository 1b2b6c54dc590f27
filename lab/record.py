"""What a notebook saves: its parameters, criteria, numbers and pictures."""

import json
import operator
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lab import ROOT

PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn")
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
# The columns that say which row it is, all columns of text among them; the others are measured
KEYS = ("model", "method", "kind", "change", "optimizer", "what", "data")
KEYS += ("rate", "units", "active", "decorrelation", "competition", "seed")
RUN = {"commit": "unknown", "start": time.time()}  # of the run that `begin_run` began


def begin_run(quick=False, folder=None):
    """Begin a run, and return its folder, made if need be: build/figures, or build/quick/figures.

    `folder`, or else the environment variable FIGURES, names another, seen from the repository.
    Raises ValueError if a quick run would write to figures/, which holds the record.
    """
    usual = "build/quick/figures" if quick else "build/figures"
    wanted = ROOT / (folder or os.environ.get("FIGURES", usual))
    if quick and wanted.resolve().is_relative_to(ROOT / "figures"):
        raise ValueError("QUICK is True, and figures/ is for whole runs: set QUICK = False")
    wanted.mkdir(parents=True, exist_ok=True)
    RUN.update(commit=_commit(), start=time.time())
    return wanted


def criterion(claim, measured, comparison, bound):
    """Return a row of a table of criteria: it holds if each of the numbers measured (one, or one a
    seed) compares so with the bound. NaN never holds."""
    values = [float(value) for value in np.atleast_1d(measured)]
    holds = bool(values) and all(COMPARISONS[comparison](value, bound) for value in values)
    measured = [value if np.isfinite(value) else None for value in values]
    row = {"claim": claim, "comparison": comparison, "bound": bound}
    return row | {"measured": measured, "holds": holds}


def save(name, folder, parameters, criteria, **tables):
    """Write the record <folder>/<name>.json: `criteria` are rows of `criterion`, and tables
    DataFrames with a row for each model or run. `make check` compares all columns but `KEYS`.
    Raises ValueError if a table has no seed, text in another column, or two rows of equal keys.
    """
    for title, table in tables.items():
        if new := [c for c in table if c not in KEYS and table[c].map(type).eq(str).any()]:
            raise ValueError(f"table {title}: put {new}, of text, into KEYS in lab/record.py")
        if "seed" not in table:
            raise ValueError(f'table {title}: add a column "seed", of the seed of each row')
        if table.duplicated(keys := [c for c in table if c in KEYS]).any():
            raise ValueError(f"table {title} has rows of the same {keys}: add one of KEYS")
    machine = f"{platform.system()} {platform.machine()}"
    python = {"python": platform.python_version(), "platform": machine}
    packages = {package: version(package).partition("+")[0] for package in PACKAGES}
    run = {"commit": RUN["commit"], "seconds": round(time.time() - RUN["start"])}
    content = {"parameters": parameters, "environment": python | packages | run}
    content |= {"criteria": criteria, "tables": {}}
    for title, table in tables.items():
        table = table.replace([np.inf, -np.inf], np.nan)
        table = table.astype(object).where(table.notna(), None)
        content["tables"][title] = table.to_dict("records")
    text = json.dumps(content, indent=1, allow_nan=False, default=lambda number: number.item())
    (Path(folder) / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def read(name, folder=ROOT / "figures"):
    """Return the content of <folder>/<name>.json, a dict, with its tables as DataFrames."""
    content = json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8"))
    content["tables"] = {key: pd.DataFrame(rows) for key, rows in content["tables"].items()}
    return content


def save_figure(fig, name, folder):
    """Write <folder>/<name>.png and .pdf, and return the figure, closed, so that a notebook shows
    it only where it is told to. The same figure gives the same bytes."""
    for kind, metadata in {"png": {"Software": None}, "pdf": {"CreationDate": None}}.items():
        fig.savefig(Path(folder) / f"{name}.{kind}", metadata=metadata)
    plt.close(fig)
    return fig


def git(*words):
    """Return what git prints in this repository, or "" if it fails, or if there is no git."""
    try:
        command = ["git", "-C", ROOT, *words]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8").stdout
    except OSError:
        return ""


def _commit():
    """Return the commit, with "-dirty" if a file has changed, or one that computes is new."""
    changed = git("status", "--porcelain", "-uno", "--", ".", ":!figures")  # where runs write
    new = git("status", "--porcelain", "-unormal", "--", "helpers.py", "lab", "notebooks", "data")
    return (git("describe", "--always").strip() or "unknown") + "-dirty" * bool(changed or new)
