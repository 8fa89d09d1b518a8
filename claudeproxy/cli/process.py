"""The thin shell around a :class:`~.session.Session`: pipes and signals, no decisions."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason

from claudeproxy.messages import Event, Message, ToolResult

from .login import LoginStatus, parse_account
from .models import ModelInfo
from .outputs import (
    Account,
    BillingKnown,
    ContextSizes,
    Limits,
    Notice,
    Output,
    Ready,
    Rested,
    Write,
)
from .session import Session
from .setup import Setup
from .states import AT_REST, GIVES_UP, OWES, State

GRACE = 1.0
"""Seconds that a process gets to exit by itself if it does not use the login."""

GRACE_LOGIN = 40.0
"""The same if it does. A process killed while renewing the login loses the new one, and the old one
is no longer valid: the user would be logged out everywhere."""

RENEWAL_LOOK = 0.05
"""Seconds between checks on whether the login is still being renewed."""

REWIND_GRACE = 5.0
"""Seconds that a rewind, or the last line of history, may take; milliseconds are usual. A rewind
that stops a turn may have to wait until the login is renewed."""

BILLING_WAIT = 0.03
"""Seconds after an answer in which the CLI reports how it was paid for, if that has changed: the
report is the next thing it prints."""


OnBilling: TypeAlias = Callable[[Mapping[str, Any] | None], None]
"""See :attr:`CLIProcess.on_billing`."""


class Pipes(Protocol):
    """What we use of a process's transport: Twisted's own interface lacks the pauses."""

    pid: int | None

    def write(self, data: bytes) -> None:
        """Write to its stdin."""

    def closeStdin(self) -> None:
        """Close its stdin once everything written is out."""

    def pauseProducing(self) -> None:
        """Stop reading its output."""

    def resumeProducing(self) -> None:
        """Start reading again."""


class Listener(Protocol):
    """Receives the answer of a process."""

    def events(self, events: list[Event]) -> None:
        """A burst of events. The last of a turn is a ``Finished`` or a ``Failure``."""


class Owner(Protocol):
    """The owner of processes."""

    def ready(self, process: CLIProcess, models: tuple[ModelInfo, ...]) -> None:
        """``process`` has started up, with these models."""

    def account(self, process: CLIProcess, status: LoginStatus | None) -> None:
        """``process`` reported whose login it uses; ``None`` if it did not say."""

    def rested(self, process: CLIProcess) -> None:
        """``process`` is at rest again after its turn was given up, or has reported how its last
        answer was paid for."""

    def limits(self, process: CLIProcess, info: Mapping[str, Any]) -> None:
        """``process`` reported the state of the plan's windows."""

    def sizes(self, tokens: Mapping[str, int]) -> None:
        """A process reported how many tokens models read, by their full ids."""

    def process_ended(self, process: CLIProcess) -> None:
        """``process`` has ended and been reaped."""


class CLIProcess(ProcessProtocol):
    """One running ``claude``."""

    log = Logger()
    transport: Pipes  # type: ignore[assignment]  # ProcessProtocol's may be None

    def __init__(
        self,
        reactor: IReactorTime,
        session: Session,
        owner: Owner,
        grace: float = GRACE,
        renewing: Callable[[], bool] | None = None,
    ) -> None:
        """``grace``: seconds it gets to exit by itself before it is killed. ``renewing``: says
        whether any process is renewing the login; ``None`` if this one does not use it."""
        self._reactor = reactor
        self._session = session
        self._owner = owner
        self._grace = grace
        self._renewing = renewing
        self._paused = False
        self._pid: int | None = None
        self._ending = False
        self._unwanted = False
        self._outliving: Any = None
        self._to_stop = False  # once it has reported how its answer was paid for
        self._watched: tuple[State, Any] | None = None  # what it owes, and until when
        self.listener: Listener | None = None
        self.on_billing: OnBilling | None = None
        """Called with the ``rate_limit_info`` of the last answer once it is known how that was paid
        for, again if that proves wrong, and with ``None`` if it will never be known."""
        self.turns = 0
        self.sent = 0
        """Bytes written to its stdin."""
        self.killed = False
        """Whether it had to be killed."""
        self.born = reactor.seconds()
        self.started: Deferred[None] = Deferred()
        """Fires when it has started up."""
        self.ended: Deferred[None] = Deferred()
        """Fires when the process is reaped."""

    @property
    def state(self) -> State:
        """The state of its session."""
        return self._session.state

    @property
    def pid(self) -> int | None:
        """Its process id, until it is reaped."""
        return self._pid

    @property
    def request_sent(self) -> bool:
        """Whether a request for its turn may have gone upstream."""
        return self._session.request_sent

    @property
    def is_asking(self) -> bool:
        """Whether a request for its turn is upstream, as far as can be told: while the login is
        renewed there is none yet."""
        asked = self.state is State.ANSWERING and self._session.request_sent
        return asked and not (self._renewing is not None and self._renewing())

    @property
    def awaits_billing(self) -> bool:
        """Whether somebody is still waiting for it to report how its answer was paid for."""
        return self.on_billing is not None and self._session.awaits_billing

    @property
    def at_rest(self) -> bool:
        """Whether it can be given a turn."""
        return self.state in AT_REST and not self.outliving

    @property
    def outliving(self) -> bool:
        """Whether it is finishing an answer that nobody waits for."""
        return self._outliving is not None

    @property
    def lost(self) -> bool:
        """Whether its turn failed before any request for it went upstream."""
        return not self.request_sent and (self._pid is None or self._session.unsent)

    # -- turns --

    @property
    def calls(self) -> frozenset[str]:
        """The ids of the tool calls it is parked on."""
        return self._session.calls

    @property
    def setup(self) -> Setup | None:
        """What it is set up for; ``None`` while it fits any request."""
        return self._session.setup

    def ask_account(self) -> None:
        """See :meth:`.Session.ask_account`."""
        self._apply(self._session.ask_account())

    @property
    def held(self) -> int:
        """How many messages of a conversation it holds."""
        return self._session.held

    @property
    def points(self) -> tuple[int, ...]:
        """See :attr:`.Session.points`."""
        return self._session.points

    @property
    def rewinds(self) -> int:
        """How often it was rewound."""
        return self._session.rewinds

    @property
    def can_rewind(self) -> bool:
        """Whether its CLI supports rewinding."""
        return self._session.can_rewind

    def open(
        self,
        listener: Listener,
        messages: Sequence[Message],
        setup: Setup,
        flags: Mapping[str, Any],
        since: int = 0,
        on_billing: OnBilling | None = None,
    ) -> None:
        """Give it a turn; see :meth:`.Session.open`."""
        self._begin(self._session.open(messages, setup, flags, since), listener, on_billing)

    def return_tool_results(
        self,
        listener: Listener,
        results: Sequence[ToolResult],
        flags: Mapping[str, Any],
        on_billing: OnBilling | None = None,
    ) -> None:
        """Continue with the results of the tool calls it is parked on."""
        self._begin(self._session.return_tool_results(results, flags), listener, on_billing)

    def _begin(
        self, outputs: Iterable[Output], listener: Listener, on_billing: OnBilling | None
    ) -> None:
        self._apply(outputs)  # the previous turn's billing goes to that turn's owner
        self.listener, self.on_billing = listener, on_billing
        self.turns += 1

    def give_up(self) -> None:
        """Nobody waits for its turn any more; :meth:`Owner.rested` is called once it is at rest."""
        self.listener = None
        self.resume()
        self._apply(self._session.give_up())

    def outlive(self, seconds: float) -> None:
        """Let it finish an answer that nobody waits for, to learn how it is paid for, and only then
        give the turn up. ``seconds``: the most it may take."""
        self.listener = None
        self.resume()
        self._outliving = self._reactor.callLater(seconds, self._outlived)

    def _forget_outliving(self) -> None:
        timer, self._outliving = self._outliving, None
        if timer is not None and timer.active():
            timer.cancel()

    def _outlived(self) -> None:
        self._forget_outliving()
        if self._to_stop:
            self.stop()
        elif self.state in AT_REST:
            self._owner.rested(self)
        elif self.state in GIVES_UP:
            self.give_up()

    def pause(self) -> None:
        """Stop reading its stdout: nobody is taking what it prints."""
        if not self._paused and self._pid is not None:
            self._paused = True
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Start reading again."""
        if self._paused:
            self._paused = False
            if not self.ended.called:
                self.transport.resumeProducing()

    # -- its end --

    def stop(self) -> None:
        """End it: interrupt it, and close its stdin once no login is being renewed. It is killed
        only if it has not exited within its grace."""
        self.resume()  # the end of a paused process would go unnoticed
        if self._pid is None or self._ending:
            return
        if self.awaits_billing and self._outliving is None and not self._to_stop:
            self._to_stop = True
            self.outlive(GRACE)
            return
        if not self._unwanted:
            self._unwanted = True
            last = self._reactor.callLater(self._grace, self.kill)
            self.ended.addBoth(lambda _: last.cancel() if last.active() else None)
        if self._renewing is not None and self.state is State.STARTING:
            return  # it may be about to renew; by the time it is ready, it would have begun
        self._ending = True
        self._apply(self._session.end())
        self._close()

    def _close(self) -> None:
        if self._pid is None:
            return
        if self._renewing is not None and self._renewing():
            # A CLI at rest would wait only two seconds for the renewal, then exit.
            self._reactor.callLater(RENEWAL_LOOK, self._close)
        else:
            self.transport.closeStdin()

    def kill(self) -> None:
        """Kill it and its children. If it was renewing the login, the login is lost."""
        self.resume()
        if self._pid is not None:
            self.killed = True
            if self._grace == GRACE_LOGIN:
                self.log.warn(
                    "killing the Claude CLI {pid}: it did not exit within {grace:g} seconds. If it "
                    "was renewing the login, the login is lost: `claudemax doctor` tells",
                    pid=self._pid,
                    grace=self._grace,
                )
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._pid is None:
            return
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            # The launcher has not created the process group yet, or the group is empty.
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    # -- ProcessProtocol --

    def connectionMade(self) -> None:
        self._pid = self.transport.pid
        self._apply(self._session.start())

    def outReceived(self, data: bytes) -> None:
        self._apply(self._session.feed(data))

    def errReceived(self, data: bytes) -> None:
        """Dropped: it may contain parts of the conversation."""

    def outConnectionLost(self) -> None:
        """A CLI that has closed its stdout is of no further use, even if it still runs."""
        self.stop()

    def processExited(self, reason: Reason) -> None:
        """Reaped. Kill what it left behind: with the pipes held open, the end would never come."""
        group, self._pid = self._pid, None
        if group is not None:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def processEnded(self, reason: Reason) -> None:
        self.killed |= getattr(reason.value, "signal", None) is not None
        self._forget_outliving()
        self._apply(self._session.ended(_how(reason.value)))
        self._tell_billing(None)
        if self._session.skipped_lines:
            self.log.info(
                "a Claude CLI printed {n} lines that were not messages: they were skipped",
                n=self._session.skipped_lines,
            )
        self._owner.process_ended(self)
        self.ended.callback(None)

    # -- outputs --

    def _apply(self, outputs: Iterable[Output]) -> None:
        writes: list[bytes] = []
        events: list[Event] = []
        notices: list[Notice] = []
        for output in outputs:
            if isinstance(output, Write):
                writes.append(output.data)
            elif isinstance(output, Notice):
                notices.append(output)
            else:
                events.append(output)
        if writes and self._pid is not None:
            data = b"".join(writes)
            self.sent += len(data)
            self.transport.write(data)
        self._watch()
        listener = self.listener  # looked at first: a notice may begin the next turn
        for notice in notices:
            self._notice(notice)
        if events and listener is not None:
            listener.events(events)

    def _watch(self) -> None:
        """Bound the wait for what it owes now."""
        patience = self._patience()
        if self._watched is not None:
            state, timer = self._watched
            if state is self.state and patience is not None:
                return
            self._watched = None
            if timer.active():
                timer.cancel()
        if patience is not None:
            self._watched = self.state, self._reactor.callLater(patience, self._overdue)

    def _patience(self) -> float | None:
        if self.state is State.REOPENING:
            return REWIND_GRACE  # it was at rest
        if self.state in OWES:
            return max(REWIND_GRACE, self._grace)
        if self._session.awaits_billing:
            # A cut one will soon go on, and reports it first; a parked one prints nothing else.
            return {State.CUT: GRACE, State.PARKED: BILLING_WAIT}.get(self.state)
        return None

    def _overdue(self) -> None:
        self._watched = None
        self._apply(self._session.overdue())

    def _notice(self, notice: Notice) -> None:
        if isinstance(notice, Ready):
            self.started.callback(None)
            self._owner.ready(self, notice.models)
            if self._unwanted:
                self.stop()
        elif isinstance(notice, Account):
            self._owner.account(self, parse_account(notice.info))
        elif isinstance(notice, Limits):
            self._owner.limits(self, notice.info)
        elif isinstance(notice, ContextSizes):
            self._owner.sizes(notice.tokens)
        elif isinstance(notice, BillingKnown):
            self._tell_billing(notice.limits)
            if self.outliving:
                self._outlived()
            elif self.at_rest:
                self._owner.rested(self)
        elif isinstance(notice, Rested):
            self._tell_billing(None)  # if it has not reported it, it never will
            self._forget_outliving()
            self._owner.rested(self)
        else:
            self.log.debug("ending {pid}: {why}", pid=self._pid, why=notice.why)
            self.stop()

    def _tell_billing(self, limits: Mapping[str, Any] | None) -> None:
        if self.on_billing is not None:
            self.on_billing(limits)


def _how(error: BaseException | None) -> str:
    if isinstance(error, ProcessDone):
        return "exit 0"
    if isinstance(error, ProcessTerminated):
        return f"signal {error.signal}" if error.signal else f"exit {error.exitCode}"
    return str(error)
