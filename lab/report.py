"""What the notebooks show and save: figures, tables, claims and results as files."""

import inspect
import io
import json
import operator
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from helpers import ROOT

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


def save_figure(fig, name, folder=ROOT / "figures", alt=""):
    """Write <name>.png and <name>.pdf (same bits for the same run), then show the figure.

    alt: a text for those who cannot see it.
    """
    for kind, metadata in {"png": {"Software": None}, "pdf": {"CreationDate": None}}.items():
        with io.BytesIO() as buffer:
            fig.savefig(buffer, format=kind, metadata=metadata)
            _write(Path(folder) / f"{name}.{kind}", buffer.getvalue())
    display(fig, metadata={"image/png": {"alt": alt}})
    plt.close(fig)


def save_results(name, *, parameters, claims, table, folder=ROOT / "figures", **extra):
    """Write <name>.json: parameters, environment, claims, table and extra, DataFrames by rows."""
    packages = "torch numpy scipy pandas matplotlib seaborn scikit-learn".split()
    environment = {
        "python": platform.python_version(),
        **{p: version(p).split("+")[0] for p in packages},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "wall_seconds": round(time.time() - START),
        "peak_memory_gb": _peak_memory(),
    }
    content = dict(parameters=parameters, environment=environment, claims=claims, table=table)
    text = json.dumps(_plain(content | extra), indent=1, allow_nan=False) + "\n"
    _write(Path(folder) / f"{name}.json", text.encode())


def keep_models(models, trained, path):
    """Write trained models for another notebook; `trained`, a dict, says how they came about."""
    with io.BytesIO() as buffer:
        torch.save({"trained": trained, "states": [m.state_dict() for m in models]}, buffer)
        _write(Path(path), buffer.getvalue())


def fill_models(models, trained, path):
    """Give models the weights of a file of `keep_models`; False unless it was trained this way."""
    kept = torch.load(path, map_location="cpu") if Path(path).exists() else {}
    if kept.get("trained") != trained or len(kept["states"]) != len(models):
        return False
    for model, state in zip(models, kept["states"]):
        model.load_state_dict(state)
    return True


def _processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _peak_memory():
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


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
    return f"{v:,.0f}" if abs(v) >= 10 ** (digits - 1) else f"{v:.{digits}g}"


# --- Claims -------------------------------------------------------------------------------

CLAIMS = ROOT / "notebooks" / "claims.csv"
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


def judge(notebook, measured, data="digits"):
    """Hold measurements against the claims of claims.csv: a list with a dict for each criterion.

    measured: {key: one number or list of numbers for each criterion}. A list meets a criterion
    if every number in it does; one that is undefined, or was not measured, does not. Raises
    ValueError for what is no claim of this notebook and data.
    """
    claims = pd.read_csv(CLAIMS, keep_default_na=False)
    claims = claims[(claims.notebook == notebook) & (claims.data == data)]
    if unknown := set(measured) - set(claims.key):
        raise ValueError(f"{CLAIMS.name} has no claims {unknown} for {notebook} on the {data}")
    judged = []
    for key, rows in claims.groupby("key", sort=False):
        for row, value in zip(
            rows.to_dict("records"), measured.get(key, [None] * len(rows)), strict=True
        ):
            values = np.array(value, float)
            holds = values.size > 0 and COMPARISONS[row["comparison"]](values, row["bound"]).all()
            judged.append(row | {"measured": value, "holds": bool(holds)})
    return judged


def show_claims(judged):
    """The verdicts of `judge` as a table, one line for each criterion."""
    rows = [
        {
            "by": c["by"],
            "claim": c["claim"],
            "criterion": f"{c['quantity']} {c['comparison']} {c['bound']:g}",
            "published": c["published"],
            "measured": number(c["measured"], 3),
            "holds": "yes" if c["holds"] else "**no**",
        }
        for c in judged
    ]
    show_table(pd.DataFrame(rows))
