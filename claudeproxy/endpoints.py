"""The endpoints of ``--port``: which of them may be served, and the services that serve them."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, NoReturn

from attrs import field, frozen
from twisted.application import strports
from twisted.application.service import MultiService
from twisted.internet import endpoints
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IReactorCore
from twisted.internet.protocol import Factory

from claudeproxy import ports
from claudeproxy.options import ConfigError

LOCKED = "Cannot acquire lock"
"""Twisted's words for a unix socket that is in use."""


def _at_once() -> Deferred[None]:
    return succeed(None)


class ListeningService(MultiService):
    """Listens on one endpoint. If that fails, twistd exits with status 1 and one line."""

    def __init__(
        self,
        description: str,
        factory: IProtocolFactory,
        reactor: IReactorCore,
        leave: Callable[[], Deferred[None]] = _at_once,
    ) -> None:
        """``leave``: called at the stop; when it fires, the endpoint is given up."""
        super().__init__()
        self._description = description
        self._leave = leave
        strports.service(description, factory, reactor).setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Listen. twistd calls this while it still has all its privileges."""
        with self._in_one_line():
            super().privilegedStartService()

    def startService(self) -> None:
        """Listen, unless that has been done."""
        with self._in_one_line():
            super().startService()

    def stopService(self) -> Deferred[None]:
        """Listen no more, as soon as that may be."""
        return self._leave().addCallback(lambda _: super(ListeningService, self).stopService())

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except (CannotListenError, OSError, OverflowError) as error:
            cause = getattr(error, "socketError", error)
            why = getattr(cause, "strerror", None) or cause
            if cause == LOCKED:
                why = "another server listens there"
            why = f"{why}{_remedy(error, cause)}"
            # Not SystemExit: a twistd that goes into the background would wait forever.
            sys.tracebacklimit = 0
            raise ConfigError(f"--port {self._description}: {why}") from None


def _remedy(error: Exception, cause: object) -> str:
    """What to do about a place where one cannot listen."""
    number = getattr(cause, "errno", None)
    port, host = getattr(error, "port", None), getattr(error, "interface", None) or "127.0.0.1"
    if not isinstance(port, int):
        return ""
    if number == errno.EADDRINUSE:
        held, free = ports.holder(port), ports.next_free(port, host)
        by = "" if held is None else f" by {held}"
        return f"{by}; --port {free} is free" if free else by
    if number == errno.EACCES:
        return "; ports below 1024 are the system's: take a higher one"
    if number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return f"; this machine has no address {host}: --port {port} listens on 127.0.0.1"
    return ""


def check(descriptions: Iterable[str], keyed: bool) -> None:
    """Check that all ``descriptions`` may be served; without a key, only local ones may.

    :raises ConfigError: otherwise.
    """
    for description in descriptions:
        try:
            local = is_local(description)
        except ValueError as error:
            raise ConfigError(f"--port {description}: {error}") from None
        if not local and not keyed:
            raise ConfigError(
                f"--port {description} can be reached from other machines, which needs "
                "--api-key-file (`claudemax key` makes a key); without one only 127.0.0.1, ::1 "
                "and unix sockets are served"
            )


_JUDGED = (
    endpoints.TCP4ServerEndpoint,
    endpoints.TCP6ServerEndpoint,
    endpoints.SSL4ServerEndpoint,
    endpoints.UNIXServerEndpoint,
    endpoints.AdoptedStreamServerEndpoint,
)


def is_local(description: str) -> bool:
    """Whether only this machine can reach the endpoint ``description``.

    The endpoint is told to listen on a reactor that only notes where, so nothing really listens.
    Endpoints of an unknown kind count as reachable by others.

    :raises ValueError: when it is not an endpoint; the text says why, in one line.
    """
    notes = _Notes()
    try:
        endpoint = endpoints.serverFromString(notes, description)
    except Exception as error:  # a broken certificate raises anything of OpenSSL's
        raise ValueError(_reason(error)) from None
    if not isinstance(endpoint, _JUDGED):
        return False
    attempt: Any = endpoint.listen  # Any: it has no types
    attempt(Factory()).addErrback(lambda reason: None)
    return notes.places != [] and all(notes.places)


class _NotReally(Exception):
    """Ends an attempt to listen once it is known where."""


@frozen
class _Notes:
    """The part of a reactor that endpoints need. Each call notes whether the place is local."""

    places: list[bool] = field(factory=list)

    def listenTCP(self, port: int, factory: Any, backlog: int, interface: str = "") -> NoReturn:
        self._note(_is_loopback(interface))

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int, interface: str = ""
    ) -> NoReturn:
        self._note(_is_loopback(interface))

    def listenUNIX(self, address: str, *args: Any, **kwargs: Any) -> NoReturn:
        self._note(True)

    def adoptStreamPort(self, descriptor: int, family: int, factory: Any) -> NoReturn:
        with socket.socket(fileno=socket.dup(descriptor)) as adopted:
            name = adopted.getsockname()
            self._note(adopted.family == socket.AF_UNIX or _is_loopback(name[0]))

    def _note(self, local: bool) -> NoReturn:
        self.places.append(local)
        raise _NotReally


def _is_loopback(interface: str) -> bool:
    try:
        return interface == "localhost" or ip_address(interface).is_loopback
    except ValueError:
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, TypeError):  # Twisted calls its own parsers with the parts
        return "a part of it is missing, or one too many"
    if isinstance(error, LookupError):
        return "there is no such socket from systemd"
    said = " ".join(str(error).split())
    if "invalid literal" in said:
        return "a part of it must be a number"
    if type(error).__module__.startswith("OpenSSL"):
        return "there is no usable key and certificate"
    return said or type(error).__name__
