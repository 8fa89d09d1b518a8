"""Lines for the CLI's stdin, and events read from its stdout, by whole values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from claudeproxy.cli.names import ToolNames
from claudeproxy.cli.wire import MOVED, MessageReader, message_line
from claudeproxy.messages import (
    ArgumentsDelta,
    BlockStarted,
    BlockStopped,
    Document,
    Event,
    Finished,
    Image,
    Message,
    SignatureDelta,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    Tool,
    ToolResult,
    ToolUse,
    Usage,
)

LOOK = Tool("look", "Looks.", {"type": "object"})
HALF = Tool("half", "", {"type": "object", "properties": {"a": {"enum": ["½"]}}})
NAMES = ToolNames.of((LOOK, HALF))
PICTURE = Image({"type": "base64", "media_type": "image/png", "data": "AAAA"})
FILE = Document({"type": "text", "media_type": "text/plain", "data": "x"})
IMAGE = {"type": "image", "source": dict(PICTURE.source)}
DOCUMENT = {"type": "document", "source": dict(FILE.source)}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


# -- to stdin --


def line(message: Message, *, query: bool = False) -> Any:
    written = message_line(message, "uuid-1", NAMES, query=query)
    assert written.endswith(b"\n") and written.count(b"\n") == 1
    return json.loads(written)


def test_a_message_of_the_user() -> None:
    message = Message("user", (Text("a\nb"), PICTURE, Text("(no content)")))
    expected = {
        "type": "user",
        "parent_tool_use_id": None,
        "session_id": "",
        "uuid": "uuid-1",
        "client_composed": True,
        "message": {"role": "user", "content": [text("a\nb"), IMAGE, text("(no content)")]},
    }
    assert line(message, query=True) == expected
    assert line(message) == {**expected, "shouldQuery": False}
    assert line(Message("user", (Text("(no content)"),)))["message"]["content"] == [
        text("(no content)")
    ]


def test_what_the_cli_would_leave_out_of_failed_results_comes_behind_all_results() -> None:
    content = (
        ToolResult("t1", (Text("a"), PICTURE, Text("b")), is_error=True),
        ToolResult("t2", (PICTURE, Text("c"))),
        ToolResult("t3", (FILE,), is_error=True),
        Text("Go on."),
        Text("Now."),
    )
    failed = {"type": "tool_result", "is_error": True}
    assert line(Message("user", content))["message"]["content"] == [
        {**failed, "tool_use_id": "t1", "content": [text("a"), text("b")]},
        {"type": "tool_result", "tool_use_id": "t2", "content": [IMAGE, text("c")]},
        {**failed, "tool_use_id": "t3", "content": [text(MOVED)]},
        IMAGE,
        DOCUMENT,
        text("Go on."),
        text("Now."),
    ]


def test_an_answer_in_the_history() -> None:
    content = (
        Text("Let me see."),
        ToolUse("t1", "half", {"a": "½", "b": 2**53 + 1}),
        ToolUse("t2", "gone", {"a": "½"}),
    )
    lines = [line(Message("assistant", content)) for _ in range(2)]
    ids = [written["message"].pop("id") for written in lines]
    assert all(re.fullmatch("msg_[0-9a-f]{32}", each) for each in ids)
    assert ids[0] != ids[1]  # equal ids are merged
    called = {"type": "tool_use", "id": "t1", "name": f"{NAMES.prefix}half"}
    assert lines[0] == lines[1] == {
        "type": "assistant",
        "parent_tool_use_id": None,
        "session_id": "",
        "message": {
            "role": "assistant",
            "type": "message",
            "model": "claude",
            "content": [
                text("Let me see."),
                {**called, "input": {"a": "1\u20442", "b": str(2**53 + 1)}},
                {**called, "id": "t2", "name": f"{NAMES.prefix}gone", "input": {"a": "½"}},
            ],
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        ((Text("(no content)"),), ["(no content", ")"]),
        ((Text(" (no content)\n"),), [" (no content", ")\n"]),
        ((Text("(no content) here"),), ["(no content) here"]),
        ((Text("(no content)"), Text("(no content)")), ["(no content", ")", "(no content)"]),
    ],
    ids=range(4),
)
def test_an_answer_the_cli_would_take_for_none(content: Any, pieces: list[str]) -> None:
    said = line(Message("assistant", content))["message"]["content"]
    assert said == [text(piece) for piece in pieces]


# -- from stdout --


def start(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    block = {"type": kind, **fields}
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def call(index: int, call_id: str, name: str, *written: str) -> list[dict[str, Any]]:
    pieces = [delta(index, "input_json_delta", partial_json=piece) for piece in written]
    return [start(index, "tool_use", id=call_id, name=name), *pieces, stop(index)]


def read(events: Sequence[dict[str, Any]]) -> tuple[MessageReader, list[Event]]:
    reader = MessageReader(NAMES)
    return reader, [found for event in events for found in reader.event(event)]


def test_a_whole_message() -> None:
    message = {
        "id": "msg_1",
        "model": "claude-opus-5-5",
        "usage": {
            "input_tokens": 1,
            "output_tokens": 2,
            "cache_read_input_tokens": 30,
            "cache_creation_input_tokens": 400,
            "output_tokens_details": None,
        },
    }
    reader, events = read(
        [
            {"type": "message_start", "message": message},
            {"type": "ping"},
            start(0, "thinking", thinking="H"),
            delta(0, "thinking_delta", thinking="m"),
            delta(0, "signature_delta", signature="sig"),
            stop(0),
            start(1, "thinking"),
            stop(1),
            start(2, "of_the_future", text="x"),
            delta(2, "text_delta", text="x"),
            stop(2),
            start(3, "text", text="S"),
            delta(3, "text_delta", text="o"),
            delta(3, "of_the_future", text="x"),
            stop(3),
            start(4, "text"),
            stop(4),
            *call(5, "t1", f"{NAMES.prefix}look", '{"a"', ": 1}"),
            *call(6, "t2", f"{NAMES.prefix}half", '{"a": "1\u2044', '2"}'),
            {
                "type": "message_delta",
                "delta": {"stop_reason": "stop_sequence", "stop_sequence": "STOP"},
                "usage": {
                    "output_tokens": 50,
                    "cache_read_input_tokens": None,
                    "output_tokens_details": {"thinking_tokens": 6},
                },
            },
            {"type": "message_stop"},
        ]
    )
    assert events == [
        Started("msg_1", "claude-opus-5-5", Usage(1, 2, 30, 400)),
        BlockStarted(0, Thinking("H")),
        ThinkingDelta(0, "m"),
        SignatureDelta(0, "sig"),
        BlockStopped(0),
        BlockStarted(1, Thinking("")),
        BlockStopped(1),
        BlockStarted(3, Text("S")),
        TextDelta(3, "o"),
        BlockStopped(3),
        BlockStarted(4, Text("")),
        BlockStopped(4),
        BlockStarted(5, ToolUse("t1", "look", {})),
        ArgumentsDelta(5, '{"a"'),
        ArgumentsDelta(5, ": 1}"),
        BlockStopped(5),
        BlockStarted(6, ToolUse("t2", "half", {})),
        ArgumentsDelta(6, '{"a": "½"}'),
        BlockStopped(6),
    ]
    assert reader.finished() == Finished("stop_sequence", "STOP", Usage(1, 50, 30, 400, 6))
    assert (reader.calls, reader.callable, reader.content) == ({"t1", "t2"}, True, True)


def test_an_answer_without_content() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": None}
    end = {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    reader, events = read([{"type": "message_delta", "delta": end}])
    assert (events, reader.content) == ([], False)
    assert reader.finished() == Finished("refusal", None, Usage(), details)


GOOD, GONE = f"{NAMES.prefix}look", f"{NAMES.prefix}gone"


@pytest.mark.parametrize(
    ("calls", "callable_"),
    [
        ([(GOOD, ())], True),
        ([(GOOD, (" ",))], True),
        ([(GONE, ()), (GOOD, ())], False),
        ([(GOOD, ()), (GONE, ())], False),
        ([("look", ())], False),
        ([(GOOD, ("[1]",)), (GOOD, ("{}",))], False),
        ([(GOOD, ('{"a": ',)), (GOOD, ("{}",))], False),
        ([(GOOD, ("NaN",))], False),
        ([(GOOD, ("[" * 100_000,))], False),
    ],
    ids=range(9),
)
def test_whether_all_calls_can_be_carried_out(calls: Any, callable_: bool) -> None:
    reader, _ = read(
        [
            event
            for index, (name, written) in enumerate(calls)
            for event in call(index, f"t{index}", name, *written)
        ]
    )
    assert reader.callable is callable_
    assert reader.calls == {f"t{index}" for index in range(len(calls))}


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "message_start", "message": {"id": 5, "model": "m"}},
        {"type": "message_start", "message": {"id": "i", "model": None}},
        {"type": "message_delta"},
        start(0, "text", text=None),
        start(0, "thinking", thinking=5),
        start(0, "tool_use", id="i"),
        delta(0, "text_delta", text="before its block"),
    ],
    ids=range(8),
)
def test_what_is_not_of_the_apis_shape(event: Any) -> None:
    with pytest.raises((KeyError, TypeError)):
        MessageReader(NAMES).event(event)
