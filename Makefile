# Everything runs in .venv, created on first use with the exact versions in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
OLDEST := .venv-oldest
BIN := $(VENV)/bin

GATE := tests/gate/baseline runs/gate --tolerances tests/gate/tolerances.toml

# Threads do not speed up tiny tensors, and two processes that both use all cores slow each other down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-slow test-all test-whole test-oldest check gate gate-update fuzz bench bench-model bench-gpu clean

demo: $(VENV)/installed  ## run the quickstart suite and render its report
	$(BIN)/prunebench run quickstart --out runs/quickstart

test: $(VENV)/installed  ## run the fast tests, which cover every behaviour, after an edit
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/installed  ## run the slow tests: kills, Ray, ten thousand cuts, LaTeX, MLflow, fuzzing, whole pages
	$(PYTEST) -m slow

test-all: test-whole test-oldest  ## run all tests with the whole contract, and the methods' tests on the oldest transformers (about an hour; -j2 halves it)

test-whole: $(VENV)/installed  ## run all tests with the whole contract
	$(BIN)/python -m pytest --whole-contract

test-oldest: $(OLDEST)/oldest  ## run the methods' tests on the oldest supported transformers
	$(OLDEST)/bin/python -m pytest tests/methods --whole-contract

check: $(VENV)/installed  ## check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

gate: $(VENV)/installed  ## prune the real model; fail if a method is worse than the stored baseline
	$(BIN)/prunebench run tests/gate/suite.toml --out runs/gate --existing rerun-stale
	$(BIN)/prunebench gate $(GATE) --junit runs/gate/junit.xml --markdown runs/gate/summary.md

gate-update: $(VENV)/installed  ## make the results of the present code the new baseline
	$(BIN)/prunebench run tests/gate/suite.toml --out runs/gate --existing rerun-stale
	$(BIN)/prunebench gate $(GATE) --update

fuzz: $(VENV)/installed  ## damage model folders, then records and suites, five minutes each (the last two need atheris)
	$(BIN)/python -m tests.fuzz.folders --n 300
	$(BIN)/python tests/fuzz/fuzz_record.py -max_total_time=300
	$(BIN)/python tests/fuzz/fuzz_suite.py -max_total_time=300

bench: $(VENV)/installed  ## time the methods and their parts (fails for no time)
	$(BIN)/python -m pytest benchmarks -s --benchmark-enable --benchmark-only --benchmark-json=benchmarks/latest.json

bench-model: $(VENV)/installed  ## time the methods on the real 135M model, in fp32 and in bf16
	$(BIN)/python -m benchmarks.model smollm2-135m --dtype float32 --out runs/model-float32.json
	$(BIN)/python -m benchmarks.model smollm2-135m --dtype bfloat16 --out runs/model-bfloat16.json

bench-gpu:  ## contract and times on a CUDA GPU, with the installed packages (benchmarks/README.md)
	$(PYTHON) -m benchmarks.gpu

clean:
	rm -rf $(VENV) $(OLDEST)

# Install torch first and alone: with a version range pip would choose a build for absent accelerators.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

$(OLDEST)/oldest: pyproject.toml constraints.txt constraints-oldest.txt
	$(MAKE) VENV=$(OLDEST) $(OLDEST)/installed
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check -r constraints-oldest.txt
	touch $@
