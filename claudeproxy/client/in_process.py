"""Claude through a daemon within the same process: no HTTP, no socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from claudeproxy.dialects import anthropic
from claudeproxy.engine.engine import TurnGroup
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.messages import Event, Failure, FailureError, Finished, Kind
from claudeproxy.web.access_log import Facts

from .buffer import Buffer, Source
from .claude import Claude

if TYPE_CHECKING:  # it imports Klein, which installs a reactor
    from claudeproxy.service import Claudemax

DIALECT = "python"
"""What the ledger calls the turns of programs."""


def in_process(service: Claudemax, name: str = "") -> Claude:
    """Claude through ``service``, which has to be started, and need not be served anywhere.

    ``name``: of the program, for the ledger. No key is asked for, so no key's rules apply; the
    daemon's own do: its reserve, its queue and its deadlines.
    """
    return InProcess(service, name)


class InProcess(Claude):
    """See :func:`in_process`."""

    def __init__(self, service: Claudemax, name: str) -> None:
        self._service = service
        self._name = name

    def _begin(self, asked: Mapping[str, Any], buffer: Buffer) -> Source:
        return _Turn(self._service, asked, self._name, buffer)


class _Turn:
    """One question put to the engine, and its record in the ledger."""

    log = Logger()

    def __init__(
        self, service: Claudemax, asked: Mapping[str, Any], name: str, buffer: Buffer
    ) -> None:
        self._service = service
        self._buffer = buffer
        self._group: TurnGroup | None = None
        self._burst: list[Event] = []
        self._delivery: IDelayedCall | None = None
        self._over: Deferred[None] = Deferred()
        self._told = Facts(began=service.engine.now())
        self._running = ensureDeferred(self._run(asked, name))
        self._running.addErrback(self._broke)

    # -- Source --

    def pause(self) -> None:
        if self._group is not None:
            self._group.pause()

    def resume(self) -> None:
        if self._group is not None:
            self._group.resume()

    def stop(self) -> None:
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None
        self._running.cancel()

    # --

    async def _run(self, asked: Mapping[str, Any], name: str) -> None:
        engine, journal, told = self._service.engine, self._service.journal, self._told
        ident = uuid4().hex
        request_id = f"req_{ident}"
        left = False
        try:
            if not self._service.running:
                why = "the Claudemax service is not running: start it with its parent service"
                raise FailureError(Failure(Kind.UNAVAILABLE, why, 503))
            (request,) = anthropic.read(dict(asked), ident, 0).requests
            record = TurnRecord(
                time=told.began,
                request_id=request_id,
                dialect=DIALECT,
                client=name,
                model=request.model,
            )
            try:
                self._group = told.group = engine.ask(request, self._heard)
            except FailureError as error:
                if error.failure.status not in (400, 404):  # those are mistakes, not turns
                    told.failure = error.failure
                    journal.began(record, told)
                raise
            journal.began(record, told)
            await self._over
        except FailureError as error:
            self._deliver([error.failure])
        except CancelledError:
            left = True
        finally:
            if self._group is not None:
                self._group.cancel()
                told.placement = self._group.placement
            journal.ended(request_id, engine.now() - told.began, None, 0, left)

    def _heard(self, index: int, events: list[Event]) -> None:
        self._told.heard(events, self._service.engine.now())
        self._deliver(events)
        if isinstance(events[-1], (Finished, Failure)):
            self._told.failure = events[-1] if isinstance(events[-1], Failure) else None
            self._over.callback(None)

    def _deliver(self, events: list[Event]) -> None:
        """Let the program have ``events``, but not from within the engine: what the program does
        next may change the engine."""
        self._burst += events
        if self._delivery is None:
            self._delivery = self._service.reactor.callLater(0, self._delivered)

    def _delivered(self) -> None:
        self._delivery = None
        burst, self._burst = self._burst, []
        self._buffer.events(burst)

    def _broke(self, why: Any) -> None:
        self.log.failure("a turn broke", why)
        self._deliver([Failure(Kind.UPSTREAM, "the daemon failed; its log says why", 500)])
