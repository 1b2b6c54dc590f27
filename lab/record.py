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
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd

from lab import ROOT

try:
    import resource
except ImportError:  # on Windows
    resource = None

PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn")
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


def output_folder(path="", quick=False):
    """The folder for figures and numbers, made if need be; relative to the repository.

    path "": figures/, which holds the record; build/quick/figures/ for a quick run. Raises OSError
    if nothing can be written there: before a long run, not after it.
    """
    folder = ROOT / (path or ("build/quick/figures" if quick else "figures"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"OUTPUT {folder} cannot be written: {error}") from None
    return folder


def parameters(variables):
    """The settings among a notebook's globals(): its plain values with names in capitals.

    Call it after the cell of parameters, as `PARAMETERS = parameters(globals())`. Names in capitals
    that are first defined after this line are not settings, also if the cell is run again.
    """
    plain = (bool, int, float, str, list, tuple, dict, type(None))
    before = takewhile(lambda item: item[0] != "PARAMETERS", list(variables.items()))
    return {name: value for name, value in before if name.isupper() and type(value) in plain}


def criterion(claim, measured, comparison, bound):
    """A row of a table of criteria: it holds if each of the numbers measured (one, or one a seed)
    compares so with the bound. NaN never holds."""
    values = [float(value) for value in np.atleast_1d(measured)]
    holds = bool(values) and all(COMPARISONS[comparison](value, bound) for value in values)
    row = {"claim": claim, "comparison": comparison, "bound": bound}
    return row | {"measured": values, "holds": holds}


def save(name, folder, parameters, criteria, **tables):
    """Write the record <folder>/<name>.json.

    criteria: rows of `criterion`. tables: DataFrames with a row for each model or run: columns
    that say which, then "seed", then what was measured. `make check` compares them.
    """
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


def write_figure(fig, name, folder):
    """Write <folder>/<name>.png and .pdf. The same figure gives the same bytes."""
    for kind, metadata in {"png": {"Software": None}, "pdf": {"CreationDate": None}}.items():
        buffer = io.BytesIO()
        fig.savefig(buffer, format=kind, metadata=metadata)
        write(Path(folder) / f"{name}.{kind}", buffer.getvalue())


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


# When this module is imported, at the start of a run; the run itself may write figures/
START, COMMIT = time.time(), git("describe", "--always").strip() or "unknown"
COMMIT += "-dirty" if git("diff", "--name-only", "HEAD", "--", ":!figures") else ""


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
