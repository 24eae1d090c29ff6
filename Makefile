# `make train` and `make test` need nothing but Python 3.11 or later and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: train test test-fast test-whole test-postgresql bench-quick matrix audit lint lock clean

train: $(INSTALLED) ## fine-tune the bundled CLIP on the bundled channel
	$(BIN)/thumbtune demo

# One process more than there are cores, at most four: tests wait for servers half of their time.
PROCESSES := $(shell $(PYTHON) -c "import os; print(min(4, os.cpu_count() + 1))")
SIDE_BY_SIDE := --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

test: $(INSTALLED) ## all tests but the next target's
	@command -v chromium || command -v google-chrome || $(BIN)/python -m playwright install chromium
	$(BIN)/python -m pytest -m "not whole" $(SIDE_BY_SIDE)

METHOD := text names store channel data clip learning reporting use test_house.py test_parameters.py
test-fast: $(INSTALLED) ## the method alone, in a minute: nothing slow, and nothing that needs Prefect's server
	$(BIN)/python -m pytest -m "not prefect and not slow and not whole" --numprocesses auto --dist loadfile \
	  $(addprefix tests/,$(METHOD))

test-whole: $(INSTALLED) ## those that start servers, workers, clusters and what the docs tell to run
	$(BIN)/python -m pytest -m whole $(SIDE_BY_SIDE)

test-postgresql: $(INSTALLED) ## what compose.yaml runs, on a throw-away PostgreSQL: the schedule and the whole re-training
	pg_virtualenv -t sh -ec ' \
	  export THUMBTUNE_TEST_DATABASE_URL="postgresql+asyncpg://$$PGUSER:$$PGPASSWORD@$$PGHOST:$$PGPORT/$$PGDATABASE"; \
	  $(BIN)/python -m pytest tests/test_deployment.py tests/flows/test_retraining.py \
	    -k "is_scheduled or by_themselves"; \
	  psql --command "SELECT name, state_name FROM flow_run"'

BENCHMARKS := mining search training encoding gpu quality near_duplicates versions scale service page
bench-quick: $(BENCHMARKS:%=bench-quick-%) ## each benchmark with small sizes, to see that it runs
bench-quick-%: $(INSTALLED)
	$(BIN)/python benchmarks/$*.py --quick

matrix: $(INSTALLED) ## the tests that reach the libraries, with other Pythons, oldest and newest versions
	$(BIN)/nox

audit: $(INSTALLED) ## known vulnerabilities of the pinned versions; fails too if PyPI cannot tell
	$(BIN)/pip-audit --requirement requirements.lock --no-deps --disable-pip --strict

# The package as it is installed, made of links: mypy and editors do not read setuptools' package-dir.
TREE := build/tree
lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf $(TREE)
	mkdir -p $(TREE)/thumbtune
	ln -s $(CURDIR)/thumbtune/* $(CURDIR)/flows $(CURDIR)/sample $(CURDIR)/tasks $(TREE)/thumbtune
	MYPYPATH=$(TREE) $(BIN)/mypy $(TREE)/thumbtune docs

# uv takes seconds where pip takes minutes. Of pip's settings it is told those in the environment; where
# it does not reach the packages, by a proxy or an index in pip's own files, pip fetches them.
UV := UV_INDEX_STRATEGY=unsafe-best-match $(foreach name,FIND_LINKS EXTRA_INDEX_URL INDEX_URL,$(if \
  $(PIP_$(name)),UV_$(name)="$(PIP_$(name))")) $(BIN)/uv pip
$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' requirements.lock)"
	$(UV) install --python $(BIN)/python --quiet --compile-bytecode --requirement requirements.lock || \
	  $(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

lock: $(INSTALLED) ## pin what pyproject.toml allows today
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv --without-pip $(VENV)-lock
	$(UV) install --python $(VENV)-lock/bin/python --quiet torch==2.13.0 '.[dev]'
	{ echo "# Every version that thumbtune is tested with; made by 'make lock'."; \
	  $(UV) freeze --python $(VENV)-lock/bin/python | grep -v '^thumbtune' | sed 's/^torch==.*/torch==2.13.0/'; \
	} > requirements.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) .nox
