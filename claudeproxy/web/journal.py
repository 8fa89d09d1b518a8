"""Knows the turns that run, and tells what each of them came to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from claudeproxy.engine.engine import Engine
from claudeproxy.ledger.prices import list_price
from claudeproxy.ledger.record import OTHER, PAID, PLAN, TurnRecord
from claudeproxy.messages import Usage

from .access_log import Facts, cause_of


@frozen
class RunningTurn:
    """``record`` as known at its beginning, and ``facts`` as they are learnt."""

    record: TurnRecord
    facts: Facts


class Journal:
    """Every turn begins and ends here, one refused for want of room or plan included."""

    log = Logger()

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.running: dict[str, RunningTurn] = {}
        """By request id, the oldest first."""
        self.watchers: list[Callable[[], object]] = []
        """Called when a turn has begun or is over."""
        self.beginnings: list[Callable[[TurnRecord], object]] = []
        """Called with every turn that begins, as far as it is known then."""
        self.observers: list[Callable[[TurnRecord], object]] = []
        """Called with every turn once all of it is known: a moment after its end, when the CLI has
        told how it was paid for."""
        self.tracers: list[Callable[[TurnRecord, str | None], object]] = []
        """The same, with the ``traceparent`` of the request (W3C), which no record keeps."""

    def began(self, record: TurnRecord, facts: Facts) -> None:
        """A turn has arrived. ``record``: what is known so far."""
        shares = self._engine.quota.windows.shares(self._engine.now())
        record = evolve(record, windows_before=shares)
        self.running[record.request_id] = RunningTurn(record, facts)
        self._tell(self.watchers)
        self._tell(self.beginnings, record)

    def ended(
        self, request_id: str, seconds: float, status: int | None, reply_bytes: int, left: bool
    ) -> None:
        """A request is over, which need not be a turn. ``seconds``: since it arrived."""
        running = self.running.pop(request_id, None)
        if running is None:
            return
        facts, failure = running.facts, running.facts.failure
        outcome = "ok" if failure is None else failure.kind.value
        first = facts.first_token
        record = evolve(
            running.record,
            answered_by=facts.answered_by,
            placement=facts.placement,
            reply_bytes=reply_bytes,
            first_token_ms=None if first is None else first * 1000,
            total_ms=seconds * 1000,
            status=status,
            outcome="client left" if left else outcome,
            code=None if failure is None else failure.code,
            cause=None if failure is None else cause_of(failure),
        )
        self._tell(self.watchers)
        ensureDeferred(self._settle(record, facts)).addErrback(
            lambda why: self.log.failure("a turn is not told", why)
        )

    async def _settle(self, record: TurnRecord, facts: Facts) -> None:
        group, quota = facts.group, self._engine.quota
        if group is not None:
            paid = await group.paid()
            asked = group.spent != Usage()
            paid_by = {True: PAID, False: PLAN, None: None}[paid]
            record = evolve(
                record,
                usage=group.spent,
                list_price=list_price(record.answered_by, *group.answers),
                cli_bytes=group.sent,
                queue_ms=group.queued * 1000,
                paid_by=OTHER if asked and not quota.applies else paid_by,
            )
        record = evolve(record, windows_after=quota.windows.shares(self._engine.now()))
        self._tell(self.observers, record)
        self._tell(self.tracers, record, facts.traceparent)

    def _tell(self, observers: list[Any], *told: Any) -> None:
        for observer in list(observers):
            try:
                observer(*told)
            except Exception:
                self.log.failure("an observer of turns failed")
