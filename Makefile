# `make test` sets everything up by itself: it needs Python 3.11 with venv, and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test
test: .venv/installed
	$(BIN)/ruff check harness transports tests
	$(BIN)/mypy
	$(BIN)/pytest

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@
