# More threads than free cores slow small networks down several times over.
export OMP_NUM_THREADS ?= 1

BIN := .venv/bin
INSTALLED := .venv/.installed
# Tests run in that many processes: `make test WORKERS=0` runs them in this one.
WORKERS ?= 2
# More options of pytest: `make test PYTEST_ARGS="tests/cli --durations=20"`.
PYTEST_ARGS ?=
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal

.PHONY: docs install quickstart test test-fast check bench chaos

install: $(INSTALLED)

quickstart: install
	$(BIN)/lerobot-rlft-train --config_path=recipes/quickstart.yaml

test: install
	$(PYTEST) $(PYTEST_ARGS)

# What is quick: no whole runs, no commands in processes of their own.
test-fast: install
	$(PYTEST) -m "not slow and not gpu" $(PYTEST_ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/python -m pip install -q -e '.[docs]'
	$(BIN)/python docs/generate.py --check
	$(BIN)/mkdocs build --strict

bench: install
	$(BIN)/python -m benchmarks

# Faults in tiny runs: kills, power cuts, full disks, dead workers and trackers, broken uploads. Half an hour.
chaos: install
	PYTHONWARNINGS=ignore $(BIN)/python -m benchmarks chaos

# Each candidate is run, not only looked up: a pyenv shim is found on PATH even where it refuses to start.
$(INSTALLED): pyproject.toml
	@python=; \
	for candidate in $(or $(PYTHON),python3.12 python3 python \
			"$$(pyenv root 2>/dev/null)"/versions/3.12*/bin/python "$$HOME"/.pyenv/versions/3.12*/bin/python); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "No Python 3.12 in: $(or $(PYTHON),PATH or pyenv versions). Install one (pyenv install 3.12) or" \
			"name one: make install PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	echo "$$python -m venv .venv"; \
	"$$python" -m venv .venv
	$(BIN)/python -m pip install -e '.[pusht,dev]'
	touch $@
