"""The Conversations API, and what responses need of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from claudeproxy.dialects import conversations as dialect
from claudeproxy.dialects.fields import Fields
from claudeproxy.dialects.metadata import changed_metadata, read_metadata
from claudeproxy.dialects.responses_items import page
from claudeproxy.messages import Failure, FailureError, Kind
from claudeproxy.store.conversations import Conversation, ConversationTable
from claudeproxy.store.store import Store

from .access_log import facts
from .bodies import read_json
from .json_replies import reply
from .routing import below_v1, make_app, queried
from .storing import in_time, shielded

if TYPE_CHECKING:  # PostgreSQL is an extra
    from claudeproxy.store.leases import Leases

Release = Callable[[], Deferred[None]]
"""Lets the next response of a conversation begin, on any node once it fires. Never fails, and may
be called again."""

_app = make_app()
_ONE = "/conversations/<ident>"


class ConversationsAPI:
    """The endpoints below ``/v1/conversations``."""

    app = _app

    def __init__(self, store: Store | None) -> None:
        self._stored = store

    @below_v1(_app, "/conversations", "POST")
    async def create(self, request: Request) -> bytes:
        """Begin a conversation."""
        store = self._store
        body, fresh = Fields(read_json(request)), uuid4().hex
        metadata, items = read_metadata(body), dialect.read_items(body, fresh)
        made = Conversation(f"conv_{fresh}", int(time.time()), metadata)
        if not await store.create(made, items, facts(request).key):
            raise dialect.too_large()
        return _reply(request, made)

    @below_v1(_app, _ONE, "GET")
    async def retrieve(self, request: Request, ident: str) -> bytes:
        """A conversation, without its items."""
        found = await self._store.get(ident, facts(request).key)
        return _reply(request, _there(found, ident))

    @below_v1(_app, _ONE, "POST")
    async def update(self, request: Request, ident: str) -> bytes:
        """Change the metadata."""
        metadata = changed_metadata(Fields(read_json(request)))
        found = await self._store.update(ident, metadata, facts(request).key)
        return _reply(request, _there(found, ident))

    @below_v1(_app, _ONE, "DELETE")
    async def delete(self, request: Request, ident: str) -> bytes:
        """Delete a conversation, with its items."""
        _there(await self._store.delete(ident, facts(request).key) or None, ident)
        return reply(request, {"id": ident, "object": "conversation.deleted", "deleted": True})

    @below_v1(_app, f"{_ONE}/items", "POST")
    async def add_items(self, request: Request, ident: str) -> bytes:
        """Add items at the end."""
        store, key = self._store, facts(request).key
        body = Fields(read_json(request))
        items = dialect.read_items(body, uuid4().hex)
        if not items:
            raise body.refuse("items", "is required: a list of at least one item")
        if not _there(await store.add(ident, items, key), ident):
            raise dialect.too_large()
        return reply(request, page(items, {"order": "asc", "limit": "100"}))

    @below_v1(_app, f"{_ONE}/items", "GET")
    async def list_items(self, request: Request, ident: str) -> bytes:
        """The items, page by page."""
        items = _there(await self._store.items(ident, facts(request).key), ident)
        return reply(request, page(items, queried(request)))

    @below_v1(_app, f"{_ONE}/items/<item>", "GET")
    async def retrieve_item(self, request: Request, ident: str, item: str) -> bytes:
        """One item."""
        items = _there(await self._store.items(ident, facts(request).key), ident)
        for found in items:
            if found["id"] == item:
                return reply(request, found)
        raise _no_item(item)

    @below_v1(_app, f"{_ONE}/items/<item>", "DELETE")
    async def delete_item(self, request: Request, ident: str, item: str) -> bytes:
        """Delete an item. Tells of the conversation, as OpenAI does."""
        store, key = self._store, facts(request).key
        found = _there(await store.get(ident, key), ident)
        if not await store.remove(ident, item, key):
            raise _no_item(item)
        return _reply(request, found)

    @property
    def _store(self) -> ConversationTable:
        if self._stored is None:
            why = "there are no conversations here: this server runs with --no-store"
            raise FailureError(Failure(Kind.NOT_FOUND, why, 404))
        return self._stored.conversations


class Conversing:
    """Which conversations a response belongs to that is not complete yet: each has one at a
    time."""

    def __init__(
        self, reactor: IReactorTime, store: ConversationTable, leases: Leases | None
    ) -> None:
        """``leases``: those of this node, where there are several."""
        self._reactor = reactor
        self._store = store
        self._leases = leases
        self._busy: set[str] = set()
        self._adding: set[str] = set()
        """Those of them whose items are on their way, whoever still waits for that."""

    async def begin(self, ident: str, key: str | None) -> Release:
        """A response of a conversation begins; its end is to be called.

        :raises FailureError: 409, when there is another one.
        :raises StoreLost: when nobody knows.
        """
        name = _lease(ident, key)
        if name in self._busy:
            raise _locked(ident)
        self._busy.add(name)

        def release(_: Any = None) -> Deferred[None]:
            if name not in held or name in self._adding:
                return succeed(None)
            held.remove(name)
            self._busy.remove(name)
            return succeed(None) if self._leases is None else self._leases.release([name])

        held = {name}
        if self._leases is not None:
            taking = self._leases.take([name])
            try:
                taken = await shielded(taking)
            except BaseException:
                taking.addBoth(release)
                raise
            if taken:
                release()
                raise _locked(ident)
        return release

    def keep(
        self,
        ident: str,
        response: Mapping[str, Any],
        items: Sequence[Mapping[str, Any]],
        key: str | None,
        release: Release,
    ) -> Deferred[bool]:
        """Add a complete ``response`` and its own input ``items`` to a conversation, and let the
        next one begin. Whether they are added, see :func:`~.storing.in_time`."""
        said = dialect.own_items(response["id"].removeprefix("resp_"), items)
        added = self._store.add(ident, [*said, *response["output"]], key)
        name = _lease(ident, key)
        self._adding.add(name)

        def over(there: Any) -> Deferred[Any]:
            self._adding.discard(name)
            return release().addCallback(lambda _: there)

        added.addBoth(over)
        what, full = "a response of a conversation", "that is full or deleted"
        return in_time(self._reactor, added, what, full)


def _lease(ident: str, key: str | None) -> str:
    # A name of any length, which is the client's, becomes one that anybody may be told.
    return "conversation " + sha256(f"{key or ''}\0{ident}".encode()).hexdigest()


def _locked(ident: str) -> FailureError:
    why = f"another response of the conversation {ident[:100]!r} is not complete yet"
    return FailureError(
        Failure(Kind.INVALID, why, 409, param="conversation", code="conversation_locked")
    )


def _there(found: Any, ident: str) -> Any:
    if found is None:
        why = f"Conversation with id {ident[:100]!r} not found."
        raise FailureError(Failure(Kind.NOT_FOUND, why, 404))
    return found


def _no_item(item: str) -> FailureError:
    return FailureError(Failure(Kind.NOT_FOUND, f"Item with id {item[:100]!r} not found.", 404))


def _reply(request: Request, found: Conversation) -> bytes:
    return reply(request, dialect.conversation(found.id, found.created, found.metadata))
