"""What tests of notebooks share: the functions and constants in their cells."""

import ast
import json

from lab import ROOT

KEPT = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def functions(notebook, cell=None, **names):
    """Return {name: what it is} of the functions and imports in a notebook's cells, and of what one
    cell assigns to names in capitals; names: what else they use."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text("utf-8"))["cells"]
    kept = []
    for one in cells:
        if one["cell_type"] == "code":
            nodes = ast.parse("".join(one["source"])).body
            kept += [
                n for n in nodes if isinstance(n, KEPT) or one["id"] == cell and is_constant(n)
            ]
    exec(compile(ast.Module(kept, []), notebook, "exec"), names)
    return names


def is_constant(node):
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()
