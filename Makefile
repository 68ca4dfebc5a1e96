# Everything that is done with inpage from a checkout. From a fresh clone, `make chat` and `make test` do all set-up.
# Stamps make a second run instant: a step runs again only when what it was made from has changed.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

MODEL ?= smollm2-135m-instruct
PROMPT ?= Why is the sky blue? Answer in two sentences.
ARGS ?=
MINUTES ?= 1

export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# Some images set it: each of a test run's several hundred Pythons would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/node_modules/.bin:$(PATH)

VENV := .venv/.installed
NODE := node_modules/.installed
VENDOR := web/vendor/.complete
LIGHTHOUSE := tests/lighthouse/node_modules/.installed
ARTIFACT := build/models/$(MODEL)/manifest.json
SITE := build/site/index.html
COMPILER := $(shell find compile -type f \( -name '*.py' -o -name '*.[ch]' \) 2>/dev/null)
SHIPPED := $(shell find py web examples -type f -not -path 'web/vendor/*' -not -path 'web/bundled*' -not -path '*/__pycache__/*' -not -path '*/node_modules/*' 2>/dev/null)

.PHONY: help setup system package chat test test-python test-browser fuzz lint fix compile build serve bench bench-full bench-kernels \
  lock clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | sort | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(VENV) $(NODE) $(VENDOR) ## .venv, node_modules, vendored files, the commit hook
	@if git rev-parse --git-dir >/dev/null 2>&1; then git config core.hooksPath .githooks; fi

system:
	@tools/system.sh

$(VENV): requirements.txt requirements-node.txt pyproject.toml | system
	@echo "setup: Python packages (TVM, the zig compiler, test tools; about 250 MB, a minute or two)"
	@[ -x .venv/bin/python ] || "$$(tools/system.sh python)" -m venv .venv
	@tools/pip.sh --require-hashes -r requirements.txt
	@tools/system.sh node || tools/pip.sh --require-hashes -r requirements-node.txt
	@.venv/bin/python -m pip install --quiet --quiet --no-build-isolation --no-deps --no-index -e .
	@touch $@

$(NODE): package.json package-lock.json $(VENV)
	@echo "setup: npm packages (Pyodide, the tokenizer, Playwright, linters; about 80 MB)"
	@npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(LIGHTHOUSE): tests/lighthouse/package-lock.json | $(VENV)
	@echo "setup: Lighthouse, which looks at the built page in the tests (120 MB)"
	@npm ci --prefix tests/lighthouse --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(VENDOR): web/vendor.json $(NODE)
	@.venv/bin/python -m inpage.cli.vendor
	@touch $@

$(ARTIFACT): $(COMPILER) $(wildcard models/*.toml) | $(VENV)
	@.venv/bin/inpage compile $(MODEL)
	@touch $@

$(SITE): $(SHIPPED) $(ARTIFACT) $(VENDOR)
	@.venv/bin/inpage build --examples --model build/models/$(MODEL)
	@touch $@

compile: $(ARTIFACT) ## compile the model (MODEL=…) to build/models

build: setup $(SITE) ## the static site, model included, to build/site

package: setup ## the npm package, to build/inpage-….tgz
	@.venv/bin/python tools/package.py

chat: setup $(SITE) ## ask the model in headless Chromium: make chat PROMPT="…" ARGS="--greedy"
	@.venv/bin/inpage chat "$(PROMPT)" $(ARGS)

serve: setup $(SITE) ## serve the site on this machine, with the headers that threads need
	@.venv/bin/inpage serve $(ARGS)

test: setup ## everything that CI checks; compiling has one core busy, and each kind of tests leaves half a machine idle: two at once
	@$(MAKE) --no-print-directory --jobs=2 lint build
	@$(MAKE) --no-print-directory --jobs=2 test-python test-browser

# numpy's threads wait in loops for one another, which takes from the other tests what they have not.
test-python test-browser: export OPENBLAS_NUM_THREADS := 1

test-python: setup $(SITE)
	@.venv/bin/python -m pytest $(ARGS)

test-browser: setup $(SITE) $(LIGHTHOUSE)
	@tools/system.sh firefox
	@npx --no-install playwright test $(ARGS)

fuzz: setup ## damaged documents to every reader of untrusted input, from a new seed: make fuzz MINUTES=10 ARGS="--reader gguf"
	@cd tests && ../.venv/bin/python -m fuzz --minutes $(MINUTES) $(ARGS)

lint: setup ## ruff, mypy, eslint, tsc, the order of the floors
	@.venv/bin/python format/generate.py --check
	@ruff check .
	@ruff format --check .
	@mypy
	@.venv/bin/python tools/floors.py
	@eslint .
	@tsc -p tsconfig.json && tsc -p tsconfig.worker.json && tsc -p tsconfig.package.json --noEmit

fix: setup ## mend what the linters can mend
	@ruff check --fix .
	@ruff format .
	@eslint --fix .

bench: setup $(SITE) ## measure, other engines beside us: under 3 minutes on a quiet machine (ARGS="--peers none")
	@.venv/bin/inpage bench --quick $(ARGS)

bench-full: setup $(SITE) ## the same with every scenario, repeated: up to 25 minutes
	@.venv/bin/inpage bench $(ARGS)

bench-kernels: setup $(SITE) ## each kernel in Chromium: GB/s, GOP/s, its source and wasm side by side in build/kernels.html
	@.venv/bin/python -m inpage_bench.kernels --model $(MODEL) --html build/kernels.html $(ARGS)

lock: setup ## pin the newest allowed packages again, hashes included
	@tools/lock.sh

clean: ## remove what was built (not .venv or node_modules)
	@rm -rf build dist test-results playwright-report web/vendor
