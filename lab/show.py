"""What a notebook shows: source code, tables, figures, sliders."""

import functools
import inspect
import math
import os

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from PIL import Image

from lab import ROOT, parallel, record

FASHION = ROOT / "figures" / "fashion"


def source(*functions):
    """Show the source of functions or classes, as it stands in their modules."""
    text = "\n\n\n".join(inspect.getsource(function).rstrip() for function in functions)
    display(Markdown(f"```python\n{text}\n```"))


def table(frame):
    """Show a DataFrame, with its index if that has a name, as a Markdown table."""
    frame = frame.reset_index() if frame.index.name is not None else frame
    display(Markdown(frame.to_markdown(index=False, disable_numparse=True)))


def fashion(name, table_name, by, columns):
    """Show the `summary` of a table of the saved run on Fashion-MNIST, figures/fashion/<name>.json,
    if there is one."""
    if (FASHION / f"{name}.json").exists():
        frame = record.read(name, FASHION)["tables"][table_name]
        table(summary(frame, by, columns).rename_axis("Fashion-MNIST"))


def saved_figure(name):
    """Show figures/<name>.png, of a run that was saved, at half of its resolution."""
    alt = {"image/png": {"alt": name.replace("_", " ")}}
    display(Image.open(ROOT / "figures" / f"{name}.png").reduce(2), metadata=alt)


def figure(fig):
    """Show the figure with its description fig.alt, and close it."""
    display(fig, metadata={"image/png": {"alt": fig.alt}})
    plt.close(fig)


def live():
    """Return whether a front end that we know looks at this notebook, and no run of `make`."""
    vs_code = "VSCODE_PID" in os.environ and os.environ.get("TERM_PROGRAM") != "vscode"
    jupyter = not {"JPY_SESSION_NAME", "COLAB_RELEASE_TAG"}.isdisjoint(os.environ)
    return parallel.TERMINAL is None and (vs_code or jupyter)  # a terminal of VS Code is none


def interactive(draw, **choices):
    """Show the figure draw(**choices); in a live notebook with a control for each choice.

    choices: {argument: (least, most, step), a slider; or a list, a menu}. Controls start at the
    defaults that `draw` has. Elsewhere, as in a saved notebook, there is the figure of these.
    """
    if not live():
        if parallel.TERMINAL is None:
            print("Sliders: open this notebook in JupyterLab, VS Code or Colab")
        return figure(draw())
    drawn = functools.wraps(draw)(lambda **chosen: figure(draw(**chosen)))
    controls = ipywidgets.interactive(drawn, **choices)
    for control in controls.children[:-1]:
        control.continuous_update = False  # or each pixel of a drag would train
        control.style.description_width, control.layout.width = "9em", "26em"
    display(controls)


def mean_and_deviation(values, digits):
    """Mean ± sample standard deviation of one number a seed, as text: "1,802 ± 181".

    digits: decimals of both. A single value, or equal ones, stand alone; a dash stands for NaN.
    """
    values = np.array([float(value) for value in values])
    if np.isnan(values).any():
        return "–"
    numbers = [values.mean(), values.std(ddof=1)] if np.ptp(values) else [values[0]]
    # Rounded as a format rounds, in figures and tests; adding 0 turns -0.0 into 0.0
    rounded = [float(f"{number:.{digits}f}") + 0 for number in numbers]
    return " ± ".join(f"{number:,.{digits}f}" for number in rounded)


def summary(frame, by, columns, paper=None):
    """Return `mean_and_deviation` of columns over the rows of each group, a DataFrame for `table`.

    columns: {column of the frame: (heading, decimals)}, or (heading, decimals, 100) for percent of
    a share. paper: {group: {column: its number in the paper}}, added in brackets.
    """
    text = {}
    for column, (heading, digits, *scale) in columns.items():
        scaled = frame.assign(**{column: frame[column] * math.prod(scale)})
        cells = scaled.groupby(by, sort=False)[column].apply(mean_and_deviation, digits)
        said = {group: row[column] for group, row in (paper or {}).items() if column in row}
        text[heading] = [f"{t} ({said[g]})" if g in said else t for g, t in cells.items()]
    return pd.DataFrame(text, index=cells.index)


def criteria(rows):
    """Show a table of criteria, and return what `record.save` takes. rows: tuples of a claim, the
    numbers measured, a comparison and a bound, see `record.criterion`."""
    results, text = [record.criterion(*row) for row in rows], []
    for row in results:
        numbers = np.array(row["measured"] or [None], float)  # None is NaN
        ends = dict.fromkeys(f"{end(numbers):,.3g}" for end in (np.min, np.max))
        holds, bound = row["holds"], f"{row['comparison']} {row['bound']:g}"
        text.append((row["claim"], bound, " to ".join(ends), "holds" if holds else "**fails**"))
    table(pd.DataFrame(text, columns=["criterion", "bound", "measured", ""]))
    return results
