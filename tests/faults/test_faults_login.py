"""Faults of a login, over the real CLI in front of a rehearsed subscription."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import Daemon, in_thread, newest_cli, until
from matrix import ask, cases, fault
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred as run
from twisted.logger import capturedLogs

from claudeproxy.rehearsal.account import Account
from claudeproxy.rehearsal.home import login_in, put_login
from claudeproxy.rehearsal.proxy import Rehearsal, rehearse
from claudeproxy.rehearsal.subscription import Subscription

RENEWAL = 8.0
"""Seconds a renewal takes here."""


async def logged_in(make_daemon: Any, **changes: Any) -> Daemon:
    """A daemon that has answered a turn, and knows what the plan says."""
    daemon: Daemon = await make_daemon(mode="subscription", **changes)
    assert (await ask(daemon, "x")).status == 200
    return daemon


def behind(daemon: Daemon) -> Subscription:
    assert daemon.subscription is not None
    return daemon.subscription


def account(daemon: Daemon) -> Account:
    return behind(daemon).account


def expire(daemon: Daemon) -> None:
    """The next turn has to renew the login, which takes its time."""
    account(daemon).renewal_seconds = RENEWAL
    put_login(daemon.home, account(daemon).log_in(-5))


async def renewing(daemon: Daemon) -> None:
    await until(lambda: behind(daemon).renewing)


def login_lives(daemon: Daemon) -> bool:
    """Whether the refresh token on disk is the new one."""
    kept = login_in(daemon.home)
    return bool(kept and kept["refreshToken"]) and account(daemon).knows(kept["refreshToken"])


def begin(daemon: Daemon, text: str) -> HTTPConnection:
    """A request whose answer nobody waits for yet."""
    client = HTTPConnection(daemon.url.removeprefix("http://"))
    body = {"model": "opus", "stream": True, "messages": [{"role": "user", "content": text}]}
    headers = {"content-type": "application/json"}
    client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return client


async def health(daemon: Daemon) -> Any:
    return await treq.json_content(await treq.get(daemon.url + "/health"))


@fault("login", "is renewed for 8 seconds while its client leaves",
       "nothing is asked, the new login is kept; the same process serves the next")  # fmt: skip
@ensureDeferred
async def test_a_client_leaves_in_a_renewal(make_daemon: Any) -> None:
    daemon = await logged_in(make_daemon, processes=1)
    (only,) = daemon.api.engine.processes
    asked = len(daemon.turns())
    expire(daemon)
    client = await in_thread(begin, daemon, "left")
    await renewing(daemon)
    client.close()
    await until(lambda: daemon.api.engine.admission.running == 0)
    assert behind(daemon).renewing
    assert (await ask(daemon, "y")).status == 200
    assert (login_lives(daemon), behind(daemon).renewals) == (True, 1)
    assert len(daemon.turns()) == asked + 1
    assert (daemon.api.engine.processes, only.turns, only.killed) == ({only}, 3, False)


@fault("login", "is renewed for 8 seconds, longer than the first-token deadline",
       "504; the new login is kept, and the same process serves the next turn")  # fmt: skip
@ensureDeferred
async def test_a_deadline_in_a_renewal(make_daemon: Any) -> None:
    daemon = await logged_in(make_daemon, first_token_timeout=3.0, processes=1)
    (only,) = daemon.api.engine.processes
    expire(daemon)
    assert (await ask(daemon, "y")).status == 504
    await until(lambda: not behind(daemon).renewing, RENEWAL + 10)
    await daemon.at_rest()
    assert (await ask(daemon, "y")).status == 200
    assert (login_lives(daemon), behind(daemon).renewals) == (True, 1)
    assert (daemon.api.engine.processes, only.turns, only.killed) == ({only}, 3, False)


@fault("login", "is renewed for 8 seconds while the daemon stops with --drain 0",
       "the turn gets 503 at once; the daemon ends when the new login is kept")  # fmt: skip
@ensureDeferred
async def test_the_daemon_stops_in_a_renewal(make_daemon: Any) -> None:
    daemon = await logged_in(make_daemon, drain=0.0)
    expire(daemon)
    turn = run(ask(daemon, "y"))
    await renewing(daemon)
    with capturedLogs() as told:
        stopped = daemon.api.stopService()
        daemon.api.hurry()  # a second Ctrl-C
        await stopped
    assert any("renewing your login" in event["log_format"] for event in told)
    assert (await turn).status == 503
    assert not behind(daemon).renewing
    assert login_lives(daemon)
    daemon.api.startService()  # for the fixture, which stops it


@fault("login", "is renewed as a CLI starts, while the daemon stops",
       "the daemon ends when the new login is kept")  # fmt: skip
@ensureDeferred
async def test_the_daemon_stops_as_a_start_renews(make_daemon: Any) -> None:
    daemon = await make_daemon(mode="subscription", processes=1)
    account(daemon).renewal_seconds = RENEWAL
    engine = daemon.api.engine
    await until(lambda: engine.quota.login.works and engine.keeper.unused)
    (first,) = engine.processes
    put_login(daemon.home, account(daemon).log_in(-5))
    first.stop()  # another takes its place
    await renewing(daemon)
    await daemon.api.stopService()
    assert not behind(daemon).renewing
    assert login_lives(daemon)
    daemon.api.startService()


def command(rehearsal: Rehearsal, home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """``claudemax`` of whoever is logged in in ``home``, where no daemon runs."""
    environ = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "CLAUDEMAX_PORT": f"unix:{home}/none",
        "CLAUDEMAX_CLAUDE": newest_cli(),
        **rehearsal.environment,
    }
    program = "from claudeproxy.command.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@fault("login", "is renewed while `claudemax doctor`, which asks for it, is interrupted",
       "it ends when the new login is kept")  # fmt: skip
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@ensureDeferred
async def test_doctor_is_interrupted_in_a_renewal(tmp_path: Path, number: signal.Signals) -> None:
    rehearsal = await rehearse(reactor, tmp_path)
    subscription = rehearsal.subscription
    subscription.account.renewal_seconds = 4.0  # a CLI whose stdin is closed waits for two
    put_login(tmp_path, subscription.account.log_in(-5))
    with command(rehearsal, tmp_path, "doctor") as doctor:
        await until(lambda: subscription.renewing, 30)
        doctor.send_signal(number)
        assert await in_thread(doctor.wait)
    await rehearsal.port.stopListening()
    kept = login_in(tmp_path)
    assert (subscription.account.knows(kept["refreshToken"]), subscription.renewals) == (True, 1)


@fault("login", "is renewed by a CLI of `claudemax try` as its terminal is closed",
       "it ends when the new login is kept")  # fmt: skip
@ensureDeferred
async def test_try_is_hung_up_in_a_renewal(tmp_path: Path) -> None:
    rehearsal = await rehearse(reactor, tmp_path)
    subscription = rehearsal.subscription
    put_login(tmp_path, subscription.account.log_in())
    with command(rehearsal, tmp_path, "try", "--yes") as trying:
        await until(lambda: subscription.messages.requests, 30)
        subscription.account.renewal_seconds = 4.0
        put_login(tmp_path, subscription.account.log_in(-5))  # the CLI is asked whose it is
        await until(lambda: subscription.renewing, 30)
        trying.send_signal(signal.SIGHUP)
        assert await in_thread(trying.wait)
    await rehearsal.port.stopListening()
    kept = login_in(tmp_path)
    assert (subscription.account.knows(kept["refreshToken"]), subscription.renewals) == (True, 1)


def used_up(daemon: Daemon) -> None:
    put_login(daemon.home, account(daemon).log_in(-5))
    account(daemon).renew(login_in(daemon.home)["refreshToken"])


def revoked(daemon: Daemon) -> None:
    account(daemon).revoke()


def unanswered(daemon: Daemon) -> None:
    put_login(daemon.home, account(daemon).log_in(-5))
    account(daemon).renewal_failure = 500


@pytest.mark.asks_again
@cases(
    "login",
    ("expires, and cannot be renewed",
     "401 with the command to type; health degraded; a new login is noticed within seconds",
     used_up, 401, "not_logged_in", "auth login"),
    ("is revoked", "401 with the command to type; a new login is noticed within seconds",
     revoked, 401, "not_logged_in", "auth login"),
    ("expires while the token host answers 500",
     "503 with retry-after; a new login is noticed within seconds",
     unanswered, 503, "login_not_renewed", "auth login"),
)  # fmt: skip
@ensureDeferred
async def test_a_login_dies(make_daemon: Any, case: Any) -> None:
    kill, status, code, words = case
    daemon = await logged_in(make_daemon)
    kill(daemon)
    reply = await ask(daemon, "y")
    assert (reply.status, reply.error["code"]) == (status, code)
    assert words in reply.error["message"]
    assert daemon.api.cli.executable in reply.error["message"]
    asked = len(daemon.turns())
    assert (await ask(daemon, "y")).status == status  # and it costs nothing
    assert len(daemon.turns()) == asked
    assert (await health(daemon))["status"] == "degraded"
    assert (await treq.get(daemon.url + "/health")).code == 503
    old = set(daemon.api.engine.processes)
    account(daemon).renewal_failure = None
    put_login(daemon.home, account(daemon).log_in())
    await until(lambda: not daemon.api.engine.quota.login.failing, 20)
    assert (await ask(daemon, "y")).status == 200
    await until(lambda: not old & daemon.api.engine.processes)
    assert (await health(daemon))["status"] == "ok"


@pytest.mark.asks_again
@fault("login", "is a token of claude setup-token that has expired",
       "401 that says to make a new one and to restart")  # fmt: skip
@ensureDeferred
async def test_a_token_expires(make_daemon: Any) -> None:
    daemon = await make_daemon(mode="subscription", environ={"CLAUDE_CODE_OAUTH_TOKEN": "none"})
    token = account(daemon).log_in(100, refreshable=False).access
    cli = daemon.api.cli
    cli.environment = {**cli.environment, "CLAUDE_CODE_OAUTH_TOKEN": token}
    daemon.api.engine.renew()
    assert (await ask(daemon, "x")).status == 200
    account(daemon).expire(token)
    reply = await ask(daemon, "x")
    assert (reply.status, reply.error["code"]) == (401, "not_logged_in")
    assert "setup-token" in reply.error["message"] and "restart" in reply.error["message"]


@fault("login", "is somebody else's all at once",
       "the old account's windows are forgotten, its processes replaced")  # fmt: skip
@ensureDeferred
async def test_another_account(make_daemon: Any) -> None:
    daemon = await logged_in(make_daemon)
    quota = daemon.api.engine.quota
    await until(lambda: quota.windows.known and quota.login.account)
    old = set(daemon.api.engine.processes)
    account(daemon).email = "other@example.invalid"
    for _ in range(5):  # a CLI that starts just now writes down whose login it has found
        put_login(daemon.home, account(daemon).log_in(), account(daemon).email)
        with suppress(AssertionError):
            await until(lambda: not quota.windows.known, 5)
            break
    assert not quota.windows.known
    await until(lambda: not old & daemon.api.engine.processes)
    assert (await ask(daemon, "x")).status == 200
