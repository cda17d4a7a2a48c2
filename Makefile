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

bench: .venv/installed
	$(BIN)/python benchmarks/floor.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-for-tests: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@
