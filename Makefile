# Nothing has to be prepared: `make run` serves, `make test` tests; both say what they install before they do it.
PORT ?= 8000
DATA ?= data
SCALED_DATA ?= data-scaled
PYTHON = .venv/bin/python
TEMPLATES = $(shell find templates -name '*.html')

.PHONY: run scaled test lint format bench

run: ## the server on 127.0.0.1:$(PORT), its files in $(DATA)
	@.ci/setup run
	@exec env AUDITWEB_DATA="$(DATA)" $(PYTHON) manage.py serve --port $(PORT)

scaled: ## what docker-compose.yml starts, without containers: 2 web processes, 2 workers, PostgreSQL, Redis, Caddy if there
	@.ci/setup scaled
	@exec $(PYTHON) -m tests.scaled --data "$(SCALED_DATA)" --port $(PORT)

test: ## everything: linters, node, browser, PostgreSQL with Redis, SQLite
	@.ci/setup test
	@$(MAKE) --no-print-directory lint
	node --test tests/js/*.test.js
	$(PYTHON) -m pytest tests/browser
	$(PYTHON) -m tests.servers -- $(PYTHON) -m pytest tests/browser -k "main_path or dropped_file or another_process"
	@$(MAKE) --no-print-directory --output-sync=target -j2 test-on-postgres test-on-sqlite

# Side by side: each keeps one core busy.
test-on-postgres:
	$(PYTHON) -m tests.servers -- $(PYTHON) -m pytest tests --ignore tests/browser

test-on-sqlite:
	$(PYTHON) -m pytest tests --ignore tests/browser -m "not postgres and not redis"

lint:
	@.ci/setup test
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/djade --target-version 5.2 --check $(TEMPLATES)
	.venv/bin/lint-imports
	AUDITWEB_DATA=.mypy_cache/data .venv/bin/mypy

format:
	@.ci/setup test
	.venv/bin/ruff check --fix
	.venv/bin/ruff format
	.venv/bin/djade --target-version 5.2 $(TEMPLATES)

bench: ## every figure beside its yardstick, about an hour; WHAT="stored live soak", BENCH=quick, LINES= for one import more
	@.ci/setup test
	$(PYTHON) -m tests.servers -- $(PYTHON) bench/run.py $(if $(WHAT),--what $(WHAT)) $(if $(filter quick,$(BENCH)),--quick) $(if $(LINES),--lines $(LINES))
