"""The agent that connects to the daemon if the program gives none."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

CONNECT_SECONDS = 10.0


def make_agent(reactor: Any) -> IAgent:
    """An agent with a connection for each question: one that is kept may just be closed by the
    daemon when a question is put on it, and then nobody knows whether it was asked."""
    agent: IAgent = Agent.usingEndpointFactory(reactor, _Endpoints(reactor))
    return agent


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Those of :class:`Agent` itself, but quiet: it would log the begin and end of each."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._policy = BrowserLikePolicyForHTTPS()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        endpoint = HostnameEndpoint(self._reactor, host, uri.port, CONNECT_SECONDS)
        if uri.scheme == b"https":
            trusted = self._policy.creatorForNetloc(uri.host, uri.port)
            return _Quiet(wrapClientTLS(trusted, endpoint))
        return _Quiet(endpoint)


@implementer(IStreamClientEndpoint)
class _Quiet:
    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory: Any = protocolFactory
        factory.noisy = False
        return self._endpoint.connect(factory)
