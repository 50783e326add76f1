# make setup | demo | test | lint | clean. Each sets up what it needs first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := src tests tools benchmarks

.PHONY: help setup demo test lint clean

help:
	@echo "make setup   create $(VENV) and install handgraph with all extras (needs Python 3.11 or newer)"
	@echo "make demo    find hands in the shipped sample frames, and in FILES=\"…\", into demo-output/"
	@echo "make test    lint, then the quick test suite"
	@echo "make lint    ruff and mypy"
	@echo "make clean   remove what the other targets made"

setup: $(INSTALLED)

# Again only when what is to be installed has changed; the stamp comes last, so a broken set-up starts over.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "handgraph needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1):" \
	       "install one and run: make setup PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment (on Debian: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

demo: setup
	$(BIN)/python tools/demo.py $(FILES)

test: lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist demo-output .pytest_cache .ruff_cache .mypy_cache src/*.egg-info
