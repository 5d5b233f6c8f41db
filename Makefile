# Two commands from a bare clone: `make demo` and `make test`. Each builds .venv first if it does not exist.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-cluster docs types coverage lock clean

demo: .venv/ready
	$(BIN)/zoo demo

# A file's tests share one process, as they share costly fixtures; in order, as the longest files then start early.
test: .venv/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10

# On a Slurm of two nodes that the tests start on this machine, where its programs are installed.
test-cluster: .venv/ready
	$(BIN)/python -m pytest tests/cluster

# A link that leads nowhere is an error.
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

types: .venv/ready
	$(BIN)/mypy

coverage: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term-missing:skip-covered

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %s; try make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --extra dev --extra docs pyproject.toml -o requirements.lock

clean:
	rm -rf .venv runs build
