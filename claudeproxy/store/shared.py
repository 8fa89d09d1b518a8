"""What a node has together with the others that use the same PostgreSQL."""

from __future__ import annotations

from typing import Protocol

from .leases import Leases
from .news import News
from .nodes import Nodes
from .postgres import PostgreSQL


class Shared(Protocol):
    """The database, the nodes that are alive, their leases and their news."""

    database: PostgreSQL
    nodes: Nodes
    leases: Leases
    news: News
