# Both commands set everything up by themselves: they need Python 3.11 or later with venv, and make.
PYTHON ?= python3
BIN := .venv/bin

# The tests of reports look at them in this.
BROWSER := $(firstword $(foreach one,chromium chromium-browser google-chrome,$(shell command -v $(one))))

# Most tests wait most of the time: several run at once on each CPU.
WORKERS ?= 6
PARALLEL := -n $(WORKERS) --dist=worksteal

.PHONY: study test test-fast test-one lint bench browser

study: .venv/installed
	$(BIN)/harness run experiments/quick.yaml

test: lint browser
	$(BIN)/pytest $(PARALLEL) -m "not serial"
	$(BIN)/pytest -m serial
	$(BIN)/harness check zmq

# What needs no processes, in half a minute.
test-fast: lint
	$(BIN)/pytest -n 2 --dist=worksteal -m "not processes and not serial"

# The promises of one transport, and the tests whose name has it: make test-one T=unix
test-one: .venv/installed-for-tests
	@[ "$(T)" ] || { echo "say which transport: make test-one T=unix" >&2; exit 2; }
	$(BIN)/harness check -v $(T)
	$(BIN)/pytest $(PARALLEL) -m "not serial" -k "$(T)"

lint: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
