"""Rewinding a CLI, and comparing what it then sends with what a fresh one sends."""

import json
import re

import attrs
from driver import OLD, flags, serving, tool, user

from claudeproxy.cli.settings import RELEASE

SETTINGS = flags(
    model=OLD,
    effortLevel=None,
    env={"CLAUDE_CODE_EXTRA_BODY": "{}", "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "", **RELEASE},
)
"""All that a turn may have changed, back to what it was."""

_CHANGING = re.compile(r"(cc_version=\d+\.\d+\.\d+\.|cch=|cc_prompt_id=|cc_prev_req=)[\w-]+")
"""What the billing line makes up for each request, or takes from the first user text."""


async def begin(stage):
    """A process that is set up for a conversation."""
    made = await stage()
    await made.begin("Be brief.", **serving(tool()))
    made.cli.send(SETTINGS)
    return made


async def rewind(made, target, last=None, **fields):
    """The answer; ``target`` and ``last`` are user lines: where to cut, and the last one sent."""
    if last is not None:
        fields["last_seen_user_message_uuid"] = last["uuid"]
    fields = {"target_message_uuid": target["uuid"], "interrupt_if_running": True, **fields}
    return (await made.cli.ask("rewind_conversation", **fields))["response"]


async def a_turn(made):
    """Its first user line, and its last."""
    line = user("One")
    await made.turn(line)
    return line, line


async def several_turns(made):
    """The first user line, and the last."""
    first, _ = await a_turn(made)
    _, last = await a_turn(made)
    return first, last


async def blank(made):
    """A blank line, taken in."""
    line = user(query=False)
    await made.history(line)
    return line


def comparable(made, body):
    """A body without what differs between any two processes."""
    sent = json.dumps({**body, "metadata": None}).replace(str(made.folder), "")
    return json.loads(_CHANGING.sub(r"\1", sent))


@attrs.frozen
class Probe:
    """The first two turns of a conversation."""

    lines: list
    turns: list
    bodies: list


async def probe(made):
    """Begin a conversation, on a process that holds none."""
    lines = [user("Hi"), user("[[think hm]][[say ok]]")]
    turns = [await made.turn(line, before=[SETTINGS]) for line in lines]
    return Probe(lines, turns, [comparable(made, turn.body) for turn in turns])


def behind(made, answer):
    """The types of the lines behind a rewind's answer, up to where the next user line is queued."""
    lines = iter(made.cli.lines)
    for line in lines:
        if line["type"] == "control_response" and line["response"].get("response") is answer:
            break
    found = []
    for line in lines:
        if line["type"] == "command_lifecycle" and line["state"] == "queued":
            break
        found.append(line["type"])
    return found
