"""The code of ``docs/python.rst`` that others are to take, run with stand-ins for their parts."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.defer import inlineCallbacks

from claudeproxy.client import ClaudeError, FakeClaude, Kind

PAGE = (Path(__file__).parents[2] / "docs" / "python.rst").read_text()
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"::\n\n((?: {4}.*\n|\n)+)", PAGE)]


def test_all_of_it_is_python() -> None:
    assert len(BLOCKS) == 9
    for block in BLOCKS:
        compile(f"async def f():\n{textwrap.indent(block, ' ')}\n pass", "python.rst", "exec")


def defined(name: str, fake: FakeClaude, errors: list[str]) -> Any:
    """What the block that defines the class ``name`` makes of it."""
    names: dict[str, Any] = {
        "inlineCallbacks": inlineCallbacks,
        "ClaudeError": ClaudeError,
        "over_http": lambda **_: fake,
        "CowrieConfig": SimpleNamespace(get=lambda section, option: "a key"),
        "settings": SimpleNamespace(),
        "log": SimpleNamespace(err=errors.append),
        "logger": SimpleNamespace(log_err=errors.append),
        "LLMNPC": object,
    }
    (block,) = [block for block in BLOCKS if f"class {name}" in block]
    exec(block, names)
    return names[name]


@ensureDeferred
async def test_cowrie_s_client() -> None:
    fake, errors = FakeClaude("root", Kind.PLAN_LIMIT), []
    client = defined("LLMClient", fake, errors)()
    said = ["You are a shell.", "User: whoami", "System: root", "User: id"]
    assert await client.get_response(said) == "root"
    assert fake.asked[0]["system"] == "You are a shell."
    assert [(one["role"], one["content"].strip()) for one in fake.asked[0]["messages"]] == [
        ("user", "whoami"),
        ("assistant", "root"),
        ("user", "id"),
    ]
    assert await client.get_response(said) == ""
    assert len(errors) == 1


@ensureDeferred
async def test_evennia_s_client() -> None:
    fake, errors = FakeClaude("Hail!", Kind.OVERLOADED), []
    npc = defined("ClaudeNPC", fake, errors)()
    assert await npc.llm_client.get_response("You are a guard.") == "Hail!"
    assert fake.asked[0]["messages"][0]["content"] == "You are a guard."
    assert await npc.llm_client.get_response("You are a guard.") == ""
    assert len(errors) == 1
