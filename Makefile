# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.stamp
BENCH_STAMP := $(VENV)/.bench-stamp
RESULTS ?= build/bench.json
BEDS := PYTHONPATH=tests $(PYTHON)
OBJECTS := daemon/cgnetd/kernel/objects
C_SOURCES := $(shell find bpf tests -name '*.[ch]')

# Under CI a kernel test that cannot run is a failure, not a skip.
PYTEST_ARGS ?=
REQUIRE_KERNEL := $(if $(CI),--require-kernel)

.DEFAULT_GOAL := help
.PHONY: help setup packages packages-system packages-vm bpf demo test differential test-all test-system shell-system test-vm kernels lint bench bench-page wheel deb rpm check-deb clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: packages $(STAMP) bpf ## install what is missing, make .venv, build the programs

packages:
	@packaging/setup-debian.sh

# What only the beds of some tests need.
packages-system packages-vm: packages-%: | packages
	@packaging/setup-debian.sh $*

$(STAMP): pyproject.toml | packages
	@[ -x $(VENV)/bin/pip ] || python3 -m venv $(VENV)
	@quiet=--quiet; [ -t 1 ] && quiet=; $(VENV)/bin/pip install $$quiet --disable-pip-version-check -e '.[test]'
	@touch $@

# What plots need, and nothing else does.
$(BENCH_STAMP): $(STAMP)
	@quiet=--quiet; [ -t 1 ] && quiet=; $(VENV)/bin/pip install $$quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

bpf: | packages ## build the programs of the kernel side
	@quiet=-s; [ -t 1 ] && quiet=; $(MAKE) $$quiet --no-print-directory -C bpf OUT=$(abspath $(OBJECTS))

demo: setup ## the daemon on a private cgroup, real clients, every verdict explained; needs root
	@$(PYTHON) tests/demo/run.py

test: setup ## all tests; PYTEST_ARGS="-k name" for some; kernel tests need root
	@$(PYTHON) -m pytest $(REQUIRE_KERNEL) $(PYTEST_ARGS)

differential: setup ## the kernel against the reference, PAIRS=1000000 of policy sets and calls; SEED=n: the same again; needs root
	@CGNETD_DIFFERENTIAL_PAIRS=$(or $(PAIRS),1000000) CGNETD_DIFFERENTIAL_SEED=$(SEED) \
		$(PYTHON) -m pytest -q --require-kernel tests/kernel/test_differential_edges.py $(PYTEST_ARGS)

test-all: ## that, on real systemds and on other kernels too, as CI does; an hour at most; needs root
	@.ci/run

test-system: setup packages-system ## cgnetd under real systemds; DISTRO=trixie for one of them; needs root; see docs/testing.md
	@$(PYTHON) -m pytest tests/system $(REQUIRE_KERNEL) $(addprefix --distro=,$(DISTRO)) $(addprefix --deb=,$(DEB)) $(PYTEST_ARGS)

shell-system: setup packages-system ## a shell in a machine with cgnetd installed; DISTRO=bookworm for Debian 12
	@$(BEDS) -m beds.shell $(or $(DISTRO),trixie)

test-vm: setup packages-vm ## kernel tests on another kernel: KERNEL=6.1 or 6.12; KERNEL=host: the same on this one; needs root
	@$(BEDS) -m vm.run $(or $(KERNEL),6.12) $(VM_ARGS)

kernels: setup ## docs/kernels.md from the last runs of test-vm on each kernel
	@$(BEDS) -m vm.matrix $(RECORDS)

lint: setup ## types, style, format
	@$(PYTHON) -m mypy
	@$(PYTHON) -m ruff check daemon tests
	@$(PYTHON) -m ruff format --check daemon tests
	@if command -v clang-format >/dev/null; then clang-format --dry-run --Werror $(C_SOURCES); \
	 else echo "lint: clang-format is not installed: C was not checked"; fi

bench: setup ## what it costs, beside others: ONLY="lookup peers" for some parts; 20 minutes at most; needs root
	@$(PYTHON) tests/bench/run.py --output $(RESULTS) $(addprefix --only=,$(ONLY)) $(BENCH_ARGS)

bench-page: $(BENCH_STAMP) ## docs/benchmarks/ from the results of `make bench`, or of RESULTS=FILE
	@$(PYTHON) tests/bench/page.py $(RESULTS) docs/benchmarks

wheel: setup ## what pip installs, the kernel's programs included, into dist/
	@rm -rf build/lib
	@$(VENV)/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

deb: ## the Debian package, into dist/; DISTRO=trixie: in a copy of a tree of that distribution; LINT=1: with lintian
	@packaging/build-deb.sh $(if $(LINT),--lint) $(DISTRO)

rpm: ## the rpm, into dist/; needs rpmbuild
	@packaging/build-rpm.sh

check-deb: ## install, upgrade, remove and purge that package for real; DISTRO=bookworm|trixie, which needs a tree of it; root
	@packaging/check-deb.sh $(DISTRO)

clean: ## remove what was built, .venv too
	rm -rf $(VENV) build dist daemon/*.egg-info .mypy_cache .ruff_cache .hypothesis $(OBJECTS)
	find daemon tests -name __pycache__ -prune -exec rm -rf {} +
