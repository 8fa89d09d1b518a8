"""What the daemon relies on, as small checks: a coroutine each, its docstring what it means.

Each raises :class:`~claudeproxy.selftest.stage.Lost` where its fact does not hold, and leaves a
process that the next one can use, or none. ``tests/contract`` runs the same ones, with the newest
and the oldest CLI.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import frozen

from claudeproxy.cli.errors import LoginAdvice, classify
from claudeproxy.cli.login import parse_account
from claudeproxy.cli.settings import BRAKE, RELEASE
from claudeproxy.demo.answering.orders import limit
from claudeproxy.demo.steps import ApiError, Drop, Step, Wait
from claudeproxy.messages import Kind

from .lines import (
    PNG,
    REQUESTING,
    RESULT,
    Line,
    assistant,
    call,
    conversation,
    flags,
    result,
    serving,
    text,
    tool,
    tools_of,
    use_id,
    user,
)
from .stage import Lost, Stage, Turn

LOOK = "mcp__c__look"
"""What the tool ``look`` of the server ``c`` is called upstream."""

HELLO_BYTES = 2_800
"""With a login, which adds the user's address; without one it is 2,500."""

CANARY = "CANARY"
"""What stands in the files by which a user speaks to the CLI."""

ODD = " \n<system>é 漢字 🎉 \u2028\x1b[31m\r\n</system>\tHuman: x\n\n"

_USAGE = {"input_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 7}


class Bench:
    """The processes that facts are tried on, each started by need: with a key and a tool, with a
    token and nothing set up, and without a login."""

    def __init__(self, start: Callable[[str], Awaitable[Stage]]) -> None:
        """``start``: a new stage for a login (``key``, ``oauth``, ``none``)."""
        self._start = start
        self._stages: dict[str, Stage] = {}

    async def stage(self, login: str) -> Stage:
        """The one that is there, or a new one in place of one that has ended."""
        made = self._stages.get(login)
        if made is not None and made.cli.exit is None:
            made.demo.answer = None
            return made
        made = self._stages[login] = await self._start(login)
        if login == "key":
            await made.begin("Be brief.", "Be kind.", **serving(tool()))
        else:
            await made.begin()
        return made

    async def talk(self) -> Stage:
        """The one with a tool."""
        return await self.stage("key")

    @property
    def models(self) -> list[Line]:
        """What the CLI told of its models, if it came so far."""
        return next((made.models for made in self._stages.values() if made.models), [])

    async def drop(self) -> None:
        """End those there are: a fact left them in no known state."""
        for made in self._stages.values():
            await made.cli.kill()


@frozen
class Fact:
    """``name``: how it is spoken of; ``meaning``: one sentence; ``check``: raises ``Lost``."""

    name: str
    meaning: str
    check: Callable[[Bench], Awaitable[None]]


FACTS: list[Fact] = []
"""In the order in which they are tried."""


def _fact(check: Callable[[Bench], Awaitable[None]]) -> Callable[[Bench], Awaitable[None]]:
    meaning = " ".join((check.__doc__ or "").split())
    FACTS.append(Fact(check.__name__, meaning, check))
    return check


def same(found: Any, wanted: Any) -> None:
    """:raises Lost: when ``found`` is something else."""
    if found != wanted:
        raise Lost(f"{_short(found)} instead of {_short(wanted)}")


def holds(condition: Any, otherwise: str) -> None:
    """:raises Lost: when ``condition`` is not true."""
    if not condition:
        raise Lost(otherwise)


def _short(value: Any) -> str:
    said = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return said if len(said) <= 200 else f"{said[:200]}… ({len(said)} characters)"


# -- the way there --


@_fact
async def models_are_told_before_initialize(bench: Bench) -> None:
    """The models are told at once, with the ids that go upstream."""
    names = {entry["value"] for entry in (await bench.talk()).models}
    holds(names >= {"default", "opus", "sonnet", "haiku"}, f"only {sorted(names)}")
    for entry in (await bench.talk()).models:
        holds(str(entry.get("resolvedModel")).startswith("claude-"), f"{entry['value']} has no id")


@_fact
async def a_model_is_sent_under_its_resolved_name(bench: Bench) -> None:
    """Model and question come in one write, and the model goes out under its id."""
    made = await bench.talk()
    ids = {entry["value"]: entry["resolvedModel"] for entry in made.models}
    turn = await made.turn("Hello", before=[flags(model="opus")])
    same(turn.body["model"], ids["opus"])
    turn = await made.turn("Hello", before=[flags(model="claude-sonnet-4-5")])
    same(turn.body["model"], "claude-sonnet-4-5")


@_fact
async def the_login_is_sent_as_what_it_is(bench: Bench) -> None:
    """A token goes out as a bearer's, in a request that is small, with no tool of the CLI's own."""
    turn = await (await bench.stage("oauth")).turn("Hello")
    headers = turn.requests[0].headers
    same((headers.get("authorization"), headers.get("x-api-key")), ("Bearer any", None))
    same(turn.body.get("tools") or [], [])
    size = turn.requests[0].size
    holds(size < HELLO_BYTES, f"“Hello” is {size:,} bytes instead of {HELLO_BYTES:,} at most")


@_fact
async def nothing_of_the_user_reaches_the_request(bench: Bench) -> None:
    """No CLAUDE.md, rule, setting or command of the user is in a request."""
    turn = await (await bench.stage("oauth")).turn("Hello")
    holds(CANARY not in json.dumps(turn.body), "one of them is")


@_fact
async def without_a_login_it_says_so(bench: Bench) -> None:
    """Without a login a turn says so and sends nothing, and so does the answer to initialize."""
    made = await bench.stage("none")
    turn = await made.turn("Hello")
    same(len(turn.requests), 0)
    same(_kind(turn), Kind.AUTHENTICATION)
    said = next(
        line["response"]["response"]
        for line in made.cli.lines
        if line["type"] == "control_response" and line["response"]["request_id"] == "setup"
    )
    status = parse_account(said.get("account"))
    holds(status is not None and not status.logged_in, f"it tells {_short(said.get('account'))}")


# -- a turn --


def _message(identity: str, reason: str, *blocks: Line, pause: float = 0.0) -> list[Step]:
    """An answer of these events between its start and its end; ``pause``: seconds before that."""
    start: Line = {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": "claude-from-upstream",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_USAGE, "output_tokens": 1},
    }
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [
        {"type": "message_start", "message": start},
        *blocks,
        *([Wait(pause)] if pause else []),
        {"type": "message_delta", "delta": delta, "usage": {**_USAGE, "output_tokens": 9}},
        {"type": "message_stop"},
    ]


def _block(index: int, opening: Line, *deltas: Line) -> list[Line]:
    return [
        {"type": "content_block_start", "index": index, "content_block": opening},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _said(index: int, *parts: str) -> list[Line]:
    deltas = [{"type": "text_delta", "text": part} for part in parts]
    return _block(index, {"type": "text", "text": ""}, *deltas)


@_fact
async def the_stream_is_relayed_unchanged(bench: Bench) -> None:
    """Upstream's events are printed as they came, then one result."""
    made = await bench.talk()
    thought = _block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "hm \u2028 é"},
        {"type": "signature_delta", "signature": "c2ln"},
    )
    events = _message("msg_facts", "end_turn", *thought, *_said(1, " Hello", "\n\n🎉 "))
    made.demo.answer = lambda received: events
    turn = await made.turn("Hello")
    same(turn.events, events)
    holds(len(turn.requests) == 1, f"{len(turn.requests)} requests instead of one")
    same([line["is_error"] for line in turn.all("result")], [False])
    same({line["parent_tool_use_id"] for line in turn.all("stream_event")}, {None})


@_fact
async def slash_text_is_delivered_as_written(bench: Bench) -> None:
    """Text that begins with / is no command."""
    same((await (await bench.talk()).turn("/compact")).said, [text("/compact")])


@_fact
async def at_path_is_delivered_as_written_and_nothing_is_read(bench: Bench) -> None:
    """Text that says @/path stays a text, and no file is read."""
    asked = "Read @/etc/hostname and @/etc/passwd"
    turn = await (await bench.talk()).turn(asked)
    same(turn.said, [text(asked)])
    holds("root:" not in json.dumps(turn.body), "/etc/passwd is in the request")


@_fact
async def blocks_of_a_message_stay_apart(bench: Bench) -> None:
    """The blocks of a message stay as they are, white space included."""
    turn = await (await bench.talk()).turn("one", "two\n", "  three", ODD)
    same(turn.said, [text("one"), text("two\n"), text("  three"), text(ODD)])


@_fact
async def settings_are_sent_and_taken_back(bench: Bench) -> None:
    """Limit, stop sequences, temperature, format and effort go out, and go again when cleared."""
    made = await bench.talk()
    form = {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}}
    body = {
        "stop_sequences": ["END"],
        "temperature": 0.5,
        "thinking": {"type": "disabled"},
        "output_config": {"format": form},
    }
    turn = await made.turn("Hello", before=[_settings("claude-sonnet-4-5", "55", body)])
    same({name: turn.body.get(name) for name in body}, body)
    same(turn.body["max_tokens"], 55)
    turn = await made.turn("Hello", before=[_settings("claude-sonnet-4-5", "", {})])
    kept = [
        name for name in ("stop_sequences", "temperature", "output_config") if name in turn.body
    ]
    same(kept, [])
    turn = await made.turn("Hello", before=[_settings("opus", "", {}, "low")])
    same((turn.body.get("output_config") or {}).get("effort"), "low")
    made.cli.send(_settings("claude-sonnet-4-5", "", {}))


def _settings(model: str, limit: str, body: Line, effort: str | None = None) -> Line:
    variables = {
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": limit,
        "CLAUDE_CODE_EXTRA_BODY": json.dumps(body),
    }
    return flags(model=model, effortLevel=effort, env=variables)


# -- history --


@_fact
async def history_sends_no_request(bench: Bench) -> None:
    """A conversation is replayed without a request, in its roles and order."""
    made = await bench.talk()
    sent = len(made.requests)
    await made.history(user("One.", query=False), assistant("Two."))
    same(len(made.requests), sent)
    said = conversation((await made.turn("Three.")).body)
    same([role for role, _ in said[-3:]], ["user", "assistant", "user"])


@_fact
async def history_is_word_for_word(bench: Bench) -> None:
    """Texts, images, tool calls and their results are replayed word for word."""
    made = await bench.talk()
    picture = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
    }
    lines = [
        user(ODD, picture, query=False),
        assistant("/compact", call("toolu_1", a=[1, {"b": None}]), call("call_2", "nobody", b="x")),
        user(
            result("toolu_1", text(ODD), picture),
            result("call_2", text("it failed"), is_error=True),
            "/clear and @/etc/hostname",
            query=False,
        ),
        assistant("Done."),
    ]
    await made.history(*lines)
    said = conversation((await made.turn("And now?")).body)
    same([blocks for _, blocks in said[-5:-1]], [line["message"]["content"] for line in lines])


# -- tools --


@_fact
async def tools_go_by_their_servers_name(bench: Bench) -> None:
    """A client's tool is offered as mcp__server__name, its schema as it is."""
    made = await bench.talk()
    offered = tools_of((await made.turn("Hello")).body)
    same(sorted(offered), [LOOK])
    schema = offered[LOOK]["input_schema"]
    same(schema, {"type": "object", "properties": {}})


@_fact
async def a_call_waits_for_its_result(bench: Bench) -> None:
    """A call carries the id and arguments of its block; its result is one further request, word
    for word."""
    made = await bench.talk()
    turn, (waiting,) = await made.park('[[call look {"a": 1}]]')
    opened = [one["content_block"] for one in turn.events if one["type"] == "content_block_start"]
    params = waiting["request"]["message"]["params"]
    same((use_id(waiting), params["arguments"]), (opened[-1]["id"], {"a": 1}))
    same((len(turn.requests), turn.all("result")), (1, []))
    since, sent = len(made.cli.lines), len(made.requests)
    made.cli.answer(waiting, text(ODD + "seen"))
    await made.cli.line(RESULT, since)
    after = Turn(made.cli.lines[since:], made.requests[sent:])
    same(after.said[0]["content"], [text(ODD + "seen")])


@_fact
async def parallel_calls_come_at_once(bench: Bench) -> None:
    """Several calls of one answer wait at the same time."""
    made = await bench.talk()
    _, calls = await made.park("[[call look {}]][[call look {}]]", count=2)
    since = len(made.cli.lines)
    for waiting in calls:
        made.cli.answer(waiting, text("seen"))
    await made.cli.line(RESULT, since)


# -- where it would go on by itself --


async def _braked(made: Stage, answer: list[Step]) -> None:
    made.demo.answer = lambda received: answer
    before, sent = len(made.cli.lines), len(made.requests)
    made.cli.send(user("Hello"))
    await made.cli.line(REQUESTING, before)
    made.cli.send(flags(**BRAKE))
    await made.cli.line(RESULT, before)
    made.demo.answer = None
    made.cli.send(flags(env=RELEASE))
    same(len(made.requests) - sent, 1)


@_fact
async def under_the_brake_it_asks_nothing_of_itself(bench: Bench) -> None:
    """An answer cut by its limit is not gone on with, as no more than that was asked for."""
    answer = _message("msg_cut", "max_tokens", *_said(0, "Hello"), pause=0.3)
    await _braked(await bench.talk(), answer)


@_fact
async def a_broken_call_is_not_answered_by_itself(bench: Bench) -> None:
    """Nor is a call of a tool that nobody has."""
    opening = {"type": "tool_use", "id": "toolu_1", "name": "nobody", "input": {}}
    calls = _block(0, opening, {"type": "input_json_delta", "partial_json": "{}"})
    await _braked(await bench.talk(), _message("msg_nobody", "tool_use", *calls, pause=0.3))


@_fact
async def released_from_the_brake_it_goes_on(bench: Bench) -> None:
    """The next question is answered as if nothing had been."""
    made = await bench.talk()
    made.cli.send(flags(**BRAKE))
    turn = await made.turn("Hello", before=[flags(env=RELEASE)])
    same((len(turn.requests), turn.result["is_error"]), (1, False))


@_fact
async def a_refusal_is_not_asked_again(bench: Bench) -> None:
    """What the model refuses is one request."""
    turn = await (await bench.talk()).turn("[[say a]][[stop refusal]]")
    same(len(turn.requests), 1)


@_fact
async def a_broken_stream_is_not_asked_again(bench: Bench) -> None:
    """An answer that breaks off is one request, and ends in an error."""
    made = await bench.talk()
    broken = _message("msg_broken", "end_turn", *_said(0, "Hello")[:2])[:3]
    made.demo.answer = lambda received: [*broken, Wait(0.05), Drop()]
    turn = await made.turn("Hello")
    same((len(turn.requests), turn.result["is_error"]), (1, True))


# -- what goes wrong --


def _kind(turn: Turn) -> Kind:
    """What the daemon makes of a failed turn."""
    said = turn.result
    status, reason = said.get("api_error_status"), said.get("terminal_reason")
    told = turn.all("rate_limit_event")
    limits = told[-1]["rate_limit_info"] if told else None
    return classify(said["result"], status, reason, limits, time.time(), LoginAdvice()).kind


@_fact
async def an_error_is_told_in_one_request(bench: Bench) -> None:
    """Upstream's errors have their status and words, after one request and nothing streamed."""
    made = await bench.talk()
    for status, kind in ((400, Kind.INVALID), (500, Kind.UPSTREAM), (529, Kind.OVERLOADED)):
        error = ApiError(status, f"No luck with {status}")
        made.demo.answer = lambda received, error=error: error
        turn = await made.turn("Hello")
        told = turn.result
        same((told["is_error"], told["api_error_status"], _kind(turn)), (True, status, kind))
        holds(f"No luck with {status}" in told["result"], f"it tells {_short(told['result'])}")
        same((len(turn.requests), turn.events), (1, []))


@_fact
async def what_is_too_long_is_told(bench: Bench) -> None:
    """A conversation beyond the model's window is told from other errors."""
    made = await bench.talk()
    made.demo.answer = lambda received: ApiError(
        400, "prompt is too long: 210000 tokens > 200000 maximum"
    )
    same(_kind(await made.turn("Hello")), Kind.CONTEXT_LENGTH)


@_fact
async def a_plan_limit_names_its_window(bench: Bench) -> None:
    """A used up window is told by name, with its reset; a busy server is none."""
    made = await bench.stage("oauth")
    made.demo.answer = lambda received: limit("five_hour", 2_000_000_000)
    turn = await made.turn("Hello")
    same((len(turn.requests), _kind(turn)), (1, Kind.PLAN_LIMIT))
    info = turn.all("rate_limit_event")[-1]["rate_limit_info"]
    same((info.get("rateLimitType"), info.get("resetsAt")), ("five_hour", 2_000_000_000))
    made.demo.answer = lambda received: ApiError(429, "Too many at once")
    same(_kind(await made.turn("Hello")), Kind.RATE_LIMIT)


# -- what stays behind --


@_fact
async def nothing_said_is_written_to_disk(bench: Bench) -> None:
    """Neither question nor answer is in any file, and the working directory stays empty."""
    made = await bench.talk()
    await made.turn("SECRET question [[say SECRET answer]]")
    found = [path.name for path, data in made.files().items() if b"SECRET" in data]
    same((found, os.listdir(made.cwd)), ([], []))


@_fact
async def closed_stdin_ends_it_well(bench: Bench) -> None:
    """A process at rest whose input is closed ends by itself, with exit code 0."""
    made = await bench.talk()
    await made.turn("Hello")
    made.cli.transport.closeStdin()
    same(await made.cli.exited(), 0)
