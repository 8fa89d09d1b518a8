"""Where things are: what a user configured, what the daemon keeps, where it answers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from claudeproxy.options import ConfigError, Settings, load


def config_directory(environ: Mapping[str, str]) -> Path:
    """Where a user's settings, key and token are."""
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(environ.get("XDG_CONFIG_HOME") or Path(home, ".config"), "claudemax")


def token_file(environ: Mapping[str, str]) -> Path:
    """The file with the token of ``claude setup-token`` for a service: lines of NAME=VALUE."""
    return config_directory(environ) / "service.env"


def settings(environ: Mapping[str, str], **given: Any) -> Settings:
    """What a daemon started with no options but ``given`` would use.

    :raises click.ClickException: where they are wrong.
    """
    options = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
    try:
        return load(options, environ)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


@frozen
class Address:
    """Where a client reaches an endpoint. ``socket``: the path of a unix socket, else empty;
    ``host``: as a client writes it; ``tls``: whether it speaks TLS."""

    host: str
    port: int
    socket: str = ""
    tls: bool = False

    @property
    def url(self) -> str:
        """For people, and for clients unless it is a socket."""
        if self.socket:
            return f"unix:{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def address(endpoint: str) -> Address | None:
    r"""Where ``endpoint`` (``tcp:3456:interface=\:\:1``) is reached from this machine; ``None``
    where that cannot be told from it (``systemd:…``)."""
    kind, *parts = (part.replace("\\:", ":") for part in re.split(r"(?<!\\):", endpoint))
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    plain = [part for part in parts if "=" not in part]
    first = plain[0] if plain else named.get("port") or named.get("address") or ""
    if kind == "unix":
        return Address("", 0, first)
    if kind not in ("tcp", "tcp6", "tcp4", "ssl") or not first.isdigit():
        return None
    host = named.get("interface", "")
    if host in ("", "0.0.0.0", "127.0.0.1", "::"):
        host = "localhost" if host in ("", "127.0.0.1") else host
        host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return Address(host, int(first), tls=kind == "ssl")
