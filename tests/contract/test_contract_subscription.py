"""What the CLI does with a login: its renewal, its windows, its end, and other sessions.

All in front of a rehearsed subscription, at Anthropic's own addresses.
"""

import json
import os
import time
from contextlib import suppress

import pytest
from driver import (
    CLI,
    RESULT,
    completed,
    control,
    event,
    flags,
    of_type,
    run,
    serving,
    system_texts,
    tool,
    tools_call,
    user,
)
from harness import HARMLESS, until
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from claudeproxy.cli.login import LOCK, parse_account
from claudeproxy.cli.settings import BRAKE
from claudeproxy.demo.steps import ApiError
from claudeproxy.rehearsal.account import PlanWindow
from claudeproxy.rehearsal.home import login_in, put_login

pytestmark = pytest.mark.only("subscription")

RENEWAL = 3.0
"""Seconds a renewal takes here: more than the two that the CLI waits at rest."""

RESETS = int(time.time()) + 4 * 3600
"""The CLI leaves out windows whose reset is too far off to be true."""

SLOW = "[[pause 0.2]][[repeat 20 word]]"
REQUESTING = of_type("system", "status")


def login_lives(made):
    """Whether what is kept in the home directory can still be renewed."""
    kept = login_in(made.home)
    return bool(kept and kept["refreshToken"]) and made.account.knows(kept["refreshToken"])


def expire(made):
    """The login has to be renewed before anything is asked."""
    made.account.renewal_seconds = RENEWAL
    put_login(made.home, made.account.log_in(-5))


async def renewing(made):
    await until(lambda: made.subscription.renewing)


def sessions(made):
    folder = made.home / ".claude" / "sessions"
    return sorted(os.listdir(folder)) if folder.exists() else []


async def ended(made, *, interrupt=True):
    """End it as the daemon does."""
    if interrupt:
        made.cli.send(control("stop", "interrupt"))
    made.cli.transport.closeStdin()
    made.cli.ended.addTimeout(20, reactor)
    await made.cli.ended


# -- what it asks --


@pytest.fixture(scope="module")
def hello(stage):
    async def play():
        made = await stage()
        made.account.windows = {"five_hour": PlanWindow(0.25, RESETS)}
        await made.begin("Be brief.", model="opus")
        return made, await made.turn("Hello")

    return run(play())


def test_nothing_but_messages_and_the_profile_is_asked(hello):
    """``ENABLE_CLAUDEAI_MCP_SERVERS``: no connectors; and no probe, title or telemetry."""
    made, turn = hello
    assert len(turn.requests) == 1
    assert {asked.path for asked in made.subscription.asked} <= set(HARMLESS)


def test_the_users_address_goes_along(hello):
    _, turn = hello
    assert "nobody@example.invalid" in json.dumps(turn.body["messages"][0])


def test_the_identity_is_the_clis_own(hello):
    _, turn = hello
    assert system_texts(turn.body)[1].startswith("You are a Claude agent, built on")


def test_the_answer_to_initialize_tells_the_account(hello):
    made, _ = hello
    answer = next(
        line["response"]["response"]
        for line in made.cli.lines
        if line["type"] == "control_response" and line["response"]["request_id"] == "setup"
    )
    assert answer["account"]["email"] == "nobody@example.invalid"
    assert parse_account(answer["account"]).logged_in


@ensureDeferred
async def test_without_a_login_initialize_tells_so(stage):
    made = await stage(login="none")
    answer = await made.cli.ask("initialize", systemPrompt=[])
    assert parse_account(answer["response"]["account"]).logged_in is False


@pytest.mark.parametrize("model", ["opus", "sonnet", "haiku"])
@ensureDeferred
async def test_a_400_is_one_request_on_every_alias(stage, model):
    """``CLAUDE_CODE_NO_MODEL_FALLBACK``: else another model would be asked, too."""
    made = await stage()
    made.demo.answer = lambda received: ApiError(400, "No luck")
    await made.begin(model=model)
    turn = await made.turn("Hello")
    assert (len(turn.requests), turn.result["api_error_status"]) == (1, 400)
    assert "fallbacks" not in turn.requests[0].body


# -- the login --


@ensureDeferred
async def test_an_interrupt_in_a_renewal_waits_for_it_and_sends_nothing(stage):
    made = await stage()
    await made.begin()
    expire(made)
    made.cli.send(user("Hello"))
    await renewing(made)
    await ended(made)
    assert (made.requests, made.subscription.renewals, login_lives(made)) == ([], 1, True)


@ensureDeferred
async def test_the_lock_is_there_while_the_login_is_renewed(stage):
    made = await stage()
    await made.begin()
    lock = made.home / ".claude" / LOCK
    assert not lock.exists()
    expire(made)
    made.cli.send(user("Hello"))
    await renewing(made)
    assert lock.exists()
    await made.cli.line(RESULT)
    assert not lock.exists()


@ensureDeferred
async def test_a_renewal_at_its_start_has_begun_once_it_is_ready(stage):
    """So a process that is ready, and no lock: it can be ended."""
    made = await stage(login_seconds=-5, renewal_seconds=RENEWAL)
    assert (made.home / ".claude" / LOCK).exists()
    await until(lambda: not (made.home / ".claude" / LOCK).exists())
    await ended(made, interrupt=False)
    assert (made.subscription.renewals, login_lives(made)) == (1, True)


@ensureDeferred
async def test_a_process_at_rest_does_not_wait_for_its_renewal(stage):
    """Its pipe closed, it exits after two seconds: the login is lost. So the lock is waited for."""
    made = await stage(login_seconds=-5, renewal_seconds=RENEWAL + 3)
    await ended(made, interrupt=False)
    assert not login_lives(made)


@pytest.mark.parametrize(
    ("dies", "words", "status"),
    [
        ("used up", "session expired and could not be refreshed", None),
        ("revoked", "session expired and could not be refreshed", None),
        ("no renewal", "OAuth token has expired", 401),
    ],
)
@ensureDeferred
async def test_a_login_that_dies_says_so(stage, dies, words, status):
    made = await stage()
    await made.begin()
    if dies == "revoked":
        made.account.revoke()
    else:
        expire(made)
        made.account.renewal_seconds = 0
    if dies == "used up":
        made.account.renew(login_in(made.home)["refreshToken"])
    if dies == "no renewal":
        made.account.renewal_failure = 500
    turn = await made.turn("Hello")
    assert words in turn.result["result"]
    assert turn.result["api_error_status"] == status


@ensureDeferred
async def test_a_process_used_while_logged_out_is_no_good_afterwards(stage):
    """Its next turn goes out without the beta that a login needs."""
    made = await stage()
    await made.begin()
    made.account.revoke()
    await made.turn("Hello")
    put_login(made.home, made.account.log_in())
    turn = await made.turn("Hello")
    assert "not supported" in turn.result["result"]


# -- its end --


@pytest.mark.parametrize("moment", ["idle", "requesting", "begun", "parked"])
@ensureDeferred
async def test_an_interrupt_and_a_closed_pipe_end_it_with_no_further_request(stage, moment):
    made = await stage()
    await made.begin("Be brief.", **serving(tool()))
    if moment == "idle":
        await made.turn("Hello")
    else:
        made.cli.send(user("[[call look {}]]" if moment == "parked" else SLOW))
        await made.cli.line(REQUESTING)
        made.cli.send(flags(**BRAKE))
        if moment != "requesting":
            await made.cli.line(tools_call if moment == "parked" else event("message_start"))
    sent = len(made.requests)
    await ended(made)
    assert made.cli.exit in (0, 1)
    assert len(made.requests) <= max(sent, 1)
    assert sessions(made) == []


@ensureDeferred
async def test_a_killed_process_leaves_its_entry_among_the_sessions(stage):
    made = await stage()
    await until(lambda: len(sessions(made)) == 2)
    await made.cli.kill()
    assert len(sessions(made)) == 2


@ensureDeferred
async def test_an_entry_that_is_taken_away_does_not_come_back(stage):
    made = await stage()
    await until(lambda: len(sessions(made)) == 2)
    await made.begin()
    await made.turn("Hello")
    for name in sessions(made):
        (made.home / ".claude" / "sessions" / name).unlink()
    await made.turn("Hello")
    await made.turn("Hello")
    assert sessions(made) == []


@pytest.mark.parametrize("inbound", ["refuse", "accept"])
@ensureDeferred
async def test_another_session_speaks_to_one_that_does_not_refuse(stage, claude, inbound):
    """A second ``claude`` of the user, whose model calls ``SendMessage``. The daemon's refuse."""
    made = await stage(inbound=inbound)
    await made.begin()
    await until(lambda: len(sessions(made)) == 2)
    (entry,) = (name for name in sessions(made) if name.endswith(".json"))
    known = json.loads((made.home / ".claude" / "sessions" / entry).read_text())
    order = json.dumps({"to": known["name"], "message": "INTRUDER", "summary": "so to say"})
    other = CLI()
    quiet = {"IS_SANDBOX": "1", "ENABLE_TOOL_SEARCH": "false"}
    flags_ = "-p --input-format stream-json --output-format stream-json --verbose"
    command = [claude, *flags_.split(), "--permission-mode", "bypassPermissions"]
    environment = {**made.environment(), **quiet}
    reactor.spawnProcess(other, claude, command, environment, path=str(made.cwd))
    other.send(user(f"[[call SendMessage {order}]]"))
    assert "success" in (await other.line(RESULT))["result"]
    with suppress(AssertionError):
        await until(lambda: any(map(event("message_start"), made.cli.lines)), 3)
    await other.kill()
    assert any(map(event("message_start"), made.cli.lines)) is (inbound == "accept")


# -- the windows --


@pytest.fixture(scope="module")
def windows(stage):
    """What was told of the windows with each turn of one process."""

    async def play():
        made = await stage()
        account = made.account
        await made.begin(model="opus")
        told = {}

        async def take(name, **windows):
            account.windows.update(windows)
            turn = await made.turn("Hello")
            told[name] = turn
            return turn

        await take("first", five_hour=PlanWindow(0.25, RESETS), seven_day=PlanWindow(0.5, RESETS))
        await take("same")
        account.extra_usage = True
        await take("extra usage on")
        await take("full and paid", five_hour=PlanWindow(1.0, RESETS))
        account.judged = "Claude agent"
        await take("judged and paid", five_hour=PlanWindow(0.5, RESETS))
        account.extra_usage = False
        await take("judged and refused")
        account.judged = None
        await take("full", five_hour=PlanWindow(1.0, RESETS))
        return told

    return run(play())


def told(turn):
    (line,) = turn.all("rate_limit_event")
    return line["rate_limit_info"]


def test_every_window_is_told_with_a_good_answer(windows):
    info = told(windows["first"])
    assert info["status"] != "rejected"
    assert info["unifiedWindows"]["five_hour"]["utilization"] == 0.25
    assert info["unifiedWindows"]["seven_day"]["resetsAt"] == RESETS


def test_it_is_told_right_behind_message_stop(windows):
    lines = windows["first"].lines
    at = next(n for n, line in enumerate(lines) if line["type"] == "rate_limit_event")
    assert event("message_stop")(lines[at - 1])


def test_what_has_not_changed_is_not_told_again(windows):
    assert windows["same"].all("rate_limit_event") == []


def test_extra_usage_is_told(windows):
    assert told(windows["first"]).get("overageStatus") != "allowed"
    assert told(windows["extra usage on"])["overageStatus"] == "allowed"
    assert "overageInUse" not in told(windows["extra usage on"])


def test_a_turn_that_was_paid_says_so(windows):
    full, judged = told(windows["full and paid"]), told(windows["judged and paid"])
    assert (full["overageInUse"], full["isUsingOverage"]) == (True, True)
    assert full["status"] == "rejected"
    assert (judged["overageInUse"], judged["isUsingOverage"]) == (True, False)
    assert judged["status"] != "rejected"


def test_a_third_party_refusal_keeps_its_words(windows):
    turn = windows["judged and refused"]
    assert "Third-party apps now draw from your extra usage" in turn.result["result"]
    assert (turn.result["api_error_status"], len(turn.requests)) == (400, 1)


def test_a_full_window_is_one_request(windows):
    assert len(windows["full"].requests) == 1
    assert told(windows["full"])["status"] == "rejected"


# -- tool names --


@ensureDeferred
async def test_tools_are_named_after_their_server(stage):
    """``mcp__SERVER__NAME``; what the API does not take becomes ``_``; no name is reserved."""
    made = await stage(more={"CLAUDE_AGENT_SDK_MCP_NO_PREFIX": ""})
    names = ["look", "get.weather", "a__b", "ToolSearch", "StructuredOutput", "über"]
    await made.begin(**serving(*map(tool, names)))
    turn = await made.turn("Hello")
    sent = {offered["name"].removeprefix("mcp__c__") for offered in turn.body["tools"]}
    assert sent == {"look", "get_weather", "a__b", "ToolSearch", "StructuredOutput", "_ber"}


@ensureDeferred
async def test_flags_may_grant_a_server_and_later_ones_leave_that(stage):
    made = await stage(more={"CLAUDE_AGENT_SDK_MCP_NO_PREFIX": ""})
    await made.begin(**serving(tool()))
    blank = user(query=False)
    made.cli.send(blank)
    await made.cli.line(completed(blank))
    made.cli.send(flags(model="opus"), user("[[call mcp__c__look {}]]"))
    assert await made.cli.line(tools_call)
