# Everything runs in an environment of its own, made by the first target that needs it.
PYTHON ?= python3
VENV ?= .venv
RUNS ?= 100_000
SECONDS ?= 60
BIN := $(VENV)/bin
RUN := $(BIN)/python run.py --config-dir campaigns --config-name
REPORT := $(BIN)/python -m progip report
RUNTIME = PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(BIN)/python -m progip runtime --seconds $(SECONDS)
PEERS ?=
BENCH := OMP_NUM_THREADS=1 PYTHONPATH=$(PEERS) $(BIN)/python benchmarks
BENCH_DATA = $(if $(PROGIP_DATA),--weights $(abspath $(PROGIP_DATA))/weights \
    --images $(abspath $(PROGIP_DATA))/cifar10/test_lossless_1017.npz)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check smoke table-base table-overall table-passes table-runtime \
    table-sample \
    slurm-test bench bench-bookkeeping clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(VENV)/.base  ## a real campaign on the embedded digits, offline, and its tables
	$(RUN) demo
	$(REPORT) outputs/demo

test: check  ## style, types, layers and the tests (under 10 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

test-all: check  ## the same with the slow tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

check: $(VENV)/.dev  ## ruff, mypy, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

smoke: $(VENV)/.base  ## a sweep over every pass, population and protection, a few runs each
	$(BIN)/python run.py -m name=smoke runs=20 ood_method=odin,mahalanobis \
	    protection=none,progip,ranger
	$(REPORT) outputs/smoke

table-base: $(VENV)/.base  ## published table: base metrics (needs CIFAR-10, weights: docs/data.md)
	$(RUN) overall name=base runs=1 pass=first_forward population=id protection=none
	$(REPORT) outputs/base

table-overall: $(VENV)/.base  ## published table: overall results; RUNS= a cell, default 100_000
	$(RUN) overall runs=$(RUNS)
	$(REPORT) outputs/overall

table-passes: table-overall  ## published table: results per pass; a section of the same report

table-runtime: $(VENV)/.base  ## published table: runtime; SECONDS= a line; PROGIP_DATA=FOLDER adds CIFAR-10 networks
	$(RUNTIME)
	if [ -n "$(PROGIP_DATA)" ]; then \
	    $(RUNTIME) --campaign sample_resnet20 && $(RUNTIME) --campaign sample_densenet; \
	fi

table-sample: $(VENV)/.base  ## CIFAR-10 networks on a sample of images: PROGIP_DATA=FOLDER
	PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) sample_resnet20
	PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) sample_densenet
	$(REPORT) outputs/sample

slurm-test: $(VENV)/.dev  ## a real Slurm on this machine, to throw away: needs root, installs it
	$(BIN)/pip install --quiet -c constraints.txt -e ".[submitit]"
	PYTHON=$(BIN)/python scripts/slurm_test.sh

bench: $(VENV)/.base  ## executors, PyTorchFI, MRFI, timed: PROGIP_DATA=FOLDER PEERS=FOLDER (both optional)
	for job in "resnet20 --batch 32" "densenet --batch 8" "resnet34 --batch 8" "vgg16_bn --batch 8"; do \
	    for script in engine classification; do \
	        $(BENCH)/$$script.py --networks $$job --threads 1 --channels-last $(BENCH_DATA) \
	            --output outputs/benchmark/$${job%% *} || exit 1; \
	    done; \
	done

bench-bookkeeping: $(VENV)/.base  ## cost of bookkeeping, status and report: docs/results/bookkeeping.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bookkeeping.py

clean:  ## remove the environment and tool caches; results stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
