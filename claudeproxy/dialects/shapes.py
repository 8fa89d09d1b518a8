"""What the web room asks of every dialect; OpenAI's error object; the server-sent event."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import evolve

from claudeproxy.messages import Assembly, Event, Failure, Finished, Kind, Request

_TYPES = {
    Kind.AUTHENTICATION: "authentication_error",
    Kind.PERMISSION: "permission_error",
    Kind.RATE_LIMIT: "rate_limit_error",
    Kind.PLAN_LIMIT: "rate_limit_error",
    Kind.OVERLOADED: "server_error",
    Kind.UPSTREAM: "server_error",
    Kind.TIMEOUT: "server_error",
    Kind.UNAVAILABLE: "server_error",
}


_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one for every delta


class Stream(Protocol):
    """The way back of a streamed answer."""

    def render(self, index: int, events: Sequence[Event]) -> bytes:
        """The bytes for a burst of events of answer ``index``."""

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""


class Exchange(Protocol):
    """A body that a dialect has read, and the ways back from it.

    A dialect is a function ``read(body, ident, now) -> Exchange``: ``ident`` is a fresh unique
    string of letters and digits for the answer's id, ``now`` epoch seconds. It raises
    ``FailureError`` with a 400 that names the field at fault.
    """

    @property
    def requests(self) -> tuple[Request, ...]:
        """What is asked; several where the body holds several prompts, alike but for these. The
        answers are counted through all of them."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields of the body that have no effect, by their names in this dialect."""

    def stream(self) -> Stream:
        """A renderer for a streamed answer."""

    def whole(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure before anything of the answer was sent."""


def named(failure: Failure, names: Mapping[str, str]) -> Failure:
    """``failure`` with its ``param``, a field of :class:`Request`, in the words of a dialect."""
    if failure.param is None:
        return failure
    return evolve(failure, param=names.get(failure.param, failure.param))


def error(failure: Failure) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``, all four keys."""
    return {
        "error": {
            "message": failure.message,
            "type": _TYPES.get(failure.kind, "invalid_request_error"),
            "param": failure.param,
            "code": failure.code,
        }
    }


def sse(value: Mapping[str, Any], event: str | None = None) -> bytes:
    """One server-sent event, with an ``event:`` line where the dialect has them."""
    data = b"data: " + _json(value).encode() + b"\n\n"
    return data if event is None else f"event: {event}\n".encode() + data
