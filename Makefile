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
# glibc: threads share one heap, which takes a tenth less memory and no more time.
export MALLOC_ARENA_MAX := 1
PAPERMILL := $(PYTHON) -m papermill --kernel python3 --cwd notebooks
INPUTS := helpers.py report.py data/mnist.npz  # activations.py: only by choice, in notebook 3
MADE := $(foreach n,$(NOTEBOOKS),build/$n.ipynb figures/$n.png figures/$n.pdf figures/$n.json)

.PHONY: help figures notebooks readme badges html test bench clean
.DELETE_ON_ERROR:
.SECONDARY:

help:  ## list these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

figures: $(MADE)  ## run what changed since the last run; writes figures/

notebooks: figures  ## the same, and put the executed notebooks into notebooks/
	$(PYTHON) publish.py clean $(NOTEBOOKS)
	touch $(MADE)  # they are still newer than what they were made from

build/%.ipynb figures/%.png figures/%.pdf figures/%.json: notebooks/%.ipynb $(INPUTS) $(INSTALLED)
	@mkdir -p build
	$(PAPERMILL) $< build/$*.running.ipynb
	mv build/$*.running.ipynb build/$*.ipynb

readme: $(INSTALLED)  ## renew the results table of README.md from figures/
	$(PYTHON) publish.py results

badges: $(INSTALLED)  ## write the public address in CITATION.cff into README.md and notebooks/
	$(PYTHON) publish.py badges

html: $(INSTALLED)  ## the notebooks as pages to read offline, in build/html/
	$(PYTHON) publish.py html

test: $(INSTALLED)  ## run the tests
	$(PYTHON) -m pytest -q tests

bench: $(INSTALLED)  ## measure speed and memory
	$(PYTHON) tests/bench.py

clean:  ## remove executed copies, pages and cached activations; figures/ and .venv stay
	rm -rf build

.venv/.installed: requirements.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	touch $@
