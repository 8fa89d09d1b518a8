"""Bodies of the chat route: chat completions, or a Responses body to be answered like one.

Cursor posts the latter (``input`` without ``messages``) to any OpenAI base URL.
"""

from __future__ import annotations

from typing import Any

from . import chat, responses
from .chat_answer import ChatEnvelope
from .fields import Fields
from .shared import usage_wanted


def read(value: Any, ident: str, now: int) -> chat.Chat:
    """Read a body of either kind.

    :raises FailureError: 400 with the path of the field at fault.
    """
    if not isinstance(value, dict) or "messages" in value or "input" not in value:
        return chat.read(value, ident, now)
    body = responses.read(value, ident, now)
    custom = frozenset(body.envelope.custom)
    envelope = ChatEnvelope(f"chatcmpl-{ident}", now, body.request.model, custom=custom)
    return chat.Chat(body.request, body.ignored, envelope, usage_wanted(Fields(value)))
