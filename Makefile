# make demo: real flights become Delta tables.   make test: the suite, on DuckDB 2 and 1.5, and beside Spark.
# make lint: style and types.   make bench: ratios to the peers.   Needs Python >= 3.11 and make; the rest is installed here.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-duckdb-1.5
SPARK := .venv-spark
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: demo test lint audit bench wheel clean

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# The previous DuckDB line, with its delta, ducklake and httpfs extensions: the suite runs on it, and interop and bench read with it.
$(PEERS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]' 'duckdb==1.5.5' \
		'duckdb-extensions==1.5.5' 'duckdb-extension-delta==1.5.5' 'duckdb-extension-ducklake==1.5.5' \
		'duckdb-extension-httpfs==1.5.5' 'duckdb-extension-postgres==1.5.5' 'duckdb-extension-sqlite==1.5.5'
	touch $@

# Spark, whose first session fetches the Delta jars that fit it into this environment; it needs Java.
$(SPARK)/.installed: pyproject.toml
	$(PYTHON) -m venv $(SPARK)
	$(SPARK)/bin/pip install --quiet --disable-pip-version-check --editable '.[postgres,spark]' 'pyspark==4.1.0' \
		hypothesis pytest pytest-benchmark
	touch $@

demo: $(VENV)/.demo
	$(BIN)/deltaduck demo

test: $(VENV)/.dev $(PEERS)/.installed $(SPARK)/.installed
	DELTADUCK_PEERS_PYTHON=$(PEERS)/bin/python $(BIN)/python -m pytest -n $(WORKERS)
	DELTADUCK_PEERS_PYTHON=$(PEERS)/bin/python $(PEERS)/bin/python -m pytest -n $(WORKERS)
	$(SPARK)/bin/python -m pytest tests/spark

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Secrets in the repository, known vulnerabilities of dependencies. An index that does not answer is a warning.
audit: $(VENV)/.dev
	$(BIN)/python .ci/audit.py

bench: $(VENV)/.dev $(PEERS)/.installed
	DELTADUCK_PEERS_PYTHON=$(PEERS)/bin/python $(BIN)/python -m pytest tests/bench --benchmark-enable -s

# The wheel works alone: built, installed in an environment of its own, used.
wheel: $(VENV)/.dev
	rm -rf dist && $(BIN)/python -m build --quiet --wheel
	rm -rf .venv-wheel && $(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	cd /tmp && $(CURDIR)/.venv-wheel/bin/python $(CURDIR)/tests/wheel_smoke.py

clean:
	rm -rf .venv* dist .mypy_cache .ruff_cache
