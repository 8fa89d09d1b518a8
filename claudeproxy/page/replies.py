"""Replies of the page: nothing is cached, nothing comes from elsewhere."""

from __future__ import annotations

import re

from twisted.web.server import Request
from twisted.web.template import Tag, flattenString

from claudeproxy.messages import Failure, Kind
from claudeproxy.web.access_log import facts
from claudeproxy.web.json_replies import phrase

_OWN = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
POLICY = f"{_OWN}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
"""The content security policy: nothing inline, nothing from elsewhere, in no frame."""

CHART_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Of a chart, which as an image runs nothing, and has its style in itself."""

_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    # Not no-referrer, under which browsers send forms with the origin "null".
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def secure(request: Request, policy: str = POLICY, kind: str = "") -> None:
    """Set the headers that every reply of the page has, and its content type."""
    headers = {**_HEADERS, "content-security-policy": policy}
    if kind:
        headers["content-type"] = kind
    for name, value in headers.items():
        request.setHeader(name.encode(), value.encode())


async def html(request: Request, document: Tag) -> bytes:
    """A document, or a part of one."""
    secure(request, kind="text/html; charset=utf-8")
    body: bytes = await flattenString(request, document)
    return b"<!doctype html>\n" + body if document.tagName == "html" else body


def text(request: Request, status: int, words: str) -> bytes:
    """A line of text."""
    secure(request, kind="text/plain; charset=utf-8")
    request.setResponseCode(status, phrase(status))
    return f"{words}\n".encode()


def refused(request: Request, failure: Failure) -> bytes:
    """A line of text that says why; it is logged, too."""
    facts(request).failure = failure
    return text(request, failure.status, failure.message)


def not_signed_in(request: Request) -> bytes:
    """A 401."""
    return refused(request, Failure(Kind.AUTHENTICATION, "sign in first", 401))


def to_page(request: Request) -> bytes:
    """The way back to the page after a form."""
    secure(request)
    request.setResponseCode(303, phrase(303))
    request.setHeader(b"location", base(request).encode())
    return b""


def base(request: Request) -> str:
    """The path of the page, which is ``/`` unless another site has mounted it elsewhere."""
    # Two slashes at its beginning would make a host of what follows them.
    path: str = re.sub(r"/+", "/", request.path.decode("latin-1"))
    return re.sub(r"/page/[^/]*/?$|(?<!/)$", "/", path, count=1)
