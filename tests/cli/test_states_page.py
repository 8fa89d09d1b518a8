"""The states in ``docs/architecture.rst`` are the session's own table.

Write them anew with ``CLAUDEMAX_WRITE_DOCS=1 make test ARGS=tests/cli/test_states_page.py``.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from claudeproxy.cli.states import TRANSITIONS

PAGE = Path(__file__).parents[2] / "docs" / "architecture.rst"
BEGIN, END = ".. session states: begin\n", ".. session states: end\n"


def meanings(states: type[Enum]) -> dict[str, str]:
    """The sentence below each member of ``states`` in its source, by the member's name."""
    (definition,) = ast.parse(inspect.getsource(states)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for member, sentence in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(sentence, ast.Expr):
            (name,) = member.targets
            found[ast.unparse(name)] = " ".join(ast.literal_eval(sentence.value).split())
    return found


def table(transitions: Mapping[tuple[Enum, Enum], Enum]) -> str:
    """A row for each state, and in it what leads where. What does the same in every state stands
    below."""
    states = type(next(iter(transitions))[0])
    meaning = meanings(states)
    steps = dict.fromkeys(step for _, step in transitions)
    anywhere = {
        step: next(iter(ends))
        for step in steps
        if len(ends := {transitions.get((state, step)) for state in states}) == 1
    }
    lines = [
        ".. list-table::", "   :header-rows: 1", "   :widths: 15 40 45", "",
        "   * - State", "     - What it means", "     - What leads where",
    ]  # fmt: skip
    for state in states:
        lines += [f"   * - {state.value}", f"     - {meaning[state.name]}"]
        leads = [
            f"{step.value}: *{to.value}*"
            for (here, step), to in transitions.items()
            if here is state and step not in anywhere
        ]
        lines.append("     - | " + "\n       | ".join(leads) if leads else "     -")
    lines += ["", *(f"In any state: {s.value}: *{to.value}*." for s, to in anywhere.items() if to)]
    return "\n".join(lines).rstrip() + "\n"


class Light(Enum):
    RED = "red"
    """Nobody
    drives."""
    GREEN = "green"
    """Everybody drives."""
    OFF = "off"
    """It is broken."""


class Turned(Enum):
    ON = "a minute has passed"
    OFF = "the power is cut"


LIGHTS = """\
.. list-table::
   :header-rows: 1
   :widths: 15 40 45

   * - State
     - What it means
     - What leads where
   * - red
     - Nobody drives.
     - | a minute has passed: *green*
   * - green
     - Everybody drives.
     - | a minute has passed: *red*
   * - off
     - It is broken.
     -

In any state: the power is cut: *off*.
"""


def test_a_table_has_a_row_for_each_state_with_what_leads_where() -> None:
    transitions: dict[tuple[Enum, Enum], Enum] = {
        (Light.RED, Turned.ON): Light.GREEN,
        (Light.GREEN, Turned.ON): Light.RED,
        **{(state, Turned.OFF): Light.OFF for state in Light},
    }
    assert table(transitions) == LIGHTS


def test_the_page_is_what_the_code_says() -> None:
    text = PAGE.read_text()
    made = f"{BEGIN}\n{table(TRANSITIONS)}\n{END}"
    page = re.sub(f"{BEGIN}.*{END}", lambda _: made, text, flags=re.DOTALL)
    assert made in page
    if os.environ.get("CLAUDEMAX_WRITE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "run this test with CLAUDEMAX_WRITE_DOCS=1"
