"""The last requests that were refused: enough to see why, and nothing that was said in them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from attrs import asdict, frozen
from twisted.web.http_headers import Headers

from claudeproxy.ledger.record import client_name

from .access_log import LONGEST_PATH, Facts

KEPT = 50
"""How many requests are kept; the oldest gives way to a new one."""

LONGEST_MESSAGE = 300
"""Characters that are kept of a message, and of a field's path."""

MOST_FIELDS = 40
LONGEST_FIELD = 64
"""Field names of a body that are kept, and characters of each."""


@frozen(kw_only=True)
class RefusedRequest:
    """``time``: of the reply, epoch seconds; ``path``: without the query; ``kind``: of the failure;
    ``param``: the path of the field at fault; ``client``: the first word of its ``User-Agent``;
    ``key``: the name of its key.

    ``message``: ``None`` if it may quote a value: the body had been read, or a field of the query
    is at fault; ``fields``: the names of the body's fields, ``None`` if it is no JSON object or was
    not read.
    """

    time: float
    request_id: str
    method: str
    path: str
    status: int
    kind: str
    code: str | None
    param: str | None
    message: str | None
    client: str
    key: str | None
    body_bytes: int
    fields: tuple[str, ...] | None


class Refused:
    """The last :data:`KEPT` of them, in memory."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._kept: deque[RefusedRequest] = deque(maxlen=KEPT)

    def note(
        self,
        request_id: str,
        method: bytes,
        path: bytes,
        status: int | None,
        facts: Facts,
        headers: Headers,
        key: str | None,
    ) -> None:
        """A request is over; it is kept if it was answered with an error.

        ``status``: as sent, ``None`` if nothing was sent; ``headers``: of the request; ``key``: the
        name of the client's key.
        """
        failure = facts.failure
        if failure is None or status is None or status < 400:
            return
        (agent,) = headers.getRawHeaders(b"user-agent", [None])[-1:]
        quotes = facts.body_bytes > 0 or failure.param is not None
        self._kept.append(
            RefusedRequest(
                time=self._now(),
                request_id=request_id,
                method=_bounded(method.decode("latin-1"), LONGEST_FIELD),
                path=_bounded(path.partition(b"?")[0].decode("utf-8", "replace"), LONGEST_PATH),
                status=status,
                kind=failure.kind.value,
                code=failure.code,
                param=None if failure.param is None else _bounded(failure.param, LONGEST_MESSAGE),
                message=None if quotes else _bounded(failure.message, LONGEST_MESSAGE),
                client=client_name(agent),
                key=key,
                body_bytes=facts.body_bytes,
                fields=facts.fields,
            )
        )

    def latest(self) -> list[dict[str, Any]]:
        """All that are kept as JSON objects, the newest first."""
        return [asdict(one) for one in reversed(self._kept)]


def field_names(body: Any) -> tuple[str, ...] | None:
    """The names of the fields of ``body``, if it is an object. Those further down are left out:
    there names may be data, as in ``metadata``."""
    if not isinstance(body, dict):
        return None
    return tuple(_bounded(name, LONGEST_FIELD) for name in islice(body, MOST_FIELDS))


def _bounded(text: str, length: int) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text[: length + 1])
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"
