"""Whole exchanges, kept on purpose: a file each, written as it happens.

A file is a JSON object a line, in this order, with ``ms`` since the request had arrived:

- ``request``: ``format`` (1), ``time`` (epoch seconds), ``request_id``, ``line``, ``headers``
- ``body``: ``text``, or ``base64`` if it is not UTF-8
- ``reply``: ``ms``, ``status``, ``headers``
- ``write``, for each piece of the reply: ``ms``, and ``text`` or ``base64``
- ``end`` or ``client left``: ``ms``

What is missing at its end did not happen before the daemon died, or the disk was full.

It is written from the reactor's thread, a line at a time and unbuffered. That goes to the kernel's
memory, not to the disk: about 12 µs for a piece of a reply, 10 ms for each megabyte of a body. In a
thread of its own, lines would pile up in our memory where the disk is slow, and a crash would lose
the last of them, which are those that matter.
"""

from __future__ import annotations

import json
import os
import re
import time
from base64 import b64encode
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from .json_replies import request_id

FORMAT = 1

LEFT_OUT = "(left out)"
"""In place of the value of a header that may be a secret."""

_SECRET = re.compile(b"auth|api-?key|cookie|token|secret")


class Recorder:
    """Records exchanges into files of a directory, which only their owner can read."""

    def __init__(self, reactor: IReactorTime, folder: Path) -> None:
        self._reactor = reactor
        self.folder = folder

    def record(self, request: Request) -> None:
        """Record ``request``, whose body has arrived, and its reply, if it is a POST: all that says
        something is. Never fails: where nothing can be written the log says so, once, and the
        exchange goes on without."""
        if request.method != b"POST":
            return
        recording = _Recording(self._reactor, self.folder, request)
        send = request.write

        def write(data: bytes) -> None:
            recording.wrote(request, data)
            send(data)

        def end(event: str) -> None:
            del request.write  # it refers to the request, which could not be let go at once
            recording.end(event)

        # Whoever replies calls it, and so does finish().
        request.write = write  # type: ignore[method-assign]
        request.notifyFinish().addCallbacks(lambda _: end("end"), lambda _: end("client left"))


class _Recording:
    """The file of one exchange."""

    log = Logger()

    def __init__(self, reactor: IReactorTime, folder: Path, request: Request) -> None:
        self._reactor = reactor
        self._began = reactor.seconds()
        self._replied = False
        self._file: int | None = None
        ident, now = request_id(request), time.time()
        when = datetime.fromtimestamp(now, timezone.utc)
        self._path = folder / f"{when:%Y%m%dT%H%M%SZ}-{ident}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        try:
            self._file = os.open(self._path, flags, 0o600)
        except OSError as error:
            self._give_up(error)
        line = b" ".join((request.method, request.uri, request.clientproto))
        self._add(
            "request",
            format=FORMAT,
            time=now,
            request_id=ident,
            line=line.decode("latin-1"),
            headers=_told(request.requestHeaders),
        )
        assert isinstance(request.content, BytesIO)
        self._add("body", **_text(request.content.getvalue()))

    def wrote(self, request: Request, data: bytes) -> None:
        """A piece of the reply is about to be sent, after its headers if it is the first."""
        if not self._replied:
            self._replied = True
            headers = _told(request.responseHeaders)
            self._add("reply", ms=self._ms(), status=request.code, headers=headers)
        if data:
            self._add("write", ms=self._ms(), **_text(data))

    def end(self, event: str) -> None:
        """It is over."""
        self._add(event, ms=self._ms())
        self._close()

    def _ms(self) -> float:
        return round((self._reactor.seconds() - self._began) * 1000, 1)

    def _add(self, event: str, **fields: Any) -> None:
        if self._file is None:
            return
        line = json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n"
        data = memoryview(line.encode())
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.log.warn("{path} is not recorded on: {why}", path=str(self._path), why=error.strerror)
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _told(headers: Headers) -> list[tuple[str, str]]:
    told = []
    for name, values in headers.getAllRawHeaders():
        secret = _SECRET.search(name.lower())
        for value in values:
            told.append((name.decode("latin-1"), LEFT_OUT if secret else value.decode("latin-1")))
    return told


def _text(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode("ascii")}
