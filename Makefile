# make demo    trains, evaluates and explains all four domains: outputs/demo/index.html
# make test    the tests, and which branches they take; make test-slow those that take minutes
# make lint    ruff and pyright
# make docs-check    every command and every line of code in README and docs; those of the quickstart run
# Each sets up .venv first, from pinned versions, if that has not been done.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/installed
TWO := -n 2 --dist worksteal # one process for each core of the smallest machine

.PHONY: demo test test-slow docs-check lint format install clean

demo: install
	$(BIN)/attend demo

# Twice: with the shapes and types of all signatures of the core checked at every call, then what that would disturb.
test: install
	$(BIN)/python -m pytest $(TWO) -m "not plain and not slow" --jaxtyping-packages=core,beartype.beartype --cov --cov-report=
	$(BIN)/python -m pytest $(TWO) -m "plain and not slow" --cov --cov-append --cov-fail-under=85
	$(BIN)/coverage report --include='core/*' --fail-under=95

test-slow: install
	$(BIN)/python -m pytest -m slow

docs-check: install
	$(BIN)/python -m pytest tests/test_docs.py tests/test_figures.py tests/test_commands.py tests/examples

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(DONE)

# torch comes first and pinned, so that nothing else decides its build.
$(DONE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else \
	"attend needs Python 3.11 to 3.13, and this is %d.%d: make PYTHON=python3.12" % v)'
	@echo "installing into $(VENV), with PyTorch about 6 GB: that takes some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) outputs build *.egg-info
