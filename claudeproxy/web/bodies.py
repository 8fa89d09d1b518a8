"""The JSON body of a request, whose size is checked before it is parsed."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.web.server import Request

from claudeproxy.messages import MAX_VALUES, Failure, FailureError, Kind, strict_json, too_many

from .access_log import facts
from .fairness import no_collector
from .refused import field_names

MAX_DEPTH = 100
"""Levels of a JSON body."""


def read_json(request: Request) -> Any:
    """The value of the body, which is removed from the request.

    :raises FailureError: 400 for a body that is not JSON or nested too deeply, 413 for too many
        values.
    """
    assert request.content is not None
    raw = request.content.read()
    facts(request).body_bytes = len(raw)
    request.content = BytesIO()  # it would stay in memory as long as the turn
    value = parse_json(raw)
    facts(request).fields = field_names(value)
    return value


def parse_json(raw: bytes) -> Any:
    """The value that ``raw`` spells.

    :raises FailureError: as :func:`read_json` does.
    """
    if not raw:
        raise FailureError.invalid("there is no body; a JSON object is needed")
    if too_many(raw):
        raise FailureError(
            Failure(Kind.TOO_LARGE, f"the body holds more than {MAX_VALUES:,} JSON values", 413)
        )
    try:
        with no_collector():
            value = strict_json(raw)
    except RecursionError:
        raise FailureError.invalid("the body is nested too deeply") from None
    except ValueError as error:
        raise FailureError.invalid(f"the body is not valid JSON: {error}") from None
    if _deeper_than(value, MAX_DEPTH):
        raise FailureError.invalid(f"the body is nested deeper than {MAX_DEPTH} levels")
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True
