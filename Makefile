# What a stranger tries first. Both targets work on a machine with nothing but Python >= 3.11 and make.
# torch is pinned in constraints.txt; on a machine without a GPU add, for smaller wheels:
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
PIP_FLAGS ?=
BIN := .venv/bin

.PHONY: demo test test-slow e2e lint types imports results clean
.DELETE_ON_ERROR:

demo: .venv/.installed
	$(BIN)/crossray demo --out demo

# The tests of a few minutes, in parallel; `make test-slow` runs the others, `.ci/run` both.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadgroup --durations=25
test: .venv/.installed-dev
	$(PYTEST) -m "not slow"

test-slow: .venv/.installed-dev
	$(PYTEST) -m slow

# An archive, the service and a browser: a drawn study goes the whole way (docs/interoperability.md). Part of test-slow.
e2e: .venv/.installed-dev
	$(BIN)/python -m pytest -n 0 -q -rs tests/e2e

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev
	$(BIN)/mypy

imports: .venv/.installed-dev
	$(BIN)/lint-imports

# The tables of docs/results, from a prepared IU X-Ray (docs/data/iu-xray.md); resumable. One table, one seed:
#   make results RESULTS="--tables main --seeds 0"
DATA ?= data/iu
RUNS ?= runs/results
RESULTS ?=

results: .venv/.installed-dev
	$(BIN)/python benchmarks/results --data $(DATA) --runs $(RUNS) $(RESULTS)

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt torch -e .
	@touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt torch -e '.[dev]'
	@touch $@ .venv/.installed

clean:
	rm -rf .venv demo
