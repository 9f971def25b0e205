# `make demo` and `make test` make .venv if it is missing or older than what it was made from.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-faults notebooks clean

help:
	@echo "make demo        train on the digits that come with the package; writes runs/demo"
	@echo "make test        every check and every notebook; ends with 'N passed, N failed'"
	@echo "make test-faults kill, damage and forge checkpoints in every way; prints one table"
	@echo "make notebooks   export, execute and clean all notebooks, renew README.md"
	@echo "make clean       remove the environments and what was built"

demo: .venv/installed
	$(BIN)/nntrain train --data digits --out runs/demo --fresh

test: .venv/installed
	@$(BIN)/python tools/test.py

test-faults: .venv/installed
	@$(BIN)/python tools/faults.py

notebooks: .venv/installed
	$(BIN)/nbdev_export
	$(BIN)/python tools/run_nbs.py
	$(BIN)/python tools/readme.py

.venv/installed: settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv .venv-wheel build dist *.egg-info
