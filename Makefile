# `make demo` and `make test` are all a newcomer needs; both install what they use into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := requirements-dev.lock
STAMP  := $(VENV)/.installed

.PHONY: install demo test conformance fuzz lint types bench docs lock audit compile test-containers test-keycloak clean

install: $(STAMP)

$(STAMP): $(LOCK) requirements-bootstrap.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Gatebook needs Python 3.11 or newer on PATH (or: make PYTHON=/path/to/python3.11)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-bootstrap.lock
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes $(LOCK) requirements-bootstrap.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: install
	@$(BIN)/gatebook demo

test: install
	@$(BIN)/python -m pytest

# The drivers' own suites, direct and through a gateway: the same tests must fail (half an hour, and
# ten minutes more the first time; needs a C compiler, make and apt-get). SUITES="asyncpg" runs one.
conformance: install
	@$(BIN)/python -m tests.conformance $(SUITES)

# A real Keycloak (177 MB, fetched once; 35 s the first time, 15 s afterwards).
test-keycloak: install
	@$(BIN)/python -m pytest -m keycloak tests/keycloak

# The integration tests against containers (engine, base image and images are made where missing).
test-containers: install
	@$(BIN)/python -m tests.containers

# 10 million inputs into the PostgreSQL machine (a few minutes; FUZZ_INPUTS chooses how many), and
# the same conversations by hypothesis.
FUZZ_INPUTS ?= 10000000
fuzz: install
	@$(BIN)/python -m tests.gateway.protocols.postgres.fuzzing --inputs $(FUZZ_INPUTS)
	@GATEBOOK_FUZZ=2000 $(BIN)/python -m pytest -q tests/gateway/protocols/postgres/test_fuzz.py

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: install
	@$(BIN)/mypy

# The hot modules compiled (needs a C compiler), beside and not instead of the sources.
compile: install
	@rm -rf build
	@GATEBOOK_COMPILE=1 $(BIN)/python setup.py -q build --build-lib build/compiled

bench: install
	@if command -v cc >/dev/null; then $(MAKE) --no-print-directory compile; fi
	@$(BIN)/python -m bench

audit: install
	@$(BIN)/pip-audit --require-hashes --disable-pip -r $(LOCK)

lock:
	@UV=$$(command -v $(BIN)/uv || command -v uv); \
	$$UV pip compile --quiet --no-header --no-emit-find-links --python-version 3.11 --universal --generate-hashes pyproject.toml -o requirements.lock; \
	$$UV pip compile --quiet --no-header --no-emit-find-links --python-version 3.11 --universal --generate-hashes --extra embedded pyproject.toml -o requirements-embedded.lock -c requirements.lock; \
	$$UV pip compile --quiet --no-header --no-emit-find-links --python-version 3.11 --universal --generate-hashes --extra embedded --extra dev pyproject.toml -o requirements-dev.lock -c requirements-embedded.lock; \
	echo uv | $$UV pip compile --quiet --no-header --no-emit-find-links --python-version 3.11 --universal --generate-hashes - -o requirements-bootstrap.lock

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

docs: install
	@$(BIN)/python docs/build.py
