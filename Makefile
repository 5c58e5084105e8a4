# The two commands of a newcomer are `make run` and `make test`. Everything they need is installed inside this folder.

CARGO ?= cargo
PORT ?= 5000

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-18s %s\n", $$1, $$2 }'

.PHONY: run
run: build ## Serve the demo model on http://localhost:5000 (PORT=... for another port, ARGS="--model ..." for more)
	exec target/release/syncdiffusion serve --port $(PORT) $(ARGS)

.PHONY: build
build: libtorch ## Build the release binaries into target/release
	$(CARGO) build --release --locked --workspace

.PHONY: libtorch
libtorch: ## Make sure of libtorch in .libtorch (or use LIBTORCH); DEVICE=cuda adds the CUDA libraries
	@scripts/libtorch.sh $(DEVICE)

.PHONY: test
test: build ## Run all tests but the slow ones
	OMP_NUM_THREADS=1 $(CARGO) test --release --locked --workspace

.PHONY: test-reference
test-reference: libtorch ## Make fixtures of another seed by the Python reference and compare with them (SEED=... to choose)
	scripts/venv.sh tests/reference
	tests/reference/.venv/bin/python tests/reference/make.py --seed $(SEED) --out tests/reference/made/fixtures
	OMP_NUM_THREADS=1 FIXTURES=$(CURDIR)/tests/reference/made/fixtures $(CARGO) test --release --locked -p sd2 -p panorama

SEED ?= $(shell od -An -N2 -tu2 /dev/urandom | tr -d ' ')

BUILT = --server target/release/syncdiffusion --worker target/release/stand-in-worker

.PHONY: test-differential
test-differential: build ## Run this server and the real Cog server side by side and compare their answers
	scripts/venv.sh tests/differential
	tests/differential/.venv/bin/python tests/differential/run.py $(BUILT)

.PHONY: test-schema
test-schema: build ## Have schemathesis make up requests from openapi.yaml and check every answer
	scripts/venv.sh tests/schema
	tests/schema/.venv/bin/python tests/schema/run.py $(BUILT)

.PHONY: test-otel
test-otel: ## Build the server with traces and have it send spans to a receiver
	$(CARGO) test --release --locked -p server --features otel --test otel

.PHONY: test-webhooks
test-webhooks: build ## Have Replicate's own clients, for Python and JavaScript, verify our webhooks
	scripts/venv.sh tests/webhooks
	npm --prefix tests/webhooks ci --silent
	tests/webhooks/.venv/bin/python tests/webhooks/run.py $(BUILT)

.PHONY: test-s3
test-s3: build ## Put pictures into a bucket of a real store that speaks S3
	$(CARGO) install --quiet --locked --debug --root target/s3-server --features binary --version 0.14.1 s3s-fs
	S3_SERVER=$(CURDIR)/target/s3-server/bin/s3s-fs $(CARGO) test --release --locked --workspace --test service -- --ignored a_real_store

.PHONY: fuzz
fuzz: libtorch ## Make up what strangers send, by libFuzzer (FUZZ_SECONDS for each target)
	$(CARGO) install --quiet --locked --root .tools/cargo --target-dir target/tools cargo-fuzz@0.13.2
	for target in input frame bundle; do \
		LD_LIBRARY_PATH=$${LIBTORCH:-$(CURDIR)/.libtorch/torch}/lib .tools/cargo/bin/cargo-fuzz run --sanitizer none $$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 || exit 1; \
	done

FUZZ_SECONDS ?= 300

.PHONY: soak
soak: build ## Kill servers and workers at random moments; hundreds of clients for minutes (SOAK_SECONDS, SOAK_SEED)
	$(CARGO) test --release --locked --workspace --test service -- --ignored --skip a_real_store --nocapture

.PHONY: bench
bench: build ## Measure the service, and pictures against the Python reference in turn (MODELS, DTYPE, JOB="flags" for others)
	target/release/bench
	scripts/venv.sh tests/reference
	tests/reference/.venv/bin/python tests/reference/random_model.py small $(SMALL)
	tests/reference/.venv/bin/python tests/reference/bench.py --runs $(RUNS) $(DTYPE:%=--dtype %) $(MODELS:%=--model %) -- $(JOB)

SMALL = tests/reference/made/small
MODELS ?= demo $(SMALL)
DTYPE ?= f32 bf16

.PHONY: demo-model
demo-model: ## Train the demo model from nothing, or go on with it (STAGE=... for some stages, FROM=bundle; 3 to 4 hours on 2 cores)
	scripts/venv.sh training
	PYTHONPATH=training training/.venv/bin/python -m demo_model $(if $(FROM),--from $(FROM)) $(STAGE)

STAGE ?= all

.PHONY: test-training
test-training: build ## Test the training of the demo model: its captions, its VAE's latents, and that the worker loads what it exports
	scripts/venv.sh training
	PYTHONPATH=training training/.venv/bin/python -m unittest discover -s training/tests -t training

.PHONY: full-size
full-size: build ## Random weights of the exact size of Stable Diffusion 2: three windows, two steps, against the reference (16 GB of memory, 6 GB of disk)
	scripts/venv.sh tests/reference
	tests/reference/.venv/bin/python tests/reference/random_model.py full tests/reference/made/full-size
	tests/reference/.venv/bin/python tests/reference/bench.py --runs 1 --dtype f32 --dtype bf16 --model tests/reference/made/full-size -- \
		--prompt "a photo of a mountain range at twilight" --width 768 --num-inference-steps 2 --sync-threshold 1

.PHONY: precision
precision: libtorch ## What bf16 and f16 cost in exactness, on the demo model (MODEL=folder for another)
	$(CARGO) run --release --locked -p panorama --example precision -- $(MODEL) 1024 20 3

MODEL ?= models/demo
RUNS ?= 2
JOB ?= --prompt "a photo of a mountain range at twilight"

.PHONY: check
check: build ## Check form, lints, spelling, dependencies, scripts, documents, and deploy/
	scripts/check.sh
	deploy/check.sh

.PHONY: docs
docs: build ## Write what is generated: openapi.yaml, docs/cli.md, the figures in docs/operating.md
	target/release/syncdiffusion documents .

.PHONY: image
image: ## Build the image syncdiffusion:DEVICE (DEVICE=cpu|cuda, WEIGHTS=none|sd2; DOCKER=podman for another builder)
	deploy/image/docker.sh syncdiffusion:$(or $(DEVICE),cpu) --build-arg DEVICE=$(or $(DEVICE),cpu) --build-arg WEIGHTS=$(or $(WEIGHTS),none)

.PHONY: check-deploy
check-deploy: ## Check what is in deploy/ with the tool of each kind, and say what could not be checked
	deploy/check.sh

.PHONY: clean
clean: ## Remove what was built and downloaded, but not what was trained
	rm -rf target .libtorch .libtorch.part .tools tests/reference/made training/.venv tests/*/.venv tests/webhooks/node_modules
