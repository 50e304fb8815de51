# Each target does its own set-up in .venv; nothing else on the machine is touched.
#   make demo    photometry of the bundled real field, by the flow
#   make serve   a site on this machine: server with its UI (http://127.0.0.1:4200), the fields of $(SITE), a worker
#   make test    the test suite (set-up included)
#   make docs    the documentation, into site/ (reads offline)
SHELL  := /bin/bash
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
SITE   ?= deployments
PORT   ?= 4200
HOST   ?= 127.0.0.1
RUNS   ?= 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-slow test-ui golden lint bench bench-flow bench-psf bench-scale bench-tile setup clean serve test-night fuzz audit test-faults test-clusters docs

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.installed
	$(BIN)/tract7dt demo $(DEMO)

# Runs at once: RUNS. Other machines are let in by HOST=0.0.0.0; there is no password on the server.
serve: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[s3]'
	$(BIN)/tract7dt serve $(SITE) --host $(HOST) --port $(PORT) --runs $(RUNS)

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

# The UI as an observer sees it, in headless Chromium; SCREENSHOTS names a folder to keep pictures in.
test-ui: $(VENV)/.installed-dev
	.ci/browser
	TRACT7DT_SCREENSHOTS=$(SCREENSHOTS) $(BIN)/pytest tests/ui

# Minutes: a site from nothing, its schedule, its limits, its failures, who is told, the blocks of docs/deployment.md.
test-night: $(VENV)/.installed-dev
	PATH="$$PWD/$(BIN):$$PATH" $(BIN)/pytest -m slow tests/deployments tests/upkeep

# Faults in real runs: kills everywhere, full disks, a server that goes and comes back.
test-faults: $(VENV)/.installed-dev
	$(BIN)/pytest tests/faults tests/flows/test_flows_faults.py tests/flows/test_flows_faults_everywhere.py \
	    tests/flows/test_flows_faults_outside.py

# Dask and Ray: real fields on workers that share no disk with the run.
test-clusters: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dask,ray,s3]'
	PATH="$$PWD/$(BIN):$$PATH" $(BIN)/pytest -m slow tests/flows/test_flows_staging.py tests/flows/test_flows_pool_clusters.py

# After a stage's number in tract7dt/reuse/versions.py was raised: write down what it makes now.
golden: $(VENV)/.installed-dev
	$(BIN)/python tests/golden/regenerate.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The readers of what comes from outside, each fuzzed for FUZZ_S seconds; crashes and what was found: fuzz/.
FUZZ ?= catalogue_csv catalogue_fits catalogue_parquet gaia image_list image configuration overrides payload manifest latest
FUZZ_S ?= 600

fuzz: $(VENV)/.installed-fuzz
	@for target in $(FUZZ); do \
	    mkdir -p fuzz/found/$$target; \
	    nice -n 19 $(BIN)/python tests/fuzz/fuzz.py $$target -max_total_time=$(FUZZ_S) -max_len=20000 -timeout=30 \
	        -rss_limit_mb=4000 -artifact_prefix=fuzz/$$target- fuzz/found/$$target tests/fuzz/corpus/$$target \
	        || exit 1; \
	done

# Known vulnerabilities of the pinned packages; in an environment of its own.
audit:
	.ci/audit $(PYTHON) $(VENV)-audit

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_fit.py
	$(BIN)/python benchmarks/bench_plots.py

docs: $(VENV)/.installed-docs
	$(BIN)/python -m tract7dt.settings.docs > docs/configuration.md
	$(BIN)/python docs/make_outputs.py > docs/outputs.md
	$(BIN)/python docs/make_errors.py > docs/errors.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A simulated tile at a linear scale: memory, time and disk of the whole run.
bench-tile: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_tile.py --scale $(or $(SCALE),0.25)

# 20,000 patches of 10 ms through the flow: where the run and the server end
bench-scale: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_scale.py

# Simulates its fields first: SIMULATOR is the folder of make_field.py, FIELDS where the fields are kept.
bench-psf: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_psf.py $(SIMULATOR) --tile $(if $(FIELDS),--keep $(FIELDS))

# What the orchestration costs: benchmarks/RESULTS_flow.md
bench-flow: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench_flow.py

setup: $(VENV)/.installed

$(VENV)/bin/python:
	@$(PYTHON) .ci/make_venv.py $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	$(BIN)/python -m tract7dt.fit.warm
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,fuzz]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-audit fuzz $(DEMO) build *.egg-info
