"""What tests of notebooks share: the functions in their cells, and what is drawn in a figure."""

import ast
import json

import numpy as np
from matplotlib.text import Text

from lab import ROOT

KEPT = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def sources(name):
    """{id: source} of the cells of code of a notebook."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    return {c["id"]: "".join(c["source"]) for c in cells if c["cell_type"] == "code"}


def notebook(name, **names):
    """{name: what it is} of the functions, classes and imports in a notebook's cells; names: what
    else its functions use."""
    tree = ast.parse("\n".join(sources(name).values()))
    tree.body = [node for node in tree.body if isinstance(node, KEPT)]
    exec(compile(tree, name, "exec"), names)
    return names


def checked(figure):
    """The axes of a figure that has a description, no text too small to read, and none cut off."""
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert figure.alt and min(text.get_fontsize() for text in texts) >= 6
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01
    return figure.axes


def dots(axis, filled=True):
    """x and y (n, 2) of all round marks of an axis, filled or open."""
    kinds = [(line, line.get_markerfacecolor() not in ("w", "none")) for line in axis.lines]
    kept = [line for line, full in kinds if line.get_marker() == "o" and full == filled]
    return np.concatenate([line.get_xydata() for line in kept])


def shown(axis):
    """The texts that were written into an axis."""
    return [text.get_text() for text in axis.texts]
