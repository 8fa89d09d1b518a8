"""``claudemax usage``: what stands on the screen, of a daemon with many turns and of others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, in_thread
from pytest_twisted import ensureDeferred
from shell import Command, Terminal
from twisted.internet.defer import gatherResults

from claudeproxy.ledger.prices import list_price
from claudeproxy.ledger.record import PAID, PLAN, TurnRecord
from claudeproxy.messages import Usage
from claudeproxy.testing import fake_cli

HAIKU = "claude-haiku-4-5-20251001"
HOSTILE = "[bold red]evil[/]\x1b]0;"


def port_of(daemon: Daemon) -> str:
    return str(daemon.port[0].getHost().port)


async def told(daemon: Daemon, command: Command, *arguments: str) -> str:
    """What is printed into a pipe."""
    ran = await in_thread(command.run, "usage", "--port", port_of(daemon), *arguments)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    return str(ran.stdout)


def turn(number: int, when: float, **more: Any) -> TurnRecord:
    fields: dict[str, Any] = {
        "dialect": "chat", "client": "curl", "model": "haiku", "answered_by": HAIKU,
        "usage": Usage(200_000, 15_000, 700_000, 100_000, 0, 0), "status": 200, "paid_by": PLAN,
        "placement": "warm",
    }  # fmt: skip
    fields |= more
    price = list_price(fields["answered_by"], fields["usage"])
    return TurnRecord(time=when, request_id=f"req_{number}", list_price=price, **fields)


async def add(daemon: Daemon, *records: TurnRecord) -> None:
    ledger: Any = daemon.api._ledger
    await gatherResults(list(map(ledger.add, records)))


@pytest.fixture
def used(make_daemon: Any, tmp_path: Path) -> Any:
    """``await used()``: a daemon that takes its upstream for a plan, and has a past."""

    async def make(**settings: Any) -> Daemon:
        daemon: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), **settings)
        quota, now = daemon.api.engine.quota, daemon.api.engine.now()
        quota.applies = True
        windows = {
            "five_hour": {"utilization": 0.5, "resetsAt": now + 4 * 3600},
            "seven_day": {"utilization": 0.5, "resetsAt": now + 5 * 86_400},
        }
        quota.hear({"overageStatus": "rejected", "unifiedWindows": windows})
        return daemon

    return make


@ensureDeferred
async def test_a_terminal_without_unicode(used: Any, command: Command) -> None:
    daemon = await used()
    command.variables["PYTHONIOENCODING"] = "ascii"
    assert "five hour  50 %  ??????????" in await told(daemon, command)


@ensureDeferred
async def test_many_turns(used: Any, command: Command) -> None:
    daemon = await used()
    now = daemon.api.engine.now()
    await add(
        daemon,
        turn(1, now - 2700, windows_after={"five_hour": 0.2, "seven_day": 0.5}),
        turn(2, now - 60, windows_after={"five_hour": 0.5}, key="laptop"),
        turn(3, now - 60, paid_by=PAID, client=HOSTILE),
        turn(4, now - 60, answered_by="claude-mystery-9"),
        turn(5, now - 60, answered_by=None, usage=Usage(), outcome="upstream", status=502,
             paid_by=None),
        turn(6, now - 20 * 86_400),
        turn(7, now - 50 * 86_400),
    )  # fmt: skip
    said = await told(daemon, command)
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert re.search(r"five hour +50 % +█{10} +[34] h \d\d min", said)
    (outlook,) = (line for line in lines if line.startswith("five hour: "))
    assert re.fullmatch(
        r"five hour: full (at|on .* at) \d\d:\d\d at this pace, from 2 reports over 45 min", outlook
    )
    assert "Extra usage: switched off in the account; it is not spent" in said
    # 200,000 x $1 + 700,000 x $0.1 + 100,000 x $1.25 + 15,000 x $5, each per million: $0.47.
    assert "Period Turns Failed Paid Input Cached Output Price Saved" in lines
    assert "last 7 days 5 1 1 4.00 M 70 % 60,000 $1.41 +? $0.94" in lines
    assert "last 30 days 6 1 1 5.00 M 70 % 75,000 $1.88 +? $1.41" in lines
    assert f"{HAIKU} 4 0 1 4.00 M 70 % 60,000 $1.88 $1.41" in lines
    assert "claude-mystery-9 1 0 0 1.00 M 70 % 15,000 ? $0.00" in lines
    assert "laptop 1 0 0 1.00 M 70 % 15,000 $0.47 $0.47" in lines
    assert "[bold red]evil[/]?]0; 1 0 1 1.00 M 70 % 15,000 $0.47 $0.00" in lines
    assert "No price is known of claude-mystery-9: 1 turn, in no sum." in lines
    assert len(re.findall(r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d+ \w+ \d\d:00-\d\d:00 ", said, re.M))
    assert "\x1b" not in said
    said = await told(daemon, command, "--days", "1")
    assert "last" not in said and "today" in said
    as_json = json.loads(await told(daemon, command, "--json", "--days", "60"))
    assert as_json["ledger"]["total"]["turns"] == 7
    assert as_json["windows"]["five_hour"]["projection"]["based_on"]["reports"] == 2
    # A window at rest leads nowhere: it ends as it is.
    assert as_json["windows"]["seven_day"]["projection"] is None


@pytest.mark.parametrize("columns", [40, 80, 120])
@ensureDeferred
async def test_on_a_terminal(
    used: Any, command: Command, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    daemon = await used()
    now = daemon.api.engine.now()
    clients = [turn(i, now - i * 7 * 3600, client=f"client-{'x' * i}", paid_by=PAID if i == 3 else
                    PLAN, outcome="upstream") for i in range(30)]  # fmt: skip
    await add(daemon, *clients)
    monkeypatch.setattr("shell.SIZE", (200, columns))
    shown: Terminal = command.terminal("usage", "--port", port_of(daemon))
    assert await in_thread(shown.end) == 0
    rows = [line for line in shown.lines if " M " in line]
    assert len(rows) > 30
    if columns > 40:
        assert all(re.search(r" \$\d+\.\d\d$", row) for row in rows), "no row is cut or wrapped"
    assert shown.lines.count("and 20 more: --json has them") == 2, "sessions and clients"
    assert b"\x1b[1;31m   1\x1b[0m" in shown.raw, "a paid turn is red"


@ensureDeferred
async def test_the_receipt_of_a_turn(used: Any, command: Command) -> None:
    daemon = await used()
    past = turn(
        1, daemon.api.engine.now() - 60, client=HOSTILE, key="laptop", placement="kept",
        queue_ms=3.2, first_token_ms=250.0,
        total_ms=1900.0, body_bytes=1000, cli_bytes=2000, reply_bytes=3000, code="x", answers=2,
        windows_before={"five_hour": 0.25}, windows_after={"five_hour": 0.26, "seven_day": 0.5},
    )  # fmt: skip
    await add(daemon, past)
    said = await told(daemon, command, "req_1")
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[0] == "Request req_1"
    assert lines[2:] == [
        "Client [bold red]evil[/]?]0;, key laptop",
        f"Model haiku, answered by {HAIKU}",
        "Served chat, kept, 2 answers",
        "Outcome 200 ok x",
        "Tokens 200,000 in, 700,000 read from the cache, 100,000 written to it, 15,000 out",
        "Bytes 1,000 asked, 2,000 to the CLI, 3,000 replied",
        "Time taken 3 ms queued, first token after 250 ms, 1,900 ms in all",
        "Paid by the plan",
        "List price $0.470000",
        "five hour 25 % before, 26 % after",
        "seven day ? before, 50 % after",
    ]
    assert json.loads(await told(daemon, command, "req_1", "--json"))["request_id"] == "req_1"
    for ident, expected in (
        ("req_2", "there is no turn of the request 'req_2' in the ledger"),
        ("../x", "REQUEST_ID: must be an x-request-id, such as req_0123abcd"),
    ):
        refusal = await in_thread(command.refusal, "usage", ident, "--port", port_of(daemon))
        assert refusal == expected


@ensureDeferred
async def test_the_quotas_of_keys(used: Any, command: Command, tmp_path: Path) -> None:
    keys, config = tmp_path / "keys", command.home / ".config" / "claudemax"
    keys.write_text(
        "free: first\nlaptop: s3cret requests=2/day tokens=1k/day share=five_hour=30\n"
        "old: third expires=2001-01-31\n"
    )
    keys.chmod(0o600)
    config.mkdir(parents=True)
    (config / "config.toml").write_text(f'api-key-file = "{keys}"\n')
    daemon = await used(api_key_file=str(keys))
    body = {"model": "haiku", "messages": [{"role": "user", "content": "x"}]}
    for _ in range(2):
        reply = await daemon.post("/v1/chat/completions", body, **{"x-api-key": "s3cret"})
        assert reply.code == 200, await reply.text()
    lines = [" ".join(line.split()) for line in (await told(daemon, command)).splitlines()]
    start = lines.index("Key Quota Used Limit Resets")
    assert re.fullmatch(r"laptop requests/day 2 2 (at|on .*) \d\d:\d\d", lines[start + 1])
    assert re.fullmatch(r"laptop tokens/day \d+ 1,000 (at|on .*) \d\d:\d\d", lines[start + 2])
    assert re.match(r"laptop share of five hour \S+ % 30 % ", lines[start + 3])
    assert lines[start + 4] == "old expired after 2001-01-31"
    assert lines[start + 5] == "", "and nothing of the key that has no quota"


@ensureDeferred
async def test_no_turn_yet_and_no_plan(make_daemon: Any, command: Command, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    no_plan = "This server uses no plan: it has another upstream.\n"
    assert await told(daemon, command) == no_plan + "No turn in the last 30 days.\n"
    assert await told(daemon, command, "--days", "1") == no_plan + "No turn today.\n"
    await daemon.chat([{"role": "user", "content": "Hello"}])
    said = await told(daemon, command)
    assert re.search(r"^today +1 ", said, re.MULTILINE) and "Saved" not in said


@ensureDeferred
async def test_without_a_ledger(make_daemon: Any, command: Command, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), no_ledger=True)
    daemon.api.engine.quota.applies = True
    assert (await told(daemon, command)).splitlines() == [
        "Nothing is known of the windows yet: the first turn tells.",
        "Extra usage: not known in the account; it is not spent without --extra-usage."
        " Paid turns: 0.",
        "This server keeps no turns: it runs with --no-ledger.",
    ]
    refusal = await in_thread(command.refusal, "usage", "req_1", "--port", port_of(daemon))
    assert refusal == "this server keeps no turns: it runs with --no-ledger"


@pytest.mark.parametrize("days", ["0", "401", "x"])
def test_days_are_bounded(refused: Any, days: str) -> None:
    assert "--days" in refused("usage", "--days", days)
