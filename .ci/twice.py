"""Run each notebook with each of its cells twice in a row, as one does who edits and reruns. The
record must be of the parameters that the notebook has."""

import os

import nbformat
import papermill

from lab import NOTEBOOKS, ROOT, record

SMALL = {"SEEDS": [0, 1], "N_TRAIN": 640, "K": 24}
SCALES = (  # of notebooks 1 to 3
    {"SEEDS": [0], "N_STARTS": 20, "N_MIXTURE": 500, "EM_STEPS": 2, "EPOCHS": 1},
    SMALL | {"EPOCHS": 8, "SHORT_EPOCHS": 1},
    SMALL | {"EPOCHS": 1, "LONG_EPOCHS": 1, "PAPER_EPOCHS": 1, "TRIES": 1},
)

os.environ |= {"JUPYTER_PREFER_ENV_PATH": "1", "PROGRESS": "", "FIGURES": "build/twice/figures"}
folder = ROOT / "build" / "twice"
folder.mkdir(parents=True, exist_ok=True)
for name, parameters in zip(NOTEBOOKS, SCALES, strict=True):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), f"{name} has cells that have not been run"
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if "parameters" in cell.metadata.get("tags", []):
            exec(cell.source, settings := {})
            recorded = record.read(name)["parameters"].items()
            assert record.parameters(settings).items() <= recorded, f"figures/{name}.json is old"
        elif cell.cell_type == "code":
            cells.append(nbformat.from_dict(cell | {"id": f"{cell.id}-2"}))
    # A rerun of the set-up takes no other name in capitals for a parameter
    check = "assert record.parameters(globals()) == parameters"
    cells.append(nbformat.v4.new_code_cell(check))
    notebook.cells = cells
    nbformat.write(notebook, folder / f"{name}.doubled.ipynb")
    papermill.execute_notebook(
        folder / f"{name}.doubled.ipynb",
        folder / f"{name}.ipynb",
        parameters,
        kernel_name="python3",
        cwd=ROOT / "notebooks",
    )
