# Everything a bare clone needs: Python >= 3.11 and make. `make` alone prints the targets.

PYTHON ?= python3#      the interpreter that .venv is made with
PIP_FLAGS ?=#           passed on to pip install
ARGS ?=#                passed on to the command: make test ARGS="-k knn"
JOBS ?= 2#              processes that run the tests

BIN := .venv/bin
INSTALLED := .venv/.installed
TESTS_INSTALLED := .venv/.installed-tests
DOCS_INSTALLED := .venv/.installed-docs

.DEFAULT_GOAL := help
.PHONY: help install demo test lint docs bench pins clean

help:  ## print these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED)  ## create .venv with the versions of constraints.txt

demo: $(INSTALLED)  ## pre-train, probe and report on the embedded data, in minutes
	$(BIN)/contrast3d demo $(ARGS)

test: $(TESTS_INSTALLED)  ## run all tests, those of the extras too
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(INSTALLED)  ## check style
	$(BIN)/ruff check .

docs: $(DOCS_INSTALLED)  ## render docs/ into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(TESTS_INSTALLED)  ## run all benchmarks; tables on the screen, JSON in build/bench/
	@mkdir -p build/bench
	@set -e; for file in benchmarks/*.py; do \
		$(BIN)/python $$file --json build/bench/$$(basename $$file .py).json $(ARGS); done

pins:  ## renew constraints.txt from the newest versions, in a throw-away environment
	rm -rf build/pins && $(PYTHON) -m venv build/pins
	build/pins/bin/pip install $(PIP_FLAGS) '.[dev,log,docs,search,export,las,teachers]'
	grep '^#' constraints.txt > build/constraints.txt
	build/pins/bin/pip freeze --all --exclude contrast3d --exclude pip | sed 's/+[A-Za-z0-9.]*$$//' >> build/constraints.txt
	mv build/constraints.txt constraints.txt && rm -rf build/pins

clean:  ## remove .venv and everything built; runs/ stays
	rm -rf .venv build dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "contrast3d needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not found)." >&2; \
		echo "Try: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev,log]'
	@touch $@

$(TESTS_INSTALLED): $(INSTALLED)
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[search,export,las,teachers]'
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[docs]'
	@touch $@
