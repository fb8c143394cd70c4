.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
ARGS ?=
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --quiet

.PHONY: help setup run lint type test test-fast test-oldest test-newest mutants smoke package docs bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready  ## make .venv with everything that run, lint and test need

# torch first and through the constraints: another package would pull in gigabytes of GPU libraries
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

run: setup  ## detoxify the embedded miniature: python -m lora_detox task=flan_summary (ARGS=... for overrides)
	$(BIN)/python -m lora_detox task=flan_summary $(ARGS)

lint: setup  ## ruff, import contracts, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pydoclint --quiet lora_detox

type: setup  ## mypy --strict
	$(BIN)/mypy

test: setup  ## all CPU tests
	$(PYTEST) $(ARGS)

test-fast: setup  ## unit tests and golden numbers, without whole trainings, memory predictions and the hub
	$(PYTEST) -m "not training and not slow and not hub and not prediction" tests/unit tests/golden $(ARGS)

OLDEST := .venv-oldest
NEWEST := .venv-newest

# pip has no choice of lowest versions: constraints of the lower bounds do that; what runs the tests is as new as it may be
test-oldest:  ## test-fast and smoke with the lowest versions that pyproject.toml claims, in .venv-oldest (gigabytes)
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python tests/packaging/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(OLDEST)/constraints.txt torch
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(OLDEST)/constraints.txt \
		--editable '.[chat,sweeps,gguf]' beartype filelock hatchling hypothesis pytest pytest-xdist sacrebleu selenium
	touch $(OLDEST)/.ready
	$(MAKE) VENV=$(OLDEST) test-fast smoke

test-newest:  ## test-fast and smoke with the newest versions that pyproject.toml allows, in .venv-newest
	$(MAKE) VENV=$(NEWEST) CONSTRAINTS=/dev/null test-fast smoke

# beside .venv's own packages; constraints keep those as they are
mutants: setup  ## which small changes to the core no test notices, half an hour, not in CI (ARGS='lora_detox.update.*')
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mutation]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutation/run.py $(ARGS)

smoke: setup  ## both tasks from end to end in seconds, as a sweep, in a temporary folder
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	$(BIN)/python -m lora_detox --multirun task=flan_summary,gptj_continuation debug=smoke \
		hydra.sweep.dir="$$out" && ls "$$out"/*/summary.json

package: setup  ## sdist and wheel; the wheel runs from an empty environment and another folder
	$(BIN)/python tests/packaging/check.py

# never --quiet: it keeps warnings from --strict too
docs: setup  ## build the documentation site into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: setup  ## speed of one iteration on this machine (PEER=DIR also runs TRL 0.11.4 from that environment)
	$(BIN)/python -m recipes.benchmarks.run $(if $(PEER),--peer $(PEER))

clean:  ## remove .venv and caches, keep runs/
	rm -rf $(VENV) $(OLDEST) $(NEWEST) build/site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache mutants
