"""The routes of the page. Importing this module imports Klein, and with it installs the reactor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from klein import Klein
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason
from twisted.web.resource import IResource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from claudeproxy._reactor import IDaemonReactor
from claudeproxy.messages import Failure, Kind
from claudeproxy.store.database import StoreLost
from claudeproxy.web.access_log import facts
from claudeproxy.web.gate import Gate
from claudeproxy.web.json_replies import phrase, reply
from claudeproxy.web.storing import LOST

from . import charts, document, history
from .live import Live
from .replies import CHART_POLICY, base, html, not_signed_in, refused, secure, text, to_page
from .settings import Setting
from .sign_in import LIFETIME, Sessions
from .snapshot import Sources

AREAS = frozenset({b"", b"page"})
"""The first segments of the page's paths."""

FORMS = frozenset({b"page/sign-in", b"page/sign-out"})
"""The paths to which it sends its forms."""

_STATIC = Path(__file__).with_name("static")

_FILES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}

_CHARTS: dict[str, tuple[Callable[..., bytes], Callable[..., list[history.Period]]]] = {
    "tokens-24h": (charts.tokens, history.hours),
    "tokens-30d": (charts.tokens, history.days),
    "cache-24h": (charts.cache, history.hours),
    "cache-30d": (charts.cache, history.days),
}


class Page:
    """The page at ``/``, and what it consists of below ``/page``."""

    app = Klein()
    log = Logger()

    def __init__(
        self, reactor: IDaemonReactor, sources: Sources, gate: Gate, settings: Sequence[Setting]
    ) -> None:
        self._reactor = reactor
        self._sources = sources
        self._settings = settings
        self._sessions = None if gate.find_keys is None else Sessions(gate, reactor.seconds)
        self._live = Live(reactor, lambda: sources.journal.running)
        sources.journal.watchers.append(self._live.changed)
        sources.journal.observers.append(self._live.changed)

    def resources(self) -> dict[bytes, IResource]:
        """What serves the page, by the first segments of its paths."""
        return dict.fromkeys(AREAS, self.app.resource())

    def close(self) -> None:
        """End the streams of open pages."""
        self._live.close()

    # -- what is shown --

    @app.route("/", methods=["GET"])
    async def root(self, request: Request) -> bytes:
        """The page or its sign-in for a browser, a word for a program."""
        request.setHeader(b"vary", b"accept")
        if "text/html" not in (request.getHeader("accept") or ""):
            secure(request)
            told = {"status": "claudemax is running", "api": "/v1", "health": "/health"}
            return reply(request, told)
        name = self._name(request)
        if self._sessions is not None and name is None:
            return await html(request, document.sign_in(base(request)))
        seen = await self._sources.look()
        return await html(request, document.page(seen, self._settings, base(request), name))

    @app.route("/page/main", methods=["GET"])
    async def main(self, request: Request) -> bytes:
        """The part that changes."""
        if not self._let_in(request):
            return not_signed_in(request)
        seen = await self._sources.look()
        return await html(request, document.main(seen, self._settings, base(request)))

    @app.route("/page/changes", methods=["GET"])
    async def changes(self, request: Request) -> bytes:
        """An event whenever there is something new."""
        if not self._let_in(request):
            return not_signed_in(request)
        if self._live.is_full:
            return text(request, 503, "too many pages are open")
        secure(request)
        await self._live.watch(request)
        return b""

    @app.route("/page/<name>-<int:width>.svg", methods=["GET"])
    async def chart(self, request: Request, name: str, width: int) -> bytes:
        """A chart."""
        if not self._let_in(request):
            return not_signed_in(request)
        ledger = (await self._sources.usage())["ledger"]
        if ledger is None or name not in _CHARTS or width not in charts.WIDTHS:
            return text(request, 404, "there is no such chart")
        draw, periods = _CHARTS[name]
        shown = periods(ledger, self._sources.engine.now())
        # In a thread, for it takes longer than any turn should wait.
        pool = self._reactor.getThreadPool()
        drawn: bytes = await deferToThreadPool(self._reactor, pool, draw, shown, width)
        secure(request, CHART_POLICY, "image/svg+xml")
        return drawn

    @app.route("/page/<name>", methods=["GET"])
    def static(self, request: Request, name: str) -> bytes:
        """Style, script and icon."""
        if name not in _FILES:
            return text(request, 404, "there is no such page")
        secure(request, CHART_POLICY, f"{_FILES[name]}; charset=utf-8")
        return (_STATIC / name).read_bytes()

    # -- signing in --

    @app.route("/page/sign-in", methods=["POST"])
    async def sign_in(self, request: Request) -> bytes:
        """Exchange a key for a cookie."""
        sessions = self._sessions
        if sessions is None:
            return to_page(request)
        address = getattr(request.getClientAddress(), "host", "unix")
        wait = math.ceil(sessions.wait(address))
        if wait:
            facts(request).failure = Failure(Kind.RATE_LIMIT, "too many wrong keys", 429)
            request.setResponseCode(429, phrase(429))
            request.setHeader(b"retry-after", str(wait).encode())
            why = f"Too many wrong keys. Try again in {wait} seconds."
            return await html(request, document.sign_in(base(request), why))
        token = sessions.sign_in(_field(request, "key"), address)
        if token is None:
            facts(request).failure = Failure(Kind.AUTHENTICATION, "a wrong key", 401)
            request.setResponseCode(401, phrase(401))
            why = "This key is not one of those that are let in."
            return await html(request, document.sign_in(base(request), why))
        self._set_cookie(request, token, LIFETIME)
        return to_page(request)

    @app.route("/page/sign-out", methods=["POST"])
    def sign_out(self, request: Request) -> bytes:
        """End the session."""
        if self._sessions is not None:
            self._sessions.sign_out(self._token(request))
            self._set_cookie(request, "", 0)
        return to_page(request)

    def _let_in(self, request: Request) -> bool:
        facts(request).routine = True
        return self._sessions is None or self._name(request) is not None

    def _name(self, request: Request) -> str | None:
        return None if self._sessions is None else self._sessions.name_of(self._token(request))

    def _token(self, request: Request) -> str:
        return (request.getCookie(_cookie(request)) or b"").decode("latin-1")

    def _set_cookie(self, request: Request, token: str, seconds: float) -> None:
        request.addCookie(
            _cookie(request), token, path=base(request), max_age=f"{seconds:.0f}",
            secure=request.isSecure(), httpOnly=True, sameSite="strict",
        )  # fmt: skip

    # -- errors --

    @app.handle_errors(HTTPException)
    def _no_route(self, request: Any, failure: Reason) -> bytes:
        error: Any = failure.value
        for name, value in error.get_headers():
            if name.lower() == "allow":
                request.setHeader(b"allow", value.encode())
        return text(request, error.code, "there is no such page, or not by this method")

    @app.handle_errors(StoreLost)
    def _lost(self, request: Any, failure: Reason) -> bytes:
        return refused(request, LOST)

    @app.handle_errors(Exception)
    def _broken(self, request: Any, failure: Reason) -> bytes:
        self.log.failure("the page broke", failure=failure)
        why = "the daemon failed; its log says why"
        return refused(request, Failure(Kind.UPSTREAM, why, 500))


def _cookie(request: Request) -> bytes:
    """Cookies are shared by all ports of a host, and so by all daemons on it."""
    return f"claudemax-{getattr(request.getHost(), 'port', 'unix')}".encode()


def _field(request: Request, name: str) -> str:
    assert request.content is not None
    try:
        fields: dict[str, list[str]] = parse_qs(request.content.read().decode(), max_num_fields=10)
    except ValueError:
        return ""
    return fields.get(name, [""])[-1].strip()
