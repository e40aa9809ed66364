# Two commands; each does its own set-up in .venv the first time.
#
#   make demo [IMAGE=path] [POINT=r,a,s] [OUT=folder]    the main job on a synthetic abdomen, or on your image
#   make test                                            all checks and tests
#
# Settings of the set-up: PYTHON=/path/to/python3, TORCH_INDEX=index-with-cpu-wheels (see README.md).

SHELL := /bin/sh
ENVIRONMENT := .venv
OUT ?= lksegment-demo
export PYTHON TORCH_INDEX

.PHONY: help demo test clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(ENVIRONMENT)/ready-to-run
	@$(ENVIRONMENT)/bin/lksegment demo $(if $(IMAGE),--image="$(IMAGE)") $(if $(POINT),--point="$(POINT)") --out="$(OUT)"

test: $(ENVIRONMENT)/ready-to-test
	@$(ENVIRONMENT)/bin/ruff check .
	@$(ENVIRONMENT)/bin/mypy
	@$(ENVIRONMENT)/bin/python -m pytest $(PYTEST)

clean:
	rm -rf $(ENVIRONMENT) .pytest_cache .mypy_cache .ruff_cache *.egg-info

$(ENVIRONMENT)/ready-to-run: pyproject.toml constraints.txt .ci/set-up
	@.ci/set-up scene $@

$(ENVIRONMENT)/ready-to-test: pyproject.toml constraints.txt .ci/set-up
	@.ci/set-up scene,training,evaluation,test $@
	@touch $(ENVIRONMENT)/ready-to-run
