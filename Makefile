# Two commands on a fresh machine: `make gate` and `make test`. Both make their own environment in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: env test gate lint bench schema clean

env: $(VENV)/.installed

# The stamp is written last, so that an interrupted installation is done again.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest tests

# The project's own pull-request check, and what a user sees: the budgets of example_project. The tests of
# example_project that need no gate run there, too.
gate: env
	$(BIN)/python -m pytest --modelopt --modelopt-report modelopt-report example_project/tests budgets.yaml

bench: env
	$(BIN)/python benchmarks/startup.py
	PYTHONPATH=. $(BIN)/python benchmarks/memory_spread.py

schema: env
	$(BIN)/python -m pytest_modelopt.budgets.schema

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache modelopt-report
