"""Serves a parsed request: passes it to the engine, and sends the answer streamed or complete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from claudeproxy.dialects.shapes import ParsedBody
from claudeproxy.engine.context import RequestSink
from claudeproxy.engine.engine import Engine, TurnGroup
from claudeproxy.ledger.record import TurnRecord, client_name
from claudeproxy.messages import Event, Failure, FailureError, Finished, Kind
from claudeproxy.messages import Request as TurnRequest

from . import access_log, affinity
from .access_log import Facts, facts
from .gate import Gate
from .journal import Journal
from .json_replies import Collected, refuse, reply, request_id
from .key_rules import check_model
from .quotas import Quotas, headers
from .refused import Refused
from .sse import Streamed

Keep = Callable[[dict[str, Any]], Awaitable[tuple[str, ...]]]
"""Keeps the body of a complete answer, streamed or not, before the last of it is sent. Tells which
fields of the request have turned out to be without effect."""


@define
class Asker:
    """Who asks: what a turn needs of its request, and what may outlive that.

    ``ident``: the id of the request; ``headers``: its own; ``told``: what is learnt about the turn;
    ``left``: headers for the reply, which tell what quotas leave, once the turn was asked for.
    """

    ident: str
    headers: Headers
    told: Facts
    left: Mapping[str, str] = field(factory=dict)


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
        refused: Refused,
    ) -> None:
        self._reactor = reactor
        self._refused = refused
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
        told.traceparent = request.getHeader("traceparent")
        ignored = (*parsed.ignored, *affinity.name(request))
        n = sum(one.n for one in asked)
        collected, unended = Collected(n), set(range(n))
        held: list[tuple[int, list[Event]]] = []
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
            if isinstance(events[-1], Failure):
                _set(request, self._windows())
            told.heard(events, self._reactor.seconds())
            if streamed is not None:
                *most, end = events
                if keep is None or unended or isinstance(end, Failure):
                    most = events
                else:
                    held.append((index, [end]))
                streamed.events(index, most)
            if streamed is None or keep is not None:
                collected.events(index, events)

        asker = Asker(request_id(request), request.requestHeaders, told)
        try:
            group = await self.ask(asker, dialect, parsed, sink)
        except FailureError as error:
            return refuse(request, error.failure, parsed.refusal)
        finally:
            _set(request, asker.left)
        served = collected if streamed is None else streamed
        try:
            if streamed is not None:
                streamed.follow(group, lambda: self._about(group, ignored, told.answered_by))
            if streamed is None or keep is not None:
                await collected.done
            if keep is not None and collected.failure is None:
                ignored += await keep(parsed.complete(collected.answers()))
            if streamed is not None:
                for index, events in held:
                    streamed.events(index, events)
                await streamed.done
        finally:
            group.cancel()
            if streamed is not None:
                streamed.close()
            told.placement, told.failure = group.placement, served.failure
        if streamed is not None:
            return b""
        if collected.failure is not None:
            return refuse(request, collected.failure, parsed.refusal)
        _set(request, self._about(group, ignored, told.answered_by))
        return reply(request, parsed.complete(collected.answers()))

    async def ask(
        self, asker: Asker, dialect: str, parsed: ParsedBody, sink: RequestSink
    ) -> TurnGroup:
        """Ask the engine; the events go to ``sink``. The turn is in the journal until its request,
        or :meth:`over`, takes it out. Waits for the database where requests have to be counted, and
        only there; one that is cancelled meanwhile was no turn.

        :raises FailureError: when it is refused.
        """
        asked, told = parsed.requests, asker.told
        model, n = asked[0].model, sum(one.n for one in asked)
        try:
            group = told.group = await self._ask(asker, dialect, asked, sink)
        except FailureError as error:
            if error.failure.status not in (400, 401, 404):  # those are no turns, but mistakes
                self._journal.began(self._record(asker, dialect, model, n), told)
            raise
        told.model = model
        self._journal.began(self._record(asker, dialect, model, n), told)
        return group

    @property
    def max_body(self) -> int:
        """Bytes."""
        return self._gate.max_body

    def admitted(self, request: Request) -> str | None:
        """The name of the key of ``request``, which may be of an hour ago.

        :raises FailureError: when it would not be let in now.
        """
        unix = isinstance(request.getHost(), UNIXAddress)
        failure = self._gate.refusal(request.requestHeaders, unix=unix)
        if failure is not None:
            raise FailureError(failure)
        return self._gate.key_name(request.requestHeaders)

    def over(
        self,
        asker: Asker,
        method: bytes,
        path: bytes,
        status: int,
        sent: int,
        *,
        left: bool = False,
        refused: bool = False,
    ) -> None:
        """A turn is over that has no request of its own, or has outlived it. ``sent``: bytes;
        ``left``: its client has left before the end; ``refused``: it was answered with an
        error."""
        told = asker.told
        seconds = self._reactor.seconds() - told.began
        about = asker.ident, method, path, status, told
        access_log.write(*about, seconds, told.key, left)
        if refused:
            self._refused.note(*about, asker.headers, told.key)
        self._journal.ended(asker.ident, seconds, status, sent, left)

    async def _ask(
        self, asker: Asker, dialect: str, asked: Sequence[TurnRequest], sink: RequestSink
    ) -> TurnGroup:
        key, rules = self._gate.sender(asker.headers)
        asker.told.key = key
        if key is None:
            return self._engine.ask_all(asked, sink)
        for one in asked:  # first of all, because names that are refused here are kept
            check_model(self._engine.catalogue, key, rules, one.model)
        if not rules.counts:
            return self._engine.ask_all(asked, sink, rules.reserve)
        try:
            give_back = await self._quotas.take(key, rules)
            try:
                group = self._engine.ask_all(asked, sink, rules.reserve)
            except Exception:
                give_back()
                raise
            group.done.addCallback(lambda _: group.placement or give_back())
        finally:
            asker.left = headers(self._quotas.of(key, rules), dialect, self._engine.now())
        return group

    def _record(self, asker: Asker, dialect: str, model: str, answers: int) -> TurnRecord:
        told = asker.told
        agent = asker.headers.getRawHeaders(b"user-agent")
        return TurnRecord(
            time=self._engine.now() - (self._reactor.seconds() - told.began),
            request_id=asker.ident,
            key=told.key,
            dialect=dialect,
            client=client_name(agent[-1] if agent else None),
            model=model,
            answers=answers,
            body_bytes=told.body_bytes,
        )

    def _about(
        self, group: TurnGroup, ignored: tuple[str, ...], answered_by: str | None
    ) -> dict[str, str]:
        """The headers of the reply: how and by which model it was served, the plan's windows."""
        about = {
            "x-claudemax-process": group.placement,
            "x-claudemax-queue-ms": str(round(group.queued * 1000)),
            **({"x-claudemax-model": answered_by} if answered_by else {}),
            **self._windows(),
        }
        ignored += group.ignored
        if ignored:
            about["x-claudemax-ignored"] = ", ".join(ignored)
        return about

    def _windows(self) -> dict[str, str]:
        """The headers that tell of the plan's windows."""
        quota = self._engine.quota
        return quota.windows.headers(self._engine.now()) if quota.applies else {}


def _set(request: Request, headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        request.setHeader(name.encode(), value.encode())
