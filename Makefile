# Two commands show everything: `make run` and `make test`. Needs Python 3.11 or newer, nothing else.
# Every path is relative, so that the directory may have any name, and tools run as modules of
# .venv's Python, because a script's first line would hold an absolute path.

.DEFAULT_GOAL := help
.PHONY: help env test-env bench-env run test soak bench check wheel lock clean

# The Python to make .venv with; found in PATH when it is empty.
PYTHON ?=
# More arguments for pytest, or the benchmarks: make test ARGS="tests/unit -k wire"
ARGS ?=
# Only `make lock` needs it.
UV ?= uv

VENV_PYTHON := .venv/bin/python
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-header --upgrade

# Modules from elsewhere must not stand in for the pinned ones.
unexport PYTHONPATH PYTHONHOME
# Tests start hundreds of processes: none should have to compile the host anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile

env: ## make .venv and .plugin-env, or bring them up to date
	@sh .ci/make_env.sh "$(PYTHON)"

# With clients of others, for plugins of the tests.
test-env:
	@sh .ci/make_env.sh "$(PYTHON)" client-env

# With the peers of the benchmarks. Those that cannot be had are told in the table, not missed.
bench-env: env
	-@sh .ci/make_env.sh "$(PYTHON)" bench-env

run: env ## run the example: three untrusted plugins on real data
	@$(VENV_PYTHON) plugins/weather_flow.py

test: test-env ## run the tests (ARGS="..." goes to pytest)
	@$(VENV_PYTHON) -m pytest -n auto --dist worksteal $(ARGS)

soak: test-env ## run the long forms of the tests, one after the other
	@$(VENV_PYTHON) -m pytest -m soak --timeout 1200 -o faulthandler_timeout=0 $(ARGS)

bench: bench-env ## measure beside peers, and write benchmarks/results (ARGS="--quick": 3 minutes)
	@$(VENV_PYTHON) benchmarks/every.py $(ARGS)

check: env ## formatting, lint, types, directions of imports
	@$(VENV_PYTHON) -m ruff format --check --extend-exclude .plugin-env,.client-env,.bench-env .
	@$(VENV_PYTHON) -m ruff check --extend-exclude .plugin-env,.client-env,.bench-env .
	@$(VENV_PYTHON) -m mypy --platform linux
	@$(VENV_PYTHON) -c 'from importlinter.cli import lint_imports_command; lint_imports_command(["--no-logo"])'

wheel: env ## build dist/*.whl
	@$(VENV_PYTHON) -m hatchling build --target wheel

lock: ## renew the lock files (needs uv; review what changes)
	$(VENV_PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], "editables", sep="\n")' \
		| $(LOCK) --extra test --extra check --output-file requirements.lock pyproject.toml -
	$(LOCK) --output-file plugin-env.lock plugin-env.in
	$(LOCK) --output-file client-env.lock client-env.in
	$(VENV_PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"], sep="\n")' \
		| $(LOCK) --constraint requirements.lock --output-file bench-env.lock -

clean: ## remove everything that was made
	rm -rf .venv .plugin-env .client-env .bench-env dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
