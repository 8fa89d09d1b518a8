"""Which daemons run, of those that share a file: each holds the lock of a file of its own, however
it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from claudeproxy.store.sqlite import alone


class Owners:
    """The daemons that share the file at ``path``."""

    def __init__(self, path: Path) -> None:
        """``path``: that of the outbox; the files are beside it."""
        self._path = path
        self._lock: int | None = None
        self.me = ""
        """Another one each time."""

    def enter(self) -> None:
        """Let others know of this one."""
        self.me = uuid4().hex
        with alone(self._path.parent):
            self._lock = os.open(self._file(self.me), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            for left in self._path.parent.glob(self._file("*").name):
                with self.gone(left.stem.rpartition("-")[2]):
                    pass  # which removes it

    def leave(self) -> None:
        """It runs no more."""
        if self._lock is not None:
            self._file(self.me).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def gone(self, owner: str) -> Iterator[bool]:
        """Whether ``owner``, which had entered, runs no more; nobody else is told so meanwhile."""
        if owner == self.me:
            yield False
            return
        try:
            lock = os.open(self._file(owner), os.O_RDWR)
        except FileNotFoundError:
            yield True
            return
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            self._file(owner).unlink(missing_ok=True)
            yield True
        finally:
            os.close(lock)

    def _file(self, owner: str) -> Path:
        return self._path.with_name(f"{self._path.stem}-{owner}.lock")
