"""What a run does side by side, shows, and saves; `python -m lab.runs` compares it with the record.

The record is figures/ as committed. `make` moves what a run has saved there when it has ended.
"""

import functools
import html
import inspect
import json
import operator
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version

import ipywidgets
import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import tqdm.auto
from IPython.display import Markdown, display
from joblib.externals.loky.backend import reduction

from lab import NOTEBOOKS, ROOT

# `make` names the terminal on which bars are drawn, or "" if there is none
TERMINAL = os.environ.get("PROGRESS", "")
BY_HAND = "PROGRESS" not in os.environ
PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn")
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}

# --- Side by side ---------------------------------------------------------------------------------


def _share(tensor):
    """Tell joblib how to send a tensor to its processes: always as the same array of its memory, or
    it would write a large one into shared memory again for each item."""
    array = getattr(tensor, "as_array", None)
    same_memory = array is not None and array.ctypes.data == tensor.data_ptr()
    if not (same_memory and array.shape == tensor.shape):
        tensor.as_array = array = tensor.detach().cpu().numpy()
    return torch.from_numpy, (array,)


reduction.register(torch.Tensor, _share)


def run_in_parallel(function, items, title):
    """Return {item: function(item)}, each computed by one core, in as many processes as there are
    cores; long ones should come first. With tensors as small as ours, this is faster than one after
    the other with all cores, and does not depend on their number.
    """
    items = list(items)
    with joblib.Parallel(joblib.cpu_count(), return_as="generator", mmap_mode="c") as pool:
        results = pool(joblib.delayed(_with_one_thread)(function, item) for item in items)
        return dict(zip(items, _with_progress(results, title, len(items))))


def _with_one_thread(function, item):
    torch.set_num_threads(1)
    return function(item)


def _with_progress(results, title, total):
    style = {"desc": title, "total": total, "leave": False}
    if BY_HAND:
        yield from tqdm.auto.tqdm(results, **style)
    elif TERMINAL:
        with open(TERMINAL, "w") as file:
            yield from tqdm.tqdm(results, **style, file=file)
    else:
        yield from results


# --- What a notebook shows ------------------------------------------------------------------------


def show_source(*functions):
    """Show the source of functions or classes, as it stands in their modules."""
    text = "\n\n\n".join(inspect.getsource(function).rstrip() for function in functions)
    display(Markdown(f"```python\n{text}\n```"))


def show_table(frame):
    """Show a DataFrame, with its index if that has a name, as a Markdown table."""
    frame = frame.reset_index() if frame.index.name is not None else frame
    display(Markdown(frame.to_markdown(index=False, disable_numparse=True)))


def show_figure(fig):
    """Show the figure with its description fig.alt, and close it."""
    display(fig, metadata={"image/png": {"alt": fig.alt}})
    plt.close(fig)


def show_page(name):
    """Show notebooks/<name>, which can also be opened from disk; where scripts do not run, a text
    says so."""
    page = html.escape((ROOT / "notebooks" / name).read_text("utf-8"))
    frame = f'<iframe srcdoc="{page}" width="100%" height="1150" style="border: 0"></iframe>'
    said = f"To play with it, run this cell, or open notebooks/{name} in a browser."
    display({"text/html": frame, "text/plain": said}, raw=True)


def show_with_controls(draw, **choices):
    """Show the figure draw(**choices); in a live notebook with a control for each choice.

    choices: {argument: (least, most, step), a slider; or a list, a menu}. Controls start at the
    defaults that `draw` has. Elsewhere, as in a saved notebook, there is the figure of these.
    """
    if not BY_HAND:
        return show_figure(draw())
    drawn = functools.wraps(draw)(lambda **chosen: show_figure(draw(**chosen)))
    controls = ipywidgets.interactive(drawn, **choices)
    for control in controls.children[:-1]:
        control.continuous_update = False  # or each pixel of a drag would train
        control.style.description_width, control.layout.width = "9em", "26em"
    display(controls)


def mean_and_deviation(values, decimals):
    """Return mean ± sample standard deviation of one number a seed, as text: "1,802 ± 181".

    A single value, or equal ones, stand alone; a dash stands for NaN.
    """
    values = np.asarray(values, float)
    if np.isnan(values).any():
        return "–"
    numbers = [values.mean(), values.std(ddof=1)] if np.ptp(values) else [values[0]]
    rounded = [float(f"{number:.{decimals}f}") + 0 for number in numbers]  # no -0.0
    return " ± ".join(f"{number:,.{decimals}f}" for number in rounded)


def lowest_to_highest(values, decimals):
    """Return the lowest and highest of several numbers as text: "0.92 to 0.97"."""
    ends = [f"{end(np.asarray(values, float)):,.{decimals}f}" for end in (np.min, np.max)]
    return " to ".join(dict.fromkeys(ends))


def show_summary(title, frame, by, columns, paper=None):
    """Show a table of numbers, mean ± standard deviation, below a title.

    by: the column of a DataFrame that names the row of the table, or several. columns: {column:
    (heading, decimals)}. paper: {row: {column: its number in the paper}}, added in brackets.
    """
    text = {}
    groups = frame.groupby([by] if isinstance(by, str) else by, sort=False)
    for column, (heading, decimals) in columns.items():
        text[heading] = {
            ", ".join(key): mean_and_deviation(rows[column], decimals) for key, rows in groups
        }
        for row, numbers in (paper or {}).items():
            if column in numbers:
                text[heading][row] += f" ({numbers[column]})"
    show_table(pd.DataFrame(text).rename_axis(title))


def show_ranges(title, frame, rows, columns, number, decimals):
    """Show a table of the lowest and highest of a number, below a title; rows, columns and number
    are columns of a DataFrame."""
    cells = frame.groupby([rows, columns])[number].agg(lowest_to_highest, decimals).unstack()
    cells = cells.loc[frame[rows].unique(), frame[columns].unique()].fillna("–")
    show_table(cells.rename_axis(title))


# --- What a run saves -----------------------------------------------------------------------------


class Run:
    """A run of a notebook or of the language model, and where it saves.

    Parameters
    ----------
    name : of its record, <name>.json
    parameters : what it was run with
    """

    def __init__(self, name, **parameters):
        self.name = name
        self.parameters = parameters
        self.folder = ROOT / os.environ.get("OUTPUT", "build/by_hand")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.commit = _commit()
        self.start = time.time()
        self.criteria = []

    def save_and_show(self, fig, name):
        """Save the figure, and show it."""
        self.save_figure(fig, name)
        show_figure(fig)

    def save_figure(self, fig, name):
        """Write <name>.png and .pdf. The same figure gives the same bytes."""
        for kind, metadata in {"png": {"Software": None}, "pdf": {"CreationDate": None}}.items():
            fig.savefig(self.folder / f"{name}.{kind}", metadata=metadata)

    def show_criteria(self, rows):
        """Show a table of criteria. rows: of a claim, the numbers measured (one, or one a seed), a
        comparison and a bound. A criterion holds if each number compares so; NaN never does.
        """
        shown = []
        self.criteria = []
        for claim, measured, comparison, bound in rows:
            values = [float(value) for value in np.atleast_1d(measured)]
            holds = all(COMPARISONS[comparison](value, bound) for value in values)
            row = {"claim": claim, "comparison": comparison, "bound": bound, "holds": holds}
            finite = [value if np.isfinite(value) else None for value in values]
            self.criteria.append(row | {"measured": finite})
            ends = dict.fromkeys(f"{end(values):,.3g}" for end in (np.min, np.max))
            verdict = "holds" if holds else "**fails**"
            shown.append((claim, f"{comparison} {bound:g}", " to ".join(ends), verdict))
        show_table(pd.DataFrame(shown, columns=["criterion", "bound", "measured", ""]))

    def save(self, **tables):
        """Write <name>.json: parameters, criteria, and tables, DataFrames with a row for each
        model. Columns of text say which row it is, "seed" whose, and the others are measured.
        """
        packages = {package: version(package).partition("+")[0] for package in PACKAGES}
        machine = {"python": platform.python_version(), "platform": platform.system()}
        timing = {"commit": self.commit, "seconds": round(time.time() - self.start)}
        rows = {}
        for title, table in tables.items():
            which = [*_keys(table), "seed"]
            if table.duplicated(which).any():
                raise ValueError(f"table {title} has two rows of the same {which}")
            table = table.replace([np.inf, -np.inf], np.nan)
            table = table.astype(object).where(table.notna(), None)
            rows[title] = table.to_dict("records")
        content = {
            "parameters": self.parameters,
            "environment": packages | machine | timing,
            "criteria": self.criteria,
            "tables": rows,
        }
        text = json.dumps(content, indent=1, allow_nan=False, default=lambda number: number.item())
        (self.folder / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")


def read_tables(name, folder="figures"):
    """Return the tables of <folder>/<name>.json, {title: DataFrame}."""
    content = json.loads((ROOT / folder / f"{name}.json").read_text("utf-8"))
    return {title: pd.DataFrame(rows) for title, rows in content["tables"].items()}


def _keys(table):
    return [c for c in table if table[c].map(type).eq(str).any()]


def git(*words):
    """Return what git prints in this repository, or "" if it fails, or if there is no git."""
    try:
        command = ["git", "-C", ROOT, *words]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8").stdout
    except OSError:
        return ""


def _commit():
    """Return the commit, with "-dirty" if a file that computes has changed or is new."""
    changed = git("status", "--porcelain", "--", "helpers.py", "lab", "notebooks", "data")
    return (git("describe", "--always").strip() or "unknown") + "-dirty" * bool(changed)


# --- Whether a run agrees with the record ---------------------------------------------------------

# How far the number of one seed may be from the record's, or which share of it: as far as another
# processor's rounding moves it. Of a mean of n seeds, 1 / sqrt(n) of that; and any mean may move by
# STANDARD_ERRORS of the difference, from the record's own spread over seeds, but by the last number
# at most. The keys are the last words of columns.
TOLERANCES = {
    "classifier": (0.5, 0, 1.4),
    "explained": (2, 0, 1.4),
    "share": (2, 0, np.inf),
    "recovered": (2, 0, np.inf),
    "active": (0, 0.03, np.inf),
    "agreement": (0.02, 0, np.inf),
    "redundancy": (0.5, 0.03, np.inf),
    **dict.fromkeys(["parameters", "bound", "holds"], (0, 0, np.inf)),
}
OF_WHOLE_NUMBERS, OF_OTHERS = (1, 0.05, np.inf), (1e-6, 0.03, np.inf)
STANDARD_ERRORS = 2


def means_over_seeds(record):
    """Return a DataFrame of the means over seeds of all that a record holds: a row for each table,
    row of it and column, with "mean", "std", "n" seeds, and whether all are whole numbers."""
    criteria = [
        {k: c[k] for k in ("claim", "bound", "holds")} | {"seed": 0} for c in record["criteria"]
    ]
    tables = record["tables"] | ({"criteria": criteria} if criteria else {})
    parts = []
    for title, rows in tables.items():
        table = pd.DataFrame(rows)
        which = table[_keys(table)].apply(lambda row: ", ".join(map(str, row)), axis=1)
        values = table.drop(columns=_keys(table)).assign(which=which if len(table) else "")
        values = values.melt(["which", "seed"], var_name="column", value_name="number").dropna()
        parts.append(values.assign(table=title, number=values.number.astype(float)))
    groups = pd.concat(parts).groupby(["table", "which", "column"]).number
    whole = groups.apply(lambda v: bool((v % 1 == 0).all()))
    return groups.agg(["mean", "std", "count"]).assign(whole=whole)


def differences_from_record(record, run):
    """Return a row for each number of a record or run: "differs" says whether they disagree."""
    both = means_over_seeds(record).join(means_over_seeds(run).add_suffix(" of run"), how="outer")
    allowed = []
    for (_, _, column), row in both.iterrows():
        usual = OF_WHOLE_NUMBERS if row.whole is True else OF_OTHERS
        near, share, most = TOLERANCES.get(column.split()[-1], usual)
        one_seed = max(near, share * abs(row["mean"])) / row["count"] ** 0.5
        of_spread = STANDARD_ERRORS * np.nan_to_num(row["std"]) * (2 / row["count"]) ** 0.5
        allowed.append(max(one_seed, min(of_spread, most)))
    apart = (both["mean"] - both["mean of run"]).abs()
    same_seeds = both["count"] == both["count of run"]
    return both.assign(differs=~((apart <= allowed) & same_seeds))


def check_against_record():
    """Print what differs between figures/ and the record; return 1 if anything does or a notebook
    was not compared, else 0."""
    failed = False
    n_compared = n_differ = 0
    for name in (*NOTEBOOKS, "language"):
        path = ROOT / f"figures/{name}.json"
        record = json.loads(git("show", f"HEAD:./figures/{name}.json") or "null")
        run = json.loads(path.read_text("utf-8")) if path.exists() else None
        if not record or not run or record == run or record["parameters"] != run["parameters"]:
            command = "make clean`, then `make figures" if name in NOTEBOOKS else "make language"
            print(f"{name}: no other run of these parameters: run `{command}`")
            failed = failed or name in NOTEBOOKS
            continue
        compared = differences_from_record(record, run)
        different = compared[compared.differs]
        for (table, which, column), row in different.iterrows():
            there, here = f"{row['mean']:.6g}", f"{row['mean of run']:.6g}"
            print(f"{name}: {table}, {which}, {column}: {there} in the record, {here} in your run")
        n_compared += len(compared)
        n_differ += len(different)
    print(f"{n_compared} numbers and verdicts compared, {n_differ} of them differ")
    return int(failed or n_differ > 0)


if __name__ == "__main__":
    sys.exit(check_against_record())
