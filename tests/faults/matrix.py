"""The fault matrix: what each fault's test says of itself, and how a daemon is asked about it.

``docs/faults.rst`` is written from this; see ``test_faults_table.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import treq
from attrs import frozen
from harness import Daemon, until

from claudeproxy.cli.process import CLIProcess


@frozen
class Fault:
    """``of``: what is at fault (CLI, client, machine); ``name``: what it does; ``seen``: what is
    observed."""

    of: str
    name: str
    seen: str


FAULTS: list[Fault] = []
"""Every fault of the test modules imported so far."""


def note(of: str, name: str, seen: str) -> None:
    """Add a row to the table."""
    assert not any((fault.of, fault.name) == (of, name) for fault in FAULTS), name
    FAULTS.append(Fault(of, name, seen))


def fault(of: str, name: str, seen: str) -> Callable[[Any], Any]:
    """Decorates the test of one fault."""
    note(of, name, seen)
    return lambda test: test


def cases(of: str, *rows: tuple[Any, ...]) -> Callable[[Any], Any]:
    """Decorates the test of many: each row is a name, what is seen, and the test's arguments."""
    for name, seen, *_ in rows:
        note(of, name, seen)
    parameters = [pytest.param(row[2:], id=row[0].replace(" ", "-")) for row in rows]
    return pytest.mark.parametrize("case", parameters)


@frozen
class Reply:
    """A reply, read to its end: ``error`` is that of a body or of an error event, if any;
    ``whole``: a stream ended with its ``[DONE]``."""

    status: int
    error: Any
    text: str
    whole: bool


async def ask(daemon: Daemon, asked: Any, *, stream: bool = False, **fields: Any) -> Reply:
    """One chat completion; ``asked`` is a text, or all messages."""
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    body = {"model": "sonnet", "messages": messages, "stream": stream, **fields}
    return await read(await daemon.post("/v1/chat/completions", body))


async def read(response: Any) -> Reply:
    """The reply that a response comes to."""
    body = await treq.text_content(response)
    if not response.headers.getRawHeaders("content-type", [""])[0].startswith("text/event-stream"):
        value = json.loads(body)
        choices = value.get("choices")
        text = choices[0]["message"]["content"] if choices else ""
        return Reply(response.code, value.get("error"), text, bool(choices))
    events = [line[6:] for line in body.split("\n") if line.startswith("data: ")]
    values = [json.loads(event) for event in events if event != "[DONE]"]
    text = "".join(
        choice["delta"].get("content") or ""
        for value in values
        for choice in value.get("choices", ())
    )
    error = next((value["error"] for value in values if "error" in value), None)
    return Reply(response.code, error, text, events[-1:] == ["[DONE]"])


async def all_is_well(daemon: Daemon, rewound: CLIProcess | None = None) -> None:
    """No slot is taken, the next request is answered, and no process is left but those at rest.

    ``rewound``: the process that was at fault, which has to be the one that answers. Nothing is
    kept afterwards, so that a test can count what it keeps itself.
    """
    engine = daemon.api.engine
    await until(lambda: engine.admission.running == 0)
    turns = rewound.turns if rewound else 0
    reply = await ask(daemon, "still there?")
    assert (reply.status, reply.text) == (200, "You said: still there?"), reply
    if rewound is not None:
        assert (rewound.turns, rewound.killed) == (turns + 1, False)
        assert rewound in engine.processes
    old = set(engine.processes)
    engine.renew()
    await until(lambda: not old & engine.processes)
    await until(lambda: len(engine.processes) == at_rest(daemon))


def at_rest(daemon: Daemon) -> int:
    """Processes that are unused, start up or hold something."""
    keeper = daemon.api.engine.keeper
    return keeper.unused + keeper.starting + keeper.holding


def at_work(daemon: Daemon) -> CLIProcess | None:
    """The process that has been given a turn since nothing was kept; ``None`` where it has
    ended."""
    used = [process for process in daemon.api.engine.processes if process.turns]
    assert len(used) <= 1
    return used[0] if used else None
