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
import scipy.stats
import torch
from IPython.display import Markdown, display

from helpers import ROOT, at_l0

START = time.time()

# --- Output -------------------------------------------------------------------------------


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
    """Write <name>.png and <name>.pdf (same bits for the same run), then show the figure."""
    for kind, metadata in {"png": {"Software": None}, "pdf": {"CreationDate": None}}.items():
        with io.BytesIO() as buffer:
            fig.savefig(buffer, format=kind, metadata=metadata)
            _write(Path(folder) / f"{name}.{kind}", buffer.getvalue())
    show_figure(fig, alt)


def show_figure(fig, alt):
    """Show a figure once, with a text for those who cannot see it."""
    display(fig, metadata={"image/png": {"alt": alt}})
    plt.close(fig)


def save_results(name, *, parameters, claims, table, folder=ROOT / "figures", **extra):
    """Write <name>.json: parameters, environment, claims, table (a DataFrame), and extra."""
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
    content = dict(parameters=parameters, environment=environment, claims=claims)
    content |= {"table": table.to_dict("records"), **extra}
    text = json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"
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
    """For JSON: tensors and arrays as lists, undefined numbers as null."""
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


# --- Tables and claims ----------------------------------------------------------------------


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
    groups = frame.groupby(by, sort=False)[columns]
    return groups.agg(
        lambda v: (
            f"{number(v.mean())} ± {number(v.std(), 2)}" if v.count() > 1 else number(v.mean())
        )
    )


def number(v, digits=4):
    """A number in words, of about so many digits; a list as its range; text as it is."""
    if isinstance(v, (list, tuple, np.ndarray)):
        if not len(v):
            return "undefined"
        low, high = (number(f(v), digits) for f in (np.min, np.max))
        return low if low == high else f"{low} to {high}"
    if isinstance(v, (bool, str, int, np.integer)) or v is None:
        return "" if v is None else str(v)
    if not np.isfinite(v):
        return "undefined"
    return f"{v:,.0f}" if abs(v) >= 10 ** (digits - 1) else f"{v:.{digits}g}"


def interval(values):
    """Mean of a few values and Student's 95 % interval of it: (mean, low, high)."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return np.nan, np.nan, np.nan
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def at_equal_l0(table, method, column, l0):
    """A method's value at an L0, seed by seed where its models enclose that L0: a Series.

    table: a row per model, with columns method, seed, l0. Probe accuracies and cosines are
    interpolated as they are, errors by their logarithm.
    """
    rows = table[table.method == method].groupby("seed")
    log = column not in ("probe", "cosine")
    return pd.Series({s: at_l0(r.l0, r[column], l0, log) for s, r in rows}, dtype=float).dropna()


def ratio(table, ours, theirs, column, l0):
    """(mean, low, high): `interval` of the ratio of errors (logs, paired by seed) at an L0.

    Of probe accuracies: of their difference.
    """
    a, b = (at_equal_l0(table, method, column, l0) for method in (ours, theirs))
    if column == "probe":
        return interval((a - b).dropna())
    return tuple(float(v) for v in np.exp(interval(np.log(a / b).dropna())))


COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


def claim(key, by, sentence, *criteria, published=None):
    """A claim as data, written before the run. criteria: (quantity, comparison, bound) each.

    by: "paper" or "companion"; published: the paper's own value, in words.
    """
    names = ("quantity", "comparison", "bound")
    criteria = [dict(zip(names, criterion, strict=True)) for criterion in criteria]
    return dict(key=key, by=by, claim=sentence, published=published, criteria=criteria)


def judge(claims, measured):
    """Hold measurements against claims. measured: {key: one number or list for each criterion}.

    A list meets a criterion if every number in it does; an undefined one does not. Returns the
    claims with "measured" and "holds" filled in. Raises ValueError unless every claim was measured.
    """
    if {c["key"] for c in claims} != set(measured):
        raise ValueError(
            f"claims and measurements differ: {measured.keys() ^ {c['key'] for c in claims}}"
        )
    judged = []
    for c in claims:
        criteria = [
            k
            | {
                "measured": m,
                "holds": _holds(k, m),
            }
            for k, m in zip(c["criteria"], measured[c["key"]], strict=True)
        ]
        holds = all(k["holds"] for k in criteria)
        judged.append(c | {"criteria": criteria, "holds": holds})
    return judged


def _holds(criterion, measured):
    values = np.array(measured, float)
    fine = COMPARISONS[criterion["comparison"]](values, criterion["bound"])
    return values.size > 0 and bool(fine.all())  # of nothing measured nothing holds


def show_claims(claims):
    """The verdicts of `judge` as a table, one line for each criterion."""
    rows = [
        {
            "by": c["by"] if i == 0 else "",
            "claim": c["claim"] if i == 0 else "",
            "criterion": f"{k['quantity']} {k['comparison']} {k['bound']:g}",
            "measured": number(k["measured"], 3),
            "holds": "yes" if k["holds"] else "**no**",
        }
        for c in claims
        for i, k in enumerate(c["criteria"])
    ]
    show_table(pd.DataFrame(rows))
