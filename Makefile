# On a machine with Python 3.11 and nothing else: `make search`, `make miniature` or `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: search miniature test test-slow lint clean

search: .venv/installed
	$(BIN)/python tune_jobs/maml_rr.py

miniature: .venv/installed
	$(BIN)/python tune_jobs/paper.py

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow --timeout 1800

lint: .venv/installed
	$(BIN)/lint-imports && $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy mpt analysis tune_jobs benchmarks && $(BIN)/mypy --explicit-package-bases tests

# torch first and by itself: its pinned version must be in place before anything asks for "torch".
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
