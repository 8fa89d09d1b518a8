"""All that the page shows, as it is at one moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from claudeproxy.engine.engine import Engine
from claudeproxy.engine.reports import ProcessReport
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.store.database import StoreLost
from claudeproxy.web import pages, usage
from claudeproxy.web.journal import Journal, RunningTurn
from claudeproxy.web.refused import Refused

TURNS = 15
"""The latest turns that are shown."""

FRESH = 10.0
"""Seconds for which sums are shown again while no turn has ended."""

FEW = 5
"""The latest failed turns, paid ones, and refused requests."""


@frozen(kw_only=True)
class Snapshot:
    """``health`` and ``usage``: as ``GET /health`` and ``/v1/usage`` tell them; ``slots`` and
    ``places``: turns that may run and wait; ``turns``: the latest, ``None`` without a ledger."""

    now: float
    health: Mapping[str, Any]
    usage: Mapping[str, Any]
    running: Sequence[RunningTurn]
    slots: int
    places: int
    processes: Sequence[ProcessReport]
    turns: Sequence[TurnRecord] | None
    failed: Sequence[TurnRecord] = ()
    paid: Sequence[TurnRecord] = ()
    refused: Sequence[Mapping[str, Any]] = ()


class Sources:
    """Where it all comes from."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        status: Callable[[], pages.Status],
        ledger: Ledger | None,
        keys: Callable[[], Awaitable[Sequence[dict[str, Any]]]],
        refused: Refused,
    ) -> None:
        """``ledger``: ``None`` if none is kept; ``keys``: tells of them as ``/v1/usage`` does."""
        self.engine = engine
        self.journal = journal
        self._status = status
        self._ledger = ledger
        self._keys = keys
        self._refused = refused
        self._turns = 0
        self._told: tuple[int, float, dict[str, Any]] | None = None
        journal.observers.append(self._over)

    def _over(self, _: TurnRecord) -> None:
        self._turns += 1

    async def usage(self) -> dict[str, Any]:
        """What ``GET /v1/usage`` tells. An open page asks every second while a turn runs, and it
        takes a while to add up a month: until a turn is over, the sums stay what they are."""
        turns, now = self._turns, self.engine.now()
        if self._told is not None:
            of, at, told = self._told
            if of == turns and 0 <= now - at < FRESH:
                return told
        told = await usage.usage(self.engine, self._ledger, await self._keys())
        self._told = turns, now, told
        return told

    async def look(self) -> Snapshot:
        """A look at all of it."""
        ledger = self._ledger
        health = pages.health(self.engine, self._status())
        turns = failed = paid = None
        try:
            told = await self.usage()
            if ledger is not None:
                turns = await ledger.latest(TURNS)
                failed = await ledger.latest(FEW, only="failed")
                paid = await ledger.latest(FEW, only="paid")
        except StoreLost:
            health["store"]["reachable"] = False  # of a file, /health does not know
            told = await usage.usage(self.engine, None, await self._keys())
            turns = failed = paid = None
        return Snapshot(
            now=self.engine.now(),
            health=health,
            usage=told,
            running=list(self.journal.running.values()),
            slots=self.engine.admission.concurrency,
            places=self.engine.admission.queue,
            processes=self.engine.keeper.reports(),
            turns=turns,
            refused=self._refused.latest()[:FEW],
            failed=failed or (),
            paid=paid or (),
        )
