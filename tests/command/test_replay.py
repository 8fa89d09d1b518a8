"""``claudemax replay``: what was recorded runs again, and is compared with what it was."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import Daemon, in_thread
from pytest_twisted import ensureDeferred
from shell import Command

from claudeproxy.command.places import Address
from claudeproxy.command.recording import Recording, Reply, read_recording
from claudeproxy.command.replay import _send, compare, events
from claudeproxy.command.running import Running

HELLO = {"model": "sonnet", "messages": [{"role": "user", "content": "Grüße\u2028 [[say a b]]"}]}
RESPONSE = {"model": "sonnet", "input": "Hello", "tools": [
    {"type": "function", "name": "look", "parameters": {"type": "object"}}]}  # fmt: skip
MESSAGE = {**HELLO, "max_tokens": 50, "stream": True}
INVALID = b'{"model": "\xff\xfe"}'

STREAM = "chat.completion.chunk, [DONE]"
MESSAGES = (
    "message_start, content_block_start, content_block_delta, content_block_stop, message_delta, "
    "message_stop"
)


def alike(text: str) -> str:
    """Without what differs every time: ids, times, and tokens that stand for the CLI's paths."""
    return re.sub(r"[0-9a-f]{24,}|\d+", "N", text)


@pytest.mark.cli
@ensureDeferred
async def test_what_was_recorded_runs_again(
    make_daemon: Any, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "recorded"
    daemon: Daemon = await make_daemon(mode="key", record=str(folder))
    for path, body, said in (
        ("/v1/chat/completions", {**HELLO, "stream": True}, f"status 200 and events: {STREAM}"),
        ("/v1/messages", MESSAGE, f"status 200 and events: {MESSAGES}"),
        ("/v1/responses", RESPONSE, "status 200 and type application/json"),
        ("/v1/responses", INVALID, "status 400 and type application/json"),
    ):
        reply = await daemon.post(path, body, **{"x-api-key": "SECRET"})
        content = await treq.text_content(reply)
        (ident,) = reply.headers.getRawHeaders("x-request-id")
        (file,) = folder.glob(f"*-{ident}.jsonl")
        ran = await in_thread(command.run, "replay", str(file))
        assert (ran.returncode, ran.stderr) == (0, f"same {said}\n")
        head, _, again = ran.stdout.partition("\n\n")
        assert head.startswith(f"HTTP/1.1 {reply.code} ") and "X-Request-Id: req_" in head
        assert alike(again) == alike(content)
    assert len(daemon.turns()) == 3, "a replay goes elsewhere"
    assert not list(command.home.rglob("*.sqlite*")), "and leaves nothing behind"
    changed = file.read_text().replace('"status": 400', '"status": 200')
    file.write_text(changed)
    ran = await in_thread(command.run, "replay", str(file))
    expected = "the status differs: 200 was recorded, now it is 400\n"
    assert (ran.returncode, ran.stderr) == (1, expected)


def recorded(**changes: Any) -> list[dict[str, Any]]:
    request = {
        "event": "request", "format": 1, "line": "POST /v1/messages?a=b HTTP/1.1",
        "headers": [["Host", "x"], ["X-Api-Key", "(left out)"], ["Content-Length", "3"],
                    ["Connection", "close"], ["A", "\u00fc"]], **changes,
    }  # fmt: skip
    return [
        request,
        {"event": "body", "base64": "//4A"},
        {"event": "reply", "ms": 1.0, "status": 200, "headers": [["Content-Type", "a/b"]]},
        {"event": "write", "ms": 1.0, "text": "x\u00fc"},
        {"event": "write", "ms": 1.0, "base64": "/w=="},
        {"event": "end", "ms": 2.0},
    ]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


RECORDED = Recording(
    "POST", "/v1/messages?a=b",
    [("Host", "x"), ("Content-Length", "3"), ("Connection", "close"), ("A", "\u00fc")],
    b"\xff\xfe\x00", Reply(200, [("Content-Type", "a/b")], b"x\xc3\xbc\xff"),
)  # fmt: skip


def test_a_recording_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", recorded())
    assert read_recording(path) == RECORDED
    with path.open("a") as file:
        file.write('{"event": "wri')  # the daemon was killed, or the disk was full
    assert read_recording(path) == RECORDED
    write(path, recorded()[:2])
    assert read_recording(path).reply is None


def test_it_is_sent_byte_for_byte() -> None:
    received = bytearray()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            while b"\xff\xfe\x00" not in received:
                received.extend(connection.recv(1000))
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=serve)
        serving.start()
        daemon = Running(Address("127.0.0.1", listening.getsockname()[1]))
        assert _send(daemon, RECORDED) == Reply(204, [], b"")
        serving.join()
    assert bytes(received) == (
        b"POST /v1/messages?a=b HTTP/1.1\r\nHost: x\r\nA: \xfc\r\nContent-Length: 3\r\n\r\n"
        b"\xff\xfe\x00"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n", b"x\n", b"[" * 100_000 + b"\n", b"\xff\xff\n\n", b"[]\n[]\n", b"1\n2\n",
        b'{"event": "request"}\n{"event": "body"}\n',
        json.dumps(recorded()[0]).encode(), json.dumps(recorded()[0]).encode() + b"\n",
        b"\n".join(json.dumps(line).encode() for line in recorded(format=2)) + b"\n",
        b"\n".join(json.dumps(line).encode() for line in recorded(headers=[1])) + b"\n",
        b"\n".join(json.dumps(line).encode() for line in recorded(line="GET")) + b"\n",
    ],
)  # fmt: skip
def test_what_is_no_recording(refused: Callable[..., str], tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert refused("replay", str(path)) == f"{path} is no recording that --record has made"


def test_what_cannot_be_read(refused: Callable[..., str], tmp_path: Path) -> None:
    assert refused("replay", str(tmp_path / "a")) == f"{tmp_path}/a: No such file or directory"
    assert refused("replay", str(tmp_path)) == f"{tmp_path}: Is a directory"


@pytest.mark.cli
def test_what_cannot_be_sent(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", recorded(line="POST /\x7f HTTP/1.1"))
    assert command.refusal("replay", str(path)).startswith(f"{path} cannot be sent: ")


def streamed(*blocks: str, status: int = 200) -> Reply:
    kind = [("Content-Type", "text/event-stream; charset=utf-8")]
    return Reply(status, kind, "".join(f"{block}\n\n" for block in blocks).encode())


A, B = "event: a\ndata: {}", "event: b\ndata: {}"
PLAIN = Reply(200, [("content-type", "application/json")], b"{}")


@pytest.mark.parametrize(
    ("before", "now", "same", "said"),
    [
        (None, PLAIN, False, "nothing to compare with: no reply was recorded; now it is 200"),
        (streamed(status=529), PLAIN, False,
         "the status differs: 529 was recorded, now it is 200"),
        (streamed(A), PLAIN, True,
         "same status 200; the type was 'text/event-stream; charset=utf-8', "
         "now it is 'application/json'"),
        (PLAIN, PLAIN, True, "same status 200 and type application/json"),
        (streamed(A, A, B), streamed(A, B), True, "same status 200 and events: a, b"),
        (streamed(A, B), streamed(B, A), True, "same status 200; event 1 was a, now it is b"),
        (streamed(A, B), streamed(A), True, "same status 200; b comes no more"),
        (streamed(A), streamed(A, B), True, "same status 200; b comes only now"),
    ],
)  # fmt: skip
def test_the_comparison(before: Reply | None, now: Reply, same: bool, said: str) -> None:
    assert compare(before, now) == (same, said)


def test_the_names_of_events() -> None:
    chunk, error = 'data: {"object": "chunk"}', 'data: {"error": {}}'
    stream = ": keep-alive\n\n" + "\n\n".join([chunk, chunk, A, error, "data: [", "data: [DONE]"])
    assert events(stream.encode()) == ["chunk", "a", "error", "data", "[DONE]"]
    assert events(b"") == []
