# Needs python3 (3.11, 3.12 or 3.13) and make. `make` alone lists the targets.
.DEFAULT_GOAL := help
.SUFFIXES:
SHELL := /bin/sh

# Set by the caller: LOGS=path FORMAT=bgl PORT=8081 for `make run`, ARGS for `make test` and `make bench`.
LOGS ?=
FORMAT ?= auto
PORT ?=
ARGS ?=

# Relative paths only: the checkout's own path may contain spaces.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

# Python comes from this machine; uv must not fetch one.
export UV_PYTHON_DOWNLOADS := never
# The certificates that pip uses: those of this machine.
export UV_SYSTEM_CERTS := 1
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: install
install: $(INSTALLED) ## create .venv and install what Millrace runs on, pinned and checked by hash
	@:

.PHONY: run
run: install ## start everything, run the main job, print where to look (LOGS=path FORMAT=bgl for your own logs, PORT=8081)
	@$(BIN)/python -m mllib.local.run --format "$(FORMAT)" $(if $(LOGS),--logs "$(LOGS)") $(if $(PORT),--port "$(PORT)")

.PHONY: stop
stop: ## end all processes that `make run` left in the background; the data stays
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m mllib.local.stop; else echo "Nothing is installed, so nothing runs."; fi

.PHONY: logs
logs: ## follow the logs of all processes, until Ctrl-C
	@tail -n 20 -F "$${MILLRACE_HOME:-.millrace}"/logs/*.log

.PHONY: test
test: dev ## run all tests (ARGS="-k name" for some of them)
	@$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),$(BIN)/python -m pytest -n 2 -m "not e2e" && $(BIN)/python -m pytest -m e2e)

.PHONY: test-fast
test-fast: dev ## run the tests that do not start the whole stack
	@$(BIN)/python -m pytest -m "not e2e" $(ARGS)

.PHONY: lint
lint: dev ## check style, types, import layers and SQL
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint sql

.PHONY: bench
bench: install ## measure speed, exit 1 where scoring fell behind (ARGS=ingest; ARGS="bgl --data FOLDER" or hdfs: real logs; ARGS="backfill": 500 hours)
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: lock
lock: dev ## resolve requirements*.in anew into the locks, with hashes, for Python 3.11 to 3.13
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
	    --custom-compile-command "make lock" -o requirements.txt requirements.in
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
	    -o requirements-dev.txt requirements-dev.in
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
	    -o requirements-uv.txt requirements-uv.in

.PHONY: clean
clean: ## remove .venv and caches; the stack's data in .millrace stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: dev
dev: $(INSTALLED_DEV)
	@:

# Everything below installs. One at a time: a second `make` waits at the lock, and then finds the work done.
# The stamp holds the checkout's path, so that a moved checkout is installed again.
ifneq ($(shell cat $(INSTALLED) 2>/dev/null),$(CURDIR))
.PHONY: $(INSTALLED)
endif

ifndef UNDER_LOCK

define FIND_PYTHON
found=; incomplete=; \
for name in python3 python3.13 python3.12 python3.11; do \
    "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue; \
    if "$$name" -c 'import venv, ensurepip' 2>/dev/null; then found=$$name; break; else incomplete=$$name; fi; \
done; \
if [ -z "$$found" ] && [ -n "$$incomplete" ]; then \
    version=$$("$$incomplete" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
    echo "make: $$incomplete has no venv module. Install it: the package is called python$$version-venv on Debian and Ubuntu." >&2; exit 1; \
fi; \
if [ -z "$$found" ]; then \
    echo "make: Millrace needs Python 3.11, 3.12 or 3.13; there is no such python3 on the PATH ($$(python3 -V 2>&1))." >&2; exit 1; \
fi
endef

define LOCK
import fcntl, subprocess, sys
lock = open("$(VENV)/.make-lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
sys.exit(subprocess.call(sys.argv[1:]))
endef
export LOCK

$(INSTALLED): requirements.txt requirements-uv.txt pyproject.toml $(wildcard mllib/*/*.c)
$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
$(INSTALLED) $(INSTALLED_DEV):
	@$(FIND_PYTHON); mkdir -p $(VENV) && \
	"$$found" -c "$$LOCK" $(MAKE) --no-print-directory UNDER_LOCK=1 PYTHON="$$found" $@

else

# pip fetches uv, and uv the rest: seconds instead of a minute. Where uv cannot reach an index, pip does it all.
$(INSTALLED): requirements.txt requirements-uv.txt pyproject.toml $(wildcard mllib/*/*.c)
	@$(BIN)/python -c '' 2>/dev/null || { echo "Creating $(VENV) with $$($(PYTHON) -V)"; rm -rf $(BIN) && $(PYTHON) -m venv $(VENV); }
	@echo "Installing the pinned packages (about 900 MB the first time)"
	@$(call FETCH,sync,requirements.txt)
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable . || \
	    $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@pwd > $@

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	@echo "Installing the development tools"
	@$(call FETCH,install -r,requirements-dev.txt)
	@touch $@

endif

# uv does not read pip's configuration: pass on its index. Compiled now, so that no process start has to do it.
define FETCH
$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-uv.txt && \
index=$$($(BIN)/python -m pip config list | sed -n "s/^[^ ]*\.index-url='\(.*\)'$$/\1/p" | tail -n 1) && \
UV_DEFAULT_INDEX=$${index:-$$UV_DEFAULT_INDEX} $(BIN)/uv pip $(1) $(2) --require-hashes --compile-bytecode --python $(BIN)/python || \
{ echo "uv could not install them; trying again with pip, which takes about a minute"; \
  $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(2); }
endef
