"""What a rewind refuses, and what it leaves as it is: settings, and what is told of the plan."""

import attrs
import pytest
from driver import (
    assistant,
    call,
    completed,
    control,
    conversation,
    extra,
    flags,
    result,
    run,
    text,
    user,
)
from pytest_twisted import ensureDeferred
from rewinding import (
    SETTINGS,
    a_turn,
    begin,
    blank,
    comparable,
    probe,
    rewind,
    several_turns,
)

from claudeproxy.cli.settings import BRAKE

NOISE = "<command-name>/model</command-name>"
"""What a change of model writes into a conversation that holds something."""


# -- what is refused --


@attrs.frozen
class Refused:
    """The answers by what was asked for, and a turn's body before them and after."""

    answers: dict
    before: dict
    after: dict


@pytest.fixture(scope="module")
def refused(stage):
    async def play():
        made = await begin(stage)
        first, found = user("One", query=False), user(result("toolu_1", text("y")), query=False)
        await made.history(first, assistant("Look.", call("toolu_1")), found, assistant("Seen."))
        last = user("Two")
        turn = await made.turn(last)
        answered = next(line for line in turn.lines if line["type"] == "assistant")
        answers = {
            "unknown": await rewind(made, user("never sent"), last),
            "an answer": await rewind(made, answered, last),
            "a tool result": await rewind(made, found, last),
            "no last line": await rewind(made, first),
            "an earlier last line": await rewind(made, first, first),
            "an unknown last line": await rewind(made, first, user("never sent")),
        }
        again = user("Two")
        answers["the target is the last"] = await rewind(made, last)
        after = (await made.turn(again)).body
        answers["what is cut"] = await rewind(made, last, again)
        return Refused(answers, comparable(made, turn.body), comparable(made, after))

    return run(play())


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("unknown", "target_not_found"),
        ("an answer", "target_not_found"),
        ("what is cut", "target_not_found"),
        ("a tool result", "target_splits_tool_call"),
        ("no last line", "stale_target"),
        ("an earlier last line", "unseen_later_turn"),
        ("an unknown last line", "unseen_later_turn"),
    ],
)
def test_a_refused_rewind_says_why(refused, what, why):
    """In a response of subtype ``success``."""
    answer = refused.answers[what]
    assert (answer["rewound"], answer["reason"]) == (False, why)


def test_at_rest_a_refused_rewind_changes_nothing(refused):
    assert refused.after == refused.before


def test_the_last_line_need_not_be_named_where_it_is_the_target(refused):
    assert refused.answers["the target is the last"]["rewound"]


@ensureDeferred
async def test_a_tool_result_may_be_the_last_line(stage):
    made = await begin(stage)
    first, last = user("Look.", query=False), user(result("toolu_1", text("y")))
    await made.history(first, assistant(call("toolu_1")))
    await made.turn(last)
    assert (await rewind(made, first, last))["rewound"]


@ensureDeferred
async def test_a_question_behind_a_refused_rewind_is_asked(stage):
    """So nothing is sent before the answer has come."""
    made = await begin(stage)
    first, _ = await several_turns(made)
    wanted = {"target_message_uuid": first["uuid"], "interrupt_if_running": True}
    turn = await made.turn("Hi", before=[control("rewind", "rewind_conversation", **wanted)])
    assert [role for role, _ in conversation(turn.body)] == ["user", "assistant"] * 2 + ["user"]
    assert turn.said == [text("Hi")]


@ensureDeferred
async def test_a_line_whose_uuid_was_used_is_dropped(stage):
    made = await begin(stage)
    line, _ = await a_turn(made)
    await rewind(made, line, line)
    turn = await made.turn("Hi", before=[line])
    assert conversation(turn.body) == [("user", [text("Hi")])]
    assert not any(map(completed(line), turn.lines))


# -- settings --


@ensureDeferred
async def test_settings_outlive_a_rewind(stage):
    """Until the next ones: the brake, too."""
    made = await begin(stage)
    made.cli.send(
        extra(stop_sequences=["end"], thinking={"type": "disabled"}),
        flags(env={"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "77"}),
    )
    line, _ = await a_turn(made)
    await rewind(made, line, line)
    line = user("Hi")
    body = (await made.turn(line)).body
    assert (body["stop_sequences"], body["max_tokens"]) == (["end"], 77)
    await rewind(made, line, line)
    turn = await made.turn("Hi", before=[flags(**BRAKE)])
    assert (turn.result["terminal_reason"], turn.requests) == ("blocking_limit", [])


@pytest.mark.parametrize("blanks", [0, 1])
@ensureDeferred
async def test_another_model_behind_a_rewind_leaves_no_trace(stage, blanks):
    """Not where it is told before a blank line, either."""
    made = await begin(stage)
    made.cli.send(flags(model="opus"))
    line, _ = await a_turn(made)
    await rewind(made, line, line)
    made.cli.send(SETTINGS)
    for _ in range(blanks):
        await blank(made)
    assert (await probe(made)).bodies == (await probe(await begin(stage))).bodies


@ensureDeferred
async def test_another_model_behind_a_blank_line_is_told_to_the_model(stage):
    made = await begin(stage)
    line, _ = await a_turn(made)
    await rewind(made, line, line)
    await blank(made)
    turn = await made.turn("Hi", before=[flags(model="opus")])
    assert NOISE in str(turn.said)


@ensureDeferred
async def test_another_model_in_what_is_left_is_told_to_the_model(stage):
    """And that outlives a rewind to the line it was told with."""
    made = await begin(stage)
    _, last = await several_turns(made)
    await rewind(made, last, last)
    line = user("Hi")
    assert NOISE in str((await made.turn(line, before=[flags(model="opus")])).said)
    assert (await rewind(made, line, line))["rewound"]
    assert NOISE in str((await made.turn("Hi")).said)


@ensureDeferred
async def test_another_model_told_before_the_rewind_leaves_no_trace(stage):
    made, other = await begin(stage), await begin(stage)
    first, cut, last = (user(said, query=False) for said in ("One", "Two", "Three"))
    await made.history(first, assistant("Yes, one."), cut, assistant("Yes, two."), last)
    made.cli.send(flags(model="opus"))
    assert (await rewind(made, cut, last))["rewound"]
    other.cli.send(flags(model="opus"))
    await other.history(user("One", query=False), assistant("Yes, one."))
    turns = [(m, (await m.turn("Deux", before=[flags(model="opus")])).body) for m in (made, other)]
    assert comparable(*turns[0]) == comparable(*turns[1])


@pytest.mark.only("subscription")
@ensureDeferred
async def test_windows_are_not_told_again_after_a_rewind(stage):
    made = await begin(stage)
    line = user("One")
    assert (await made.turn(line)).all("rate_limit_event")
    await rewind(made, line, line)
    assert not (await made.turn("One")).all("rate_limit_event")
