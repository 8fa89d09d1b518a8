"""The log for machines: a JSON object a line, with the fields of its event.

``twisted.logger``'s own JSON holds its objects and a control character before each line; this is
what log collectors take.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import IO, Any

from twisted.logger import ILogObserver, LogEvent, formatEvent
from zope.interface import implementer

_PLAIN = (str, int, float, bool, type(None))

_WORDING = frozenset({"shown", "more", "whose", "why"})
"""Fields that only help to word the line."""


def line(event: LogEvent) -> str:
    """An event as a line: ``time`` (ISO 8601, UTC), ``level``, ``from``, ``message``, and the
    event's own fields as far as they are numbers, texts or truths."""
    failure = event.get("log_failure")
    told: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], timezone.utc).isoformat(),
        "level": getattr(event.get("log_level"), "name", "info"),
        "from": event.get("log_namespace", "-"),
        "message": formatEvent(event),
        **_fields(event),
    }
    if failure is not None:
        told["traceback"] = failure.getTraceback()
    return json.dumps(told, ensure_ascii=False) + "\n"


def _fields(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in event.items()
        if isinstance(value, _PLAIN)
        and not name.startswith(("log_", "_"))
        and name not in _WORDING
        and name not in ("time", "message", "isError", "system", "format")
    }


@implementer(ILogObserver)
class JSONLines:
    """Writes each event to ``file``."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __call__(self, event: LogEvent) -> None:
        self._file.write(line(event))
        self._file.flush()
