"""The header by which a balancer sends the turns of a conversation to the same node."""

from __future__ import annotations

import re
from uuid import uuid4

from twisted.web.server import Request

NAME = "x-claudemax-conversation"

_TOKEN = re.compile(r"[A-Za-z0-9._:~+/=@-]{1,128}")


def name(request: Request) -> tuple[str, ...]:
    """Put into the headers of the reply what the client calls its conversation, else a new name.

    Returns what is ignored of the request: the header, where it holds no such name. The turn is not
    refused for it: a balancer goes by the value all the same, and nothing else depends on it.
    """
    sent = request.requestHeaders.getRawHeaders(NAME, [])
    good = len(sent) == 1 and _TOKEN.fullmatch(sent[0]) is not None
    request.setHeader(NAME.encode(), (sent[0] if good else uuid4().hex).encode())
    return () if good or not sent else (NAME,)
