"""What a notebook shows: source code, tables, figures, sliders, and numbers as text."""

import inspect
import math

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from lab import record
from lab.parallel import live

COLUMNS = {  # measured: the name that readers know, and decimals
    "l0": ("L0", 1),
    "dead": ("dead units", 0),
    "redundancy": ("redundancy", 1),
    "entropy": ("entropy", 2),
    "classifier": ("classifier, %", 1),
    "norm-matched": ("MSE, norm-matched", 3),
    "mse": ("MSE, with gain and offset", 3),
    "explained": ("variance explained", 3),
    "explained_best": ("by the best decoder", 3),
    "weights and step": ("cosine of weights and step", 2),
    "step and decoder row": ("cosine of step and decoder row", 2),
    "weights and decoder row": ("cosine of weights and decoder row", 2),
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


def figure(fig):
    """Show the figure with its description fig.alt, and close it."""
    display(fig, metadata={"image/png": {"alt": fig.alt}})
    plt.close(fig)


def interactive(draw, **choices):
    """Show the figure draw(**choices); in a live notebook with a control for each choice.

    choices: {argument: (least, most) or (least, most, step), a slider; or a list, a menu}. Controls
    start at the defaults that `draw` has, and redraw when they are let go. Elsewhere, as in a saved
    notebook, there is the figure of the defaults alone.
    """
    if not live():
        return figure(draw())
    controls = {}
    for name, default in inspect.signature(draw).parameters.items():
        choice, look = choices[name], {"description": name, "value": default.default}
        if isinstance(choice, list):
            control = ipywidgets.Dropdown(options=choice, **look)
        else:
            whole = all(isinstance(number, int) for number in choice)
            slider = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
            control = slider(**dict(zip(("min", "max", "step"), choice)), **look)
            control.continuous_update = False  # or each pixel of a drag would train
        control.style.description_width = "9em"
        control.layout.width = "26em"
        controls[name] = control
    output = ipywidgets.interactive_output(lambda **chosen: figure(draw(**chosen)), controls)
    display(ipywidgets.VBox([*controls.values(), output]))


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


def summary(table, by, columns, text=spread, paper=None):
    """`text` (`spread`, `span` or `mean`) of columns over the rows of each group, by one column or
    several: a DataFrame with names and decimals as `COLUMNS` has them, to be shown by `table`.

    paper: a DataFrame of the paper's numbers, with groups as its index and some of the columns;
    they are added in brackets, as they are given.
    """
    groups = table.groupby(by, sort=False)
    shown = pd.DataFrame({name: groups[name].apply(text, COLUMNS[name][1]) for name in columns})
    for column in [] if paper is None else paper:
        for group, number in paper[column].dropna().items():
            shown.loc[group, column] += f" ({number:,g})"
    return shown.rename(columns={name: COLUMNS[name][0] for name in columns})


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
