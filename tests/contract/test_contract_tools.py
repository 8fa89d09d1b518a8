"""Client tools: what of them reaches the request, and how calls come and are answered."""

import json
import signal

import attrs
import pytest
from driver import (
    PNG,
    Turn,
    conversation,
    environ,
    event,
    of_type,
    result,
    run,
    serving,
    text,
    tool,
    tools_call,
    tools_of,
    use_id,
)
from twisted.internet import reactor
from twisted.internet.task import deferLater

SCHEMA = {
    "type": "object",
    "description": "d" * 3000,
    "properties": {
        "a": {"type": ["string", "null"], "enum": ["x", None], "default": "x"},
        "b": {"$ref": "#/$defs/b"},
        "c": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    },
    "required": ["b"],
    "additionalProperties": False,
    "$defs": {"b": {"type": "array", "items": {"type": "number"}}},
}
UNION = {
    "anyOf": [
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]},
    ],
    "type": "object",
}
TOOLS = [
    tool("zeta"),
    tool("Odd-name_1", schema=SCHEMA),
    tool("mcp__x__y"),
    tool("alpha", "l" * 3000),
    tool("union", schema=UNION),
    tool("alone", parallel=False),
    tool("ToolSearch"),
]
LONG = "long " * 50_000
PICTURE = {"type": "image", "data": PNG, "mimeType": "image/png"}


@attrs.frozen
class Call:
    """A turn up to its calls, the calls, and what answering them led to."""

    turn: Turn
    calls: list
    after: Turn

    @property
    def results(self):
        """The results as they reached upstream."""
        return conversation(self.after.body)[-1][1]


async def park(made, order, count=1):
    """A turn until ``count`` calls wait."""
    since, sent = len(made.cli.lines), len(made.demo.requests)
    calls = []

    def enough(line):
        if tools_call(line) and line not in calls:
            calls.append(line)
        return len(calls) == count

    await made.turn(order, until=enough)
    await made.cli.line(event("message_stop"), since)
    return Turn(made.cli.lines[since:], made.requests[sent:]), calls


async def answered(made, order, *answers, before=(), reverse=False):
    """Park on a turn's calls and answer them: one (content, fields) each."""
    turn, calls = await park(made, order, len(answers))
    since, sent = len(made.cli.lines), len(made.demo.requests)
    made.cli.send(*before)
    pairs = list(zip(calls, answers, strict=True))
    for called, (content, fields) in reversed(pairs) if reverse else pairs:
        made.cli.answer(called, *content, **fields)
    await made.cli.line(of_type("result"), since)
    return Call(turn, calls, Turn(made.cli.lines[since:], made.requests[sent:]))


@pytest.fixture(scope="module")
def toolbox(stage):
    """One process with tools: calls by name, ``files`` after the first, ``after TERM``."""
    found = {}

    async def play():
        made = await stage()
        await made.begin("SECRET system", **serving(*TOOLS))
        call = '[[call zeta {"a": 1}]]'
        found["two"] = await answered(
            made,
            f'SECRET [[say hm]]{call}[[call Odd-name_1 {{"b": [1.5]}}]]',
            ([text("SECRET\n 1 \u2028")], {"isError": False}),
            ([text("two"), PICTURE, text(LONG)], {"isError": False}),
            before=[environ(CLAUDE_CODE_MAX_OUTPUT_TOKENS="4321")],
        )
        await made.turn("[[say SECRET answer]]")
        found["files"] = made.files()
        found["cwd"] = list(made.cwd.iterdir())
        ok = [text("1")], {}
        found["reverse"] = await answered(made, call * 2, ok, ([text("2")], {}), reverse=True)
        found["empty"] = await answered(made, call, ([], {}))
        found["blank"] = await answered(made, call, ([text(" ")], {}))
        failed = [text("bad"), text("worse")], {"isError": True}
        found["error"] = await answered(made, call, failed)
        turn, calls = await park(made, "[[call alone {}]][[call alone {}]]")
        since = len(made.cli.lines)
        found["one waits"] = sum(map(tools_call, made.cli.lines)) 
        made.cli.answer(*calls, text("1"))
        second = await made.cli.line(tools_call, since)
        found["alone"] = turn, calls, second
        sent = len(made.requests)
        made.cli.transport.signalProcess("TERM")
        found["exit"] = await made.cli.ended
        await deferLater(reactor, 0.2)
        found["after TERM"] = len(made.requests) - sent

    run(play())
    return found


@pytest.fixture(scope="module")
def impatient(stage):
    """A server with a time limit of one second; then parked with stdin closed."""
    found = {}

    async def play():
        made = await stage()
        await made.begin(**serving(tool(), timeout=1000))
        found["timeout"] = await made.turn("[[call look {}]]")
        await park(made, "[[call look {}]]")
        sent = len(made.requests)
        made.cli.transport.closeStdin()
        await made.cli.line(of_type("result"), len(made.cli.lines))
        found["closed"] = made.requests[sent:]

    run(play())
    return found

def test_x(toolbox, impatient):
    print()
    for k,v in toolbox.items():
        if isinstance(v, Call): print(k, len(v.turn.requests), len(v.after.requests), str(v.results)[:500], [l["type"] for l in v.turn.lines][-6:])
        elif k=="files": print([ (str(p), b"SECRET" in b) for p,b in v.items()])
        elif k=="alone": print(k, [l["type"]for l in v[0].lines][-5:], use_id(v[1][0]), use_id(v[2]))
        else: print(k, v)
    for n,t in tools_of(toolbox["two"].turn.body).items(): print(n, str(t)[:600], len(t["description"]))
    print(json.dumps(toolbox["two"].calls[0]))
    print(toolbox["two"].after.body["max_tokens"])
    print(len(impatient["timeout"].requests), str(impatient["timeout"].requests[-1].body["messages"][-1])[:300])
    print([str(r.body["messages"][-1])[:300] for r in impatient["closed"]])
