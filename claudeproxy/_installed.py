"""How claudemax was installed, and so the commands that change it."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

from attrs import frozen


@frozen
class Installer:
    """What its user would type, with ``{plain}`` for claudemax, ``{cli}`` for claudemax with a CLI
    of its own, ``{extra}`` with one that is named and ``{both}`` with that and the CLI."""

    _add_cli: str
    _add: str
    _update: str
    _update_cli: str

    @property
    def add_cli(self) -> str:
        """Installs claudemax with a CLI of its own."""
        return _filled(self._add_cli)

    @property
    def add_otel(self) -> str:
        """Adds OpenTelemetry to it."""
        return _filled(self._add, "otel")

    @property
    def add_postgres(self) -> str:
        """Adds the driver of PostgreSQL to it."""
        return _filled(self._add, "postgres")

    @property
    def update(self) -> str:
        """Updates claudemax."""
        return _filled(self._update)

    @property
    def update_cli(self) -> str:
        """Updates only that CLI."""
        return _filled(self._update_cli)


PIP = Installer(
    "pip install '{cli}'",
    "pip install '{extra}'",
    "pip install --upgrade '{plain}'",
    "pip install --upgrade claude-agent-sdk",
)
# Its `upgrade` leaves the packages alone that are new enough for claudemax.
PIPX = Installer(
    "pipx install --force '{cli}'",
    "pipx runpip claudemax install '{extra}'",
    "pipx upgrade claudemax",
    "pipx runpip claudemax install --upgrade claude-agent-sdk",
)
UV_TOOL = Installer(
    "uv tool install '{cli}'",
    "uv tool install '{both}'",
    "uv tool upgrade claudemax",
    "uv tool upgrade claudemax",
)
_UVX = "uvx --refresh --from '{cli}' claudemax"
UVX = Installer(_UVX, "uvx --from '{both}' claudemax", _UVX, _UVX)


def _filled(command: str, extra: str = "") -> str:
    return command.format(
        plain=own_requirement(),
        cli=own_requirement("[cli]"),
        extra=own_requirement(f"[{extra}]"),
        both=own_requirement(f"[cli,{extra}]"),
    )


def own_requirement(extra: str = "") -> str:
    """What to install for the claudemax that is installed: the checkout or wheel it came from.

    Its name alone only if it came from an index: on one that does not have it, the name is free
    for anybody to take.
    """
    try:
        told = metadata.distribution("claudemax").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return f"{Path(__file__).parents[1]}{extra}"  # not installed, only on the path
    origin: dict[str, Any] = json.loads(told) if told else {"url": ""}
    scheme, _, path = origin["url"].partition("://")
    if scheme == "file":
        return f"{url2pathname(path)}{extra}"
    if "vcs_info" in origin:
        return f"claudemax{extra} @ {origin['vcs_info']['vcs']}+{origin['url']}"
    return f"claudemax{extra}" + (f" @ {origin['url']}" if scheme else "")


def installer(prefix: str | None = None) -> Installer:
    """By what the environment in ``prefix``, by default this one, was made."""
    environment = Path(prefix or sys.prefix)
    if (environment / "pipx_metadata.json").exists():
        return PIPX
    if (environment / "uv-receipt.toml").exists():
        return UV_TOOL
    # Where uv keeps what it may remove at any time.
    if {"archive-v0", "environments-v2"} & set(environment.parts):
        return UVX
    return PIP
