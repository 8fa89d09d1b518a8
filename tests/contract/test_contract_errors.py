"""How failures are told: the lines of an error, and how many requests it takes."""

import time

import attrs
import pytest
from driver import Turn, conversation, run, text

from claudeproxy.cli.errors import LoginAdvice, classify
from claudeproxy.demo.answering.orders import limit
from claudeproxy.demo.steps import ApiError
from claudeproxy.messages import Kind

KINDS = {
    400: Kind.INVALID,
    401: Kind.AUTHENTICATION,
    403: Kind.PERMISSION,
    404: Kind.MODEL_NOT_FOUND,
    413: Kind.TOO_LARGE,
    429: Kind.RATE_LIMIT,
    500: Kind.UPSTREAM,
    529: Kind.OVERLOADED,
}
"""Status to what the daemon makes of the CLI's lines."""

WORDED_BY_THE_CLI = (404, 413)
"""The statuses for which it has a sentence of its own in place of upstream's."""

LONG = "lorem ipsum " * 10_000
COMPACTING = {"CLAUDE_CODE_AUTO_COMPACT_WINDOW": "100000"}
"""With this and without ``DISABLE_AUTO_COMPACT`` it would summarise after the first turn."""

TOO_LONG = ApiError(400, "prompt is too long: 210000 tokens > 200000 maximum")


def kind(turn):
    said = turn.result
    status, reason = said.get("api_error_status"), said.get("terminal_reason")
    return classify(said["result"], status, reason, None, time.time(), LoginAdvice()).kind


@attrs.frozen
class Failures:
    by_status: dict
    """Status to turn."""
    too_long: Turn
    window: Turn
    """An API key that gets the 429 of a plan limit."""
    far_too_long: Turn
    later: Turn
    """A turn after answers that went over the window."""


@pytest.fixture(scope="module")
def failures(stage):
    """One process that gets every error, one after the other."""

    async def play():
        made = await stage(context_window=10**9, more=COMPACTING)
        await made.begin()
        by_status = {}

        async def fail(error):
            made.demo.answer = lambda received: error
            return await made.turn("Hello")

        for name in ("First", "second"):
            await made.turn(f"{name} {LONG}[[say ok]] [[usage input_tokens=150000]]")
        later = await made.turn("Third")
        for status in KINDS:
            by_status[status] = await fail(ApiError(status, f"No luck with {status}"))
        too_long = await fail(TOO_LONG)
        window = await fail(limit("five_hour", 2_000_000_000))
        made.demo.answer = None
        far = await made.turn("lorem ipsum " * 300_000 + "[[say ok]]")
        return Failures(by_status, too_long, window, far, later)

    return run(play())


@pytest.fixture(scope="module")
def stranger(stage):
    """A turn of a process without any login."""

    async def play():
        made = await stage(login="none")
        await made.begin()
        return made, await made.turn("Hello")

    return run(play())


@pytest.mark.parametrize("status", KINDS)
def test_an_error_has_a_result_with_its_status(failures, status):
    said = failures.by_status[status].result
    assert said["is_error"] is True
    assert said["api_error_status"] == status
    assert said["subtype"] == "success"  # so it is is_error that counts


@pytest.mark.parametrize("status", KINDS)
def test_an_error_has_a_synthetic_assistant_line_with_its_text(failures, status):
    turn = failures.by_status[status]
    (line,) = turn.all("assistant")
    assert line["message"]["model"] == "<synthetic>"
    assert line["message"]["content"] == [text(turn.result["result"])]


@pytest.mark.parametrize("status", KINDS)
def test_an_error_tells_upstreams_words(failures, status):
    told = f"No luck with {status}" in failures.by_status[status].result["result"]
    assert told == (status not in WORDED_BY_THE_CLI)


@pytest.mark.parametrize("status", KINDS)
def test_an_error_is_of_its_kind(failures, status):
    """Read from the real lines by the daemon's own code."""
    assert kind(failures.by_status[status]) == KINDS[status]


@pytest.mark.parametrize("status", KINDS)
def test_an_error_is_one_request(failures, status, subscribed):
    """With ``CLAUDE_CODE_MAX_RETRIES=0``; a 404 is tried once more whatever it says. A login is
    renewed after a 401, and renewed again."""
    again = {404: 1, 401: 2 if subscribed else 0}
    assert len(failures.by_status[status].requests) == 1 + again.get(status, 0)


def test_an_error_streams_nothing(failures):
    assert not any(turn.events for turn in failures.by_status.values())


def test_too_long_for_upstream_is_told(failures):
    assert failures.too_long.result["api_error_status"] == 400
    assert failures.too_long.result["result"] == "Prompt is too long"
    assert kind(failures.too_long) == Kind.CONTEXT_LENGTH


def test_what_is_too_long_is_left_to_upstream(failures):
    """Thanks to ``CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE``: 3.6 MB go out as they are."""
    assert len(failures.far_too_long.requests) == 1
    said = failures.far_too_long.requests[0].body["messages"][-1]["content"]
    assert sum(len(part["text"]) for part in said) > 3_600_000


def test_a_long_conversation_is_not_summarised(failures):
    """``DISABLE_AUTO_COMPACT``: it goes out whole, in one request."""
    roles = [role for role, _ in conversation(failures.later.body)]
    assert roles == ["user", "assistant"] * 2 + ["user"]
    assert LONG in conversation(failures.later.body)[0][1][0]["text"]


@pytest.mark.only("key")
def test_a_plan_limit_on_a_key_is_no_window(failures):
    assert failures.window.all("rate_limit_event") == []
    assert failures.window.result["api_error_status"] == 429


def test_without_a_login_the_turn_says_so_and_sends_nothing(stranger):
    made, turn = stranger
    assert made.requests == []
    assert turn.result["is_error"] is True
    assert turn.result.get("api_error_status") is None
    assert "Not logged in" in turn.result["result"]
    assert kind(turn) == Kind.AUTHENTICATION


def test_without_a_login_the_process_stays(stranger):
    made, _ = stranger
    assert made.cli.exit is None
