# Everything starts here; nothing needs to be installed by hand first. See CONTRIBUTING.md.
#   make demo     a real model answers, then a study says where in a fleet of homes it should run
#   make test     every test, set-up included            make check   format, lint, types, layering
#   make build    the engine in .venv, editable          make bench   speed beside llama.cpp and torch
#   make parity   numbers beside the same peers          make peers   builds them (minutes, 1.5 GB)
#   make cross    the C library on emulated machines     make clean   what was built, and .venv
SHELL := /bin/bash
PY := .venv/bin/python
SOURCES := setup.py pyproject.toml csrc/kernels/isas.txt $(shell find csrc -name '*.c' -o -name '*.cpp' -o -name '*.h' -o -name '*.def')
SAN := build/sanitized

.DEFAULT_GOAL := help
.PHONY: help demo test cross check format build weights peers bench parity sanitize clean

help:
	@sed -n 's/^#  //p' Makefile

build: .venv/.built

.venv/.system: tools/setup.sh
	@tools/setup.sh system venv
	@touch $@

.venv/.deps: pyproject.toml tools/requirements.py .venv/.system
	@tools/setup.sh deps
	@touch $@

.venv/.built: $(SOURCES) .venv/.deps
	@touch .venv/.building  # a source that changes during the build stays newer than the stamp
	@tools/setup.sh build
	@mv .venv/.building $@

weights: .venv/.built
	@tools/setup.sh weights

demo: weights
	@$(PY) tools/demo.py

# The sanitizers' own run comes first, so that pytest's summary of the whole suite is the last line.
test: weights sanitize
	@$(PY) -m pytest

# The C library for other architectures, run by qemu: needs Debian's cross compilers, which it installs.
cross: .venv/.built
	@tools/setup.sh cross
	@$(PY) -m pytest tests/cross

check: .venv/.built
	@tools/check.sh

format: .venv/.deps
	@$(PY) -m ruff format -q edgellm sim tests tools benchmarks setup.py
	@find csrc tests/c \( -name '*.c' -o -name '*.h' -o -name '*.cpp' \) -print0 | xargs -0 .venv/bin/clang-format -i

# A second build of the extension under AddressSanitizer and UBSan, in a folder of its own.
sanitize: .venv/.built
	@tools/sanitize.sh $(SAN)

# A folder that EDGELLM_PEERS names is used as it is.
peers:
	@[ -n "$$EDGELLM_PEERS" ] || $(MAKE) -C benchmarks/parity peers

bench: weights peers
	@$(PY) benchmarks/compare_engines.py

parity: weights peers
	@$(MAKE) -C benchmarks/parity

clean:
	rm -rf .venv build csrc/build dist out *.egg-info edgellm/_core*.so edgellm/_sim*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
