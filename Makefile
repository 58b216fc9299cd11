# Every target makes or updates .venv by itself, from requirements/*.lock, before it runs.
# The programs' arguments are composed in tools/launch.py.

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# The environment's folder, and the Python that it is made from (empty: the first one >= 3.11).
VENV ?= .venv
PYTHON ?=
export VENV PYTHON

# `+` lets `make -n` through to launch.py, which then prints the command; `exec` leaves no shell
# between make and the program, so that Ctrl-C is handled there alone.
LAUNCH = +@exec sh tools/run.sh tools/launch.py
IN_VENV = '$(VENV)/bin/python' -m

.PHONY: help setup train predict evaluate ablation sweep compare dashboard explain robustness karyotype context export data data-check synthetic lint format test bench lock clean

##@ Model
train: ## train a detector and evaluate it: make train EXP=baseline
	$(LAUNCH) $@
context: ## add cell context to a detector: make context CKPT=... DATA=... OUT=...
	$(LAUNCH) $@
ablation: ## train the presets of Table 1 and compare them: make ablation PROTOCOL=heads SEEDS=3
	$(LAUNCH) $@
sweep: ## train over a grid or a search space: make sweep EXP=siamese_gia ARGS="m=.25,.5"
	$(LAUNCH) $@
evaluate: ## evaluate a checkpoint on a test split: make evaluate DATA=...
	$(LAUNCH) $@
compare: ## runs side by side, as a table and a page: make compare RUNS="runs/a runs/b"
	$(LAUNCH) $@
dashboard: ## make or update the W&B dashboard of a project: make dashboard PROJECT=deepacc-d2
	$(LAUNCH) $@
predict: ## images to karyograms and karyotypes: make predict IMAGES=slides OUT=results
	$(LAUNCH) $@
explain: ## draw why an image got its classes: make explain IMAGE=...
	$(LAUNCH) $@
robustness: ## metrics on rescaled, padded, inverted copies of a test split: make robustness DATA=...
	$(LAUNCH) $@
karyotype: ## calibrate on val, judge karyotypes on test: make karyotype CKPT=... DATA=... OUT=...
	$(LAUNCH) $@
export: ## a detector for ONNX Runtime or OpenVINO: make export CKPT=... FORMAT=onnx OUT=...
	$(LAUNCH) $@

##@ Data
data: ## convert a public data set: make data FORMAT=tseng2023 SRC=... OUT=...
	$(LAUNCH) $@
data-check: ## validate a converted data set: make data-check DATA_DIR=...
	$(LAUNCH) $@
synthetic: ## draw a synthetic data set: make synthetic OUT=...
	$(LAUNCH) $@

##@ Development
test: ## run the tests: make test ARGS="tests/losses -k aam"
	$(LAUNCH) $@
lint: setup ## check style, formatting, imports and types (ruff, import-linter, mypy)
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	@'$(VENV)/bin/lint-imports' --no-logo
	$(IN_VENV) mypy
format: setup ## reformat the code and mend what ruff can mend
	$(IN_VENV) ruff check --fix-only --quiet .
	$(IN_VENV) ruff format .
bench: ## run the timed comparisons (minutes) and save their table
	$(LAUNCH) $@
setup: ## make or update .venv, hash-checked; nothing to do if the locks are the same
	@exec sh tools/run.sh tools/setup_env.py
lock: ## resolve requirements/*.in anew into the hash-checked locks
	@exec sh tools/run.sh tools/lock.py $(ARGS)
clean: ## remove caches and build leftovers; .venv, data and runs stay
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path './$(VENV)' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
help: ## show this list
	@echo 'Usage: make TARGET [VARIABLE=value ...]'
	@awk '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z-]+:.*## / { split($$0, part, ":.*## "); name = part[1]; \
	        sub(/^[^#]*## /, ""); printf "  %-11s %s\n", name, $$0 }' Makefile
	@echo
	@echo 'Variables of every target that runs a model (unset ones keep the defaults in conf/)'
	@echo '  EXP         experiment: a file in conf/experiment, such as baseline, sep, retinanet'
	@echo '  DATA        data set: a file in conf/data, or the directory of a converted data set; train,'
	@echo '              ablation and sweep take several directories: DATA="data/a data/b"'
	@echo '  DATA_DIR    where the data set lies, for a DATA given by name'
	@echo '  SCALE       quick (minutes on two cores), lab (any magnification) or paper (full size, GPU)'
	@echo '  SEED        random seed'
	@echo '  CKPT        checkpoint; the shipped DeepACC by default, but to train from, export or add context to'
	@echo '  RESUME      run directory of a training to go on with, exactly where it stopped'
	@echo '  IMAGE       image file to explain'
	@echo '  OUT         output directory; of explain also a .png or .pdf file'
	@echo '  ARGS        further Hydra overrides: ARGS="trainer.max_steps=100 optim.optimizer.lr=0.01"'
	@echo 'Variables of make predict'
	@echo '  IMAGES      an image, a folder, or a pattern in quotes: IMAGES="slides/**/*.tif"'
	@echo '  CASES       which images are of one case: folder, or a CSV file with file,case'
	@echo '  OVERWRITE   1 removes the results that are in OUT; they are gone on with otherwise'
	@echo 'Variables of make export (make setup EXTRAS=export, once; DATA: to check it on)'
	@echo '  FORMAT      onnx or openvino'
	@echo '  PRECISION   fp32; of openvino also bf16 or int8'
	@echo 'Variables of make ablation'
	@echo '  PROTOCOL    heads (one frozen trunk, heads on its cached output) or end_to_end'
	@echo '  SEEDS       how many seeds, or which: 3 or 0,1,2'
	@echo '  EXPS        presets: EXPS="sep siamese_gia deepacc"; the six of Table 1 by default'
	@echo '  JOBS        processes that share the work'
	@echo '  RESULTS     a Markdown file to put the table into, such as docs/RESULTS.md'
	@echo 'Variables of make sweep (EXP and SEED may be several: EXP=sep,siamese_gia)'
	@echo '  SWEEPER     grid (all combinations) or optuna'
	@echo '  N, SPACE    how many trials of optuna in all, and what they search: a file in conf/sweep'
	@echo '  LAUNCHER    basic (one by one, here), joblib, submitit (Slurm) or ray'
	@echo '  JOBS        jobs at a time'
	@echo 'Variables of make compare'
	@echo '  RUNS        directories of runs, or above runs, or patterns; OUT of an ablation or a sweep'
	@echo '  BY          keys to group runs by: BY=preset,alpha; all that differ but the seed by default'
	@echo '  REF         the group to compare with: a preset, or key=value; sep, else the first'
	@echo 'Variables of make dashboard'
	@echo '  PROJECT     W&B project; deepacc-d2 by default'
	@echo '  ENTITY      its user or team; who is logged in by default'
	@echo 'Variables of the environment'
	@echo '  PYTHON      the Python >= 3.11 that .venv is made from'
	@echo '  VENV        the folder of the environment, .venv by default'
	@echo '  EXTRAS      optional packages to add, and keep: make setup EXTRAS="joblib optuna"'
