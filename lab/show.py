"""What a notebook shows: source code, tables, figures, and numbers as text."""

import inspect
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from lab import record

COLUMNS = {  # measured: the name that readers know, and decimals
    "parameters": ("parameters", 0),
    "l0": ("L0", 1),
    "dead": ("dead units", 0),
    "redundancy": ("redundancy", 1),
    "entropy": ("entropy", 2),
    "agreement": ("agreement", 3),
    "replaced": ("units replaced", 0),
    "loss": ("loss", 0),
    "variance term": ("variance term", 0),
    "the rest": ("the rest", 0),
    "log variance": ("log variance of a living unit", 2),
    "growth": ("growth of $W$", 3),
    "classifier": ("classifier, %", 1),
    "norm-matched": ("MSE, norm-matched", 3),
    "explained": ("variance explained", 3),
    "own": ("variance explained", 3),
    "best": ("with the best linear decoder", 3),
    "cut": ("cut to ten", 3),
    "purity": ("purity", 3),
    "cosine": ("cosine of encoder and decoder row", 2),
    "ratio": ("share of the best decoder's", 2),
    "rho": ("$\\rho$", 2),
    "added and V": ("cosine of what is added and decoder row", 2),
    "step and V": ("cosine of step and decoder row", 2),
    "recovered": ("loss recovered, %", 1),
}


def source(*functions):
    """Show the source of functions or classes, as it stands in their modules."""
    text = "\n\n\n".join(inspect.getsource(function).rstrip() for function in functions)
    display(Markdown(f"```python\n{text}\n```"))


def table(frame):
    """Show a DataFrame as a Markdown table, see `markdown`."""
    display(Markdown(markdown(frame)))


def markdown(frame):
    """A DataFrame as a Markdown table, its index as the first column if it has a name.

    Text is shown as it is, numbers have four significant digits, and undefined ones are a dash.
    The name of an index may be "".
    """
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    rows = [list(frame.columns), ["---"] * frame.shape[1], *frame.astype(object).values.tolist()]
    return "\n".join("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows)


def _cell(value):
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if pd.isna(value):
        return "–"
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.4g}"
    return str(value) if isinstance(value, bool) else f"{value:,.0f}"


def figure(fig, name=None, folder=None):
    """Show the figure with its description fig.alt, and close it; with a name, write <name>.png and
    <name>.pdf into the folder.
    """
    if name:
        record.write_figure(fig, name, folder)
    display(fig, metadata={"image/png": {"alt": fig.alt}})
    plt.close(fig)


def spread(values, digits):
    """Mean ± sample standard deviation of one number per seed, as text: "1,802 ± 181".

    digits: decimals of both. A single value, or equal ones, stand alone; a dash stands for no
    value, or where one is NaN.
    """
    values = np.array([float(value) for value in values])
    if not len(values) or np.isnan(values).any():
        return "–"
    numbers = [values.mean(), values.std(ddof=1)] if np.ptp(values) else [values[0]]
    return " ± ".join(_rounded(number, digits) for number in numbers)


def mean(values, digits):
    """The mean of some numbers, as text; NaN is left out, and a dash stands for no value."""
    values = np.array([float(value) for value in values])
    values = values[np.isfinite(values)]
    return _rounded(values.mean(), digits) if len(values) else "–"


def span(values, digits):
    """The lowest and the highest of some numbers, as text: "0.984 to 0.996"."""
    values = [float(value) for value in values]
    if not values or any(map(math.isnan, values)):
        return "–"
    low, high = (_rounded(value, digits) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _rounded(number, digits):
    # Adding 0 turns the -0.0 of a small negative number into 0.0
    return f"{round(number, digits) + 0:,.{digits}f}"


def summary(table, by, columns, title=None, paper=None, text=spread):
    """`text` (`spread`, `span` or `mean`) of columns over the rows of each group, by one column or
    several: a DataFrame with names and decimals as `COLUMNS` has them, to be shown by `table`.

    title: in place of the name of its index. paper: {column: {group: number}}, the paper's numbers,
    which are added in brackets.
    """
    groups = table.groupby(by, sort=False)
    shown = pd.DataFrame({name: groups[name].apply(text, COLUMNS[name][1]) for name in columns})
    for column, values in (paper or {}).items():
        for group, number in values.items():
            shown.loc[group, column] += f" ({number})"
    shown = shown.rename(columns={name: COLUMNS[name][0] for name in columns})
    return shown if title is None else shown.rename_axis(title)


def criteria(rows):
    """Show a table of criteria, and return what `record.save` takes. rows: lists of a claim, the
    numbers measured, a comparison and a bound, see `lab.record.criterion`."""
    found = [record.criterion(*row) for row in rows]

    def text(number):
        return f"{number:,.3g}" if abs(number) < 1000 else f"{number:,.0f}"

    shown = [
        {
            "criterion": row["claim"],
            "bound": f"{row['comparison']} {row['bound']:g}",
            "measured": " to ".join(
                dict.fromkeys(text(f(row["measured"] or [np.nan])) for f in (np.min, np.max))
            ),
            "": "holds" if row["holds"] else "**fails**",
        }
        for row in found
    ]
    table(pd.DataFrame(shown))
    return found
