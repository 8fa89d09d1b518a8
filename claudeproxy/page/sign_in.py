"""Who has signed in: by a key, once, and then by a cookie. All of it is forgotten at a restart."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from attrs import frozen

from claudeproxy.web.gate import Gate

LIFETIME = 7 * 24 * 3600.0
"""Seconds after which one has to sign in again."""

SESSIONS = 100
"""Sessions at once; the oldest are forgotten first."""

TRIES, TRY_SECONDS = 5, 60.0
"""So many wrong keys an address may send within these seconds."""

ADDRESSES = 1000
"""Addresses that are remembered for wrong keys."""


@frozen
class _Session:
    name: str
    fingerprint: bytes
    until: float


class Sessions:
    """``gate``: knows the keys that open the page. Times are seconds of ``now``."""

    def __init__(self, gate: Gate, now: Callable[[], float]) -> None:
        self._gate = gate
        self._now = now
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds for which ``address`` has to wait, after too many wrong keys, before it may send
        another; 0 if it need not."""
        wrong = self._recent(address)
        return 0.0 if len(wrong) < TRIES else wrong[-TRIES] + TRY_SECONDS - self._now()

    def sign_in(self, key: str, address: str) -> str | None:
        """A token for the holder of ``key``; ``None`` if that is wrong. Ask :meth:`wait` first."""
        keys = self._gate.keys
        name = None if keys is None else keys.name_of([key])
        fingerprint = self._fingerprint(name)
        if name is None or fingerprint is None:
            self._wrong[address] = [*self._recent(address), self._now()]
            self._wrong.move_to_end(address)
            _shorten(self._wrong, ADDRESSES)
            return None
        token = secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = _Session(name, fingerprint, self._now() + LIFETIME)
        _shorten(self._sessions, SESSIONS)
        return token

    def name_of(self, token: str) -> str | None:
        """The name of the key by which ``token`` was got; ``None`` if the session is over, or the
        key no longer holds."""
        session = self._sessions.get(_digest(token))
        if session is None:
            return None
        fingerprint = self._fingerprint(session.name)
        holds = fingerprint is not None and hmac.compare_digest(fingerprint, session.fingerprint)
        if holds and self._now() < session.until:
            return session.name
        self.sign_out(token)
        return None

    def sign_out(self, token: str) -> None:
        """End a session, if there is one."""
        self._sessions.pop(_digest(token), None)

    def _fingerprint(self, name: str | None) -> bytes | None:
        """Of the key that is called ``name`` now; ``None`` if there is none, or it has expired."""
        keys = self._gate.keys
        if keys is None or name is None or keys.rules_of(name).expired(self._gate.now()):
            return None
        return keys.fingerprint(name)

    def _recent(self, address: str) -> list[float]:
        return [at for at in self._wrong.get(address, []) if self._now() - at < TRY_SECONDS]


def _digest(token: str) -> bytes:
    """A look-up by it takes a time that tells nothing of the tokens there are."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def _shorten(entries: OrderedDict[Any, Any], to: int) -> None:
    while len(entries) > to:
        entries.popitem(last=False)
