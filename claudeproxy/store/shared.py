"""What a node has together with the others that use the same PostgreSQL."""

from __future__ import annotations

from typing import Any

from .leases import Leases
from .news import News
from .nodes import Nodes, new_id
from .postgres import PostgreSQL


class Shared:
    """The nodes that are alive, their leases and their news."""

    def __init__(self, reactor: Any, database: PostgreSQL) -> None:
        self.database = database
        self.node = new_id()
        """The id of this one."""
        self.nodes = Nodes(reactor, database, self.node)
        self.leases = Leases(self.nodes, database)
        self.news = News(reactor, database, self.node)

    def start(self) -> None:
        """Be one of them. The database is to be open."""
        self.nodes.start()
        self.news.start()

    async def stop(self) -> None:
        """Leave them."""
        self.news.stop()
        await self.nodes.stop()
