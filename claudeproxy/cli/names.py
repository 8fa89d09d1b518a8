"""The names of the client's tools upstream: ``mcp__SERVER__NAME``, as the CLI builds them.

The server is named after a digest of its tools, so that the same tools have the same names in every
process (another name would lose the cached prefix), and different tools have different names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from claudeproxy.messages import Tool, strict_json

from . import altered

MAX_NAME = 128
"""Characters of a tool's name that the API accepts."""

_UNFIT = re.compile(r"[^a-zA-Z0-9_-]")


@frozen
class ToolNames:
    """``server``: the name of the MCP server for the CLI. ``prefix``: what names begin with
    upstream; empty for plain names."""

    server: str
    prefix: str
    _tools: frozenset[str] = field(repr=False)
    _altered: Mapping[str, Mapping[str, Any]] = field(repr=False, eq=False)
    _clients: dict[str, str] = field(init=False, repr=False, eq=False)

    @_clients.default
    def _by_upstream_name(self) -> dict[str, str]:
        return {self.upstream(name): name for name in self._tools}

    @classmethod
    def of(cls, tools: Iterable[Tool], *, plain: bool = False) -> ToolNames:
        """The names of ``tools``; ``plain``: the client's own, without a prefix."""
        tools = tuple(tools)
        names = frozenset(tool.name for tool in tools)
        mapped = {t.name: t.parameters for t in tools if altered.needs_mapping(t.parameters)}
        said = sorted(json.dumps([t.name, t.description, t.parameters]) for t in tools)
        server = f"c{_digest(json.dumps(said))}"
        return cls(server, "" if plain else f"mcp__{server}__", names, mapped)

    def served(self, name: str) -> str:
        """The name that the MCP server gives the client's tool ``name``.

        The CLI would replace characters that the API does not accept by ``_``, so that two names
        could become one.
        """
        if not self.prefix:
            return name
        room = MAX_NAME - len(self.prefix)
        if len(name) <= room and not _UNFIT.search(name):
            return name
        digest = _digest(name)
        return f"{_UNFIT.sub('_', name)[: room - len(digest) - 1]}_{digest}"

    def upstream(self, name: str) -> str:
        """The upstream name of the client's tool ``name``, which may be one of the history only."""
        return self.prefix + self.served(name)

    def client(self, name: str) -> str:
        """The client's name for the tool that the model calls ``name``."""
        return self._clients.get(name, name.removeprefix(self.prefix))

    def altered(self, name: str) -> bool:
        """Whether the model sees other values for the client's tool ``name`` than the client's, so
        that the arguments have to be restored."""
        return name in self._altered

    def restored(self, name: str, arguments: str) -> str:
        """``arguments`` of the client's tool ``name`` as the model wrote them, with the client's
        values."""
        try:
            value = strict_json(arguments)
        except (ValueError, RecursionError):
            return arguments
        return json.dumps(altered.restored(value, self._altered[name]), ensure_ascii=False)

    def told(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """``arguments`` of a call in the history, with the values that the model sees."""
        if name in self._altered:
            arguments = altered.told(arguments, self._altered[name])
        return altered.digits(arguments)

    def known(self, name: str) -> bool:
        """Whether the model may call a tool ``name``."""
        return name in self._clients


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
