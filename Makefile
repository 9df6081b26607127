# Everything a developer or operator does with this project. ARGS is passed on: make up ARGS="--port 9000"
SHELL := /bin/bash
.DEFAULT_GOAL := help
ARGS ?=
BIN := .venv/bin

CHECKS := lint-types lint-style lint-imports lint-contracts

.PHONY: help up down demo test lint $(CHECKS) format bench bench-scale chaos contracts clean bootstrap bootstrap-tests

help: ## Show this help
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bootstrap:
	@deploy/scripts/bootstrap.sh

bootstrap-tests:
	@deploy/scripts/bootstrap.sh --tests

up: bootstrap ## Start the whole stack on this machine (--port, --data-dir, --detach, --scale SERVICE=N)
	@exec $(BIN)/devpocket up $(ARGS)

down: ## Stop the stack (--data-dir)
	@if [ -x $(BIN)/devpocket ]; then exec $(BIN)/devpocket down $(ARGS); else echo "nothing is installed, so nothing runs"; fi

demo: bootstrap ## Run the main job as a script: register, create, type, stop, start, delete
	@exec $(BIN)/devpocket demo $(ARGS)

# Half of the time a test waits for others, so four at a time keep two cores busy. ARGS="-n 8" suits a larger machine.
# Where PYTHONDONTWRITEBYTECODE is set, each of the hundreds of processes that tests start would compile the same files again.
test: export PYTHONDONTWRITEBYTECODE :=
test: bootstrap-tests lint ## Run everything: lint, types, architecture, unit, integration, e2e
	@exec $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: bootstrap ## Check style, types, import rules and contracts
	@$(MAKE) --no-print-directory --jobs=2 --output-sync $(CHECKS)

# On a very busy machine its workers may not have started within the three seconds that mypy gives them, by no setting
# more. It ends with 2 then, as it does when it cannot read the code at all, and does the work alone.
lint-types:
	@$(BIN)/mypy || { [ $$? -eq 2 ] && $(BIN)/mypy --num-workers 0; }

lint-style:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run 'make format' and commit the result"; exit 1; }

lint-imports:
	@$(BIN)/lint-imports

lint-contracts:
	@$(BIN)/python deploy/scripts/contracts.py --check

format: bootstrap ## Format the code, fix what can be fixed
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: bootstrap ## Measure create-to-running, requests per second, terminal echo and flood
	@exec $(BIN)/python -m tests.bench $(ARGS)

bench-scale: bootstrap ## Simulate 100,000 environments on the real services (--environments N, --users N, --minutes M)
	@exec $(BIN)/python -m tests.bench.scale $(ARGS)

chaos: bootstrap ## Kill, pause and restart processes under 500 lifecycles, then look for anything lost (--seed N, --runtime kubernetes)
	@exec $(BIN)/python -m tests.chaos $(ARGS)

contracts: bootstrap ## Write what docs/ holds of the code: OpenAPI, AsyncAPI, the configuration reference
	@exec $(BIN)/python deploy/scripts/contracts.py

clean: ## Remove .venv and caches; the data in .devpocket stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	@find . -name __pycache__ -type d -not -path './.devpocket/*' -prune -exec rm -rf {} +
