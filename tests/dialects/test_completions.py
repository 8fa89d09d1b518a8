"""Legacy completions by values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claudeproxy.dialects import completions
from claudeproxy.messages import (
    Assembly,
    BlockStarted,
    Event,
    Failure,
    FailureError,
    Finished,
    Kind,
    Message,
    Request,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    Usage,
)

STARTED = Started("msg_up", "claude", Usage(10))
END = Finished("end_turn", None, Usage(10, 5))


def asked(**fields: Any) -> completions.Completions:
    return completions.read({"model": "opus", "prompt": "Hi", **fields}, "abc", 7)


def test_a_plain_body() -> None:
    message = Message("user", (Text("Hi"),))
    assert asked().requests == (Request(model="opus", messages=(message,)),)
    assert asked().ignored == ()


def test_several_prompts_are_several_requests() -> None:
    parsed = asked(prompt=["a", "b"], n=2, max_tokens=9, stop="x", temperature=0, top_p=1)
    assert parsed.requests == tuple(
        Request(
            model="opus",
            messages=(Message("user", (Text(prompt),)),),
            n=2,
            max_tokens=9,
            stop=("x",),
            temperature=0,
            top_p=1,
        )
        for prompt in "ab"
    )
    assert parsed.echoes == ("",) * 4
    assert asked(prompt=["a", "b"], n=2, echo=True).echoes == ("a", "a", "b", "b")


def test_ignored_fields_are_named() -> None:
    fields = {"best_of": 2, "logprobs": 1, "seed": 1, "max_tokens": 0, "user": "me"}
    assert asked(**fields).ignored == ("best_of", "logprobs", "seed", "max_tokens")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "model"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": True}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": ["a", None]}, "prompt[1]"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"n": 0}, "n"),
        ({"prompt": ["a", "b"], "n": 65}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"stop": [1]}, "stop"),
        ({"echo": "yes"}, "echo"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_refusals(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(FailureError) as caught:
        asked(**fields)
    assert (caught.value.failure.status, caught.value.failure.param) == (400, param)


def assembly(*texts: str) -> Assembly:
    made = Assembly()
    for index, text in enumerate(texts):
        made.add(BlockStarted(index, Text("")))
        made.add(TextDelta(index, text))
    return made


def test_whole_answers() -> None:
    cut = Finished("max_tokens", None, Usage(10, 5, 1))
    answers = [(assembly("Hel", "lo"), END), (assembly("You"), cut)]
    body = asked(prompt=["a", "b"], echo=True).complete(answers)
    assert {name: body[name] for name in ("id", "object", "created", "model", "choices")} == {
        "id": "cmpl-abc",
        "object": "text_completion",
        "created": 7,
        "model": "opus",
        "choices": [
            {"text": "aHello", "index": 0, "logprobs": None, "finish_reason": "stop"},
            {"text": "bYou", "index": 1, "logprobs": None, "finish_reason": "length"},
        ],
    }
    assert body["usage"]["prompt_tokens"] == 21
    assert body["usage"]["completion_tokens"] == 10


def rendered(
    parsed: completions.Completions, events: list[tuple[int, Event]]
) -> list[dict[str, Any]]:
    """The chunks of a stream, without what they share."""
    stream = parsed.stream()
    text = b"".join(stream.render(index, [event]) for index, event in events).decode()
    assert stream.ended
    chunks = [json.loads(part.removeprefix("data: ")) for part in text.split("\n\n")[:-2]]
    assert text.endswith("\n\ndata: [DONE]\n\n")
    for chunk in chunks:
        assert (chunk.pop("id"), chunk.pop("object")) == ("cmpl-abc", "text_completion")
        assert (chunk.pop("created"), chunk.pop("model")) == (7, "opus")
    return chunks


def choice(index: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"text": text, "index": index, "logprobs": None, "finish_reason": reason}]}


EVENTS: list[tuple[int, Event]] = [
    (1, STARTED),
    (0, STARTED),
    (0, BlockStarted(0, Thinking(""))),
    (0, ThinkingDelta(0, "hm")),
    (0, BlockStarted(1, Text(""))),
    (0, TextDelta(1, "Hello")),
    (0, END),
    (1, TextDelta(0, "You")),
    (1, END),
]


def test_streams_of_several_answers() -> None:
    chunks = rendered(asked(prompt=["a", "b"], echo=True, stream=True), EVENTS)
    usage = chunks[-1].pop("usage")
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (20, 10)
    assert chunks == [
        choice(1, "b"),
        choice(0, "a"),
        choice(0, "Hello"),
        choice(0, "", "stop"),
        choice(1, "You"),
        choice(1, "", "stop"),
    ]


def test_usage_on_a_chunk_of_its_own() -> None:
    parsed = asked(prompt=["a", "b"], stream=True, stream_options={"include_usage": True})
    *chunks, last = rendered(parsed, EVENTS)
    assert [chunk["usage"] for chunk in chunks] == [None] * 4
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 30
    quiet = asked(prompt=["a", "b"], stream=True, stream_options={"include_usage": False})
    assert all("usage" not in chunk for chunk in rendered(quiet, EVENTS))


def test_a_failure_ends_the_stream() -> None:
    stream = asked(stream=True).stream()
    failure = Failure(Kind.CONTEXT_LENGTH, "too long", 400, param="messages")
    data = stream.render(0, [STARTED, failure]).decode()
    assert stream.ended
    assert json.loads(data.removeprefix("data: "))["error"]["param"] == "prompt"
    assert asked().refusal(failure)[1]["error"]["param"] == "prompt"
