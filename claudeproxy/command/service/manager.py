"""What launchd and systemd have in common, and which of them there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import click

from .launchd import Launchd
from .machine import Machine
from .steps import Step
from .systemd import Systemd


class Manager(Protocol):
    """What starts the daemon, stops it, and starts it again where it fails."""

    @property
    def title(self) -> str:
        """What users call the service."""

    @property
    def path(self) -> Path:
        """Where the service is described."""

    @property
    def root(self) -> bool:
        """Whether that is the system's."""

    def check(self) -> None:
        """:raises click.ClickException: when it cannot take a service of this user's."""

    def description(self) -> str:
        """The content of the file."""

    def is_ours(self, text: str) -> bool:
        """Whether a file with this content is one of these, and not of another program."""

    def shown(self, text: str) -> str:
        """What a file, also another program's, runs, in a line."""

    def is_active(self) -> bool:
        """Whether it runs, or is about to."""

    def begin(self) -> Sequence[Step]:
        """Start it, now and from now on. It does not run."""

    def end(self) -> Sequence[Step]:
        """Stop it, and let it not start again. The file is still there."""

    def forget(self) -> Sequence[Step]:
        """After the file is gone."""

    def start(self) -> Sequence[Step]:
        """Start it for now."""

    def stop(self) -> Sequence[Step]:
        """Stop it for now."""

    def restart(self) -> Sequence[Step]:
        """Stop and start it."""

    def log(self, lines: int, follow: bool) -> Sequence[str]:
        """The command that shows the log."""

    def leftovers(self) -> Sequence[Path]:
        """What it leaves beside the daemon's own state."""

    def advice(self) -> Sequence[str]:
        """What its user is to know."""


def manager(machine: Machine, system: bool) -> Manager:
    """The one of this machine; ``system``: for the whole system.

    :raises click.ClickException: when there is none.
    """
    if machine.uid == 0 and machine.environ.get("SUDO_USER"):
        raise click.ClickException(
            "without sudo, please: as the user whose login it is to use; sudo is called where it "
            "is needed"
        )
    if machine.platform == "darwin":
        if system:
            raise click.ClickException(
                "--system is for Linux: on macOS the login is in the keychain of who is logged in"
            )
        return Launchd(machine)
    if machine.which("systemctl") is None:
        raise click.ClickException(
            "there is no systemd here; have what starts your services run `claudemax serve`"
        )
    return Systemd(machine, system)


def installed(machine: Machine) -> Manager:
    """The manager that has our service.

    :raises click.ClickException: when there is none.
    """
    for system in (False, True) if machine.platform != "darwin" else (False,):
        found = manager(machine, system)
        if found.path.exists() and found.is_ours(read(found.path)):
            return found
    raise click.ClickException("there is no service of claudemax; `claudemax install` makes one")


def read(path: Path) -> str:
    """The content of a service's file.

    :raises click.ClickException: when it cannot be read.
    """
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
