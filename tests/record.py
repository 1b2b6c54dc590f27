"""Put what notebooks printed into their places: `make record`, of all that have run into build/.

`record.py quick` makes what `make quick` wrote the record with which it is compared.
"""

import os
import shutil
import sys
from pathlib import Path

import nbformat
from check import printed, reduced
from matplotlib import pyplot as plt


def with_outputs(notebook, executed):
    """Return a notebook with the outputs of its run, and cells that count from 1. Raises ValueError
    if its code is not what ran."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    done = [
        cell
        for cell in executed.cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    if [cell.source for cell in cells] != [cell.source for cell in done]:
        raise ValueError("its code has changed since it ran")
    for number, (cell, ran) in enumerate(zip(cells, done), 1):
        cell.outputs, cell.execution_count = ran.outputs, number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
    return notebook


def renew_quick():
    for path in Path("build/quick").glob("*.csv"):
        shutil.copy(path, "tests/quick")
    for path in Path("build/quick").glob("*.png"):
        plt.imsave(f"tests/quick/{path.name}", reduced(path, by=8))

    Path("tests/quick/printed.txt").write_text("\n".join(printed("build/quick")) + "\n", "utf-8")


def main():
    for run in sorted(Path("build").glob("*.ipynb")):
        (path,) = [*Path("notebooks").glob(run.name), *Path("questions").glob(run.name)]
        try:
            notebook = with_outputs(nbformat.read(path, 4), nbformat.read(run, 4))
        except ValueError as error:
            sys.exit(f"{path}: {error}")
        nbformat.write(notebook, path)
        ran = run.stat().st_mtime
        os.utime(path, (ran, ran))  # it need not run again, unless what it imports has changed


if __name__ == "__main__":
    renew_quick() if sys.argv[1:] == ["quick"] else main()
