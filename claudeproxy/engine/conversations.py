"""Processes that hold a conversation, by the digest of what they hold.

All of it is a cache: a lost process costs time and some cached tokens, never an answer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from attrs import evolve, frozen

from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.session import State
from claudeproxy.cli.tools import verbatim
from claudeproxy.messages import Message, Request, ToolResult, plain_id

from .digest import conversation_key

MAX_TURNS = 200
"""Turns after which a process is not kept any longer."""


@frozen
class Kept:
    """A process that holds all of a request but its last message.

    ``results``: the answers to the calls it is parked on, under the ids it knows; empty when the
    last message simply goes on.
    """

    process: CLIProcess
    results: tuple[ToolResult, ...] = ()


@frozen
class _Held:
    process: CLIProcess
    expiry: Any
    fixed: tuple[Any, ...]
    """What cannot be changed while parked: the CLI would apply it one turn late."""


class Conversations:
    """At most ``keep`` processes, the least recently used going first.

    One parked on tool calls waits ``park`` seconds for its results, any other ``keep_seconds``
    for the next message.
    """

    def __init__(self, reactor: Any, *, keep: int, keep_seconds: float, park: float) -> None:
        self._reactor = reactor
        self._keep = keep
        self._keep_seconds = keep_seconds
        self._park = park
        self._held: OrderedDict[bytes, _Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def keep(
        self, request: Request, model: str, messages: tuple[Message, ...], process: CLIProcess
    ) -> None:
        """Keep ``process``, which holds ``messages`` under ``request``'s system and tools."""
        key = conversation_key(request, model, messages)
        self._end(key)
        if self._keep == 0 or process.turns >= MAX_TURNS:
            process.stop()
            return
        seconds = self._park if process.state is State.PARKED else self._keep_seconds
        expiry = self._reactor.callLater(seconds, self._end, key)
        self._held[key] = _Held(process, expiry, _fixed(request))
        while len(self._held) > self._keep:
            self._end(next(iter(self._held)))

    def resume(self, request: Request, model: str) -> Kept | None:
        """The process that ``request`` extends, no longer kept: it is the caller's.

        Only results that a parked call delivers word for word, all of them and nothing else, go
        to a parked process; for anything more it is ended and the conversation replayed.
        """
        *before, last = request.messages
        if not before:
            return None
        held = self._take(conversation_key(request, model, before))
        if held is None:
            return None
        process = held.process
        results = tuple(block for block in last.content if isinstance(block, ToolResult))
        if process.state in (State.SETTLING, State.IDLE) and not results:
            return Kept(process)
        calls = {plain_id(call): call for call in process.calls}
        answered = {plain_id(result.tool_use_id) for result in results}
        complete = calls and len(results) == len(last.content) and answered == calls.keys()
        unchanged = held.fixed == _fixed(request)
        if complete and unchanged and all(verbatim(result) for result in results):
            known = (evolve(r, tool_use_id=calls[plain_id(r.tool_use_id)]) for r in results)
            return Kept(process, tuple(known))
        process.stop()
        return None

    def _take(self, key: bytes) -> _Held | None:
        held = self._held.pop(key, None)
        if held is None:
            return None
        if held.expiry.active():  # not when it is what takes the process away
            held.expiry.cancel()
        return held

    def gone(self, process: CLIProcess) -> None:
        """``process`` has ended."""
        for key, held in list(self._held.items()):
            if held.process is process:
                del self._held[key]
                held.expiry.cancel()

    def shed(self) -> bool:
        """End the least recently used process; false when there is none."""
        for key in self._held:
            self._end(key)
            return True
        return False

    def close(self) -> None:
        """End them all."""
        for key in list(self._held):
            self._end(key)

    def _end(self, key: bytes) -> None:
        held = self._take(key)
        if held is not None:
            held.process.stop()


def _fixed(request: Request) -> tuple[Any, ...]:
    return request.max_tokens, request.effort
