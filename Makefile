# Two commands: `make demo` sets everything up and runs one growing season; `make test` sets up and tests.
SHELL := /bin/bash
PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo test test-fast check format bench lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: ## Install what is missing and build the firmware.
	@./noria/bootstrap.sh demo

setup-test:
	@./noria/bootstrap.sh test

demo: setup ## Run one accelerated season: 8 emulated nodes, 2 farms, dashboard. ARGS="--help" lists options.
	@$(PYTHON) -m noria demo $(ARGS)

test: setup-test ## Run the full test suite.
	@$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: setup-test ## Run the tests that need neither emulator nor servers.
	@$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/unit tests/differential $(ARGS)

check: setup-test ## Formatters, linters, types, C checks, generated files.
	@$(PYTHON) -m noria.check

format: setup-test ## Format Python and C.
	@$(PYTHON) -m noria.check --fix

bench: setup ## Measure and write benchmarks/results.
	@$(PYTHON) -m benchmarks $(ARGS)

lock: ## Re-pin requirements.lock from pyproject.toml (needs uv).
	@uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header $(addprefix --extra ,gateway server dashboard emulator dev) pyproject.toml --output-file requirements.lock

clean: ## Remove what was built; keeps the virtual environment.
	@rm -rf build nodes/firmware/.pio nodes/firmware/lib/monocypher .mypy_cache .ruff_cache .pytest_cache
