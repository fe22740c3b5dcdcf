# Two commands are enough: `make demo` and `make test`. Works with GNU make 3.81 and later.
VENV := .venv
PYTHON := $(VENV)/bin/python
MTF := $(VENV)/bin/mtf
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PYTHON) -m pytest
WORKERS ?= 2
DEMO := data/demo

.PHONY: help demo app test fast slow cluster-test test-range check lock audit format docs
help:
	@echo "make demo    install, fill a demo workspace, open the dashboard on http://localhost:8501"
	@echo "make app     open the dashboard on your workspace (MTF_WORKSPACE, else data/)"
	@echo "make test    install, find a browser, run every test"
	@echo "make fast    the tests that need no browser"
	@echo "make check   format, lint, types and every test"
	@echo "make test-range  the tests that need no browser, on the oldest and the newest packages that pyproject.toml allows"
	@echo "make lock    write requirements.txt and requirements-dev.txt from pyproject.toml (UPGRADE=--upgrade: newest)"
	@echo "make audit   known vulnerabilities of the locked packages, or a line that their data was not reached"
	@echo "make slow    the tests that need longer than minutes"
	@echo "make cluster-test  install Ray, start two nodes of it and PostgreSQL, kill nodes and workers"
	@echo "make format  rewrite the code in the house's format"
	@echo "make docs    write the reference, the log format, its mapping's schema and the map of rooms from the code"

demo: $(VENV)/app.stamp
	$(MTF) --workspace $(DEMO) demo
	$(MTF) --workspace $(DEMO) dashboard

app: $(VENV)/app.stamp
	$(MTF) dashboard

test: $(VENV)/dev.stamp
	$(PYTHON) tests/browser.py
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow and not cluster"

fast: $(VENV)/dev.stamp
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow and not browser and not cluster"

slow: $(VENV)/dev.stamp
	$(PYTHON) tests/browser.py
	$(PYTEST) -m slow
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow and not browser and not cluster" --hypothesis-profile searching

cluster-test: $(VENV)/cluster.stamp
	$(PYTEST) -m cluster tests/test_cluster.py

check: $(VENV)/dev.stamp
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(MAKE) test

test-range: $(VENV)/dev.stamp
	sh .ci/test_range $(VENV)/bin/uv

lock: $(VENV)/dev.stamp
	sh .ci/lock $(VENV)/bin/uv $(UPGRADE)

audit: $(VENV)/dev.stamp
	$(PYTHON) .ci/audit.py $(VENV)/bin/uv requirements.txt requirements-dev.txt

format: $(VENV)/dev.stamp
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

docs: $(VENV)/dev.stamp
	$(PYTHON) -m docs.reference > docs/reference.md
	$(PYTHON) -m docs.log_format > docs/log-format.md
	$(PYTHON) -m docs.mapping_schema > docs/mapping.schema.json
	$(PYTHON) -m docs.architecture

$(PYTHON):
	sh .ci/make_venv $(VENV)

$(VENV)/app.stamp: requirements.txt pyproject.toml | $(PYTHON)
	$(PYTHON) -m pip install -r requirements.txt
	$(PYTHON) -m pip install --no-deps --editable .
	touch $@

$(VENV)/dev.stamp: requirements-dev.txt pyproject.toml | $(PYTHON)
	$(PYTHON) -m pip install -r requirements-dev.txt
	$(PYTHON) -m pip install --no-deps --editable .
	touch $(VENV)/app.stamp $@

$(VENV)/cluster.stamp: $(VENV)/dev.stamp
	$(PYTHON) -m pip install --constraint requirements-dev.txt --editable ".[ray]"
	touch $@
