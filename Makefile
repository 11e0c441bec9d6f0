# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
VENV := .venv
STAMP := $(VENV)/.stamp
OBJECTS := daemon/cgnetd/kernel/objects

.PHONY: setup bpf
setup: $(STAMP) bpf

$(STAMP): pyproject.toml
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

bpf:
	$(MAKE) --no-print-directory -C bpf OUT=$(abspath $(OBJECTS))
