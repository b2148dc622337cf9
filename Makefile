# What a stranger tries first. Both targets work on a machine with nothing but Python >= 3.11 and make.
# torch is pinned in constraints.txt; on a machine without a GPU add, for smaller wheels:
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
PIP_FLAGS ?=
BIN := .venv/bin

.PHONY: help dev demo test test-slow test-cluster e2e lint types imports docs notebooks pictures wheel-test results speed clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## /\1\t/' | expand -t 12

dev: .venv/.installed-dev  ## install everything that a change needs into .venv

demo: .venv/.installed  ## draw, train, generate and score reports: demo/baseline/index.html (5 minutes)
	$(BIN)/crossray demo --out demo

# The tests of a few minutes, in parallel; `make test-slow` runs the others, `.ci/run` both.
PYTEST := $(BIN)/python -m pytest -n auto --durations=25
test: .venv/.installed-dev  ## the fast tests, in parallel (minutes)
	$(PYTEST) -m "not slow"

test-slow: .venv/.installed-dev  ## the slow tests
	$(PYTEST) --dist loadscope --no-loadscope-reorder -p tests.slowest_first -m slow  # a module's trained models are made once

# Workers and machines that are lost. On their own, because the three simulated machines are a dozen processes.
test-cluster: .venv/.installed-dev  ## the tests of a Ray cluster of three simulated machines (2 minutes)
	CROSSRAY_TEST_CLUSTER=1 $(BIN)/python -m pytest -n 0 -q -m slow tests/generation/test_cluster.py

# An archive, the service and a browser: a drawn study from end to end (docs/interoperability.md). Part of test-slow.
e2e: .venv/.installed-dev  ## end-to-end test: archive, service and browser
	$(BIN)/python -m pytest -n 0 -q -rs tests/e2e

lint: .venv/.installed-dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev  ## mypy, strict; the benchmarks too
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-calls --no-warn-unused-ignores --disable-error-code misc benchmarks/*.py benchmarks/results/*.py

imports: .venv/.installed-dev  ## import-linter: which package may import which
	$(BIN)/lint-imports

# Warnings are errors, and every link inside the site is followed. `notebooks` runs the tutorials too.
SITE := docs/_build/html
docs: .venv/.installed-dev  ## the documentation site: docs/_build/html/index.html
	rm -rf $(SITE)
	$(BIN)/python -m sphinx -q -E -W --keep-going -b html docs $(SITE)
	$(BIN)/python docs/check_links.py $(SITE)

notebooks: .venv/.installed-dev  ## the same with the tutorials executed (3 minutes)
	CROSSRAY_NOTEBOOKS=1 OMP_NUM_THREADS=1 $(MAKE) --no-print-directory docs

pictures: .venv/.installed-dev  ## redraw the figures of the documents (needs Chromium)
	for script in rooms systems pictures; do $(BIN)/python -m docs.figures.$$script || exit 1; done

wheel-test: .venv/.installed-dev  ## build wheel and sdist, try them in an empty environment
	PYTHON=$(BIN)/python .ci/wheel-test

# The tables of docs/results, from a prepared IU X-Ray (docs/data/iu-xray.md); resumable. One table, one seed:
#   make results RESULTS="--tables main --seeds 0"
DATA ?= data/iu
RUNS ?= runs/results
RESULTS ?=

results: .venv/.installed-dev  ## the tables of docs/results from a prepared IU X-Ray (hours)
	$(BIN)/python benchmarks/results --data $(DATA) --runs $(RUNS) $(RESULTS)

# The generated tables of docs/speed.md; resumable. Quickly: make speed SPEED=--quick
SPEED ?=

speed: .venv/.installed-dev  ## the tables of docs/speed.md: each row with its ceiling and share (20 minutes)
	$(BIN)/python benchmarks/speed.py $(SPEED)

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt torch -e .
	@touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt torch -e '.[dev]'
	@touch $@ .venv/.installed

clean:  ## remove .venv and build outputs
	rm -rf .venv demo dist docs/_build
