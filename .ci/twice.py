"""Run each notebook with each of its cells twice in a row, as one does who edits and reruns."""

import os
from pathlib import Path

import nbformat
import papermill

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"SEEDS": [0, 1], "N_TRAIN": 1_280, "OUTPUT": "build/twice/figures"}
SCALES = {
    "1_theorem": {"SEEDS": [0], "N_STARTS": 20, "N_MIXTURE": 500, "EM_STEPS": 2, "EPOCHS": 1},
    "2_ablation": SMALL | {"EPOCHS": 8, "SHORT_EPOCHS": 1},
    "3_benchmark": SMALL | {"EPOCHS": 1, "LONG_EPOCHS": 1, "PAPER_EPOCHS": 1},
}

os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
folder = ROOT / "build" / "twice"
folder.mkdir(parents=True, exist_ok=True)
for name, parameters in SCALES.items():
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    cells = []
    for cell in notebook.cells:
        again = cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])
        cells += [cell, nbformat.from_dict(cell | {"id": f"{cell.id}-2"})] if again else [cell]
    notebook.cells = cells
    nbformat.write(notebook, folder / f"{name}.doubled.ipynb")
    papermill.execute_notebook(
        folder / f"{name}.doubled.ipynb",
        folder / f"{name}.ipynb",
        {"OUTPUT": "build/twice/figures"} | parameters,
        kernel_name="python3",
        cwd=ROOT / "notebooks",
    )
