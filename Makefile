# make serve   run the daemon on port 3456 (ARGS="--model-alias gpt-4=opus" adds options)
# make fast    the tests that start no CLI, half a minute
# make test    all tests, with the newest and the oldest supported CLI, in parallel
#              (ARGS=tests/contract for a part; ARGS=-n0 for one after the other)
# make lowest  the fast tests with the oldest packages that setup.cfg admits
# make check   what can be checked without running
# make docs    the site, in .cache/docs/html
# make soak    10,000 mixed turns with faults, over the double and over the real CLI (SOAK_TURNS=500
#              for fewer)
# make cluster two daemons, PostgreSQL and HAProxy, hurt while 1,000 turns are asked (TURNS=300 for
#              fewer)
# make mutants which changes of engine, cli and web no fast test notices; an hour
#              (ARGS='claudeproxy.engine.keeper*' for a part; cd .cache/mutants, then mutmut show NAME)
# make conformance  the suites of others; writes docs/conformance.rst (needs node and npm)
# make clients      real clients, end to end (the same; ARGS=codex runs one of them)
# make bench   measure, beside the npm proxy if there is Node.js (ARGS="own" only the daemon's share)
# make image   the container image, built and run by podman (needs root, and minutes)
# make release the wheel and the source into dist/, checked; publishes nothing
# make clean   back to a fresh clone
#
# All set-up happens in .venv and .cache, by need.

.PHONY: serve fast test lowest check lint types rooms pages forge docs soak cluster mutants conformance clients
.PHONY: bench image release clean
.NOTPARALLEL:

PYTHONS = $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python3.10
PIP = .venv/bin/python -m pip --disable-pip-version-check install -qq
# Tells that it goes on: patiently WHAT DIRECTORY COMMAND.
PATIENTLY = .venv/bin/python packaging/patiently

# The oldest CLI that a wheel carries and the daemon accepts, and that wheel.
OLDEST = 2.1.292
OLDEST_WHEEL = claude-agent-sdk==0.2.164
OLDEST_CLI = .cache/claude-$(OLDEST)/claude
# Each process gets a piece of the tests in their order, and so starts few daemons and CLIs.
PARALLEL = -n logical --dist worksteal
PYTEST = .venv/bin/python -m pytest
# Five stands for "no tests": ARGS has chosen others. One: some have failed.
AGAIN = case $$? in 5) ;; 1) .venv/bin/python tests/again.py $(1) $(ARGS) ;; *) exit 1 ;; esac
export OLDEST_CLAUDE_CLI ?= $(CURDIR)/$(OLDEST_CLI)

serve: .venv/.serve
	@.venv/bin/python packaging/serve $(ARGS)

fast: .venv/.check
	$(PYTEST) -m 'not cli' $(ARGS)

test: .venv/.test $(OLDEST_CLI)
	@rm -f .pytest_cache/v/cache/lastfailed
	$(PYTEST) -m 'not alone' $(PARALLEL) $(ARGS) || $(call AGAIN,-m 'not alone')
	$(PYTEST) -m alone $(ARGS) || $(call AGAIN,-m alone)

lowest: .venv/.check
	.venv/bin/nox -s lowest -- $(ARGS)

soak: .venv/.test
	.venv/bin/python tests/soak.py

cluster: .venv/.test
	@.ci/servers
	.venv/bin/python tests/cluster.py

# Of a copy, for it writes beside what it reads.
mutants: .venv/.mutants
	@rm -rf .cache/mutants && mkdir -p .cache/mutants
	@cp -pR claudeproxy tests twisted docs README.rst setup.cfg pyproject.toml .cache/mutants
	-cd .cache/mutants && ../../.venv/bin/mutmut run $(ARGS)
	cd .cache/mutants && ../../.venv/bin/python tests/mutants.py

# The hooks of .pre-commit-config.yaml are the parts.
check: lint types rooms pages forge

lint: .venv/.check
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/.check
	.venv/bin/mypy

rooms: .venv/.check
	.venv/bin/lint-imports

# All but these two are read on a forge, too, which is not Sphinx.
pages: .venv/.check
	@set -e; for page in $(filter-out docs/index.rst docs/api.rst,$(wildcard *.rst docs/*.rst)); do \
	    .venv/bin/python -m docutils --halt=warning $$page /dev/null; done; echo 'rst: fine'

SCHEMA = .venv/bin/check-jsonschema -q --builtin-schema
forge: .venv/.check
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA) vendor.compose-spec packaging/compose*.yaml
	.venv/bin/kubernetes-validate --strict --quiet packaging/kubernetes.yaml
	@if haproxy=$$(PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v haproxy); \
	then $$haproxy -dW -c -f packaging/haproxy.cfg; \
	else echo 'haproxy is not installed: packaging/haproxy.cfg is not checked'; fi

# Anew each time (-E): what a build has cached gives no warning again.
SPHINX = .venv/bin/python -m sphinx -E -W --keep-going -q -d .cache/docs/doctrees
docs: .venv/.docs
	$(SPHINX) -b html docs .cache/docs/html
	$(SPHINX) -b linkcheck docs .cache/docs/links
	@echo 'docs: $(CURDIR)/.cache/docs/html/index.html'

conformance: .venv/.serve
	.venv/bin/python conformance/run

clients: .venv/.serve
	.venv/bin/python conformance/run-clients $(ARGS)

bench: .venv/.serve
	.venv/bin/python -m benchmarks $(ARGS)

image: .venv/.serve
	.venv/bin/python tests/image.py

release: .venv/.check
	@rm -rf dist
	.venv/bin/python -m build
	.venv/bin/twine check --strict dist/*

clean:
	rm -rf .venv .cache build dist *.egg-info .hypothesis .*_cache twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.serve: setup.cfg pyproject.toml | .venv/bin/python
	@$(PATIENTLY) 'Installing claudemax and the CLI (about 170 MB, once)' .venv $(PIP) -e '.[cli]' && touch $@

.venv/.test: setup.cfg pyproject.toml | .venv/bin/python
	@$(PATIENTLY) 'Installing claudemax, the CLI (about 170 MB, once) and the test tools' .venv $(PIP) -e '.[cli,test]' && touch $@

# With the test tools: mypy wants what the tests of a room import, too.
.venv/.check: setup.cfg pyproject.toml | .venv/bin/python
	@$(PATIENTLY) 'Installing claudemax and the checkers' .venv $(PIP) -e '.[test,dev]' && touch $@

.venv/.docs: setup.cfg pyproject.toml | .venv/bin/python
	@echo 'Installing claudemax and Sphinx ...'
	@$(PIP) -e '.[docs]' && touch $@

.venv/.mutants: setup.cfg pyproject.toml | .venv/bin/python
	@$(PATIENTLY) 'Installing claudemax and the mutation tester' .venv $(PIP) -e '.[cli,test,mutants]' && touch $@

.venv/bin/python:
	@for python in $(PYTHONS); do \
	    if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; \
	    then exec $$python -m venv .venv; fi; \
	done; \
	echo 'claudemax needs Python 3.10 or newer with its venv module, and none is on the PATH.' >&2; \
	echo 'Debian and Ubuntu: apt install python3 python3-venv. Elsewhere: make PYTHON=/path/to/python3' >&2; \
	exit 1

$(OLDEST_CLI): | .venv/bin/python
	@rm -rf .cache/wheel && $(PATIENTLY) 'Fetching the oldest supported CLI, $(OLDEST) (about 100 MB, once)' .cache/wheel \
	    $(PIP) --no-deps --target .cache/wheel $(OLDEST_WHEEL)
	@mkdir -p $(@D) && mv .cache/wheel/claude_agent_sdk/_bundled/claude $@ && rm -rf .cache/wheel
	@HOME=$(CURDIR)/$(@D) ./$@ --version | grep -q '^$(OLDEST) ' || { rm -f $@; echo '$(OLDEST_WHEEL) does not carry CLI $(OLDEST)' >&2; exit 1; }
