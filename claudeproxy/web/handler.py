"""Serves a parsed request: passes it to the engine, and sends the answer streamed or complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from claudeproxy.dialects.shapes import ParsedBody
from claudeproxy.engine.context import RequestSink
from claudeproxy.engine.engine import Engine, TurnGroup
from claudeproxy.ledger.record import TurnRecord, client_name
from claudeproxy.messages import Event, Failure, FailureError, Finished, Kind
from claudeproxy.messages import Request as TurnRequest

from .access_log import facts
from .gate import Gate
from .journal import Journal
from .json_replies import Collected, refuse, reply, request_id
from .key_rules import not_for
from .quotas import Quotas, headers
from .sse import Streamed

Keep = Callable[[dict[str, Any]], object]
"""Receives the body of a complete answer, streamed or not, before the last of it is sent."""


class TurnHandler:
    """Takes requests from a dialect to the engine, and answers back."""

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        engine: Engine,
        gate: Gate,
        journal: Journal,
        quotas: Quotas,
    ) -> None:
        self._reactor = reactor
        self._journal = journal
        self._quotas = quotas
        self._engine = engine
        self._gate = gate

    async def serve(
        self, request: Request, dialect: str, parsed: ParsedBody, keep: Keep | None = None
    ) -> bytes:
        """The body of the reply; empty if it was streamed."""
        asked = parsed.requests
        told = facts(request)
        n = sum(one.n for one in asked)
        collected, unended = Collected(n), set(range(n))
        streamed = None
        if asked[0].stream:
            streamed = Streamed(self._reactor, request, parsed.stream(), parsed.refusal)

        def sink(index: int, events: list[Event]) -> None:
            if index not in unended:  # a bug: without this, the client would wait forever
                self.log.error("events of an answer {index} that is not open", index=index)
                index = 0
                events = [Failure(Kind.UPSTREAM, "the daemon failed; its log says why", 500)]
            elif isinstance(events[-1], (Finished, Failure)):
                unended.remove(index)
            told.heard(events, self._reactor.seconds())
            if streamed is None or keep is not None:
                collected.events(index, events)
            if streamed is not None:
                streamed.events(index, events)

        def kept(_: None) -> None:
            if keep is not None and collected.failure is None:
                keep(parsed.complete(collected.answers()))

        collected.done.addCallback(kept)
        try:
            group = told.group = self._ask(request, dialect, asked, sink)
        except FailureError as error:
            if error.failure.status not in (400, 401, 404):  # those are no turns, but mistakes
                self._journal.began(self._record(request, dialect, asked[0].model, n), told)
            return refuse(request, error.failure, parsed.refusal)
        told.model = asked[0].model
        self._journal.began(self._record(request, dialect, told.model, n), told)
        served = collected if streamed is None else streamed
        try:
            if streamed is not None:
                streamed.follow(group, lambda: self._about(group, parsed.ignored, told.answered_by))
            await served.done
        finally:
            group.cancel()
            if streamed is not None:
                streamed.close()
            told.placement, told.failure = group.placement, served.failure
        if streamed is not None:
            return b""
        if collected.failure is not None:
            return refuse(request, collected.failure, parsed.refusal)
        for name, value in self._about(group, parsed.ignored, told.answered_by).items():
            request.setHeader(name.encode(), value.encode())
        return reply(request, parsed.complete(collected.answers()))

    def _ask(
        self, request: Request, dialect: str, asked: Sequence[TurnRequest], sink: RequestSink
    ) -> TurnGroup:
        key, rules = self._gate.sender(request.requestHeaders)
        facts(request).key = key
        if key is None:
            return self._engine.ask_all(asked, sink)
        for one in asked:
            if rules.models and not self._engine.catalogue.is_one_of(one.model, rules.models):
                raise FailureError(not_for(key, one.model))
        try:
            self._quotas.check(key, rules)
            group = self._engine.ask_all(asked, sink, rules.reserve)
            self._quotas.asked(key)
        finally:
            left = headers(self._quotas.of(key, rules), dialect, self._engine.now())
            for name, value in left.items():
                request.setHeader(name.encode(), value.encode())
        return group

    def _record(self, request: Request, dialect: str, model: str, answers: int) -> TurnRecord:
        told = facts(request)
        return TurnRecord(
            time=self._engine.now() - (self._reactor.seconds() - told.began),
            request_id=request_id(request),
            key=told.key,
            dialect=dialect,
            client=client_name(request.getHeader(b"user-agent")),
            model=model,
            answers=answers,
            body_bytes=told.body_bytes,
        )

    def _about(
        self, group: TurnGroup, ignored: tuple[str, ...], answered_by: str | None
    ) -> dict[str, str]:
        """The headers of the reply: how and by which model it was served, the plan's windows."""
        quota = self._engine.quota
        about = {
            "x-claudemax-process": group.placement,
            "x-claudemax-queue-ms": str(round(group.queued * 1000)),
            **({"x-claudemax-model": answered_by} if answered_by else {}),
            **(quota.windows.headers(self._engine.now()) if quota.applies else {}),
        }
        ignored += group.ignored
        if ignored:
            about["x-claudemax-ignored"] = ", ".join(ignored)
        return about
