# make serve   run the daemon on port 3456 (ARGS="--model-alias gpt-4=opus" adds options)
# make test    all tests, with the newest and the oldest supported CLI
# make check   what can be checked without running
# make soak    10,000 mixed turns with faults through one daemon (SOAK_TURNS=500 for fewer)
# make conformance  the suites of others; writes docs/conformance.rst (needs node and npm)
# make clients      real clients, end to end (the same; ARGS=codex runs one of them)
# make bench   measure, beside the npm proxy if there is Node.js (ARGS="own" only the daemon's share)
# make clean   back to a fresh clone
#
# All set-up happens in .venv and .cache, by need.

.PHONY: serve test check soak conformance clients bench clean
.NOTPARALLEL:

PYTHONS = $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python3.10
PIP = .venv/bin/python -m pip --disable-pip-version-check install -qq

# The oldest CLI that a wheel carries and the daemon accepts, and that wheel.
OLDEST = 2.1.292
OLDEST_WHEEL = claude-agent-sdk==0.2.164
OLDEST_CLI = .cache/claude-$(OLDEST)/claude
export CLAUDEMAX_OLDEST_CLI ?= $(CURDIR)/$(OLDEST_CLI)

serve: .venv/.serve
	@.venv/bin/python packaging/serve $(ARGS)

test: .venv/.test $(OLDEST_CLI)
	.venv/bin/python -m pytest $(ARGS)

soak: .venv/.test
	.venv/bin/python tests/soak.py

check: .venv/.check
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@set -e; for page in $(wildcard *.rst docs/*.rst); do \
	    .venv/bin/python -m docutils --halt=warning $$page /dev/null; done; echo 'rst: fine'

conformance: .venv/.serve
	.venv/bin/python conformance/run

clients: .venv/.serve
	.venv/bin/python conformance/run-clients $(ARGS)

bench: .venv/.serve
	.venv/bin/python -m benchmarks $(ARGS)

clean:
	rm -rf .venv .cache build dist *.egg-info .hypothesis .*_cache twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.serve: setup.cfg pyproject.toml | .venv/bin/python
	@echo 'Installing claudemax and the CLI (about 170 MB, once) ...'
	@$(PIP) -e '.[cli]' && touch $@

.venv/.test: setup.cfg pyproject.toml | .venv/bin/python
	@echo 'Installing claudemax, the CLI (about 170 MB, once) and the test tools ...'
	@$(PIP) -e '.[cli,test]' && touch $@

# With the test tools: mypy wants what the tests of a room import, too.
.venv/.check: setup.cfg pyproject.toml | .venv/bin/python
	@echo 'Installing claudemax and the checkers ...'
	@$(PIP) -e '.[test,dev]' && touch $@

.venv/bin/python:
	@for python in $(PYTHONS); do \
	    if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; \
	    then exec $$python -m venv .venv; fi; \
	done; \
	echo 'claudemax needs Python 3.10 or newer with its venv module, and none is on the PATH.' >&2; \
	echo 'Debian and Ubuntu: apt install python3 python3-venv. Elsewhere: make PYTHON=/path/to/python3' >&2; \
	exit 1

$(OLDEST_CLI): | .venv/bin/python
	@echo 'Fetching the oldest supported CLI, $(OLDEST) (about 100 MB, once) ...'
	@rm -rf .cache/wheel && $(PIP) --no-deps --target .cache/wheel $(OLDEST_WHEEL)
	@mkdir -p $(@D) && mv .cache/wheel/claude_agent_sdk/_bundled/claude $@ && rm -rf .cache/wheel
	@HOME=$(CURDIR)/$(@D) ./$@ --version | grep -q '^$(OLDEST) ' || { rm -f $@; echo '$(OLDEST_WHEEL) does not carry CLI $(OLDEST)' >&2; exit 1; }
