"""The keys file, read anew when it has changed."""

from __future__ import annotations

import os

from twisted.logger import Logger

from .keys import KeyFileError, Keys, read


class KeysFile:
    """The file at ``path``: called, it gives the keys that count now."""

    log = Logger()

    def __init__(self, path: str) -> None:
        """:raises KeyFileError: when it cannot be used."""
        self._path = path
        self._seen = self._stat()
        self._keys = read(path)

    def __call__(self) -> Keys:
        """The keys. If the file has changed and cannot be used as it is now, those before, and a
        line in the log: nobody is let in, or locked out, by a file half written."""
        seen = self._stat()
        if seen != self._seen:
            self._seen = seen
            try:
                self._keys = read(self._path)
            except KeyFileError as error:
                self.log.error(
                    "--api-key-file {path}: {error}; the keys before count", path=self._path,
                    error=str(error),
                )  # fmt: skip
            else:
                self.log.info("{path}: {n} keys", path=self._path, n=len(self._keys.rules))
        return self._keys

    def _stat(self) -> tuple[int, ...]:
        """What changes with the file; a call takes two microseconds."""
        try:
            about = os.stat(self._path)
        except OSError:
            return ()
        return (about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_size)
