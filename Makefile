# Both commands set everything up by themselves: they need Python 3.11 or later with venv, and make.
PYTHON ?= python3
BIN := .venv/bin

# The browser in which tests look at reports.
BROWSER := $(firstword $(foreach one,chromium chromium-browser google-chrome,$(shell command -v $(one))))

# Where this is set, each of the programs that tests start compiles its modules anew: twice the CPU time.
unexport PYTHONDONTWRITEBYTECODE

# Most tests wait most of the time: several run at once on each CPU.
WORKERS ?= 6
PARALLEL := -n $(WORKERS) --dist=loadgroup

.PHONY: study test test-fast test-one lint bench native browser plugins

study: .venv/installed
	$(BIN)/harness run experiments/quick.yaml

test: lint browser
	$(BIN)/pytest $(PARALLEL) -m "not serial"
	$(BIN)/pytest -m serial

# What needs no processes, in half a minute.
test-fast: lint
	$(BIN)/pytest -n 2 --dist=worksteal -m "not processes and not serial"

# The promises of one transport, and the tests whose name has it, if there are any (pytest's code 5): make test-one T=unix
test-one: .venv/installed-for-tests
	@[ "$(T)" ] || { echo "say which transport: make test-one T=unix" >&2; exit 2; }
	$(BIN)/harness check -v $(T)
	$(BIN)/pytest $(PARALLEL) -k "$(firstword $(subst :, ,$(T)))" || [ $$? = 5 ]

lint: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python benchmarks/floor.py

# The mechanisms and the pipeline in C, for the studies of benchmarks/native.
NATIVE := benchmarks/native
NATIVE_TO ?= $(NATIVE)
NATIVE_PROGRAMS := native pipeline gfclient
NATIVE_FLAGS := -std=gnu11 -O2 -Wall -Wextra -Werror

native: $(NATIVE_PROGRAMS:%=$(NATIVE_TO)/%)

$(NATIVE_TO)/%: $(NATIVE)/%.c $(NATIVE)/common.c $(NATIVE)/native.h
	$(CC) $(NATIVE_FLAGS) -o $@ $(filter %.c,$^) -pthread -lrt -lm

# All packages of plugins/ that can be installed here. `make test` then tests them, too.
plugins: .venv/installed-for-tests
	@for one in plugins/*/; do \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable $$one \
	        || echo "$$one cannot be installed here"; \
	done
	@command -v redis-server valkey-server > /dev/null \
	    || echo "no redis-server here: harness-redis needs it: apt-get install redis-server"

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

# --- the docs site and the package ---

.PHONY: docs wheel

# NO_MKDOCS_2_WARNING: mkdocs-material otherwise begins each build with news about itself.
docs: .venv/installed-for-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html; with search: $(BIN)/python -m http.server --directory site"

# Files in the wheel bear the time of the last commit, or hatchling's own where there is none: the same source makes the
# same wheel.
wheel: .venv/installed
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2> /dev/null || echo 1580601600) \
	    $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

.venv/installed-for-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

# --- end ---

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-for-tests: .venv/installed plugins/harness-zmq/pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' --editable plugins/harness-zmq
	touch $@
