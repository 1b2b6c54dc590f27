"""What the notebooks show and save: progress, numbers in words, figures, claims, results.

Nothing here is about the model; all of it is at hand as `helpers.<name>`, too.
"""

import inspect
import io
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.stats
import torch
import tqdm.auto

ROOT = Path(__file__).resolve().parent


# --- Progress -----------------------------------------------------------------------------


def in_front_end():
    """Whether a person may be looking: JupyterLab, Binder, Colab or VS Code, and not papermill."""
    return any(v in os.environ for v in ("JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "VSCODE_PID"))


def progress_bar(total, title, unit="epoch"):
    """A bar in scripts and front ends; under `make`, on its terminal and so in no saved output."""
    bar = dict(total=total, desc=title, unit=unit, leave=False)
    terminal = os.environ.get("PROGRESS", "")
    if title is not None and terminal.startswith("/dev/"):
        try:
            return tqdm.tqdm(**bar, file=open(terminal, "w"))
        except OSError:
            pass  # no such terminal any more
    silent = title is None or terminal or ("ipykernel" in sys.modules and not in_front_end())
    return tqdm.auto.tqdm(**bar, disable=bool(silent))


# --- Numbers in words ---------------------------------------------------------------------


def spread(values):
    """{"mean", "std" (sample), "ci95" (half-width of Student's 95 % interval), "seeds"}.

    None where undefined: values that are NaN, the spread of fewer than two.
    """
    values = [None if v is None or np.isnan(v) else float(v) for v in values]
    known = [v for v in values if v is not None]
    std = float(np.std(known, ddof=1)) if len(known) > 1 else None
    t = None if std is None else float(scipy.stats.t.ppf(0.975, len(known) - 1))
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": std,
        "ci95": None if std is None else t * std / len(known) ** 0.5,
        "seeds": values,
    }


def plus_minus(s, width="std"):
    """A `spread` in words: mean ± standard deviation, or ± "ci95"."""
    if s["mean"] is None:
        return "undefined"
    mean = _number(s["mean"])
    return mean if s[width] is None else f"{mean} ± {_number(s[width], 2)}"


def _number(v, digits=4):
    return f"{v:,.0f}" if abs(v) >= 10 ** (digits - 1) else f"{v:.{digits}g}"


def _words(value):
    if isinstance(value, dict):
        return "; ".join(f"{k} {_words(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(v) for v in value)
    return _number(value) if isinstance(value, float) else str(value)


# --- Figures ------------------------------------------------------------------------------


def figure_style():
    """One look for all figures: fit for one column (3.3 in) in print, colour-blind safe."""
    import seaborn as sns

    sizes = {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "legend.fontsize": 7}
    ticks = {"xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6}
    output = {"figure.dpi": 150, "savefig.dpi": 300, "pdf.fonttype": 42, "savefig.bbox": "tight"}
    layout = {"figure.constrained_layout.use": True, "lines.linewidth": 1.2}
    sns.set_theme("paper", "ticks", "colorblind", rc=sizes | ticks | output | layout)


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
    import matplotlib.pyplot as plt
    from IPython.display import display

    display(fig, metadata={"image/png": {"alt": alt}})
    plt.close(fig)


# --- Claims, tables, results --------------------------------------------------------------


def judge(claims, measured):
    """Hold measurements against criteria that were written first.

    claims: {key: (claim, criterion in words, criterion as a function of the measurement)};
    measured: {key: measurement}. Returns a list of {"claim", "criterion", "measured", "holds"}.
    Raises ValueError unless every claim was measured.
    """
    if set(claims) != set(measured):
        raise ValueError(f"claims and measurements differ: {set(claims) ^ set(measured)}")
    return [
        {
            "claim": claim,
            "criterion": criterion,
            "measured": measured[key],
            "holds": bool(test(measured[key])),
        }
        for key, (claim, criterion, test) in claims.items()
    ]


def show_source(*functions):
    """Show the source of functions or classes as it stands in its module: what is read is run."""
    from IPython.display import Markdown, display

    text = "\n\n".join(inspect.getsource(f).rstrip() for f in functions)
    display(Markdown(f"```python\n{text}\n```"))


def show_table(rows):
    """Show rows (dicts of the same keys) as a Markdown table."""
    from IPython.display import Markdown, display

    cells = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    lines = [" | ".join(str(c).replace("|", "\\|") for c in line) for line in cells]
    display(Markdown("\n".join(f"| {line} |" for line in lines)))


def show_claims(claims):
    """The verdicts of `judge` as a table."""
    show_table(
        [
            {
                "claim": c["claim"],
                "criterion, fixed before the run": c["criterion"],
                "measured": _words(c["measured"]),
                "holds": "yes" if c["holds"] else "**no**",
            }
            for c in claims
        ]
    )


def save_results(name, *, parameters, claims, table, folder=ROOT / "figures", **extra):
    """Write <name>.json: parameters, environment (versions, threads), claims, table, extra."""
    packages = ("torch", "numpy", "matplotlib", "scikit-learn")
    environment = {
        "python": platform.python_version(),
        **{p: version(p) for p in packages},
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }
    content = dict(parameters=parameters, environment=environment, claims=claims, table=table)
    text = json.dumps(_plain(content | extra), indent=1, allow_nan=False) + "\n"
    _write(Path(folder) / f"{name}.json", text.encode())


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
