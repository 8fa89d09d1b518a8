"""Other tools for a rewound process: ``mcp_set_servers``."""

import pytest
from driver import RESULT, control, flags, greeting, run, serving, text, tool, tools_call, user
from pytest_twisted import ensureDeferred
from rewinding import SETTINGS, comparable, rewind

TOOLS = {"c1111": [tool("beta"), tool("alpha")], "c2222": [tool("look")], None: []}
"""Every server and its tools; none at all."""

PLAIN_NAMES = {"CLAUDE_AGENT_SDK_MCP_NO_PREFIX": ""}


def message(method, server):
    """Matches a message to an MCP server."""

    def match(line):
        request = line.get("request") or {}
        sent = (request.get("message") or {}).get("method"), request.get("server_name")
        return sent == (method, server)

    return match


def granting(server):
    return flags(permissions={"allow": [f"mcp__{server}"] if server else []})


def swap(server):
    """The line that puts a server in the place of every other."""
    config = {"type": "sdk", "name": server, "timeout": 86_400_000}
    return control("swap", "mcp_set_servers", servers={server: config} if server else {})


async def begin(stage, server):
    """A process that has begun with the tools of a server."""
    made = await stage(more=PLAIN_NAMES)
    served = serving(*TOOLS[server], server=server) if server else {}
    await made.begin("Be brief.", **served)
    made.cli.send(SETTINGS, granting(server))
    return made


async def shake_hands(made, server, since):
    """Answer what the CLI asks of a server that is new to it."""
    answers = {
        "initialize": greeting(server),
        "notifications/initialized": {},
        "tools/list": {"tools": TOOLS[server]},
    }
    for method, answer in answers.items():
        made.cli.reply(await made.cli.line(message(method, server), since), answer)


async def ask(made, server, *before):
    """Swap and ask in one write: the question, and the body that it led to."""
    line, since = user("Hi"), len(made.cli.lines)
    made.cli.send(swap(server), *before, line)
    if server:
        await shake_hands(made, server, since)
    ended = await made.cli.line(RESULT, since)
    assert not ended["is_error"]
    return line, comparable(made, made.requests[-1].body)


async def is_called(made, server):
    """Whether a tool reaches its server; the question that called it."""
    since = len(made.cli.lines)
    name = TOOLS[server][0]["name"]
    line = user(f"[[call mcp__{server}__{name} {{}}]]")
    made.cli.send(line)
    first = await made.cli.line(lambda line: tools_call(line) or RESULT(line), since)
    if tools_call(first):
        assert first["request"]["server_name"] == server
        assert first["request"]["message"]["params"]["name"] == name
        made.cli.answer(first, text("[[say seen]]"))
        await made.cli.line(RESULT, since)
    return tools_call(first), line


WAYS = {
    "other tools": ("c1111", "c2222"),
    "and back": ("c1111", "c2222", "c1111"),
    "none": ("c1111", None),
    "none and back": ("c1111", None, "c1111"),
    "the first": (None, "c2222"),
}
"""The servers that a process has one after the other, the first from its beginning."""


@pytest.fixture(scope="module")
def fresh(stage):
    """What a process sends that has begun with a server, by server."""

    async def play():
        found = {}
        for server in TOOLS:
            made = await begin(stage, server)
            found[server] = comparable(made, (await made.turn("Hi")).body)
        return found

    return run(play())


@pytest.fixture(scope="module", params=WAYS)
def swapped(stage, request):
    """The last server, the body of a first turn with it, and whether a tool of it was called."""

    async def play():
        begun, *others = WAYS[request.param]
        made = await begin(stage, begun)
        line = user("Hi")
        await made.turn(line)
        for server in others:
            assert (await rewind(made, line))["rewound"]
            line, body = await ask(made, server, granting(server))
        called = (await is_called(made, server))[0] if server else None
        return server, body, called

    return run(play())


def test_with_other_tools_a_rewound_process_is_as_one_begun_with_them(swapped, fresh):
    server, body, _ = swapped
    assert body == fresh[server]


def test_a_tool_of_the_new_server_is_called(swapped):
    """On that server, by its own name."""
    server, _, called = swapped
    assert called or server is None


@ensureDeferred
async def test_the_answer_does_not_wait_for_the_new_server_and_the_turn_does(stage):
    made = await begin(stage, "c1111")
    since = len(made.cli.lines)
    made.cli.send(swap("c2222"), granting("c2222"), user("Hi"))
    await made.cli.line(message("initialize", "c2222"), since)
    (told,) = (
        line["response"]["response"]
        for line in made.cli.lines
        if line["type"] == "control_response" and line["response"]["request_id"] == "swap"
    )
    assert told == {"added": ["c2222"], "removed": ["c1111"], "errors": {}}
    await made.cli.ask("list_models")
    assert not made.requests
    await shake_hands(made, "c2222", since)
    await made.cli.line(RESULT, since)
    assert [one["name"] for one in made.requests[0].body["tools"]] == ["mcp__c2222__look"]


@ensureDeferred
async def test_a_server_of_the_same_name_is_not_asked_again(stage):
    """So it is named after its tools."""
    made = await begin(stage, "c1111")
    line = user("Hi")
    before = await made.turn(line)
    await rewind(made, line)
    since = len(made.cli.lines)
    after = await made.turn("Hi", before=[swap("c1111")])
    assert after.body["tools"] == before.body["tools"]
    assert not any(map(message("tools/list", "c1111"), made.cli.lines[since:]))


@ensureDeferred
async def test_under_plain_names_a_tool_keeps_the_definition_that_it_had_first(stage):
    """So a process that knows the name of a tool is given no other tool of that name."""
    made = await stage()
    await made.begin("Be brief.", **serving(tool("look", "Looked."), server="c3333"))
    line = user("Hi")
    first = (await made.turn(line)).body["tools"]
    await rewind(made, line)
    await ask(made, "c2222")
    assert TOOLS["c2222"][0]["description"] == "Looks."
    assert made.requests[-1].body["tools"] == first
    assert [one["description"] for one in first] == ["Looked."]


@ensureDeferred
async def test_a_new_server_is_granted_nothing_and_a_grant_takes_the_place_of_the_last(stage):
    made = await begin(stage, "c1111")
    line = user("Hi")
    await made.turn(line)
    found = []
    for before in ([], [granting("c2222")], [granting("c1111")]):
        await rewind(made, line)
        if not found:
            line, _ = await ask(made, "c2222")
        made.cli.send(*before)
        called, _ = await is_called(made, "c2222")
        found.append(bool(called))
    assert found == [False, True, False]
