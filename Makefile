# Two commands set everything up: `make demo` and `make test`. Both create .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-slow zoo-table check serve clean

demo: $(INSTALLED)
	$(BIN)/modelpress demo

# Two workers of one thread each: with two threads each they wait for one another on two cores.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -q

test-slow: $(INSTALLED)
	$(BIN)/pytest -q -m slow --timeout 3600

zoo-table: $(INSTALLED)
	$(BIN)/python benchmarks/zoo.py
	$(BIN)/python benchmarks/zoo.py --recipes

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: $(INSTALLED)
	$(BIN)/modelpress serve

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[compress,dev]'
	touch $@

clean:
	rm -rf .venv out .mypy_cache .pytest_cache .ruff_cache .hypothesis
