# Two commands: `make book` and `make test`. Each does all of its own set-up in .venv.
PROFILE ?= cpu
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two test workers on two cores; one thread each, so that the cores are not asked for twice.
TEST_WORKERS ?= 2
# Options passed on to the book builder, e.g. OPTIONS="--chapter 05_search -p seed=1".
OPTIONS ?=

# The stamp's name holds the content of what decides the environment, so an edit there, and nothing else,
# installs again.
KEY := $(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
STAMP := $(VENV)/installed-$(KEY)

.PHONY: book pdf test lint format clean distclean install help
.DEFAULT_GOAL := help

help:
	@echo "make book [PROFILE=smoke|cpu|full|gpu|t4]   execute the chapters and build the site: build/_build/html/index.html"
	@echo "make pdf                               the same book as one PDF, with Chromium: build/book.pdf"
	@echo "make test                              style, types, clean notebooks, unit tests"
	@echo "make lint | format | clean | distclean"

install: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "cannot create $(VENV): install the venv module of $(PYTHON) (Debian: apt-get install python3-venv)"; exit 1; }
	@echo "installing into $(VENV) (about 2 GB, a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 -e '.[book,dev]'
	@rm -f $(VENV)/installed-*
	@touch $@

book: $(STAMP)
	@$(BIN)/python -m rfdetr book --profile $(PROFILE) $(OPTIONS)

pdf: $(STAMP)
	@$(BIN)/python -m rfdetr book --profile $(PROFILE) --pdf $(OPTIONS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@find notebooks -name '*.ipynb' -not -path '*/.*' 2>/dev/null | sort | xargs -r $(BIN)/nbstripout --keep-id --verify

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) *.egg-info
