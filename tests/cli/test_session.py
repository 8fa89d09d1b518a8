"""The session, by bytes: what it writes, what it tells, and when it dooms the process."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudeproxy import testing as cli
from claudeproxy.cli.outputs import Doomed, Output, Ready, Window, Write
from claudeproxy.cli.session import Session, State
from claudeproxy.cli.settings import BRAKE, RELEASE
from claudeproxy.cli.setup import Setup
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
    Tool,
    ToolResult,
)

LOOK = Tool("look", "Looks.", {"type": "object"})
FLAGS: dict[str, Any] = {"model": "opus"}


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def request(*texts: str, tools: tuple[Tool, ...] = (LOOK,)) -> Request:
    """Messages in turn by user and assistant."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[n % 2], (Text(t),)) for n, t in enumerate(texts))  # type: ignore[arg-type]
    return Request("opus", messages, ("Be brief.",), tools)


def sent(outputs: Iterable[Output]) -> list[Any]:
    """The lines written."""
    data = b"".join(output.data for output in outputs if isinstance(output, Write))
    return [json.loads(line) for line in data.splitlines()]


def told(outputs: Iterable[Output]) -> list[Output]:
    """All but what is written."""
    return [output for output in outputs if not isinstance(output, Write)]


def failure(outputs: Iterable[Output]) -> Failure:
    """The only failure, followed by the process's doom."""
    said = told(outputs)
    assert isinstance(said[-2], Failure), said
    assert isinstance(said[-1], Doomed), said
    return said[-2]


def started() -> Session:
    return Session(lambda: 1000.0)


def warm() -> Session:
    session = started()
    session.feed(cli.ready())
    return session


def asked(*texts: str, tools: tuple[Tool, ...] = (LOOK,)) -> Session:
    """A session whose answer is awaited."""
    session = warm()
    asks = request(*(texts or ("x",)), tools=tools)
    session.open(asks, Setup.of(asks), FLAGS)
    return session


def settling() -> Session:
    session = asked()
    session.feed(cli.opening() + b"".join(cli.text_block(["a"])) + cli.closing())
    return session


def idle() -> Session:
    session = settling()
    session.feed(cli.result("a"))
    return session


def call_lines(call_id: str = "toolu1", name: str = "look", arguments: str = "{}") -> bytes:
    return cli.opening() + b"".join(cli.call_block(call_id, name, arguments, 0))


def tools_call(call_id: str = "toolu1", request_id: str = "r1", rpc_id: int = 1) -> bytes:
    params = {"name": "look", "_meta": {"claudecode/toolUseId": call_id}}
    message = {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": params}
    body = {"subtype": "mcp_message", "server_name": "c", "message": message}
    return cli.line({"type": "control_request", "request_id": request_id, "request": body})


def parked() -> Session:
    session = asked()
    session.feed(call_lines() + cli.closing("tool_use") + tools_call())
    return session


# -- the way through --


def test_start_up() -> None:
    session = started()
    assert sent(session.start())[0]["request"] == {"subtype": "list_models"}
    (ready,) = session.feed(cli.ready())
    assert isinstance(ready, Ready)
    assert [model.name for model in ready.models] == ["default", "opus", "sonnet", "haiku"]
    assert session.state is State.WARM


def test_a_first_turn_is_set_up_and_asked_at_once() -> None:
    session = warm()
    asks = request("x")
    lines = sent(session.open(asks, Setup.of(asks), FLAGS))
    assert [line.get("request", line)["type" if "message" in line else "subtype"]
            for line in lines] == ["initialize", "apply_flag_settings", "user"]  # fmt: skip
    setup, flags, question = lines
    assert setup["request"]["systemPrompt"] == ["Be brief."]
    assert flags["request"]["settings"] == FLAGS
    assert question["client_composed"] is True
    assert "shouldQuery" not in question
    assert session.state is State.ANSWERING


def test_a_process_may_be_asked_before_it_is_ready() -> None:
    session = started()
    asks = request("x")
    assert sent(session.open(asks, Setup.of(asks), FLAGS))
    assert isinstance(session.feed(cli.ready())[0], Ready)
    assert session.state is State.ANSWERING


def test_a_user_line_of_the_history_is_awaited() -> None:
    session = warm()
    asks = request("a", "b", "c", "d", "e")
    *_, first = sent(session.open(asks, Setup.of(asks), FLAGS))
    assert (first["type"], first["shouldQuery"]) == ("user", False)
    assert session.state is State.REPLAYING
    assert session.feed(cli.completed("another")) == []
    answer, second = sent(session.feed(cli.completed(first["uuid"])))
    assert (answer["type"], second["shouldQuery"]) == ("assistant", False)
    answer, question = sent(session.feed(cli.completed(second["uuid"])))
    assert answer["message"]["content"] == [{"type": "text", "text": "d"}]
    assert question["message"]["content"] == [{"type": "text", "text": "e"}]
    assert session.state is State.ANSWERING


def test_a_primed_process_is_not_set_up_again() -> None:
    session = warm()
    asks = request("x")
    setup, flags, blank = sent(session.prime(Setup.of(asks), FLAGS))
    assert setup["request"]["subtype"] == "initialize"
    assert flags["request"]["settings"] == FLAGS
    assert blank["shouldQuery"] is False
    assert session.state is State.WARM
    assert session.open(asks, Setup.of(asks), FLAGS) == []
    (question,) = sent(session.feed(cli.completed(blank["uuid"])))
    assert question["message"]["content"] == [{"type": "text", "text": "x"}]


def test_setups_are_equal_when_the_same_bytes_are_sent_for_them() -> None:
    one, true = (
        Setup(("s",), (Tool("t", "", {"type": "object", "properties": {"x": {"const": value}}}),))
        for value in (1, True)
    )
    assert one != true and one == Setup(one.system, one.tools)
    assert Setup(schema={"const": 1}) != Setup(schema={"const": True})


def test_a_primed_process_takes_other_settings() -> None:
    session = warm()
    asks = request("x")
    *_, blank = sent(session.prime(Setup.of(asks), FLAGS))
    session.feed(cli.completed(blank["uuid"]))
    flags, question = sent(session.open(asks, Setup.of(asks), {"model": "haiku"}))
    assert flags["request"]["settings"] == {"model": "haiku"}
    assert question["type"] == "user"


def test_an_answer() -> None:
    session = asked()
    outputs = told(session.feed(cli.transcript("hello")))
    assert [type(output) for output in outputs[:3]] == [Started, BlockStarted, TextDelta]
    end = outputs[-1]
    assert isinstance(end, Finished) and end.stop_reason == "end_turn"
    assert end.usage.output_tokens == 5
    assert session.state is State.IDLE


def test_the_next_message_of_an_idle_process() -> None:
    session = idle()
    (question,) = sent(session.extend(user("y"), FLAGS))
    assert question["message"]["content"] == [{"type": "text", "text": "y"}]
    assert any(isinstance(output, Finished) for output in session.feed(cli.transcript("b")))


def test_other_settings_come_before_the_next_message() -> None:
    flags, question = sent(idle().extend(user("y"), {"model": "haiku"}))
    assert flags["request"]["settings"] == {"model": "haiku"}
    assert question["type"] == "user"


def test_a_brake_is_on_from_the_first_event_to_the_end() -> None:
    session = asked()
    (on,) = sent(session.feed(cli.opening()))
    assert on["request"]["settings"] == BRAKE
    session.feed(b"".join(cli.text_block(["a"])) + cli.closing())
    (off,) = sent(session.feed(cli.result("a")))
    assert off["request"]["settings"] == {"env": RELEASE}


def test_the_next_message_of_a_settling_process_waits_for_its_result() -> None:
    session = settling()
    assert session.state is State.SETTLING
    assert session.extend(user("y"), FLAGS) == []
    assert len(sent(session.feed(cli.result("a")))) == 2
    assert any(isinstance(output, Finished) for output in session.feed(cli.transcript("b")))


def test_parked_calls_are_answered_in_the_clients_order() -> None:
    session = asked()
    both = b"".join(cli.call_block("toolu1", "look", "{}", 0))
    both += b"".join(cli.call_block("toolu2", "look", "{}", 1))
    session.feed(cli.opening() + both + tools_call("toolu2", "r2") + cli.closing("tool_use"))
    assert session.state is State.PARKED
    assert session.calls == {"toolu1", "toolu2"}
    results = [ToolResult("toolu1", (Text("one"),)), ToolResult("toolu2", (Text("two"),))]
    (flags,) = sent(session.answer(results, FLAGS))  # the call for the first has not come yet
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


def test_a_window_is_told_in_any_state() -> None:
    info = {"status": "allowed", "rateLimitType": "five_hour"}
    assert warm().feed(cli.line({"type": "rate_limit_event", "rate_limit_info": info})) == [
        Window(info)
    ]


# -- any transcript, cut at any byte --

TRANSCRIPTS = {
    "an answer": cli.transcript("héllo €🎉"),
    "a call": call_lines(arguments='{"a": "é€🎉"}') + cli.closing("tool_use") + tools_call(),
    "noise": b"\n  \r\n" + cli.line({"type": "unknown"}) + cli.transcript("x"),
    "broken off": cli.opening() + b"".join(cli.text_block(["a"])) + cli.event("message_stop"),
    "no json": cli.opening() + b"oops\n" + cli.transcript("x"),
    "an error": cli.result("API Error: 429 slow down", is_error=True, api_error_status=429),
}


@settings(deadline=None)
@given(st.sampled_from(sorted(TRANSCRIPTS)), st.lists(st.integers(0, 5000), max_size=8))
def test_the_same_outputs_wherever_the_bytes_are_cut(name: str, places: list[int]) -> None:
    data = TRANSCRIPTS[name]
    expected = asked().feed(data)
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    session = asked()
    outputs: list[Output] = []
    for a, b in pairwise(edges):
        outputs += session.feed(data[a:b])
    assert outputs == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=8))
def test_the_same_writes_too(places: list[int]) -> None:
    """With a history, whose lines are written as the process takes them in."""

    def lines(session: Session, parts: list[bytes]) -> list[Any]:
        asks = request("a", "b", "c")
        written = sent(session.open(asks, Setup.of(asks), FLAGS))
        data = cli.completed(written[-1]["uuid"]) + cli.transcript("d")
        edges = [0, *sorted(place % (len(data) + 1) for place in parts), len(data)]
        for a, b in pairwise(edges):
            written += sent(session.feed(data[a:b]))
        return [line.get("message", line.get("request"))["content" if "message" in line else
                "subtype"] for line in written]  # fmt: skip

    assert lines(warm(), places) == lines(warm(), [])  # type: ignore[arg-type]


# -- nonsense --

NO_JSON = (
    b"oops", b"[1, 2]", b"5", b"null", b'"x"', b"{}", b'{"type"',
    b"\xff\xfe", b"[" * 100_000,
)  # fmt: skip


@pytest.mark.parametrize("line", NO_JSON, ids=range(len(NO_JSON)))
@pytest.mark.parametrize("make", [started, warm, asked, settling, idle, parked])
def test_no_stream_json_dooms(make: Any, line: bytes) -> None:
    session = make()
    in_turn = session.in_turn
    outputs = told(session.feed(line + b"\n"))
    assert isinstance(outputs[-1], Doomed)
    assert [type(output) for output in outputs[:-1]] == ([Failure] if in_turn else [])
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
def test_a_line_without_its_fields_dooms(line: dict[str, Any]) -> None:
    broken = failure(asked().feed(cli.line(line)))
    assert (broken.kind, broken.status) == (Kind.UPSTREAM, 502)


@settings(deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "event", "message", "delta", "index", "request", "response",
                         "content_block", "text", "usage", "subtype", "content", "result"]),
        inner, max_size=4),
), st.sampled_from(["stream_event", "result", "assistant", "command_lifecycle", "control_request",
                    "rate_limit_event", "control_response", "system", "x"]))  # fmt: skip
def test_no_line_raises(value: Any, kind: str) -> None:
    line = {**(value if isinstance(value, dict) else {"event": value}), "type": kind}
    for make in (started, asked, settling, parked):
        make().feed(cli.line(line))


def test_an_endless_line_dooms() -> None:
    session = Session(lambda: 0.0, line_limit=100)
    session.feed(cli.ready()[:50])
    assert isinstance(session.feed(b"x" * 100)[-1], Doomed)


def test_a_second_beginning_dooms() -> None:
    begun = cli.opening() + b"".join(cli.text_block(["a"]))
    assert "anew" in failure(asked().feed(begun + cli.opening())).message


def test_a_beginning_without_content_may_be_repeated() -> None:
    outputs = asked().feed(cli.opening() + cli.transcript("a"))
    assert not any(isinstance(output, (Failure, Doomed)) for output in outputs)


def test_an_end_without_a_reason_has_the_reason_said_before() -> None:
    content = [{"type": "text", "text": "API Error: 529 busy"}]
    said = {"model": "<synthetic>", "content": content}
    line = cli.line({"type": "assistant", "message": said, "api_error_status": 529})
    broken = failure(asked().feed(cli.opening() + line + cli.event("message_stop")))
    assert (broken.kind, broken.status) == (Kind.OVERLOADED, 529)


@pytest.mark.parametrize("make", [settling, idle, parked])
def test_going_on_by_itself_dooms(make: Any) -> None:
    assert isinstance(make().feed(cli.opening())[-1], Doomed)


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "pause_turn", "whatever"])
def test_a_reason_to_go_on_dooms_before_the_end(reason: str) -> None:
    session = asked()
    answer = b"".join(cli.text_block(["a"]))
    outputs = told(session.feed(cli.opening() + answer + cli.closing(reason)))
    *_, end, doomed = outputs
    assert isinstance(end, Finished) and end.stop_reason == reason
    assert isinstance(doomed, Doomed)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("nosuch", "{}"), ("look", '{"a'), ("look", "[1]"), ("look", "[" * 9999)],
    ids=["unknown", "cut", "array", "deep"],
)
def test_a_call_the_cli_would_answer_itself_dooms(name: str, arguments: str) -> None:
    outputs = asked().feed(call_lines("toolu1", name, arguments) + cli.closing("tool_use"))
    assert any(isinstance(output, ArgumentsDelta) for output in outputs)
    assert isinstance(outputs[-1], Doomed)


def test_an_answer_by_schema_dooms_whatever_it_is() -> None:
    session = warm()
    asks = request("x", tools=())
    session.open(asks, Setup.of(asks, {"type": "object"}), FLAGS)
    outputs = session.feed(cli.opening() + b"".join(cli.text_block(["a"])) + cli.closing())
    assert isinstance(outputs[-1], Doomed)


def test_giving_up_its_calls_dooms() -> None:
    assert isinstance(parked().feed(cli.result("gave up"))[-1], Doomed)


@pytest.mark.parametrize("make", [settling, idle])
def test_an_error_after_the_answer_dooms(make: Any) -> None:
    assert isinstance(make().feed(cli.result("no", is_error=True))[-1], Doomed)


def test_a_refused_control_request_dooms() -> None:
    refusal = {"subtype": "error", "request_id": "setup", "error": "no such thing"}
    line = cli.line({"type": "control_response", "response": refusal})
    assert "no such thing" in failure(asked().feed(line)).message
    assert isinstance(started().feed(line)[-1], Doomed)


def test_events_of_a_sub_agent_are_passed_over() -> None:
    line = {"type": "stream_event", "parent_tool_use_id": "x", "event": {"type": "message_start"}}
    assert asked().feed(cli.line(line)) == []


# -- its end --


@pytest.mark.parametrize("make", [started, warm, settling, idle, parked])
def test_an_end_between_turns_is_no_failure(make: Any) -> None:
    session = make()
    assert session.ended("exit 0") == []
    assert session.state is State.DEAD


def test_an_end_in_a_turn_is_one() -> None:
    session = asked()
    (broken,) = session.ended("signal 11")
    assert isinstance(broken, Failure)
    assert (broken.status, "signal 11" in broken.message) == (502, True)


@pytest.mark.parametrize("kind", [[], {}, 5, None, "unheard of"])
def test_types_nobody_knows_are_passed_over(kind: Any) -> None:
    assert asked().feed(cli.line({"type": kind})) == []
