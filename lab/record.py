"""What a notebook saves: its parameters, and the record of its numbers."""

import json
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
import torch

from lab import ROOT
from lab.data import pick_device

try:
    import resource
except ImportError:  # on Windows
    resource = None

START = time.time()
PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn")


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


def numbers(frame, tolerances, place=""):
    """Entries for `save_results`, of a DataFrame whose first index names a method or run.

    Of each of them the columns {name: tolerance}, with a value for each row, a seed; NaN is left
    out.
    """
    return [
        {"method": name, "quantity": column, "place": place, "tolerance": tolerance}
        | {"seeds": list(rows[column].dropna())}
        for name, rows in frame.groupby(level=0, sort=False)
        for column, tolerance in tolerances.items()
    ]


def save_results(name, folder, *, parameters, criteria, numbers, rates=None, **more):
    """Write the record <name>.json: numbers only, no formatted text.

    parameters: of `parameters`. criteria: rows of `lab.criteria.judge`. numbers: what
    `make check` compares between runs, a list of
    {"method": ..., "quantity": ..., "place": ..., "tolerance": ..., "seeds": [one number a seed]}.
    rates: {method: learning rate}; the numbers of a method are compared only at equal rates.
    more: as `write_json` takes it.
    """
    environment = _environment(parameters.get("DEVICE", "auto"))
    content = {"parameters": parameters, "environment": environment, "criteria": criteria}
    content |= {"numbers": numbers, "rates": rates or {}, **more}
    write_json(Path(folder) / f"{name}.json", content)


def read_results(name, folder, **same):
    """The content of <folder>/<name>.json.

    same: parameters which it must share. FileNotFoundError and ValueError say what to run first.
    """
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        first = "`make language`" if name == "language" else f"notebooks/{name}.ipynb"
        raise FileNotFoundError(f"{path} is missing: run {first} first")
    content = json.loads(path.read_text(encoding="utf-8"))
    if other := [key for key in same if same[key] != content["parameters"].get(key)]:
        same = ", ".join(other)
        raise ValueError(f"{path} is of another {same}: run notebooks/{name}.ipynb with the same")
    return content


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


def write_json(path, content):
    """Write a dict as JSON: DataFrames as lists of rows, tensors as lists, NaN as null."""
    write(path, (json.dumps(_plain(content), indent=1, allow_nan=False) + "\n").encode())


def _environment(device):
    """Versions, machine, commit, time since this module was imported, and memory so far."""
    changed = git("diff", "--name-only", "HEAD", "--", ":!figures")  # a run itself writes figures/
    commit = git("describe", "--always").strip() or "unknown"
    device = pick_device(device)
    found = {
        "python": platform.python_version(),
        **{package: version(package).partition("+")[0] for package in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "commit": f"{commit}-dirty" if changed else commit,
        "seconds": round(time.time() - START),
    }
    if resource:
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kibibytes /= 1024 if sys.platform == "darwin" else 1  # bytes on a Mac
        found["peak_memory_gb"] = round(kibibytes / 2**20, 2)
    return found


def _plain(value):
    """The value as JSON can hold it."""
    if isinstance(value, pd.DataFrame):
        named = any(name is not None for name in value.index.names)
        return _plain((value.reset_index() if named else value).to_dict("records"))
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic, pd.Series)):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value
