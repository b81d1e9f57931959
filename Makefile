# Two commands matter: `make demo` and `make test`. Each sets itself up in .venv on a bare Debian machine with Python 3.11.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= demo-out
# Where torch comes from, if not from the usual index: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.PHONY: page demo test test-large test-cluster test-models lint types format benchmark clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (found $(PYTHON))"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python venv is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	@test -z "$(TORCH_INDEX)" || $(BIN)/python -m pip install --quiet -c constraints.txt --index-url $(TORCH_INDEX) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,heic,train]'
	@touch $@

page: $(STAMP)  ## Fetch the third-party files of the web page, as page/package-lock.json names them
	$(BIN)/python page/place.py --tests

# What does not need the page goes on without it, and says so.
.PHONY: page-if-possible
page-if-possible: $(STAMP)
	@$(BIN)/python page/place.py --tests --optional

demo: $(STAMP) page-if-possible  ## Restore a real photo with a real reference; writes a picture and a report into demo-out/
	$(BIN)/rasr demo --out $(OUT)

# Files in their own order: sorted by how many tests they have, the long ones with few would run last, on one core.
test: $(STAMP) page-if-possible lint types  ## Everything CI runs: style, types, tests (about ten minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

test-large: $(STAMP) page-if-possible  ## Minutes-long or gigabyte-sized checks: crash storms, SD 2.1-size models
	$(BIN)/python -m pytest -m large --timeout 3600

test-cluster: $(STAMP)  ## Work and service on a Ray cluster of three nodes here, which are killed (Ray: 310 MB; an hour)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cluster]'
	$(BIN)/python -m pytest -m large --timeout 3600 -k 'cluster or rayserve' tests/cluster tests/service

# torchvision cannot stand beside the CPU build of torch that the public index does not have: model files are tested apart.
MODELS := .venv-models
test-models:  ## Model files of users through spandrel and torchvision, in an environment of their own
	@test -x $(MODELS)/bin/python || $(PYTHON) -m venv $(MODELS)
	$(MODELS)/bin/python -m pip install --quiet --upgrade pip
	$(MODELS)/bin/python -m pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch torchvision
	$(MODELS)/bin/python -m pip install --quiet -c constraints.txt -e '.[spandrel]' pytest pytest-timeout
	$(MODELS)/bin/python -m pytest tests/generator/test_model_file_real.py tests/generator/test_model_file.py

benchmark: $(STAMP)  ## The comparison table with intervals and a report, in benchmarks/out/ (half an hour on two cores)
	$(BIN)/python benchmarks/compare_methods.py --out benchmarks/out

clean:
	rm -rf $(VENV) demo-out build dist .mypy_cache .ruff_cache .pytest_cache .coverage* htmlcov
