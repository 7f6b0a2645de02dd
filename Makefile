# `make` alone lists the targets. Needs Python 3.11 or later with venv; everything else comes from
# the two lock files, into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -qq --no-deps
RUNTIME := $(VENV)/runtime.stamp
TESTING := $(VENV)/testing.stamp
DRAWING := $(VENV)/drawing.stamp
COMPILE := build/lock/bin/pip-compile --quiet --generate-hashes --strip-extras --no-annotate \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --allow-unsafe

MINUTES ?= 60
SECONDS ?= 60
HOURS ?= 2
ROUND ?=
# A module's tests stay in one process: what they share is made once.
PARALLEL := --numprocesses=auto --dist=loadfile
TEST_SECONDS_MAX := 2400
SEEDS ?= 100

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: help demo test lint style format types layers vectors simulate attack mutants fuzz soak reliability \
  bench bench-peers load plots capacity lock clean

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(RUNTIME) ## three agencies on this machine: the whole of Ivor in under a minute
	@$(BIN)/ivor demo

# The tests start at once and write to a file, which is shown, live, after the static gates: so the
# output keeps its order, and pytest's summary is the last line.
test: $(TESTING) ## every gate: vectors, lint, types, layers, tests, coverage
	@mkdir -p build
	@rm -rf build/vectors && cp -R vectors build/vectors
	@$(BIN)/python -m tests.make_vectors
	@diff -r build/vectors vectors || { \
	  echo 'vectors/ was not up to date: it is now; read the difference and commit it.' >&2; exit 1; }
	@timeout --kill-after=60 $(TEST_SECONDS_MAX) $(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term >build/pytest.log 2>&1 </dev/null & tests=$$!; \
	trap 'kill $$tests 2>/dev/null || true' EXIT; \
	gates=0; $(MAKE) --no-print-directory --keep-going lint || gates=$$?; \
	tail --lines=+1 --follow --sleep-interval=0.2 --pid=$$tests build/pytest.log; \
	failed=0; wait $$tests || failed=$$?; trap - EXIT; \
	[ $$gates = 0 ] || echo 'FAILED before the tests: see the static gates above.'; \
	exit $$(( gates || failed ))

lint: style format types layers ## ruff, format, mypy and the layers

style: $(TESTING)
	$(BIN)/ruff check

format: $(TESTING)
	$(BIN)/ruff format --check

types: $(TESTING)
	$(BIN)/mypy

layers: $(TESTING)
	$(BIN)/lint-imports --no-logo --cache-dir build/imports

vectors: $(TESTING) ## write vectors/ anew
	@$(BIN)/python -m tests.make_vectors

# Fresh seeds each time; those that fail are printed with the command that repeats them.
simulate: $(TESTING) ## SEEDS=100 federations with faults and attackers, in simulated time
	@$(BIN)/python -m tests.simulator --seeds $(SEEDS) --jobs 2

# MINUTES for each machine; another round draws other examples.
attack: $(TESTING) ## the state machines of tests/properties, for MINUTES=60 each
	@rm -f build/attack.jsonl
	@IVOR_ATTACK_MINUTES=$(MINUTES) $(BIN)/python -m pytest -q -o timeout=0 --numprocesses=auto tests/properties -k 'not TestAttacker'
	@cat build/attack.jsonl

mutants: $(TESTING) ## plant each bug of two lists: a test must fail, or the simulator find it
	@$(BIN)/python -m tests.mutants
	@$(BIN)/python -m tests.simulator.bugs

fuzz: $(TESTING) ## search for inputs that break a law, for SECONDS=60 a target
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

soak: $(TESTING) ## load, churn and faults for HOURS=2: memory, descriptors, tasks, delivery, disk
	@$(BIN)/python -m tests.soak --hours $(HOURS)

# ROUND=--quick is what CI runs on every change.
reliability: $(TESTING) ## a round of everything, about 20 minutes; writes docs/reliability.md
	@$(BIN)/python -m tests.reliability $(ROUND)

bench: $(TESTING) ## measure; prints JSON lines and a table
	@$(BIN)/python -m bench

load: $(TESTING) ## 2,000 devices on one node; what it needs is made once, in build/bench
	@IVOR_BENCH_CACHE=build/bench $(BIN)/python -m bench load

bench-peers: $(RUNTIME) ## the same work on hypercore, ejabberd and Synapse, in turn; installs them in build/bench
	@IVOR_BENCH_CACHE=build/bench $(BIN)/python -m bench.peers

capacity: $(RUNTIME) ## what a country would need, from the figures in bench/results
	@$(BIN)/python -m bench.capacity

# Drawn from bench/results/growth.jsonl, which `python -m bench growth --json` prints.
plots: $(DRAWING) ## draw how costs grow, into bench/results
	@$(BIN)/python -m bench.plots

# A machine's own mirrors and wheel folders must not decide what is locked.
lock: ## resolve pyproject.toml into the lock files
	@$(PYTHON) -m venv --clear build/lock
	@build/lock/bin/python -m pip install -qq pip-tools==7.6.2
	@for lock in requirements.lock:--all-build-deps 'requirements-test.lock:--extra=test --constraint=requirements.lock' \
    'requirements-bench.lock:--extra=bench --constraint=requirements.lock'; do \
	  env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
	    CUSTOM_COMPILE_COMMAND='make lock' \
	    $(COMPILE) $${lock#*:} --output-file $${lock%:*} pyproject.toml; \
	done
	@# The resolver forgets for which machines a package of an extra is meant.
	@sed -i "s/^atheris==[^ ]*/& ; platform_machine == 'x86_64'/" requirements-test.lock

clean: ## remove the virtual environment and everything built
	rm -rf $(VENV) build dist .hypothesis .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/locked.stamp: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Ivor needs Python 3.11 or later. Name one: make PYTHON=python3.12 …' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'Python lacks venv. On Debian: apt install python3-venv' >&2; exit 1; }
	@echo 'Setting up $(VENV) …' >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@$(INSTALL) --require-hashes --requirement requirements.lock
	@touch $@

$(RUNTIME): $(VENV)/locked.stamp pyproject.toml
	@$(INSTALL) --no-index --no-build-isolation --editable .
	@$(PIP) check --quiet || $(PIP) check >&2
	@touch $@

$(DRAWING): $(RUNTIME) requirements-bench.lock
	@echo 'Installing what draws …' >&2
	@$(INSTALL) --require-hashes --requirement requirements-bench.lock
	@$(PIP) check --quiet || $(PIP) check >&2
	@touch $@

$(TESTING): $(RUNTIME) requirements-test.lock
	@echo 'Installing what the tests need …' >&2
	@$(INSTALL) --require-hashes --requirement requirements-test.lock
	@$(PIP) check --quiet || $(PIP) check >&2
	@touch $@
