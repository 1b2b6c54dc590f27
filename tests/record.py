"""Put notebooks that have run into their places, without what is known of the run only: `make
record`, or `record.py NOTEBOOK ...`, which were run into build/."""

import os
import sys
from pathlib import Path

import nbformat


def without_traces(notebook):
    """Return it without the cell that papermill adds, dates and versions; cells count from 1."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.language_info.pop("version", None)
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        for part in (cell, *(o for o in cell.outputs if "execution_count" in o)):
            part.execution_count = number
    return notebook


def main(paths):
    runs = {Path(path): Path("build") / Path(path).name for path in paths}
    for path, executed in runs.items():
        if path.stat().st_mtime > executed.stat().st_mtime:
            sys.exit(f"{path} has changed since it ran")
    for path, executed in runs.items():
        nbformat.write(without_traces(nbformat.read(executed, 4)), path)
        ran = executed.stat().st_mtime
        os.utime(path, (ran, ran))  # it need not run again, unless what it imports has changed


if __name__ == "__main__":
    main(sys.argv[1:])
