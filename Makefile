# What a user needs: `make demo`, `make test`. `make help` lists the rest.
# For other versions see docs/robustness: MMPARC_VENV, MMPARC_CONSTRAINTS and PYTHON choose them.

VENV_PYTHON := $(or $(MMPARC_VENV),.venv)/bin/python
export PATH := $(or $(PATH),/usr/local/bin:/usr/bin:/bin)
WORKERS ?= 2

.PHONY: help env data demo test test-full test-stacks robustness lint format clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 20

env:  ## the environment in .venv, where it is not up to date [PYTHON=python3.12]
	@tools/make_env.sh

data: env  ## the small data sets in data/ [SEED=3]
	@$(VENV_PYTHON) tools/make_toy_data.py \
	    $(if $(filter-out 0,$(SEED)),--seed $(SEED) --out data/toy-seed$(SEED))

demo: env  ## train a ParC detector on small data, evaluate and draw it [SEED=3]
	@PYTHON=$(VENV_PYTHON) SEED=$(SEED) tools/demo.sh

test: env  ## the tests, in ten minutes [PYTEST_ARGS='-k ops' WORKERS=4]
	@$(VENV_PYTHON) -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-full: env  ## all tests: every page, config and failure too
	@$(VENV_PYTHON) -m pytest -n $(WORKERS) --dist worksteal -m '' $(PYTEST_ARGS)

test-stacks: env  ## six other stacks, hours: see docs/robustness [STACK=torch2_1-py310]
	@$(VENV_PYTHON) tools/try_stacks.py $(STACK)

robustness: env  ## all failure tests, see docs/robustness [POINT=crash]
	@MMPARC_FIGURES=docs/robustness/figures.csv $(VENV_PYTHON) -m pytest -n 0 -m '' -rA --timeout 0 \
	    tests/robustness$(if $(POINT),/test_$(POINT).py) $(PYTEST_ARGS)

lint: env  ## ruff, its format, and spelling
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m codespell_lib

format: env  ## format the code, and fix what ruff can fix
	@$(VENV_PYTHON) -m ruff format .
	@$(VENV_PYTHON) -m ruff check --fix .

clean:  ## remove the environment
	rm -rf $(or $(MMPARC_VENV),.venv)
