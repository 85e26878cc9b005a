# `make demo` and `make test` need only Python 3.11 and make; each sets up the environment when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

# `make search` runs the property tests on new random examples; what fails becomes an `@example`.
# `make screenshots` takes the pictures of docs/ from the page of a demo, in the system's Chromium.
.PHONY: demo test faults faults-servers soak browser screenshots search up containers bench check sbom install clean

install: $(STAMP)

# The lock is complete but for the libraries of torch's CUDA build, which that build's own metadata pins: the line after
# the lock's installs them where the package index served that build, and nothing where it served the CPU build.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("softad needs Python 3.11 or 3.12; name one with: make PYTHON=python3.11 ...") if not (3, 11) <= sys.version_info[:2] <= (3, 12) else None'
	@echo "setting up $(VENV) from requirements.lock (about 270 packages, 3 GB, a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/softad demo

test: $(STAMP)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=30

# In the system's Chromium.
browser: $(STAMP)
	@$(BIN)/python -m pytest -q tests/browser

screenshots: demo
	@$(BIN)/python tests/browser/screenshots.py workspace/page/demo/index.html docs

search: $(STAMP)
	@HYPOTHESIS_PROFILE=search $(BIN)/python -m pytest -n 2 --dist loadfile tests/unit

# Processes that die at every write, and cycles killed at random; `ONLY="ingest, person: close"`, `KILLS=150 SEED=7` say less.
faults: $(STAMP)
	@$(BIN)/python -m tests.faults.matrix $(if $(ONLY),--only "$(ONLY)")
	@$(if $(ONLY),,$(BIN)/python -m tests.faults.servers)

# The second half of `make faults` alone: real processes, killed with -9; needs PostgreSQL's programs on the path.
faults-servers: $(STAMP)
	@$(BIN)/python -m tests.faults.servers $(if $(ONLY),--only "$(ONLY)")

soak: $(STAMP)
	@$(BIN)/python -m tests.faults.soak --kills $(or $(KILLS),1000) $(if $(SEED),--seed $(SEED))

up: $(STAMP)
	@$(BIN)/softad up

# The images are built and run with podman, from the public base images or without any registry; docs/containers.log is the log.
containers:
	@docker/containers.sh || test $$? = 77

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -r softad monitoring flows -c pyproject.toml

# Software bill of materials: every package of the lock, in CycloneDX's JSON.
sbom: $(STAMP)
	@$(BIN)/python -m flows.sbom requirements.lock > sbom.json && echo "wrote sbom.json"

clean:
	rm -rf $(VENV) workspace benchmarks/results
