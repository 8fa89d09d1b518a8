"""A rewind in the middle of a turn: it stops the turn, at any moment, under the brake."""

import attrs
import pytest
from driver import RESULT, completed, control, event, flags, of_type, run, text, tools_call, user
from harness import until
from pytest_twisted import ensureDeferred
from rewinding import SETTINGS, Probe, begin, behind, probe, rewind

from claudeproxy.cli.settings import BRAKE
from claudeproxy.demo.steps import ApiError, Drop, Hang, Wait
from claudeproxy.rehearsal.home import login_in, put_login

REQUESTING = of_type("system", "status")
START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}
STOP = {"type": "message_stop"}
LONG = Wait(20)
"""Longer than any of this takes."""


def block(opening, delta):
    return [
        {"type": "content_block_start", "index": 0, "content_block": opening},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
    ]


def calling(name):
    opening = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}
    return [START, *block(opening, {"type": "input_json_delta", "partial_json": "{}"})]


def stopping(why):
    delta = {"stop_reason": why, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 1}}


SAYING = [START, *block({"type": "text", "text": ""}, {"type": "text_delta", "text": "Hello"})]
SOON = Wait(0.3)
"""Time for the brake, as a real upstream leaves."""

MOMENTS = {
    "requesting": ([LONG, START], REQUESTING),
    "message_start": ([START, LONG], event("message_start")),
    "a text": ([*SAYING[:-1], LONG], event("content_block_delta")),
    "a text that hangs": ([*SAYING[:-1], Hang()], event("content_block_delta")),
    "message_delta": ([*SAYING, SOON, stopping("end_turn"), LONG], event("message_delta")),
    "message_stop": ([*SAYING, stopping("end_turn"), STOP], event("message_stop")),
    "no result yet": ([*SAYING, stopping("end_turn"), STOP, LONG], event("message_stop")),
    "max_tokens": ([*SAYING, SOON, stopping("max_tokens"), STOP], event("message_delta")),
    "refusal": ([*SAYING, SOON, stopping("refusal"), STOP], event("message_delta")),
    "a call": ([*calling("look"), stopping("tool_use"), STOP], tools_call),
    "a call in an answer": ([*calling("look"), LONG], tools_call),
    "unknown tool": (
        [*calling("nobody"), SOON, stopping("tool_use"), STOP],
        event("message_delta"),
    ),
    "broken in a block": ([*SAYING[:-1], SOON, Drop()], event("message_stop")),
    "broken behind a block": ([*SAYING, SOON, Drop()], event("message_stop")),
    "an error": (ApiError(529, "Too busy"), RESULT),
}
"""What upstream does, and the line at which the turn is rewound."""


@attrs.frozen
class Cancelled:
    """The rewind's answer, the types of what was printed behind it, and what came then."""

    answer: dict
    behind: list
    requests: int
    probe: Probe


async def cancelled(made, target, last=None, *, asked=0):
    """Rewind now and begin anew; ``asked``: the requests before the turn."""
    answer = await rewind(made, target, last or target)
    made.demo.answer = None
    then = await probe(made)
    requests = len(made.requests) - asked - len(then.turns)
    await rewind(made, then.lines[0], then.lines[-1])
    return Cancelled(answer, behind(made, answer), requests, then)


@pytest.fixture(scope="module")
def turns(stage):
    """A fresh process's probe, and one process that is cancelled at each moment."""
    found = {}

    async def play():
        found["fresh"] = await probe(await begin(stage))
        made = await begin(stage)
        for name, (steps, moment) in MOMENTS.items():
            made.demo.answer = lambda received, steps=steps: steps
            since, asked, line = len(made.cli.lines), len(made.requests), user("One")
            made.cli.send(line)
            await made.cli.line(REQUESTING, since)
            made.cli.send(flags(**BRAKE))
            await made.cli.line(moment, since)
            found[name] = await cancelled(made, line, asked=asked)

    run(play())
    return found


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_rewind_stops_a_turn_at_any_moment(turns, moment):
    assert turns[moment].answer["rewound"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stopped_turn_asks_nothing_more(turns, moment):
    """A request that had just begun may not even arrive."""
    fewest = 0 if moment == "requesting" else 1
    assert fewest <= turns[moment].requests <= 1


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_of_a_stopped_turn_comes_behind_the_answer(turns, moment):
    """Only the answer to the next turn's settings."""
    assert set(turns[moment].behind) <= {"control_response"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_after_a_stopped_turn_a_process_is_as_a_fresh_one(turns, moment):
    assert turns[moment].probe.bodies == turns["fresh"].bodies


@ensureDeferred
async def test_a_question_just_written_is_cut(stage, turns):
    """It need not have been taken in: it is the last line all the same."""
    made = await begin(stage)
    first, last = user("One", query=False), user("Two")
    await made.history(first)
    made.demo.answer = lambda received: [LONG]
    made.cli.send(last)
    found = await cancelled(made, first, last)
    assert found.answer["rewound"] and found.requests <= 1
    assert found.probe.bodies == turns["fresh"].bodies


@ensureDeferred
async def test_a_line_of_history_just_written_is_cut(stage, turns):
    made = await begin(stage)
    first, last = user("One", query=False), user("Two", query=False)
    await made.history(first)
    made.cli.send(last)
    found = await cancelled(made, first, last)
    assert found.answer["rewound"] and found.requests == 0
    assert found.probe.bodies == turns["fresh"].bodies


@ensureDeferred
async def test_a_call_is_taken_back_and_a_late_answer_passed_over(stage, turns):
    made = await begin(stage)
    line = user("[[call look {}]]")
    since = len(made.cli.lines)
    made.cli.send(line)
    called = await made.cli.line(tools_call, since)
    await made.cli.line(event("message_stop"), since)
    assert (await rewind(made, line))["rewound"]
    methods = [_method(printed) for printed in made.cli.lines[since:]]
    assert "notifications/cancelled" in methods
    made.cli.answer(called, text("too late"))
    assert (await probe(made)).bodies == turns["fresh"].bodies


def _method(line):
    return ((line.get("request") or {}).get("message") or {}).get("method")


async def answering(stage):
    """A process that has begun an answer of half a second, and the question."""
    made = await begin(stage)
    made.demo.answer = lambda received: [*SAYING, Wait(0.5), stopping("end_turn"), STOP]
    line = user("One")
    await made.turn(line, until=event("message_start"))
    return made, line


@ensureDeferred
async def test_without_leave_to_interrupt_a_turn_goes_on(stage):
    made, line = await answering(stage)
    refused = await rewind(made, line, line, interrupt_if_running=False)
    assert refused["reason"] == "turn_running"
    assert not (await made.cli.line(RESULT))["is_error"]


@ensureDeferred
async def test_a_turn_with_a_question_behind_it_is_not_stopped(stage):
    made, line = await answering(stage)
    last = user("Two")
    made.cli.send(last)
    assert (await rewind(made, line, last))["reason"] == "commands_queued"
    await made.cli.line(completed(last))
    assert len(made.requests) == 2


@ensureDeferred
async def test_a_question_behind_a_blank_line_is_not_stopped(stage):
    """So a blank line is awaited, or the question's start."""
    made = await begin(stage)
    line = user("One")
    wanted = {"target_message_uuid": line["uuid"], "interrupt_if_running": True}
    made.cli.send(user(query=False), line, control("rewind", "rewind_conversation", **wanted))
    await made.cli.line(completed(line))
    assert len(made.requests) == 1
    (answer,) = (
        line["response"]["response"]
        for line in made.cli.lines
        if line["type"] == "control_response" and line["response"]["request_id"] == "rewind"
    )
    assert answer["reason"] == "commands_queued"


@ensureDeferred
async def test_a_refused_rewind_may_have_stopped_the_turn(stage):
    """So a process that refuses one in a turn is of no use any more."""
    made, line = await answering(stage)
    refused = await rewind(made, user("never sent"), line)
    assert refused["reason"] == "target_not_found"
    assert (await made.cli.line(RESULT))["terminal_reason"] == "aborted_streaming"


@pytest.mark.only("subscription")
@ensureDeferred
async def test_a_rewind_in_a_renewal_waits_for_it_and_sends_nothing(stage):
    """And the process serves the next turn, with the new login."""
    made = await begin(stage)
    made.account.renewal_seconds = 2.5
    put_login(made.home, made.account.log_in(-5))
    line = user("One")
    made.cli.send(line)
    await until(lambda: made.subscription.renewing)
    assert (await rewind(made, line))["rewound"]
    assert (made.requests, made.subscription.renewing, made.subscription.renewals) == ([], 0, 1)
    assert made.account.knows(login_in(made.home)["refreshToken"])
    assert len((await made.turn("Hi", before=[SETTINGS])).requests) == 1
    assert made.subscription.renewals == 1
