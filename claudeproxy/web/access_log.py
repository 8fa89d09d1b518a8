"""The access log: one line for each request, without anything of the conversation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import define
from twisted.logger import Logger

from claudeproxy.engine.engine import TurnGroup
from claudeproxy.messages import (
    ArgumentsDelta,
    Event,
    Failure,
    Finished,
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
)

LONGEST_PATH = 200
"""Characters of a path that are logged."""

_log = Logger()


@define
class Facts:
    """What is learnt about a request on its way, for its line.

    ``model``: as it was asked for; ``answered_by``: the model that upstream says has answered;
    ``began`` and ``first_token``: seconds of the reactor's clock, and from there to the first
    token; ``usage``: of all its answers; ``traceparent``: the client's header of that name (W3C),
    if it sent one; ``group``: its turns, once the engine has taken them; ``key``: the name of the
    client's key, whatever becomes of it later;
    ``fields``: the names of its body's fields, once that is read;
    ``routine``: an open page asks for it again and again, so it gets no line while all is well;
    ``outlived``: its turn goes on in the background.
    """

    failure: Failure | None = None
    model: str = ""
    placement: str = ""
    began: float = 0.0
    answered_by: str | None = None
    first_token: float | None = None
    usage: Usage | None = None
    body_bytes: int = 0
    traceparent: str | None = None
    group: TurnGroup | None = None
    key: str | None = None
    fields: tuple[str, ...] | None = None
    routine: bool = False
    outlived: bool = False

    def heard(self, events: Iterable[Event], now: float) -> None:
        """A burst of events of one of its answers."""
        for event in events:
            if isinstance(event, Started):
                self.answered_by = event.model
            elif isinstance(event, Finished):
                self.usage = event.usage if self.usage is None else self.usage + event.usage
            elif self.first_token is None and isinstance(
                event, (TextDelta, ThinkingDelta, ArgumentsDelta)
            ):
                self.first_token = now - self.began


def facts(request: Any) -> Facts:
    """The facts about ``request``."""
    known: Facts | None = getattr(request, "claudemax_facts", None)
    if known is None:
        known = request.claudemax_facts = Facts()
    return known


def write(
    request_id: str,
    method: bytes,
    path: bytes,
    status: int | None,
    found: Facts,
    seconds: float,
    key: str | None,
    left: bool = False,
) -> None:
    """Write the line of one request.

    ``status``: as sent, ``None`` if nothing was sent; ``key``: the name of the client's key;
    ``left``: the client left before the end. ``/health`` and a good ``/metrics`` get no line,
    because monitors poll them all the time.
    """
    path = path.partition(b"?")[0]
    failure = found.failure
    polled = not left and path.rstrip(b"/").endswith((b"/health", b"/metrics"))
    if failure is None and status in (200, 503) and (polled or found.routine):
        return
    code = None if failure is None else failure.code
    cause = None if failure is None else cause_of(failure)
    outcome = "ok" if failure is None else failure.kind.value
    _log.info(
        "{request_id} {method} {path} {shown} {outcome}{more} {seconds:.2f}s{whose}{why}",
        request_id=request_id,
        method=method.decode("ascii", "backslashreplace"),
        path=path[:LONGEST_PATH].decode("ascii", "backslashreplace"),
        status=status,
        shown=status or "-",
        outcome="client left" if left else outcome,
        code=code,
        model=found.model,
        answered_by=found.answered_by,
        placement=found.placement,
        **_spent(found),
        more="".join(
            f" {word}"
            for word in (code, _models(found), found.placement)
            if word and word != outcome
        ),
        seconds=seconds,
        key=key,
        whose=f" {key}" if key else "",
        cause=cause,
        why=f": {cause}" if cause else "",
    )


def _models(found: Facts) -> str:
    """The model that was asked, and the one that has answered if that is another name."""
    if found.answered_by in (None, found.model):
        return found.model
    return f"{found.model}={found.answered_by}"


def cause_of(failure: Failure) -> str | None:
    """Why the daemon or the upstream failed, in words that quote nobody; ``None`` if the client is
    to blame."""
    if failure.status < 500:
        return None
    return failure.message if failure.cause is None else failure.cause


def _spent(found: Facts) -> dict[str, Any]:
    """Tokens and time to the first of them, ``None`` where there was no answer."""
    usage = found.usage
    return {
        "input_tokens": None if usage is None else usage.prompt_tokens,
        "cached_tokens": None if usage is None else usage.cache_read_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "first_token": found.first_token,
    }
