# Every target makes or updates .venv by itself, from requirements/*.lock, before it runs.
# The programs' arguments are composed in scripts/launch.py.

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# The environment's folder, and the Python that it is made from (empty: the first one >= 3.11).
VENV ?= .venv
PYTHON ?=
export VENV PYTHON

# `+` lets `make -n` through to launch.py, which then prints the command; `exec` leaves no shell
# between make and the program, so that Ctrl-C is handled there alone.
LAUNCH = +@exec sh scripts/run.sh scripts/launch.py
IN_VENV = '$(VENV)/bin/python' -m

# Names alone: what they do and take is in deepacc_d2/command/table.py, which `make help` prints.
LAUNCHED = train context masks ablation peers sweep evaluate compare dashboard predict review explain \
           robustness karyotype polarity export data data-check synthetic test coverage bench \
           torture

.PHONY: $(LAUNCHED) lint format docs docs-serve setup lock clean help

$(LAUNCHED):
	$(LAUNCH) $@
lint: setup
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	@'$(VENV)/bin/lint-imports' --no-logo
	@mkdir -p .mypy_cache && ln -sfn ../lightning .mypy_cache/deepacc_lightning
	$(IN_VENV) mypy
format: setup
	$(IN_VENV) ruff check --fix-only --quiet .
	$(IN_VENV) ruff format .
docs:
	@exec sh scripts/run.sh scripts/setup_env.py --extras "docs $(EXTRAS)"
	$(IN_VENV) mkdocs build
docs-serve:
	@exec sh scripts/run.sh scripts/setup_env.py --extras "docs $(EXTRAS)"
	$(IN_VENV) mkdocs serve
setup:
	@exec sh scripts/run.sh scripts/setup_env.py
lock:
	@exec sh scripts/run.sh scripts/lock.py $(ARGS)
clean:
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path './$(VENV)' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
help:
	@exec sh scripts/run.sh scripts/launch.py help
