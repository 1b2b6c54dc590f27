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
# Columns of numbers that say which row it is, as all columns of text do; the others are measured
KEYS = ("rate", "units", "active", "decorrelation", "competition", "seed")


def output_folder(quick=False):
    """The folder for figures and numbers, made if need be: build/figures, or build/quick/figures.

    The environment variable FIGURES names another, seen from the repository: `make figures` writes
    figures/, which holds the record. ValueError for a quick run that would overwrite it.
    """
    wanted = os.environ.get("FIGURES", "build/quick/figures" if quick else "build/figures")
    if quick and (ROOT / wanted).resolve().is_relative_to(ROOT / "figures"):
        raise ValueError(
            "QUICK is True in this notebook, and figures/ is for whole runs: set False"
        )
    (ROOT / wanted).mkdir(parents=True, exist_ok=True)
    return ROOT / wanted


def criterion(claim, measured, comparison, bound):
    """A row of a table of criteria: it holds if each of the numbers measured (one, or one a seed)
    compares so with the bound. NaN never holds."""
    values = [float(value) for value in np.atleast_1d(measured)]
    holds = bool(values) and all(COMPARISONS[comparison](value, bound) for value in values)
    measured = [value if np.isfinite(value) else None for value in values]
    row = {"claim": claim, "comparison": comparison, "bound": bound}
    return row | {"measured": measured, "holds": holds}


def save(name, folder, parameters, criteria, **tables):
    """Write the record <folder>/<name>.json.

    criteria: rows of `criterion`. tables: DataFrames with a row for each model or run; columns of
    text and of `KEYS`, "seed" among them, say which, and the others what was measured, which
    `make check` compares. ValueError if they do not tell all rows apart.
    """
    for title, table in tables.items():
        keys = [name for name in table if name in KEYS or table[name].map(type).eq(str).any()]
        if "seed" not in keys or table.duplicated(keys).any():
            raise ValueError(f"table {title}: {keys} do not tell its rows apart, or lack a seed")
    python = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    packages = {package: version(package).partition("+")[0] for package in PACKAGES}
    run = {"commit": COMMIT, "seconds": round(time.time() - START)}
    content = {"parameters": parameters, "environment": python | packages | run}
    content |= {"criteria": criteria, "tables": {}}
    for title, table in tables.items():
        table = table.replace([np.inf, -np.inf], np.nan)
        table = table.astype(object).where(table.notna(), None)
        content["tables"][title] = table.to_dict("records")
    text = json.dumps(content, indent=1, allow_nan=False, default=lambda number: number.item())
    (Path(folder) / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def read(name, folder=ROOT / "figures"):
    """The content of <folder>/<name>.json, a dict, with its tables as DataFrames."""
    content = json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8"))
    content["tables"] = {key: pd.DataFrame(rows) for key, rows in content["tables"].items()}
    return content


def save_figure(fig, name, folder):
    """Write <folder>/<name>.png and .pdf -> the figure, closed, so that a notebook shows it only
    where it is told to. The same figure gives the same bytes."""
    for kind, metadata in {"png": {"Software": None}, "pdf": {"CreationDate": None}}.items():
        fig.savefig(Path(folder) / f"{name}.{kind}", metadata=metadata)
    plt.close(fig)
    return fig


def git(*words):
    """What git prints in this repository; nothing if it fails, or if there is no git."""
    try:
        command = ["git", "-C", ROOT, *words]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8").stdout
    except OSError:
        return ""


def _commit():
    """The commit, with "-dirty" if a file has changed since, but in figures/, which runs write."""
    dirty = git("diff", "--name-only", "HEAD", "--", ":!figures")
    return (git("describe", "--always").strip() or "unknown") + ("-dirty" if dirty else "")


START, COMMIT = time.time(), _commit()  # at the start of a run
