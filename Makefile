# Everything runs in .venv, made on first use with the exact versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check bench clean

demo: $(VENV)/installed  ## run the quickstart suite and render its report
	$(BIN)/prunebench run quickstart --out runs/quickstart

test: $(VENV)/installed  ## run the tests
	$(BIN)/python -m pytest

check: $(VENV)/installed  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed  ## time the methods (nothing is asserted)
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only --benchmark-json=benchmarks/latest.json

clean:
	rm -rf $(VENV)

# torch first and alone: a range would let pip take a build for accelerators that are not there.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
