"""Where the daemon keeps things: what outlives it, and what goes when it ends."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from claudeproxy.engine.quota import Quota

ELSEWHERE = "XDG_STATE_HOME names another place"
"""What to do about a directory that cannot be used."""


def directory(environ: Mapping[str, str]) -> Path:
    """The directory for what outlives the daemon."""
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(environ.get("XDG_STATE_HOME") or Path(home, ".local", "state"), "claudemax")


class StateError(Exception):
    """A directory of the daemon's cannot be used; why, in one line."""


def working_directory(environ: Mapping[str, str]) -> Path:
    """The CLI's working directory: always the same, private and empty. Its path shows upstream.

    :raises StateError: when it cannot be made, or something is in it.
    """
    path = directory(environ) / "empty"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        found = next(path.iterdir(), None)
    except OSError as error:
        raise StateError(f"cannot make {path}: {error.strerror} ({ELSEWHERE})") from None
    if found is not None:
        raise StateError(f"{path} must be empty, and holds {found.name}")
    return path


def recordings(path: str, owner: int | None = None) -> Path:
    """The directory of :class:`~claudeproxy.web.recorder.Recorder`, made if need be.

    :raises StateError: when it cannot be made, or is not for ``owner`` (by default, the user of
        this process) alone.
    """
    folder, owner = Path(path), os.geteuid() if owner is None else owner
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        raise StateError(f"cannot make {folder}: {error.strerror}") from None
    if about.st_uid != owner:
        raise StateError(f"{folder} belongs to another user")
    if about.st_mode & 0o077:
        raise StateError(f"{folder} is open to others: chmod 700 {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StateError(f"{folder} cannot be written to")
    return folder


def responses_file(environ: Mapping[str, str]) -> Path:
    """Where responses are stored."""
    return directory(environ) / "responses.sqlite"


def ledger_file(environ: Mapping[str, str]) -> Path:
    """Where it is kept what each turn used."""
    return directory(environ) / "ledger.sqlite"


def outbox_file(environ: Mapping[str, str]) -> Path:
    """Where turns wait on their way to a ledger on another machine."""
    return directory(environ) / "outbox.sqlite"


SCRATCH = "claudemax-"
"""What the name of a daemon's scratch directory begins with; its process id follows."""


class Scratch:
    """A private directory for as long as a daemon runs.

    :raises OSError: when it cannot be made.
    """

    def __init__(self) -> None:
        sweep(Path(tempfile.gettempdir()))
        self.path = tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-")

    def remove(self) -> None:
        """Remove it, and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove the scratch directories in ``folder`` whose daemons, of this user, were killed."""
    for left in folder.glob(f"{SCRATCH}*-*"):
        pid = left.name.removeprefix(SCRATCH).partition("-")[0]
        with suppress(OSError):
            mine = left.lstat().st_uid == os.geteuid() and left.is_dir() and not left.is_symlink()
            if mine and pid.isdigit() and not _lives(int(pid)):
                shutil.rmtree(left, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


SAVE = 1.0
"""Seconds after which a change of the plan's windows is written, with those that follow it."""


class QuotaFile:
    """What is known of the plan, as a JSON file that only its owner can read. Losing it costs
    nothing: the next turn tells."""

    log = Logger()

    def __init__(self, reactor: IReactorTime, folder: Path) -> None:
        self._reactor = reactor
        self._path = folder / "quota.json"
        self._quota: Quota | None = None
        self._saving: IDelayedCall | None = None

    def open(self, quota: Quota) -> None:
        """Restore ``quota`` from the file as far as it still holds, and write its changes there
        from now on."""
        self._quota = quota
        kept = self.read()
        if kept is not None:
            try:
                quota.restore(kept)
            except (ValueError, TypeError, KeyError, AttributeError):
                self.log.info("{path} cannot be read: begun anew", path=str(self._path))
        quota.on_change = self._changed

    def close(self) -> None:
        """Write what is not written yet."""
        if self._saving is not None and self._saving.active():
            self._saving.cancel()
            self._save()

    def _changed(self) -> None:
        if self._saving is None or not self._saving.active():
            self._saving = self._reactor.callLater(SAVE, self._save)

    def _save(self) -> None:
        assert self._quota is not None
        self.write(self._quota.kept())

    def read(self) -> Any:
        """What was written last; ``None`` if there is nothing that can be read."""
        try:
            return json.loads(self._path.read_text())
        except (OSError, ValueError, RecursionError):
            return None

    def write(self, value: Mapping[str, Any]) -> None:
        """Replace it, whole or not at all."""
        new = self._path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w") as file:
                json.dump(value, file)
            new.replace(self._path)
