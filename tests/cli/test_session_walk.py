"""A session among whatever a CLI prints and whoever asks, in any order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sessions import (
    FIND,
    FLAGS,
    IN,
    INFO,
    LOOK,
    Scene,
    answer,
    asked,
    call_lines,
    calls,
    kinds,
    limits,
    messages,
    request,
    results,
    sent,
    tools_call,
    warm,
)

from claudeproxy.cli.outputs import MustEnd, Output, Rested, Write
from claudeproxy.cli.setup import Setup
from claudeproxy.cli.states import TRANSITIONS, State, Step
from claudeproxy.messages import Failure, Finished, Message
from claudeproxy.testing import transcripts as cli

# -- any transcript, cut at any byte --

SAID: dict[str, Callable[[Scene], bytes]] = {
    "an answer": lambda _: cli.transcript("héllo €🎉"),
    "a call": lambda _: (
        call_lines(arguments='{"a": "é€🎉"}') + cli.closing("tool_use") + tools_call()
    ),
    "noise": lambda _: b"\n  \r\n" + cli.line({"type": "unknown"}) + cli.transcript("x"),
    "broken off": lambda _: (
        cli.opening() + b"".join(cli.text_block(["a"])) + cli.event("message_stop")
    ),
    "no json": lambda _: cli.opening() + b"oops\n" + cli.transcript("x"),
    "an error": lambda _: cli.result("API Error: 429 no", is_error=True, api_error_status=429),
    "windows": lambda _: answer() + limits() + cli.result("a"),
    "a call and windows": lambda _: (
        call_lines() + cli.closing("tool_use") + limits() + tools_call()
    ),
    "cut, windows": lambda _: answer("max_tokens") + limits() + cli.requesting() + cli.opening(),
    "cut, going on": lambda _: answer("refusal") + cli.requesting() + cli.opening() + limits(),
    "cut, a call": lambda _: call_lines(arguments="[") + cli.closing("tool_use") + tools_call(),
    "cut, a result": lambda _: answer("max_tokens") + cli.result("a") + limits(),
    "an account": lambda _: (
        cli.response("setup", account={"tokenSource": "none"}) + cli.transcript("x")
    ),
    "asked twice": lambda _: cli.requesting() + cli.opening() + cli.transcript("a"),
    "used up": lambda _: (
        limits({**INFO, "status": "rejected"})
        + cli.result("API Error: 429", is_error=True, api_error_status=429)
    ),
    "taken in": lambda scene: scene.taken_in + cli.transcript("x"),
    "a rewind": lambda scene: (
        cli.event("message_stop")
        + cli.result(is_error=True)
        + cli.cancelled(scene.lines[-1]["uuid"])
        + limits()
        + scene.rewound
        + answer()
        + cli.result("a")
    ),
    "a refused rewind": lambda scene: (
        answer() + cli.rewound_not(scene.rewind["request_id"], "turn_running") + answer()
    ),
    "a part kept": lambda scene: scene.rewound_to("kept") + answer(),
    "a new end": lambda _: cli.result("a") + cli.transcript("b"),
}
WITH_A_REWIND = ("a rewind", "a refused rewind", "a part kept")
PLAYED = [
    (state, name)
    for state in State
    for name in SAID
    if (state in (State.REWINDING, State.REOPENING) or name not in WITH_A_REWIND)
    and (state not in (State.STARTING, State.UNUSED) or name != "taken in")
]


def plain(outputs: Iterable[Output], written: list[Any]) -> list[Any]:
    """``outputs`` with the ids of this session's own making by their order in ``written``."""
    text = "".join(json.dumps(line) for line in written)
    numbers: dict[str, int] = {}
    for made in re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}|msg_[0-9a-f]{32}", text):
        numbers.setdefault(made, len(numbers))

    def named(data: bytes) -> str:
        line = data.decode()
        for made, number in numbers.items():
            line = line.replace(made, f"#{number}")
        return line

    return [named(o.data) if isinstance(o, Write) else o for o in outputs]


@settings(deadline=None)
@given(st.sampled_from(PLAYED), st.lists(st.integers(0, 5000), max_size=8))
@example((State.REWINDING, "a rewind"), [1])
@example((State.REOPENING, "a rewind"), [1])
def test_the_same_outputs_wherever_the_bytes_are_cut(
    played: tuple[State, str], places: list[int]
) -> None:
    state, name = played
    whole, session = IN[state](), IN[state]()
    before = len(session.outputs)
    whole.hear(SAID[name](whole))
    data = SAID[name](session)
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    for a, b in pairwise(edges):
        session.hear(data[a:b])
    expected = plain(whole.outputs[before:], whole.written)
    assert plain(session.outputs[before:], session.written) == expected
    assert (session.state, session.request_sent) == (whole.state, whole.request_sent)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=8))
def test_the_same_writes_too(places: list[int]) -> None:
    """With a history, whose lines are written as the process takes them in."""

    def lines(parts: list[int]) -> list[str]:
        scene = asked("a", "b", "c")
        data = scene.taken_in + cli.transcript("d")
        edges = [0, *sorted(place % (len(data) + 1) for place in parts), len(data)]
        for a, b in pairwise(edges):
            scene.hear(data[a:b])
        return kinds(scene.written)

    assert lines(places) == lines([])


# -- nonsense --

NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "event", "message", "delta", "index", "request", "response", "content_block",
             "text", "usage", "subtype", "content", "result", "request_id", "state", "rewound",
             "command_uuid", "status", "is_error", "errors"]
        ),
        inner,
        max_size=4,
    ),
)  # fmt: skip
TYPES = ["stream_event", "result", "assistant", "command_lifecycle", "control_request",
         "rate_limit_event", "control_response", "system", "x"]  # fmt: skip


@settings(deadline=None)
@given(NESTED, st.sampled_from(TYPES), st.sampled_from(State))
def test_no_line_raises(value: Any, kind: str, state: State) -> None:
    line = {**(value if isinstance(value, dict) else {"event": value}), "type": kind}
    scene = IN[state]()
    before = len(scene.lines)
    scene.hear(cli.line(line))
    ends_the_turn_before = state is State.QUEUED and kind == "result"
    assert ends_the_turn_before or len(scene.lines) == before, (
        "no message is written for a line that means nothing"
    )


# -- a walk --


class Walk:
    """A scene, and what must be true of it, kept by other means."""

    def __init__(self, rewinds: bool) -> None:
        self.scene = warm(rewinds=rewinds)
        self.conversation: list[str] = []  # the ids of its user lines, and "" for all else
        self.seen: set[str] = set()
        self.rewind: Any = None
        self.open = False
        self.at = len(self.scene.written)

    def ask(self, step: Callable[[], list[Output]], legal: bool) -> None:
        before = self.scene.state
        try:
            outputs = step()
        except ValueError:
            assert not legal, before
            assert self.scene.state is before
            return
        assert legal, before
        self.take(outputs)

    def take(self, outputs: list[Output]) -> None:
        scene = self.scene
        for line in sent(scene.do(outputs)):
            self.wrote(line)
        for output in outputs:
            if isinstance(output, (Finished, Failure)):
                assert self.open, "an end is told once"
                self.open = False
            if isinstance(output, Rested):
                assert not self.open
            if isinstance(output, MustEnd):
                assert scene.state is State.DEAD
        if scene.state is State.DEAD:
            self.rewind = None
            return
        assert scene.in_turn == self.open
        assert scene.held == len(self.conversation)
        for point in scene.points:
            assert point == scene.held or self.conversation[point]

    def wrote(self, line: Any) -> None:
        assert self.scene.state is not State.DEAD or kinds([line]) != ["user"]
        if line["type"] == "control_response":
            return
        if self.rewind is not None:
            ending = kinds([line])[0] in ("apply_flag_settings", "interrupt")
            assert ending, "nothing behind a rewind that is unanswered"
        elif line["type"] == "assistant":
            self.conversation.append("")
        elif line["type"] == "user":
            assert line["uuid"] not in self.seen
            self.seen.add(line["uuid"])
            result = line["message"]["content"][0]["type"] == "tool_result"
            self.conversation.append("result:" * result + line["uuid"])
        elif kinds([line]) == ["rewind_conversation"]:
            asks = line["request"]
            lines = [made for made in self.conversation if made]
            assert asks["last_seen_user_message_uuid"] == lines[-1].removeprefix("result:")
            at = self.conversation.index(asks["target_message_uuid"])
            del self.conversation[at:]
            self.rewind = line

    # What may happen.

    def opens(self, chance: Random) -> None:
        texts = chance.choice(["a", "a", "abc", "abcde"])
        since = chance.choice([*self.scene.points * 3, 0, 1, 2])
        tools = chance.choice([(), (LOOK,), (LOOK, FIND)])
        system = chance.choice(["Be brief."] * 9 + ["Be long."])
        flags = chance.choice([FLAGS, {"model": "haiku"}])
        before: tuple[Message, ...] = messages(*"ab" * (since // 2 + 1))[:since]
        asks = (*before, *messages(*texts))
        setup = Setup.of(request("x", tools=tools))
        setup = Setup((system,), setup.tools, setup.names)
        scene = self.scene
        bound = scene.setup is None or scene.setup.system == setup.system
        legal = bound and since in scene.points
        if legal and scene.state is not State.DEAD:
            self.open = True
        self.ask(lambda: scene.open(asks, setup, flags, since), legal)

    def returns(self) -> None:
        scene = self.scene
        parked = bool(scene.calls)
        if parked:
            self.open = True
            self.conversation.append("")
        self.ask(lambda: scene.return_tool_results(results(*scene.calls), FLAGS), parked)

    def gives_up(self) -> None:
        legal = (self.scene.state, Step.GIVE_UP) in TRANSITIONS
        if legal:
            self.open = False
        self.ask(self.scene.give_up, legal)

    def overdue(self) -> None:
        self.take(self.scene.overdue())

    def ends(self) -> None:
        self.take(self.scene.end())
        self.take(self.scene.ended("exit 0"))
        assert not self.open, "whoever waits is told"

    def hears(self, data: bytes) -> None:
        for line in data.splitlines(keepends=True):
            was = self.scene.state
            outputs = self.scene.feed(line)
            whole = self.scene.state in (State.AWAITING_RESULT, State.PARKED)
            if was is State.ANSWERING and whole:
                self.conversation.append("")
            self.take(outputs)

    def hears_of_its_rewind(self, how: str) -> None:
        if self.rewind is None:
            return
        rewind, self.rewind = self.rewind, None
        asked, target = rewind["request_id"], rewind["request"]["target_message_uuid"]
        if how == "done":
            before = "answer" if self.conversation else None
            self.hears(cli.rewound(asked, target, before))
            return
        refusals = {
            "refused": cli.rewound_not(asked, "turn_running"),
            "unknown": cli.refused(asked, "no such request"),
            "partly": cli.rewound(asked, target, "kept"),
        }
        if how == "partly" and self.conversation:
            self.rewind = rewind  # an answer before is as it has to be
            return
        self.open = self.open and self.scene.state is State.REOPENING
        self.hears(refusals[how])
        assert self.scene.state is State.DEAD


def last_line(walk: Walk) -> str:
    return str(walk.scene.lines[-1]["uuid"]) if walk.scene.lines else "none"


Printed = Callable[[Walk], bytes]
USUAL: dict[State, list[Printed]] = {
    State.REPLAYING: [lambda walk: cli.completed(last_line(walk))],
    State.PREPARING: [lambda walk: cli.completed(last_line(walk))],
    State.ASKED: [lambda walk: cli.lifecycle(last_line(walk), "started"), lambda _: answer()],
    State.WITHDRAWN: [lambda walk: cli.lifecycle(last_line(walk), "started")],
    State.ANSWERING: [
        lambda _: answer(),
        lambda _: answer("max_tokens"),
        lambda walk: calls(f"toolu{len(walk.seen)}"),
        lambda _: cli.requesting() + cli.opening(),
        lambda _: cli.result("API Error: 529", is_error=True, api_error_status=529),
    ],
    State.CUT: [lambda _: limits(), lambda _: cli.requesting(), lambda _: tools_call()],
    State.AWAITING_RESULT: [lambda _: cli.result("a")],
    State.QUEUED: [lambda _: cli.result("a")],
}
STRAY: list[Printed] = [
    lambda _: answer(),
    lambda _: tools_call(),
    lambda _: cli.requesting(),
    lambda _: cli.event("message_stop"),
    lambda _: limits(),
    lambda _: cli.result("a"),
    lambda _: cli.result("no", is_error=True),
    lambda _: cli.line({"type": "command_lifecycle", "state": "completed"}),
    lambda _: cli.response("unheard of"),
    lambda _: cli.ready(),
    lambda _: cli.line({"type": "control_response", "response": {"subtype": "success"}}),
    lambda _: cli.mcp_request("m", {"method": "notifications/cancelled"}),
    lambda walk: cli.completed(last_line(walk)),
    lambda walk: cli.cancelled(last_line(walk)),
]
ANSWERS = ["done"] * 12 + ["refused", "unknown", "partly"]


def walk_on(walk: Walk, chance: Random) -> None:
    """One step, as a rule one that leads on."""
    state = walk.scene.state
    if walk.rewind is not None and chance.random() < 0.6:
        walk.hears_of_its_rewind(chance.choice(ANSWERS))
    elif state in USUAL and chance.random() < 0.6:
        walk.hears(chance.choice(USUAL[state])(walk))
    elif state is State.PARKED and chance.random() < 0.4:
        walk.returns()
    elif chance.random() < 0.4:
        walk.opens(chance)
    elif chance.random() < 0.4:
        walk.hears(chance.choice(STRAY)(walk))
    elif chance.random() < 0.2:
        walk.returns()
    elif chance.random() < 0.9:
        walk.gives_up()
    elif chance.random() < 0.7:
        walk.overdue()
    else:
        walk.ends()


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**32), st.sampled_from([True, True, True, False]))
def test_a_walk(seed: int, rewinds: bool) -> None:
    walk, chance = Walk(rewinds), Random(seed)
    for _ in range(60):
        walk_on(walk, chance)
        if walk.scene.state is State.DEAD:
            break
    walk.ends()


def test_walks_go_everywhere() -> None:
    taken: set[tuple[State, Step]] = set()
    for seed in range(300):
        walk, chance = Walk(rewinds=True), Random(seed)
        for _ in range(60):
            walk_on(walk, chance)
        taken.update(walk.scene.steps)
    assert taken >= {row for row in TRANSITIONS if row[1] is not Step.END}


def test_a_walk_would_see_a_line_behind_an_unanswered_rewind() -> None:
    walk = Walk(rewinds=True)
    walk.rewind = {"request_id": "r"}
    with pytest.raises(AssertionError, match="unanswered"):
        walk.wrote({"type": "user", "uuid": "u", "message": {"content": [{"type": "text"}]}})
