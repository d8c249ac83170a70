# Everything a clone needs: make setup, make serve, make test, make check.
# A stamp in .setup/ says that a step is done; it is done again when what it read has changed.

PYTHON ?= python3
BIN := .venv/bin
STAMPS := .setup
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
# Two pips in one environment would trip over each other.
.NOTPARALLEL:
.PHONY: help setup serve test test-heavy test-clients test-upstreams test-kernels bench-passing bench-voice soak check model clean bench-engine bench-drafters bench-budget bench-gateway bench-gpu bench-overload bench-upstreams playground-shots playground-frames

help:
	@echo 'make setup   virtual environment, dependencies, embedded model'
	@echo 'make serve   set up and start the gateway on 127.0.0.1:8000 (ARGS="--port 9000 …")'
	@echo 'make test    set up what tests need and run all of them, Python and JavaScript'
	@echo 'make test-heavy   what takes minutes: failures at many moments, thousands of readers'
	@echo 'make test-clients   OpenAI, LangChain, LiteLLM, AI SDK and others as they are, against the gateway'
	@echo 'make test-upstreams   in front of llama.cpp and vLLM, which the first run installs (40 minutes)'
	@echo 'make soak    500 random combinations against plain runs, hours (ARGS="--minutes 60 --seed 2 …")'
	@echo 'make bench-engine   Wetink and its peers side by side; the first run installs the peers (30 minutes)'
	@echo 'make bench-drafters  speed and acceptance of every drafter, into docs/drafters.md (ARGS="--quick")'
	@echo 'make bench-budget   retraction budgets, asked against measured; 8 minutes (ARGS="--quick")'
	@echo 'make playground-shots   pictures of the page for docs/playground; make playground-frames: how smoothly it draws'
	@echo 'make bench-overload  what clients feel of an overload, into docs/overload.svg; 2 minutes'
	@echo 'make bench-upstreams  a draft ahead of a slow upstream: lead against erasure; 2 minutes (ARGS="--quick")'
	@echo 'make bench-gateway  what delivery costs, beside a bare Starlette and the LiteLLM proxy; 3 minutes (ARGS="--quick")'
	@echo 'make bench-passing   passing another server on, beside a bare Starlette and the LiteLLM proxy; 2 minutes'
	@echo 'make bench-voice   time to the first audio, and words that had to be unsaid; 2 minutes'
	@echo 'make bench-gpu  all figures of a GPU in one JSON and one table (ARGS="--tiny" tries the program on a CPU)'
	@echo 'make test-kernels  Triton kernels, run by its interpreter where there is no GPU; the first run fetches 190 MB'
	@echo 'make check   formatters, linters, type checkers, import contracts'
	@echo 'make clean   remove what the targets above created here (not the model cache)'

setup: $(STAMPS)/engine model

serve: setup
	@exec $(BIN)/wetink serve $(ARGS)

test: $(STAMPS)/engine $(STAMPS)/test $(STAMPS)/node model
	@scripts/run_tests.sh $(BIN)/python clients/js

# WETINK_TEST_CYCLES=10000 for the long run of readers that come and go. The fuzzing takes half an hour.
test-heavy: $(STAMPS)/engine $(STAMPS)/test $(STAMPS)/node $(STAMPS)/runtimes model
	@$(BIN)/python -m pytest -m heavy
	@FUZZ_EXAMPLES=2000 $(BIN)/python -m pytest --timeout 3600 tests/server/test_robustness.py tests/property/test_decoders.py
	@FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest --timeout 3600 tests/server/test_documented.py
	@npm --prefix clients/js run test:heavy

test-clients: $(STAMPS)/engine $(STAMPS)/test $(STAMPS)/clients model
	@$(BIN)/python -m pytest -m clients tests/clients

test-upstreams: $(STAMPS)/engine $(STAMPS)/test model
	@$(BIN)/python -m pytest --timeout 1800 -m upstreams tests/upstreams

# Goes on where it was stopped: .soak.jsonl says what was done.
soak: $(STAMPS)/engine $(STAMPS)/test model
	@$(BIN)/python -m tests.soak $(ARGS)

bench-engine: $(STAMPS)/engine model
	@$(BIN)/python -m benchmarks.engine $(ARGS)

bench-drafters: $(STAMPS)/engine model
	@$(BIN)/python -m benchmarks.drafters --json benchmarks/results/drafters.json $(ARGS)

bench-budget: $(STAMPS)/engine model
	@$(BIN)/python -m benchmarks.budget $(ARGS)

playground-shots: $(STAMPS)/engine $(STAMPS)/node model
	@node clients/js/playground/shots.mjs

playground-frames: $(STAMPS)/engine $(STAMPS)/node
	@node clients/js/playground/frames.mjs

bench-overload: $(STAMPS)/engine
	@$(BIN)/python -m benchmarks.overload $(ARGS)

bench-upstreams: $(STAMPS)/engine model
	@$(BIN)/python -m benchmarks.upstreams.ahead $(ARGS)

bench-gateway: $(STAMPS)/engine
	@$(BIN)/python -m benchmarks.gateway $(ARGS)

bench-passing: $(STAMPS)/engine
	@$(BIN)/python -m benchmarks.passing $(ARGS)

bench-voice: $(STAMPS)/engine $(STAMPS)/test
	@$(BIN)/python -m benchmarks.voice $(ARGS)

bench-gpu: $(STAMPS)/engine
	@$(BIN)/python -m benchmarks.gpu $(ARGS)

# In a folder of its own: a CUDA build of PyTorch brings its own Triton, and Triton 3.6's interpreter
# needs an older numpy than we do.
test-kernels: $(STAMPS)/test $(STAMPS)/kernels
	@TRITON_INTERPRET=1 PYTHONPATH=.kernels $(BIN)/python -m pytest -m triton tests/unit/engine/kernels/cuda

check: $(STAMPS)/engine $(STAMPS)/test $(STAMPS)/dev $(STAMPS)/node
	@scripts/check.sh $(BIN) clients/js

# Converts once into the user's cache; asked every time, because the cache is not ours alone.
model: $(STAMPS)/engine
	@$(BIN)/wetink pull

$(STAMPS)/venv: scripts/make_venv.sh
	@scripts/make_venv.sh $(PYTHON) .venv
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/engine: $(STAMPS)/venv pyproject.toml clients/python/pyproject.toml constraints.txt
	@echo '==> Installing Wetink and its engine (PyTorch is 200 MB; this takes some minutes)'
	@$(PIP) -e clients/python -e '.[engine]'
	@touch $@

$(STAMPS)/test: $(STAMPS)/engine
	@echo '==> Installing what the Python tests need'
	@$(PIP) -e clients/python -e '.[engine,test]'
	@touch $@

$(STAMPS)/dev: $(STAMPS)/engine
	@echo '==> Installing formatters, linters and type checkers'
	@$(PIP) -e clients/python -e '.[engine,test,dev]'
	@touch $@

$(STAMPS)/node: clients/js/package.json clients/js/package-lock.json | $(STAMPS)/venv
	@echo '==> Installing what the JavaScript tests need'
	@scripts/install_node.sh clients/js
	@touch $@

RUNTIMES := clients/js/runtimes
$(STAMPS)/runtimes: $(RUNTIMES)/package.json $(RUNTIMES)/package-lock.json | $(STAMPS)/venv
	@echo '==> Installing Deno and Bun, for the tests of the JavaScript client (200 MB)'
	@scripts/install_node.sh $(RUNTIMES)
	@node $(RUNTIMES)/node_modules/bun/install.js
	@touch $@

$(STAMPS)/kernels: $(STAMPS)/venv
	@$(BIN)/python -m pip install --disable-pip-version-check --no-deps --upgrade --target .kernels triton==3.6.0 numpy==2.3.5
	@touch $@

CLIENTS := tests/clients
$(STAMPS)/clients: $(CLIENTS)/python/requirements.txt $(CLIENTS)/python/constraints.txt $(CLIENTS)/node/package-lock.json | $(STAMPS)/venv
	@echo '==> Installing the clients that are tested, each as its users install it (300 MB)'
	@scripts/make_venv.sh $(PYTHON) .clients
	@.clients/bin/python -m pip install --disable-pip-version-check -r $(CLIENTS)/python/requirements.txt -c $(CLIENTS)/python/constraints.txt
	@scripts/install_node.sh $(CLIENTS)/node
	@touch $@

clean:
	rm -rf .venv .clients .kernels $(STAMPS) tests/clients/node/node_modules clients/js/node_modules clients/js/*/dist $(RUNTIMES)/node_modules
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
