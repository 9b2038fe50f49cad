# Everything but `gpu` runs inside .venv, made from requirements.lock; only Python >= 3.11 and make are
# needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# Packages whose versions `make lock` keeps; the others move to the newest that fit pyproject.toml.
KEEP ?= ^(torch|ray|mlflow)(\[|==)

.PHONY: demo test test-faults bench gpu lint docs lock clean

demo: $(READY)
	@$(BIN)/mhiflab demo

# Two at a time, file by file: most tests wait for processes to start.
test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Kills drivers, workers, nodes and servers at chosen moments, and runs whole searches; about an
# hour on two cores. The quickest of these are part of `make test` already.
test-faults: $(READY)
	$(BIN)/python -m pytest tests -m "faults or slow"

# Speed and memory of the network on this machine against its readable reference; some minutes.
bench: $(READY)
	$(BIN)/python experiments/bench/bench.py

# Try a machine with a GPU: tests of numbers, speed, memory, and a training on DATA for the rest of
# SECONDS, with all results in OUT. Continues what it began. Uses $(PYTHON) with torch, numpy, scipy,
# h5py, safetensors, pandas, matplotlib, rich, scikit-image, pytest, pytest-timeout and hypothesis.
OUT ?= gpu-results
SECONDS ?= 480
DEVICE ?= cuda
DATA ?= sample
PROTOCOL ?= cave_x4
gpu:
	@PYTHONPATH=$(CURDIR):$(CURDIR)/platform $(PYTHON) -m experiments.gpu.run --out "$(OUT)" --seconds $(SECONDS) \
		--device $(DEVICE) --data "$(DATA)" --protocol $(PROTOCOL) $(if $(PARTS),--parts $(PARTS))

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Write docs/commands.md and docs/fields.md anew from the program; a test compares them.
docs: $(READY)
	$(BIN)/python docs/generate.py

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	@echo "Installing from requirements.lock into .venv (once, some minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Resolve the whole environment anew from pyproject.toml and pin it.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	grep -E '$(KEEP)' requirements.lock > .venv-lock/keep.txt
	sed 's/\[.*\]//' .venv-lock/keep.txt > .venv-lock/constraints.txt
	.venv-lock/bin/python -m pip install --disable-pip-version-check -c .venv-lock/constraints.txt '.[dev]'
	.venv-lock/bin/python -m pip freeze --exclude mhiflab > .venv-lock/lock.txt
	sed -e 's/^ray==/ray[default,train,tune]==/' -e 's/^\(torch==[0-9.]*\)+.*/\1/' .venv-lock/lock.txt > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock dist build .mypy_cache .pytest_cache .ruff_cache
