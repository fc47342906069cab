PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed  ## a small CDL store with two workers: made, verified, summed up, drawn
	@mkdir -p demo
	$(BIN)/datagen cdl --name cdl-c-fdd-demo --train 4096 --val 512 --test 512 --shard-samples 1024 --workers 2 --out demo/cdl.zarr
	$(BIN)/datagen verify demo/cdl.zarr
	$(BIN)/datagen inspect demo/cdl.zarr --plot demo/cdl.png
	@echo "picture: demo/cdl.png"

test: lint  ## the whole suite
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed  ## the tables of the README, by way of benchmarks/results/*.json
	$(BIN)/python benchmarks/datagen.py --readme README.md
	$(BIN)/python benchmarks/side_information.py --readme README.md

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e .[dev]
	@touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info
