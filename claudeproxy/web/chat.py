"""Chat completions: the endpoints below ``/v1/chat/completions``."""

from __future__ import annotations

import re
import time
from typing import Any

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from claudeproxy.dialects import chat_route
from claudeproxy.dialects.chat import Chat, stored_messages
from claudeproxy.dialects.fields import Fields
from claudeproxy.dialects.metadata import changed_metadata
from claudeproxy.dialects.responses_items import ascends, limit_of, listing, page
from claudeproxy.messages import Failure, FailureError, Kind
from claudeproxy.store.completions import CompletionTable, StoredCompletion, Wanted
from claudeproxy.store.store import Store

from .access_log import facts
from .bodies import read_json
from .fairness import TimeSlice, no_collector
from .handler import Keep, TurnHandler
from .json_replies import reply, request_id
from .routing import below_v1, make_app, queried
from .storing import in_time

_app = make_app()
_ALL = "/chat/completions"
_ONE = f"{_ALL}/<ident>"


class ChatAPI:
    """The endpoints. ``store``: ``None`` to keep nothing."""

    app = _app

    def __init__(self, reactor: IReactorTime, handler: TurnHandler, store: Store | None) -> None:
        self._reactor = reactor
        self._handler = handler
        self._store = store

    @below_v1(_app, _ALL, "POST")
    async def create(self, request: Request) -> bytes:
        """A completion, streamed or complete, and stored where that is asked for."""
        time_slice = TimeSlice(self._reactor)
        body = read_json(request)
        await time_slice.give_way()
        with no_collector():
            ident = request_id(request).removeprefix("req_")
            parsed = chat_route.read(body, ident, int(time.time()))
        await time_slice.give_way()
        if parsed.stored is not None and (self._store is None or self._store.lost):
            parsed = evolve(parsed, stored=None, ignored=(*parsed.ignored, "store"))
        keep = self._keep(parsed, facts(request).key)
        return await self._handler.serve(request, "chat", parsed, keep)

    def _keep(self, parsed: Chat, key: str | None) -> Keep | None:
        stored = parsed.stored
        if stored is None:
            return None

        async def keep(completion: dict[str, Any]) -> tuple[str, ...]:
            made = StoredCompletion(completion, stored.metadata, stored.messages)
            putting = self._table.put(made, key)
            there = await in_time(self._reactor, putting, "a completion")
            return () if there else ("store",)

        return keep

    @below_v1(_app, _ALL, "GET")
    async def find(self, request: Request) -> bytes:
        """The stored completions, page by page, the oldest first."""
        query = queried(request)
        if "metadata" in query:
            raise FailureError.invalid("metadata: write metadata[NAME]=VALUE", "metadata")
        metadata = {
            named[1]: value
            for name, value in query.items()
            if (named := re.fullmatch(r"metadata\[(.+)\]", name, re.DOTALL))
        }
        limit, after = limit_of(query), query.get("after")
        wanted = Wanted(limit + 1, ascends(query, "asc"), after, query.get("model"), metadata)
        found = await self._table.find(wanted, facts(request).key)
        if found is None:
            raise FailureError.invalid(f"after: there is no {str(after)[:100]!r}", "after")
        told = [_told(one) for one in found[:limit]]
        return reply(request, listing(told, len(found) > limit))

    @below_v1(_app, _ONE, "GET")
    async def retrieve(self, request: Request, ident: str) -> bytes:
        """A stored completion."""
        return reply(request, _told(await self._get(request, ident)))

    @below_v1(_app, f"{_ONE}/messages", "GET")
    async def messages(self, request: Request, ident: str) -> bytes:
        """The messages that it answers, page by page."""
        found = await self._get(request, ident)
        return reply(request, page(stored_messages(ident, found.messages), queried(request), "asc"))

    @below_v1(_app, _ONE, "POST")
    async def update(self, request: Request, ident: str) -> bytes:
        """Change its metadata."""
        metadata = changed_metadata(Fields(read_json(request)))
        found = await self._table.update(ident, metadata, facts(request).key)
        if found is None:
            raise _not_found(ident)
        return reply(request, _told(found))

    @below_v1(_app, _ONE, "DELETE")
    async def delete(self, request: Request, ident: str) -> bytes:
        """Delete a stored completion."""
        if not await self._table.delete(ident, facts(request).key):
            raise _not_found(ident)
        return reply(request, {"id": ident, "object": "chat.completion.deleted", "deleted": True})

    async def _get(self, request: Request, ident: str) -> StoredCompletion:
        found = await self._table.get(ident, facts(request).key)
        if found is None:
            raise _not_found(ident)
        return found

    @property
    def _table(self) -> CompletionTable:
        if self._store is None:
            why = "there are no stored completions here: this server runs with --no-store"
            raise FailureError(Failure(Kind.NOT_FOUND, why, 404))
        return self._store.completions


def _told(found: StoredCompletion) -> dict[str, Any]:
    return {**found.completion, "metadata": dict(found.metadata)}


def _not_found(ident: str) -> FailureError:
    why = f"Chat completion with id {ident[:100]!r} not found."
    return FailureError(Failure(Kind.NOT_FOUND, why, 404))
