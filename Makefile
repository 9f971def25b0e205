# Each command makes .venv, or adds to it, if what it needs is missing or older than its source.
PYTHON ?= python3
BIN := .venv/bin
EXTRA = $(if $(filter-out installed,$(@F)),[$(@F)])

.PHONY: help demo test test-faults notebooks docs browser-test clean

help:
	@echo "make demo        train on the digits that come with the package; writes runs/demo"
	@echo "make test        every check and every notebook; ends with 'N passed, N failed'"
	@echo "make test-faults kill, damage and forge checkpoints in every way, kill ranks; about ten minutes"
	@echo "make docs        the book as HTML in _docs/site, without a network; checks its links"
	@echo "make browser-test  pages in JupyterLab and in HTML, in a real browser; pictures in runs/browser"
	@echo "make notebooks   export, execute and clean all notebooks, renew README.md"
	@echo "make clean       remove the environments and what was built"

demo: .venv/installed
	$(BIN)/nntrain train --data digits --out runs/demo --fresh

test: .venv/dev
	@$(BIN)/python tools/test.py

test-faults: .venv/dev
	@$(BIN)/python -m pytest -v -m faults tests

notebooks: .venv/dev
	$(BIN)/nbdev_export
	$(BIN)/python tools/stubs.py
	$(BIN)/python tools/run_nbs.py
	$(BIN)/python tools/readme.py

docs: .venv/dev .venv/docs
	@$(BIN)/python tools/docs.py

browser-test: docs .venv/browser
	@$(BIN)/python tools/browser.py

.venv/installed .venv/dev .venv/docs .venv/browser: settings.ini setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.$(EXTRA)'
	@touch $@ .venv/installed

clean:
	rm -rf .venv .venv-wheel _docs build dist *.egg-info
