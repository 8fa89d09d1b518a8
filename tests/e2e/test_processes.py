"""The processes behind the turns: warm, replaced, renewed, gone at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import treq
from harness import in_thread, newest_cli, until
from pytest_twisted import ensureDeferred

HELLO = [{"role": "user", "content": "Hello"}]


@ensureDeferred
async def test_a_waiting_process_that_dies_is_replaced(make_daemon: Any) -> None:
    daemon = await make_daemon(warm=1)
    pool = daemon.api.engine.pool
    await until(lambda: pool.warm)
    (process,) = daemon.api.engine.processes
    process.kill()
    await process.ended
    answer = await daemon.chat(HELLO)
    assert answer["choices"][0]["message"]["content"] == "You said: Hello"
    await until(lambda: pool.warm)


@ensureDeferred
async def test_a_client_that_leaves_ends_its_turn(make_daemon: Any) -> None:
    daemon = await make_daemon(keep=0)
    body = {
        "model": "sonnet",
        "messages": [{"role": "user", "content": "[[pause 0.05]][[repeat 1000 word]]"}],
        "stream": True,
    }
    engine = daemon.api.engine
    client = HTTPConnection(daemon.url.removeprefix("http://"))

    def begin() -> None:
        headers = {"content-type": "application/json"}
        client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        client.getresponse().read(200)

    await in_thread(begin)
    (busy,) = [process for process in engine.processes if process.listener]
    client.close()
    await until(lambda: engine.admission.running == 0, 2)
    await until(lambda: busy not in engine.processes, 2)
    assert len(daemon.turns()) == 1


@ensureDeferred
async def test_a_usual_set_up_is_primed_and_leaves_no_trace(make_daemon: Any) -> None:
    daemon = await make_daemon(warm=2, keep=0)
    asked = [{"role": "system", "content": "Be brief."}, *HELLO]
    await daemon.chat(asked)
    first = daemon.body()
    await daemon.chat(asked)
    processes = daemon.api.engine.processes
    await until(lambda: any(process.setup for process in processes))
    await until(lambda: daemon.api.engine.pool.warm == 2)
    for _ in range(3):
        await daemon.chat(asked)
        assert daemon.body()["messages"] == first["messages"]
        assert daemon.body()["system"][1:] == first["system"][1:]
    await daemon.chat([{"role": "system", "content": "Be verbose."}, *HELLO])
    assert daemon.body()["system"][-1]["text"] == "Be verbose."


@ensureDeferred
async def test_an_updated_cli_is_noticed(make_daemon: Any, tmp_path: Path) -> None:
    claude = tmp_path / "claude"
    claude.symlink_to(newest_cli())
    daemon = await make_daemon(claude=str(claude))
    cli, engine = daemon.api.cli, daemon.api.engine
    await until(lambda: engine.pool.warm)
    before = set(engine.processes)
    assert await cli.changed() is False
    claude.unlink()
    claude.write_text("#!/bin/sh\necho '2.1.100 (Claude Code)'\n")
    claude.chmod(0o700)
    assert await cli.changed() is True
    engine.renew()
    await until(lambda: not before & engine.processes)
    response = await daemon.post("/v1/chat/completions", {"model": "opus", "messages": HELLO})
    error = (await treq.json_content(response))["error"]
    assert (response.code, "claude update" in error["message"]) == (503, True)
    claude.unlink()
    response = await daemon.post("/v1/chat/completions", {"model": "opus", "messages": HELLO})
    assert response.code == 503
    await treq.content(response)
    shutil.copy2(newest_cli(), claude)
    assert await cli.changed() is True
    await until(lambda: engine.pool.warm, 30)
    answer = await daemon.chat(HELLO)
    assert "choices" in answer


@ensureDeferred
async def test_every_process_is_a_group_in_the_one_empty_directory(daemon: Any) -> None:
    await until(lambda: daemon.api.engine.pool.warm)
    for process in daemon.api.engine.processes:
        pid = process.transport.pid
        assert os.getpgid(pid) == pid
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (core,) = [line.split()[4:6] for line in limits if line.startswith("Max core file size")]
        assert core == ["0", "0"]
        directory = Path(os.readlink(f"/proc/{pid}/cwd"))
        assert directory == daemon.home / ".local/state/claudemax/empty"
        assert not list(directory.iterdir())
        assert directory.stat().st_mode & 0o777 == 0o700


@ensureDeferred
async def test_a_kept_process_that_is_killed_is_not_missed(make_daemon: Any) -> None:
    daemon = await make_daemon()
    answer = await daemon.chat(HELLO)
    conversations = daemon.api.engine.conversations
    assert len(conversations) == 1
    for process in list(daemon.api.engine.processes):
        os.killpg(process.transport.pid, signal.SIGKILL)
    await until(lambda: len(conversations) == 0)
    asked = [*HELLO, answer["choices"][0]["message"], {"role": "user", "content": "again"}]
    answer = await daemon.chat(asked)
    assert answer["choices"][0]["message"]["content"] == "You said: again"
