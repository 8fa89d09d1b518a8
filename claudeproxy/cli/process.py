"""The thin shell around a :class:`~.session.Session`: pipes, signals, and nothing decided."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason

from claudeproxy.messages import Event, Message, Request, ToolResult

from .models import ModelInfo
from .outputs import Doomed, Output, Ready, Window, Write
from .session import Session, State
from .setup import Setup

GRACE = 1.0
"""Seconds between TERM and KILL."""


class Listener(Protocol):
    """Whoever waits for the answer of a process."""

    def events(self, events: list[Event]) -> None:
        """A burst of events; ``Finished`` or a ``Failure`` is the last of a turn."""


class Owner(Protocol):
    """Whoever the process belongs to."""

    def ready(self, process: CLIProcess, models: tuple[ModelInfo, ...]) -> None:
        """It has started up."""

    def window(self, info: Mapping[str, Any]) -> None:
        """It told the state of a plan window."""

    def gone(self, process: CLIProcess) -> None:
        """It has ended and is reaped."""


class CLIProcess(ProcessProtocol):
    """One running ``claude``."""

    log = Logger()
    transport: Any

    def __init__(self, reactor: Any, session: Session, owner: Owner) -> None:
        self._reactor = reactor
        self._session = session
        self._owner = owner
        self._paused = False
        self._pid: int | None = None
        self.listener: Listener | None = None
        self.turns = 0
        self.born = reactor.seconds()
        self.ended: Deferred[None] = Deferred()
        """Fires when the process is reaped."""

    @property
    def state(self) -> State:
        """Where its session is."""
        return self._session.state

    @property
    def reaped(self) -> bool:
        """Whether it has ended; :attr:`ended` fires once its pipes are closed, too."""
        return self._pid is None

    @property
    def unasked(self) -> bool:
        """Whether the message it was given last has not reached it."""
        return self._session.unasked

    # -- turns --

    @property
    def calls(self) -> frozenset[str]:
        """The ids of the calls it is parked on."""
        return self._session.calls

    @property
    def setup(self) -> Setup | None:
        """What it is set up with; ``None`` while it fits any request."""
        return self._session.setup

    def prime(self, setup: Setup, flags: Mapping[str, Any]) -> None:
        """Prepare it for conversations that need ``setup``, and for no others."""
        self._apply(self._session.prime(setup, flags))

    def open(
        self, listener: Listener, request: Request, setup: Setup, flags: Mapping[str, Any]
    ) -> None:
        """A whole conversation, on a process that has none yet."""
        self._begin(listener)
        self._apply(self._session.open(request, setup, flags))

    def extend(self, listener: Listener, message: Message, flags: Mapping[str, Any]) -> None:
        """The next message of the conversation it holds."""
        self._begin(listener)
        self._apply(self._session.extend(message, flags))

    def answer(
        self, listener: Listener, results: Sequence[ToolResult], flags: Mapping[str, Any]
    ) -> None:
        """The results of the calls it is parked on."""
        self._begin(listener)
        self._apply(self._session.answer(results, flags))

    def _begin(self, listener: Listener) -> None:
        self.listener = listener
        self.turns += 1

    def pause(self) -> None:
        """Stop reading its stdout: the listener's own reader is full."""
        if not self._paused and self._pid is not None:
            self._paused = True
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            if not self.ended.called:
                self.transport.resumeProducing()

    # -- its end --

    def kill(self) -> None:
        """End it and its children now, before it can do anything more."""
        self.resume()  # a paused process withholds its own end
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it: the pipe's close where it is at rest, TERM elsewhere, KILL if that is not enough.

        One parked on calls is killed: it would take a closed pipe for an answer and send that.
        """
        self.resume()
        if self._pid is None:
            return
        if self.state is State.PARKED:
            self.kill()
            return
        if self.state in (State.WARM, State.IDLE):
            self.transport.closeStdin()
        else:
            self._signal(signal.SIGTERM)
        last = self._reactor.callLater(GRACE, self.kill)
        self.ended.addBoth(lambda _: last.cancel() if last.active() else None)

    def _signal(self, number: int) -> None:
        if self._pid is None:
            return
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            # The launcher has not made its group yet, or all of it is gone.
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    # -- ProcessProtocol --

    def connectionMade(self) -> None:
        self._pid = self.transport.pid
        self._apply(self._session.start())

    def outReceived(self, data: bytes) -> None:
        self._apply(self._session.feed(data))

    def errReceived(self, data: bytes) -> None:
        """Dropped: it may hold what was said."""

    def outConnectionLost(self) -> None:
        """A CLI that closed its stdout says nothing any more, whether it lives or not."""
        self._signal(signal.SIGKILL)

    def processExited(self, reason: Reason) -> None:
        """Reaped. What it left behind goes, too: it may hold the pipes, and that is no end yet."""
        group, self._pid = self._pid, None
        if group is not None:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def processEnded(self, reason: Reason) -> None:
        self._apply(self._session.ended(_how(reason.value)))
        self._owner.gone(self)
        self.ended.callback(None)

    # -- outputs --

    def _apply(self, outputs: Iterable[Output]) -> None:
        writes: list[bytes] = []
        events: list[Event] = []
        notices: list[Ready | Window] = []
        for output in outputs:
            if isinstance(output, Write):
                writes.append(output.data)
            elif isinstance(output, Doomed):
                self.log.debug("killing {pid}: {why}", pid=self._pid, why=output.why)
                self.kill()
            elif isinstance(output, (Ready, Window)):
                notices.append(output)
            else:
                events.append(output)
        if writes and self._pid is not None:
            self.transport.write(b"".join(writes))
        for notice in notices:
            if isinstance(notice, Ready):
                self._owner.ready(self, notice.models)
            else:
                self._owner.window(notice.info)
        if events and self.listener is not None:
            self.listener.events(events)


def _how(error: BaseException | None) -> str:
    if isinstance(error, ProcessDone):
        return "exit 0"
    if isinstance(error, ProcessTerminated):
        return f"signal {error.signal}" if error.signal else f"exit {error.exitCode}"
    return str(error)
