"""systemd: a service of the user's, or a hardened one of the system's."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import click
from attrs import frozen

from ..places import config_directory, token_file
from .machine import CARRIED, Machine, program
from .steps import Run, Step

MARK = "# Written by `claudemax install`; `claudemax uninstall` removes it."
"""The first line of our units."""

SYSTEM = Path("/etc/systemd/system")

READ_ONLY = (".config", ".local/bin", ".bashrc", ".bash_profile", ".profile", ".zshrc")
HIDDEN = (".ssh", ".gnupg", ".aws", ".kube")
"""What the system's service may not change, and what it may not see, of its user's home."""


@frozen
class Systemd:
    """``system``: a unit of the system's that runs as the user."""

    machine: Machine
    system: bool

    @property
    def unit(self) -> str:
        """Its name."""
        return f"claudemax@{self.machine.user}.service" if self.system else "claudemax.service"

    @property
    def title(self) -> str:
        return f"systemd's {'system' if self.system else 'user'} service {self.unit}"

    @property
    def path(self) -> Path:
        if self.system:
            return SYSTEM / self.unit
        home = self.machine.environ.get("XDG_CONFIG_HOME") or self.machine.home / ".config"
        return Path(home, "systemd", "user", self.unit)

    @property
    def root(self) -> bool:
        return self.system

    def check(self) -> None:
        if self.system:
            if self.machine.uid and self.machine.which("sudo") is None:
                raise click.ClickException(
                    "--system needs sudo, which is not installed: install it, or run this as root"
                )
        elif not self.machine.succeeds("systemctl", "--user", "show-environment"):
            raise click.ClickException(
                f"systemd has no session of {self.machine.user} here: log in as that user (not by "
                "su), or install with --system"
            )

    def description(self) -> str:
        machine = self.machine
        name = "claudemax@.service" if self.system else "claudemax.service"
        template = (files(__package__) / name).read_text()
        variables = machine.service_environ()
        writable = [str(machine.home), *(variables[name] for name in CARRIED if name in variables)]
        daemon = program("claudemax")
        return template.format(
            mark=MARK,
            config=config_directory(machine.environ) / "config.toml",
            program=f"{quoted(daemon).replace('$', '$$')} serve",
            environment=" ".join(quoted(f"{name}={value}") for name, value in variables.items()),
            variables=str(token_file(machine.environ)).replace("%", "%%"),
            writable=_paths(*writable),
            read_only=_paths(*map(self._home, READ_ONLY), str(Path(daemon).parents[1])),
            hidden=_paths(*map(self._home, HIDDEN)),
        )

    def is_ours(self, text: str) -> bool:
        return text.startswith(MARK)

    def shown(self, text: str) -> str:
        lines = [line for line in text.splitlines() if line.startswith("ExecStart=")]
        return lines[0].removeprefix("ExecStart=") if lines else "nothing that could be told"

    def is_active(self) -> bool:
        return self.machine.succeeds(*self._query("is-active", "--quiet", self.unit))

    def begin(self) -> Sequence[Step]:
        return (
            Run(self._command("daemon-reload")),
            Run(self._command("enable", self.unit), back=self._command("disable", self.unit)),
            *self.start(),
        )

    def end(self) -> Sequence[Step]:
        return (Run(self._command("disable", "--now", self.unit), may_fail=True),)

    def forget(self) -> Sequence[Step]:
        return (Run(self._command("daemon-reload")),)

    def start(self) -> Sequence[Step]:
        return (Run(self._command("start", self.unit), back=self._command("stop", self.unit)),)

    def stop(self) -> Sequence[Step]:
        return (Run(self._command("stop", self.unit), back=self._command("start", self.unit)),)

    def restart(self) -> Sequence[Step]:
        return (Run(self._command("restart", self.unit)),)

    def log(self, lines: int, follow: bool) -> Sequence[str]:
        which = ("--unit", self.unit) if self.system else ("--user", "--unit", self.unit)
        return ("journalctl", *which, "--lines", str(lines), *(["--follow"] if follow else []))

    def leftovers(self) -> Sequence[Path]:
        return ()

    def advice(self) -> Sequence[str]:
        if self.system or not self.machine.which("loginctl"):
            return ()
        asked = ("loginctl", "show-user", self.machine.user, "--property=Linger", "--value")
        if self.machine.run(asked).stdout.strip() == "yes":
            return ()
        return (
            "It runs while you are logged in. To have it run from boot on:",
            f"    loginctl enable-linger {self.machine.user}",
        )

    def _query(self, *arguments: str) -> tuple[str, ...]:
        return ("systemctl", *([] if self.system else ["--user"]), *arguments)

    def _command(self, *arguments: str) -> tuple[str, ...]:
        command = self._query(*arguments)
        return self.machine.as_root(*command) if self.system else command

    def _home(self, name: str) -> str:
        return str(self.machine.home / name)


def _paths(*paths: str) -> str:
    return " ".join(quoted(f"-{path}") for path in paths)


def quoted(text: str) -> str:
    """``text`` as one word of a unit, whatever it holds."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
