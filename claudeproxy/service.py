"""The wiring: settings in, a service out. Everything is made here and passed on from here."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.resource import IResource

from claudeproxy.cli import launch
from claudeproxy.cli.installation import Installation
from claudeproxy.endpoints import Door, check
from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.engine.deadlines import Deadlines
from claudeproxy.engine.engine import Engine, Limits
from claudeproxy.options import ConfigError, Settings
from claudeproxy.web.api import API
from claudeproxy.web.gate import Gate
from claudeproxy.web.keys import KeyFileError, Keys
from claudeproxy.web.keys import read as read_keys
from claudeproxy.web.pages import Status
from claudeproxy.web.site import LimitedSite
from claudeproxy.web.store import Store


class Claudemax(MultiService):
    """The daemon without its ports: start it, and mount :attr:`resource` wherever you like.

    ``site`` is the same resource with the limits of the daemon's own site around it.
    """

    log = Logger()

    def __init__(self, reactor: Any, settings: Settings, environ: dict[str, str]) -> None:
        """:raises ConfigError: when there is no CLI to use."""
        super().__init__()
        self._reactor = reactor
        self._settings = settings
        self._environ = environ
        self._scratch: str | None = None
        try:
            executable = launch.find(settings.claude, environ.get("PATH"))
            version = launch.check_version(executable, launch.environment(environ))
        except launch.CLIError as error:
            raise ConfigError(str(error)) from None
        self.cli = Installation(reactor, executable, version, working_directory(environ))
        self._watching = LoopingCall(lambda: ensureDeferred(self._watch()))
        self._watching.clock = reactor
        self.engine = Engine(
            reactor, self.cli.spawn, Catalogue(dict(settings.model_alias)), _limits(settings)
        )
        self.gate = Gate.make(
            settings.allow_host, settings.allow_origin, settings.max_body, _keys(settings)
        )
        self._store = None if settings.no_store else _store(environ)
        api = API(reactor, self.engine, self.gate, self._status, self._store)
        self.resource: IResource = api.resource()
        self.site = LimitedSite(reactor, self.resource, self.gate)

    def startService(self) -> None:
        """Start the upstream that was asked for, then the warm processes."""
        super().startService()
        if self._store is not None:
            self._store.open(self._reactor)
        url = self._settings.upstream
        if self._settings.demo:
            url = self._start_demo()
        self._prepare_environment(url)
        self.log.info(
            "claude {version} at {executable}, upstream: {upstream}",
            version=self.cli.version,
            executable=self.cli.executable,
            upstream=self._upstream_name,
        )
        self.engine.start()
        self._watching.start(WATCH)

    def stopService(self) -> Deferred[None]:
        """Let running turns end within ``--drain``, then end every process."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        if self._watching.running:
            self._watching.stop()
        drained = self.site.drain()
        await self.engine.stop(self._settings.drain)
        late = self._reactor.callLater(LAST_BYTES, self.site.abort)
        await drained
        if late.active():
            late.cancel()
        stopped = super().stopService()
        if stopped is not None:
            await stopped
        if self._store is not None:
            self._store.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def _upstream_name(self) -> str:
        if self._settings.demo:
            return "demo"
        return self._settings.upstream or SUBSCRIPTION

    def _status(self) -> Status:
        return Status(self.cli.version, self._upstream_name, self.engine.standing.logged_in)

    def _start_demo(self) -> str:
        from twisted.web.server import Site

        from claudeproxy.demo.app import DemoUpstream

        site = Site(DemoUpstream(self._reactor).resource())
        site.noisy = False
        site.log = lambda request: None  # type: ignore[method-assign]
        port = self._reactor.listenTCP(0, site, interface="127.0.0.1")
        return f"http://127.0.0.1:{port.getHost().port}"

    def _prepare_environment(self, url: str | None) -> None:
        """``url``: an upstream in place of the subscription. A login within the CLI's reach would
        be sent there, so it gets a configuration of its own."""
        self._scratch = tempfile.mkdtemp(prefix="claudemax-")
        upstream = None
        if url is not None:
            upstream = launch.Upstream(url, self._settings.upstream_key, f"{self._scratch}/config")
            os.mkdir(upstream.config_dir, 0o700)
        self.cli.environment = {
            **launch.environment(self._environ, upstream),
            # It logs each tool call there; errors with their text.
            "XDG_CACHE_HOME": f"{self._scratch}/cache",
            "TMPDIR": self._scratch,  # it litters, and never more so than when it is killed
        }

    async def _watch(self) -> None:
        """Notice a CLI that was updated, and somebody who logs in."""
        try:
            if await self.cli.changed():
                self.log.info("the Claude CLI is now {version}", version=self.cli.version)
                self.engine.renew()
            standing = self.engine.standing
            if self._upstream_name == SUBSCRIPTION and standing.logged_in is not True:
                before, standing.logged_in = standing.logged_in, await self.cli.logged_in()
                if before is False and standing.logged_in:
                    self.engine.renew()
        except OSError as error:
            self.log.warn("the Claude CLI cannot be asked: {error}", error=str(error))


SUBSCRIPTION = "subscription"
"""The upstream that the CLI talks to by itself."""

WATCH = 10.0
"""Seconds between two looks at the CLI and its login."""

LAST_BYTES = 2.0
"""Seconds for the last replies to leave, once all turns are over."""


def make_service(
    reactor: Any, settings: Settings, environ: dict[str, str] | None = None
) -> MultiService:
    """The daemon: a :class:`Claudemax`, and a listening service per ``--port``.

    :raises ConfigError: when it cannot be served as the settings ask.
    """
    check(settings.port, keyed=settings.api_key_file is not None)
    daemon = MultiService()
    api = Claudemax(reactor, settings, dict(os.environ if environ is None else environ))
    api.setServiceParent(daemon)
    for endpoint in settings.port:
        Door(endpoint, api.site, reactor).setServiceParent(daemon)
    return daemon


def _keys(settings: Settings) -> Keys | None:
    if settings.api_key_file is None:
        return None
    try:
        return read_keys(settings.api_key_file)
    except KeyFileError as error:
        raise ConfigError(f"--api-key-file {settings.api_key_file}: {error}") from None


def state(environ: dict[str, str]) -> Path:
    """The directory for what outlives the daemon."""
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(environ.get("XDG_STATE_HOME") or Path(home, ".local", "state"), "claudemax")


def _store(environ: dict[str, str]) -> Store:
    path = state(environ) / "responses.sqlite"
    try:
        return Store(path)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot make {path}: {why} (--no-store)") from None


def working_directory(environ: dict[str, str]) -> str:
    """The CLI's working directory: always the same, private and empty. Its path shows upstream.

    :raises ConfigError: when something is in it, or it cannot be made.
    """
    directory = state(environ) / "empty"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        found = next(directory.iterdir(), None)
    except OSError as error:
        raise ConfigError(f"cannot make {directory}: {error.strerror}") from None
    if found is not None:
        raise ConfigError(f"{directory} must be empty, and holds {found.name}")
    return str(directory)


def _limits(settings: Settings) -> Limits:
    return Limits(
        warm=settings.warm,
        starts=max(1, os.cpu_count() or 1),
        concurrency=settings.concurrency,
        queue=settings.queue,
        keep=settings.keep,
        keep_seconds=settings.keep_seconds,
        park=settings.park,
        deadlines=Deadlines(
            settings.first_token_timeout, settings.idle_timeout, settings.turn_timeout
        ),
    )
