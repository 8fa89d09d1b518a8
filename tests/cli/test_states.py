"""The table of a process's life: each row by what a CLI prints, and nothing beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sessions import FLAGS, IN, Scene, answer, awaiting_result, calls, request, results

from claudeproxy.cli.setup import Setup
from claudeproxy.cli.states import AT_REST, IN_TURN, OWES, REWINDS, TRANSITIONS, State, Step, after
from claudeproxy.testing import transcripts as cli

S, T = State, Step


def opened(scene: Scene) -> Any:
    return scene.put("x", "a", "y", since=scene.points[-1])


def reopened(scene: Scene) -> Any:
    return scene.put("other")


def given_up(scene: Scene) -> Any:
    return scene.do(scene.give_up())


def queued_with_less() -> Scene:
    """Its next turn is another conversation's."""
    scene = awaiting_result()
    reopened(scene)
    return scene


WAYS: dict[tuple[State, Step], Callable[[Scene], Any]] = {
    (S.STARTING, T.STARTED): lambda scene: scene.hear(cli.ready()),
    (S.UNUSED, T.OPEN): opened,
    (S.IDLE, T.OPEN): opened,
    (S.IDLE, T.REOPEN): reopened,
    (S.PARKED, T.REOPEN): reopened,
    (S.REOPENING, T.REWOUND): lambda scene: scene.hear(scene.rewound),
    (S.AWAITING_RESULT, T.QUEUE): opened,
    (S.QUEUED, T.RESULT): lambda scene: scene.hear(cli.result("a")),
    (S.QUEUED, T.REOPEN): lambda scene: scene.hear(cli.result("a")),
    (S.REPLAYING, T.ASKED): lambda scene: scene.hear(scene.taken_in),
    (S.PARKED, T.ASKED): lambda scene: scene.do(scene.return_tool_results(results(), FLAGS)),
    (S.ASKED, T.BEGUN): lambda scene: scene.hear(scene.begun),
    (S.WITHDRAWN, T.BEGUN): lambda scene: scene.hear(scene.begun),
    (S.ANSWERING, T.ANSWERED): lambda scene: scene.hear(answer()),
    (S.ANSWERING, T.CALLED): lambda scene: scene.hear(calls()),
    (S.ANSWERING, T.OVERRAN): lambda scene: scene.hear(answer("refusal")),
    (S.AWAITING_RESULT, T.RESULT): lambda scene: scene.hear(cli.result("a")),
    (S.PREPARING, T.RESTED): lambda scene: scene.hear(scene.taken_in),
    (S.REWINDING, T.REWOUND): lambda scene: scene.hear(scene.rewound),
    **{(state, step): given_up for state, step in TRANSITIONS if step is T.GIVE_UP},
    **{(state, T.END): lambda scene: scene.do(scene.end()) for state in State},
}


def test_each_scene_is_in_its_state() -> None:
    assert IN.keys() == set(State)
    for state, make in IN.items():
        assert make().state is state


def test_every_row_has_its_way() -> None:
    assert WAYS.keys() == TRANSITIONS.keys()


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: f"{row[0].name}-{row[1].name}")
def test_a_row(row: tuple[State, Step]) -> None:
    scene = queued_with_less() if row == (S.QUEUED, T.REOPEN) else IN[row[0]]()
    scene.steps.clear()
    WAYS[row](scene)
    assert row in scene.steps
    for (state, step), following in zip(scene.steps, scene.steps[1:], strict=False):
        assert TRANSITIONS[state, step] is following[0]
    assert TRANSITIONS[scene.steps[-1]] is scene.state


@pytest.mark.parametrize("state", State)
def test_any_other_step_is_a_mistake(state: State) -> None:
    for step in Step:
        if (state, step) not in TRANSITIONS:
            with pytest.raises(ValueError, match=f"^{step.name} in {state.name}$"):
                after(state, step)


def test_no_state_is_a_trap() -> None:
    """Each is left by what the CLI says or a turn brings, besides its end."""
    for state in set(State) - {State.DEAD}:
        assert any(was is state and step is not Step.END for was, step in TRANSITIONS)
    assert {step for was, step in TRANSITIONS if was is State.DEAD} == {Step.END}


def test_the_kinds_of_states() -> None:
    assert not IN_TURN & AT_REST
    assert REWINDS < OWES and not OWES & AT_REST
    for state in IN_TURN:
        assert (state, Step.GIVE_UP) in TRANSITIONS


# -- what is asked of a session in the wrong state --

ASKED: dict[str, Callable[[Scene], Any]] = {
    "open": lambda scene: scene.put("x"),
    "go on": lambda scene: scene.put("x", "a", "y", since=2),
    "open beyond": lambda scene: scene.put(*"abcdefgh", since=7),
    "open below": lambda scene: scene.put("x", since=-1),
    "open with nothing": lambda scene: scene.open((), Setup.of(request("x")), FLAGS),
    "open another": lambda scene: scene.open(
        request("x").messages, Setup(("Be long.",)), FLAGS, scene.held
    ),
    "return": lambda scene: scene.return_tool_results(results(), FLAGS),
    "return another's": lambda scene: scene.return_tool_results(results("toolu2"), FLAGS),
    "return nothing": lambda scene: scene.return_tool_results((), FLAGS),
    "give up": lambda scene: scene.give_up(),
}
RIGHT = {
    "open": {S.UNUSED, S.IDLE, S.AWAITING_RESULT, S.PARKED},
    "go on": {S.IDLE, S.AWAITING_RESULT},
    "open another": {S.UNUSED},
    "return": {S.PARKED},
    "give up": {state for state, step in TRANSITIONS if step is T.GIVE_UP},
}


def looks(scene: Scene) -> Any:
    """All that is seen of it from outside."""
    told = (scene.setup, scene.request_sent, scene.in_turn, scene.awaits_billing)
    return scene.state, scene.held, scene.points, scene.calls, scene.unsent, told


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("what", ASKED)
def test_what_cannot_be_asked_raises_and_changes_nothing(state: State, what: str) -> None:
    scene = IN[state]()
    before, steps = looks(scene), list(scene.steps)
    if state in RIGHT.get(what, ()):
        ASKED[what](scene)
        assert scene.steps != steps
        return
    with pytest.raises(ValueError):
        ASKED[what](scene)
    assert (looks(scene), scene.steps) == (before, steps)


@pytest.mark.parametrize("state", [S.IDLE, S.AWAITING_RESULT])
def test_a_refused_turn_leaves_no_line_behind(state: State) -> None:
    """The next one is put as if it had been the first."""
    scene = IN[state]()
    with pytest.raises(ValueError):
        scene.put("x", "a", "never", since=1)
    scene.put("x", "a", "y", since=2)
    if state is S.AWAITING_RESULT:
        scene.hear(cli.result("a"))
    assert scene.state is State.ASKED
    assert [line["message"]["content"][0]["text"] for line in scene.lines] == ["x", "y"]
