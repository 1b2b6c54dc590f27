"""The functions in the cells of a notebook, for tests."""

import ast
import json

from lab import ROOT

KEPT = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def notebook(name, **names):
    """Return {name: what it is} of the functions, classes and imports in a notebook's cells.

    names: what else its functions use.
    """
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    source = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, KEPT)]
    exec(compile(tree, name, "exec"), names)
    return names
