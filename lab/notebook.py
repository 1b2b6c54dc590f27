"""What notebooks show and save: figures, tables, verdicts, results, and their parameters."""

import inspect
import io
import json
import os
import platform
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from lab import ROOT
from lab.claims import git

START = time.time()

# --- Files --------------------------------------------------------------------------------


def output_folder(path="figures"):
    """The folder for figures and results, made if need be; relative to the repository.

    Raises OSError before a run, not after it, when nothing can be written there.
    """
    folder = ROOT / path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise type(error)(f"OUTPUT {folder} cannot be written ({error}); choose another") from None
    return folder


def save_figure(fig, name, folder, alt):
    """Write <name>.png and <name>.pdf (same bits for the same run), then show the figure.

    alt: {name: a text for those who cannot see it}.
    """
    for kind, metadata in {"png": {"Software": None}, "pdf": {"CreationDate": None}}.items():
        buffer = io.BytesIO()
        fig.savefig(buffer, format=kind, metadata=metadata)
        _write(Path(folder) / f"{name}.{kind}", buffer.getvalue())
    display(fig, metadata={"image/png": {"alt": alt[name]}})
    plt.close(fig)


def save_results(name, *, parameters, claims, folder=ROOT / "figures", **extra):
    """Write <name>.json: parameters, environment, claims judged, and extra, DataFrames by rows."""
    packages = "torch numpy scipy pandas matplotlib seaborn scikit-learn".split()
    environment = {"python": platform.python_version()}
    environment |= {package: version(package).split("+")[0] for package in packages}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    environment |= {"platform": f"{platform.system()} {platform.machine()}", "device": device}
    environment |= {"commit": _commit(), "wall_seconds": round(time.time() - START)}
    environment["peak_memory_gb"] = _peak_memory()
    content = dict(parameters=parameters, environment=environment, claims=claims.judge())
    _write(Path(folder) / f"{name}.json", _json(content | extra))


def save_numbers(name, content, folder):
    """Write <name>.json, what another notebook reads, only where its content changes: so that
    notebook runs again when these numbers change, and not when a label does."""
    path, text = Path(folder) / f"{name}.json", _json(content)
    if not path.exists() or path.read_bytes() != text:
        _write(path, text)


def _commit():
    """git describe --always --dirty, where figures/, which a run itself writes, does not count."""
    commit, changed = git("describe", "--always"), git("diff", "--raw", "HEAD", "--", ":!figures")
    return (commit.strip() or "unknown") + "-dirty" * bool(changed)


def read_results(name, folder=ROOT / "figures"):
    """The content of <name>.json in a folder, or else in figures/."""
    for path in (Path(folder) / f"{name}.json", ROOT / "figures" / f"{name}.json"):
        if path.exists():
            return json.loads(path.read_text())
    raise FileNotFoundError(f"no {name}.json in {folder}: run the notebook that writes it first")


def parameters(variables):
    """The settings among a notebook's variables: plain values in capitals, as its parameters are.

    Functions, tensors and names as short as K or L0 are none, in whatever order cells run.
    """
    plain = (int, float, str, list, dict, type(None), bool)
    mine = {k: v for k, v in variables.items() if k.isupper() and type(v) in plain}
    return {k: v for k, v in mine.items() if len(k) > 2 and k != "PARAMETERS"}


def _peak_memory():
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2)


def _json(content):
    return (json.dumps(_plain(content), indent=1, allow_nan=False) + "\n").encode()


def _plain(value):
    """For JSON: tables as rows, tensors and arrays as lists, undefined numbers as null."""
    if isinstance(value, pd.DataFrame):
        return _plain(value.to_dict("records"))
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _write(path, content):
    """All or nothing: a run killed at any point leaves the old file or the new one."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


# --- Tables -------------------------------------------------------------------------------


def show_source(*functions):
    """Show the source of functions or classes as it stands in its module: what is read is run."""
    text = "\n\n".join(inspect.getsource(f).rstrip() for f in functions)
    display(Markdown(f"```python\n{text}\n```"))


def show_table(frame):
    """Show a DataFrame as a Markdown table, its index as the first column if it has a name."""
    frame = frame.reset_index() if any(frame.index.names) else frame
    rows = [list(frame.columns), ["---"] * frame.shape[1], *frame.values.tolist()]
    lines = [" | ".join(number(c).replace("|", "\\|") for c in row) for row in rows]
    display(Markdown("\n".join(f"| {line} |" for line in lines)))


def summary(frame, by, columns):
    """Mean ± standard deviation over the rows of each group, as text: a DataFrame by `by`."""

    def words(v):
        return f"{number(v.mean())} ± {number(v.std(), 2)}" if v.count() > 1 else number(v.mean())

    return frame.groupby(by, sort=False)[columns].agg(words)


def number(v, digits=4):
    """A number in words, of about so many digits; a list as its range; text as it is."""
    if isinstance(v, (list, tuple, np.ndarray)):
        if not len(v):
            return "–"
        low, high = (number(f(np.array(v, float)), digits) for f in (np.min, np.max))
        return low if low == high else f"{low} to {high}"
    if isinstance(v, (bool, str, int, np.integer)) or v is None:
        return "" if v is None else str(v)
    if not np.isfinite(v):
        return "–"
    if v == 0 or abs(v) >= 10 ** (digits - 1):
        return f"{v:,.0f}"
    return f"{v:#.{digits}g}"  # 0.410 beside 0.538


def show_claims(claims):
    """The verdicts on a notebook's criteria, as a table with a line for each."""
    frame = pd.DataFrame(claims.judge()).rename(columns={"paper": "the paper"})
    bounds = frame.comparison + " " + frame.bound.map("{:g}".format)
    frame["criterion"] = frame.quantity + " (" + frame.statistic + ") " + bounds
    frame["here"] = [number(sum(places.values(), []), 3) for places in frame.judged]
    words = {True: "yes", False: "**no**", None: "not measured"}
    frame["holds"] = [words[holds] for holds in frame.holds]
    show_table(frame[["by", "claim", "criterion", "the paper", "here", "holds"]])
