# Every target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport SPARK_HOME SPARK_CONF_DIR PYTHONPATH

RUN_DATE ?= 2026-11-23
SHOP ?= data/shop

.DEFAULT_GOAL := help
.PHONY: help setup run test fast check deep bench clean

help:  ## Show this help
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | awk -F: '{printf "  make %-8s%s\n", $$1, $$2}'

setup: $(READY)  ## Install recspark, its dependencies and Delta's jars into .venv

$(READY): pyproject.toml conf/spark-defaults.conf conf/log4j2.properties recspark/install.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "recspark needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m recspark.install
	@touch $@

$(SHOP)/transactions: | $(READY)
	spark-submit jobs/make_tables.py shop --out $(SHOP) --until $(RUN_DATE)

run: $(READY) $(SHOP)/transactions  ## Run the weekly job on a generated demo shop
	spark-submit jobs/weekly_recs.py --config conf/demo.yaml --run-date $(RUN_DATE)

test: $(READY)  ## Run the tests
	$(BIN)/python -m pytest -m "not deep"

fast: $(READY)  ## Run the tests that need no Spark
	$(BIN)/python -m pytest tests/test_architecture.py tests/test_arrow_rows.py tests/test_gnn_loss.py tests/test_gnn_model.py \
		tests/test_metrics.py tests/test_pair_features.py tests/test_repeats.py tests/test_tastes.py tests/test_query.py \
		tests/test_query_errors.py tests/test_ranges.py tests/test_settings.py tests/test_terminal.py

check: $(READY)  ## Check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

deep: $(READY)  ## Run the slower checks too
	$(BIN)/python -m pytest

bench: $(READY)  ## Run the benchmarks
	$(BIN)/python benchmarks/bench_neighbors.py

clean:  ## Remove the environment and everything that runs made
	rm -rf $(VENV) data
