"""Which requests are let in. It is decided by the headers alone, before a body is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from attrs import frozen
from twisted.web.http_headers import Headers

from claudeproxy.messages import Failure, FailureError, Kind

from .key_rules import Rules
from .keys import Keys, offered

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

EXPOSED = (
    "x-request-id, request-id, retry-after, x-should-retry, "
    "x-claudemax-conversation, "
    "x-claudemax-estimate, x-claudemax-ignored, x-claudemax-model, x-claudemax-process, "
    "x-claudemax-queue-ms, x-claudemax-truncated, "
    "anthropic-ratelimit-unified-5h-utilization, anthropic-ratelimit-unified-5h-reset, "
    "anthropic-ratelimit-unified-5h-status, "
    "anthropic-ratelimit-unified-7d-utilization, anthropic-ratelimit-unified-7d-reset, "
    "anthropic-ratelimit-unified-7d-status, "
    "anthropic-ratelimit-unified-representative-claim, anthropic-ratelimit-unified-reset, "
    "anthropic-ratelimit-unified-overage-status, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
    "anthropic-ratelimit-requests-limit, anthropic-ratelimit-requests-remaining, "
    "anthropic-ratelimit-requests-reset, anthropic-ratelimit-tokens-limit, "
    "anthropic-ratelimit-tokens-remaining, anthropic-ratelimit-tokens-reset"
)
"""The headers of a reply that pages of an allowed origin may read besides the usual ones."""

PREFLIGHT_SECONDS = 600
"""How long a browser need not ask again."""

FORM_BYTES = 4096
"""The largest form, which is read before its sender has shown a key."""

_VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


@frozen
class Gate:
    """``hosts``: names accepted in ``Host`` besides the loopback ones, against DNS rebinding.
    ``origins``: web origins whose pages may call; ``max_body``: bytes; ``find_keys``: tells the
    keys, one of which a request must send; ``None`` if it need not; ``now``: epoch seconds.

    ``pages``: first segments of paths at which a browser may look without a key, because what is
    there asks for a sign-in itself; ``forms``: the paths to which such a page sends its forms.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    max_body: int = 64 * 1024 * 1024
    find_keys: Callable[[], Keys] | None = None
    now: Callable[[], float] = time.time
    pages: frozenset[bytes] = frozenset()
    forms: frozenset[bytes] = frozenset()

    @classmethod
    def make(
        cls,
        hosts: Iterable[str],
        origins: Iterable[str],
        max_body: int,
        find_keys: Callable[[], Keys] | None = None,
        now: Callable[[], float] = time.time,
    ) -> Gate:
        """A gate from the lists of the settings."""
        return cls(
            frozenset(host.lower() for host in hosts),
            frozenset(origin.rstrip("/").lower() for origin in origins),
            max_body,
            find_keys,
            now,
        )

    @property
    def keys(self) -> Keys | None:
        """The keys that count now; ``None`` if none is needed."""
        return None if self.find_keys is None else self.find_keys()

    def refusal(
        self,
        headers: Headers,
        *,
        unix: bool = False,
        keyless: bool = False,
        form: bool = False,
        untyped: bool = False,
    ) -> Failure | None:
        """Why a request with these headers is refused; ``None`` if it is not.

        ``unix``: it came over a unix socket. No web page can reach one, so any ``Host`` will do.
        ``keyless``: it needs no key as long as it has no body; a wrong key is refused all the
        same. ``form``: it is a form of a page of ours, see :meth:`is_form`. ``untyped``: its body
        need not be declared as JSON, if no browser sends it, see :meth:`is_untyped`.
        """
        host = _one(headers, "host")
        if host is None and not unix:
            return _forbidden("a request needs one Host header")
        if host is not None and not unix and not self._answers_for(host):
            return _forbidden(
                f"this server does not serve the host {host!r}; --allow-host adds a name"
            )
        if form:
            return _form_refusal(headers, host or "")
        origin = _one(headers, "origin")
        if headers.hasHeader("origin") and not self.allows_origin(origin):
            return _forbidden(
                f"web pages of {origin!r} may not call this server; --allow-origin adds one"
            )
        if origin is None and _one(headers, "sec-fetch-site") == "cross-site":
            return _forbidden("requests from pages of other sites are refused")
        keys = self.keys
        name = None if keys is None else _name_in(keys, headers)
        if keys is not None and name is None:
            sent = headers.hasHeader("authorization") or headers.hasHeader("x-api-key")
            if sent or not keyless or _has_body(headers):
                return _no_key(sent)
        rules = Rules() if keys is None or name is None else keys.rules_of(name)
        if rules.expired(self.now()):
            return _unauthenticated(
                f"the key {name!r} has expired: it counted until {rules.expires}"
            )
        length = _one(headers, "content-length") or "0"
        typed = _is_json(headers) or (untyped and _is_left_to_curl(headers))
        if _has_body(headers) and not typed:
            return Failure(Kind.INVALID, "content-type must be application/json", 415)
        if headers.getRawHeaders("content-encoding", ["identity"]) != ["identity"]:
            return Failure(Kind.INVALID, "send the body without a content-encoding", 415)
        if length.isdigit() and int(length) > self.max_body:
            return self.too_large()
        return None

    def is_keyless(self, method: bytes, path: bytes, headers: Headers) -> bool:
        """Whether the request needs no key. ``path``: without the slashes around it."""
        looks = method in (b"GET", b"HEAD")
        if looks and (path == b"health" or path.partition(b"/")[0] in self.pages):
            return True
        return self.preflight(method, headers) is not None

    def is_form(self, method: bytes, path: bytes) -> bool:
        """Whether the request is a form of a page of ours, by where it goes."""
        return method == b"POST" and path in self.forms

    def is_untyped(self, path: bytes) -> bool:
        """Whether a body need not be declared as JSON, by where it goes: Ollama's documents say
        just ``curl -d``."""
        return path.partition(b"/")[0] == b"api"

    def key_name(self, headers: Headers) -> str | None:
        """The name of the key that was sent. Unlike the key, it may be logged."""
        keys = self.keys
        return None if keys is None else _name_in(keys, headers)

    def sender(self, headers: Headers) -> tuple[str | None, Rules]:
        """The name of the key that was sent, and what its holder may do, as the file is now; no
        name and no rules where no key is needed.

        :raises FailureError: 401, if the key has been taken out of the file since it was let in.
        """
        keys = self.keys
        if keys is None:
            return None, Rules()
        name = _name_in(keys, headers)
        if name is None:
            raise FailureError(_no_key(sent=True))
        return name, keys.rules_of(name)

    def shows_all(self, headers: Headers) -> bool:
        """Whether the sender may see more than whether the daemon is up."""
        return self.find_keys is None or self.key_name(headers) is not None

    def allows_origin(self, origin: str | None) -> bool:
        """Whether pages of ``origin`` may call."""
        return origin is not None and origin.lower() in self.origins

    def for_page(self, headers: Headers) -> dict[str, str]:
        """The headers that allow the page which asked to read a reply; usually none."""
        origin = _one(headers, "origin")
        if origin is None or not self.allows_origin(origin):
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": EXPOSED,
            "vary": "Origin",
        }

    def preflight(self, method: bytes, headers: Headers) -> dict[str, str] | None:
        """The headers of the reply to a browser that asks whether a page may call; ``None`` if the
        request is not of that kind. Browsers send no key with it."""
        origin = _one(headers, "origin")
        wanted = _one(headers, "access-control-request-method")
        if method != b"OPTIONS" or wanted is None or not self.allows_origin(origin):
            return None
        reply = {
            "access-control-allow-origin": origin or "",
            "access-control-allow-methods": wanted,
            "access-control-max-age": str(PREFLIGHT_SECONDS),
            "vary": _VARY,
        }
        names = _one(headers, "access-control-request-headers")
        if names is not None:
            reply["access-control-allow-headers"] = names
        return reply

    def too_large(self) -> Failure:
        """A 413 for a body over the limit."""
        return Failure(
            Kind.TOO_LARGE, f"the body is larger than {self.max_body} bytes (--max-body)", 413
        )

    def _answers_for(self, host: str) -> bool:
        return bool({host.lower(), _hostname(host)} & (LOOPBACK | self.hosts))


def _name_in(keys: Keys, headers: Headers) -> str | None:
    return keys.name_of(offered(_one(headers, "authorization"), _one(headers, "x-api-key")))


def _form_refusal(headers: Headers, host: str) -> Failure | None:
    """Browsers send the origin of the page with every form, unless they are older than that."""
    origin, site = _one(headers, "origin"), _one(headers, "sec-fetch-site")
    own = origin is not None and urlsplit(origin).netloc.lower() == host.lower()
    if headers.hasHeader("origin") and not own:
        return _forbidden("forms of other pages are refused")
    if origin is None and site not in (None, "same-origin"):
        return _forbidden("forms of other pages are refused")
    if _media_type(headers) != "application/x-www-form-urlencoded":
        return Failure(Kind.INVALID, "this takes the form of the page at /", 415)
    length = _one(headers, "content-length") or ""
    if headers.hasHeader("transfer-encoding") or not length.isdigit():
        return Failure(Kind.INVALID, "a form needs a content-length", 411)
    if int(length) > FORM_BYTES:
        return Failure(Kind.TOO_LARGE, f"the form is larger than {FORM_BYTES} bytes", 413)
    return None


def _has_body(headers: Headers) -> bool:
    lengths = headers.getRawHeaders("content-length", ["0"])
    return lengths != ["0"] or headers.hasHeader("transfer-encoding")


def _is_json(headers: Headers) -> bool:
    """Whether the body is declared as JSON, which an HTML form cannot do."""
    return _media_type(headers) == "application/json"


def _is_left_to_curl(headers: Headers) -> bool:
    """Whether the type of the body is what ``curl -d`` says by itself, or none, and the sender is
    no browser: those of today send ``Origin`` with every POST, and most of them both headers."""
    if headers.hasHeader("origin") or headers.hasHeader("sec-fetch-site"):
        return False
    declared = headers.hasHeader("content-type")
    return not declared or _media_type(headers) == "application/x-www-form-urlencoded"


def _media_type(headers: Headers) -> str:
    return (_one(headers, "content-type") or "").partition(";")[0].strip().lower()


def _one(headers: Headers, name: str) -> str | None:
    values = headers.getRawHeaders(name.encode())
    if values is None or len(values) != 1:
        return None
    return values[0].decode("utf-8", "replace").strip()


def _hostname(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return (name if colon and (port.isdigit() or not port) else host.lower()).removesuffix(".")


def _forbidden(message: str) -> Failure:
    return Failure(Kind.PERMISSION, message, 403)


def _no_key(sent: bool) -> Failure:
    message = (
        "this key is not in --api-key-file"
        if sent
        else "a key is needed: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`"
    )
    return _unauthenticated(message)


def _unauthenticated(message: str) -> Failure:
    return Failure(Kind.AUTHENTICATION, message, 401, code="invalid_api_key")
