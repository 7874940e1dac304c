.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PYTHONUNBUFFERED := 1

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | column -t -s '|'

setup: $(STAMP) ## the environment in .venv, the broker's jars included

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "livedex needs python 3.11 or newer, found " + sys.version.split()[0] + ": set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m livedex.dev.jars
	@touch $@

lock: ## renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra demo --extra dev --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml
	UV=$(BIN)/uv ops/docker/lock

lint: setup ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## let ruff rewrite the sources
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint ## lint, types, unit and integration tests on real Kafka and Postgres, in two processes: they wait more than they work
	$(BIN)/python -m pytest -m "not accept" -n 2 --dist loadfile

accept: setup ## the long checks: whole replays with the real model
	$(BIN)/python -m pytest -m accept

faults: setup ## the whole fault matrix: what crashes, outages and odd logs must not change
	$(BIN)/python -m pytest tests/faults --faults=all

bench: setup ## what it costs and how fast it is, beside two other pipelines; BENCH="--only encode" or "--quick" for less
	PYTHONPATH=tests $(BIN)/python -m bench $(BENCH)

dashboards: setup ## write the dashboards in ops/grafana/dashboards from their code
	PYTHONPATH=ops/grafana/source $(BIN)/python -m livedex_dashboards

demo: setup ## the main job end to end on a stack of its own; KEEP=1 leaves it running
	$(BIN)/python -m livedex.dev.demo $(if $(KEEP),--keep)

.PHONY: help setup lock lint format test accept faults bench dashboards demo
