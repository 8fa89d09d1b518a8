"""The session, by bytes: what it writes, what it tells, and when the process has to end."""

from __future__ import annotations

from typing import Any

import pytest
from sessions import (
    FIND,
    FLAGS,
    GRANTED,
    IN,
    INFO,
    LOOK,
    NAMES,
    UPSTREAM,
    answer,
    answering,
    asked,
    awaiting_result,
    call_lines,
    calls,
    cut,
    doom,
    idle,
    kinds,
    limits,
    messages,
    parked,
    preparing,
    queued,
    reopening,
    replaying,
    request,
    results,
    rewinding,
    sent,
    started,
    told,
    tools_call,
    user,
    warm,
    withdrawn,
)

from claudeproxy.cli.errors import LoginAdvice
from claudeproxy.cli.names import ToolNames
from claudeproxy.cli.outputs import (
    Account,
    BillingKnown,
    Limits,
    MustEnd,
    Output,
    Ready,
    Rested,
    Write,
)
from claudeproxy.cli.session import Session
from claudeproxy.cli.settings import BRAKE, RELEASE
from claudeproxy.cli.setup import Setup
from claudeproxy.cli.states import REWINDS, State
from claudeproxy.messages import (
    ArgumentsDelta,
    BlockStarted,
    Failure,
    Finished,
    Kind,
    Message,
    Request,
    Started,
    Text,
    TextDelta,
    ToolResult,
    ToolUse,
)
from claudeproxy.testing import transcripts as cli

# -- the way through --


def test_start_up() -> None:
    session = started()
    assert kinds(session.written) == ["rewind_conversation", "list_models"]
    (ready,) = session.feed(cli.ready())
    assert isinstance(ready, Ready)
    assert [model.name for model in ready.models] == ["default", "opus", "sonnet", "haiku"]
    assert session.state is State.UNUSED
    assert session.feed(cli.ready()) == [], "it starts up once"


def test_a_first_turn_is_set_up_and_asked_at_once() -> None:
    session = warm()
    asks = request("x")
    lines = sent(session.open(asks.messages, Setup.of(asks), FLAGS))
    assert [line.get("request", line)["type" if "message" in line else "subtype"]
            for line in lines] == ["initialize", "apply_flag_settings", "user"]  # fmt: skip
    setup, flags, question = lines
    assert setup["request"]["systemPrompt"] == ["Be brief."]
    assert flags["request"]["settings"] == GRANTED
    assert question["client_composed"] is True
    assert "shouldQuery" not in question
    assert session.state is State.ASKED


def test_a_user_line_of_the_history_is_awaited() -> None:
    session = warm()
    asks = request("a", "b", "c", "d", "e")
    *_, first = sent(session.open(asks.messages, Setup.of(asks), FLAGS))
    assert (first["type"], first["shouldQuery"]) == ("user", False)
    assert session.state is State.REPLAYING
    assert session.feed(cli.completed("another")) == []
    answer, second = sent(session.feed(cli.completed(first["uuid"])))
    assert (answer["type"], second["shouldQuery"]) == ("assistant", False)
    answer, question = sent(session.feed(cli.completed(second["uuid"])))
    assert answer["message"]["content"] == [{"type": "text", "text": "d"}]
    assert question["message"]["content"] == [{"type": "text", "text": "e"}]
    assert session.state is State.ASKED


def test_an_answer() -> None:
    session = asked()
    outputs = told(session.feed(cli.transcript("hello")))
    assert [type(output) for output in outputs[:3]] == [Started, BlockStarted, TextDelta]
    end, billing = outputs[-2:]
    assert isinstance(end, Finished) and end.stop_reason == "end_turn"
    assert end.usage.output_tokens == 5
    assert billing == BillingKnown({})
    assert session.state is State.IDLE


def test_the_next_message_of_an_idle_process() -> None:
    session = idle()
    (question,) = sent(session.put("x", "a", "y", since=2))
    assert question["message"]["content"] == [{"type": "text", "text": "y"}]
    assert any(isinstance(output, Finished) for output in session.feed(cli.transcript("b")))


def test_other_settings_come_before_the_next_message() -> None:
    flags, question = sent(idle().put("x", "a", "y", since=2, flags={"model": "haiku"}))
    assert flags["request"]["settings"] == {**GRANTED, "model": "haiku"}
    assert question["type"] == "user"


def test_a_brake_is_on_from_the_request_to_the_end() -> None:
    session = asked()
    (on,) = sent(session.feed(cli.requesting()))
    assert on["request"]["settings"] == BRAKE
    assert sent(session.feed(cli.opening() + b"".join(cli.text_block(["a"])) + cli.closing())) == []
    (off,) = sent(session.feed(cli.result("a")))
    assert off["request"]["settings"] == {"env": RELEASE}


def test_it_tells_whether_anything_was_asked_upstream() -> None:
    session = asked()
    assert not session.request_sent
    session.feed(cli.line({"type": "system", "subtype": "status", "status": "compacting"}))
    session.feed(cli.line({"type": "system", "subtype": "init"}))
    assert not session.request_sent
    session.feed(cli.requesting())
    assert session.request_sent
    session.feed(cli.transcript("a"))
    session.put("x", "a", "y", since=2)
    assert not session.request_sent


def test_what_is_printed_before_a_turn_begins_puts_no_brake_on() -> None:
    for make in (started, warm, idle, parked):
        assert make().feed(cli.requesting()) == []


def test_the_next_message_of_a_process_that_awaits_its_result_waits_for_it() -> None:
    session = awaiting_result()
    assert session.put("x", "a", "y", since=2) == [BillingKnown({})]
    assert session.unsent
    # What else is printed does not let it go.
    assert session.hear(cli.line({"type": "command_lifecycle", "state": "completed"})) == []
    assert kinds(sent(session.hear(cli.result("a")))) == ["apply_flag_settings", "user"]
    assert not session.unsent
    assert any(isinstance(output, Finished) for output in session.hear(cli.transcript("b")))


def test_an_answer_after_the_one_it_waited_for_is_billed_by_its_own_result() -> None:
    session = queued()
    assert session.hear(limits()) == [Limits(INFO)], "the turn that waits has cost nothing yet"
    assert told(session.hear(cli.result("a"))) == []
    assert told(session.hear(cli.transcript("b")))[-1] == BillingKnown(INFO)


def test_parked_calls_are_answered_in_the_clients_order() -> None:
    session = asked()
    both = b"".join(cli.call_block("toolu1", UPSTREAM, "{}", 0))
    both += b"".join(cli.call_block("toolu2", UPSTREAM, "{}", 1))
    session.feed(cli.opening() + both + tools_call("toolu2", "r2") + cli.closing("tool_use"))
    assert session.state is State.PARKED
    assert session.calls == {"toolu1", "toolu2"}
    results = [ToolResult("toolu1", (Text("one"),)), ToolResult("toolu2", (Text("two"),))]
    (flags,) = sent(
        session.return_tool_results(results, FLAGS)
    )  # the call for the first has not come yet
    assert flags["request"]["subtype"] == "apply_flag_settings"
    first, second = sent(session.feed(tools_call("toolu1", "r1", 7)))
    assert first["response"]["request_id"] == "r1"
    answer = first["response"]["response"]["mcp_response"]
    assert (answer["id"], answer["result"]["content"][0]["text"]) == (7, "one")
    assert second["response"]["request_id"] == "r2"
    assert session.calls == frozenset()
    assert any(isinstance(output, Finished) for output in session.feed(cli.transcript("b")))


def test_the_handshake_of_the_tool_server() -> None:
    session = asked()
    message = {"jsonrpc": "2.0", "id": 3, "method": "tools/list"}
    body = {"subtype": "mcp_message", "server_name": "c", "message": message}
    line = cli.line({"type": "control_request", "request_id": "r", "request": body})
    (answer,) = sent(session.feed(line))
    listed = answer["response"]["response"]["mcp_response"]["result"]["tools"]
    assert [tool["name"] for tool in listed] == ["look"]
    body = {"subtype": "can_use_tool"}
    line = cli.line({"type": "control_request", "request_id": "r", "request": body})
    (refusal,) = sent(session.feed(line))
    assert refusal["response"]["subtype"] == "error"


def test_the_account_is_told_with_the_set_up() -> None:
    account = {"tokenSource": "user", "email": "a@b.example"}
    assert asked().feed(cli.response("setup", account=account)) == [Account(account)]
    assert asked().feed(cli.response("setup")) == [Account(None)]
    assert asked().feed(cli.response("flags", account=account)) == []


# -- tools under the CLI's own names --


def test_tools_have_other_names_upstream() -> None:
    session = warm()
    call = Message("assistant", (ToolUse("toolu1", "look", {}), ToolUse("toolu2", "gone", {})))
    results = Message("user", tuple(ToolResult(f"toolu{n}", (Text("r"),)) for n in (1, 2)))
    asks = Request("opus", (user("a"), call, results), (), (LOOK,))
    setup, flags, first = sent(session.open(asks.messages, Setup.of(asks), FLAGS))
    assert setup["request"]["sdkMcpServers"] == [NAMES.server]
    manifest = setup["request"]["sdkMcpServerManifests"][NAMES.server]
    assert [tool["name"] for tool in manifest["toolsListResult"]["tools"]] == ["look"]
    assert flags["request"]["settings"] == GRANTED
    history, question = sent(session.feed(cli.completed(first["uuid"])))
    names = [block["name"] for block in history["message"]["content"]]
    assert names == [UPSTREAM, NAMES.prefix + "gone"]
    assert [block["type"] for block in question["message"]["content"]] == ["tool_result"] * 2
    (begun,) = (o for o in session.feed(call_lines("toolu3")) if isinstance(o, BlockStarted))
    assert begun.block == ToolUse("toolu3", "look", {})


def test_tools_under_the_clients_own_names() -> None:
    session = warm()
    asks = request("x")
    setup = Setup.of(asks, plain_names=True)
    initialize, flags, _ = sent(session.open(asks.messages, setup, FLAGS))
    assert initialize["request"]["sdkMcpServers"] == [NAMES.server]
    assert flags["request"]["settings"]["permissions"] == {"allow": [f"mcp__{NAMES.server}"]}
    outputs = session.feed(call_lines("toolu1", "look") + cli.closing("tool_use"))
    assert BlockStarted(0, ToolUse("toolu1", "look", {})) in outputs
    assert session.state is State.PARKED


def test_without_tools_nothing_is_granted() -> None:
    session = warm()
    asks = request("x", tools=())
    initialize, flags, _ = sent(session.open(asks.messages, Setup.of(asks), FLAGS))
    assert "sdkMcpServers" not in initialize["request"]
    assert flags["request"]["settings"] == FLAGS


# -- how an answer was paid for --


@pytest.mark.parametrize("make", [started, warm, asked])
def test_windows_are_told_in_any_state(make: Any) -> None:
    assert make().feed(limits()) == [Limits(INFO)]


def test_a_word_that_comes_later_than_it_was_waited_for_counts() -> None:
    session = parked()
    assert session.overdue() == [BillingKnown({})]
    assert session.overdue() == []
    assert session.feed(limits()) == [Limits(INFO), BillingKnown(INFO)]
    assert idle().feed(limits()) == [Limits(INFO), BillingKnown(INFO)]


def test_a_process_that_awaits_its_result_tells_how_it_was_paid_when_that_has_changed() -> None:
    session = awaiting_result()
    assert session.awaits_billing
    assert session.feed(limits()) == [Limits(INFO), BillingKnown(INFO)]
    assert not session.awaits_billing
    assert [type(output) for output in session.feed(cli.result("a"))] == [Write]
    assert session.state is State.IDLE


def test_a_process_that_awaits_its_result_tells_it_at_the_result_otherwise() -> None:
    session = awaiting_result()
    assert told(session.feed(cli.result("a"))) == [BillingKnown({})]
    assert not session.awaits_billing


def test_nothing_printed_means_as_before() -> None:
    """The CLI prints the windows only when they have changed since it last did."""
    session = awaiting_result()
    session.feed(limits() + cli.result("a"))
    session.put("x", "a", "y", since=2)
    assert told(session.feed(cli.transcript("b")))[-1] == BillingKnown(INFO)


def test_a_parked_process_tells_it_at_once_or_when_asked() -> None:
    session = parked()
    assert session.feed(limits()) == [Limits(INFO), BillingKnown(INFO)]
    assert session.overdue() == []
    session = parked()
    assert session.overdue() == [BillingKnown({})]
    assert session.state is State.PARKED


def test_a_parked_process_tells_it_before_it_goes_on() -> None:
    session = parked()
    billing, *_ = session.return_tool_results([ToolResult("toolu1", (Text("one"),))], FLAGS)
    assert billing == BillingKnown({})
    session = parked()
    session.overdue()
    results = [ToolResult("toolu1", (Text("one"),))]
    assert told(session.return_tool_results(results, FLAGS)) == []


# -- an answer after which the CLI would go on by itself --


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "pause_turn", "whatever"])
def test_a_reason_to_go_on_cuts_the_answer(reason: str) -> None:
    session = asked()
    outputs = told(session.feed(answer(reason)))
    end = outputs[-1]
    assert isinstance(end, Finished) and end.stop_reason == reason
    assert session.state is State.CUT
    assert (session.in_turn, session.awaits_billing, session.calls) == (False, True, frozenset())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("look", "{}"), (NAMES.prefix + "nosuch", "{}"), (UPSTREAM, '{"a'), (UPSTREAM, "[1]"),
     (UPSTREAM, "[" * 9999)],
    ids=["plain", "unknown", "cut", "array", "deep"],
)  # fmt: skip
def test_a_call_the_cli_would_answer_itself_cuts_the_answer(name: str, arguments: str) -> None:
    session = asked()
    outputs = session.feed(call_lines("toolu1", name, arguments) + cli.closing("tool_use"))
    assert any(isinstance(output, ArgumentsDelta) for output in outputs)
    assert isinstance(outputs[-1], Finished)
    assert session.state is State.CUT


@pytest.mark.parametrize(
    ("line", "billing"),
    [
        (limits(), [Limits(INFO), BillingKnown(INFO)]),
        (cli.requesting(), [BillingKnown({})]),
        (cli.opening(), [BillingKnown({})]),
        (cli.result("a"), [BillingKnown({})]),
        (cli.result("no", is_error=True), [BillingKnown({})]),
        (tools_call(), [BillingKnown({})]),
        (None, [BillingKnown({})]),
    ],
    ids=["limits", "requesting", "going on", "result", "error", "call", "nothing"],
)
def test_a_cut_answer_is_taken_back_once_its_billing_is_known(
    line: bytes | None, billing: list[Output]
) -> None:
    session = cut()
    outputs = session.do(session.overdue() if line is None else session.feed(line))
    assert told(outputs) == billing
    assert kinds(sent(outputs)) == ["rewind_conversation"]
    assert session.state is State.REWINDING
    assert told(session.hear(session.rewound)) == [Rested()]
    assert (session.state, session.held) == (State.IDLE, 0)


def test_what_a_cut_process_says_besides_is_passed_over() -> None:
    session = cut()
    said = {"model": "<synthetic>", "content": [{"type": "text", "text": "x"}]}
    status = {"type": "system", "subtype": "status", "status": "idle"}
    noise = cli.line({"type": "assistant", "message": said}) + cli.line(status)
    assert session.feed(cli.event("message_stop") + noise) == []
    assert session.state is State.CUT


# -- a turn that is given up --


@pytest.mark.parametrize("make", [answering, cut, awaiting_result, parked, queued])
def test_what_has_been_asked_is_taken_back(make: Any) -> None:
    session = make()
    outputs = session.do(session.give_up())
    assert kinds(sent(outputs)) == ["rewind_conversation"]
    assert not session.in_turn and not session.unsent
    target, last = session.lines[0]["uuid"], session.lines[-1]["uuid"]
    assert session.rewind["request"] == {
        "subtype": "rewind_conversation",
        "target_message_uuid": target,
        "last_seen_user_message_uuid": last,
        "interrupt_if_running": True,
    }
    assert told(session.hear(session.rewound)) == [Rested()]
    assert (session.state, session.held, session.points) == (State.IDLE, 0, (0,))


def test_a_question_that_waits_in_the_queue_is_taken_back_once_the_cli_begins_with_it() -> None:
    """A rewind before would be refused, and the question asked all the same."""
    session = asked()
    (brake,) = sent(session.do(session.give_up()))
    assert brake["request"]["settings"] == BRAKE
    assert (session.state, session.in_turn) == (State.WITHDRAWN, False)
    line = session.lines[-1]["uuid"]
    initialize = cli.mcp_request("m", {"method": "initialize"})
    assert [line["type"] for line in sent(session.hear(initialize))] == ["control_response"]
    assert session.hear(cli.lifecycle(line, "queued") + cli.lifecycle("x", "started")) == []
    (rewind,) = sent(session.hear(cli.lifecycle(line, "started")))
    assert rewind["request"]["target_message_uuid"] == line
    assert session.hear(cli.result("over the limit", is_error=True)) == []
    outputs = session.hear(session.rewound)
    (release,) = sent(outputs)
    assert release["request"]["subtype"] == "apply_flag_settings"
    assert told(outputs) == [Rested()]
    assert (session.state, session.held, session.request_sent) == (State.IDLE, 0, False)


@pytest.mark.parametrize(
    "begun", [cli.requesting(), cli.opening(), cli.result("no", is_error=True)]
)
def test_what_the_cli_does_tells_too_that_it_has_begun(begun: bytes) -> None:
    session = withdrawn()
    (rewind,) = sent(session.hear(begun))
    assert rewind["request"]["subtype"] == "rewind_conversation"
    assert session.state is State.REWINDING


def test_only_the_last_question_is_taken_back() -> None:
    session = asked("a", "b", "c")
    session.hear(session.taken_in)
    session.hear(session.begun)
    session.do(session.give_up())
    assert session.rewind["request"]["target_message_uuid"] == session.lines[-1]["uuid"]
    assert told(session.hear(session.rewound_to("an answer"))) == [Rested()]
    assert (session.held, session.points) == (2, (0, 2))
    (question,) = sent(session.put("a", "b", "d", since=2))
    assert question["message"]["content"] == [{"type": "text", "text": "d"}]


def test_results_are_taken_back_with_their_question() -> None:
    """A line that holds a result is no target, but it may be the last one."""
    call = Message("assistant", (ToolUse("toolu1", "look", {}),))
    asks = (user("a"), call, Message("user", (ToolResult("toolu1", (Text("r"),)),)))
    session = warm()
    session.do(session.open(asks, Setup.of(request("x")), FLAGS))
    session.hear(session.taken_in)
    session.hear(session.begun)
    assert session.held == 3
    session.do(session.give_up())
    asked_for = session.rewind["request"]
    assert asked_for["target_message_uuid"] == session.lines[0]["uuid"]
    assert asked_for["last_seen_user_message_uuid"] == session.lines[1]["uuid"]
    assert session.held == 0


def test_results_that_were_returned_are_no_lines() -> None:
    session = parked()
    session.do(session.return_tool_results(results(), FLAGS))
    session.hear(cli.transcript("b"))
    assert (session.held, session.points) == (4, (0, 4))
    session.put("x", "call", "result", "b", "y", since=4)
    session.hear(session.begun)
    session.do(session.give_up())
    first, second = session.lines
    assert session.rewind["request"]["target_message_uuid"] == second["uuid"]
    session.hear(session.rewound_to("b"))
    session.put("other")
    assert session.rewind["request"]["target_message_uuid"] == first["uuid"]
    assert session.rewind["request"]["last_seen_user_message_uuid"] == first["uuid"]


def test_a_history_that_is_given_up_is_held_as_far_as_it_was_taken_in() -> None:
    session = replaying()
    assert session.do(session.give_up()) == []
    assert session.state is State.PREPARING
    assert session.hear(cli.completed("another")) == []
    assert session.hear(session.taken_in) == [Rested()]
    assert (session.state, session.held, session.points) == (State.IDLE, 1, (0, 1))
    lines = sent(session.put("a", "b", "c", since=1))
    assert kinds(lines) == ["assistant", "user"]


def test_a_turn_may_be_given_up_while_it_waits_for_a_rewind() -> None:
    session = reopening()
    assert session.do(session.give_up()) == []
    assert session.state is State.REWINDING
    outputs = session.hear(session.rewound)
    assert outputs == [Rested()], "and it is not asked"
    assert session.put("another") and session.state is State.ASKED


def test_a_failed_turn_is_taken_back() -> None:
    session = asked()
    failed, rewind = session.hear(cli.result("API Error: 529", is_error=True, api_error_status=529))
    assert isinstance(failed, Failure) and failed.status == 529
    assert kinds(sent([rewind])) == ["rewind_conversation"]
    assert told(session.hear(session.rewound)) == [Rested()]
    assert session.ended("exit 0") == []


@pytest.mark.parametrize("make", [awaiting_result, parked])
@pytest.mark.parametrize("said", [cli.opening(), cli.result("no", is_error=True)])
def test_what_goes_on_by_itself_is_taken_back(make: Any, said: bytes) -> None:
    session = make()
    outputs = session.hear(said)
    assert (told(outputs), kinds(sent(outputs))) == ([BillingKnown({})], ["rewind_conversation"])
    assert session.state is State.REWINDING


@pytest.mark.parametrize("make", [idle, warm, preparing])
def test_what_goes_on_by_itself_from_rest_makes_no_sense(make: Any) -> None:
    for said in (cli.opening(), cli.result("no", is_error=True)):
        assert [type(output) for output in told(make().hear(said))] == [MustEnd]


@pytest.mark.parametrize("said", [cli.opening(), cli.result("no", is_error=True)])
def test_a_turn_that_waits_behind_one_that_goes_on_is_told_and_was_not_asked(said: bytes) -> None:
    session = queued()
    assert doom(session.hear(said)).status == 502
    assert session.unsent and not session.request_sent
    assert session.ended("exit 0") == []


@pytest.mark.parametrize("make", [asked, cut, awaiting_result, parked])
def test_where_there_is_no_way_back_it_ends(make: Any) -> None:
    session = make()
    session.can_rewind = False
    outputs = session.do(session.give_up())
    assert isinstance(outputs[-1], MustEnd)
    assert kinds(sent(outputs)) == ["apply_flag_settings", "interrupt"]


# -- a rewind --


@pytest.mark.parametrize("make", [rewinding, reopening])
def test_nothing_is_sent_before_a_rewind_is_answered_and_nothing_heard(make: Any) -> None:
    session = make()
    said = (
        answer()
        + calls()
        + cli.requesting()
        + cli.opening()
        + cli.event("message_stop")
        + cli.result("a")
        + cli.result("no", is_error=True)
        + cli.cancelled(session.lines[-1]["uuid"])
        + session.taken_in
        + cli.response("flags")
        + cli.line({"type": "user", "message": {"content": "[Request interrupted by user]"}})
    )
    state = session.state
    assert session.hear(said) == []
    assert (session.state, session.request_sent) == (state, make is rewinding)
    assert session.state in REWINDS


@pytest.mark.parametrize("make", [rewinding, reopening])
def test_windows_and_tool_servers_go_on_meanwhile(make: Any) -> None:
    session = make()
    assert session.hear(limits()) == [Limits(INFO)]
    (listed,) = sent(session.hear(cli.mcp_request("r", {"method": "tools/list"})))
    assert listed["response"]["request_id"] == "r"
    (taken,) = sent(session.hear(cli.mcp_request("r", {"method": "notifications/cancelled"})))
    assert "error" not in taken["response"]["response"]["mcp_response"]


def test_a_turn_that_waits_for_a_rewind_is_put_behind_it() -> None:
    session = reopening()
    assert session.unsent
    (question,) = sent(session.hear(session.rewound))
    assert question["message"]["content"] == [{"type": "text", "text": "other"}]
    assert not session.unsent
    outputs = told(session.hear(cli.transcript("b")))
    assert any(isinstance(output, Finished) for output in outputs)
    assert session.held == 2


def test_a_history_is_put_behind_a_rewind_from_where_it_differs() -> None:
    session = asked("a", "b", "c")
    session.hear(session.taken_in + cli.transcript("d"))
    assert (session.held, session.points) == (4, (0, 2, 4))
    session.put("a", "b", "other", "e", "f", since=2)
    assert session.rewind["request"]["target_message_uuid"] == session.lines[1]["uuid"]
    (line,) = sent(session.hear(session.rewound_to("b")))
    assert line["message"]["content"] == [{"type": "text", "text": "other"}]
    assert line["shouldQuery"] is False
    assert kinds(sent(session.hear(session.taken_in))) == ["assistant", "user"]
    assert session.state is State.ASKED


def test_a_call_from_before_a_rewind_gets_no_result_after_it() -> None:
    session = parked()
    session.put("other")
    assert session.hear(tools_call("toolu2", "late")) == []
    session.hear(session.rewound + calls("toolu3"))
    _, result = sent(session.do(session.return_tool_results(results("toolu3"), FLAGS)))
    assert result["type"] == "control_response"
    assert sent(session.hear(tools_call("toolu1", "r1"))) == []


@pytest.mark.parametrize("late", [b"", tools_call()], ids=["before", "meanwhile"])
def test_a_call_is_answered_where_it_came_from(late: bytes) -> None:
    """A new call may have the id of one from before the rewind."""
    session = parked()
    session.put("other")
    session.hear(late)
    session.hear(session.rewound + call_lines() + cli.closing("tool_use"))
    assert kinds(sent(session.return_tool_results(results(), FLAGS))) == ["apply_flag_settings"]
    (result,) = sent(session.hear(tools_call(request_id="r2")))
    assert result["response"]["request_id"] == "r2"


def test_results_that_were_not_fetched_before_a_rewind_do_not_hold_up_others() -> None:
    session = asked()
    session.hear(call_lines() + cli.closing("tool_use"))
    session.do(session.return_tool_results(results(), FLAGS))
    session.do(session.give_up())
    session.hear(session.rewound)
    session.put("other")
    session.hear(calls("toolu2"))
    _, result = sent(session.return_tool_results(results("toolu2"), FLAGS))
    assert result["type"] == "control_response"


@pytest.mark.parametrize("reason", ["turn_running", "target_not_found", "commands_queued"])
def test_a_refused_rewind_ends_the_process(reason: str) -> None:
    for make, types in ((rewinding, [MustEnd]), (reopening, [Failure, MustEnd])):
        session = make()
        outputs = told(session.hear(cli.rewound_not(session.rewind["request_id"], reason)))
        assert [type(output) for output in outputs] == types
        assert reason in outputs[-1].why
        assert session.state is State.DEAD


def test_a_rewind_nobody_knows_ends_the_process() -> None:
    session = reopening()
    refusal = cli.refused(session.rewind["request_id"], "Unsupported control request")
    assert "Unsupported control request" in doom(session.hear(refusal)).message
    assert session.unsent and not session.request_sent


def test_what_a_rewind_has_left_ends_the_process() -> None:
    session = reopening()
    broken = doom(session.hear(session.rewound_to("an answer")))
    assert (broken.status, session.unsent) == (502, True)
    assert session.request_sent is False


def test_an_answer_to_no_rewind_is_passed_over() -> None:
    for make in (warm, asked, idle, parked, replaying):
        session = make()
        assert session.hear(cli.rewound("unheard of", "x")) == []
        nobodys = {"type": "control_response", "response": {"subtype": "success"}}
        assert session.hear(cli.line(nobodys)) == []
    assert session.state is State.REPLAYING


@pytest.mark.parametrize("make", [rewinding, reopening, preparing])
def test_what_does_not_come_to_its_end_in_time_ends_the_process(make: Any) -> None:
    session = make()
    waits = session.in_turn
    outputs = told(session.do(session.overdue()))
    assert [type(output) for output in outputs] == [Failure] * waits + [MustEnd]
    assert session.hear(session.rewound if make is not preparing else session.taken_in) == []
    assert session.ended("exit 0") == []


def test_what_is_in_time_is_not_overdue() -> None:
    for make in (started, warm, asked, idle, replaying, queued):
        assert make().overdue() == []


@pytest.mark.parametrize(("rewinds", "points"), [(True, (0, 2)), (False, (2,))])
def test_where_it_can_be_taken_back_to(rewinds: bool, points: tuple[int, ...]) -> None:
    session = asked(rewinds=rewinds)
    assert (session.can_rewind, session.points) == (rewinds, ())
    session.hear(answer())
    assert session.points == points
    session.hear(cli.result("a"))
    assert session.points == points


def test_parked_it_can_only_be_taken_back() -> None:
    session = parked()
    assert (session.held, session.points) == (2, (0,))
    session.can_rewind = False
    assert session.points == ()


def test_an_old_one_goes_on_where_it_is() -> None:
    session = asked(rewinds=False)
    session.hear(cli.transcript("a"))
    assert kinds(sent(session.put("x", "a", "y", since=2))) == ["user"]


# -- settings and tools of the next conversation --


def test_other_tools_are_put_in_the_place_of_those_before() -> None:
    session = idle()
    session.put("other", tools=(FIND,))
    names = ToolNames.of((FIND,))
    servers, flags, question = sent(session.hear(session.rewound))
    assert servers["request"] == {
        "subtype": "mcp_set_servers",
        "servers": {names.server: {"type": "sdk", "name": names.server, "timeout": 86_400_000}},
    }
    assert flags["request"]["settings"]["permissions"] == {"allow": [f"mcp__{names.server}"]}
    assert question["type"] == "user"
    session.hear(cli.response(servers["request_id"], added=[names.server], removed=[], errors={}))
    (listed,) = sent(session.hear(cli.mcp_request("r", {"method": "tools/list"}, names.server)))
    tools = listed["response"]["response"]["mcp_response"]["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["find"]
    begun = session.hear(call_lines("toolu1", names.upstream("find")) + cli.closing("tool_use"))
    assert BlockStarted(0, ToolUse("toolu1", "find", {})) in begun
    assert session.state is State.PARKED


def test_tools_are_taken_away() -> None:
    session = idle()
    session.put("other", tools=())
    servers, flags, _ = sent(session.hear(session.rewound))
    assert servers["request"] == {"subtype": "mcp_set_servers", "servers": {}}
    assert "permissions" not in flags["request"]["settings"]


def test_the_same_tools_in_another_order_stay() -> None:
    session = asked(tools=(LOOK, FIND))
    session.hear(cli.transcript("a"))
    session.put("other", tools=(FIND, LOOK))
    assert kinds(sent(session.hear(session.rewound))) == ["user"]


@pytest.mark.parametrize(
    "said",
    [
        cli.response("servers", added=[], removed=[], errors={"c": "no such transport"}),
        cli.refused("servers", "no such transport"),
    ],
)
def test_tools_that_could_not_be_exchanged_end_the_process(said: bytes) -> None:
    session = idle()
    session.put("other", tools=(FIND,))
    session.hear(session.rewound)
    assert "no such transport" in doom(session.hear(said)).message


def test_settings_stay_over_a_rewind() -> None:
    session = reopening()
    assert kinds(sent(session.hear(session.rewound))) == ["user"]
    session = idle()
    session.put("other", flags={"model": "haiku"})
    flags, _ = sent(session.hear(session.rewound))
    assert flags["request"]["settings"] == {**GRANTED, "model": "haiku"}


def test_a_brake_is_off_before_the_next_turn() -> None:
    session = rewinding()
    (off,) = sent(session.hear(session.rewound))
    assert off["request"]["settings"] == {"env": RELEASE}
    assert kinds(sent(session.put("other"))) == ["user"]
    session = parked()
    session.put("other")
    flags, _ = sent(session.hear(session.rewound))
    assert flags["request"]["settings"] == GRANTED
    session = queued()
    flags, _ = sent(session.hear(cli.result("a")))
    assert flags["request"]["settings"] == GRANTED


def test_another_system_prompt_needs_another_process() -> None:
    session = idle()
    with pytest.raises(ValueError, match="system prompt"):
        session.open(messages("x"), Setup(("Be long.",)), FLAGS)


def test_one_that_told_its_account_has_no_system_prompt() -> None:
    session = warm()
    (asks,) = sent(session.ask_account())
    assert asks["request"] == {"subtype": "initialize", "systemPrompt": []}
    with pytest.raises(ValueError, match="system prompt"):
        session.put("x")
    assert kinds(sent(session.open(messages("x"), Setup(), FLAGS))) == [
        "apply_flag_settings",
        "user",
    ]


# -- nonsense --

ALIVE = [make for state, make in IN.items() if state is not State.DEAD]

STRAY = (b"oops", b"[1, 2]", b"5", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000)

BROKEN = (b"{}", b'{"type"', b' {"type": 5', b'{"a":' * 100_000)


@pytest.mark.parametrize("line", STRAY, ids=range(len(STRAY)))
@pytest.mark.parametrize("make", ALIVE)
def test_what_is_no_message_is_passed_over_and_counted(make: Any, line: bytes) -> None:
    session = make()
    before = session.state
    assert session.feed(line + b"\n" + line + b"\n") == []
    assert (session.state, session.skipped_lines) == (before, 2)


@pytest.mark.parametrize("line", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("make", ALIVE)
def test_a_broken_message_ends_the_process(make: Any, line: bytes) -> None:
    session = make()
    in_turn = session.in_turn
    outputs = told(session.feed(line + b"\n"))
    assert [type(output) for output in outputs] == ([Failure, MustEnd] if in_turn else [MustEnd])
    assert session.state is State.DEAD
    assert session.feed(cli.transcript("more")) == []


SHAPELESS: tuple[dict[str, Any], ...] = (
    {"type": "stream_event"},
    {"type": "stream_event", "event": 5},
    {"type": "stream_event", "event": {"type": "message_start"}},
    {"type": "stream_event", "event": {"type": "message_start", "message": {"id": 1, "model": 2}}},
    {"type": "stream_event", "event": {"type": "content_block_start", "index": 0}},
    {"type": "stream_event", "event": {"type": "message_delta"}},
    {"type": "stream_event", "event": {"type": "content_block_delta", "index": 0,
     "delta": {"type": "text_delta", "text": "no block"}}},
    {"type": "control_response"},
    {"type": "control_request", "request_id": "r"},
    {"type": "control_request", "request_id": "r", "request": {"subtype": "mcp_message",
     "message": {"method": "tools/call"}}},
    {"type": "rate_limit_event"},
    {"type": "assistant"},
)  # fmt: skip


@pytest.mark.parametrize("line", SHAPELESS, ids=range(len(SHAPELESS)))
def test_a_line_without_its_fields_ends_the_process(line: dict[str, Any]) -> None:
    broken = doom(asked().feed(cli.line(line)))
    assert (broken.kind, broken.status) == (Kind.UPSTREAM, 502)


def test_an_endless_line_ends_the_process() -> None:
    session = Session(lambda: 0.0, line_limit=100)
    session.feed(cli.ready()[:50])
    assert isinstance(session.feed(b"x" * 100)[-1], MustEnd)


def test_a_second_beginning_is_a_failure() -> None:
    begun = cli.opening() + b"".join(cli.text_block(["a"]))
    session = asked()
    *_, failure, rewind = session.hear(begun + cli.opening())
    assert isinstance(failure, Failure) and "began anew" in failure.message
    assert kinds(sent([rewind])) == ["rewind_conversation"]


def test_a_beginning_without_content_may_be_repeated() -> None:
    outputs = asked().feed(cli.opening() + cli.transcript("a"))
    assert not any(isinstance(output, (Failure, MustEnd)) for output in outputs)


def test_an_end_without_a_reason_has_the_reason_said_before() -> None:
    content = [{"type": "text", "text": "API Error: 529 busy"}]
    said = {"model": "<synthetic>", "content": content}
    line = cli.line({"type": "assistant", "message": said, "api_error_status": 529})
    *_, broken, _ = asked().feed(cli.opening() + line + cli.event("message_stop"))
    assert isinstance(broken, Failure)
    assert (broken.kind, broken.status) == (Kind.OVERLOADED, 529)


def test_a_refused_control_request_ends_the_process() -> None:
    refusal = {"subtype": "error", "request_id": "setup", "error": "no such thing"}
    line = cli.line({"type": "control_response", "response": refusal})
    assert "no such thing" in doom(asked().feed(line)).message
    assert isinstance(started().feed(line)[-1], MustEnd)


def test_events_of_a_sub_agent_are_passed_over() -> None:
    line = {"type": "stream_event", "parent_tool_use_id": "x", "event": {"type": "message_start"}}
    assert asked().feed(cli.line(line)) == []


def test_one_that_has_lost_its_login_ends_and_says_what_to_do() -> None:
    session = warm(advice=LoginAdvice("run `c auth login`"))
    session.put("x")
    failed = doom(session.hear(cli.result("Not logged in", is_error=True)))
    assert (failed.status, failed.code) == (401, "not_logged_in")
    assert "run `c auth login`" in failed.message
    assert session.state is State.DEAD
    assert session.ended("exit 0") == [], "whoever asked has been told"


def test_a_window_that_is_used_up_is_named_with_its_reset() -> None:
    used_up = limits({**INFO, "status": "rejected"})
    error = cli.result("API Error: 429 no", is_error=True, api_error_status=429)
    session = asked()
    assert session.feed(used_up) == [Limits({**INFO, "status": "rejected"})]
    (failed,) = told(session.feed(error))
    assert isinstance(failed, Failure)
    assert (failed.kind, failed.window) == (Kind.PLAN_LIMIT, "five_hour")
    assert failed.retry_after == 4000.0


# -- its end --


@pytest.mark.parametrize("make", [started, warm, idle])
def test_a_process_at_rest_ends_without_a_word(make: Any) -> None:
    session = make()
    assert session.end() == []
    assert session.state is State.DEAD


@pytest.mark.parametrize(
    "make",
    [make for make in ALIVE if make not in (started, warm, idle)],
)
def test_a_process_at_work_is_interrupted_first(make: Any) -> None:
    session = make()
    in_turn = session.in_turn
    brake, interrupt = sent(session.end())
    assert brake["request"]["settings"] == BRAKE
    assert interrupt["type"] == "control_request"
    assert interrupt["request"] == {"subtype": "interrupt"}
    assert session.end() == []
    assert session.feed(cli.transcript("more")) == []
    assert [type(output) for output in session.ended("exit 0")] == ([Failure] if in_turn else [])
    assert session.ended("exit 0") == []


def test_a_process_that_must_end_is_interrupted_too() -> None:
    session = asked()
    _, interrupt = sent(session.feed(b"{oops\n"))
    assert interrupt["request"] == {"subtype": "interrupt"}
    assert session.ended("exit 0") == [], "whoever asked has been told"
    assert sent(idle().feed(b"{oops\n")) == []


@pytest.mark.parametrize("make", [make for make in ALIVE if not make().in_turn])
def test_an_end_between_turns_is_no_doom(make: Any) -> None:
    session = make()
    assert session.ended("exit 0") == []
    assert session.state is State.DEAD


@pytest.mark.parametrize("make", [asked, replaying, queued, reopening])
def test_an_end_in_a_turn_is_one(make: Any) -> None:
    session = make()
    (broken,) = session.ended("signal 11")
    assert isinstance(broken, Failure)
    assert (broken.status, "signal 11" in broken.message) == (502, True)


@pytest.mark.parametrize("kind", [[], {}, 5, None, "unheard of"])
def test_types_nobody_knows_are_passed_over(kind: Any) -> None:
    assert asked().feed(cli.line({"type": kind})) == []
