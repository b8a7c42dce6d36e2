# A placeholder until the house is built: see CONTRIBUTING.md.
PY ?= .venv/bin/python
.venv/bin/python:
	python3 -m venv .venv
	.venv/bin/pip install -q --upgrade pip setuptools wheel numpy pytest hypothesis
build: .venv/bin/python
	EDGELLM_WERROR=1 .venv/bin/pip install -q --no-build-isolation -e .
test: build
	.venv/bin/python -m pytest -q
.PHONY: build test
