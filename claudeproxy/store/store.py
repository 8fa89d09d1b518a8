"""The store: responses, conversations and chat completions.

This is the only place where prompts and answers are written to: by default one SQLite file that is
private to the user (0600 in a directory 0700); limited in size and age.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from .completions import SCHEMA as COMPLETIONS
from .completions import CompletionTable
from .conversations import SCHEMA as CONVERSATIONS
from .conversations import ConversationTable
from .database import Database
from .responses import SCHEMA as RESPONSES
from .responses import ResponseTable
from .sqlite import SQLite
from .tables import Bounds


class Store:
    """The tables of what clients have asked to be stored, in one ``database``."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], float] = time.time,
        bounds: Bounds | None = None,
    ) -> None:
        """``now``: epoch seconds."""
        self._database = database
        about = (database, now, bounds or Bounds())
        self.responses = ResponseTable(*about)
        self.conversations = ConversationTable(*about)
        self.completions = CompletionTable(*about)

    @property
    def lost(self) -> bool:
        """Whether its database does not answer at present."""
        return self._database.lost_since is not None


def sqlite_store(path: Path) -> SQLite:
    """The file of a store; one that SQLite cannot read is moved aside.

    :raises OSError, sqlite3.Error: when it cannot be created.
    """
    return SQLite(path, _prepare)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = FULL")  # the file shrinks, too
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(RESPONSES + CONVERSATIONS + COMPLETIONS)
    known = {row[1] for row in connection.execute("PRAGMA table_info (responses)")}
    for later in {"key", "node"} - known:  # made without it
        connection.execute(f"ALTER TABLE responses ADD COLUMN {later} TEXT")
