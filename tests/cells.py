"""What tests of notebooks share: the functions in their cells."""

import ast
import json

from lab import ROOT

KEPT = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def sources(name):
    """Return {id: source} of the cells of code of a notebook."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    return {c["id"]: "".join(c["source"]) for c in cells if c["cell_type"] == "code"}


def functions(name, **names):
    """Return {name: what it is} of the functions and imports in a notebook's cells; names: what
    else they use."""
    tree = ast.parse("\n".join(sources(name).values()))
    tree.body = [node for node in tree.body if isinstance(node, KEPT)]
    exec(compile(tree, name, "exec"), names)
    return names


def run(name, cell, **names):
    """Return the names of a notebook after one of its cells has run, beside its functions."""
    names = functions(name, **names)
    exec(sources(name)[cell], names)
    return names
