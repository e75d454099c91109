# What you can have here. Each target does the set-up that it needs; nothing is done twice.
PROFILE ?= quick
BACKENDS ?=
REFERENCE ?=
NOTEBOOK ?=
GRID ?=
SWEEP ?=

BIN := .venv/bin
ifeq ($(CONDA_DEFAULT_ENV),im-queue)
BIN := $(CONDA_PREFIX)/bin
endif
IMQUEUE := $(BIN)/python -m imqueue

.DEFAULT_GOAL := help
.PHONY: help report sweep lab backends up down status test check bench env servers node strace browser lock clean
.SILENT:

help:
	awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

report: env servers node  ## data/report/index.html: every backend compared on this machine (PROFILE=quick|full, BACKENDS=a,b, REFERENCE=a)
	$(IMQUEUE) report --profile '$(PROFILE)' --backends '$(BACKENDS)' --reference '$(REFERENCE)'

sweep: env servers node  ## data/sweeps/<name>/: a notebook over a grid (NOTEBOOK=20_flow GRID="rate_hz=100..10000*5 workers=1,2", or SWEEP=file)
	$(IMQUEUE) sweep --notebook '$(NOTEBOOK)' --grid='$(GRID)' --sweep '$(SWEEP)' $(if $(NAME),--name '$(NAME)') \
	$(if $(REPEATS),--repeats '$(REPEATS)') $(if $(SEED),--seed '$(SEED)') \
	$(if $(DRY),--dry-run) $(if $(RETRY),--retry) $(if $(FORCE),--force)

lab: env servers node strace  ## JupyterLab on the notebooks, on this machine only, with a token
	$(BIN)/python -m jupyterlab notebooks --ServerApp.ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root)

backends: env  ## the table of backends: what each promises, and why one is missing (MARKDOWN=1)
	$(IMQUEUE) backends $(if $(MARKDOWN),--markdown)

up: env servers node  ## the driver, its servers and Prometheus, running in the background
	$(IMQUEUE) up

down: env  ## nothing of ours left running
	$(IMQUEUE) down

status: env  ## what is running, and where
	$(IMQUEUE) status

test: env servers node strace browser  ## the verdict of every test, against real servers
	$(BIN)/python -m pytest lib/tests --numprocesses 2

check: env  ## lint, format, types and the floors of the lib, all clean
	$(BIN)/ruff check --config lib/pyproject.toml lib notebooks
	$(BIN)/ruff format --check --config lib/pyproject.toml lib notebooks
	$(BIN)/mypy --config-file lib/pyproject.toml lib
	$(BIN)/lint-imports --config lib/pyproject.toml

bench: env servers node  ## the rate through the harness beside a bare client's, per backend and batch
	PYTHONPATH=lib $(BIN)/python -m bench

env:  ## the Python environment in .venv, as lib/requirements.lock pins it (PYTHON=python3.11)
	sh lib/setup/env.sh

servers:  ## redis, postgres, rabbitmq, mariadb, nats, beanstalkd and prometheus here, none of them started
	sh lib/setup/programs.sh redis postgres rabbitmq mysql nats beanstalkd prometheus

node: env
	sh lib/setup/node.sh

strace:  # counts fsyncs for 30_durability
	sh lib/setup/programs.sh strace

browser:
	sh lib/setup/programs.sh browser

lock: env  ## lib/requirements.lock, pinned anew from lib/pyproject.toml (UPGRADE=--upgrade for the newest)
	sh lib/setup/lock.sh $(UPGRADE)

clean:  ## a checkout without .venv and caches; your data stay
	[ ! -e .venv/.imqueue ] || $(IMQUEUE) down
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis lib/.pytest_cache lib/.hypothesis
	find lib notebooks -name __pycache__ -prune -exec rm -rf {} +
