"""Requests whose bodies stay in memory and are limited in size.

``twisted.web`` by itself accepts bodies of any size, and writes the larger ones to temporary files.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.python.failure import Failure as Reason
from twisted.web.server import Request

from claudeproxy.messages import Failure, Kind

from .gate import Gate
from .json_replies import refuse

BODIES = 4
"""How many times the size of the largest body all bodies may have together that are still
arriving."""


class InMemoryRequest(Request):
    """For a site that mounts the API: ``Site(root, requestFactory=InMemoryRequest)``."""

    max_body = Gate().max_body
    """Bytes. A larger body is discarded, and then refused."""
    content: BytesIO
    _too_large = False

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()  # never a temporary file: prompts must not reach the disk

    def handleContentChunk(self, data: bytes) -> None:
        if self._too_large or self.content.tell() + len(data) > self.max_body:
            self._too_large = True
            self.content = BytesIO()
        else:
            self.content.write(data)

    def process(self) -> None:
        if self._too_large:
            self.write(refuse(self, Gate(max_body=self.max_body).too_large()))
            self.finish()
        else:
            super().process()


class LimitedRequest(InMemoryRequest):
    """Asks the gate before it reads its body, and is refused as soon as that is too large."""

    channel: Any
    _refused = False
    _arriving = 0

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        failure = self.channel.judge(self)
        if failure is not None:
            self._refuse(failure)

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        site = self.channel.site
        if self.content.tell() + len(data) > site.gate.max_body:
            self._refuse(site.gate.too_large())
        elif site.arriving + len(data) > BODIES * site.gate.max_body:
            crowd = "too many large requests are arriving; come back later"
            self._refuse(Failure(Kind.UNAVAILABLE, crowd, 503, retry_after=1.0))
        else:
            site.arriving += len(data)
            self._arriving += len(data)
            self.content.write(data)

    def process(self) -> None:
        self._arrived()
        if not self._refused:
            super().process()

    def connectionLost(self, reason: Reason) -> None:
        self._arrived()
        super().connectionLost(reason)

    def _refuse(self, failure: Failure) -> None:
        self._refused = True
        self._arrived()
        self.content = BytesIO()
        self.channel.refuse(failure)

    def _arrived(self) -> None:
        self.channel.site.arriving -= self._arriving
        self._arriving = 0
