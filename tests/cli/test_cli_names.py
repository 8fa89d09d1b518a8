"""What the client's tools are called upstream, by values."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudeproxy.cli.names import MAX_NAME, ToolNames
from claudeproxy.cli.tools import ToolServer
from claudeproxy.messages import Tool

LOOK = Tool("look", "Looks.", {"type": "object"})
TAKE = Tool("take", "Takes.", {"type": "object", "properties": {"a": {"type": "string"}}})

UPSTREAM = re.compile(r"mcp__c[0-9a-f]{8}__[a-zA-Z0-9_-]+")
"""What the API takes, and the CLI leaves as it is."""


def test_the_clis_own_form() -> None:
    names = ToolNames.of((LOOK,))
    assert UPSTREAM.fullmatch(names.upstream("look"))
    assert names.upstream("look") == f"mcp__{names.server}__look"
    assert names.served("look") == "look"
    assert names.client(names.upstream("look")) == "look"


def test_the_same_tools_have_the_same_names_in_any_order() -> None:
    assert ToolNames.of((LOOK, TAKE)) == ToolNames.of((TAKE, LOOK))
    copy = Tool("look", "Looks.", {"type": "object"})
    assert ToolNames.of((copy, TAKE)).server == ToolNames.of((LOOK, TAKE)).server


@pytest.mark.parametrize(
    "other",
    [
        (),
        (TAKE,),
        (LOOK, TAKE),
        (Tool("look2", "Looks.", {"type": "object"}),),
        (Tool("look", "Looks!", {"type": "object"}),),
        (Tool("look", "Looks.", {"type": "object", "properties": {}}),),
        (Tool("look", "Looks.", {"type": "object", "x": 1}),),
        (Tool("look", "Looks.", {"type": "object", "x": True}),),
    ],
    ids=range(8),
)
def test_other_tools_have_another_server(other: tuple[Tool, ...]) -> None:
    assert ToolNames.of(other).server != ToolNames.of((LOOK,)).server


def test_tools_only_the_history_knows_have_a_name_too() -> None:
    names = ToolNames.of((LOOK,))
    assert names.upstream("gone") == f"{names.prefix}gone"
    assert names.client(f"{names.prefix}gone") == "gone"
    assert names.known(names.upstream("look"))
    assert not names.known(names.upstream("gone"))
    assert not names.known("look")


def test_plain_names_are_the_clients_own() -> None:
    tools = (LOOK, Tool("a.b/c", "", {}))
    names = ToolNames.of(tools, plain=True)
    assert (names.server, names.prefix) == (ToolNames.of(tools).server, "")
    assert names.upstream("a.b/c") == names.served("a.b/c") == names.client("a.b/c") == "a.b/c"
    assert names.known("look") and not names.known("mcp__c__look")
    half = Tool("half", "", {"properties": {"a": {"const": "½"}}})
    names = ToolNames.of((LOOK, half), plain=True)
    assert (names.altered("look"), names.altered("half")) == (False, True)
    assert names.restored("half", '{"a": "1\u20442"}') == '{"a": "½"}'


@pytest.mark.parametrize("name", ["a.b", "größe", "a b", "n" * 200, "a.b" * 100, "/", "__", "a__b"])
def test_names_the_api_does_not_take_come_back_as_they_were(name: str) -> None:
    names = ToolNames.of((Tool(name, "", {}), LOOK))
    upstream = names.upstream(name)
    assert UPSTREAM.fullmatch(upstream)
    assert len(upstream) <= MAX_NAME
    assert names.client(upstream) == name
    assert names.known(upstream)


def test_names_are_changed_no_more_than_the_api_wants() -> None:
    """Unchanged from one process to the next, or the cached prefix would be lost."""
    names = ToolNames.of((LOOK,))
    room = MAX_NAME - len(names.prefix)
    assert names.served("n" * room) == "n" * room
    assert names.served("a.b/c") == "a_b_c_fc7cd9c4"
    cut = names.served("n" * (room + 1))
    assert re.fullmatch(f"n{{{room - 9}}}_[0-9a-f]{{8}}", cut)


def test_names_that_would_become_one_stay_apart() -> None:
    tools = tuple(Tool(name, "", {}) for name in ("a.b", "a_b", "a b", "n" * 200, "n" * 201))
    names = ToolNames.of(tools)
    assert len({names.upstream(tool.name) for tool in tools}) == len(tools)


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=150), unique=True, max_size=8), st.booleans())
def test_any_name_there_and_back(clients: list[str], plain: bool) -> None:
    names = ToolNames.of([Tool(name, "", {}) for name in clients], plain=plain)
    upstream = [names.upstream(name) for name in clients]
    assert [names.client(name) for name in upstream] == clients
    assert plain or all(UPSTREAM.fullmatch(name) and len(name) <= MAX_NAME for name in upstream)


def test_the_server_offers_what_it_is_called_for() -> None:
    dotted = Tool("a.b", "", {})
    names = ToolNames.of((LOOK, dotted))
    server = ToolServer((LOOK, dotted), names)
    greeting = server.handle({"jsonrpc": "2.0", "id": 1, "method": "initialize"})
    assert greeting["result"]["serverInfo"]["name"] == names.server
    offered = server.manifest()["toolsListResult"]["tools"]
    assert {names.prefix + tool["name"] for tool in offered} == {
        names.upstream("look"),
        names.upstream("a.b"),
    }
