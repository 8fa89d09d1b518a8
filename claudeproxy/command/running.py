"""Asks the daemon that runs, over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import click
from attrs import frozen

from claudeproxy.options import Settings

from . import places
from .places import Address, address
from .terminal import plain

PATIENCE = 5.0
"""Seconds to wait for a reply: the daemon has these pages at once."""


PORT = click.option(
    "--port", metavar="PORT", multiple=True, help="As --port of the daemon, if it got one."
)
"""The option of a command that asks; :func:`listening` takes its value."""


class NotRunning(click.ClickException):
    """Nothing answers, or what answers is no daemon of ours. One line, with the remedy."""


class WrongKey(NotRunning):
    """A daemon answers, but not to this key."""


class StoreIsLost(NotRunning):
    """A daemon answers, but what is asked for is in a store that it cannot reach."""


@frozen
class Running:
    """A daemon that can be asked. ``key``: what it lets us in with; ``trusted``: the file with the
    certificate that it shows, where it speaks TLS."""

    where: Address
    key: str | None = None
    trusted: str | None = None

    def health(self) -> Any:
        """What ``/health`` tells."""
        status, body = self._ask("/health")
        return self._checked("/health", "cli_version", 200 if status == 503 else status, body)

    def usage(self, days: int | None = None) -> Any:
        """What ``/v1/usage`` tells."""
        return self._get("/v1/usage" if days is None else f"/v1/usage?days={days}", "ledger")

    def turn(self, request_id: str) -> Any:
        """The receipt of a turn.

        :raises click.ClickException: when there is none.
        """
        path = f"/v1/usage/turns/{quote(request_id, safe='')}"
        status, body = self._ask(path)
        if status == 404 and isinstance(body, Mapping) and "error" in body:
            raise click.ClickException(plain(body["error"]["message"]))
        return self._checked(path, "request_id", status, body)

    def refused(self) -> Any:
        """The requests of ``/v1/debug/refused``."""
        return self._get("/v1/debug/refused", "data")["data"]

    def models(self) -> Any:
        """What ``/v1/models`` tells."""
        return self._get("/v1/models", "data")

    def serves(self, model: str) -> bool:
        """Whether requests may name this model, listed or not."""
        return self._ask(f"/v1/models/{quote(model, safe='')}")[0] == 200

    def _get(self, path: str, holds: str) -> Any:
        """The JSON at ``path``, which has a field ``holds`` if it is ours.

        :raises NotRunning: when there is none.
        """
        return self._checked(path, holds, *self._ask(path))

    def _checked(self, path: str, holds: str, status: int, body: Any) -> Any:
        error = body.get("error") if isinstance(body, Mapping) else None
        if isinstance(error, Mapping) and error.get("code") == "store_lost":
            raise StoreIsLost(
                f"{self.where.url}: its store does not answer at present; its log says why"
            )
        if status != 200 or not isinstance(body, Mapping) or holds not in body:
            raise self._stranger(f"{status} at {path}")
        return body

    def _stranger(self, why: str) -> NotRunning:
        return NotRunning(
            f"what answers at {self.where.url} is not claudemax ({why}); is it the right port?"
        )

    def _ask(self, path: str) -> tuple[int, Any]:
        """Status and JSON at ``path``.

        :raises NotRunning: when there is none, or another key is wanted.
        """
        url = self.where.url
        connection = self.connection()
        try:
            connection.request("GET", path, headers=self.headers)
            reply = connection.getresponse()
            body = _json(reply.read())
        except (ConnectionRefusedError, FileNotFoundError):
            raise NotRunning(f"nothing answers at {url}; start it with `claudemax`") from None
        except (OSError, http.client.HTTPException) as error:
            raise self._stranger(" ".join(str(error).split())) from None
        finally:
            connection.close()
        if reply.status == 401 and isinstance(body, Mapping) and "error" in body:
            raise WrongKey(
                f"{url} wants another key: name the daemon's key file in CLAUDEMAX_API_KEY_FILE"
            )
        return reply.status, body

    @property
    def headers(self) -> dict[str, str]:
        """What each request has to carry."""
        return {"host": "localhost", **({"x-api-key": self.key} if self.key else {})}

    def connection(self, patience: float = PATIENCE) -> http.client.HTTPConnection:
        """A new connection, not yet opened. ``patience``: seconds to wait for each part of a
        reply."""
        where = self.where
        if where.socket:
            return _UnixConnection(where.socket, patience)
        if where.tls:
            context = ssl.create_default_context(cafile=self.trusted)
            if self.trusted:
                context.check_hostname = False  # it is pinned, whatever name it has
            return http.client.HTTPSConnection(
                where.host, where.port, timeout=patience, context=context
            )
        return http.client.HTTPConnection(where.host, where.port, timeout=patience)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, patience: float) -> None:
        super().__init__("localhost", timeout=patience)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def daemon_of(settings: Settings) -> Running:
    """The daemon that these settings make, if it runs.

    :raises NotRunning: when its place cannot be told from its endpoints.
    """
    for endpoint in settings.port:
        where = address(endpoint)
        if where is not None:
            trusted = _part(endpoint, "certKey") or _part(endpoint, "privateKey")
            return Running(where, _key(settings.api_key_file), trusted)
    raise NotRunning(f"no address can be told from --port {settings.port[0]}")


def listening(port: Sequence[str]) -> Running:
    """The daemon that the user's settings make; ``port``: with these endpoints.

    :raises click.ClickException: when there is no address in them.
    """
    return daemon_of(places.settings(os.environ, port=list(port) or None))


def chosen(url: str | None, key: str | None) -> Running:
    """The daemon at ``url``, else that which the settings make; ``key``: instead of theirs.

    :raises click.ClickException: when there is no address in them.
    """
    if url is not None:
        return Running(_address(url), key)
    configured = daemon_of(places.settings(os.environ))
    return Running(configured.where, key or configured.key, configured.trusted)


def _address(url: str) -> Address:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        if parts.hostname and parts.path.rstrip("/") in ("", "/v1"):
            return Address(parts.hostname, port, tls=parts.scheme == "https")
    except (ValueError, KeyError):
        pass
    raise click.ClickException(f"--url: must be like http://127.0.0.1:3456, not {url!r}")


def _part(endpoint: str, name: str) -> str | None:
    _, found, rest = endpoint.partition(f":{name}=")
    return rest.split(":")[0] if found else None


def _key(path: str | None) -> str | None:
    """The first key of the file that has not expired; ``None`` if there is none to read."""
    try:
        lines = [] if path is None else Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            name, colon, rest = line.partition(":")
            key, *rules = (rest if colon else name).split() or [""]
            today = f"expires={date.today().isoformat()}"
            if not any(rule.startswith("expires=") and rule < today for rule in rules):
                return key or None
    return None
