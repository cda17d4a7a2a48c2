# Both commands set everything up by themselves: they need Python 3.11 or later with venv, and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: study test bench

study: .venv/installed
	$(BIN)/harness run experiments/quick.yaml

test: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest
	$(BIN)/harness check zmq

bench: .venv/installed
	$(BIN)/python benchmarks/floor.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-for-tests: .venv/installed examples/harness-zmq/pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' --editable examples/harness-zmq
	touch $@
