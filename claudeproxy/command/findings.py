"""What a check of ``claudemax doctor`` comes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

State = Literal["ok", "warning", "failed", "skipped"]


@frozen
class Finding:
    """``found``: what is so, in a line; ``remedy``: what to do, empty if nothing; ``more``: for
    machines, and for those who look closely."""

    state: State
    found: str
    remedy: str = ""
    more: Mapping[str, Any] = field(factory=dict)


def ok(found: str, **more: Any) -> Finding:
    """It is as it should be."""
    return Finding("ok", found, more=more)


def warning(found: str, remedy: str, **more: Any) -> Finding:
    """It works, and may not be what the user wants."""
    return Finding("warning", found, remedy, more)


def failed(found: str, remedy: str, **more: Any) -> Finding:
    """Turns cannot be served so."""
    return Finding("failed", found, remedy, more)


def skipped(why: str) -> Finding:
    """There is nothing to look at."""
    return Finding("skipped", why)
