"""The JSON body of a request."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from claudeproxy.messages import FailureError, strict_json

MAX_DEPTH = 100
"""Levels of a JSON body."""


def read_json(request: Request) -> Any:
    """The body's value.

    :raises FailureError: 400 for what is no JSON or too deep.
    """
    assert request.content is not None
    raw = request.content.read()
    try:
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
