# make demo | make test | make check | make docs | make bench | make gpu   (also: make tree, make flags, make format, make clean)
# Each command installs what it needs into .venv first: Python 3.11 or newer and a network are all it takes.

PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m

# Compiled files make every start several seconds faster: torch alone has thousands of modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check docs bench gpu tree flags format clean
.DEFAULT_GOAL := demo

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(RUN) pip install --quiet uv

.venv/.installed: pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable .
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@ .venv/.installed

demo: .venv/.installed
	$(RUN) studio.cli demo

test: .venv/.installed-dev
	$(RUN) pytest -m 'not timing' --numprocesses auto --dist worksteal

check: docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports
	$(BIN)/pylint studio trainers ui

docs: .venv/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet

bench: .venv/.installed-dev
	$(RUN) pytest -m timing -s
	$(RUN) studio.bench.embedded
	$(RUN) studio.bench.dreambooth_step
	$(RUN) studio.bench.orthogonal --threads 1 2
	$(RUN) studio.bench.attacks
	$(RUN) studio.bench.rewards
	$(RUN) studio.bench.clip

gpu: .venv/.installed-dev
	$(RUN) tests.gpu

flags: .venv/.installed-dev
	$(RUN) tests.flags

tree: .venv/.installed-dev
	$(RUN) tests.tree
	$(RUN) tests.rooms

format: .venv/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache
