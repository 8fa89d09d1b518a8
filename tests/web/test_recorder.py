"""What ``--record`` writes: the exchange as it was, for its owner alone, and never a key."""

from __future__ import annotations

import base64
import json
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import Daemon, until
from machine import begun, said
from pytest_twisted import ensureDeferred
from test_access_log import raw
from test_wire import ASKS, CHAT, STREAMS, Client
from twisted.logger import globalLogPublisher

from claudeproxy.options import ConfigError
from claudeproxy.state import StateError, recordings
from claudeproxy.testing import fake_cli
from claudeproxy.testing import transcripts as cli

SECRETS = {
    "authorization": "Bearer SECRET1", "cookie": "a=SECRET2", "x-goog-api-key": "SECRET3",
    "x-auth-token": "SECRET4", "proxy-authorization": "SECRET5",
}  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def data(event: dict[str, Any]) -> bytes:
    return base64.b64decode(event["base64"]) if "base64" in event else event["text"].encode()


def sent(events: list[dict[str, Any]]) -> bytes:
    return b"".join(data(event) for event in events if event["event"] == "write")


@contextmanager
def warnings() -> Iterator[list[str]]:
    """What the recorder has to say meanwhile."""
    found: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_namespace", "").startswith("claudeproxy.web.recorder"):
            found.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


# -- on a clock --


def test_a_stream_as_it_happens(tmp_path: Path) -> None:
    client = Client(begun("Good ", "day"), record=tmp_path)
    client.post(STREAMS, f"{CHAT}?a=b", user_agent="curl/8", **SECRETS)
    reply = client.reply()
    (path,) = tmp_path.iterdir()
    request, body, head, *writes = lines(path)
    assert path.name.endswith(f"Z-{reply.headers['x-request-id']}.jsonl")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert request.pop("time") > 1e9
    headers = {name.lower(): value for name, value in request.pop("headers")}
    assert request == {
        "event": "request", "format": 1, "request_id": reply.headers["x-request-id"],
        "line": f"POST {CHAT}?a=b HTTP/1.1",
    }  # fmt: skip
    assert {headers[name] for name in SECRETS} == {"(left out)"}
    assert (headers["user-agent"], headers["host"]) == ("curl/8", "localhost")
    assert body == {"event": "body", "text": json.dumps(STREAMS)}
    assert (head["event"], head["status"]) == ("reply", 200)
    assert ["X-Accel-Buffering", "no"] in head["headers"]
    assert sent(writes) == reply.body, "so far"
    assert {event["event"] for event in writes} == {"write"}
    client.machine.run(2)
    client.busy.say(cli.closing())
    client.machine.run()
    events = lines(path)
    assert sent(events) == reply.body + client.more()
    assert events[-1] == {"event": "end", "ms": 2000.0}
    times = [event["ms"] for event in events[2:]]
    assert times == sorted(times) and times[0] < 2000
    assert b"SECRET" not in path.read_bytes()


def test_a_whole_answer_and_the_next_on_the_connection(tmp_path: Path) -> None:
    client = Client(said("a"), record=tmp_path)
    client.post(ASKS)
    first = client.reply()
    client.machine.script.append(said("b"))
    client.post({**ASKS, "model": "haiku"})
    second = client.reply()
    assert client.get("/v1/models").status == 200
    by_id = {path.stem.partition("-")[2]: lines(path) for path in tmp_path.iterdir()}
    assert len(by_id) == 2, "and none for a GET"
    for reply in (first, second):
        events = by_id[reply.headers["x-request-id"]]
        assert [event["event"] for event in events] == ["request", "body", "reply", "write", "end"]
        assert sent(events) == reply.body


@pytest.mark.parametrize("body", [b'{"a": "\xff\x00"}', b"", '{"ü": "\u2028\\ud800"'.encode()])
def test_a_body_that_is_refused_is_word_for_word(tmp_path: Path, body: bytes) -> None:
    client = Client(record=tmp_path)
    client.post(body)
    assert client.reply().status == 400
    (path,) = tmp_path.iterdir()
    events = lines(path)
    assert data(events[1]) == body and events[2]["status"] == 400


def test_a_client_that_leaves(tmp_path: Path) -> None:
    client = Client(begun("a"), record=tmp_path)
    client.post(STREAMS)
    client.machine.run(1)
    client.channel.connectionLost()
    client.machine.run()
    (path,) = tmp_path.iterdir()
    assert lines(path)[-1] == {"event": "client left", "ms": 1000.0}


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """What a full disk does to whoever writes: the rest of a write fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.alone
@pytest.mark.parametrize("room", [0, 300, 900])
def test_a_full_disk_harms_no_turn(tmp_path: Path, room: int) -> None:
    client = Client(begun("Good ", "day"), record=tmp_path)
    with warnings() as found, no_file_longer_than(room):
        client.post(STREAMS)
        reply = client.reply()
        client.busy.say(cli.closing())
        rest = client.more()
    assert reply.status == 200 and b"Good " in reply.body and rest.endswith(b"[DONE]\n\n")
    (path,) = tmp_path.iterdir()
    assert found == [f"{path} is not recorded on: File too large"]
    assert path.stat().st_size == room
    client.post(b"{")
    assert client.reply().status == 400
    assert len(list(tmp_path.iterdir())) == 2, "the next one is recorded again"


def test_a_directory_that_is_gone_harms_no_turn(tmp_path: Path) -> None:
    client = Client(said("a"), record=tmp_path / "gone")
    with warnings() as found:
        client.post(ASKS)
    assert client.reply().status == 200
    (line,) = found
    assert line.endswith(".jsonl is not recorded on: No such file or directory")


# -- the directory --


def test_a_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    made = recordings(str(tmp_path / "a" / "b"))
    assert made == tmp_path / "a" / "b" and stat.S_IMODE(made.stat().st_mode) == 0o700
    assert recordings(str(made)) == made, "and taken as it is the next time"


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for mode in (0o750, 0o705, 0o711):
        tmp_path.chmod(mode)
        with pytest.raises(StateError, match="is open to others: chmod 700"):
            recordings(str(tmp_path))
    tmp_path.chmod(0o700)
    with pytest.raises(StateError, match="belongs to another user"):
        recordings(str(tmp_path), owner=tmp_path.stat().st_uid + 1)
    with pytest.raises(StateError, match=r"cannot make .*file"):
        recordings(str(tmp_path / "file"))


# -- a daemon --


@ensureDeferred
async def test_a_daemon_that_records_and_says_so(make_daemon: Any, tmp_path: Path) -> None:
    keys, folder = tmp_path / "keys", tmp_path / "recorded"
    keys.write_text("SECRET1\n")
    keys.chmod(0o600)
    told: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if "RECORDING" in (event.get("log_format") or ""):
            told.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    daemon: Daemon = await make_daemon(
        claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys), record=str(folder)
    )
    globalLogPublisher.removeObserver(observe)
    assert told == [f"RECORDING: every prompt and every answer is written to {folder} (--record)"]
    key = {"authorization": "Bearer SECRET1"}
    health = await treq.json_content(await treq.get(daemon.url + "/health", headers=key))
    assert health["recording"] is True
    for body in (ASKS, STREAMS):
        reply = await daemon.post(CHAT, {**body, "model": "haiku"}, **key)
        content = await treq.content(reply)
        (ident,) = reply.headers.getRawHeaders("x-request-id")
        (path,) = folder.glob(f"*-{ident}.jsonl")
        await until(lambda path=path: b'"end"' in path.read_bytes())
        assert sent(lines(path)) == content and b"SECRET" not in path.read_bytes()
    # What the gate refuses is not let in here either: its body is not even read.
    await treq.content(await daemon.post(CHAT, ASKS, authorization="Bearer SECRET2"))
    client = await raw(daemon, b"POST /v1/messages HTTP/1.1\r\nSECRET\r\n\r\n")
    await until(lambda: len(daemon.api.site.refused.latest()) == 2)
    client.transport.loseConnection()  # type: ignore[union-attr]
    assert len(list(folder.iterdir())) == 2


@ensureDeferred
async def test_a_daemon_that_does_not_record(make_daemon: Any, tmp_path: Path) -> None:
    daemon: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    before = set(tmp_path.rglob("*.jsonl"))
    await treq.content(await daemon.post(CHAT, {**ASKS, "model": "haiku"}))
    health = await treq.json_content(await treq.get(daemon.url + "/health"))
    assert health["recording"] is False
    assert set(tmp_path.rglob("*.jsonl")) == before == set()


@ensureDeferred
async def test_a_daemon_that_may_not_record_there(make_daemon: Any, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(ConfigError) as refused:
        await make_daemon(claude=fake_cli(tmp_path / "cli"), record=str(folder))
    assert str(refused.value) == f"--record: {folder} is open to others: chmod 700 {folder}"
