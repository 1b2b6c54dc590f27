"""What the notebooks show and save: figures, tables, verdicts on claims, and files."""

import inspect
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
import scipy.stats
import torch
from IPython.display import Markdown, display

from lab import ROOT

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


def save_results(name, *, parameters, claims, folder=ROOT / "figures", **extra):
    """Write <name>.json: parameters, environment, claims judged, and extra, DataFrames by rows."""
    packages = "torch numpy scipy pandas matplotlib seaborn scikit-learn".split()
    environment = {
        "python": platform.python_version(),
        **{p: version(p).split("+")[0] for p in packages},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "commit": _commit(),
        "wall_seconds": round(time.time() - START),
        "peak_memory_gb": _peak_memory(),
    }
    content = dict(parameters=parameters, environment=environment, claims=claims.judge())
    text = json.dumps(_plain(content | extra), indent=1, allow_nan=False) + "\n"
    _write(Path(folder) / f"{name}.json", text.encode())


def _commit():
    """git describe --always --dirty, where figures/, which a run itself writes, does not count."""
    described, changed = (
        subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True).stdout.strip()
        for words in (["describe", "--always"], ["diff", "--stat", "HEAD", "--", ":!figures"])
    )
    return described + "-dirty" * bool(changed)


def read_results(name, folder=ROOT / "figures"):
    """The content of <name>.json in a folder, or else in figures/."""
    for path in (Path(folder) / f"{name}.json", ROOT / "figures" / f"{name}.json"):
        if path.exists():
            return json.loads(path.read_text())
    raise FileNotFoundError(
        f"{name}.json is not in {folder}: run the notebook that writes it first"
    )


def parameters(variables):
    """The settings among a notebook's variables: plain values in capitals, as its parameters are.

    Functions, tensors and names as short as K or L0 are none, in whatever order cells run.
    """
    plain = (int, float, str, list, dict, type(None), bool)
    mine = {k: v for k, v in variables.items() if k.isupper() and type(v) in plain}
    return {k: v for k, v in mine.items() if len(k) > 2 and k != "PARAMETERS"}


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
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2)


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


# --- Claims -------------------------------------------------------------------------------

CLAIMS = ROOT / "notebooks" / "claims.csv"
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
STATISTICS = {  # of the values of all seeds: what is held against the bound
    "each": None,  # every value
    "mean": np.mean,
    "|mean|": lambda v: abs(np.mean(v)),
    "lower end": lambda v: interval(v)[1],
}


def interval(values):
    """(mean, low, high): Student's 95 % interval of a few values; NaN for fewer than two."""
    if len(values) < 2:
        return (float(np.mean(values)) if len(values) else np.nan, np.nan, np.nan)
    t = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return float(np.mean(values)), float(t.low), float(t.high)


class Claims(dict):
    """What a notebook measured for the criteria of claims.csv, by their ids.

    claims["id"] = a number, a list with one number a seed, or {place: one of these}, where a place
    is an L0, say. KeyError for an id that is not there, or is retired, or another notebook's.
    """

    def __init__(self, notebook, path=None):
        rows = pd.read_csv(path or CLAIMS, dtype=str, keep_default_na=False).to_dict("records")
        self.rows = {
            r["id"]: r | {"bound": float(r["bound"]), "floor": float(r["floor"])}
            for r in rows
            if r["notebook"] == notebook and not r["end"]
        }

    def __setitem__(self, id, values):
        if id not in self.rows:
            raise KeyError(
                f"claims.csv has no claim {id!r} of this notebook; it has {list(self.rows)}"
            )
        places = values if isinstance(values, dict) else {"": values}
        super().__setitem__(
            id, {str(k): np.atleast_1d(np.array(v, float)).tolist() for k, v in places.items()}
        )

    def judge(self, *ids):
        """A dict for each criterion, in the file's order: its row, "measured" {place: values},
        "judged" {place: what is held against the bound}, and "holds": whether it does at all
        places, with NaN never; None if it was not measured."""
        judged = []
        for id, row in self.rows.items():
            if ids and id not in ids:
                continue
            measured = self.get(id, {})
            of_all = STATISTICS[row["statistic"]] or (lambda v: v)
            held = {place: of_all(v) if v else [] for place, v in measured.items()}
            meets = COMPARISONS[row["comparison"]]
            held = {place: np.atleast_1d(np.array(v, float)).tolist() for place, v in held.items()}
            holds = [len(v) > 0 and all(meets(w, row["bound"]) for w in v) for v in held.values()]
            verdict = all(holds) if holds else None
            judged.append(row | {"measured": measured, "judged": held, "holds": verdict})
        return judged

    def say(self, *ids):
        """Print the verdicts of the ids, a line each."""
        for c in self.judge(*ids):
            values = number([v for w in c["judged"].values() for v in w], 3)
            verdict = {True: "holds", False: "FAILS", None: "not measured"}[c["holds"]]
            bound = f"{c['comparison']} {c['bound']:g}"
            print(f"{verdict}: {c['claim']} Measured: {values}; bound: {bound}.")

    def show(self, *ids):
        """The verdicts, all or those of the ids, as a table with a line for each criterion."""
        rows = [
            {
                "by": c["by"],
                "claim": c["claim"],
                "criterion": criterion(c),
                "the paper": c["paper"],
                "here": number([v for w in c["judged"].values() for v in w], 3),
                "holds": {True: "yes", False: "**no**", None: "not measured"}[c["holds"]],
            }
            for c in self.judge(*ids)
        ]
        show_table(pd.DataFrame(rows))


def criterion(row):
    """In words: what is measured, over seeds, and its bound."""
    statistic = {
        "each": "each",
        "mean": "mean",
        "|mean|": "mean, absolute",
        "lower end": "95 %, lower end",
    }
    return f"{row['quantity']} ({statistic[row['statistic']]}) {row['comparison']} {row['bound']:g}"
