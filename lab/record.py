"""What a notebook saves: its parameters, criteria and numbers."""

import io
import json
import operator
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lab import ROOT

try:
    import resource
except ImportError:  # on Windows
    resource = None

PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn")
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
PLAIN = (bool, int, float, str, type(None))
# Columns of numbers that say which row it is, as all columns of text do; the others are measured
KEYS = ("setting", "rate", "units", "active", "decorrelation", "competition", "seed")


def output_folder(quick=False):
    """The folder for figures and numbers: build/figures, or build/quick/figures for a quick run.

    The environment variable FIGURES names another, seen from the repository: `make figures` writes
    figures/, which holds the record. Raises ValueError for a quick run that would overwrite it, and
    what `writable` raises.
    """
    if quick and os.environ.get("FIGURES") == "figures":
        raise ValueError(
            "QUICK is True in this notebook: figures/ is for whole runs, set it to False"
        )
    default = "build/quick/figures" if quick else "build/figures"
    return writable(ROOT / (os.environ.get("FIGURES") or default))


def writable(folder):
    """The folder, made if need be. Raises OSError if nothing can be written there: before a long
    run, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"{folder} cannot be written: {error}") from None
    return folder


def parameters(variables):
    """The settings among a notebook's globals(): names in capitals of plain values, or of lists or
    tuples of them."""

    def plain(value):
        return all(map(plain, value)) if type(value) in (list, tuple) else type(value) in PLAIN

    return {name: value for name, value in variables.items() if name.isupper() and plain(value)}


def criterion(claim, measured, comparison, bound):
    """A row of a table of criteria: it holds if each of the numbers measured (one, or one a seed)
    compares so with the bound. NaN never holds."""
    values = [float(value) for value in np.atleast_1d(measured)]
    holds = bool(values) and all(COMPARISONS[comparison](value, bound) for value in values)
    row = {"claim": claim, "comparison": comparison, "bound": bound}
    return row | {"measured": values, "holds": holds}


def save(name, folder, parameters, criteria, **tables):
    """Write the record <folder>/<name>.json.

    criteria: rows of `criterion`. tables: DataFrames with a row for each model or run; columns of
    text and of `KEYS`, "seed" among them, say which, and the others what was measured, which
    `make check` compares. Raises ValueError if they do not tell all rows apart.
    """
    for title, table in tables.items():
        keys = [name for name in table if name in KEYS or table[name].map(type).eq(str).any()]
        if "seed" not in keys or table.duplicated(keys).any():
            raise ValueError(f"table {title}: {keys} do not tell its rows apart, or lack a seed")
    content = {"parameters": parameters, "environment": _environment(), "criteria": criteria}
    content["tables"] = {key: table.to_dict("records") for key, table in tables.items()}
    text = json.dumps(_plain(content), indent=1, allow_nan=False)
    write(Path(folder) / f"{name}.json", (text + "\n").encode())


def read(name, folder=ROOT / "figures"):
    """The content of <folder>/<name>.json, a dict, with its tables as DataFrames.

    FileNotFoundError says what to run first.
    """
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        first = "make language" if name == "language" else "make figures"
        raise FileNotFoundError(f"{path} is missing: run `{first}`")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["tables"] = {key: pd.DataFrame(rows) for key, rows in content["tables"].items()}
    return content


def find(name, parameters, *folders):
    """The content, as `read` gives it, of the first <folder>/<name>.json that was run with these
    parameters, in the folders or in the record; None if there is none."""
    for folder in (*folders, ROOT / "figures"):
        if (Path(folder) / f"{name}.json").exists():
            content = read(name, folder)
            if content["parameters"] == _plain(parameters):
                return content
    return None


def save_figure(fig, name, folder):
    """Write <folder>/<name>.png and .pdf -> the figure, closed, so that a notebook shows it only
    where it is told to. The same figure gives the same bytes."""
    for kind, metadata in {"png": {"Software": None}, "pdf": {"CreationDate": None}}.items():
        buffer = io.BytesIO()
        fig.savefig(buffer, format=kind, metadata=metadata)
        write(Path(folder) / f"{name}.{kind}", buffer.getvalue())
    plt.close(fig)
    return fig


def git(*words):
    """What git prints in this repository; nothing if it fails, or if there is no git."""
    try:
        command = ["git", "-C", ROOT, *words]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8").stdout
    except OSError:
        return ""


def write(path, content):
    """Write bytes so that an interrupted run leaves the old file or the new one, and no part."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def commit():
    """The commit, with "-dirty" if a file has changed since, but in figures/, which runs write."""
    dirty = git("diff", "--name-only", "HEAD", "--", ":!figures")
    return (git("describe", "--always").strip() or "unknown") + ("-dirty" if dirty else "")


START, COMMIT = time.time(), commit()  # when this module is imported, at the start of a run


def _environment():
    """Versions, machine, commit, time since this module was imported, and memory so far."""
    found = {
        "python": platform.python_version(),
        **{package: version(package).partition("+")[0] for package in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": COMMIT,
        "seconds": round(time.time() - START),
    }
    if resource:
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kibibytes /= 1024 if sys.platform == "darwin" else 1  # bytes on a Mac
        found["peak_memory_gb"] = round(kibibytes / 2**20, 2)
    return found


def _plain(value):
    """The value as JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value
