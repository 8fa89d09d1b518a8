"""Who may come in. Decided from the headers alone, before any body is read."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from twisted.web.http_headers import Headers

from claudeproxy.messages import Failure, Kind

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


@frozen
class Gate:
    """``hosts``: names accepted in ``Host`` besides the loopback ones, against DNS rebinding.
    ``origins``: web origins whose pages may call; ``max_body``: bytes."""

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    max_body: int = 64 * 1024 * 1024

    @classmethod
    def make(cls, hosts: Iterable[str], origins: Iterable[str], max_body: int) -> Gate:
        """A gate from the settings' lists."""
        return cls(
            frozenset(host.lower() for host in hosts),
            frozenset(origin.rstrip("/").lower() for origin in origins),
            max_body,
        )

    def refusal(self, headers: Headers) -> Failure | None:
        """Why a request with these headers is not let in."""
        host = _one(headers, "host")
        if host is None or _hostname(host) not in LOOPBACK | self.hosts:
            return _forbidden(
                f"this server does not answer for the host {host!r}; --allow-host adds a name"
            )
        origin = _one(headers, "origin")
        if origin is not None and not self.allows_origin(origin):
            return _forbidden(
                f"web pages of {origin!r} may not call this server; --allow-origin adds one"
            )
        if origin is None and _one(headers, "sec-fetch-site") == "cross-site":
            return _forbidden("requests from other sites' pages are refused")
        length = _one(headers, "content-length") or "0"
        if length.isdigit() and int(length) > self.max_body:
            return self.too_large()
        return None

    def allows_origin(self, origin: str) -> bool:
        """Whether pages of ``origin`` may call."""
        return origin.lower() in self.origins

    def too_large(self) -> Failure:
        """413 for a body over the limit."""
        return Failure(
            Kind.TOO_LARGE, f"the body is larger than {self.max_body} bytes (--max-body)", 413
        )


def is_json(headers: Headers) -> bool:
    """Whether the body is declared as JSON, which no HTML form can do."""
    kind = _one(headers, "content-type") or ""
    return kind.partition(";")[0].strip().lower() == "application/json"


def _one(headers: Headers, name: str) -> str | None:
    values = headers.getRawHeaders(name)
    return values[0].strip() if values and len(values) == 1 else None


def _hostname(host: str) -> str:
    host = host.lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].rstrip(".")


def _forbidden(message: str) -> Failure:
    return Failure(Kind.PERMISSION, message, 403)
