"""How claudemax was installed, and so the commands that change it."""

from __future__ import annotations

import sys
from pathlib import Path

from attrs import frozen


@frozen
class Installer:
    """What its user would type. ``add_cli`` installs claudemax with a CLI of its own, ``add_otel``
    with OpenTelemetry; ``update`` updates it, and ``update_cli`` only that CLI."""

    add_cli: str
    add_otel: str
    update: str
    update_cli: str


PIP = Installer(
    "pip install 'claudemax[cli]'",
    "pip install 'claudemax[otel]'",
    "pip install --upgrade claudemax",
    "pip install --upgrade claude-agent-sdk",
)
# Its `upgrade` leaves the packages alone that are new enough for claudemax.
PIPX = Installer(
    "pipx install --force 'claudemax[cli]'",
    "pipx runpip claudemax install 'claudemax[otel]'",
    "pipx upgrade claudemax",
    "pipx runpip claudemax install --upgrade claude-agent-sdk",
)
UV_TOOL = Installer(
    "uv tool install 'claudemax[cli]'",
    "uv tool install 'claudemax[cli,otel]'",
    "uv tool upgrade claudemax",
    "uv tool upgrade claudemax",
)
_UVX = "uvx --refresh --from 'claudemax[cli]' claudemax"
UVX = Installer(_UVX, "uvx --from 'claudemax[cli,otel]' claudemax", _UVX, _UVX)


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
