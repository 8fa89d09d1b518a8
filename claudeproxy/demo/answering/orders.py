"""Orders: tags in the last user message that tell the stand-in how to answer.

========================== =====================================================================
`[[say TEXT]]`             a text block
`[[raw TEXT]]`             exactly this one text delta, in the text block before it if there is one
`[[repeat N WORD]]`        a text block of N words
`[[think TEXT]]`           a thinking block, if the request enables thinking
`[[call NAME {json}]]`     a tool call; the arguments are sent as written, so they may be broken;
                           `mcp__server__NAME` need not be written out
`[[stop REASON]]`          this stop reason, whatever it is
`[[usage key=N …]]`        these fields of the usage; `key.of=N` for one of an object
`[[chunk N]]`              N characters a delta, else a word
`[[wait SECONDS]]`         silence before the response headers
`[[pause SECONDS]]`        silence between each two deltas
`[[header name: value]]`   a response header
`[[error STATUS text]]`    this HTTP error in place of an answer; the text is optional
`[[limit TYPE EPOCH]]`     the 429 of a plan limit, as `five_hour`, `seven_day`, … and its reset
`[[error-mid STATUS text]]` an `error` event after the blocks so far (else after the echo)
`[[drop]]`                 the connection closed after the blocks so far (else after message_start)
`[[hang]]`                 silence from there on, until the client goes
========================== =====================================================================

Blocks come in the order written; what is ordered behind an `error-mid`, `drop` or `hang` never
comes, and the block before it stays open. A tag ends at the first `]]`, so the JSON of a
`[[call]]` must not contain `]]` (write `] ]`). What is in no tag is echoed if no text is ordered.
The CLI loses what arrives together with a `drop`: a `pause` lets what came before it through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import Factory, evolve, frozen

from claudeproxy.demo.steps import ApiError, Drop, Hang

WINDOWS: Mapping[str, str] = {"five_hour": "5h", "seven_day": "7d"}
"""A plan window as the CLI names it, to its name in the rate limit headers."""


@frozen
class Text:
    """A text block; `raw` is one delta with exactly this text, added to an open text block."""

    text: str
    raw: bool = False


@frozen
class Thinking:
    """A thinking block."""

    text: str


@frozen
class Call:
    """A tool call; `arguments` is sent as written, so it may be broken JSON on purpose."""

    name: str
    arguments: str


Block = Text | Thinking | Call


@frozen
class Orders:
    """What the tags of one message ask for.

    `ending` comes in place of the regular end, after the blocks that were written before it;
    `wait` and `pause` are seconds, `chunk` characters per delta (None: a word), `usage` overrides
    fields of the usage, `rest` is the message without its tags.
    """

    blocks: tuple[Block, ...] = ()
    stop: str | None = None
    error: ApiError | None = None
    ending: ApiError | Drop | Hang | None = None
    wait: float = 0.0
    pause: float = 0.0
    chunk: int | None = None
    usage: Mapping[str, Any] = Factory(dict)
    headers: tuple[tuple[str, str], ...] = ()
    rest: str = ""


def limit(window: str, resets: int) -> ApiError:
    """The 429 of a reached plan limit (`five_hour`, `seven_day`, …), resetting at an epoch second.

    Measured with CLI 2.1.330 on an OAuth token (`CLAUDE_CODE_OAUTH_TOKEN=any`): `-reset` and
    `-representative-claim` are what makes it print a `rate_limit_event` with status `rejected`,
    type and reset, at once and without a retry; the window's own headers fill its
    `unifiedWindows`. On an API key it prints no such event, whatever the headers.
    """
    short = WINDOWS.get(window, window)
    unified = "anthropic-ratelimit-unified"
    headers = (
        (f"{unified}-status", "rejected"),
        (f"{unified}-reset", str(resets)),
        (f"{unified}-representative-claim", window),
        (f"{unified}-{short}-status", "rejected"),
        (f"{unified}-{short}-reset", str(resets)),
        (f"{unified}-{short}-utilization", "1.0"),
    )
    return ApiError(429, "This request would exceed your account's rate limit.", headers)


_TAG = re.compile(
    r"\[\[(say|raw|think|call|stop|error-mid|error|drop|hang|wait|pause|repeat|chunk|usage|header"
    r"|limit)(?: (.*?))?\]\]",
    re.DOTALL,
)


def parse(text: str) -> Orders:
    """Read the tags of a text. Raises ValueError, naming the tag, when its arguments are bad."""
    orders = Orders(rest=_TAG.sub("", text).strip())
    for tag in _TAG.finditer(text):
        try:
            orders = _obey(orders, tag[1], tag[2] or "")
        except ValueError as error:
            raise ValueError(f"demo: bad order {tag[0]}: {error}") from error
    return orders


def _obey(orders: Orders, name: str, rest: str) -> Orders:
    if name in ("say", "raw", "think", "call", "repeat"):
        if orders.ending is not None:
            return orders
        return evolve(orders, blocks=(*orders.blocks, _block(name, rest)))
    if name == "error":
        return evolve(orders, error=_error(rest))
    if name == "limit":
        window, resets = rest.split()
        return evolve(orders, error=limit(window, int(resets)))
    if name in ("error-mid", "drop", "hang"):
        if name == "error-mid":
            return evolve(orders, ending=_error(rest))
        return evolve(orders, ending=Drop() if name == "drop" else Hang())
    if name == "header":
        key, _, value = rest.partition(":")
        return evolve(orders, headers=(*orders.headers, (key.strip().lower(), value.strip())))
    if name == "usage":
        return evolve(orders, usage={**orders.usage, **_usage(rest)})
    if name == "chunk":
        return evolve(orders, chunk=max(1, int(rest)))
    if name == "wait":
        return evolve(orders, wait=float(rest))
    if name == "pause":
        return evolve(orders, pause=float(rest))
    return evolve(orders, stop=rest)


def _block(name: str, rest: str) -> Block:
    if name == "think":
        return Thinking(rest)
    if name == "call":
        tool, _, arguments = rest.partition(" ")
        return Call(tool, arguments.strip() or "{}")
    if name == "repeat":
        count, _, word = rest.partition(" ")
        return Text(" ".join([word] * int(count)))
    return Text(rest, raw=name == "raw")


def _usage(rest: str) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for pair in rest.split():
        name, value = pair.split("=")
        *path, last = name.split(".")
        fields = found
        for part in path:
            fields = fields.setdefault(part, {})
        fields[last] = int(value)
    return found


def _error(rest: str) -> ApiError:
    status, _, message = rest.partition(" ")
    return ApiError(int(status), message or "Ordered by the prompt")


def last_user(body: Mapping[str, Any]) -> tuple[str, str | None]:
    """The text of the last user message, and the text of its last tool result if it has one.

    Blocks that the CLI adds by itself (`<system-reminder>`) are left out.
    """
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            blocks = _blocks(message["content"])
            said = list(_texts(blocks))
            results = [block for block in blocks if block["type"] == "tool_result"]
            last = "\n".join(_texts(_blocks(results[-1].get("content", "")))) if results else None
            return "\n".join(said), last
    return "", None


def _blocks(content: Any) -> list[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _texts(blocks: list[Mapping[str, Any]]) -> Iterator[str]:
    texts = (block["text"] for block in blocks if block["type"] == "text")
    return (text for text in texts if not text.startswith("<system-reminder>"))
