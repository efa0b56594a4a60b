# Everything runs in an environment of its own, made by the first target that needs it.
PYTHON ?= python3
VENV ?= .venv
# of the published tables and figures: the campaign file, and runs a cell (empty: the file's own)
CAMPAIGN ?= overall
RUNS ?=
SECONDS ?= 60
# of CAMPAIGN=paper_cifar10: densenet_bc_100_12 or resnet34 (empty: both)
NETWORK ?=
# of figure-weights, figure-formats, table-bounded, table-robust-students: fault maps a cell, test images (empty: the file's own)
MAPS ?=
IMAGES ?=
BIN := $(VENV)/bin
RUN := $(BIN)/python run.py --config-dir campaigns --config-name
REPORT := $(BIN)/python -m progip report
SAMPLE = PROGIP_DATA=$(abspath $(PROGIP_DATA))
TABLES = $(if $(PROGIP_DATA),$(SAMPLE)) $(RUN) $(CAMPAIGN) $(if $(NETWORK),network=$(NETWORK))
OUTPUT = outputs/$(patsubst paper_%,paper,$(patsubst sample_%,sample,$(CAMPAIGN)))
WEIGHTS := $(patsubst %,outputs/weights/%-cifar10.safetensors,densenet_bc_100_12 resnet34)
RUNTIME = PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(BIN)/python -m progip runtime --beside --seconds $(SECONDS)
PEERS ?=
BENCH := OMP_NUM_THREADS=1 PYTHONPATH=$(PEERS) $(BIN)/python benchmarks
BENCH_DATA = $(if $(PROGIP_DATA),--weights $(abspath $(PROGIP_DATA))/weights \
    --images $(abspath $(PROGIP_DATA))/cifar10/test_lossless_1017.npz)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check docs smoke ready sample-data paper-weights tables table-base table-overall table-passes \
    table-runtime table-sample table-paper figures figure-passes figure-vulnerability figure-bits \
    figure-rates figure-rates-sample sdc-campaigns table-sdc figure-scm table-loss table-text-guided smoke-architectures \
    figure-tradeoff figure-scores figure-precision figure-weights figure-formats table-format-accuracy table-bounded table-toolbox table-detectors table-ood-methods figure-bounded bounded-campaigns \
    robust-students table-robust-students figure-robust-students \
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

test: check  ## style, types, layers and the tests (12 to 35 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

test-all: check  ## the same with the slow tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

check: $(VENV)/.dev  ## ruff, mypy, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev  ## the documentation as a site, in outputs/site
	$(BIN)/mkdocs build --quiet --clean

smoke: $(VENV)/.base  ## a sweep over every pass, population and protection, a few runs each
	$(BIN)/python run.py -m name=smoke runs=20 ood_method=odin,mahalanobis \
	    protection=none,progip,ranger
	$(REPORT) outputs/smoke

tables: table-base figures table-runtime  ## all published tables and figures; CAMPAIGN=demo: on what is here

# what the campaign needs and is not here, in one message, before anything starts
ready: $(VENV)/.base $(if $(filter sample_% paper_%,$(CAMPAIGN)),sample-data) \
    $(if $(filter paper_%,$(CAMPAIGN)),paper-weights)
ifeq ($(CAMPAIGN),overall)
	@missing=$$(ls $(WEIGHTS) 2>&1 >/dev/null | wc -l); if [ $$missing -gt 0 ]; then \
	    echo "error: $$missing of 2 weight files are missing: $(WEIGHTS). Train them with" \
	        "'python -m progip train model=NAME dataset=cifar10' (days on a CPU; recipe=fast: hours;" \
	        "docs/data.md), or see every table" \
	        "and figure on what is here: CAMPAIGN=demo" >&2; exit 1; fi
endif

sample-data:
	@if [ ! -d "$(PROGIP_DATA)/weights" ]; then \
	    echo "error: give PROGIP_DATA=FOLDER, a folder with images and weights (docs/data.md);" \
	        "'make tables CAMPAIGN=demo' needs nothing" >&2; exit 1; fi

paper-weights:
	@if [ "$(NETWORK)" != densenet_bc_100_12 ] && [ ! -f outputs/weights/resnet34-cifar10.safetensors ]; then \
	    echo "error: outputs/weights/resnet34-cifar10.safetensors is missing. Train it, on a CPU in" \
	        "hours: 'python -m progip train model=resnet34 dataset=cifar10 recipe=fast' (docs/data.md);" \
	        "the other half needs no training: NETWORK=densenet_bc_100_12" >&2; exit 1; fi

table-base: ready  ## published table: base metrics; CAMPAIGN= chooses the campaign file
	$(TABLES) name=base_$(CAMPAIGN) runs=1 pass=first_forward population=id protection=none
	$(REPORT) --beside outputs/base_$(CAMPAIGN)

table-overall: ready  ## published table: overall results; RUNS= a cell, else the campaign file's
	$(TABLES) $(if $(RUNS),runs=$(RUNS))
	$(REPORT) --beside $(OUTPUT)

table-passes: table-overall  ## published table: ODIN and Mahalanobis per pass; a section of the report

figures: table-overall  ## every figure; with the report, as SVG, PDF, PNG and CSV
	@ls $(OUTPUT)/report/*.svg

figure-passes: table-overall  ## published figure: failures left by pass, ODIN and Mahalanobis
	@ls $(OUTPUT)/report/passes*.svg

figure-vulnerability: table-overall  ## figure: failure rate by layer and bit
	@ls $(OUTPUT)/report/vulnerability*.svg

figure-bits: table-overall  ## published figure: faults on higher bits are critical
	@ls $(OUTPUT)/report/bits*.svg

figure-tradeoff: table-overall  ## figure: failures detected against false alarms
	@ls $(OUTPUT)/report/tradeoff*.svg

figure-scores: table-overall  ## figure: scores, clean and faulty
	@ls $(OUTPUT)/report/scores*.svg

figure-precision: table-overall  ## figure: interval width against runs
	@ls $(OUTPUT)/report/precision*.svg

table-runtime: $(VENV)/.base  ## published table: runtime; SECONDS= a line; PROGIP_DATA=FOLDER adds CIFAR-10 networks
	$(RUNTIME)
	@if [ -n "$(PROGIP_DATA)" ]; then \
	    $(RUNTIME) --campaign sample_resnet20 && $(RUNTIME) --campaign sample_densenet; \
	fi

table-sample: $(VENV)/.base sample-data  ## CIFAR-10 networks on a sample of images: PROGIP_DATA=FOLDER
	PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) sample_resnet20
	PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) sample_densenet
	$(REPORT) --beside outputs/sample

table-paper:  ## published tables at their size, full CIFAR-10 test set: PROGIP_DATA=FOLDER NETWORK=; days
	$(MAKE) table-overall CAMPAIGN=paper_cifar10

figure-rates: $(VENV)/.base  ## published figures: accuracy against error rate (needs data, weights)
	for campaign in rates_resnet18 rates_vgg16 rates_resnet34; do \
	    $(RUN) $$campaign $(if $(RUNS),runs=$(RUNS)) || exit 1; \
	done
	$(REPORT) outputs/rates

figure-rates-sample: $(VENV)/.base sample-data  ## the same, CIFAR-10 networks on a sample: PROGIP_DATA=FOLDER
	for campaign in resnet20 resnet56 densenet; do \
	    PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) sample_rates_$$campaign || exit 1; \
	done
	$(REPORT) outputs/sample_rates

IN_WEIGHTS := weights_resnet20 weights_resnet56 weights_densenet weights_mobilenet_v2

figure-weights: $(VENV)/.base sample-data  ## accuracy against bit error rates of weights, five formats: PROGIP_DATA=FOLDER
	for campaign in $(IN_WEIGHTS); do \
	    PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) $$campaign $(if $(MAPS),sizing.maps=$(MAPS)) \
	        $(if $(IMAGES),dataset.limit=$(IMAGES)) || exit 1; \
	done
	$(REPORT) outputs/weights

figure-formats: $(VENV)/.base sample-data  ## mismatches and DeltaLoss by number format (GoldenEye): PROGIP_DATA=FOLDER
	PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) formats_resnet20 \
	    $(if $(RUNS),sampling.runs_per_layer=$(RUNS)) $(if $(IMAGES),dataset.limit=$(IMAGES))
	$(REPORT) outputs/formats --outcome loss

FORMATS = PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) format_accuracy $(if $(IMAGES),dataset.limit=$(IMAGES))

table-format-accuracy: $(VENV)/.base sample-data  ## accuracy by kind and width of the number format (GoldenEye): PROGIP_DATA=FOLDER
	$(FORMATS) number_format.saturate=true number_format.exponent=2,3,4,5 number_format.fraction=1,2,3,5,7
	$(FORMATS) number_format=fixed_point number_format.word=8,12,16 number_format.fraction=2,4,6
	$(FORMATS) number_format=integer number_format.width=4,6,8,12,16
	$(FORMATS) number_format=block_fp number_format.width=6,8,12 number_format.exponent=3,4
	$(FORMATS) number_format=adaptive_fp number_format.width=6,8,12 number_format.exponent=3,4
	$(REPORT) outputs/format_accuracy

BOUNDED := bounded_resnet20 bounded_resnet56 bounded_densenet

bounded-campaigns: $(VENV)/.base sample-data
	for campaign in $(BOUNDED); do \
	    PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) $$campaign $(if $(MAPS),sizing.maps=$(MAPS)) \
	        $(if $(IMAGES),dataset.limit=$(IMAGES)) || exit 1; \
	done

table-bounded: bounded-campaigns  ## bounded activations under bit errors of weights (RReLU): PROGIP_DATA=FOLDER
	$(REPORT) outputs/bounded

table-toolbox: $(VENV)/.base sample-data  ## the row of the RReLU toolbox: PROGIP_DATA=FOLDER
	PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) toolbox_resnet20 $(if $(MAPS),sizing.maps=$(MAPS)) \
	    $(if $(IMAGES),dataset.limit=$(IMAGES))
	$(REPORT) outputs/toolbox

figure-bounded: bounded-campaigns  ## the same as curves, and under bit errors of layer outputs: PROGIP_DATA=FOLDER
	PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) bounded_activations_resnet20 \
	    $(if $(RUNS),runs=$(RUNS)) $(if $(IMAGES),dataset.limit=$(IMAGES))
	$(REPORT) outputs/bounded > /dev/null
	$(REPORT) outputs/bounded_activations
	@ls outputs/bounded*/report/rates.svg

DETECTORS := resnet20 densenet

table-detectors: $(VENV)/.base sample-data  ## ProGIP, Ranger, open-set scores, FACER-like on the same faults: PROGIP_DATA=FOLDER
	for campaign in $(DETECTORS); do \
	    PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) detectors_$$campaign $(if $(RUNS),runs=$(RUNS)) || exit 1; \
	done
	$(REPORT) outputs/detectors

OOD_METHODS := perturbing steps scores

table-ood-methods: $(VENV)/.base sample-data  ## OOD methods under faults, each with the passes it has: PROGIP_DATA=FOLDER
	for campaign in $(OOD_METHODS); do \
	    PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) ood_methods_$$campaign $(if $(RUNS),runs=$(RUNS)) || exit 1; \
	done
	$(REPORT) outputs/ood_methods

STUDENTS := plain teacher largest found_1 found_2 smallest
DIGITS := outputs/students/digits_rslad

robust-students: $(VENV)/.base
	$(BIN)/pip install --quiet -c constraints.txt -e ".[robust,search]"
	OMP_NUM_THREADS=1 $(BIN)/python -m progip students train
	OMP_NUM_THREADS=1 $(BIN)/python -m progip students search
	OMP_NUM_THREADS=1 $(BIN)/python -m progip students train students.teacher.procedure.beta=0 \
	    students.teacher.procedure.steps=1 'students.stages=[{name: largest, epochs: 1}]' \
	    --out outputs/students/digits_plain
	cp outputs/students/digits_plain/students/teacher.safetensors $(DIGITS)/students/plain.safetensors
	for student in $(STUDENTS); do \
	    OMP_NUM_THREADS=1 $(BIN)/python -m progip attack attack.budget=32 model=student model.channels=1 \
	        model.name=$$student model.weights=$(DIGITS)/students/$$student.safetensors \
	        --images $(DIGITS)/images/$$student || exit 1; \
	done
	$(RUN) robust_students_weights $(if $(MAPS),sizing.maps=$(MAPS))
	$(RUN) robust_students_outputs $(if $(RUNS),runs=$(RUNS))

table-robust-students: robust-students  ## robust students of the digits under faults, trained here on a CPU (ProARD)
	$(BIN)/python -m progip students table outputs/robust_students

figure-robust-students: table-robust-students  ## the same as a figure, and that of the search
	@ls outputs/robust_students/report/robust_students.svg $(DIGITS)/search/pareto.svg

SDC := sdc_mobilenet_v2 sdc_squeezenet1_0 sdc_resnet56_cifar100

sdc-campaigns: $(VENV)/.base sample-data
	for campaign in $(SDC); do \
	    PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) $$campaign $(if $(RUNS),runs=$(RUNS)) || exit 1; \
	done

table-sdc: sdc-campaigns  ## published table: SDC rates by network (TensorFI+): PROGIP_DATA=FOLDER
	$(REPORT) --outcome sdc_all outputs/sdc

figure-scm: sdc-campaigns  ## published figures: safety-critical shares (TensorFI+): PROGIP_DATA=FOLDER
	$(REPORT) --outcome scm --out outputs/sdc/report_scm outputs/sdc
	@ls outputs/sdc/report_scm/scm*.svg

table-loss: $(VENV)/.base sample-data  ## DeltaLoss, the same number of faults in every layer: PROGIP_DATA=FOLDER
	PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) loss_per_layer \
	    $(if $(RUNS),sampling.runs_per_layer=$(RUNS))
	$(REPORT) outputs/loss_per_layer

HEADS := linear text_guided
TUNE = OMP_NUM_THREADS=1 PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(BIN)/python -m progip train --output outputs/weights/$@_$$head.safetensors \
    recipe=finetune model.head=$$head
GIVEN = $(abspath $(PROGIP_DATA))/weights

.PHONY: resnet20 resnet56_cifar100 mobilenet_v2
resnet20: $(VENV)/.base sample-data
	for head in $(HEADS); do $(TUNE) model=resnet20 dataset=cifar10_npz model.weights=$(GIVEN)/resnet20-12fca82f.th \
	    dataset.mean=[.485,.456,.406] dataset.std=[.229,.224,.225] dataset.test=cifar10/test_lossless_10000.npz \
	    model.name=$@_$$head || exit 1; done

resnet56_cifar100: $(VENV)/.base sample-data
	for head in $(HEADS); do $(TUNE) model=resnet56 model.shortcut=B dataset=cifar100_npz model.name=$@_$$head \
	    model.weights=$(GIVEN)/cifar100_resnet56-f2eff4c8.pt dataset.mean=[0.507,0.4865,0.4409] \
	    dataset.std=[0.2673,0.2564,0.2761] || exit 1; done

mobilenet_v2: $(VENV)/.base sample-data
	for head in $(HEADS); do $(TUNE) model=torchvision model.arch=mobilenet_v2 dataset=imagenet_npz model.name=$@_$$head \
	    model.weights=$(GIVEN)/mobilenet_v2_imagenet_from_int8.safetensors model.recipe.nesterov=false \
	    $$([ $$head = linear ] || echo model.head.embeddings=$(abspath $(PROGIP_DATA))/text_features/gpt3.pth) || exit 1; done

table-text-guided: resnet20 resnet56_cifar100 mobilenet_v2  ## text-guided heads against plain ones, trained in minutes: PROGIP_DATA=FOLDER
	PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) text_guided $(if $(RUNS),sampling.runs_per_layer=$(RUNS))
	$(REPORT) outputs/text_guided

smoke-architectures: $(VENV)/.base sample-data  ## 25 architectures of torchvision, random weights: PROGIP_DATA=FOLDER
	PROGIP_DATA=$(abspath $(PROGIP_DATA)) $(RUN) sdc_smoke
	$(REPORT) outputs/sdc_smoke

slurm-test: $(VENV)/.dev  ## a real Slurm on this machine, to throw away: needs root, installs it
	$(BIN)/pip install --quiet -c constraints.txt -e ".[submitit]"
	PYTHON=$(BIN)/python scripts/slurm_test.sh

# network:pixels/batch
SPEEDUPS := resnet20:32/32 densenet:32/8 resnet18:64/8 resnet18:128/4 resnet18:224/4 vit_b_32:224/4

bench: $(VENV)/.base  ## executors, PyTorchFI, MRFI, laws of faults, ended runs, timed (hours): PROGIP_DATA=FOLDER PEERS=FOLDER (both optional)
	for job in "resnet20 --batch 32" "densenet --batch 8" "resnet34 --batch 8" "vgg16_bn --batch 8"; do \
	    for script in engine classification; do \
	        $(BENCH)/$$script.py --networks $$job --threads 1 --channels-last $(BENCH_DATA) \
	            --output outputs/benchmark/$${job%% *} || exit 1; \
	    done; \
	done
	for job in $(SPEEDUPS); do \
	    $(BENCH)/speedups.py --subjects $${job%%/*} --batch $${job##*/} --clean-batch 16 --reference-runs 16 \
	        --threads 1 $(BENCH_DATA) --output outputs/benchmark/$$(echo $${job%%/*} | tr : -) || exit 1; \
	done
	for job in "resnet20 --batch 32" "resnet56 --batch 32" "densenet --batch 8" "resnet34 --batch 8"; do \
	    for script in several ended; do \
	        $(BENCH)/$$script.py --networks $$job --threads 1 $(BENCH_DATA) \
	            --output outputs/benchmark/$${job%% *} || exit 1; \
	    done; \
	done

bench-bookkeeping: $(VENV)/.base  ## cost of bookkeeping, status and report: docs/results/bookkeeping.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bookkeeping.py

clean:  ## remove the environment and tool caches; results stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
