"""A CLI that costs nothing: it prints lines of the real one's shape, without thinking.

The last two words of a user text order the answer: how many deltas, and the seconds between two
(``500 0.02``; ``1 hold`` leaves the stream open after them). Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

WORD = "token "
_MODELS = [{"value": "sonnet", "resolvedModel": "claude-sonnet-5-5", "displayName": "Sonnet"}]
_SESSION = "4e6e8c21-7417-4248-9609-70e0517b6bdf"


def _line(**value: Any) -> bytes:
    common = {"session_id": _SESSION, "uuid": "1e7baded-b90c-4285-94c1-a18725fd6874"}
    return json.dumps({**value, **common}, separators=(",", ":")).encode() + b"\n"


def _event(kind: str, **rest: Any) -> bytes:
    return _line(
        type="stream_event",
        event={"type": kind, **rest},
        parent_tool_use_id=None,
        api_message_id="msg_01XFDUDYJgAACzvnptvVoYEL",
    )


_USAGE = {"input_tokens": 12, "output_tokens": 1}
_DELTA = _event("content_block_delta", index=0, delta={"type": "text_delta", "text": WORD})
_MESSAGE = {"id": "msg_1", "role": "assistant", "model": "claude-sonnet-5-5", "usage": _USAGE}
_START = _event("message_start", message=_MESSAGE) + _event(
    "content_block_start", index=0, content_block={"type": "text", "text": ""}
)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _answer(count: int, pause: str) -> None:
    if pause == "0":
        _write(_START + _DELTA)
        for _ in range((count - 1) // 500):
            _write(_DELTA * 500)
        _write(_DELTA * ((count - 1) % 500))
    else:
        _write(_START)
        begun = time.monotonic()
        for number in range(count):
            _write(_DELTA)
            if pause == "hold":
                return
            time.sleep(max(0, begun + (number + 1) * float(pause) - time.monotonic()))
    content = [{"type": "text", "text": WORD * count}]
    _write(
        _line(type="assistant", message={**_MESSAGE, "content": content})
        + _event("content_block_stop", index=0)
        + _event("message_delta", delta={"stop_reason": "end_turn"}, usage=_USAGE)
        + _event("message_stop")
        + _line(type="result", subtype="success", is_error=False, result=WORD * count)
    )


def _respond(request: Any, **response: Any) -> None:
    answer = {"subtype": "success", "request_id": request["request_id"], "response": response}
    _write(_line(type="control_response", response=answer))


def main() -> None:
    if sys.argv[1:2] == ["--version"]:
        print("2.1.330 (Claude Code)")
        return
    for said in iter(sys.stdin.buffer.readline, b""):
        line = json.loads(said)
        if line["type"] == "control_request":
            subtype = line["request"]["subtype"]
            if subtype in ("list_models", "initialize"):
                _respond(line, models=_MODELS)
        elif line["type"] == "user" and line.get("shouldQuery") is False:
            _write(_line(type="command_lifecycle", command_uuid=line["uuid"], state="completed"))
        elif line["type"] == "user":
            *_, count, pause = line["message"]["content"][-1]["text"].split()
            _answer(int(count), pause)


if __name__ == "__main__":
    main()
