"""The wiring: settings in, a service out. Everything is made here and passed on from here."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.application import strports
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.utils import getProcessOutput
from twisted.logger import Logger
from twisted.web.resource import IResource

from claudeproxy.cli import launch
from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.session import Session
from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.engine.deadlines import Deadlines
from claudeproxy.engine.engine import Engine, Limits
from claudeproxy.options import ConfigError, Settings
from claudeproxy.web.api import API
from claudeproxy.web.gate import Gate
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
        self._logged_in: bool | None = None
        try:
            self._executable = launch.find(settings.claude, environ.get("PATH"))
            self._version = launch.check_version(self._executable, launch.environment(environ))
        except launch.CLIError as error:
            raise ConfigError(str(error)) from None
        self._directory = working_directory(environ)
        self._child_environment = launch.environment(environ)
        self.engine = Engine(
            reactor, self._spawn, Catalogue(dict(settings.model_alias)), _limits(settings)
        )
        self.gate = Gate.make(settings.allow_host, settings.allow_origin, settings.max_body)
        self._store = None if settings.no_store else Store(state(environ) / "responses.sqlite")
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
        if url is not None:
            self._use_upstream(url)
        else:
            self._ask_login()
        self.log.info(
            "claude {version} at {executable}, upstream: {upstream}",
            version=self._version,
            executable=self._executable,
            upstream=self._upstream_name,
        )
        self.engine.start()

    def stopService(self) -> Deferred[None]:
        """Let running turns end within ``--drain``, then end every process."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
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
        return self._settings.upstream or "subscription"

    def _status(self) -> Status:
        return Status(self._version, self._upstream_name, self._logged_in)

    def _start_demo(self) -> str:
        from twisted.web.server import Site

        from claudeproxy.demo.app import DemoUpstream

        site = Site(DemoUpstream(self._reactor).resource())
        site.noisy = False
        port = self._reactor.listenTCP(0, site, interface="127.0.0.1")
        return f"http://127.0.0.1:{port.getHost().port}"

    def _use_upstream(self, url: str) -> None:
        # A login in the CLI's reach would be sent to that upstream.
        self._scratch = tempfile.mkdtemp(prefix="claudemax-")
        upstream = launch.Upstream(url, self._settings.upstream_key, self._scratch)
        self._child_environment = launch.environment(self._environ, upstream)

    def _ask_login(self) -> None:
        """Learn whether the CLI is logged in; ``auth status`` spends no quota."""

        def learned(output: bytes) -> None:
            self._logged_in = launch.parse_login(output)
            if self._logged_in is False:
                self.log.warn("the Claude CLI is not logged in: run it once and use /login")

        asked = getProcessOutput(
            self._executable,
            ("auth", "status"),
            self._child_environment,
            self._directory,
            self._reactor,
            errortoo=False,
        )
        asked.addCallbacks(learned, lambda reason: self.log.failure("auth status", reason))

    def _spawn(self, engine: Engine) -> CLIProcess:
        if not os.access(self._executable, os.X_OK):
            raise launch.CLIError(f"it is gone from {self._executable}")
        process = CLIProcess(self._reactor, Session(time.time), engine)
        command = launch.command(self._executable, self._directory)
        self._reactor.spawnProcess(process, command[0], command, self._child_environment)
        return process


LAST_BYTES = 2.0
"""Seconds for the last replies to leave, once all turns are over."""


def make_service(
    reactor: Any, settings: Settings, environ: dict[str, str] | None = None
) -> MultiService:
    """The daemon: a :class:`Claudemax`, and a listening service per ``--port``.

    :raises ConfigError: when it cannot be served as the settings ask.
    """
    daemon = MultiService()
    api = Claudemax(reactor, settings, dict(os.environ if environ is None else environ))
    api.setServiceParent(daemon)
    for endpoint in settings.port:
        strports.service(endpoint, api.site, reactor).setServiceParent(daemon)
    return daemon


def state(environ: dict[str, str]) -> Path:
    """The directory for what outlives the daemon."""
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(environ.get("XDG_STATE_HOME") or Path(home, ".local", "state"), "claudemax")


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
