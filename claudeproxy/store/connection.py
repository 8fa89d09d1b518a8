"""Connections to PostgreSQL as all of ours are: none waits forever, whatever happens to the server.

The settings of a connection are those of the URL, and of libpq's variables and files, before ours.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from twisted.python.failure import Failure

CONNECT = 3
"""Seconds in which a server must take a connection."""

STATEMENT = 4.0
"""Seconds that a statement may take, by the server's clock."""

SILENCE = 6.0
"""Seconds after which a server that says nothing is lost."""

_OURS = {
    "connect_timeout": CONNECT,
    # Of several hosts, the one that can be written to.
    "target_session_attrs": "read-write",
    # A connection that is at rest for hours is not dropped on the way, and a host that is gone is
    # noticed.
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


class Connection(psycopg.Connection[Any]):
    """One that gives up on a silent server."""

    patience = SILENCE
    """Seconds that a statement may take."""

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """As psycopg's.

        :raises psycopg.OperationalError: when the server says nothing; it is closed then.
        """
        try:
            return super().wait(_patiently(gen, self.patience), *args, **kwargs)
        except Silent:
            self.close()
            raise


class Silent(psycopg.OperationalError):
    """The server says nothing."""


def _patiently(steps: Generator[Any, Any, Any], patience: float) -> Generator[Any, Any, Any]:
    """``steps``, as long as the server answers some of them; psycopg takes one every 0.1 s."""
    until = time.monotonic() + patience
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > until:
                raise Silent(f"the server has said nothing for {patience:g} s")
            wanted = steps.send(ready)
    except StopIteration as end:
        return end.value


class PortableCursor:
    """A cursor that understands the statements of the tables."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor
        self.fetchone, self.fetchall = cursor.fetchone, cursor.fetchall

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def execute(self, sql: str, values: Mapping[str, Any] | None = None, /) -> None:
        self._cursor.execute(translated(sql), _storable(values or {}))

    def executemany(self, sql: str, values: Sequence[Mapping[str, Any]], /) -> None:
        self._cursor.executemany(translated(sql), list(map(_storable, values)))


@lru_cache(500)
def translated(sql: str) -> bytes:
    """``:name`` as ``%(name)s``, and ``::type`` as it is. A literal has no colon before a letter
    in any statement of ours."""
    return re.sub(r"(?<!:):([a-z_]\w*)", r"%(\1)s", sql.replace("%", "%%")).encode()


def _storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """A text in PostgreSQL has no NUL, but clients may send one."""
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
        for name, value in values.items()
    }


def parameters(url: str, name: str) -> dict[str, Any]:
    """What to connect with; ``name``: what the server calls us.

    :raises psycopg.ProgrammingError: when ``url`` is none. Its text may quote the password.
    """
    return {**_OURS, "application_name": name, **conninfo_to_dict(url)}


def connect(parameters: Mapping[str, Any]) -> Connection:
    """A connection that commits each statement by itself.

    :raises psycopg.OperationalError: when there is none to be had.
    """
    # Values are sent beside the statements (no ClientCursor): a server that logs a statement that
    # fails does not log what was said in it. Nothing is prepared, for pgbouncer.
    return Connection.connect("", **parameters, autocommit=True, prepare_threshold=None)


def reason(error: BaseException | Failure) -> str:
    """Why, in one line; psycopg's own words have no password in them."""
    value = error.value if isinstance(error, Failure) else error
    return " ".join(str(value).split()) or type(value).__name__
