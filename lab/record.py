"""What a notebook shows and saves: figures, tables, source code, and the record of its numbers."""

import inspect
import io
import json
import math
import os
import platform
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from lab import ROOT
from lab.check import git
from lab.data import pick_device

START = time.time()
PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn")

# --- Shown --------------------------------------------------------------------------------


def show_source(*functions):
    """Show the source of functions or classes, as it stands in their modules."""
    source = "\n\n\n".join(inspect.getsource(function).rstrip() for function in functions)
    display(Markdown(f"```python\n{source}\n```"))


def show_table(frame):
    """Show a DataFrame as a Markdown table, its index as the first column if it has a name.

    Text is shown as it is, numbers have four significant digits, and undefined ones are a dash.
    The name of an index may be "".
    """
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    rows = [list(frame.columns), ["---"] * frame.shape[1], *frame.astype(object).values.tolist()]
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    display(Markdown("\n".join(lines)))


def _cell(value):
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if pd.isna(value):
        return "–"
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.4g}"
    return str(value) if isinstance(value, bool) else f"{value:,.0f}"


def spread(values, digits):
    """Mean ± sample standard deviation of one number per seed, as text: "1,802 ± 181".

    digits: decimals of both. A single value, or equal ones, stand alone; a dash stands for no
    value, or where one is NaN.
    """
    values = np.array([float(value) for value in values])
    if not len(values) or np.isnan(values).any():
        return "–"
    numbers = [values.mean(), values.std(ddof=1)] if np.ptp(values) else [values[0]]
    # Adding 0 turns the -0.0 of a small negative number into 0.0
    return " ± ".join(f"{round(number, digits) + 0:,.{digits}f}" for number in numbers)


def span(values, digits):
    """The lowest and the highest of some numbers, as text: "0.984 to 0.996"."""
    values = [float(value) for value in values]
    if not values or any(map(math.isnan, values)):
        return "–"
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def summary(frame, by, digits):
    """`spread` of columns {name: decimals} over the rows of each group, as a DataFrame of text."""
    groups = frame.groupby(by, sort=False)
    return pd.DataFrame(
        {name: groups[name].apply(spread, decimals) for name, decimals in digits.items()}
    )


# --- Saved --------------------------------------------------------------------------------


def output_folder(path):
    """The folder for figures and numbers, made if need be; relative to the repository.

    Raises OSError if nothing can be written there: before a long run, not after it.
    """
    folder = ROOT / path
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


def save_figure(fig, name, folder, alt):
    """Write <name>.png and <name>.pdf, show the figure, and close it.

    The same figure gives the same bytes. alt: a description for those who cannot see it.
    """
    for kind, metadata in {"png": {"Software": None}, "pdf": {"CreationDate": None}}.items():
        buffer = io.BytesIO()
        fig.savefig(buffer, format=kind, metadata=metadata)
        _write(Path(folder) / f"{name}.{kind}", buffer.getvalue())
    display(fig, metadata={"image/png": {"alt": alt}})
    plt.close(fig)


def save_results(name, folder, *, parameters, criteria, numbers, rates=None, **more):
    """Write the record <name>.json: numbers only, no formatted text.

    parameters: of `parameters`. criteria: rows of `lab.check.judge`. numbers: what
    `make check` compares between runs, a list of
    {"method": ..., "quantity": ..., "place": ..., "tolerance": ..., "seeds": [one number a seed]}.
    rates: {method: learning rate}; the numbers of a method are compared only at equal rates.
    more: DataFrames become lists of rows, tensors and arrays lists, and NaN becomes null.
    """
    environment = _environment(parameters.get("DEVICE", "auto"))
    content = {"parameters": parameters, "environment": environment, "criteria": criteria}
    content |= {"numbers": numbers, "rates": rates or {}, **more}
    text = json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"
    _write(Path(folder) / f"{name}.json", text.encode())


def numbers(frame, by, tolerances, place=""):
    """Entries for `save_results`: of each group of rows the columns {name: tolerance}, by seed."""
    return [
        {"method": name, "quantity": column, "place": place, "tolerance": tolerance}
        | {"seeds": list(rows[column])}
        for name, rows in frame.groupby(by, sort=False)
        for column, tolerance in tolerances.items()
    ]


def read_results(name, folder):
    """The content of <folder>/<name>.json; FileNotFoundError says which notebook to run first."""
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        first = "`make language`" if name == "language" else f"notebooks/{name}.ipynb"
        raise FileNotFoundError(f"{path} is missing: run {first} first")
    return json.loads(path.read_text())


def _environment(device):
    """Versions, machine, commit, time since this module was imported, and memory so far."""
    changed = git("diff", "--name-only", "HEAD", "--", ":!figures")  # a run itself writes figures/
    commit = git("describe", "--always").strip() or "unknown"
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kibibytes /= 1024 if sys.platform == "darwin" else 1  # bytes on a Mac
    on_gpu = pick_device(device).type == "cuda"
    return {
        "python": platform.python_version(),
        **{package: version(package).partition("+")[0] for package in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "commit": f"{commit}-dirty" if changed else commit,
        "seconds": round(time.time() - START),
        "peak_memory_gb": round(kibibytes / 2**20, 2),
    }


def _plain(value):
    """The value as JSON can hold it."""
    if isinstance(value, pd.DataFrame):
        return _plain(value.to_dict("records"))
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic, pd.Series)):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _write(path, content):
    """Write bytes so that an interrupted run leaves the old file or the new one, and no part."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)
