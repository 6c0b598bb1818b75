# Everything starts from Python 3.11 or newer and make. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TOOLS  := .tools
UV     := $(or $(shell command -v uv 2>/dev/null),$(TOOLS)/bin/uv)
CODE   := alertrec tasks tests benchmarks celeryconfig.py

.PHONY: help setup demo test check lint audit fast browser bench bench-models bench-web soak lock clean

help: ## show this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.ready ## create .venv with everything in it, from requirements.lock

demo: setup ## run the whole system on a sample bank, on embedded servers, until Ctrl-C
	@exec $(BIN)/alertrec demo

# Most tests wait for servers and workers; a file stays with one process, since its tests share what they started.
test: setup ## pass all tests, on real servers
	$(BIN)/pytest -m "not alone" -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 5 \
	    --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest -m alone

check: lint fast ## what to run before a commit: format, lint, types, unit and property tests

lint: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/celery-audit tasks --config celeryconfig.py

audit: setup ## licences of what is locked, and vulnerabilities that are known, where the network can tell
	$(BIN)/python -m tests.audit

fast: setup
	$(BIN)/pytest -q tests/unit tests/property

browser: setup ## a Chromium for the tests of the pages, where there is none
	$(BIN)/python -m tests.browser.chromium

bench: setup ## measure, on the export in ../shared/data/sparkov
	$(BIN)/python benchmarks/main_job.py

bench-models: setup ## measure the models, on the data in ../shared/data/caravan
	$(BIN)/python benchmarks/models.py

bench-web: setup ## measure the list endpoint under load
	$(BIN)/python benchmarks/web.py

soak: setup ## an hour of load, with all that goes wrong: does anything grow, is anything left undone?
	$(BIN)/python -m tests.soak --minutes 60

lock: setup ## renew requirements.lock: every platform, with hashes, without an index address
	$(UV) pip compile pyproject.toml --all-extras --universal --generate-hashes --python-version 3.11 \
	    --no-header --no-emit-index-url --no-emit-find-links --upgrade --quiet --output-file requirements.lock

clean: ## remove the environment and the demo's data
	rm -rf $(VENV) $(TOOLS) .alertrec

$(VENV)/.ready: pyproject.toml requirements.lock | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

# The pinned uv, checked by the hashes of requirements.lock like all else.
$(TOOLS)/bin/uv:
	@$(PYTHON) -m venv $(TOOLS) || { echo "error: uv is missing, and python3 cannot make an environment to fetch it into;" \
	    "install uv, or your system's package python3-venv" >&2; rm -rf $(TOOLS); exit 1; }
	@sed -n '/^uv==/,/^ *# via/p' requirements.lock > $(TOOLS)/uv.txt
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(TOOLS)/uv.txt
