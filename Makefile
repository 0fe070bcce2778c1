# Everything installs by itself, into virtual environments of this folder, and only when pyproject.toml has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_OPTIONS := --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help test test-sqlite test-slow check demo tutorial mutations bench bench-routing bench-fanout bench-transactions bench-rebalance clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: $(VENV)/installed-test ## Run the tests on PostgreSQL servers of their own, with coverage
	$(BIN)/python -m scripts.all_tests

test-sqlite: $(VENV)/installed-test ## Run the tests of routing and fan-out on SQLite
	$(BIN)/python -m scripts.all_tests --sqlite

test-slow: $(VENV)/installed-test ## Run the tests that take long: programs that are started, killed and measured, and repetitions
	$(BIN)/python -m scripts.all_tests --slow

check: $(VENV)/installed-dev ## Check style, types, layers and documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/sphinx-build -q -n -W --keep-going docs docs/_build/html

demo: .venv-demo/installed-demo ## Load real flights into a cluster and walk through it
	.venv-demo/bin/python -m demo

tutorial: $(VENV)/installed-test ## Follow docs/tutorial.md literally, in an empty folder
	$(BIN)/python scripts/tutorial.py

mutations: $(VENV)/installed-test ## Break the code on purpose, and see that the tests notice
	$(BIN)/python -m scripts.mutations

bench: bench-routing bench-fanout bench-transactions bench-rebalance ## Measure everything that is measured

bench-routing: $(VENV)/installed-demo ## Measure what routing costs, against Django's own backend
	$(BIN)/python scripts/bench.py routing

bench-fanout: $(VENV)/installed-demo ## Measure fan-out, against loops by hand and against one database
	$(BIN)/python scripts/bench.py fanout

bench-transactions: $(VENV)/installed-demo ## Measure commits on several databases, against plain ones
	$(BIN)/python scripts/bench.py transactions

bench-rebalance: $(VENV)/installed-demo ## Measure moves of buckets, and what the application notices of them
	$(BIN)/python scripts/bench.py rebalance

clean: ## Stop the local servers and remove all that was made here
	for state in var/*/cluster.json; do \
	  [ ! -e "$$state" ] || $(firstword $(wildcard .venv/bin/python .venv-demo/bin/python) $(PYTHON)) scripts/local_cluster.py destroy --dir "$$(dirname "$$state")" || exit 1; \
	done
	rm -rf .venv .venv-* var docs/_build build dist *.egg-info .coverage* .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# One pattern for all: <environment>/installed-<extra>
.venv/installed-%: pyproject.toml
	[ -x .venv/bin/python ] || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install $(PIP_OPTIONS) --editable '.[$*]'
	touch $@

.venv-demo/installed-%: pyproject.toml
	[ -x .venv-demo/bin/python ] || $(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install $(PIP_OPTIONS) --editable '.[$*]'
	touch $@
