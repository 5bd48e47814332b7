# Set-up, checks, demonstration. Everything lands in .venv/ of this folder; nothing needs the network after set-up.
#   make test                     all checks (below ten minutes on two cores)
#   make demo                     the shipped study, with its report
#   PYTHON=python3.12 make test   another interpreter

PYTHON ?= python3
STUDY ?= gpu_vs_sram_vs_asic
BIN := .venv/bin
STAMP := .venv/.set-up

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUTF8 := 1

# An interpreter that was named on purpose replaces a .venv of another version; the default one takes the .venv as it is.
ifneq ($(origin PYTHON),file)
HAVE := $(shell $(BIN)/python -c 'import sys; print(sys.version_info[:2])' 2>/dev/null)
WANT := $(shell $(PYTHON) -c 'import sys; print(sys.version_info[:2])' 2>/dev/null)
ifneq ($(HAVE),$(WANT))
.PHONY: $(STAMP)
endif
endif

.PHONY: all setup test lint types layers unit long demo validation lock clean readme questions

all: test

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "dse needs Python 3.11 or newer; found: '$$($(PYTHON) --version 2>&1 | head -n 1)' for PYTHON=$(PYTHON)."; \
	  echo "Name another one: PYTHON=python3.12 make $(or $(MAKECMDGOALS),test)"; exit 1; } >&2
	@want=$$($(PYTHON) -c 'import sys; print(sys.version_info[:2])'); \
	have=$$($(BIN)/python -c 'import sys, pip; print(sys.version_info[:2])' 2>/dev/null || true); \
	[ -n "$$have" ] && { [ "$$have" = "$$want" ] || [ "$(origin PYTHON)" = file ]; } || { \
	  echo "Making .venv with $$($(PYTHON) --version) ..." >&2; rm -rf .venv; \
	  $(PYTHON) -m venv .venv >.venv.log 2>&1 || { cat .venv.log; rm -rf .venv .venv.log; \
	    echo "No virtual environment could be made with $(PYTHON)."; \
	    echo "On Debian and Ubuntu: apt-get install python3-venv; or name a complete Python: PYTHON=/path/to/python3 make"; exit 1; } >&2; \
	  rm -f .venv.log; }
	@echo "Installing the pinned packages into .venv (a few minutes the first time) ..." >&2
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

test: lint types layers unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports --no-cache

unit: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not long" --durations=15

# The tests that take minutes; reports/long_tests.md says what they showed, when and with which versions.
long: $(STAMP)
	@status=0; XLA_FLAGS= $(BIN)/python -m pytest -q -n 2 -m long --junitxml=.pytest_cache/long.xml || status=$$?; \
	$(BIN)/python tools/long_tests.py .pytest_cache/long.xml && exit $$status

# The page of predictions against measurements; `make validation CROSS=1` first computes errors on what the fits have not seen (minutes).
validation: $(STAMP)
	$(if $(CROSS),$(BIN)/dse calibrate --cross reports/validation/cross_validation.json)
	$(BIN)/dse validate --all --report reports/validation/report.html

demo: $(STAMP)
	$(BIN)/dse run $(STUDY) --force

# README's computed lines: the answer from the committed report of the shipped study, the errors from the measurements.
readme: $(STAMP)
	$(BIN)/python tools/readme.py --validate

# What the committed reports answer: reports/README.md, from tools/questions.toml and the reports.
questions: $(STAMP)
	$(BIN)/python tools/questions.py

# Choose the pins anew (needs pip-tools in .venv); one set must serve every Python named in pyproject.toml.
lock: $(STAMP)
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --extra test --strip-extras --allow-unsafe --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options --output-file requirements.txt pyproject.toml

clean:
	rm -rf .venv .venv.log dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find dse tests -name __pycache__ -type d -prune -exec rm -rf {} +
