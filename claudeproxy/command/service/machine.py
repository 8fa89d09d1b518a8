"""The machine and the user that a service is for."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from attrs import frozen

from claudeproxy._installed import UV_TOOL, UVX, installer
from claudeproxy.options import PREFIX

CARRIED = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "CLAUDE_CONFIG_DIR")
"""Variables that say where settings, state and login are: the service gets them, too."""

USUAL = ("/opt/homebrew/bin", "/usr/local/bin", "/usr/bin", "/bin")


@frozen
class Machine:
    """``home``, ``user`` and ``uid`` of the one who installs; ``platform``: as
    :data:`sys.platform`; ``environ``: for the programs that are run."""

    home: Path
    user: str
    uid: int
    platform: str
    environ: Mapping[str, str]

    @classmethod
    def here(cls) -> Machine:
        """This machine, and the user who runs this."""
        user = pwd.getpwuid(os.geteuid())
        home = Path(os.environ.get("HOME") or user.pw_dir)
        return cls(home, user.pw_name, user.pw_uid, sys.platform, os.environ)

    def which(self, name: str) -> str | None:
        """Where a program is on the PATH."""
        return shutil.which(name, path=self.environ.get("PATH", os.defpath))

    def run(
        self, command: Sequence[str], text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, with ``text`` to read.

        :raises OSError: when it cannot be started.
        """
        return subprocess.run(
            command, env=self.environ, input=text, capture_output=True, text=True, check=False
        )

    def succeeds(self, *command: str) -> bool:
        """Whether a program is there and ends well."""
        try:
            return self.run(command).returncode == 0
        except OSError:
            return False

    def as_root(self, *command: str) -> tuple[str, ...]:
        """The command that has root do it."""
        return command if self.uid == 0 else ("sudo", *command)

    def own_environ(self) -> dict[str, str]:
        """The environment without the daemon's options: a service does not see them."""
        return {name: v for name, v in self.environ.items() if not name.startswith(PREFIX)}

    def service_environ(self) -> dict[str, str]:
        """The variables that a service gets."""
        claude, node = (
            [os.path.dirname(found)] if (found := self.which(name)) else []
            for name in ("claude", "node")
        )
        own = [*claude, str(self.home / ".local" / "bin"), *node]
        carried = {name: self.environ[name] for name in CARRIED if self.environ.get(name)}
        return {"PATH": ":".join(dict.fromkeys([*own, *USUAL])), **carried}


def program(name: str) -> str:
    """Where a program of this installation is.

    :raises click.ClickException: when it is nowhere, or where it will not stay.
    """
    own = Path(os.path.abspath(sys.executable))
    if installer() is UVX:
        raise click.ClickException(
            "this claudemax is in uv's cache, which is cleared now and then; install it first: "
            f"{UV_TOOL.add_cli}"
        )
    user = sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))
    for path in (own.with_name(name), Path(user, name)):
        if os.access(path, os.X_OK):
            return str(path)
    raise click.ClickException(f"there is no program {name} beside {own}: is claudemax installed?")
