PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
MODEL = gd-csi-cdl-128b
CLASSICAL = klt-grid-cdl-128b
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed  ## a small CDL store with two workers: made, verified, drawn; then compressed to 16 bytes a sample
	@mkdir -p demo
	$(BIN)/datagen cdl --name cdl-c-fdd-demo --train 4096 --val 512 --test 512 --shard-samples 1024 --workers 2 --out demo/cdl.zarr
	$(BIN)/datagen verify demo/cdl.zarr
	$(BIN)/datagen inspect demo/cdl.zarr --plot demo/cdl.png
	@echo "picture: demo/cdl.png"
	$(BIN)/zoo compress $(MODEL) demo/cdl.zarr demo/x.payloads
	$(BIN)/zoo decompress demo/x.payloads demo/z.npy --side-information demo/cdl.zarr
	$(BIN)/zoo eval $(MODEL) --data demo/cdl.zarr --out demo/results.json
	$(BIN)/zoo eval $(CLASSICAL) --data demo/cdl.zarr --out demo/classical.json
	$(BIN)/zoo limits demo/cdl.zarr --simulate --bits 128

test: lint  ## the whole suite
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed  ## the tables of the README, by way of benchmarks/results/*.json
	$(BIN)/python benchmarks/datagen.py --readme README.md
	$(BIN)/python benchmarks/inh.py --readme README.md
	$(BIN)/python benchmarks/side_information.py --readme README.md
	$(BIN)/python benchmarks/codecs.py --readme README.md
	$(BIN)/python benchmarks/models.py --readme README.md --picture benchmarks/results/rd.png
	$(BIN)/python benchmarks/models.py --scenario cost2100 --readme README.md --picture benchmarks/results/rd-cost2100.png
	$(BIN)/python benchmarks/models.py --scenario inh --readme README.md --picture benchmarks/results/rd-inh.png

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
