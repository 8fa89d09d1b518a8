"""What surrounds a Responses turn: truncation by turns, compaction, replays, items."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claudeproxy.dialects import compaction, responses
from claudeproxy.dialects.fields import Fields
from claudeproxy.dialects.responses_input import Past
from claudeproxy.dialects.responses_replay import replay
from claudeproxy.dialects.summaries import PREFIX, sealed, summary_of
from claudeproxy.dialects.truncation import SHARE, truncated
from claudeproxy.messages import (
    Assembly,
    BlockStarted,
    Failure,
    FailureError,
    Finished,
    Kind,
    Text,
    TextDelta,
    Usage,
    normalise,
)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": text}


def read(past: Past | None = None, context: int | None = None, **fields: Any) -> Any:
    body = {"model": "sonnet", "input": "x", **fields}
    known = None if context is None else lambda _: context
    return responses.read(body, "1", 0, past or Past(), None, known)


# -- truncation --

LONG = "x" * 4000


def kept(context: int, *items: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    fields = [Fields(item, f"input[{place}]") for place, item in enumerate(items)]
    left, dropped = truncated(fields, 0, context)
    return [item.value for item in left], dropped


def test_whole_turns_go_the_oldest_first() -> None:
    system = {"role": "system", "content": "Be brief"}
    call = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": LONG}
    first = [user(LONG), assistant("a")]
    second = [user("b"), call, result, assistant("b")]
    last = [user("c")]
    everything = [system, *first, *second, *last]
    assert kept(3000, *everything) == (everything, 0)
    assert kept(1500, *everything) == ([system, *second, *last], 1)
    assert kept(1000, *everything) == ([system, *last], 2)


def test_the_last_turn_stays_however_large() -> None:
    assert kept(10, user(LONG)) == ([user(LONG)], 0)
    assert kept(10, user("a"), user(LONG)) == ([user(LONG)], 1)


def test_an_input_that_just_fits() -> None:
    items = [user("a" * 100), user("b" * 100)]
    size = sum(-(-len(json.dumps(item)) // 4) for item in items)
    assert kept(-(-size * 10 // 9), *items)[1] == 0
    assert kept(int(size / SHARE) - 1, *items)[1] == 1


def test_truncation_of_a_body() -> None:
    past = Past([user(LONG), assistant("a")])
    auto = read(past, 500, truncation="auto", input="b")
    assert auto.dropped == 1
    assert auto.request.messages[0].content == (Text("b"),)
    assert [item["content"] for item in auto.items] == ["b"]
    assert auto.envelope.response("queued")["truncation"] == "auto"
    for other in (read(past, 500, input="b"), read(past, 500, truncation="disabled", input="b")):
        assert other.dropped == 0
        assert len(other.request.messages) == 3
    used = read(past, 1800, truncation="auto", input="b", instructions="y" * 4000)
    assert used.dropped == 1


# -- compaction --


def answer(text: str) -> tuple[Assembly, Finished]:
    assembly = Assembly()
    assembly.add(BlockStarted(0, Text("")))
    assembly.add(TextDelta(0, text))
    return assembly, Finished("end_turn", None, Usage(7, 3))


def test_a_conversation_is_compacted_and_gone_on_from() -> None:
    items = [user("Launch on Tuesday"), assistant("Tuesday it is.")]
    body = {"model": "sonnet", "input": items, "prompt_cache_key": "k", "instructions": "Be brief"}
    parsed = compaction.read(body, "1", 5, Past())
    [request] = parsed.requests
    assert [m.role for m in request.messages] == ["user", "assistant", "user"]
    assert request.messages[-1].content == (Text(compaction.ORDER),)
    assert request.system == ("Be brief",)
    assert not request.stream
    told = parsed.complete([answer("We launch on Tuesday: é.")])
    message, item = told.pop("output")
    assert told == {
        "id": "resp_1",
        "object": "response.compaction",
        "created_at": 5,
        "usage": told["usage"],
    }
    assert told["usage"]["output_tokens"] == 3
    assert message["content"] == [{"type": "input_text", "text": "Launch on Tuesday"}]
    assert (item["id"], item["type"]) == ("cmp_1", "compaction")
    went_on = read(input=[message, item, user("Go on")])
    said = "".join(block.text for m in went_on.request.messages for block in m.content)
    assert "We launch on Tuesday: é." in said
    assert went_on.ignored == ()


def test_what_was_stored_is_compacted_too() -> None:
    past = Past([user("a"), assistant("b")])
    parsed = compaction.read({"model": "sonnet", "previous_response_id": "r"}, "1", 0, past)
    assert len(parsed.requests[0].messages) == 3
    assert [item["content"] for item in parsed.kept] == ["a"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [user("x")]}, "model"),
        ({"model": "sonnet"}, "input"),
        ({"model": "sonnet", "input": []}, "input"),
        ({"model": "sonnet", "input": 5}, "input"),
        ({"model": "sonnet", "input": [5]}, "input[0]"),
        ([], None),
    ],
)
def test_nothing_to_compact(body: Any, param: str | None) -> None:
    with pytest.raises(FailureError) as caught:
        compaction.read(body, "1", 0, Past())
    assert (caught.value.failure.status, caught.value.failure.param) == (400, param)


def test_summaries_of_others_and_damaged_ones() -> None:
    theirs = {"type": "compaction", "encrypted_content": "gAAAAAB"}
    parsed = read(input=[theirs, user("x")])
    assert parsed.ignored == ("input.compaction",)
    assert summary_of(Fields({"encrypted_content": sealed("é")})) == "é"
    for damaged in (f"{PREFIX}!", f"{PREFIX}/w=="):
        with pytest.raises(FailureError, match="damaged"):
            read(input=[{"type": "compaction", "encrypted_content": damaged}, user("x")])


# -- replays --


def events(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(part.partition(b"data: ")[2]) for part in data.split(b"\n\n") if part]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_response_that_has_nothing(status: str) -> None:
    response = read().envelope.response(status, error={"code": "server_error", "message": "x"})
    told = events(replay(response))
    assert [event["type"] for event in told] == [
        "response.created",
        "response.queued",
        f"response.{status}",
    ]
    assert told[-1]["response"] == response


def test_a_response_that_was_cut() -> None:
    parsed = read()
    assembly, _ = answer("half")
    response = parsed.complete([(assembly, Finished("max_tokens", None, Usage(1, 1)))])
    told = events(replay(response))
    assert told[-1] == {
        "type": "response.incomplete",
        "sequence_number": len(told) - 1,
        "response": response,
    }


def test_a_stream_that_is_cancelled() -> None:
    stream = read(background=True).stream()
    queued = events(stream.queue())
    assert [event["response"]["status"] for event in queued] == ["queued", "queued"]
    assert stream.response == queued[0]["response"]
    begun = events(stream.render(0, [BlockStarted(0, Text("")), TextDelta(0, "half")]))
    assert begun[0]["type"] == "response.in_progress"
    assert stream.response["status"] == "in_progress"
    told = events(stream.cancel())
    assert told[-1]["type"] == "response.cancelled"
    [item] = told[-1]["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "half")
    assert stream.ended
    numbers = [event["sequence_number"] for event in (*queued, *begun, *told)]
    assert numbers == list(range(len(numbers)))


def test_a_stream_that_fails_while_it_is_queued() -> None:
    stream = read(background=True).stream()
    stream.queue()
    told = events(stream.render(0, [Failure(Kind.UPSTREAM, "broken", 502)]))
    assert [e["type"] for e in told] == ["response.in_progress", "response.failed", "error"]
    assert stream.response["error"]["message"] == "broken"


def test_an_answer_may_say_something_behind_its_calls() -> None:
    """As Claude does now and then; the daemon's own output has to be an input."""
    call = {"type": "function_call", "name": "add", "arguments": "{}"}
    items = [
        user("Add."),
        {**call, "call_id": "a"},
        {"role": "assistant", "content": "And once more."},
        {**call, "call_id": "b"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call_output", "call_id": "b", "output": "2"},
    ]
    body = {"model": "opus", "input": items}
    said = normalise(responses.read(body, "abc", 7, Past()).request.messages)
    assert [message.role for message in said] == ["user", "assistant", "user"]
    with pytest.raises(FailureError) as refused:
        responses.read(
            {**body, "input": [*items[:4], {"role": "user", "content": "So?"}]}, "abc", 7, Past()
        )
    assert refused.value.failure.param == "input[4]"
