"""Reads what ``--record`` has written; :mod:`claudeproxy.web.recorder` has the format."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from claudeproxy.web.recorder import FORMAT, LEFT_OUT

Headers = Sequence[tuple[str, str]]
"""Names and values, as Latin-1."""


@frozen
class Reply:
    """``body``: as much of it as was sent."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header; empty if there is none."""
        return next((value for known, value in self.headers if known.lower() == name), "")


@frozen
class Recording:
    """One exchange. ``headers`` are without those that were left out; ``reply`` is ``None`` if none
    had begun when the recording ended."""

    method: str
    target: str
    headers: Headers
    body: bytes
    reply: Reply | None = None


def read_recording(path: Path) -> Recording:
    """The exchange in the file at ``path``. A last line that is cut off is passed over.

    :raises click.ClickException: when there is none in it.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    try:
        events = [json.loads(line) for line in lines[:-1]]
        return _recording(events)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise click.ClickException(f"{path} is no recording that --record has made") from None


def _recording(events: Sequence[Mapping[str, Any]]) -> Recording:
    request, body, *rest = events
    if (request["event"], request["format"], body["event"]) != ("request", FORMAT, "body"):
        raise ValueError("of another format")
    method, target, _ = request["line"].split(" ", 2)
    reply = None
    for event in rest[:1]:
        if event["event"] == "reply":
            sent = b"".join(_data(one) for one in rest if one["event"] == "write")
            reply = Reply(int(event["status"]), _headers(event), sent)
    return Recording(method, target, _headers(request), _data(body), reply)


def _headers(event: Mapping[str, Any]) -> Headers:
    return [(str(name), str(value)) for name, value in event["headers"] if value != LEFT_OUT]


def _data(event: Mapping[str, Any]) -> bytes:
    if "base64" in event:
        return b64decode(event["base64"], validate=True)
    text: str = event["text"]
    return text.encode()
