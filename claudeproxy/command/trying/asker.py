"""Sends requests to a daemon, one after the other, and stops where one was paid for."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from ..running import NotRunning, Running

PATIENCE = 150.0
"""Seconds to wait for any part of a reply: the daemon's own deadlines pass before."""

BILLING = 60.0
"""Seconds to wait for how a turn was paid for; it is told right behind the answer."""

LOOK = 0.05
"""Seconds between two looks at that."""

FINAL = (401, 402, 403, 404, 429)
"""Statuses with which any other request would be answered, too."""


class NotHeld(Exception):
    """The answer is another than the one asked for. The text is in our words and quotes nobody."""


class Refused(Exception):
    """An error in place of an answer. ``message`` may quote anybody; the rest are the API's own
    words."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__()
        self.status = status
        self.kind = error.get("type")
        self.code = error.get("code")
        self.message = str(error.get("message") or "")


class Stopped(Exception):
    """Nothing more is to be sent; the text says why, and quotes nobody."""


@frozen
class Tokens:
    """``read``: all that was sent; ``cached``: how many of those came from the cache."""

    read: int = 0
    cached: int = 0
    written: int = 0

    def plus(self, usage: Mapping[str, Any]) -> Tokens:
        """With the usage of one more reply, in any of the three forms."""
        if "prompt_tokens" in usage:
            details = usage.get("prompt_tokens_details") or {}
            read, written = usage["prompt_tokens"], usage["completion_tokens"]
            cached = details.get("cached_tokens") or 0
        else:
            details = usage.get("input_tokens_details") or {}
            cached = usage.get("cache_read_input_tokens") or details.get("cached_tokens") or 0
            read, written = usage["input_tokens"], usage["output_tokens"]
            if "cache_read_input_tokens" in usage:
                read += cached + (usage.get("cache_creation_input_tokens") or 0)
        return Tokens(self.read + read, self.cached + cached, self.written + written)


class Asker:
    """``tokens``: what was spent so far; ``sent`` and ``answered``: how many requests."""

    def __init__(self, daemon: Running, model: str) -> None:
        """:raises NotRunning: when there is no daemon."""
        self._daemon = daemon
        self._model = model
        self.before = daemon.usage()
        """What the daemon told of the plan before anything was sent; ``after``: at last."""
        self.after = self.before
        self.tokens = Tokens()
        self.sent = self.answered = 0

    @property
    def paid(self) -> int:
        """Turns that were paid as extra usage meanwhile."""
        paid: int = self.after["extra_usage"]["paid_turns"]
        return paid - int(self.before["extra_usage"]["paid_turns"])

    def whole(self, path: str, **body: Any) -> Any:
        """The body of a reply.

        :raises Refused: for an error.
        :raises Stopped: when nothing more may be sent.
        """
        return self._send(path, body)[0]

    def streamed(self, path: str, **body: Any) -> list[Any]:
        """The events of a streamed reply; raises as :meth:`whole` does, for errors within the
        stream as well."""
        return self._send(path, {**body, "stream": True})

    def look(self) -> None:
        """Ask the daemon anew what it knows of the plan.

        :raises Stopped: when a turn was paid for, or that does not become known.
        """
        until = time.monotonic() + BILLING
        try:
            self.after = self._daemon.usage()
            while self.after["extra_usage"]["undecided"] and not self.paid:
                if time.monotonic() > until:
                    raise Stopped("the daemon does not come to know how a turn was paid for")
                time.sleep(LOOK)
                self.after = self._daemon.usage()
        except NotRunning:
            raise Stopped("the daemon is gone") from None
        if self.paid:
            raise Stopped("a turn was paid as extra usage")

    def _send(self, path: str, body: Mapping[str, Any]) -> list[Any]:
        self.sent += 1
        try:
            found = self._exchange(path, json.dumps({"model": self._model, **body}))
        except (OSError, http.client.HTTPException, ValueError):
            self.look()
            raise Stopped("the daemon did not answer to its end") from None
        except Refused:
            self.look()
            raise
        self.answered += 1
        for event in reversed(found):
            usage = _usage(event)
            if usage is not None:
                self.tokens = self.tokens.plus(usage)
                break
        self.look()
        return found

    def _exchange(self, path: str, body: str) -> list[Any]:
        connection = self._daemon.connection(PATIENCE)
        headers = {**self._daemon.headers, "content-type": "application/json"}
        try:
            connection.request("POST", path, body, headers)
            reply = connection.getresponse()
            if reply.status != 200:
                raise _refusal(reply.status, json.loads(reply.read()))
            kind = reply.headers.get_content_type()
            if kind != "text/event-stream":
                return [json.loads(reply.read())]
            found = list(_events(reply))
        finally:
            connection.close()
        for event in found:
            failed = event.get("response") if event.get("type") == "response.failed" else event
            if failed.get("error"):
                raise _refusal(200, failed)
        return _joined(found)


def _refusal(status: int, body: Any) -> Refused:
    error = body.get("error") if isinstance(body, dict) else None
    return Refused(status, error if isinstance(error, dict) else {})


def _events(lines: Any) -> Iterator[Any]:
    """What stands behind ``data:``; the end mark of chat completions is left out."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name == b"data" and value.strip() != b"[DONE]":
            yield json.loads(value)


def _joined(events: list[Any]) -> list[Any]:
    """Messages tell the tokens read at the beginning, those written at the end."""
    begun = next((e["message"] for e in events if e.get("type") == "message_start"), None)
    if begun is None:
        return events
    return [
        {**event, "usage": {**begun["usage"], **event["usage"]}} if "usage" in event else event
        for event in events
    ]


def _usage(event: Any) -> Any:
    return event.get("usage") or (event.get("response") or {}).get("usage")
