# Every target sets up what it needs in .venv, from nothing but Python >= 3.11 and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What it takes to use it, and to develop it.
USABLE := $(VENV)/.usable
READY := $(VENV)/.ready
PIP := scripts/pip_install $(BIN)/python --constraint constraints.txt
# Each is a distribution of its own; convotic-celery depends on them.
TRANSPORTS := transports transports/convotic_emulator transports/convotic_local transports/convotic_protos
ARGS ?=
# The tests mostly wait, for leases and processes: several at once even on two cores.
TEST_PROCESSES ?= 5

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(READY) ## Set up .venv with everything for use and development

$(USABLE): pyproject.toml constraints.txt $(TRANSPORTS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; this is " + sys.version.split()[0] + " (make PYTHON=python3.12 ...)")'
	@test -x $(BIN)/python || echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing convotic_celery and what it needs into $(VENV), from PyPI: a minute or two the first time"
	@$(PIP) hatchling
	@$(PIP) --no-build-isolation $(TRANSPORTS:%=--editable %) --editable .
	@touch $@

$(READY): $(USABLE)
	@echo "Installing the tools for development and tests into $(VENV), from PyPI: another minute or two the first time"
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

.PHONY: demo
demo: $(USABLE) ## Send 6,919 real orders through a worker on the embedded emulator (ARGS="--chaos")
	$(BIN)/convotic demo $(ARGS)

.PHONY: test
test: $(READY) ## Run all tests (ARGS="tests/unit -k name" TEST_PROCESSES=0)
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist worksteal $(ARGS)

.PHONY: conformance
conformance: $(READY) ## Run one suite of behaviours against our emulator and Google's
	$(BIN)/pytest tests/conformance $(ARGS)

.PHONY: conformance-cloud
conformance-cloud: $(READY) ## The same against the real service (PROJECT=my-project)
	@test -n "$(PROJECT)" || { echo "Name a project of yours: make conformance-cloud PROJECT=..."; exit 2; }
	PUBSUB_CONFORMANCE_PROJECT=$(PROJECT) $(BIN)/pytest tests/conformance -k cloud $(ARGS)

.PHONY: short
short: $(READY) ## Demo and unit tests, for another Python (PYTHON=python3.13 VENV=build/python3.13)
	$(BIN)/convotic demo
	$(BIN)/pytest tests/unit --numprocesses $(TEST_PROCESSES) --dist worksteal $(ARGS)

.PHONY: check check-code check-types check-public-types
check: $(READY) ## Lint, format check, types, layers, spelling
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target check-types check-code check-public-types

check-types: $(READY)
	$(BIN)/mypy

check-code: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

check-public-types: $(READY)
	$(BIN)/basedpyright

.PHONY: audit
audit: $(READY) ## Known vulnerabilities of the pinned dependencies (needs the network)
	test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/pip install --quiet pip-audit; }
	.audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

.PHONY: format
format: $(READY) ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: chaos
chaos: $(READY) ## Ten minutes of broken parts; fails when a message is lost or given up unrun (ARGS="--seconds 60")
	$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: scale-in
scale-in: $(READY) ## Take a worker away a hundred times, with 10 s of grace; fails when a message is lost or run twice (ARGS="--times 10")
	$(BIN)/python -m tests.scale_in $(ARGS)

.PHONY: soak
soak: $(READY) ## Ten minutes of mixed load, an hour without a broker; fails when a process has grown or asks for a restart (ARGS="--seconds 60 --outage-seconds 60")
	$(BIN)/python -m tests.soak $(ARGS)

.PHONY: bench
bench: $(READY) ## Measure beside Celery on RabbitMQ, Redis and gcpubsub, and print each figure's target
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: celery-suite
celery-suite: $(READY) ## Celery's own integration tests on pubsub:// (ARGS="--broker google t/integration/test_canvas.py")
	$(BIN)/python -m tests.celery_suite $(ARGS)

.PHONY: client-suite
client-suite: $(READY) ## The system tests of Google's Python client on our emulator (ARGS="--broker google")
	$(BIN)/python -m tests.client_suite $(ARGS)

.PHONY: docs
docs: $(READY) ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: wheel
wheel: $(READY) ## Build the sdists and wheels into dist/ and test each in a fresh environment
	rm -rf dist
	for folder in $(TRANSPORTS) .; do $(BIN)/python -m build --quiet --no-isolation --outdir dist $$folder || exit 1; done
	PACKAGING_DIST=$(CURDIR)/dist $(BIN)/pytest tests/packaging --numprocesses 2 $(ARGS)

.PHONY: images
images: $(READY) ## Build the Dockerfile with buildah and run docker-compose.yml's commands in it (root, Debian)
	PACKAGING_IMAGES=1 $(BIN)/pytest tests/packaging/test_images.py $(ARGS)

.PHONY: debian13
debian13: ## Demo and unit tests on Debian 13's Python 3.13, in a chroot (root, debootstrap)
	scripts/debian13 sh -ec 'unset CI; make short'

.PHONY: constraints
constraints: ## Renew constraints.txt from the newest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/python -m pip install --quiet --disable-pip-version-check $(TRANSPORTS:%=./%) '.[dev]'
	{ sed -n '/^#/p' constraints.txt; \
	  build/constraints/bin/python -m pip freeze | grep -v '^convotic'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

.PHONY: clean
clean: ## Remove .venv and everything that was built; the data folder .convotic stays
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis benchmarks/results
