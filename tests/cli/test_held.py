"""What a process holds, and where it can be taken back to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy.cli.held import HeldConversation
from claudeproxy.messages import Message, Text, ToolResult, ToolUse

QUESTION = Message("user", (Text("x"),))
ANSWER = Message("assistant", (Text("a"),))
CALL = Message("assistant", (ToolUse("t", "look", {}),))
RESULT = Message("user", (ToolResult("t", (Text("r"),)),))
RESULT_AND_TEXT = Message("user", (ToolResult("t", (Text("r"),)), Text("and")))


def held(*messages: Message) -> HeldConversation:
    """Written as the lines "0", "1", …"""
    conversation = HeldConversation()
    for n, message in enumerate(messages):
        conversation.wrote(message, str(n))
    return conversation


@pytest.mark.parametrize(
    ("messages", "points"),
    [
        ((), ()),
        ((QUESTION,), (0,)),
        ((QUESTION, ANSWER, QUESTION), (0, 2)),
        ((QUESTION, CALL, RESULT, ANSWER, QUESTION), (0, 4)),
        ((QUESTION, CALL, RESULT_AND_TEXT), (0,)),
        ((ANSWER, QUESTION), (1,)),
        ((RESULT,), ()),
    ],
)
def test_only_a_question_can_be_gone_back_before(
    messages: tuple[Message, ...], points: tuple[int, ...]
) -> None:
    conversation = held(*messages)
    assert (conversation.count, conversation.points) == (len(messages), points)


@pytest.mark.parametrize(
    ("messages", "at", "target", "last"),
    [
        ((QUESTION,), 0, "0", "0"),
        ((QUESTION, ANSWER, QUESTION), 0, "0", "2"),
        ((QUESTION, ANSWER, QUESTION), 2, "2", "2"),
        ((QUESTION, CALL, RESULT), 0, "0", "2"),
        ((QUESTION, ANSWER, QUESTION, CALL, RESULT, ANSWER), 2, "2", "4"),
    ],
)
def test_a_rewind_names_its_line_and_the_last_one(
    messages: tuple[Message, ...], at: int, target: str, last: str
) -> None:
    conversation = held(*messages)
    assert conversation.rewind(at) == {
        "subtype": "rewind_conversation",
        "target_message_uuid": target,
        "last_seen_user_message_uuid": last,
        "interrupt_if_running": True,
    }
    assert conversation.count == at


def test_what_was_no_line_counts_and_is_no_point() -> None:
    conversation = held(QUESTION)
    conversation.added()  # an answer that calls
    conversation.added()  # the result, returned
    conversation.added()
    conversation.wrote(QUESTION, "b")
    assert (conversation.count, conversation.points) == (5, (0, 4))
    assert conversation.rewind(4)["target_message_uuid"] == "b"
    assert conversation.rewind(0)["last_seen_user_message_uuid"] == "0"


@pytest.mark.parametrize("at", [-1, 1, 2, 3])
def test_there_is_no_way_back_to_elsewhere(at: int) -> None:
    conversation = held(QUESTION, CALL, RESULT)
    with pytest.raises(ValueError):
        conversation.rewind(at)
    assert (conversation.count, conversation.points) == (3, (0,))


@given(st.data())
def test_a_shortened_one_is_as_if_it_had_never_been_longer(data: st.DataObject) -> None:
    kinds = st.sampled_from([QUESTION, ANSWER, CALL, RESULT])
    messages = [QUESTION, *data.draw(st.lists(kinds, max_size=12))]
    conversation = held(*messages)
    at = data.draw(st.sampled_from(conversation.points))
    conversation.rewind(at)
    assert conversation == held(*messages[:at])
