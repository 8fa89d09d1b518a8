"""What a :class:`~.session.Session` has done with its process, in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import frozen

from claudeproxy.messages import Event

from .models import ModelInfo


@frozen
class Write:
    """Bytes for the process's stdin."""

    data: bytes


@frozen
class Ready:
    """The process has started up; ``models`` is its list."""

    models: tuple[ModelInfo, ...]


@frozen
class Window:
    """A plan window's state, as ``rate_limit_info`` tells it."""

    info: Mapping[str, Any]


@frozen
class Doomed:
    """Kill the process now: ``why`` it must not act any further."""

    why: str


Output: TypeAlias = Write | Ready | Window | Doomed | Event
