"""The keys file, read anew when it has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from twisted.logger import Logger

from .keys import KeyFileError, Keys, read

SETTLED = 0.5
"""Seconds for which a changed file must have been left alone before it is read: it may be half
written, and the first half of a key would be taken for a key."""


class KeysFile:
    """The file at ``path``. Calling it gives the keys that are valid now."""

    log = Logger()

    def __init__(self, path: str, now: Callable[[], float] = time.time) -> None:
        """``now``: epoch seconds.

        :raises KeyFileError: when it cannot be used.
        """
        self._path = path
        self._now = now
        self._seen = self._stat()
        self._keys = read(path)

    def __call__(self) -> Keys:
        """The keys. If the file has changed and can no longer be used, the previous ones, with a
        line in the log."""
        seen = self._stat()
        if seen != self._seen and not self._is_fresh(seen):
            self._seen = seen
            try:
                self._keys = read(self._path)
            except KeyFileError as error:
                self.log.error(
                    "--api-key-file {path}: {error}; the previous keys stay valid", path=self._path,
                    error=str(error),
                )  # fmt: skip
            else:
                self.log.info(
                    "{path}: read anew, keys: {n}", path=self._path, n=len(self._keys.rules)
                )
        return self._keys

    def _is_fresh(self, seen: tuple[int, ...]) -> bool:
        return bool(seen) and abs(self._now() - seen[0] / 1e9) < SETTLED

    def _stat(self) -> tuple[int, ...]:
        """What changes with the file; a call takes two microseconds."""
        try:
            about = os.stat(self._path)
        except OSError:
            return ()
        return (about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_size)
