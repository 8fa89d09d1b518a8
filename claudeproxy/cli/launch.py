"""How the CLI is found, checked and started: executable, version, arguments and environment."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import frozen

from claudeproxy._installed import installer

from .settings import RELEASE

MINIMUM = (2, 1, 290)
"""Older versions lack ``client_composed``: they would run text beginning with ``/`` as a
command."""

ARGUMENTS = (
    *("-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"),
    *("--include-partial-messages", "--no-session-persistence", "--strict-mcp-config"),
    *("--disable-slash-commands", "--tools", "", "--setting-sources", ""),
    # Other sessions of the user could send it text, which would reach a client's turn.
    *("--settings", '{"crossSessionInbound":"refuse"}'),
)
"""The same for every process, since nothing of a request is on the command line."""

_PASSED_ON = frozenset(
    "HOME USER LOGNAME PATH SHELL LANG TZ TMPDIR CLAUDE_CONFIG_DIR CLAUDE_CODE_OAUTH_TOKEN "
    "HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy "
    "NODE_EXTRA_CA_CERTS SSL_CERT_FILE".split()
)
_PREFIXES_PASSED_ON = ("LC_", "XDG_")

_SWITCHES = {
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",  # "@/etc/hostname" in a text would be read and sent
    "DISABLE_AUTO_COMPACT": "1",  # a long conversation would be replaced by a summary
    "ENABLE_TOOL_SEARCH": "false",  # all tools are in the request
    "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "1",
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",  # a broken stream would be asked again
    "CLAUDE_CODE_MAX_RETRIES": "0",  # errors show at once; an expired login is still renewed
    "CLAUDE_CODE_DISABLE_REFUSAL_RETRY": "1",
    "CLAUDE_CODE_NO_MODEL_FALLBACK": "1",  # on a login another model would answer; a 400 would be 3
    "ENABLE_CLAUDEAI_MCP_SERVERS": "false",  # the user's connectors would be listed at each start
    "CLAUDE_CODE_DISABLE_LEGACY_MODEL_REMAP": "1",  # claude-opus-4-1 would become another model
    **RELEASE,
    "MAX_MCP_OUTPUT_TOKENS": "100000000",  # a tool's images would be counted upstream, and cut
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "CLAUDE_CODE_DISABLE_CLAUDE_MDS": "1",
    "CLAUDE_CODE_DISABLE_TERMINAL_TITLE": "1",
}

PATIENCE = 30.0
"""Seconds that it has to tell its version."""

LAUNCHER = str(Path(__file__).with_name("launcher.py"))


class CLIError(Exception):
    """There is no CLI that can be used; the text says why, in one line."""


@frozen
class Upstream:
    """A Messages API in place of the subscription. ``config_dir`` is private and empty: a login
    within the CLI's reach would be sent there."""

    url: str
    key: str
    config_dir: str

    @classmethod
    def make(cls, url: str, key: str, scratch: str) -> Upstream:
        """One whose ``config_dir`` is made in the directory ``scratch``."""
        config_dir = os.path.join(scratch, "config")
        os.mkdir(config_dir, 0o700)
        return cls(url, key, config_dir)


def find(path: str | None, search: str | None = None) -> str:
    """The CLI's executable: ``path``, else ``claude`` on the search path, else the bundled one.

    :raises CLIError: when there is none.
    """
    if path is not None:
        found = shutil.which(os.path.expanduser(path), path=search)
        if found is None:
            raise CLIError(f"there is no Claude CLI at {path}")
        return os.path.abspath(found)
    found = shutil.which("claude", path=search) or bundled()
    if found is None:
        raise CLIError(
            "the Claude CLI is missing: install it (https://claude.com/claude-code), "
            f"or `{installer().add_cli}`, or give --claude PATH"
        )
    return os.path.abspath(found)


def bundled() -> str | None:
    """The CLI inside the ``claude-agent-sdk`` wheel, if that is installed."""
    spec = importlib.util.find_spec("claude_agent_sdk")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        candidate = os.path.join(folder, "_bundled", "claude")
        if os.access(candidate, os.X_OK):
            return candidate
    return None


def instead_of(executable: str) -> str:
    """A remedy to add where ``executable`` is of no use: the bundled one, if there is another."""
    other = bundled()
    if other is None or other == executable:
        return ""
    return f"; or use the one that came with claudemax: --claude {other}"


def check_version(executable: str, environment: Mapping[str, str]) -> str:
    """The CLI's version, as ``claude --version`` prints it (0.3 s, no quota, blocking).

    :raises CLIError: when it does not run or is too old.
    """
    try:
        ran = subprocess.run(
            [executable, "--version"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except OSError as error:
        raise CLIError(f"the Claude CLI at {executable} does not run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise CLIError(
            f"the Claude CLI at {executable} did not tell its version in {PATIENCE:.0f} seconds"
        ) from None
    said, complaint = ran.stdout.strip(), ran.stderr.strip()
    if not said and complaint:  # of env, where Node.js is not on the PATH
        why = complaint.splitlines()[0][:200]
        raise CLIError(f"the Claude CLI at {executable} does not run: {why}")
    return parse_version(said, executable)


def parse_version(said: str, executable: str) -> str:
    """``2.1.330`` from ``2.1.330 (Claude Code)``, be it below what a wrapper prints.

    :raises CLIError: when that is not a version, or one below :data:`MINIMUM`.
    """
    match = re.search(r"^(\d+)\.(\d+)\.(\d+)", said, re.MULTILINE)
    if match is None:
        raise CLIError(f"{executable} is not the Claude CLI: --version printed {said[:80]!r}")
    if tuple(int(part) for part in match.groups()) < MINIMUM:
        oldest = ".".join(map(str, MINIMUM))
        raise CLIError(
            f"the Claude CLI at {executable} is {match.group()}, older than {oldest}: "
            "run `claude update`"
        )
    return match.group()


def environment(
    environ: Mapping[str, str],
    upstream: Upstream | None = None,
    *,
    plain_names: bool = False,
    scratch: str | None = None,
) -> dict[str, str]:
    """The environment of the CLI: what is allowed of the daemon's, and the switches it needs.

    ``plain_names``: tools go upstream under the client's own names; ``scratch``: a private
    directory for what it writes beside its configuration.

    A stray ``ANTHROPIC_API_KEY`` would take precedence over the subscription, and ``CLAUDE_CODE_*``
    variables of another CLI would change this one.
    """
    passed = {
        name: value
        for name, value in environ.items()
        if name in _PASSED_ON or name.startswith(_PREFIXES_PASSED_ON)
    }
    passed.update(_SWITCHES)
    if plain_names:
        passed["CLAUDE_AGENT_SDK_MCP_NO_PREFIX"] = "1"
    if upstream is not None:
        passed.pop("CLAUDE_CODE_OAUTH_TOKEN", None)
        passed["ANTHROPIC_BASE_URL"] = upstream.url
        passed["ANTHROPIC_API_KEY"] = upstream.key
        passed["CLAUDE_CONFIG_DIR"] = upstream.config_dir
    if scratch is not None:
        # It logs each tool call in the cache, errors with their text, and leaves temporary files,
        # the more so when it is killed.
        passed["XDG_CACHE_HOME"] = os.path.join(scratch, "cache")
        passed["TMPDIR"] = scratch
    return passed


def command(executable: str, directory: str, arguments: Iterable[str] = ARGUMENTS) -> list[str]:
    """The argument list that starts the CLI through :mod:`.launcher`."""
    return [sys.executable, "-I", "-S", LAUNCHER, directory, executable, *arguments]
