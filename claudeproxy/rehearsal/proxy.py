"""The way there: an HTTPS proxy whose every tunnel ends in the made-up hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trustme
from attrs import frozen
from twisted.internet import ssl
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.web.server import Site

from claudeproxy._reactor import IServerReactor

from .subscription import Subscription

_HOSTS = tuple(
    name
    for domain in ("anthropic.com", "claude.ai", "claude.com")
    for name in (domain, f"*.{domain}")
)


@frozen
class Rehearsal:
    """A subscription that can be reached. ``environment``: what leads a CLI there."""

    subscription: Subscription
    port: IListeningPort
    environment: dict[str, str]


async def rehearse(reactor: IServerReactor, directory: Path, **demo: Any) -> Rehearsal:
    """Serve a subscription on a free loopback port, with a certificate of a private CA, whose own
    is put into ``directory``. ``demo``: as :class:`~claudeproxy.demo.app.DemoUpstream` takes it."""
    subscription = Subscription(reactor, **demo)
    authority = trustme.CA()
    trusted = directory / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    site = Site(subscription.resource())
    site.noisy = False
    site.log = lambda request: None  # type: ignore[method-assign]
    proxy = _Proxy(site, _certificate(authority))
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(proxy)
    url = f"http://127.0.0.1:{port.getHost().port}"
    return Rehearsal(
        subscription,
        port,
        {"HTTPS_PROXY": url, "HTTP_PROXY": url, "NODE_EXTRA_CA_CERTS": str(trusted)},
    )


def _certificate(authority: trustme.CA) -> Any:
    made = authority.issue_cert(*_HOSTS)
    pem = made.private_key_pem.bytes() + made.cert_chain_pems[0].bytes()
    found = ssl.PrivateCertificate.loadPEM(pem)
    return ssl.CertificateOptions(
        privateKey=found.privateKey.original,
        certificate=found.original,
        acceptableProtocols=[b"http/1.1"],
    )


class _Proxy(Factory):
    noisy = False

    def __init__(self, site: Site, certificate: Any) -> None:
        self.site = site
        self.certificate = certificate

    def buildProtocol(self, address: Any) -> _Tunnel:
        return _Tunnel(self, address)


class _Tunnel(Protocol):
    """Reads the CONNECT, says yes whatever the host, and hands the connection to the site."""

    transport: Any

    def __init__(self, proxy: _Proxy, address: Any) -> None:
        self._proxy = proxy
        self._address = address
        self._head = b""

    def dataReceived(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" not in self._head:
            return
        if not self._head.startswith(b"CONNECT "):
            self.transport.loseConnection()
            return
        self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        channel: Any = self._proxy.site.buildProtocol(self._address)
        self.transport.protocol = channel
        self.transport.startTLS(self._proxy.certificate)
        channel.makeConnection(self.transport)
