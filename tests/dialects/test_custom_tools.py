"""Custom tools: text in and out, though upstream has only JSON."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy.dialects import chat, chat_route, responses
from claudeproxy.dialects.custom_tools import InputReader, input_of
from claudeproxy.dialects.responses_input import Past
from claudeproxy.messages import (
    ArgumentsDelta,
    Assembly,
    BlockStarted,
    BlockStopped,
    Event,
    FailureError,
    Finished,
    Message,
    Started,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Usage,
)

TEXT = '*** Begin Patch\n+"é" \\ 👩‍👩‍👧 \x01\u2028/\t\n*** End Patch'


def read_in(pieces: list[str]) -> list[str]:
    """What each piece spells, and then the end."""
    reader = InputReader()
    return [*map(reader.feed, pieces), reader.finish()]


def escaped(text: str) -> str:
    """Every UTF-16 unit as an escape."""
    units = text.encode("utf-16-be").hex()
    spelled = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
    return f'{{"input":"{spelled}"}}'


ARGUMENTS = [
    (json.dumps({"input": TEXT}), TEXT),
    (json.dumps({"input": TEXT}, ensure_ascii=False, indent=2), TEXT),
    (escaped(TEXT), TEXT),
    (escaped(TEXT).replace("d83d", "D83D"), TEXT),
    (json.dumps({"input": TEXT, "more": "x"}), TEXT),
    (json.dumps({"before": [1], "input": TEXT}), TEXT),
    ('{"\\u0069nput": "x"}', "x"),
    (" " * 200 + '{"input": "x"}', "x"),
    ('{"input": ""}', ""),
    ('{"input": "a\\/\\b\\f\\r"}', "a/\b\f\r"),
    ('{"input": "\\ud83d"}', "\ud83d"),
    (
        '{"input": "\\ud83dx\\ud83d\\n\\ud83d\\ud83d\\ude00\\ude00"}',
        "\ud83dx\ud83d\n\ud83d😀\ude00",
    ),
    ("{}", ""),
    ("", ""),
    ('{"input": 5}', '{"input": 5}'),
    ("[1]", "[1]"),
    ("*** Begin Patch", "*** Begin Patch"),
    ('{"input": "a raw\nline \\x \\u12G4"}', 'a raw\nline \\x \\u12G4"}'),
    ('{"input": "cut', "cut"),
    ('{"input": "cut\\', "cut"),
    ('{"input": "cut\\u00e', "cut"),
    ('{"input": "cut\\ud83d', "cut"),
    ('{"input": "cut\\ud83d\\ude', "cut"),
    ('{"input": "cut\\u00e9', "cuté"),
]


@pytest.mark.parametrize(("arguments", "text"), ARGUMENTS)
def test_the_text_of_arguments_cut_anywhere(arguments: str, text: str) -> None:
    assert input_of(arguments) == text
    assert "".join(read_in(list(arguments))) == text
    for cut in range(len(arguments) + 1):
        assert "".join(read_in([arguments[:cut], arguments[cut:]])) == text


@given(st.text(), st.booleans(), st.lists(st.integers(0, 400)))
def test_any_text_in_any_pieces(text: str, ascii_only: bool, cuts: list[int]) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only)
    places = [0, *sorted(min(cut, len(arguments)) for cut in cuts), len(arguments)]
    pieces = [arguments[a:b] for a, b in pairwise(places)]
    assert "".join(read_in(pieces)) == text


def test_the_text_comes_while_it_is_written() -> None:
    pieces = ['{"inp', 'ut": "a', "b\\", "nc", "\\ud83d", "\\ude00", 'd"', "}"]
    assert read_in(pieces) == ["", "a", "b", "\nc", "", "😀", "d", "", ""]


GRAMMAR = {"syntax": "lark", "definition": "start: /.+/"}
TOLD = "Edits.\n\nThe input must follow this grammar (lark):\nstart: /.+/"
PATCH = {"type": "custom", "name": "patch", "description": "Edits."}
BOUND = {**PATCH, "format": {"type": "grammar", **GRAMMAR}}
CHAT_PATCH = {"type": "custom", "custom": {"name": "patch", "description": "Edits."}}
CHAT_BOUND = {
    "type": "custom",
    "custom": {**CHAT_PATCH["custom"], "format": {"type": "grammar", "grammar": GRAMMAR}},  # type: ignore[dict-item]
}
PARAMETERS = {
    "type": "object",
    "properties": {
        "input": {"type": "string", "description": "The input of the tool, as it is: plain text."}
    },
    "required": ["input"],
    "additionalProperties": False,
}
DIALECTS = {"chat": (CHAT_PATCH, CHAT_BOUND), "responses": (PATCH, BOUND)}


def asked(dialect: str, **fields: Any) -> Any:
    if dialect == "chat":
        fields = {"messages": [{"role": "user", "content": "Hi"}], **fields}
        return chat.read({"model": "opus", **fields}, "abc", 7)
    return responses.read({"model": "opus", "input": "Hi", **fields}, "abc", 7, Past())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_tool_is_one_of_a_single_property(dialect: str) -> None:
    plain, bound = DIALECTS[dialect]
    parsed = asked(dialect, tools=[plain])
    assert parsed.request.tools == (Tool("patch", "Edits.", PARAMETERS),)
    assert parsed.ignored == ()
    parsed = asked(dialect, tools=[bound])
    assert parsed.request.tools == (Tool("patch", TOLD, PARAMETERS),)
    assert parsed.ignored == ("tools.format",)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_tool_can_be_chosen(dialect: str) -> None:
    plain, _ = DIALECTS[dialect]
    named = {"type": "custom", "name": "patch"}
    allowed: dict[str, Any] = {"mode": "required", "tools": [named]}
    if dialect == "chat":
        named = {"type": "custom", "custom": {"name": "patch"}}  # type: ignore[dict-item]
        allowed = {"allowed_tools": {"mode": "required", "tools": [named]}}
    choices = {
        "required": ToolChoice("any"),
        "auto": ToolChoice(),
        **{json.dumps(named): ToolChoice("tool", "patch")},
        **{json.dumps({"type": "allowed_tools", **allowed}): ToolChoice("any")},
    }
    for given_, expected in choices.items():
        choice = json.loads(given_) if given_.startswith("{") else given_
        assert asked(dialect, tools=[plain], tool_choice=choice).request.tool_choice == expected


@pytest.mark.parametrize(
    ("dialect", "fields", "param"),
    [
        ("responses", {"tools": [{"type": "custom"}]}, "tools[0].name"),
        ("responses", {"tools": [PATCH, PATCH]}, "tools[1].name"),
        ("responses", {"tools": [{**PATCH, "format": 1}]}, "tools[0].format"),
        ("responses", {"tools": [{**PATCH, "format": {"type": "x"}}]}, "tools[0].format.type"),
        (
            "responses",
            {"tools": [{**PATCH, "format": {"type": "grammar", "syntax": "lark"}}]},
            "tools[0].format.definition",
        ),
        (
            "responses",
            {"tools": [PATCH], "tool_choice": {"type": "custom", "name": "x"}},
            "tool_choice.name",
        ),
        (
            "responses",
            {"input": [{"type": "custom_tool_call", "call_id": "c", "name": "patch"}]},
            "input[0].input",
        ),
        ("chat", {"tools": [{"type": "custom"}]}, "tools[0].custom"),
        (
            "chat",
            {"tools": [{"type": "custom", "custom": {"name": "a", "format": {"type": "grammar"}}}]},
            "tools[0].custom.format.grammar",
        ),
        (
            "chat",
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]},
                ]
            },
            "messages[0].tool_calls[0].custom",
        ),
    ],
)
def test_refusals(dialect: str, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(FailureError) as caught:
        asked(dialect, **fields)
    assert (caught.value.failure.status, caught.value.failure.param) == (400, param)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_calls_and_results_of_the_history(dialect: str) -> None:
    if dialect == "chat":
        call = {"id": "call_1", "type": "custom", "custom": {"name": "patch", "input": TEXT}}
        history: dict[str, Any] = {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": "done"},
            ]
        }
    else:
        history = {
            "input": [
                {"role": "user", "content": "Hi"},
                {
                    "type": "custom_tool_call",
                    "call_id": "call_1",
                    "name": "patch",
                    "input": TEXT,
                },
                {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"},
            ]
        }
    assert asked(dialect, **history).request.messages == (
        Message("user", (Text("Hi"),)),
        Message("assistant", (ToolUse("call1", "patch", {"input": TEXT}),)),
        Message("user", (ToolResult("call1", (Text("done"),)),)),
    )


ANSWER: tuple[Event, ...] = (
    Started("msg_up", "claude", Usage(10)),
    BlockStarted(0, ToolUse("toolu_1", "patch", {})),
    ArgumentsDelta(0, ""),
    ArgumentsDelta(0, '{"input": "a\\'),
    ArgumentsDelta(0, "nb"),
    ArgumentsDelta(0, '"}'),
    BlockStopped(0),
    BlockStarted(1, ToolUse("toolu_2", "patch", {})),
    ArgumentsDelta(1, '{"other": 1}'),
    BlockStopped(1),
    BlockStarted(2, ToolUse("toolu_3", "add", {})),
    ArgumentsDelta(2, '{"input": "x"}'),
    BlockStopped(2),
)
END = Finished("tool_use", None, Usage(10, 5))


def assembled() -> list[tuple[Assembly, Finished]]:
    assembly = Assembly()
    for event in ANSWER:
        assembly.add(event)
    return [(assembly, END)]


def test_calls_in_a_chat() -> None:
    add = {"type": "function", "function": {"name": "add"}}
    parsed = asked("chat", tools=[CHAT_PATCH, add])
    (choice,) = parsed.complete(assembled())["choices"]
    assert choice["finish_reason"] == "tool_calls"
    calls = [
        {"id": "toolu1", "type": "custom", "custom": {"name": "patch", "input": "a\nb"}},
        {"id": "toolu2", "type": "custom", "custom": {"name": "patch", "input": '{"other": 1}'}},
        {
            "id": "toolu3",
            "type": "function",
            "function": {"name": "add", "arguments": '{"input": "x"}'},
        },
    ]
    assert choice["message"]["tool_calls"] == calls
    lines = parsed.stream().render(0, [*ANSWER, END]).decode().split("\n\n")
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines[1:-3]]
    assert [delta["tool_calls"] for delta in deltas] == [
        [{"index": 0, "id": "toolu1", "type": "custom", "custom": {"name": "patch", "input": ""}}],
        [{"index": 0, "custom": {"input": "a"}}],
        [{"index": 0, "custom": {"input": "\nb"}}],
        [{"index": 1, "id": "toolu2", "type": "custom", "custom": {"name": "patch", "input": ""}}],
        [{"index": 1, "custom": {"input": '{"other": 1}'}}],
        [
            {
                "index": 2,
                "id": "toolu3",
                "type": "function",
                "function": {"name": "add", "arguments": ""},
            }
        ],
        [{"index": 2, "function": {"arguments": '{"input": "x"}'}}],
    ]


def test_calls_in_a_response() -> None:
    add = {"type": "function", "name": "add"}
    parsed = asked("responses", tools=[BOUND, add])
    parts = parsed.stream().render(0, [*ANSWER, END]).decode().removesuffix("\n\n").split("\n\n")
    events = [json.loads(part.split("\n")[1].removeprefix("data: ")) for part in parts]
    one = {"item_id": "ctc_abcx0", "output_index": 0}
    item = {
        "id": "ctc_abcx0",
        "type": "custom_tool_call",
        "status": "in_progress",
        "call_id": "toolu1",
        "name": "patch",
        "input": "",
    }
    whole = {**item, "status": "completed", "input": "a\nb"}
    kind = "response.custom_tool_call_input"
    assert [{k: v for k, v in e.items() if k != "sequence_number"} for e in events[2:7]] == [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": f"{kind}.delta", **one, "delta": "a"},
        {"type": f"{kind}.delta", **one, "delta": "\nb"},
        {"type": f"{kind}.done", **one, "input": "a\nb"},
        {"type": "response.output_item.done", "output_index": 0, "item": whole},
    ]
    response = events[-1]["response"]
    inputs = [item.get("input") for item in response["output"]]
    assert inputs == ["a\nb", '{"other": 1}', None]
    assert response == parsed.complete(assembled())
    assert [item["id"] for item in response["output"]] == ["ctc_abcx0", "ctc_abcx1", "fc_abcx2"]
    assert response["tools"][0] == BOUND
    wanted = responses.references({"input": [{"type": "item_reference", "id": "ctc_abcx0"}]})
    assert wanted.responses == {"resp_abc"}


def test_a_responses_body_on_the_chat_route() -> None:
    parsed = chat_route.read({"model": "opus", "input": "Hi", "tools": [PATCH]}, "abc", 7)
    call, *_ = parsed.complete(assembled())["choices"][0]["message"]["tool_calls"]
    assert call["custom"] == {"name": "patch", "input": "a\nb"}
