# Both commands set everything up by themselves: they need Python 3.11 or later with venv, and make.
PYTHON ?= python3
BIN := .venv/bin

# The tests of reports look at them in this.
BROWSER := $(firstword $(foreach one,chromium chromium-browser google-chrome,$(shell command -v $(one))))

.PHONY: study test bench browser

study: .venv/installed
	$(BIN)/harness run experiments/quick.yaml

test: .venv/installed-for-tests browser
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest
	$(BIN)/harness check zmq

bench: .venv/installed
	$(BIN)/python benchmarks/floor.py

browser:
ifeq ($(BROWSER),)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    echo "no browser here: apt-get install chromium, for the tests of reports"; \
	    { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium fonts-liberation; } > /dev/null \
	        || echo "that did not work: the tests that need a browser are skipped"; \
	else \
	    echo "no browser here: the tests that need one are skipped; to have them: apt-get install chromium"; \
	fi
endif

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-for-tests: .venv/installed examples/harness-zmq/pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' --editable examples/harness-zmq
	touch $@
