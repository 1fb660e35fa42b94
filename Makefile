# make demo, make test: everything they need goes into .venv, nothing else on the machine is touched.
#   PYTHON=python3.12   the interpreter that .venv is made from (3.10 or newer)
#   TORCH_INDEX=URL     where torch comes from, e.g. https://download.pytorch.org/whl/cpu for a build without CUDA
#   WORKERS=2           processes of the tests
#   ARGS="..."          handed to demo, test (pytest) and bench
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
WORKERS ?= 2
ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
STAMP := $(VENV)/.installed

# the same text, numbers and pictures whatever the machine's locale and display are
export LC_ALL := C.UTF-8
export PYTHONUTF8 := 1
export MPLBACKEND := Agg
# tools of an active environment must not leak into .venv
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

.DEFAULT_GOAL := install
.PHONY: help install demo nnunet test lint format bundles bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

install: $(STAMP) ## .venv with torch 2.13.0, what monai_kd needs, and monai_kd itself (editable)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
		|| { echo "monai_kd needs Python 3.10 or newer as '$(PYTHON)'; try: make install PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "'$(PYTHON)' cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: whatever is resolved after it finds this build in place and leaves it
$(STAMP): requirements-dev.txt setup.py pyproject.toml | $(PY)
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' requirements-dev.txt)"
	$(PIP) install -r requirements-dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## what a student with few labels gains on generated CT; prints it and the path of an HTML page
	$(PY) -m monai_kd demo $(ARGS)

# nnU-Net asks for torchvision, which must not be found by others where it has no build for this torch: a place apart
NNUNET := nnunetv2 acvl_utils batchgenerators batchgeneratorsv2 dynamic_network_architectures blosc2 \
	connected-components-3d imagecodecs simpleitk einops yacs timm torchvision fft-conv-pytorch dicom2nifti future \
	ndindex numexpr msgpack py-cpuinfo tifffile graphviz seaborn pandas scikit-learn httpx requests

$(VENV)/nnunet/nnunetv2: $(STAMP)
	-$(PIP) install --no-deps --target $(VENV)/nnunet --upgrade $(NNUNET)

nnunet: $(VENV)/nnunet/nnunetv2 ## nnU-Net for the tests, without its torch; they are skipped where it cannot be had

test: install nnunet ## all tests, with the examples of the docstrings
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal --durations=15 $(ARGS)

lint: install ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: install ## lets ruff rewrite the files
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bundles: install ## writes bundles/ from bundles_src/
	$(PY) tools/build_bundles.py

bench: install ## time and memory of a distillation step
	$(PY) benchmarks/step.py $(ARGS)

clean: ## removes .venv, build output and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
