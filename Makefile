# The commands for people and for CI. Each of them makes .venv first, from the locked
# requirements, and needs nothing but make, git and a Python 3.11 or later.

# 3.11 and 3.12 first: for them there is a wheel that carries a redis-server.
PYTHONS := python3.11 python3.12 python3 python3.13
# `--version` is not enough: a shim may be there for a Python that is not, and Debian's python3
# has no venv without a package of its own.
RUNS := -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
PYTHON ?= $(shell for python in $(PYTHONS); do $$python $(RUNS) && echo $$python && break; done)

BIN := .venv/bin

# A Python that was asked for and is not the one in .venv: .venv is made again.
ASKED_FOR := $(filter command environment,$(firstword $(origin PYTHON)))
WHICH := -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null
OTHER_PYTHON := $(if $(ASKED_FOR),$(shell \
  [ "`$(PYTHON) $(WHICH)`" = "`$(BIN)/python $(WHICH)`" ] || echo other-python))

UV := uv>=0.9,<1
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)

.PHONY: help demo test check bench chaos model lock clean other-python
.DELETE_ON_ERROR:

help: ## Say what there is
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z][a-z]*\):[^#]*## /  \1\t/p' Makefile
	@echo "make PYTHON=/path/to/python3.12 TARGET takes that Python for .venv."

demo: .venv/.installed ## Summarize the documents in examples/documents
	$(BIN)/modelyard summarize examples/documents

test: .venv/.installed ## Run all tests
	$(BIN)/python -m pytest

check: .venv/.installed ## Check format, style, types and the layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.installed ## Measure speed, beside a plain Celery app
	$(BIN)/python -m benchmarks

# CHAOS="--keep FOLDER" lets a run that was interrupted go on; more options: python -m chaos --help.
chaos: .venv/.installed ## Run every storm over real processes, beside a plain Celery app
	cd tests && ../$(BIN)/python -m chaos --write ../docs/reliability.md $(CHAOS)

model: .venv/.installed ## Train the built-in classifier again, from training/intents
	$(BIN)/modelyard train $(filter-out %/test.jsonl,$(sort $(wildcard training/intents/*.jsonl))) \
	  -o router_worker/models/builtin

# UPGRADE=--upgrade takes the newest versions; without it only what pyproject.toml asks for changes.
lock: .venv/.requirements ## Pin the requirements again, from pyproject.toml
	$(BIN)/python -m pip install --quiet '$(UV)'
	$(COMPILE) --output-file requirements/run.txt pyproject.toml
	$(COMPILE) --output-file requirements/build.txt --group build
	$(COMPILE) --output-file requirements/dev.txt --group dev \
	  --constraint requirements/run.txt --constraint requirements/build.txt pyproject.toml

clean: ## Remove .venv and all that was built
	rm -rf .venv .venv-* .demo build dist *.egg-info .hypothesis \
	  .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

other-python:

.venv/.requirements: requirements/dev.txt $(OTHER_PYTHON)
	@if [ -z "$(PYTHON)" ]; then \
	  echo "No Python 3.11 or later that can make virtual environments ($(PYTHONS))." >&2; \
	  echo "Install one (on Debian and Ubuntu: python3 and python3-venv)," >&2; \
	  echo "or say where it is: make PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi
	@$(PYTHON) $(RUNS) || { \
	  echo "$(PYTHON) is no Python 3.11 or later that can make virtual environments." >&2; \
	  exit 1; \
	}
	@echo "Making .venv with `$(PYTHON) --version`: this takes a minute, once."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --require-hashes --requirement requirements/dev.txt
	@touch $@

# Apart, because a changed setting in pyproject.toml must not cost a new .venv.
.venv/.installed: .venv/.requirements pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	@touch $@
