"""What every dialect provides to ``web``; OpenAI's error object; server-sent events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import evolve

from claudeproxy.messages import Assembly, Event, Failure, Finished, Kind, Request

_TYPES = {
    Kind.AUTHENTICATION: "authentication_error",
    Kind.BILLING: "insufficient_quota",
    Kind.PERMISSION: "permission_error",
    Kind.RATE_LIMIT: "rate_limit_error",
    Kind.PLAN_LIMIT: "rate_limit_error",
    Kind.OVERLOADED: "server_error",
    Kind.UPSTREAM: "server_error",
    Kind.TIMEOUT: "server_error",
    Kind.UNAVAILABLE: "server_error",
}


_json = json.JSONEncoder(
    separators=(",", ":")
).encode  # json.dumps would create one for every delta


class Stream(Protocol):
    """Renders a streamed answer."""

    content_type: bytes

    def keep_alive(self) -> bytes:
        """What may be sent where there is nothing to say."""

    def render(self, index: int, events: Sequence[Event]) -> bytes:
        """The bytes for a burst of events of answer ``index``."""

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""


class ServerSentEvents:
    """The part of a :class:`Stream` that all streams of server-sent events share."""

    content_type = b"text/event-stream; charset=utf-8"

    def keep_alive(self) -> bytes:
        """A comment."""
        return b": keep-alive\n\n"


class ParsedBody(Protocol):
    """A body that a dialect has read, and how its answers are rendered.

    A dialect is a function ``read(body, ident, now) -> ParsedBody``: ``ident`` is a fresh unique
    string of letters and digits for the answer's id, ``now`` epoch seconds. It raises
    ``FailureError`` with a 400 that names the field at fault.
    """

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests of the body: several, which differ only in their prompts, if it holds
        several prompts. Their answers are numbered through all of them."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields of the body without effect, by their names in this dialect."""

    def stream(self) -> Stream:
        """A renderer for a streamed answer."""

    def complete(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The body of a reply that is not streamed."""

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure from before anything of the answer was sent."""


def with_client_names(failure: Failure, names: Mapping[str, str]) -> Failure:
    """``failure`` with the client's name of its ``param``, if that is a field of :class:`Request`;
    ``names``: those that differ in the dialect."""
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
