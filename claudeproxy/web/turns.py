"""Serves what was asked: puts it to the engine, and sends the answer streamed or whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger
from twisted.web.server import Request

from claudeproxy.dialects.shapes import Exchange
from claudeproxy.engine.engine import Answers, Engine
from claudeproxy.messages import Event, Failure, FailureError

from .answers import Collected, Streamed
from .gate import Gate
from .replies import refuse, reply, request_id

Keep = Callable[[dict[str, Any]], object]
"""Gets the body of a whole answer, streamed or not, before the last of it leaves."""


class Turns:
    """The way of a request from a dialect to the engine, and back."""

    log = Logger()

    def __init__(self, reactor: Any, engine: Engine, gate: Gate) -> None:
        self._reactor = reactor
        self._engine = engine
        self._gate = gate

    async def serve(self, request: Request, exchange: Exchange, keep: Keep | None = None) -> bytes:
        """The reply's body; empty when it has been streamed."""
        asked = exchange.requests
        began = self._reactor.seconds()
        whole = Collected(sum(one.n for one in asked))
        streamed = None
        if asked[0].stream:
            streamed = Streamed(self._reactor, request, exchange.stream(), exchange.refusal)

        def sink(index: int, events: list[Event]) -> None:
            if streamed is None or keep is not None:
                whole.events(index, events)
            if streamed is not None:
                streamed.events(index, events)

        def kept(_: None) -> None:
            if keep is not None and whole.failure is None:
                keep(exchange.whole(whole.answers()))

        whole.done.addCallback(kept)
        try:
            answers = self._engine.ask_all(asked, sink)
        except FailureError as error:
            return refuse(request, error.failure, exchange.refusal)
        served = whole if streamed is None else streamed
        try:
            if streamed is not None:
                streamed.follow(answers, lambda: _about(answers, exchange.ignored))
            await served.done
        finally:
            answers.cancel()
            if streamed is not None:
                streamed.close()
            self._report(request, asked[0].model, answers.way, began, served.failure)
        if streamed is not None:
            return b""
        if whole.failure is not None:
            return refuse(request, whole.failure, exchange.refusal)
        for name, value in _about(answers, exchange.ignored).items():
            request.setHeader(name.encode(), value.encode())
        return reply(request, exchange.whole(whole.answers()))

    def _report(
        self, request: Request, model: str, way: str, began: float, failure: Failure | None
    ) -> None:
        key = self._gate.key_name(request.requestHeaders)
        self.log.info(
            "{request_id} {model} {way} {outcome} {seconds:.2f}s{key}",
            key=f" {key}" if key else "",
            request_id=request_id(request),
            model=model,
            way=way or "-",
            outcome=f"{failure.status} {failure.kind.value}" if failure else "ok",
            seconds=self._reactor.seconds() - began,
        )


def _about(answers: Answers, ignored: tuple[str, ...]) -> dict[str, str]:
    """What the reply's headers tell of how it was served."""
    about = {
        "x-claudemax-process": answers.way,
        "x-claudemax-queue-ms": str(round(answers.queued * 1000)),
    }
    ignored += answers.ignored
    if ignored:
        about["x-claudemax-ignored"] = ", ".join(ignored)
    return about
