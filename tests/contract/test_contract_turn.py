"""A turn: what the CLI relays, what it reads into a text, and where it goes on by itself."""

from uuid import uuid4

import pytest
import pytest_twisted
from driver import (
    RESULT,
    event,
    flags,
    of_type,
    run,
    serving,
    system_texts,
    text,
    tool,
    tools_call,
    user,
)

from claudeproxy.cli.settings import BRAKE, RELEASE
from claudeproxy.demo.steps import ApiError, Drop, Wait

USAGE = {"input_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 7}
START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-from-upstream",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**USAGE, "output_tokens": 1},
    },
}


def block(index, opening, *deltas):
    yield {"type": "content_block_start", "index": index, "content_block": opening}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


EVENTS = [
    START,
    *block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "hm \u2028 é"},
        {"type": "signature_delta", "signature": "c2ln"},
    ),
    *block(
        1,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": " Hello"},
        {"type": "text_delta", "text": "\n\n🎉 "},
    ),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"},
        "usage": {**USAGE, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
    },
    {"type": "message_stop"},
]
IN_A_BLOCK = [START, *EVENTS[5:7]]
"""An answer that stops in its only block."""


def broken_in_a_block(received):
    return [*IN_A_BLOCK, Wait(0.05), ApiError(529, "Too busy")]


def cut_in_a_block(received):
    return [*IN_A_BLOCK, Wait(0.05), Drop()]


def broken_after_a_block(received):
    start = {**START, "message": {**START["message"], "id": f"msg_{uuid4().hex}"}}
    return [start, *EVENTS[1:-4], Wait(0.05), Drop()]


@pytest.fixture(scope="module")
def talk(stage):
    """The turns of one process, by name."""
    turns = {}

    async def take(made, name, *content, answer=None, **options):
        made.demo.answer = answer
        turns[name] = await made.turn(*content, **options)

    async def play():
        made = await stage()
        await made.begin("Be brief.", "Be kind.", **serving(tool()))
        await take(made, "first", "Hello", answer=lambda received: EVENTS)
        await take(made, "slash", "/compact")
        await take(made, "at", "Read @/etc/hostname and @file.txt")
        await take(made, "several", "one", "two\n", "  three")
        await take(made, "max_tokens", "[[say a]][[stop max_tokens]]")
        await take(made, "refusal", "[[say a]][[stop refusal]]")
        await take(made, "unknown tool", "[[call nobody {}]]")
        await take(made, "broken arguments", '[[call look {"a": ]]')
        await take(made, "broken in a block", "Hello", answer=broken_in_a_block)
        await take(made, "cut in a block", "Hello", answer=cut_in_a_block)
        await take(made, "broken after a block", "Hello", answer=broken_after_a_block)

    run(play())
    return turns


def test_the_stream_is_relayed_unchanged(talk):
    assert talk["first"].events == EVENTS


def test_the_stream_has_no_parent(talk):
    relayed = talk["first"].all("stream_event")
    assert {line["parent_tool_use_id"] for line in relayed} == {None}


def test_pings_are_not_relayed(talk):
    """So silence is silence: a deadline need not look at the kind of a line."""
    assert "ping" not in {relayed["type"] for relayed in talk["several"].events}


def test_the_result_comes_after_message_stop(talk):
    (result,) = talk["first"].all("result")
    kinds = [line["type"] for line in talk["first"].lines]
    assert "stream_event" not in kinds[kinds.index("result") :]
    assert talk["first"].events[-1] == {"type": "message_stop"}
    assert result["is_error"] is False


def test_set_up_flags_and_question_may_come_in_one_write(talk):
    """Sent with nothing awaited, all three are in the request."""
    first = talk["first"]
    answers = [line["response"] for line in first.all("control_response")]
    assert [answer["subtype"] for answer in answers] == ["success", "success"]
    assert first.body["model"] == "claude-sonnet-4-5"
    assert [offered["name"] for offered in first.body["tools"]] == ["look"]
    assert first.said == [text("Hello")]


def test_system_parts_are_joined_by_a_blank_line(talk):
    assert system_texts(talk["first"].body)[-1] == "Be brief.\n\nBe kind."


@pytest.mark.parametrize("name", ["first", "slash", "at", "several"])
def test_a_turn_is_one_request(talk, name):
    assert len(talk[name].requests) == 1


def test_the_next_question_may_follow_the_result(talk):
    """Its ``completed`` need not be awaited: "slash" was sent at the result of "first"."""
    assert talk["slash"].said == [text("/compact")]
    assert talk["slash"].body["messages"][1]["role"] == "assistant"


def test_a_live_process_keeps_thinking(talk):
    thought, *_ = talk["slash"].body["messages"][1]["content"]
    assert thought == {"type": "thinking", "thinking": "hm \u2028 é", "signature": "c2ln"}


@pytest.mark.parametrize("why", ["max_tokens", "unknown tool", "broken arguments"])
def test_the_cli_goes_on_by_itself(talk, why):
    """A second request that nobody asked for: this is why we kill at ``message_delta``."""
    assert len(talk[why].requests) == 2


@pytest.mark.parametrize("name", ["broken in a block", "cut in a block"])
def test_a_stream_broken_in_its_first_block_is_not_asked_again(talk, name):
    assert len(talk[name].requests) == 1


@pytest.mark.parametrize("name", ["broken in a block", "cut in a block"])
def test_a_stream_broken_in_its_first_block_gets_an_end_without_stop_reason(talk, name):
    """The CLI makes up the missing end, so ``message_stop`` alone does not mean a whole answer."""
    *before, delta, stop = talk[name].events
    assert before == [*IN_A_BLOCK, {"type": "content_block_stop", "index": 1}]
    assert delta["type"] == "message_delta" and delta["delta"]["stop_reason"] is None
    assert stop["type"] == "message_stop"


def test_a_stream_broken_after_a_block_stops_without_message_delta(talk):
    events = [relayed["type"] for relayed in talk["broken after a block"].events]
    first = events[: events.index("message_stop") + 1]
    assert "message_delta" not in first
    assert first[-2:] == ["content_block_stop", "message_stop"]


def test_a_stream_broken_after_a_block_is_asked_again(talk):
    """Even with no retries allowed: three times "Resume directly from where it stops"."""
    broken = talk["broken after a block"]
    assert len(broken.requests) == 4
    assert "cut off mid-stream" in str(broken.requests[1].body["messages"][-1])


@pytest.mark.parametrize("name", ["broken in a block", "cut in a block", "broken after a block"])
def test_a_broken_stream_ends_in_an_error_result(talk, name):
    assert talk[name].result["is_error"] is True


def slowly(events):
    """The events with time between the first and the last two, as a real upstream takes it."""
    *before, delta, stop = events
    return [*before, Wait(0.3), delta, stop]


@pytest.mark.parametrize("why", ["max_tokens", "unknown tool", "broken arguments", "broken stream"])
@pytest_twisted.ensureDeferred
async def test_under_the_brake_it_asks_nothing_of_itself(stage, why):
    """The brake: its own limit of a conversation set to one token once it is requesting."""
    made = await stage()
    await made.begin(**serving(tool()))
    cut = {**EVENTS[-2], "delta": {"stop_reason": "max_tokens", "stop_sequence": None}}
    called = {**EVENTS[-2], "delta": {"stop_reason": "tool_use", "stop_sequence": None}}
    name, written = ("look", '{"a": ') if why == "broken arguments" else ("nobody", "{}")
    calls = block(
        0,
        {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}},
        {"type": "input_json_delta", "partial_json": written},
    )
    made.demo.answer = lambda received: (
        {
            "max_tokens": slowly([*EVENTS[:-2], cut, EVENTS[-1]]),
            "broken stream": [*EVENTS[:-4], Wait(0.3), Drop()],
        }.get(why)
        or slowly([START, *calls, called, EVENTS[-1]])
    )
    before = len(made.cli.lines)
    made.cli.send(user("Hello"))
    await made.cli.line(of_type("system", "status"), before)
    made.cli.send(flags(**BRAKE))
    ended = await made.cli.line(RESULT, before)
    assert ended["is_error"] is True
    assert len(made.requests) == 1


@pytest_twisted.ensureDeferred
async def test_under_the_brake_a_parked_process_sends_nothing_when_its_pipe_closes(stage):
    made = await stage()
    await made.begin(**serving(tool()))
    made.cli.send(user("[[call look {}]]"))
    await made.cli.line(event("message_start"))
    made.cli.send(flags(**BRAKE))
    await made.cli.line(tools_call)
    made.cli.transport.closeStdin()
    await made.cli.line(RESULT)
    assert len(made.requests) == 1


@pytest_twisted.ensureDeferred
async def test_released_from_the_brake_it_goes_on(stage):
    """On the next question, and on the result of a parked call, with the settings of before."""
    made = await stage()
    await made.begin(**serving(tool()))
    body = '{"stop_sequences": ["end"]}'
    env = {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "77", "CLAUDE_CODE_EXTRA_BODY": body}
    made.cli.send(flags(model="opus", env=env), user("[[call look {}]]"))
    await made.cli.line(event("message_start"))
    made.cli.send(flags(**BRAKE))
    call_line = await made.cli.line(tools_call)
    before = len(made.cli.lines)
    made.cli.send(flags(env=RELEASE))
    made.cli.answer(call_line, text("seen"))
    await made.cli.line(of_type("system", "status"), before)
    made.cli.send(flags(**BRAKE))
    assert (await made.cli.line(RESULT, before))["is_error"] is False
    before = len(made.cli.lines)
    made.cli.send(flags(env=RELEASE), user("Hello"))
    assert (await made.cli.line(RESULT, before))["is_error"] is False
    asked = [one.body for one in made.requests]
    assert [(one["max_tokens"], one["stop_sequences"]) for one in asked] == [(77, ["end"])] * 3
    assert all(one["model"].startswith("claude-opus") for one in asked)


@pytest_twisted.ensureDeferred
async def test_killed_between_message_delta_and_message_stop_it_sends_no_further_request(stage):
    """Upstream keeps the two apart here. When they come together the kill is a race, and
    whoever runs under load loses some: see the page."""
    made = await stage()
    cut = {**EVENTS[-2], "delta": {"stop_reason": "max_tokens", "stop_sequence": None}}
    made.demo.answer = lambda received: [*EVENTS[:-2], cut, Wait(1.0), EVENTS[-1]]
    await made.begin()
    turn = await made.turn("Hello", until=event("message_delta"))
    assert turn.events[-1] == cut
    await made.cli.kill()
    assert len(made.requests) == 1
