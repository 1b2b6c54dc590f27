"""What a notebook shows: tables, figures, pages and sources."""

import html
import inspect
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from lab import ROOT
from lab.parallel import RUN_BY_HAND


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


def show_page(name, height):
    """Show notebooks/<name> in a frame of some pixels' height. A saved notebook finds it by its
    relative address; one that is run by hand has all of it, since JupyterLab lets a page in a frame
    load no other files."""
    if RUN_BY_HAND:
        source = f'srcdoc="{html.escape(whole_page(name))}"'
    else:
        source = f'src="{name}"'
    frame = f'<iframe {source} width="100%" height="{height}" style="border: 0"></iframe>'
    display({"text/html": frame, "text/plain": f"{name}, a page for a browser"}, raw=True)


def whole_page(name):
    """Return notebooks/<name> with the scripts that it loads in it."""

    def script(found):
        return f"<script>{(ROOT / 'notebooks' / found[1]).read_text('utf-8')}</script>"

    page = (ROOT / "notebooks" / name).read_text("utf-8")
    return re.sub(r'<script src="(.*?)"></script>', script, page)


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


def show_summary(title, table, columns, paper=None, beside=None):
    """Show mean ± standard deviation over seeds of the columns of a DataFrame, below a title.

    table: a row for each key of its index, whose last part is the "seed". columns: {column:
    (heading, decimals)}. paper: {row: {column: its number in the paper}}, added in brackets.
    beside: a DataFrame of text with these rows, which stands first.
    """
    rows = [name for name in table.index.names if name != "seed"]
    text = {} if beside is None else {heading: beside[heading] for heading in beside}
    for column, (heading, decimals) in columns.items():
        cells = table[column].groupby(rows, sort=False).agg(mean_and_deviation, decimals)
        for row, numbers in (paper or {}).items():
            if column in numbers:
                cells[row] += f" ({numbers[column]})"
        text[heading] = cells
    shown = pd.DataFrame(text)
    if len(rows) > 1:
        shown.index = [
            ", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in key)
            for key in shown.index
        ]
    show_table(shown.rename_axis(title))


def show_two_way(title, table, columns):
    """Show the same with one part of the index across: it says the row, the column and the seed. A
    row has a line for each of the columns."""
    row, across, _ = table.index.names
    lines = {}
    for name, of_row in table.groupby(row, sort=False):
        for column, (heading, decimals) in columns.items():
            cells = of_row[column].groupby(across, sort=False).agg(mean_and_deviation, decimals)
            lines[f"{name}: {heading}"] = cells
    show_table(pd.DataFrame(lines).T.rename_axis(title))


def show_ranges(title, table, number, decimals):
    """Show the lowest and highest over seeds of one column of a DataFrame, below a title. Its index
    says the row, the column and the seed."""
    rows, columns, _ = table.index.names
    cells = table[number].groupby([rows, columns]).agg(lowest_to_highest, decimals).unstack()
    cells = cells.loc[table.index.unique(rows), table.index.unique(columns)]  # in its order
    show_table(cells.fillna("–").rename_axis(title))
