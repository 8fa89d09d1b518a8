"""What somebody who starts the daemon on a terminal is told of it."""

from __future__ import annotations

import shlex

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from claudeproxy.options import Settings
from claudeproxy.service import find

from .places import address
from .turn_lines import DEMO, NOT_LOGGED_IN, SUBSCRIPTION, UNKNOWN, Start

LOOK = 0.1
"""Seconds between two looks whether it is known if somebody is logged in."""

PATIENCE = 8.0
"""Seconds to wait for that before the rest is told."""


class Banner(Service):
    """Logs a :class:`~claudeproxy.command.turn_lines.Start` once the daemon listens and its login
    is known, and a line when it stops.

    The log's observer renders it.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, daemon: MultiService, settings: Settings) -> None:
        self._reactor = reactor
        self._daemon = find(daemon)
        self._settings = settings
        self._looking: IDelayedCall | None = None
        self._looks = 0

    def startService(self) -> None:
        super().startService()
        self._looking = self._reactor.callLater(0, self._look)

    def stopService(self) -> Deferred[None] | None:
        if self._looking is not None and self._looking.active():
            self._looking.cancel()
        running = self._daemon.engine.admission.running
        self.log.info(
            "stopping{more}",
            more=f": {running} running turns get up to {self._settings.drain:g} seconds"
            if running
            else "",
        )
        super().stopService()
        return None

    def _look(self) -> None:
        engine = self._daemon.engine
        login = engine.quota.login
        self._looks += 1
        known = login.works is not None or not engine.quota.applies
        ready = known and (engine.keeper.unused or engine.keeper.failures)
        if not ready and self._looks * LOOK < PATIENCE:
            self._looking = self._reactor.callLater(LOOK, self._look)
            return
        self.log.info("listening", start=self._start())

    def _start(self) -> Start:
        engine, settings = self._daemon.engine, self._settings
        login = engine.quota.login
        upstream = settings.upstream or DEMO
        if engine.quota.applies:
            upstream = {True: SUBSCRIPTION, False: NOT_LOGGED_IN, None: UNKNOWN}[login.works]
        places = (address(endpoint) for endpoint in settings.port)
        addresses = (
            endpoint if place is None else place.url
            for endpoint, place in zip(settings.port, places, strict=True)
        )
        return Start(
            tuple(addresses),
            self._daemon.cli.executable,
            self._daemon.cli.version,
            upstream,
            _remedy(login.advice.renewable, settings.claude),
            settings.api_key_file is not None,
            settings.record,
        )


def _remedy(renewable: bool, claude: str | None) -> str:
    chosen = [] if claude is None else ["--claude", claude]
    return shlex.join(["claudemax", "login", *([] if renewable else ["--token"]), *chosen])
