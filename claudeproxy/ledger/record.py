"""What is known of a turn once it is over; never anything that was said in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import field, frozen

from claudeproxy.messages import Usage

LONGEST_NAME = 64
"""Characters of a client's name that are kept."""

PLAN, PAID, OTHER = "plan", "paid", "other"
"""How a turn was paid for: by the plan, as extra usage, or not to Anthropic's plan at all because
the daemon has another upstream."""


NODE_LOST = "node lost"
"""The outcome of a turn whose daemon was killed before it could tell another."""


@frozen(kw_only=True)
class TurnRecord:
    """One request that reached the engine, however it ended; with several answers (``n``), all of
    them together."""

    time: float
    """When it arrived, epoch seconds."""
    request_id: str
    key: str | None = None
    """The name of the client's key."""
    dialect: str
    """``chat``, ``responses``, ``messages``, ``completions``, ``ollama``, or ``python`` for a
    question of :mod:`claudeproxy.client` within the daemon's process."""
    client: str = ""
    """From the ``User-Agent``, see :func:`client_name`; or the name of the program."""
    model: str
    """As it was asked for."""
    answered_by: str | None = None
    """The model that upstream says has answered."""
    placement: str = ""
    """How it was served: the ``x-claudemax-process`` of its reply."""
    answers: int = 1
    usage: Usage = field(factory=Usage)
    """What upstream counted, with repairs; of an answer that ended early, its output is estimated
    at four characters a token."""
    body_bytes: int = 0
    """Of the client's request."""
    cli_bytes: int = 0
    """Written to the CLI for it."""
    reply_bytes: int = 0
    """Of the reply's body."""
    queue_ms: float = 0.0
    first_token_ms: float | None = None
    total_ms: float = 0.0
    status: int | None = None
    """Of the HTTP reply; ``None`` if there was none."""
    outcome: str = "ok"
    """``ok``, ``client left``, :data:`NODE_LOST`, or the kind of the failure."""
    code: str | None = None
    """Of the failure."""
    cause: str | None = None
    """Why it failed, where the daemon or the upstream is to blame; in words that quote nobody."""
    windows_before: Mapping[str, float] = field(factory=dict)
    windows_after: Mapping[str, float] = field(factory=dict)
    """The used share (0 to 1) of each plan window, as known when it arrived and when it was
    over. Other turns may have moved them, too."""
    paid_by: str | None = None
    """``plan``, ``paid`` or ``other``; ``None`` if it is not known, or nothing was asked."""

    list_price: float | None = 0.0
    """US dollars that its answers cost at Anthropic's list prices; ``None`` if they are not known
    for its model."""


COUNTED = ("input_tokens", "cache_write_tokens", "output_tokens")
"""The tokens that count for quotas. Those from the cache do not, as with Anthropic's own limits."""


def counted_tokens(usage: Usage) -> int:
    """The sum of the :data:`COUNTED` ones."""
    return sum(getattr(usage, name) for name in COUNTED)


def client_name(user_agent: bytes | None) -> str:
    """The first product of a ``User-Agent`` without its version: ``OpenAI/Python 1.99`` is
    ``OpenAI/Python``, ``curl/8.5`` is ``curl``. Empty if there is none."""
    product = (user_agent or b"").decode("utf-8", "replace").split(" ", 1)[0]
    name = re.sub(r"/v?\d.*", "", product)[:LONGEST_NAME]
    return "".join(c if c.isprintable() else "?" for c in name)
