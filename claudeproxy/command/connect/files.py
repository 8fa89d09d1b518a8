"""A client's file on disk: read, written at once with its mode kept, and brought back."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from attrs import frozen

NEW_MODE = 0o600
"""Of a file that was not there: it may hold a key."""


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"{path} cannot be {what}: {error.strerror}") from None


def read(path: Path) -> bytes | None:
    """What is in the file; ``None`` if there is none.

    :raises click.ClickException: when it cannot be read.
    """
    with _told(path, "read"):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


@frozen
class Backup:
    """What was there before: ``path`` is a copy, or where there was nothing an empty mark of
    that."""

    path: Path
    nothing: bool

    def content(self) -> bytes | None:
        """As :func:`read`."""
        return None if self.nothing else read(self.path)


def backups(path: Path) -> list[Backup]:
    """Those beside ``path``, the oldest first."""
    target = path.resolve()
    pattern = re.compile(re.escape(target.name) + r"\.claudemax-(\d+)\.(bak|none)")
    with _told(target.parent, "read"):
        names = os.listdir(target.parent) if target.parent.is_dir() else []
    found = sorted((int(m[1]), m[2], m[0]) for name in names if (m := pattern.fullmatch(name)))
    return [Backup(target.parent / name, kind == "none") for _, kind, name in found]


def write(path: Path, old: bytes | None, new: bytes) -> Backup:
    """Put ``new`` where ``old`` was read, and ``old`` into a backup beside it.

    :raises click.ClickException: when it cannot be done, or the file is another one by now.
    """
    target = path.resolve()  # a link stays one
    if read(target) != old:
        raise click.ClickException(f"{path} was changed meanwhile; nothing was written")
    numbers = [int(backup.path.name.split("-")[-1].split(".")[0]) for backup in backups(path)]
    kind = "none" if old is None else "bak"
    backup = target.with_name(f"{target.name}.claudemax-{max(numbers, default=0) + 1}.{kind}")
    with _told(path, "written"):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = NEW_MODE if old is None else target.stat().st_mode & 0o7777
        _replace(backup, old or b"", mode)
        _replace(target, new, mode)
    return Backup(backup, old is None)


def restore(path: Path, backup: Backup) -> None:
    """Bring the file back, byte for byte, and remove the backup.

    :raises click.ClickException: when it cannot be done.
    """
    target = path.resolve()
    with _told(path, "written"):
        if backup.nothing:
            target.unlink(missing_ok=True)
            backup.path.unlink()
        else:
            os.replace(backup.path, target)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write it beside, then rename: nobody reads half a file."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
