# Two commands for a newcomer: `make demo` and `make test`. Each sets itself up; the second time at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := $(VENV)/.torch
BENCHMARKS := overhead serving recursion registry start faults watching certificates cascade ledger thinking

.PHONY: demo test soak test-train lint format bench clean help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(READY)  ## the brain reads a real inbox, with no key and no network
	@$(BIN)/brain demo

test: $(READY)  ## the tests
	$(BIN)/python -m pytest

soak: $(READY)  ## the soaks at their whole length; `make test` runs a twentieth of it
	SOAK=1 $(BIN)/python -m pytest tests/soaks

test-train: $(TORCH)  ## the tests that need PyTorch: recipes learn, stop and resume; exported graphs say what they said
	$(BIN)/python -m pytest tests/training

lint: $(READY)  ## style, and a strict type check over the public code and the examples
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## the benchmarks; PICTURES=1 draws docs/pictures too, QUICK=1 only tries them
	@for name in $(BENCHMARKS); do \
		$(BIN)/python -m tests.benchmarks.$$name $(if $(QUICK),--quick) \
			$(if $(PICTURES),--picture docs/pictures/$$name.svg) || exit 1; \
	done

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the other commands made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A Debian python3 may lack ensurepip; then pip fills the environment from outside.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@echo "installing into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,dev]'
	@touch $(READY)

# Asked for by its version: without one, pip may take a build for GPUs of several gigabytes.
$(TORCH): $(READY)
	@echo "installing PyTorch into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@touch $(TORCH)
