"""The stand-in as a service: it has a port of its own for as long as it runs."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorTCP
from twisted.web.server import Site

from claudeproxy.demo.app import DemoUpstream


class DemoService(Service):
    """Serves a stand-in on a free loopback port."""

    def __init__(self, reactor: IReactorTCP, demo: DemoUpstream) -> None:
        self._reactor = reactor
        self._demo = demo
        self._port: IListeningPort | None = None

    @property
    def url(self) -> str:
        """For `ANTHROPIC_BASE_URL`, once it is started."""
        assert self._port is not None, "it is not started"
        address: Any = self._port.getHost()
        return f"http://127.0.0.1:{address.port}"

    def startService(self) -> None:
        """Listen."""
        super().startService()
        site: Any = Site(self._demo.resource())
        site.noisy = False
        site.log = lambda request: None
        self._port = self._reactor.listenTCP(0, site, interface="127.0.0.1")

    def stopService(self) -> Deferred[None] | None:
        """Listen no more."""
        super().stopService()
        assert self._port is not None
        port, self._port = self._port, None
        stopped: Deferred[None] | None = port.stopListening()
        return stopped
