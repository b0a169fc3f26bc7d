# One command each: `make demo`, `make test`. Both set everything up first, in .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test bench faults check constraints clean

help: ## Show this list
	@echo "usage: make TARGET [ARGS='…'] [PYTHON=/path/to/python3.11]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 15

demo: $(READY) ## Run a DAG on an edge worker in a whole Airflow on this machine (ARGS=--help for its options)
	@$(BIN)/python -m demo $(ARGS)

test: check ## Check the code and run the tests (ARGS goes to pytest, such as ARGS="-m 'not acceptance'")
	$(BIN)/python -m pytest -n 3 --no-loadscope-reorder $(ARGS)

bench: $(READY) ## Measure against edge3 in one run: a table, .bench/result.json and a picture (ARGS=--help for its options)
	@$(BIN)/python -m tests.bench $(ARGS)

faults: $(READY) ## Inject faults into a real Airflow with several sites: a table and .faults/result.json (ARGS=--help)
	@$(BIN)/python -m tests.faults $(ARGS)

check: $(READY) ## Check style, types and what is generated only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --no-warn-unreachable --cache-dir .mypy_cache/win32 -p edge_worker
	$(BIN)/python docs/catalogue.py --check
	$(BIN)/python -m dashboards.build --check

constraints: $(READY) ## Write the versions installed now to constraints.txt
	@$(BIN)/python -m pip freeze --exclude-editable | LC_ALL=C grep -E '^[A-Za-z0-9_.-]+==[^ ]+$$' | LC_ALL=C sort -f > constraints.new
	@mv constraints.new constraints.txt

clean: ## Remove what the targets made, but not .venv
	rm -rf .demo .faults .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up .venv with $$($(PYTHON) --version); this takes some minutes the first time."
	@$(PYTHON) -m venv .venv || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)
