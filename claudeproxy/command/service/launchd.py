"""launchd: an agent of the user's. No daemon: the CLI keeps its login in the user's keychain."""

from __future__ import annotations

import plistlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import click
from attrs import frozen

from ..places import token_file
from ..serve import KQUEUE
from .machine import Machine, program
from .steps import Run, Step, Wait

LABEL = "com.claude-max-api"
"""The npm package's, too: two with one label cannot run beside each other."""

SCRIPT = (
    'if [ -r "$1" ]; then while IFS= read -r line || [ -n "$line" ]; do case "$line" in '
    '[A-Za-z]*=*) export "$line";; esac; done < "$1"; fi; shift; exec "$@"'
)
"""launchd reads no file of variables. Nothing in the file is run."""

STOP_SECONDS = 75
"""The drain of 20, 40 for a renewal of the login, and the rest of the goodbye."""


@frozen
class Launchd:
    """The agent of one user."""

    machine: Machine
    title = f"launchd's agent {LABEL}"
    root = False

    @property
    def path(self) -> Path:
        return self.machine.home / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    @property
    def log_file(self) -> Path:
        """Where the daemon logs to."""
        return self.machine.home / "Library" / "Logs" / "claudemax.log"

    @property
    def domain(self) -> str:
        """Of those who are logged in on the screen."""
        return f"gui/{self.machine.uid}"

    @property
    def target(self) -> str:
        """The agent, as launchctl has it."""
        return f"{self.domain}/{LABEL}"

    def check(self) -> None:
        if not self.machine.succeeds("launchctl", "print", self.domain):
            raise click.ClickException(
                f"launchd has no session of {self.machine.user}: log in on the Mac's screen"
            )

    def description(self) -> str:
        machine = self.machine
        # twistd, for it rotates the log, which launchd does not.
        daemon = [program("twistd"), "-n", "--pidfile=", *KQUEUE]
        daemon += ["--logfile", str(self.log_file), "claudemax"]
        agent = {
            "Label": LABEL,
            "ProgramArguments": [
                *["/bin/sh", "-c", SCRIPT, "claudemax", str(token_file(machine.environ))],
                *daemon,
            ],
            "EnvironmentVariables": machine.service_environ(),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "ExitTimeOut": STOP_SECONDS,
            "Umask": 0o077,
            "HardResourceLimits": {"Core": 0},
        }
        return plistlib.dumps(agent, sort_keys=False).decode()

    def is_ours(self, text: str) -> bool:
        return self._command(text)[-1:] == ["claudemax"]

    def shown(self, text: str) -> str:
        return shlex.join(self._command(text)) or "nothing that could be told"

    def is_active(self) -> bool:
        return self.machine.succeeds("launchctl", "print", self.target)

    def begin(self) -> Sequence[Step]:
        return self.start()

    def end(self) -> Sequence[Step]:
        return self.stop()

    def forget(self) -> Sequence[Step]:
        return ()

    def start(self) -> Sequence[Step]:
        return (
            Run(("launchctl", "enable", self.target)),
            Run(
                ("launchctl", "bootstrap", self.domain, str(self.path)),
                back=("launchctl", "bootout", self.target),
            ),
        )

    def stop(self) -> Sequence[Step]:
        # Not `kill`: launchd starts anew what ends by a signal.
        if not self.is_active():
            return ()
        back = ("launchctl", "bootstrap", self.domain, str(self.path))
        # bootout comes back before it is done, and until then nothing new is taken.
        return (
            Run(("launchctl", "bootout", self.target), back=back),
            Wait(("launchctl", "print", self.target)),
        )

    def restart(self) -> Sequence[Step]:
        return (*self.stop(), *self.start())

    def log(self, lines: int, follow: bool) -> Sequence[str]:
        return ("tail", "-n", str(lines), *(["-F"] if follow else []), str(self.log_file))

    def leftovers(self) -> Sequence[Path]:
        return sorted(self.log_file.parent.glob(f"{self.log_file.name}*"))

    def advice(self) -> Sequence[str]:
        return ()

    @staticmethod
    def _command(text: str) -> list[str]:
        try:
            agent: Any = plistlib.loads(text.encode())
            return [str(word) for word in agent.get("ProgramArguments", [agent.get("Program")])]
        except (plistlib.InvalidFileException, ExpatError, ValueError, AttributeError, TypeError):
            return []
