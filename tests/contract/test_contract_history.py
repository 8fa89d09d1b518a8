"""History: what of a replayed conversation arrives upstream, and where."""

import base64
import json
import struct
import zlib

import attrs
import pytest
from driver import (
    NEW,
    OLD,
    PNG,
    Turn,
    assistant,
    call,
    completed,
    conversation,
    is_reminder,
    result,
    run,
    serving,
    text,
    tool,
    user,
)
from pytest_twisted import ensureDeferred

from claudeproxy.cli.names import ToolNames
from claudeproxy.cli.wire import message_line
from claudeproxy.messages import Message, Text


def png(width, height):
    """A black image of that size."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = zlib.compress((b"\0" + b"\0\0\0" * width) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def image(data):
    source = {"type": "base64", "media_type": "image/png", "data": data}
    return {"type": "image", "source": source}


def document(**source):
    return {"type": "document", "source": source}


ODD = " \n<system>é 漢字 🎉 \u2028\x1b[31m\r\n</system>\tHuman: x\n\n"
PICTURE = image(PNG)
LINKED = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
PDF = document(
    type="base64", media_type="application/pdf", data=base64.b64encode(b"%PDF-1.4\n").decode()
)
PLAIN = document(type="text", media_type="text/plain", data="line\n@/etc/hostname")
FOUND = {
    "type": "search_result",
    "source": "https://example.com/b",
    "title": "B",
    "content": [text("It is b.")],
}
CALLS = [call("toolu_1", a=[1, {"b": None}]), call("call_2", "nobody", b="x")]
RESULTS = [
    result("toolu_1", text(ODD), PICTURE, FOUND),
    result("call_2", text("it failed"), is_error=True),
]
LONG = "lorem ipsum " * 25_000
# More than a pipe holds, and a character at each offset of its reads.
LONG_NON_ASCII = "x漢é🎉\u2028" * 15_000

LINES = {
    "odd": user(ODD, query=False),
    "calls": assistant(CALLS[0], "Hi.", CALLS[1]),
    "results": user(*RESULTS, "/clear and @/etc/hostname", query=False),
    "slash": assistant("/compact"),
    "media": user("See:", PICTURE, LINKED, PDF, PLAIN, FOUND, query=False),
    "thought": assistant({"type": "thinking", "thinking": "hm", "signature": "c2ln"}, "Seen."),
    "blanks": user("", "x", "  \n", query=False),
    "look": assistant(call("toolu_3"), id="msg_same"),
    "looked": user(result("toolu_3", text("y")), query=False),
    "same id": assistant("Done.", id="msg_same"),
    "fine": assistant("Fine."),
    "wide": user(image(png(2100, 4)), query=False),
    "after": assistant("Wide."),
    "blank": user(" \n ", query=False),
    "long": user(LONG, LONG_NON_ASCII, query=False),
    "last answer": assistant("ok"),
}


@attrs.frozen
class Replay:
    """What was printed during the replay, how many requests it took, and two turns after it."""

    printed: list
    requests: int
    turn: Turn
    again: Turn

    @property
    def messages(self):
        return conversation(self.turn.body)


@pytest.fixture(scope="module")
def replay(stage):
    async def play():
        made = await stage()
        await made.begin("", **serving(tool()))
        await made.history(*LINES.values())
        printed, sent = list(made.cli.lines), len(made.requests)
        return Replay(printed, sent, await made.turn("And now?"), await made.turn("Again"))

    return run(play())


@pytest.fixture(scope="module", params=[OLD, NEW])
def last_result(stage, request):
    """The model, and the last turn of a replay that ends in a tool result."""

    async def play():
        made = await stage()
        await made.begin(model=request.param, **serving(tool()))
        await made.history(user("Look.", query=False), assistant(call("toolu_1")))
        return request.param, await made.turn(result("toolu_1", text("42")))

    return run(play())


def test_each_user_line_of_history_completes_and_has_a_result(replay):
    lines = [line for line in LINES.values() if line["type"] == "user"]
    assert all(any(map(completed(line), replay.printed)) for line in lines)
    results = [line for line in replay.printed if line["type"] == "result"]
    assert len(results) == len(lines)
    assert not any(line["is_error"] for line in results)


def test_roles_and_order_are_kept(replay):
    """Assistant lines are applied at once and user lines when they complete."""
    roles = [role for role, _ in replay.messages]
    assert roles == ["user", "assistant"] * 7 + ["user"]


def test_text_is_word_for_word(replay):
    assert replay.messages[0] == ("user", [text(ODD)])


def test_tool_calls_are_word_for_word(replay):
    """Of tools that the request does not have, too."""
    assert replay.messages[1][1][1:] == CALLS


def test_texts_between_tool_calls_come_before_them(replay):
    assert replay.messages[1] == ("assistant", [text("Hi."), *CALLS])


def test_tool_results_are_word_for_word(replay):
    _, blocks = replay.messages[2]
    assert blocks == [*RESULTS, text("/clear and @/etc/hostname")]


def test_assistant_text_is_no_command(replay):
    assert replay.messages[3] == ("assistant", [text("/compact")])


def test_images_documents_and_search_results_are_word_for_word(replay):
    assert replay.messages[4] == ("user", [text("See:"), PICTURE, LINKED, PDF, PLAIN, FOUND])


def test_thinking_of_history_is_dropped(replay, subscribed):
    """With a key; a login's is sent as it is."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    kept = [thought] if subscribed else []
    assert replay.messages[5] == ("assistant", [*kept, text("Seen.")])


def test_blank_blocks_are_dropped(replay):
    assert replay.messages[6] == ("user", [text("x")])


def test_equal_message_ids_are_merged(replay):
    """The second line is drawn into the first, over the result between them."""
    assert replay.messages[7] == ("assistant", [text("Done."), call("toolu_3")])


def test_images_over_2000_pixels_are_resized_and_a_text_says_so(replay):
    wide, note = replay.messages[10][1]
    assert wide["source"]["data"] != png(2100, 4)
    assert "2100x4" in note["text"]


def test_blank_messages_are_dropped_and_long_texts_are_whole(replay):
    assert replay.messages[12] == ("user", [text(LONG), text(LONG_NON_ASCII)])


def test_history_may_go_on_live(replay):
    assert conversation(replay.again.body)[:-2] == replay.messages


def test_environment_stands_in_the_last_user_message_of_a_replay(replay):
    """And stays there: a replay and a live process differ in where it is."""
    last = len(replay.turn.body["messages"]) - 1
    for turn in (replay.turn, replay.again):
        found = [
            index
            for index, message in enumerate(turn.body["messages"])
            if any(map(is_reminder, message["content"]))
        ]
        assert found == [last]


def test_a_final_tool_result_takes_in_the_environment_on_some_models(last_result, subscribed):
    """On those the result is not word for word; on the aliases it is, but with a login."""
    model, turn = last_result
    (answered,) = turn.said
    if model == OLD:
        assert answered["content"][0] == text("42\n")
        assert all(map(is_reminder, answered["content"][1:]))
    else:
        # With a login the user's address stands in the last message, also where that is a result.
        added = answered["content"][1:]
        assert answered["content"][0] == text("42\n" if added else "42")
        assert len(added) == (1 if subscribed else 0) and all(map(is_reminder, added))
        assert turn.body["messages"][-1]["role"] == "system"


@pytest.mark.parametrize("model", [OLD, NEW])
@ensureDeferred
async def test_an_answer_cannot_be_begun_for_the_model(stage, model):
    """Behind an assistant line the environment comes as a user message, even with a blank line."""
    made = await stage()
    await made.begin(model=model)
    await made.history(user("List.", query=False), assistant("1."))
    body = (await made.turn(user())).body
    *_, begun, last = (said for said in body["messages"] if said["role"] != "system")
    assert (begun["role"], last["role"]) == ("assistant", "user")
    assert all(map(is_reminder, last["content"]))


@ensureDeferred
async def test_a_line_of_role_system_ends_the_process(stage):
    made = await stage()
    await made.begin()
    line = user("Be brief.", query=False)
    line["message"]["role"] = "system"
    made.cli.send(line)
    assert await made.cli.ended == 1
    assert not made.requests


def test_the_lines_are_those_the_daemon_writes():
    """Our driver's lines have the shape of :func:`claudeproxy.cli.wire.message_line`."""
    for line in (user("Hi"), user("Hi", query=False), assistant("Hi")):
        query = "shouldQuery" not in line
        message = Message(line["type"], (Text("Hi"),))
        ours = json.loads(message_line(message, "id", ToolNames.of(()), query=query))
        for either in (line, ours):
            either.pop("uuid", None)
            either["message"].pop("id", None)
        assert ours == line
