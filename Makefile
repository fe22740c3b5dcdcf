# Two commands are enough: `make demo` and `make test`. Works with GNU make 3.81 and later.
VENV := .venv
PYTHON := $(VENV)/bin/python
ENGINE := $(PYTHON) -m mtf_engine
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest
WORKERS ?= 2
DEMO := data/demo

.PHONY: help demo app test fast slow check format docs
help:
	@echo "make demo    install, fill a demo workspace, open the dashboard on http://localhost:8501"
	@echo "make app     open the dashboard on your workspace (MTF_WORKSPACE, else data/)"
	@echo "make test    install, find a browser, run every test"
	@echo "make fast    the tests that need no browser"
	@echo "make check   format, lint, types and every test"
	@echo "make slow    the tests that need longer than minutes"
	@echo "make format  rewrite the code in the house's format"
	@echo "make docs    write docs/reference.md from the code"

demo: $(VENV)/app.stamp
	$(ENGINE) --workspace $(DEMO) demo
	$(ENGINE) --workspace $(DEMO) dashboard

app: $(VENV)/app.stamp
	$(ENGINE) dashboard

test: $(VENV)/dev.stamp
	$(PYTHON) tests/browser.py
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow"

fast: $(VENV)/dev.stamp
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow and not browser"

slow: $(VENV)/dev.stamp
	$(PYTHON) tests/browser.py
	$(PYTEST) -m slow
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow and not browser" --hypothesis-profile default

check: $(VENV)/dev.stamp
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(MAKE) test

format: $(VENV)/dev.stamp
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

docs: $(VENV)/dev.stamp
	$(PYTHON) -m docs.reference > docs/reference.md

$(PYTHON):
	sh .ci/make_venv $(VENV)

$(VENV)/app.stamp: requirements.txt | $(PYTHON)
	$(PYTHON) -m pip install -r requirements.txt
	touch $@

$(VENV)/dev.stamp: requirements.txt requirements-dev.txt | $(PYTHON)
	$(PYTHON) -m pip install -r requirements-dev.txt
	touch $(VENV)/app.stamp $@
