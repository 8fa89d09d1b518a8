"""The login that the CLI uses, as far as the CLI reports it. The login itself is never read."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping

from attrs import frozen

from .errors import LoginAdvice

TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"
"""The variable with a token of ``claude setup-token``, which takes precedence over a stored
login."""


LOCK = ".oauth_refresh.lock"
"""The lock that the CLI holds in its configuration directory while it renews the login."""

STALE = 15.0
"""Seconds without a touch after which the lock is that of a CLI which was killed: one that renews
touches it every 5 seconds."""


@frozen
class LoginStatus:
    """``logged_in``: whether the CLI finds a login, working or not; ``account``: a digest that
    differs between accounts; ``source`` and ``plan``: the CLI's own words for where the login comes
    from and what it pays with, empty if it has none."""

    logged_in: bool
    account: str
    source: str = ""
    plan: str = ""


_WHO = ("tokenSource", "email", "organization", "subscriptionType")


def parse_account(account: object) -> LoginStatus | None:
    """The status in the ``account`` of the answer to ``initialize``; ``None`` if there is none.

    ``claude auth status`` is not used: there, 2.1.292 begins to renew a login and exits without
    waiting for the end of that, which logs the user out.
    """
    if not isinstance(account, Mapping):
        return None
    who = [account.get(name) for name in _WHO]
    digest = hashlib.sha256(json.dumps(who, default=str).encode()).hexdigest()[:16]
    source, plan = (str(account.get(name) or "") for name in ("tokenSource", "subscriptionType"))
    return LoginStatus(source != "none", digest, source, plan)


def advice(executable: str, environment: Mapping[str, str]) -> LoginAdvice:
    """What to tell a client when the login has ended."""
    command = shlex.quote(executable)
    if environment.get(TOKEN):
        return LoginAdvice(
            f"run `{command} setup-token`, put the new token into {TOKEN}, and restart this "
            "server with it",
            renewable=False,
        )
    return LoginAdvice(f"run `{command} auth login` as the user this server runs as")


def config_directory(environment: Mapping[str, str]) -> str:
    """The directory where a CLI with ``environment`` keeps its configuration."""
    home = environment.get("HOME") or os.path.expanduser("~")
    return environment.get("CLAUDE_CONFIG_DIR") or os.path.join(home, ".claude")


def trace(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """A value that changes when a login is stored on disk: the time and the file. ``None`` where
    the CLI keeps the login in a keychain."""
    try:
        found = os.stat(os.path.join(config_directory(environment), ".credentials.json"))
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def renewing(environment: Mapping[str, str], now: float) -> bool:
    """Whether any CLI is renewing the login, by the CLI's own lock; ``now``: epoch seconds."""
    try:
        since = os.stat(os.path.join(config_directory(environment), LOCK)).st_mtime
    except OSError:
        return False
    return now - since < STALE
