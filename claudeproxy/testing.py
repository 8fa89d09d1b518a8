"""Public doubles for whoever embeds the daemon: a CLI that costs nothing, or misbehaves on order.

::

    claude = fake_cli(directory)                        # answers "You said: ..." at once
    claude = fake_cli(directory, deltas=200, pause=0.01)  # streams at a pace
    claude = fake_cli(directory, middle="exit")         # dies in mid-answer
    Settings(claude=claude, ...)

Calling :func:`fake_cli` again rewrites the plan, which every process reads when it starts and
with every line of stdin. An order in the last user text (``[[middle exit]]``) holds for that turn.

A fault is a *point* in the life of the process and what happens there. The points:

============ ===================================================================================
``start``    before it reads anything
``ready``    asked for its models, before it answers
``warm``     after that
``setup``    at ``initialize``, before its response
``flags``    at ``apply_flag_settings``
``history``  at a line of the history, before it is completed
``question`` asked for an answer, before that begins
``then``     as ``question``, but of the question after this one
``middle``   after its first delta
``stop``     after its last block, before the stop reason
``result``   after ``message_stop``
``kept``     after ``result``
``parked``   after ``tools/call``
``closed``   stdin is closed; as a rule it exits then
============ ===================================================================================

What can happen: the methods of :class:`claudeproxy._fake_cli.Faults`; an argument follows after a
space (``sleep 2``).

Other entries: ``version`` (the text ``--version`` prints), ``logged_in``, ``answer`` (the text),
``deltas`` (their number), ``size`` (characters of each after the first), ``pause`` (seconds
between two), ``cut`` (bytes a write), ``reason`` (stop reason), ``error`` (status of an error in
place of the answer), and in a text ``[[call NAME {json}]]``. ``journal`` beside the executable
has a line for each ``start``, ``turn`` and ``went on`` (what would be a request of its own).
"""

# The double imports this: the standard library only, so that it starts in 40 ms.
from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MODELS = [
    {"value": "default", "resolvedModel": "claude-opus-5-5", "displayName": "Default"},
    {"value": "opus", "resolvedModel": "claude-opus-5-5", "displayName": "Opus"},
    {"value": "sonnet", "resolvedModel": "claude-sonnet-5-5", "displayName": "Sonnet"},
    {"value": "haiku", "resolvedModel": "claude-haiku-5-5", "displayName": "Haiku"},
]
"""What the double says it offers."""


def fake_cli(directory: str | os.PathLike[str], **plan: Any) -> str:
    """An executable in ``directory`` that behaves as ``plan`` says; see the module."""
    folder = os.path.abspath(directory)
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/plan.new", "w") as file:
        json.dump(plan, file)
    os.replace(f"{folder}/plan.new", f"{folder}/plan.json")
    executable = f"{folder}/claude"
    if not os.path.exists(executable):
        with open(executable, "w") as file:
            file.write(f'#!/bin/sh\nexec {shlex.join(_program(folder))} "$@"\n')
        os.chmod(executable, 0o755)
    return executable


def _program(folder: str) -> list[str]:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    start = f"import sys; sys.path.append({root!r}); from claudeproxy._fake_cli import main; main()"
    return [sys.executable, "-IS", "-c", start, folder]


def journal(executable: str) -> list[str]:
    """What the processes of a double noted, in order."""
    try:
        with open(os.path.join(os.path.dirname(executable), "journal")) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


# -- transcripts: the lines of a good CLI, for tests that feed them to a session --


def line(value: Mapping[str, Any]) -> bytes:
    """One line of stdout."""
    return json.dumps(value).encode() + b"\n"


def event(kind: str, **fields: Any) -> bytes:
    """A line with one event of the Messages API's stream."""
    return line({"type": "stream_event", "event": {"type": kind, **fields}})


def response(request_id: str, **fields: Any) -> bytes:
    """A good answer to a control request."""
    answer = {"subtype": "success", "request_id": request_id, "response": fields}
    return line({"type": "control_response", "response": answer})


def ready(request_id: str = "ready") -> bytes:
    """The answer to ``list_models``."""
    return response(request_id, models=MODELS)


def completed(line_id: str) -> bytes:
    """What follows a line of the history."""
    return result() + line(
        {"type": "command_lifecycle", "command_uuid": line_id, "state": "completed"}
    )


def result(said: str = "", **fields: Any) -> bytes:
    """The line that ends a turn."""
    end = {"type": "result", "subtype": "success", "is_error": False, "result": said}
    return line({**end, **fields})


def opening() -> bytes:
    """``message_start``."""
    message = {"id": f"msg_{os.getpid()}", "model": "claude-fake", "usage": {"input_tokens": 7}}
    return event("message_start", message=message)


def text_block(parts: Sequence[str], index: int = 0) -> Iterator[bytes]:
    """A text block, line by line, with a delta for each of ``parts``."""
    block = {"type": "text", "text": ""}
    yield event("content_block_start", index=index, content_block=block)
    for part in parts:
        delta = {"type": "text_delta", "text": part}
        yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)


def call_block(call_id: str, name: str, arguments: str, index: int) -> Iterator[bytes]:
    """A tool call, line by line; ``arguments`` is JSON, or meant to be."""
    block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    yield event("content_block_start", index=index, content_block=block)
    delta = {"type": "input_json_delta", "partial_json": arguments}
    yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)


def closing(reason: str = "end_turn") -> bytes:
    """``message_delta``, which has the stop reason, and ``message_stop``."""
    delta = {"stop_reason": reason, "stop_sequence": None}
    return event("message_delta", delta=delta, usage={"output_tokens": 5}) + event("message_stop")


def transcript(text: str, reason: str = "end_turn") -> bytes:
    """All that a CLI prints for one good answer."""
    return opening() + b"".join(text_block([text])) + closing(reason) + result(text)
