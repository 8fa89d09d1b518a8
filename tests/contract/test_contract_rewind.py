"""A rewound conversation: what is cut and what stays."""

import pytest
from driver import (
    PNG,
    RESULT,
    assistant,
    call,
    conversation,
    extra,
    flags,
    result,
    run,
    text,
    tools_call,
    user,
)
from pytest_twisted import ensureDeferred
from rewinding import a_turn, begin, blank, comparable, probe, rewind, several_turns

from claudeproxy.demo.steps import ApiError

PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


@pytest.fixture(scope="module")
def fresh(stage):
    """What a process sends that has held no conversation before."""

    async def play():
        return await probe(await begin(stage))

    return run(play())


# -- what is left of a conversation --


async def an_answered_call(made):
    line, since = user("[[call look {}]]"), len(made.cli.lines)
    await made.turn(line, until=tools_call)
    made.cli.answer(await made.cli.line(tools_call, since), text("[[say seen]]"))
    await made.cli.line(RESULT, since)
    return line, line


async def a_replay(made):
    lines = [
        user("See:", PICTURE, query=False),
        assistant({"type": "thinking", "thinking": "hm", "signature": "c2ln"}, call("toolu_1")),
        user(result("toolu_1", text("y")), query=False),
        assistant("Seen."),
    ]
    await made.history(*lines)
    _, last = await a_turn(made)
    return lines[0], last


async def an_error(made):
    made.demo.answer = lambda received: ApiError(500, "No luck")
    line = user("One")
    await made.turn(line)
    made.demo.answer = None
    return line, line


async def other_settings(made):
    made.cli.send(extra(stop_sequences=["end"], temperature=0.5), flags(effortLevel="low"))
    return await a_turn(made)


async def another_model(made):
    made.cli.send(flags(model="opus"))
    return await a_turn(made)


async def a_blank_line(made):
    line = await blank(made)
    _, last = await a_turn(made)
    return line, last


async def an_answer_in_front(made):
    """The API would not take it: only a blank line in front of it lets it be cut."""
    line = await blank(made)
    await made.history(assistant("Hello, I am in front."), user("Who?", query=False))
    _, last = await a_turn(made)
    return line, last


PASTS = [
    a_turn,
    several_turns,
    an_answered_call,
    a_replay,
    an_error,
    other_settings,
    another_model,
    a_blank_line,
    an_answer_in_front,
]


@pytest.fixture(scope="module")
def pasts(stage):
    """One process that is rewound after each: the rewind's answer and what came then, by name."""
    found = {}

    async def play():
        made = await begin(stage)
        for past in PASTS:
            target, last = await past(made)
            answer = await rewind(made, target, last)
            found[past.__name__] = answer, target, await probe(made)
            lines = found[past.__name__][-1].lines
            await rewind(made, lines[0], lines[-1])

    run(play())
    return found


NAMES = [past.__name__ for past in PASTS]


@pytest.mark.parametrize("name", NAMES)
def test_rewound_to_its_first_line_a_process_is_as_a_fresh_one(pasts, fresh, name):
    _, _, then = pasts[name]
    assert then.bodies == fresh.bodies


@pytest.mark.parametrize("name", NAMES)
def test_a_rewind_answers_that_nothing_is_in_front_of_the_cut(pasts, name):
    answer, target, _ = pasts[name]
    cut = "\n".join(b["text"] for b in target["message"]["content"] if b["type"] == "text")
    assert answer == {
        "rewound": True,
        "targetMessageUuid": target["uuid"],
        "prefillText": cut,
        "precedingAssistantUuid": None,
    }


@ensureDeferred
async def test_answers_in_front_of_the_first_user_line_outlive_a_rewind_to_it(stage):
    made = await begin(stage)
    line = user("Who?")
    await made.history(assistant("I am in front."))
    await made.turn(line)
    answer = await rewind(made, line, line)
    assert answer["precedingAssistantUuid"] is not None
    await made.turn("Hi")
    assert conversation(made.requests[-1].body)[0] == ("assistant", [text("I am in front.")])


@ensureDeferred
async def test_a_turn_is_asked_again_as_it_was(stage):
    """In a live conversation the environment stays where it is."""
    made = await begin(stage)
    await made.turn("One")
    line, last = user("[[think hm]][[say two]]"), user("Three")
    before = [(await made.turn(said)).body for said in (line, last)]
    assert (await rewind(made, line, last))["rewound"]
    again = [(await made.turn(*said["message"]["content"])).body for said in (line, last)]
    assert [comparable(made, b) for b in again] == [comparable(made, b) for b in before]


@ensureDeferred
async def test_an_edit_in_a_replay_is_as_a_replay_of_that(stage):
    """The environment moves to what is then the last user message."""

    def one():
        return [user("One", query=False), assistant("Yes, one.")]

    made, other = await begin(stage), await begin(stage)
    cut, last = user("Two", query=False), user("Three")
    await made.history(*one(), cut, assistant("Yes, two."))
    await made.turn(last)
    assert (await rewind(made, cut, last))["rewound"]
    await other.history(*one())
    edited, replayed = [(m, (await m.turn("Deux")).body) for m in (made, other)]
    assert comparable(*edited) == comparable(*replayed)
