"""The fake, and conversations over it."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred

from claudeproxy.client import (
    Answer,
    ClaudeError,
    Conversation,
    Failure,
    FakeClaude,
    Kind,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
)

CALL = Answer((Thinking("Hm"), Text("Wait."), ToolUse("toolu_1", "add", {"a": 1})))
TOOLS = [{"name": "add", "input_schema": {"type": "object"}}]


@ensureDeferred
async def test_the_fake_answers_in_turn_and_fails_as_planned() -> None:
    limit = Failure(Kind.RATE_LIMIT, "busy", 429, retry_after=3.0)
    fake = FakeClaude("Hello there", CALL, Kind.PLAN_LIMIT, limit)
    answer = await fake.ask("Hi", system="Be brief.")
    assert (answer.text, answer.stop_reason, answer.model) == ("Hello there", "end_turn", "sonnet")
    pieces = [piece async for piece in fake.stream("Add", tools=TOOLS)]
    assert pieces[:-1] == [Thinking("Hm"), Text("Wait."), *CALL.calls]
    assert (pieces[-1].content, pieces[-1].stop_reason) == (CALL.content, "tool_use")
    with pytest.raises(ClaudeError) as caught:
        await fake.ask("Hi")
    assert caught.value.kind is Kind.PLAN_LIMIT
    with pytest.raises(ClaudeError, match="busy") as caught:
        await fake.ask("Hi")
    assert caught.value.retry_after == 3.0
    assert fake.asked[0]["messages"] == [{"role": "user", "content": "Hi"}]
    assert fake.asked[0]["system"] == "Be brief."
    with pytest.raises(AssertionError, match="asked more than"):
        await fake.ask("Hi")


@ensureDeferred
async def test_the_fake_streams_word_by_word() -> None:
    *pieces, _ = [piece async for piece in FakeClaude(" One two\n three").stream("Hi")]
    assert pieces == [Text(" "), Text("One "), Text("two\n "), Text("three")]


@ensureDeferred
async def test_the_fake_refuses_what_the_daemon_refuses() -> None:
    with pytest.raises(ClaudeError, match="max_tokens: must be at least 1") as caught:
        await FakeClaude("never").ask("Hi", max_tokens=0)
    assert caught.value.kind is Kind.INVALID
    with pytest.raises(ClaudeError, match="not a JSON schema"):
        await FakeClaude("never").ask("Hi", schema={"type": "nonsense"})


def test_an_argument_that_is_none_is_refused_at_once() -> None:
    for ask in (FakeClaude().ask, FakeClaude().stream):
        with pytest.raises(TypeError, match="'modle' is neither an argument nor"):
            ask("Hi", modle="opus")


@ensureDeferred
async def test_the_fake_takes_its_time() -> None:
    first: Deferred[Any] = Deferred()
    second: Deferred[Any] = Deferred()
    fake = FakeClaude(first, second)
    asked, given_up = fake.ask("Hi"), fake.ask("Hi")
    assert not asked.called
    first.callback("At last")
    assert (await asked).text == "At last"
    given_up.cancel()
    with pytest.raises(CancelledError):
        await given_up
    assert second.called


def said(fake: FakeClaude, asked: int = -1) -> list[str]:
    """The texts of a question's messages."""
    return [
        block.get("text", block["type"])
        for message in fake.asked[asked]["messages"]
        for block in message["content"]
    ]


@ensureDeferred
async def test_a_conversation_remembers() -> None:
    fake = FakeClaude("One", "Two", CALL, "Three")
    talk = Conversation(fake, system="Be brief.", tools=TOOLS)
    await talk.ask("a")
    pieces = [piece async for piece in talk.stream("b")]
    assert isinstance(pieces[-1], Answer)
    assert said(fake) == ["a", "One", "b"]
    (call,) = (await talk.ask("c")).calls
    await talk.ask([ToolResult(call.id, (Text("2"),))])
    assert said(fake)[4:] == ["c", "thinking", "Wait.", "tool_use", "tool_result"]
    assert all(asked["system"] == "Be brief." for asked in fake.asked)
    assert len(talk.messages) == 8


@ensureDeferred
async def test_what_was_not_answered_is_not_remembered() -> None:
    fake = FakeClaude("One", Kind.OVERLOADED, "Two words", "Three")
    talk = Conversation(fake)
    await talk.ask("a")
    with pytest.raises(ClaudeError):
        await talk.ask("b")
    left = talk.stream("c")
    assert await anext(left) == Text("Two ")
    await left.aclose()
    assert (await talk.ask("d")).text == "Three"
    assert said(fake) == ["a", "One", "d"]


@ensureDeferred
async def test_a_loop_that_is_left_lets_the_next_question_through() -> None:
    talk = Conversation(FakeClaude("One two", "Three"))
    async for _ in talk.stream("a"):
        break
    assert (await talk.ask("b")).text == "Three"
    assert len(talk.messages) == 2


@ensureDeferred
async def test_questions_come_one_after_the_other() -> None:
    first: Deferred[Any] = Deferred()
    fake = FakeClaude(first, "Two", "Three")
    talk = Conversation(fake)
    one, two, three = talk.ask("a"), talk.ask("b"), talk.ask("c")
    assert len(fake.asked) == 1
    two.cancel()
    with pytest.raises(CancelledError):
        await two
    first.callback("One")
    assert ((await one).text, (await three).text) == ("One", "Two")
    assert said(fake) == ["a", "One", "c"]


@ensureDeferred
async def test_a_long_conversation_forgets_its_older_half() -> None:
    fake = FakeClaude(*"12345", CALL, "7", "8")
    talk = Conversation(fake, most=10, tools=TOOLS)
    for question in "abcde":
        await talk.ask(question)
    assert len(talk.messages) == 10
    await talk.ask("f")
    assert [message.role for message in talk.messages] == ["user", "assistant"] * 2
    await talk.ask([ToolResult("toolu_1", (Text("2"),))])
    assert said(fake)[:2] == ["e", "5"]


@ensureDeferred
async def test_no_conversation_begins_with_the_result_of_a_call() -> None:
    fake = FakeClaude(CALL, "1", "2")
    talk = Conversation(fake, most=4, tools=TOOLS)
    await talk.ask("a")
    await talk.ask([ToolResult("toolu_1", (Text("2"),))])
    await talk.ask("b")
    assert [block for message in talk.messages for block in message.content] == [
        Text("b"),
        Text("2"),
    ]
