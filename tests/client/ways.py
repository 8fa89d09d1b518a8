"""The ways in which a program asks."""

from __future__ import annotations

from harness import Daemon

from claudeproxy.client import Claude, in_process, over_http

WAYS = ("in process", "over HTTP")


def claude_of(daemon: Daemon, way: str) -> Claude:
    """Claude through ``daemon``."""
    return in_process(daemon.api, "bot") if way == "in process" else over_http(daemon.url)
