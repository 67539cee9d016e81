# Everything here works in a fresh clone with Python 3.11 or newer, make and a package index, and nothing else.
#
#   make demo    makes .venv, installs the package, runs samples/test2.py
#   make check   the checks below, then the tests that are fast: no whole programs, no proof
#   make test    the checks below, then all tests
#   make test-pools    the tests of pools on Dask, Ray and Slurm, in an environment of their own; installs Slurm on Debian
#                as root
#   make lint    ruff, mypy, the import layers, pyright
#   make proof   everything that shows the promises: simulation, mutations, power cuts, damage, fuzzing, chaos
#   make proto   regenerates dagorama/api from proto/
#   make chromium    installs the browser that tests of the dashboard need, on Debian as root
#   make vendor  fetches the vendored JavaScript of the dashboard again, with npm
#   make pictures   takes the pictures of docs/how-to/dashboard.md again, with Chromium
#   make docs    builds the site of the documentation in build/docs/site, with search and a reference from docstrings
#   make chart-test  checks the Helm chart, with helm and the schemas of Kubernetes, which it installs first (60 MB)
#   make image   builds dagorama-broker and dagorama-worker with buildah, if it is there (BASE=IMAGE: on another base
#                than Debian's image of Python, IMAGE_ARGS goes to buildah)
#   make states  writes docs/reference/states.md from the table of transitions
#   make test-objects    the tests of object stores, with Azurite and s3rver, which it installs with npm below build
#   make bench   the benchmarks, in under five minutes (ARGS=--quick: in under one; ARGS=--store=both: PostgreSQL
#                beside SQLite, ARGS=--objects: object stores; both after `make .venv/.installed-dev`)
#   make soak    an hour at a steady rate on one store: does the database stay as large as what it keeps? (ARGS=--help)
#   make bench-large    the rows of a million nodes
#   make bench-peers    ours beside Dask, Ray, Celery, dramatiq and ProcessPoolExecutor, in turns, in a quarter of an hour
#                (ARGS=--quick: in four minutes, ARGS='--peers ray --rows values', ARGS=--help); their newest releases
#                go into .venv-peers; Celery and dramatiq need redis-server, which it installs on Debian as root
#   make clean   removes what these made, .venv too
#
# PYTHON names the interpreter that .venv is made from; PYTEST_ARGS goes to pytest, which runs two processes more than
# there are processors, because many tests wait for others (PYTEST_ARGS='-n 0': one after the other, in one process).

VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
POOLS := .venv-pools
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
REWRITTEN := $(VENV)/.rewritten
LINTERS := lint-mypy lint-pyright lint-ruff lint-layers
PYTEST = $(BIN)/python -m pytest tests --dist worksteal -n $$($(BIN)/python -c 'import os; print(os.cpu_count() + 2)')

.PHONY: demo check test tests test-pools test-objects slurm redis rewritten lint $(LINTERS) proof proto chromium vendor pictures docs chart-test image states bench soak bench-large bench-peers compiled clean
.DELETE_ON_ERROR:

demo: compiled
	$(BIN)/python samples/test2.py

check: lint compiled
	$(PYTEST) -m "not slow" \
	  --ignore tests/acceptance --ignore tests/proof $(PYTEST_ARGS)

# pyright takes longest and is one process, so the tests start beside it when the other checks have passed.
test: $(INSTALLED_DEV) compiled chromium
	@$(MAKE) --no-print-directory -j 2 lint-pyright tests

tests: lint-mypy lint-ruff lint-layers rewritten
	MAKEFLAGS= $(PYTEST) $(PYTEST_ARGS)

test-pools: $(VENV)/.made slurm
	@test -x $(POOLS)/bin/python || $(BIN)/python -m venv $(POOLS)
	@$(POOLS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dask,ray]' \
	  pytest pytest-asyncio pytest-timeout pytest-xdist
	DAGORAMA_TEST_POOLS=1 $(POOLS)/bin/python -m pytest tests/pools tests/acceptance/test_samples.py \
	  -k "pools or pool_on" --durations 20 $(PYTEST_ARGS)

slurm:
	@command -v slurmctld > /dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq > /dev/null && \
	    apt-get install -y -qq slurmctld slurmd slurm-client munge > /dev/null 2>&1; } || \
	  echo "Slurm is not installed: its tests are left out"

# Rewrites the assertions of all tests once, instead of in each process of pytest, if a test has changed. It only saves
# time: the tests that follow collect again, and show an error of that.
rewritten: $(REWRITTEN)

$(REWRITTEN): $(INSTALLED_DEV) $(shell find tests -name '*.py')
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests --collect-only -q -n 0 > /dev/null || true
	@touch $@

# Without them, `make test` has moto's server only.
test-objects: $(INSTALLED_DEV)
	@mkdir -p build/objects
	@cd build/objects && npm install --no-audit --no-fund --silent azurite@3 s3rver@3
	$(BIN)/python -m pytest tests/acceptance/test_object_servers.py $(PYTEST_ARGS)

lint: $(INSTALLED_DEV)
	@$(MAKE) --no-print-directory --output-sync -j 2 $(LINTERS)

lint-ruff: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-mypy: $(INSTALLED_DEV)
	$(BIN)/mypy --strict

lint-layers: $(INSTALLED_DEV)
	$(BIN)/lint-imports

lint-pyright: $(INSTALLED_DEV)
	$(BIN)/basedpyright --pythonpath $(BIN)/python

proof: $(INSTALLED_DEV) compiled
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: 'atheris>=2.3' || \
	  echo "atheris does not install here: the part that it guides is left out"
	$(BIN)/python -m tests.proof $(PROOF_ARGS)

proto: $(INSTALLED_DEV)
	PYTHON=$(abspath $(BIN)/python) ./build_protobuf.sh

# Tests that need a browser are skipped without one. The headless shell takes half of the time of a whole Chromium.
chromium:
	@command -v chromium-headless-shell > /dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq > /dev/null && \
	    { apt-get install -y -qq chromium-headless-shell || apt-get install -y -qq chromium; } > /dev/null 2>&1; } || \
	  { command -v chromium || command -v chromium-browser || command -v google-chrome; } > /dev/null || \
	  echo "Chromium is not installed: the tests of pages in a browser are left out"

vendor: $(INSTALLED_DEV)
	$(BIN)/python -m tests.dashboard.vendoring $(ARGS)

pictures: $(INSTALLED_DEV) compiled
	$(BIN)/python -m tests.dashboard.pictures

docs: $(INSTALLED_DEV)
	$(BIN)/python -m tests.site build/docs

# Other programs are installed for these tests alone: in `make test` they are skipped without helm. Half a minute.
chart-test: $(INSTALLED_DEV)
	@$(BIN)/python -m tests.chart.tools
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'kubernetes-validate>=1.37'
	$(BIN)/python -m pytest tests/chart $(PYTEST_ARGS)

PYTHON_IMAGE = $(shell sed -n 's/^FROM \(python:[^ ]*\) AS build$$/\1/p' Dockerfile.$(1))
VERSION = $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
BUILD_IMAGE = buildah build --format docker --file Dockerfile.$(1) --tag dagorama-$(1):$(VERSION) --build-arg VERSION=$(VERSION) \
  --build-arg REVISION=$$(git rev-parse HEAD) \
  $(if $(BASE),--build-context $(call PYTHON_IMAGE,$(1))=container-image://$(BASE)) $(IMAGE_ARGS) .

image:
	@if ! command -v buildah > /dev/null; then \
	  echo "buildah is not installed: no image is built"; \
	else \
	  $(call BUILD_IMAGE,broker) && $(call BUILD_IMAGE,worker); \
	fi

states: $(INSTALLED)
	$(BIN)/python -c 'from dagorama_broker.scheduler.transitions import page; print(page(), end="")' > docs/reference/states.md

bench: compiled
	$(BIN)/python benchmarks/run.py $(ARGS)

soak: $(INSTALLED_DEV) compiled
	$(BIN)/python benchmarks/soak.py $(ARGS)

bench-large: compiled
	$(BIN)/python benchmarks/run.py --large --json benchmarks-large.json

# Each peer by itself: one that does not install here is left out, and the others are measured.
bench-peers: compiled redis
	@test -x $(PEERS)/bin/python || $(BIN)/python -m venv $(PEERS)
	@while read -r packages; do \
	  $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade $$packages || \
	    echo "$$packages: not installed, see above"; \
	done < benchmarks/peers/packages.txt
	$(BIN)/python benchmarks/compare.py $(ARGS)

redis:
	@command -v redis-server > /dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq > /dev/null && \
	    apt-get install -y -qq redis-server > /dev/null 2>&1; } || \
	  echo "redis-server is not installed: Celery and dramatiq are left out"

# As pip leaves what it installs: else each program that starts compiles it, where Python is told to write no bytecode.
compiled: $(INSTALLED)
	@$(BIN)/python -m compileall -q dagorama dagorama_broker dagorama_check dagorama_dashboard dagorama_monitoring dagorama_testing

clean:
	rm -rf $(VENV) $(PEERS) $(POOLS) .venv-original build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first interpreter that is new enough; an explicit PYTHON is taken at its word and checked like the others.
$(VENV)/.made:
	@for python in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$python --version)"; \
	    $$python -m venv $(VENV) && touch $@ && exit 0; \
	    echo "$$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
	    rm -rf $(VENV); exit 1; \
	  fi; \
	done; \
	echo "dagorama needs Python 3.11 or newer; found: $$($${PYTHON:-python3} --version 2>&1 | head -n 1)." >&2; \
	echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	exit 1

$(INSTALLED): pyproject.toml | $(VENV)/.made
	@echo "Installing dagorama into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml | $(VENV)/.made
	@echo "Installing dagorama and its tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(INSTALLED)
