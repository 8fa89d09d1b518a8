"""The CLI as installed on this machine: starts its processes, and notices when it changes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from glob import escape, glob
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure as Reason

from claudeproxy._reactor import IProcessReactor

from . import launch
from .login import LoginStatus, advice, config_directory, renewing, trace
from .models import ModelInfo
from .process import GRACE, GRACE_LOGIN, CLIProcess, Owner, Pipes
from .session import Session

ANSWER = 60.0
"""Seconds the CLI may take to report its version or whose login it uses."""

REAPER = str(Path(__file__).with_name("reaper.py"))


class Installation:
    """One executable. The CLI updates itself in place, and may disappear and come back."""

    def __init__(
        self, reactor: IProcessReactor, executable: str, version: str, directory: str
    ) -> None:
        """``version``: of the executable; ``directory``: the working directory of its processes."""
        self._reactor = reactor
        self.executable = executable
        self.version = version
        self._directory = directory
        self._seen = self._signature()
        self._fault: launch.CLIError | None = None
        self._reaper: _Reaper | None = None
        self._closing = False
        self._questions: set[_Question | _Asking] = set()
        self._trace: tuple[int, int] | None = None
        self._pids: set[int] = set()
        self.environment: Mapping[str, str] = {}
        """The environment of its processes."""
        self.holds_login = False
        """Whether its processes use, and renew, the login of the user."""

    @property
    def usable(self) -> bool:
        """Whether it can be used: it was not replaced by one that is too old, or is no CLI."""
        return self._fault is None

    @property
    def grace(self) -> float:
        """Seconds its processes get to exit by themselves."""
        return GRACE_LOGIN if self.holds_login else GRACE

    def open(self) -> None:
        """Get ready to start processes."""
        self._closing = False
        command = [sys.executable, "-I", "-S", REAPER, str(self.grace)]
        self._reaper = _Reaper()
        self._reactor.spawnProcess(self._reaper, command[0], command, {})
        self._trace = trace(self.environment)

    async def close(self) -> None:
        """Wait for what it was asked besides turns. To be called once its processes have ended."""
        self._closing = True
        await DeferredList([question.ended for question in self._questions])
        if self._reaper is not None:
            reaper, self._reaper = self._reaper, None
            reaper.transport.closeStdin()
            await reaper.ended

    def spawn(self, owner: Owner) -> CLIProcess:
        """Start a process.

        :raises CLIError: when the executable has disappeared, or can no longer be used.
        :raises OSError: when the system refuses a process.
        """
        if self._fault is not None:
            raise self._fault
        if self._closing:
            raise launch.CLIError("the daemon is stopping")
        if not os.access(self.executable, os.X_OK):
            raise launch.CLIError(f"it is gone from {self.executable}")
        session = Session(time.time, advice(self.executable, self.environment))
        look = self.renews if self.holds_login else None
        process = CLIProcess(self._reactor, session, owner, self.grace, look)
        pid = self._launch(process, *launch.ARGUMENTS)
        self._pids.add(pid)
        process.started.addCallback(lambda _: self._unlist(pid))
        process.ended.addCallback(lambda _: self._ended(pid, process.killed))
        return process

    async def login(self) -> LoginStatus | None:
        """Ask a process of its own whose login the CLI finds now; no quota is spent. ``None`` if it
        does not say.

        :raises CLIError, OSError: as :meth:`spawn` does.
        """
        asking = _Asking()
        process = self.spawn(asking)
        late = self._reactor.callLater(ANSWER, process.stop)
        self._questions.add(asking)
        try:
            await asking.ended
        finally:
            self._questions.discard(asking)
            if late.active():
                late.cancel()
        return asking.status

    def login_was_stored(self) -> bool:
        """Whether the login on disk has changed since the last call: somebody logged in, or it was
        renewed."""
        before, self._trace = self._trace, trace(self.environment)
        return before != self._trace

    async def changed(self) -> bool:
        """Whether the executable has changed since the last call; if so, its version is read."""
        signature = self._signature()
        if signature == self._seen or signature is None:
            return False
        said = (await self._output("--version")).decode(errors="replace").strip()
        if not said:
            return False  # it did not answer: the next call will tell
        try:
            self.version = launch.parse_version(said, self.executable)
            self._fault = None
        except launch.CLIError as error:
            self._fault = error
        self._seen = signature
        return True

    def renews(self) -> bool:
        """Whether the login is being renewed just now, by any CLI."""
        return renewing(self.environment, time.time())

    def _launch(self, protocol: ProcessProtocol, *arguments: str) -> int:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        command = launch.command(self.executable, self._directory, arguments)
        started = self._reactor.spawnProcess(protocol, command[0], command, dict(self.environment))
        self._tell_reaper(f"+{started.pid}")
        return int(started.pid)

    def unlist(self) -> None:
        """Remove its processes from the list of sessions to which other sessions of the user can
        send text. The CLI adds a process only at its start."""
        for pid in self._pids:
            self._unlist(pid)

    def _unlist(self, pid: int) -> None:
        sessions = os.path.join(config_directory(self.environment), "sessions")
        for entry in glob(os.path.join(escape(sessions), f"{pid}.*")):
            with suppress(OSError):
                os.unlink(entry)

    def _ended(self, pid: int, killed: bool) -> None:
        self._tell_reaper(f"-{pid}")
        self._pids.discard(pid)
        if killed:  # otherwise it has cleaned up, and another process may have its number by now
            self._unlist(pid)

    def _tell_reaper(self, line: str) -> None:
        if self._reaper is not None:
            self._reaper.transport.write(f"{line}\n".encode())

    async def _output(self, *arguments: str) -> bytes:
        question = _Question(self._reactor)
        try:
            pid = self._launch(question, *arguments)
        except OSError:
            return b""
        self._questions.add(question)
        try:
            await question.ended
            return question.output
        finally:
            self._questions.discard(question)
            self._ended(pid, question.killed)

    def _signature(self) -> tuple[str, int, int, int] | None:
        path = os.path.realpath(self.executable)
        try:
            found = os.stat(path)
        except OSError:
            return None
        return path, found.st_ino, found.st_size, found.st_mtime_ns


class _Reaper(ProcessProtocol):
    transport: Pipes  # type: ignore[assignment]  # ProcessProtocol's may be None

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def processEnded(self, reason: Reason) -> None:
        self.ended.callback(None)


class _Question(ProcessProtocol):
    """A CLI that prints its answer and exits."""

    transport: Pipes  # type: ignore[assignment]  # ProcessProtocol's may be None

    def __init__(self, reactor: IReactorTime) -> None:
        self._late = reactor.callLater(ANSWER, self._kill)
        self.output = b""
        self.killed = False
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self.output += data

    def processEnded(self, reason: Reason) -> None:
        if self._late.active():
            self._late.cancel()
        self.ended.callback(None)

    def _kill(self) -> None:
        self.killed = True
        if self.transport.pid is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.transport.pid, signal.SIGKILL)


class _Asking:
    """The :class:`Owner` of a process that is only asked whose login it uses."""

    def __init__(self) -> None:
        self.status: LoginStatus | None = None
        self.ended: Deferred[None] = Deferred()

    def ready(self, process: CLIProcess, models: tuple[ModelInfo, ...]) -> None:
        process.ask_account()

    def account(self, process: CLIProcess, status: LoginStatus | None) -> None:
        self.status = status
        process.stop()

    def rested(self, process: CLIProcess) -> None:
        pass

    def limits(self, process: CLIProcess, info: Mapping[str, Any]) -> None:
        pass

    def sizes(self, tokens: Mapping[str, int]) -> None:
        pass

    def process_ended(self, process: CLIProcess) -> None:
        self.ended.callback(None)
