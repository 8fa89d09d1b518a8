"""The CLI as it is installed on this machine: starts processes of it, and sees when it changes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.threads import deferToThreadPool

from . import launch
from .process import CLIProcess, Owner
from .session import Session

ANSWER = 15.0
"""Seconds the CLI may take to tell its version or login; beyond that it is killed."""


class Installation:
    """One executable. The CLI updates itself in place, and may be removed and come back."""

    def __init__(self, reactor: Any, executable: str, version: str, directory: str) -> None:
        """``version``: what it was checked to be; ``directory``: where its processes work."""
        self._reactor = reactor
        self.executable = executable
        self.version = version
        self._directory = directory
        self._seen = self._signature()
        self._fault: launch.CLIError | None = None
        self.environment: Mapping[str, str] = {}
        """What its processes get as theirs."""

    def spawn(self, owner: Owner) -> CLIProcess:
        """A new process, starting up.

        :raises CLIError: when the executable is gone, or has become one that cannot be used.
        :raises OSError: when the system does not give a process.
        """
        if self._fault is not None:
            raise self._fault
        if not os.access(self.executable, os.X_OK):
            raise launch.CLIError(f"it is gone from {self.executable}")
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        process = CLIProcess(self._reactor, Session(time.time), owner)
        command = launch.command(self.executable, self._directory)
        self._reactor.spawnProcess(process, command[0], command, dict(self.environment))
        return process

    async def logged_in(self) -> bool | None:
        """What ``claude auth status`` says, which spends no quota; ``None`` if it says nothing."""
        return launch.parse_login(await self._output("auth", "status"))

    async def changed(self) -> bool:
        """Whether the executable is another one than at the last look; then its version is read."""
        signature = self._signature()
        if signature == self._seen or signature is None:
            return False
        said = (await self._output("--version")).decode(errors="replace").strip()
        if not said:
            return False  # it did not answer: another look will tell
        try:
            self.version = launch.parse_version(said, self.executable)
            self._fault = None
        except launch.CLIError as error:
            self._fault = error
        self._seen = signature
        return True

    async def _output(self, *arguments: str) -> bytes:
        return await deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), self._run, arguments
        )

    def _run(self, arguments: Sequence[str]) -> bytes:
        try:
            return subprocess.run(
                [self.executable, *arguments],
                env=dict(self.environment),
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=ANSWER,
                check=False,
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return b""

    def _signature(self) -> tuple[str, int, int, int] | None:
        path = os.path.realpath(self.executable)
        try:
            found = os.stat(path)
        except OSError:
            return None
        return path, found.st_ino, found.st_size, found.st_mtime_ns
