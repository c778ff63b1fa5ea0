# Everything a newcomer, a developer and CI call. `make demo` and `make test` install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo up test lint format docs lock clean bench-fuzz bench-kill bench-soak bench-faults bench-durable bench-storage bench-match bench-arbitrage

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: $(STAMP) ## install the locked packages and the project into .venv

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --require-hashes -r requirements.lock && \
	  uv pip install --quiet --python $(BIN)/python --no-deps -e .; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/pip install --quiet --no-deps --require-hashes -r requirements.lock && \
	  $(BIN)/pip install --quiet --no-deps -e .; \
	fi
	@touch $@

demo: $(STAMP) ## run the whole pipeline on the local exchange, in about two minutes
	$(BIN)/arb demo

up: $(STAMP) ## Dagster UI and daemon with capture switched on
	$(BIN)/arb up

test: $(STAMP) ## run the tests and print line coverage
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

bench-fuzz: $(STAMP) ## send 100,000 mutated frames to both venues' sessions; ARB_RECORDINGS adds real ones
	$(BIN)/python -m bench.fuzz --frames 100000

bench-faults: $(STAMP) ## every fault of the local exchange against a real capture: found when, over when, what was lost
	$(BIN)/python -m bench.faults

bench-durable: $(STAMP) ## time from receipt of a frame to the fsync of its journal, at 5,000 and 50,000 frames a second
	$(BIN)/python -m bench.durable --rates 5000 50000 --seconds 20

bench-storage: $(STAMP) ## Parquet, COPY and as-of figures side by side, and Postgres killed ten times; ARB_RECORDINGS adds real bytes
	$(BIN)/python -m bench.storage --kills 10

bench-match: $(STAMP) ## pair 5,000 Kalshi with 20,000 Polymarket markets: seconds, peak memory, pairs found
	$(BIN)/python -m bench.match

bench-arbitrage: $(STAMP) ## evaluate an hour of 50 pairs with 10 million quotes, from the lake to the lake: seconds, peak memory
	$(BIN)/python -m bench.arbitrage

bench-kill: $(STAMP) ## kill -9 a capture at 2,000 frames/s 20 times, and check every frame, gap and book
	$(BIN)/python -m bench.kill

bench-soak: $(STAMP) ## capture 5,000 frames/s for 30 minutes while markets come and go; memory, queues, losses
	$(BIN)/python -m bench.soak

lint: $(STAMP) ## ruff, types, and Dagster's own checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/dg check defs

format: $(STAMP) ## let ruff format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## renew docs/tables.md from the declarations
	$(BIN)/python -c 'from arb_pipeline.tables import describe; print(describe(), end="")' > docs/tables.md

lock: ## renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --quiet --upgrade -o requirements.lock

clean: ## remove what runs and tests leave behind, but no data
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* artifacts build *.egg-info
