"""Responses: a summary as an item, which stands for what was said before.

OpenAI encrypts what its ``compaction`` item holds. Here it is the summary that the model has
written. That is the client's own, and only in base64, because nobody should mind its form.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode

from .fields import Fields

PREFIX = "claudemax-summary:"
"""What the content of our compaction items begins with."""

READ = "<summary>\n{}\n</summary>\n(What was said before, as you have summarised it.)"
"""How the model reads a summary of its own."""


def sealed(summary: str) -> str:
    """The content of an item, for ``summary``."""
    return PREFIX + b64encode(summary.encode()).decode()


def summary_of(item: Fields) -> str | None:
    """The summary in an item of type ``compaction``; ``None`` if it is not one of ours."""
    content = item.text("encrypted_content", "")
    if not content.startswith(PREFIX):
        return None
    try:
        return b64decode(content.removeprefix(PREFIX), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise item.refuse("encrypted_content", "is damaged") from None
