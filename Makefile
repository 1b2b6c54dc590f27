# `make` lists what there is to make. Needs python3 and make; nothing else.
NOTEBOOKS := 1_theorem 2_ablation 3_benchmark

# Inside an active conda environment (Binder is one), use it; elsewhere make .venv.
ifneq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
  BIN := $(CONDA_PREFIX)/bin/
  INSTALLED :=
else
  BIN := .venv/bin/
  INSTALLED := .venv/.installed
endif
PYTHON := $(BIN)python

# Notebooks run in this environment's kernel, and draw their progress on this terminal.
export JUPYTER_PREFER_ENV_PATH := 1
export PROGRESS := $(shell tty)
PAPERMILL := $(PYTHON) -m papermill --kernel python3 --cwd notebooks
INPUTS := helpers.py data/mnist.npz
MADE := $(foreach n,$(NOTEBOOKS),build/$n.ipynb figures/$n.png figures/$n.pdf figures/$n.json)

# Executed notebooks without timings, paths and machine names; tags, ids and outputs stay.
define CLEAN
import base64, io, sys, nbformat
from PIL import Image
for name in sys.argv[1:]:
    notebook = nbformat.read(f"build/{name}.ipynb", 4)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        pictures = [o.data for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        for data in pictures:  # 256 colours keep the file below 1 MB
            picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
            picture.quantize(256).save(small := io.BytesIO(), "PNG", optimize=True)
            data["image/png"] = base64.b64encode(small.getvalue()).decode()
    nbformat.write(notebook, f"notebooks/{name}.ipynb")
endef
export CLEAN

.PHONY: help figures notebooks test bench clean
.DELETE_ON_ERROR:
.SECONDARY:

help:  ## list these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

figures: $(MADE)  ## run what changed since the last run; writes figures/

notebooks: figures  ## the same, and put the executed notebooks into notebooks/
	$(PYTHON) -c "$$CLEAN" $(NOTEBOOKS)
	touch $(MADE)  # they are still newer than what they were made from

build/%.ipynb figures/%.png figures/%.pdf figures/%.json: notebooks/%.ipynb $(INPUTS) $(INSTALLED)
	@mkdir -p build
	$(PAPERMILL) $< build/$*.running.ipynb
	mv build/$*.running.ipynb build/$*.ipynb

test: $(INSTALLED)  ## run the tests
	$(PYTHON) -m pytest -q tests

bench: $(INSTALLED)  ## measure speed and memory
	$(PYTHON) tests/bench.py

clean:  ## remove executed copies; figures/ and .venv stay
	rm -rf build

.venv/.installed: requirements.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	touch $@
