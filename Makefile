# Every verb documents itself: `make help`.
PYTHON ?= python3
VENV ?= .venv
# Extra arguments for pip, such as an index with CPU builds of torch: make setup PIP_ARGS="--extra-index-url URL"
PIP_ARGS ?=
# Extra arguments for `marway up`, such as --port 0 or --home DIR: make up UP_ARGS="--port 9000"
UP_ARGS ?=
# What builds images, their tag, and what torch is to be for: make images ENGINE=podman TAG=0.2.0 DEVICE=cuda
ENGINE ?= $(firstword $(notdir $(shell command -v docker podman)))
TAG ?= 0.1.0
DEVICE ?= cpu
# Which commit an image is of.
REVISION := --label org.opencontainers.image.revision=$(shell git rev-parse HEAD 2>/dev/null)
# Extra arguments for pytest: make test PYTEST_ARGS="-k gateway -x"
PYTEST_ARGS ?=
# Processes that run tests side by side, more than there are cores, for many tests wait: make test TEST_PROCESSES=1
TEST_PROCESSES ?= 3

BIN := $(VENV)/bin
# tests/conftest.py says which tests stay together, in one process.
PYTEST = $(BIN)/python -m pytest -n $(TEST_PROCESSES) --no-loadscope-reorder --durations 20
READY := $(VENV)/.ready
SOURCES := archiver core deploy gateway handlers sidecar examples tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup up demo example-triton example-mlserver example-grpc-predictor example-monitoring example-release test test-extended test-long test-soak test-unit test-backends test-e2e test-faults test-install coverage lint fmt proto docs pictures bench bench-bandit bench-bodies bench-cache bench-client bench-cold bench-cold-path bench-engines bench-evidence bench-releases adopt-reports example-graph bench-batch bench-features bench-fetch bench-gateway bench-graph bench-http bench-logging bench-observations bench-open-inference bench-path bench-peers bench-processes bench-publish bench-shadow bench-speed bench-tables bench-weights images clean

help: ## Show every verb
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the environment: .venv with everything, pinned

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "marway: needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make setup PYTHON=python3.11")'
	@echo "installing into $(VENV), once: torch, TorchServe and Java take some minutes, and say nothing"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

up: setup ## Train the examples, start a pod and the gateway, predict, serve until Ctrl-C
	@$(BIN)/marway up --demo $(UP_ARGS)

demo: setup ## The same on free ports in a temporary home: print both models' answers and stop
	@$(BIN)/python examples/demo.py

example-graph: setup ## Answer one request from two models with a graph, release one of them, and see its steps
	@$(BIN)/python examples/graph/run.py $(EXAMPLE_ARGS)

example-grpc-predictor: setup ## Serve the intent model with a predictor over gRPC: train, release, ask, stop
	@$(BIN)/python examples/grpc_predictor/run.py

example-monitoring: setup ## Serve a model, tell it what was right, see its quality fall, and be sent an event
	@$(BIN)/python examples/monitoring/run.py

# Arguments for `make example-release`, such as --record FILE, or `make example-graph`, such as --engine torchserve
EXAMPLE_ARGS ?=

example-release: setup ## Publish a version that takes over by itself, and a bad one that leaves by itself
	@$(BIN)/python examples/release/run.py $(EXAMPLE_ARGS)

example-triton: setup ## Serve a model from NVIDIA Triton: two versions released, a roll-back, and all stopped
	@PIP_ARGS="$(PIP_ARGS)" $(BIN)/python examples/triton/run.py

example-mlserver: setup ## The same from MLServer
	@PIP_ARGS="$(PIP_ARGS)" $(BIN)/python examples/mlserver/run.py

test: setup ## Run tests of every kind, with real TorchServe: within 12 minutes on two cores
	$(PYTEST) -m 'not extended' $(PYTEST_ARGS)

test-extended: setup ## Run what `make test` leaves out because it takes long for what it adds; CI runs both
	$(PYTEST) -m extended $(PYTEST_ARGS)

test-long: setup ## Run every test, with the full schedules of kills, power cuts, label moves and the soak: some hours
	MARWAY_TEST_LONG=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

test-soak: setup ## Run the soak of test-long alone: ten minutes of load, loads and evictions on each engine
	MARWAY_TEST_LONG=1 $(BIN)/python -m pytest -s tests/faults/test_soak.py $(PYTEST_ARGS)

test-unit: setup ## Run what needs no TorchServe and no fresh environment
	$(PYTEST) -m 'not e2e and not install' $(PYTEST_ARGS)

test-backends: setup ## Run all that starts model servers of other makers, in environments below .venv-backends
	MARWAY_TEST_LONG=1 $(PYTEST) tests/backends $(PYTEST_ARGS)

test-e2e: setup ## Run what starts the real TorchServe
	$(PYTEST) -m e2e $(PYTEST_ARGS)

test-faults: setup ## Break parts of a running system under load, and count what clients notice
	$(BIN)/python -m pytest -m faults -s $(PYTEST_ARGS)

test-install: setup ## Run what builds fresh environments
	$(BIN)/python -m pytest -m install $(PYTEST_ARGS)

coverage: setup ## Measure which branches the tests without TorchServe go through, and print it
	$(PYTEST) -m 'not e2e and not install' --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

lint: setup ## Check style, types and which room imports which
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

PROTOS := core/marway_http/proto gateway/marway_gateway/proto sidecar/marway_sidecar/backends/open_inference/proto \
  sidecar/marway_sidecar/backends/tensorflow_serving/proto
# Files of others keep the names that their own clients know them by: one process may hold several copies of one file,
# but no two files that say the same.
OTHERS_PROTOS := gateway/marway_gateway/proto/torchserve sidecar/marway_sidecar/backends/torchserve/proto \
  sidecar/marway_sidecar/backends/grpc_predictor/proto
COMMON_PROTOS = $(shell $(BIN)/python -c 'import google.rpc; print(list(google.rpc.__path__)[0] + "/../..")')

proto: setup ## Write the gRPC stubs again from their .proto files
	$(foreach dir,$(PROTOS),$(BIN)/python -m grpc_tools.protoc -I $(firstword $(subst /, ,$(dir))) -I $(COMMON_PROTOS) \
	  --python_out=$(firstword $(subst /, ,$(dir))) --pyi_out=$(firstword $(subst /, ,$(dir))) \
	  --grpc_python_out=$(firstword $(subst /, ,$(dir))) $(wildcard $(dir)/*.proto) &&) true
	$(foreach dir,$(OTHERS_PROTOS),$(BIN)/python -m grpc_tools.protoc -I $(dir) -I $(COMMON_PROTOS) \
	  --python_out=$(dir) --pyi_out=$(dir) --grpc_python_out=$(dir) $(wildcard $(dir)/*.proto) && \
	  sed -i.orig 's/^import \([a-z_]*_pb2\) as/from . import \1 as/' $(dir)/*_pb2_grpc.py && rm $(dir)/*.orig &&) true

docs: setup ## Build the site of docs/ into .site, with nothing from the network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

pictures: setup ## Take the pictures of docs/images anew: in Chromium, and of a rollout as it happens
	MARWAY_PICTURES=docs/images $(BIN)/python -m pytest -q tests/ports/test_browser.py -k 'other_host and gateway'
	MARWAY_PICTURES=docs/images $(BIN)/python -m pytest -q tests/gateway/console -k browser
	record=$$(mktemp) && $(BIN)/python examples/release/run.py --record "$$record" && \
		$(BIN)/python examples/release/picture.py "$$record" docs/images; rm -f "$$record"

# Arguments for `make bench`, such as --quick, or --only speed,cache: make bench BENCH_ARGS="--quick"
BENCH_ARGS ?=

adopt-reports: setup ## Take over five real servers of others and write what came of it to docs/adopt
	$(BIN)/python tests/support/old_servers/reports.py docs/adopt

bench: setup ## Measure where Marway stands, within 15 minutes; write benchmarks/results/latest.md and its charts
	$(BIN)/python benchmarks/bench_all.py $(BENCH_ARGS)

bench-bandit: setup ## Simulate what Thompson's policy gains against dividing requests evenly
	$(BIN)/python benchmarks/bench_bandit.py

bench-bodies: setup ## Measure every process's memory while 20 bodies of 50 MiB go through at once
	$(BIN)/python benchmarks/bench_bodies.py

bench-batch: setup ## Measure rows a second of marway batch, and callers' latency beside it, in turns with none
	$(BIN)/python benchmarks/bench_batch.py

bench-cache: setup ## Measure what a kept answer saves against the same requests past the cache
	$(BIN)/python benchmarks/bench_cache.py

bench-client: setup ## Measure what marway.client adds to httpx, blocking and with asyncio
	$(BIN)/python benchmarks/bench_client.py

bench-cold: setup ## Measure a cold start and an idle worker's memory, forked against TorchServe's own way
	$(BIN)/python benchmarks/bench_cold.py

bench-cold-path: setup ## Measure publish to first answer and pod start to ready, phase by phase
	$(BIN)/python benchmarks/bench_cold_path.py

bench-engines: setup ## Measure the native engine against TorchServe and its peers; write benchmarks/results/engines.md
	$(BIN)/python benchmarks/bench_engines.py --write

bench-evidence: setup ## Simulate thousands of rollouts: false alarms, and how soon what is worse is found
	$(BIN)/python benchmarks/bench_evidence.py --write

bench-features: setup ## Measure what ids, metrics, access log, trace context, auth and observations cost the gateway
	$(BIN)/python benchmarks/bench_features.py

bench-fetch: setup ## Measure fetching 1 GiB from S3 in parts against one stream, in one interleaved run
	$(BIN)/python benchmarks/bench_fetch.py --size-mib 1024

bench-gateway: setup ## Measure resolving among 10,000 models, the gateway's memory, and choosing one of 100 pods
	$(BIN)/python benchmarks/bench_gateway.py

bench-graph: setup ## Measure what a graph's nodes cost against direct calls, and nodes side by side against the slowest
	$(BIN)/python benchmarks/bench_graphs.py

bench-http: setup ## Measure what serving HTTP costs against uvicorn's own protocol
	$(BIN)/python benchmarks/bench_http.py

bench-logging: setup ## Measure what TorchServe's default logging costs against the runtime's
	$(BIN)/python benchmarks/bench_logging.py

bench-observations: setup ## Measure marway quality and marway drift over a million kept predictions, in merged files and in thousands of small ones
	$(BIN)/python benchmarks/bench_observations.py

bench-open-inference: setup ## Measure Marway before a real Triton against that Triton alone; write benchmarks/results/open_inference.md
	PIP_ARGS="$(PIP_ARGS)" $(BIN)/python benchmarks/bench_open_inference.py --write

bench-path: setup ## Measure what each hop costs one client, against TorchServe alone
	$(BIN)/python benchmarks/bench_path.py

bench-peers: setup ## Measure Marway against KServe, MLServer, LitServe and BentoML; write benchmarks/results/peers.md
	PIP_ARGS="$(PIP_ARGS)" $(BIN)/python benchmarks/bench_peers.py --write

bench-processes: setup ## Measure what several processes of one gateway give, and what sharing its ports costs
	$(BIN)/python benchmarks/bench_processes.py

bench-publish: setup ## Measure publishing 1 GiB to S3 against a plain upload of the same file
	$(BIN)/python benchmarks/bench_publish.py --size-mib 1024

bench-shadow: setup ## Measure what copies of every request cost callers, in turns with none
	$(BIN)/python benchmarks/bench_shadow.py
bench-releases: setup ## Release 50 bad and 50 good versions of real models with rollouts, within 40 minutes; goes on where it was ended
	$(BIN)/python benchmarks/bench_releases.py

bench-speed: setup ## Measure Marway against TorchServe alone, smallest model, under load from wrk
	$(BIN)/python benchmarks/bench_speed.py

bench-tables: setup ## Measure look-ups by key in a table of a million rows, and the memory that they take
	$(BIN)/python benchmarks/bench_tables.py --write

bench-weights: setup ## Measure a further worker of a large model, forked from its weights against loading them itself
	$(BIN)/python benchmarks/bench_weights.py

images: ## Build the four container images with docker or podman
	@test -n "$(ENGINE)" || (echo "marway: needs docker or podman" >&2; exit 1)
	$(ENGINE) build $(REVISION) --build-arg PIP_ARGS="$(PIP_ARGS)" -f deploy/gateway.Containerfile -t marway-gateway:$(TAG) .
	$(ENGINE) build $(REVISION) --build-arg PIP_ARGS="$(PIP_ARGS)" -f deploy/pod.Containerfile --target sidecar -t marway-sidecar:$(TAG) .
	$(ENGINE) build $(REVISION) --build-arg PIP_ARGS="$(PIP_ARGS)" --build-arg DEVICE=$(DEVICE) -f deploy/pod.Containerfile --target runtime \
	  -t marway-runtime:$(TAG) .
	$(ENGINE) build $(REVISION) --build-arg PIP_ARGS="$(PIP_ARGS)" --build-arg DEVICE=$(DEVICE) -f deploy/pod.Containerfile --target runtime-native \
	  -t marway-runtime-native:$(TAG) .

clean: ## Remove the environment, caches and the default home
	rm -rf $(VENV) .venv-peers .venv-backends .bench-cache .marway .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist build
