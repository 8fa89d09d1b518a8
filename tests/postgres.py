"""A PostgreSQL of one's own, for tests: made when first wanted, gone afterwards.

What it has committed survives :meth:`Postgres.kill`, but would not survive a power cut.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from itertools import count
from pathlib import Path

import psutil

from claudeproxy.ports import is_free

OWNER = "claudemax"
"""A superuser who needs no password on 127.0.0.1."""

GUARDED, PASSWORD = "guarded", "a pass:word@with/signs"
"""A superuser who does need one."""

PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian and Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
"""Where servers are that are not on the PATH."""

STOP = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# Below those that the system gives to connections: a server that is down gets its own back.
_PORTS = range(20_000, 30_000)

# Speed: nothing here has to survive a power cut. What is committed is with the system, though.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "5s",
    "log_statement": "none",
}


def missing() -> str | None:
    """Why there can be no PostgreSQL here, in words to skip a test with; ``None`` if there can."""
    if _directory() is None:
        return "PostgreSQL is not installed"
    if os.geteuid() == 0 and _account() is None:
        return "PostgreSQL refuses to run as root, and there is no other account"
    return None


def _directory() -> Path | None:
    """The newest server's programs; the one on the PATH goes first."""
    initdb = shutil.which("initdb")
    found = [Path(initdb).resolve().parent] if initdb else []
    others = [Path(path) for place in PLACES for path in glob(place)]
    found += sorted(others, key=_version, reverse=True)
    wanted = ("initdb", "postgres", "psql")
    return next((path for path in found if all((path / name).exists() for name in wanted)), None)


def _version(directory: Path) -> int:
    return int("".join(sign for sign in directory.parent.name if sign.isdigit()) or 0)


def _account() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    return None


class Postgres:
    """One server; :func:`throw_away` makes it. ``port``: on 127.0.0.1; ``socket_directory``: for
    its unix socket; ``log``: the file that it writes to."""

    def __init__(self, directory: Path) -> None:
        """``directory``: an empty one, with a short path, for that of a socket is bounded."""
        programs = _directory()
        assert programs is not None, missing()
        self._programs = programs
        self._data = directory / "data"
        self.socket_directory = directory
        self.log = directory / "log"
        self.port = 0
        self._numbers = count(1)
        self._server: subprocess.Popen[bytes] | None = None
        self._as = {}
        if os.geteuid() == 0:
            account = _account()
            assert account is not None, missing()
            os.chown(directory, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._make()

    def _make(self) -> None:
        words = [
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            f"--username={OWNER}",
        ]
        made = subprocess.run(
            [self._programs / "initdb", *words, "-D", self._data],
            cwd="/", env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
            check=False, **self._as,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")

    def create_database(self) -> str:
        """The URL of a new, empty database."""
        self.start()
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove one again, whoever is connected."""
        self.start()
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def url(self, database: str = "postgres", user: str = OWNER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> str:
        """What psql prints for statements: a row a line, the columns separated by ``|``."""
        ran = subprocess.run(
            [self._programs / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql,
             self.url(database)],
            cwd="/", env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    # -- up and down --

    @property
    def running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    @property
    def pid(self) -> int:
        """Of the postmaster, while it runs."""
        assert self._server is not None
        return self._server.pid

    def start(self) -> None:
        """Be up; on the same port as before, if there is one."""
        if self.running:
            return
        if self.port:
            assert self._serves(), self.log.read_text()[-2000:]
            return
        for self.port in random.SystemRandom().sample(_PORTS, 20):
            if is_free(self.port) and self._serves():
                self.execute(f"CREATE ROLE {GUARDED} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
                return
        raise AssertionError(self.log.read_text()[-2000:])

    def _serves(self) -> bool:
        """Whether it has come up; if not, it has ended."""
        settings = {
            **_SETTINGS,
            "port": self.port,
            "unix_socket_directories": self.socket_directory,
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(self.log, "ab") as log:
            self._server = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *words],
                cwd="/", env={"PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, **self._as,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while self.running:
            if self._is_ready():
                return True
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.01)
        return False

    def _is_ready(self) -> bool:
        """Its own word, in the file that it locks; one of a killed server has another process."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return lines[:1] == [str(self.pid)] and lines[7:8] == ["ready   "]

    def stop(self, mode: str = "fast") -> None:
        """Be down. ``smart`` waits for clients to leave, ``fast`` ends their sessions,
        ``immediate`` leaves a recovery for the next start."""
        if self.running:
            assert self._server is not None
            self._server.send_signal(STOP[mode])
            self._server.wait(60)

    def kill(self) -> None:
        """All its processes end without a goodbye."""
        if self.running:
            assert self._server is not None
            family = psutil.Process(self.pid)
            # Stopped first, or it would start others in the place of those that are killed.
            family.suspend()
            children = family.children(recursive=True)
            for process in (*children, family):
                process.kill()
            self._server.wait(60)
            psutil.wait_procs(children, 60)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()


@contextmanager
def throw_away() -> Iterator[Postgres]:
    """A server that runs, until the end of the block."""
    # Not below pytest's own directory, which root's other accounts cannot enter.
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = Postgres(directory)
        try:
            server.start()
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
