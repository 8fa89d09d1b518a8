"""Quotas: counted by key, told, refused by name, and kept over a restart."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

import openai
import pytest
import treq
from attrs import evolve
from clocks import SetClock
from harness import Daemon, until
from postgres import Postgres
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred as run
from twisted.internet.defer import fail, gatherResults
from twisted.internet.task import Clock

from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.engine.engine import Engine, Limits
from claudeproxy.ledger.counts import Counts, in_memory
from claudeproxy.ledger.file import sqlite_ledger
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.messages import FailureError, Usage
from claudeproxy.store.database import StoreLost
from claudeproxy.store.postgres import PostgreSQL
from claudeproxy.testing import fake_cli
from claudeproxy.web.gate import EXPOSED
from claudeproxy.web.key_rules import Rules
from claudeproxy.web.keys import KeyFileError
from claudeproxy.web.keys_file import SETTLED, KeysFile
from claudeproxy.web.quotas import Quota, Quotas, headers

NOON = datetime(2027, 1, 31, 12, 0, 30).timestamp()
TURN = TurnRecord(
    time=NOON,
    request_id="req_1",
    key="a",
    dialect="chat",
    model="opus",
    placement="kept",
    usage=Usage(100, 50, 10_000, 20),
)


ANY = Rules(requests={"day": 1000})


@pytest.fixture
def time() -> SetClock:
    return SetClock(NOON)


@pytest.fixture
def quotas(time: SetClock) -> Iterator[Quotas]:
    database = in_memory()
    database.open(reactor)
    engine = Engine(Clock(), lambda _: pytest.fail("a process"), Catalogue(), Limits(), time)
    yield Quotas(engine, Counts(database, time))
    database.close()


async def over(quotas: Quotas, record: TurnRecord = TURN) -> None:
    await quotas._counts.add(record, quotas.plan())


def moved(window: str, before: float, after: float) -> TurnRecord:
    return evolve(TURN, windows_before={window: before}, windows_after={window: after})


def window(quotas: Quotas, used: float, resets: float) -> None:
    windows = {"five_hour": {"utilization": used, "resetsAt": resets}}
    quotas._engine.quota.hear({"unifiedWindows": windows})


async def refusal(quotas: Quotas, rules: Rules, key: str = "a") -> Any:
    before = quotas._counts.known.get(key)
    with pytest.raises(FailureError) as caught:
        await quotas.take(key, rules)
    after = quotas._counts.known[key]
    assert before is None or before.counts == after.counts  # and it changes nothing
    return caught.value.failure


@ensureDeferred
async def test_requests_a_minute(quotas: Quotas, time: SetClock) -> None:
    rules = Rules(requests={"min": 2})
    for _ in range(2):
        await quotas.take("a", rules)
    failure = await refusal(quotas, rules)
    assert (failure.status, failure.code, failure.retry_after) == (429, "rate_limit_exceeded", 30)
    assert failure.message.startswith("the key 'a' has used up its quota of requests/min (2); it ")
    await quotas.take("b", rules)
    time.now += 29
    assert (await refusal(quotas, rules)).retry_after == 1
    time.now += 1
    await quotas.take("a", rules)


@ensureDeferred
async def test_tokens_a_day_count_once_a_turn_is_over(quotas: Quotas, time: SetClock) -> None:
    rules = Rules(tokens={"day": 341, "min": 1000}, requests={"day": 9})
    await over(quotas)
    assert [quota.used for quota in quotas.of("a", rules)] == [0, 170, 170]
    await over(quotas, evolve(TURN, key=None))
    await quotas.take("a", rules)
    await over(quotas)
    await quotas.take("a", rules)
    await over(quotas)
    failure = await refusal(quotas, rules)
    assert "quota of tokens/day (341)" in failure.message
    assert failure.retry_after == 11 * 3600 + 59 * 60 + 30
    time.now += failure.retry_after
    await quotas.take("a", rules)


@ensureDeferred
async def test_large_numbers_can_be_read(quotas: Quotas) -> None:
    rules = Rules(tokens={"day": 2_000_000})
    await quotas.take("a", rules)
    await over(quotas, evolve(TURN, usage=Usage(output_tokens=2_000_000)))
    assert "quota of tokens/day (2,000,000);" in (await refusal(quotas, rules)).message


@ensureDeferred
async def test_several_quotas_used_up_are_all_named_and_the_last_to_reset_counts(
    quotas: Quotas,
) -> None:
    await quotas.take("a", ANY)
    failure = await refusal(quotas, Rules(requests={"min": 1, "day": 1}))
    assert "requests/min (1) and requests/day (1)" in failure.message
    assert failure.retry_after > 3600


@ensureDeferred
async def test_a_share_of_a_window(quotas: Quotas, time: SetClock) -> None:
    rules = Rules(shares={"five_hour": 0.1})
    await quotas.take("a", rules)
    window(quotas, 0.2, NOON + 3600)
    await over(quotas, moved("five_hour", 0.2, 0.25))
    await quotas.take("a", rules)
    await over(quotas, moved("five_hour", 0.25, 0.31))
    failure = await refusal(quotas, rules)
    assert "quota of 10 % of five_hour" in failure.message
    assert failure.retry_after == 3600
    await quotas.take("b", rules)
    time.now += 3600
    await quotas.take("a", rules)


@ensureDeferred
async def test_what_others_use_does_not_count_for_a_turn_that_was_refused(quotas: Quotas) -> None:
    window(quotas, 0.5, NOON + 3600)
    mine = evolve(TURN, windows_before={"five_hour": 0.1}, windows_after={"five_hour": 0.5})
    await over(quotas, evolve(mine, key="b", placement="", usage=Usage(), status=429))
    await over(quotas, mine)
    shares = Rules(shares={"five_hour": 1.0})
    assert [quotas.of(key, shares)[0].used for key in "ab"] == [pytest.approx(40), 0]


@ensureDeferred
async def test_another_account_has_windows_of_its_own(quotas: Quotas) -> None:
    rules = Rules(shares={"seven_day": 0.1})
    windows = {"seven_day": {"utilization": 0.5, "resetsAt": NOON + 5 * 86_400}}
    quotas._engine.quota.hear({"unifiedWindows": windows})
    await over(quotas, moved("seven_day", 0.2, 0.5))
    assert (await refusal(quotas, rules)).retry_after == 5 * 86_400
    quotas._engine.quota.changed_login(other_account=True)
    await quotas.take("a", rules)


@ensureDeferred
async def test_a_share_is_used_up_at_its_limit(quotas: Quotas) -> None:
    window(quotas, 0.2, NOON + 3600)
    for before, after in ((0.2, 0.21), (0.21, 0.27), (0.27, 0.3)):  # sums to 0.09999999999999998
        await over(quotas, moved("five_hour", before, after))
    assert "10 %" in (await refusal(quotas, Rules(shares={"five_hour": 0.1}))).message


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (
            "chat",
            {
                "x-ratelimit-limit-requests": "10",
                "x-ratelimit-remaining-requests": "3",
                "x-ratelimit-reset-requests": "30s",
                "x-ratelimit-limit-tokens": "100",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "60s",
            },
        ),
        (
            "messages",
            {
                "anthropic-ratelimit-requests-limit": "10",
                "anthropic-ratelimit-requests-remaining": "3",
                "anthropic-ratelimit-requests-reset": "1970-01-01T00:00:40Z",
                "anthropic-ratelimit-tokens-limit": "100",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "1970-01-01T00:01:10Z",
            },
        ),
    ],
)
def test_headers(dialect: str, expected: dict[str, str]) -> None:
    quotas = [
        Quota("requests/min", 10, 7, 40.0),
        Quota("requests/day", 100, 7, 80.0),
        Quota("tokens/min", 100, 130, 70.0),
        Quota("share of five_hour", 10, 1, None),
    ]
    assert headers(quotas, dialect, 10.0) == expected
    assert all(name in EXPOSED for name in expected)
    assert headers(quotas[3:], dialect, 10.0) == {}


@ensureDeferred
async def test_a_ledger_that_was_kept_before_there_were_counts(
    quotas: Quotas, time: SetClock, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    file = sqlite_ledger(path)
    file.open(reactor)
    ledger = Ledger(file, time)
    counted = Quotas(quotas._engine, ledger.counts)
    hour = 3600.0
    for begin, reports in (
        (NOON - 24 * hour, ((None, 0.7), (0.7, 0.8))),
        (NOON - 6 * hour, ((None, 0.3), (0.3, 0.4))),
        (NOON - hour, ((None, 0.2), (0.2, 0.25))),
    ):
        for number, (before, after) in enumerate(reports):
            time.now = begin + number * 60
            window(quotas, after, begin + 5 * hour)
            record = evolve(
                TURN,
                time=time.now,
                request_id=f"req_{time.now}",
                windows_before={} if before is None else {"five_hour": before},
                windows_after={"five_hour": after},
            )
            await counted.take("a", ANY)
            await ledger.add(record, counted.plan())
    file.close()
    with closing(sqlite3.connect(path)) as older:
        older.executescript("DROP TABLE counts; DROP TABLE window_seen; DROP TABLE key_shares")
    file = sqlite_ledger(path)
    file.open(reactor)
    ledger = Ledger(file, time)
    again = Quotas(quotas._engine, ledger.counts)
    for _ in range(2):  # the second time, there are counts
        await ledger.restore(again.plan())
        await again.refresh()
        rules = Rules(shares={"five_hour": 0.5}, requests={"day": 9}, tokens={"day": 999})
        used = [[quota.used for quota in of.of("a", rules)] for of in (counted, again)]
        assert used == [[4, 4 * 170, pytest.approx(25)]] * 2
    file.close()


# -- the file --


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def written(text: str, mode: int = 0o600) -> str:
        path = tmp_path / "keys"
        new = tmp_path / "keys.new"
        new.write_text(text)
        new.chmod(mode)
        saved = new.stat().st_mtime - SETTLED
        os.utime(new, (saved, saved))
        os.replace(new, path)
        return str(path)

    return written


def test_a_file_that_changes(write: Callable[..., str]) -> None:
    keys = KeysFile(write("a: 1\n"))
    assert keys().name_of(["1"]) == "a"
    assert keys() is keys()
    write("a: 2\nb: 3\n")
    assert [keys().name_of([key]) for key in "123"] == [None, "a", "b"]


@pytest.mark.expected_errors
@pytest.mark.parametrize(("text", "mode"), [("", 0o600), ("a b c", 0o600), ("c: 3", 0o644)])
def test_a_file_that_turns_bad_changes_nothing(
    write: Callable[..., str], text: str, mode: int
) -> None:
    keys = KeysFile(write("a: 1\n"))
    write(text, mode)
    assert keys().name_of(["1"]) == "a"
    assert keys().name_of(["3"]) is None
    write("a: 4\n")
    assert keys().name_of(["4"]) == "a"


@pytest.mark.expected_errors
def test_a_file_that_is_gone_changes_nothing(write: Callable[..., str]) -> None:
    keys = KeysFile(path := write("a: 1\n"))
    os.remove(path)
    assert keys().name_of(["1"]) == "a"


def test_a_file_half_written_changes_nothing(write: Callable[..., str]) -> None:
    keys = KeysFile(path := write("a: 1\nb: 23456 requests=1/day\n"), now := SetClock(NOON))
    with open(path, "w") as file:
        file.write("a: 9\nb: 234")
        file.flush()
        now.now = os.stat(path).st_mtime
        assert [keys().name_of([key]) for key in ("1", "9", "234", "23456")] == [
            "a",
            None,
            None,
            "b",
        ]
        assert keys().rules_of("b") == Rules(requests={"day": 1})
        file.write("56 requests=2/day\n")
    now.now = os.stat(path).st_mtime + 2 * SETTLED
    assert [keys().name_of([key]) for key in ("1", "9", "234", "23456")] == [None, "a", None, "b"]
    assert keys().rules_of("b") == Rules(requests={"day": 2})


def test_a_file_from_the_future_counts(write: Callable[..., str]) -> None:
    keys = KeysFile(path := write("a: 1\n"), now := SetClock(NOON))
    write("a: 2\n")
    os.utime(path, (now() + 1000, now() + 1000))
    assert keys().name_of(["2"]) == "a"


def test_a_bad_file_at_start(write: Callable[..., str]) -> None:
    with pytest.raises(KeyFileError):
        KeysFile(write("a: 1 requests=many\n"))


# -- over HTTP --

CHAT = "/v1/chat/completions"


async def ask(daemon: Daemon, key: str, path: str = CHAT, **fields: Any) -> tuple[Any, Any]:
    body = {
        "model": "haiku",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "x"}],
        **fields,
    }
    response = await daemon.post(path, body, authorization=f"Bearer {key}")
    return response, await treq.json_content(response)


async def get(daemon: Daemon, key: str, path: str) -> tuple[int, Any]:
    response = await treq.get(daemon.url + path, headers={"authorization": f"Bearer {key}"})
    return response.code, await treq.json_content(response)


def header(response: Any, name: str) -> str | None:
    values = response.headers.getRawHeaders(name)
    return values[0] if values else None


@ensureDeferred
async def test_a_quota_over_http(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    claude = fake_cli(tmp_path / "cli")
    path = write("app: app requests=2/day tokens=1M/day\nmine: mine\n")
    daemon = await make_daemon(claude=claude, api_key_file=path)
    response, _ = await ask(daemon, "app")
    assert header(response, "x-ratelimit-remaining-requests") == "1"
    response, body = await ask(daemon, "app", messages=[])
    assert response.code == 400, body  # a mistake costs nothing
    response, _ = await ask(daemon, "app", "/v1/messages")
    assert header(response, "anthropic-ratelimit-requests-remaining") == "0"
    for route in (CHAT, "/v1/messages"):
        response, body = await ask(daemon, "app", route)
        assert response.code == 429
        assert "'app' has used up its quota of requests/day (2)" in body["error"]["message"]
        assert int(header(response, "retry-after") or 0) > 0
    response, _ = await ask(daemon, "mine")
    assert (response.code, header(response, "x-ratelimit-limit-requests")) == (200, None)

    await until(lambda: not daemon.api.journal.running)
    _, told = await get(daemon, "mine", "/v1/usage")
    app, mine = told["keys"]
    assert mine == {"name": "mine", "models": None, "expires": None, "expired": False, "quotas": []}
    requests, tokens = app["quotas"]
    assert (requests["quota"], requests["limit"], requests["used"]) == ("requests/day", 2, 2)
    assert tokens["used"] > 0
    assert tokens["resets_at"] == requests["resets_at"] > daemon.api.engine.now()

    write("app: app requests=3/day\nmine: mine\n")
    assert (await ask(daemon, "app"))[0].code == 200
    assert (await ask(daemon, "app"))[0].code == 429
    write("mine: mine\n")
    assert (await ask(daemon, "app"))[0].code == 401


@ensureDeferred
async def test_the_day_is_remembered(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    claude = fake_cli(tmp_path / "cli")
    path = write("app: app requests=5/day tokens=1M/day\n")
    daemon = await make_daemon(claude=claude, api_key_file=path)
    await ask(daemon, "app")
    rules = daemon.api.gate.keys.rules_of("app")

    def used(of: Daemon) -> list[float]:
        return [quota.used for quota in of.api.quotas.of("app", rules)]

    await until(lambda: all(used(daemon)))
    before = used(daemon)
    state = str(daemon.home / ".local/state")
    again = await make_daemon(claude=claude, api_key_file=path, environ={"XDG_STATE_HOME": state})
    await until(lambda: used(again) == before)
    assert before[0] == 1
    await again.api.stopService()
    again.api.quotas._counts.known = {}
    again.api.startService()  # read again, not added to what is known
    await until(lambda: used(again) == before)


@ensureDeferred
async def test_what_the_engine_refuses_is_given_back(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write("app: app requests=1/day\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    schema = {"name": "x", "schema": {"type": "nonsense"}}
    wrong = {"response_format": {"type": "json_schema", "json_schema": schema}}
    for _ in range(2):
        response, body = await ask(daemon, "app", **wrong)
        assert response.code == 400, body
        assert header(response, "x-ratelimit-remaining-requests") == "1"
    response, _ = await ask(daemon, "app")
    assert (response.code, header(response, "x-ratelimit-remaining-requests")) == (200, "0")
    assert (await ask(daemon, "app", **wrong))[0].code == 429


class Held:
    """A database whose calls wait until they are let go."""

    def __init__(self, database: Any) -> None:
        self._held, self._go = Event(), Event()
        self._call = database.run(self._hold)

    def _hold(self, _: object) -> None:
        self._held.set()
        self._go.wait(30)

    async def __aenter__(self) -> None:
        await until(self._held.is_set)

    async def __aexit__(self, *_: object) -> None:
        self._go.set()
        await self._call


@ensureDeferred
async def test_many_at_once_get_no_more_than_there_is(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write("app: app requests=5/day\nmine: mine\n")
    claude, state = fake_cli(tmp_path / "cli"), str(tmp_path / "state")
    settings = {"claude": claude, "api_key_file": path, "environ": {"XDG_STATE_HOME": state}}
    one, two = await make_daemon(**settings), await make_daemon(**settings)

    async def asked(daemon: Daemon, **fields: Any) -> Any:
        body = {"model": "haiku", "messages": [{"role": "user", "content": "x"}], **fields}
        response = await daemon.post(CHAT, body, authorization="Bearer app")
        await treq.content(response)
        return response

    replies = await gatherResults(
        [run(asked(daemon, stream=n % 2 == 0)) for n in range(6) for daemon in (one, two)]
    )
    codes = [response.code for response in replies]
    assert (codes.count(200), codes.count(429)) == (5, 7)
    left = [header(response, "x-ratelimit-remaining-requests") for response in replies]
    assert sorted(text for code, text in zip(codes, left, strict=True) if code == 200) == [
        "0", "1", "2", "3", "4",
    ]  # fmt: skip
    for daemon in (one, two):
        _, told = await get(daemon, "app", "/v1/usage")
        assert told["keys"][0]["quotas"][0]["used"] == 5


@ensureDeferred
async def test_only_who_has_quotas_waits_for_the_database(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write("app: app requests=2/day\nmine: mine models=haiku reserve=five_hour=1\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    async with Held(daemon.api._ledger._database):
        waits = run(ask(daemon, "app"))
        assert (await ask(daemon, "mine"))[0].code == 200
        assert not waits.called
    response, _ = await waits
    assert response.code == 200
    assert header(response, "x-ratelimit-remaining-requests") == "1"


@ensureDeferred
async def test_a_client_that_leaves_while_it_is_counted_has_used_nothing(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write("app: app requests=1/day\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    counts, channels = daemon.api.quotas._counts, daemon.api.site.channels
    take, taken = counts.take, []

    def taking(*about: Any) -> Any:
        taken.append(take(*about))
        return taken[-1]

    counts.take = taking
    routes: dict[str, Any] = {
        CHAT: {},
        "/v1/messages": {"stream": True},
        "/v1/responses": {
            "input": "x", "background": True, "messages": None, "max_tokens": None,
        },
    }  # fmt: skip
    async with Held(daemon.api._ledger._database):
        for number, (route, more) in enumerate(routes.items(), 1):
            asked = run(ask(daemon, "app", route, **more))
            await until(lambda number=number: len(taken) == number)
            asked.cancel()
            with suppress(Exception):
                await asked
            await until(lambda: not channels)
    rules = Rules(requests={"day": 1})
    await until(lambda: "app" in counts.known and not daemon.api.quotas.of("app", rules)[0].used)
    assert not daemon.api.journal.running
    assert (await ask(daemon, "app"))[0].code == 200
    assert (await ask(daemon, "app"))[0].code == 429
    _, told = await get(daemon, "app", "/v1/usage/turns")
    assert [turn["status"] for turn in told["data"]] == [429, 200]


class Lost:
    """A database that does not answer."""

    def run(self, *_: object) -> Any:
        return fail(StoreLost("it is down"))


@ensureDeferred
async def test_without_the_store_who_has_quotas_is_refused(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write("app: app requests=9/day\nmine: mine\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    await ask(daemon, "app")
    counts = daemon.api.quotas._counts
    there, counts._database = counts._database, Lost()
    for route, code in ((CHAT, 503), ("/v1/messages", 529), ("/v1/responses", 503)):
        more = {"messages": None, "max_tokens": None, "input": "x"} if "responses" in route else {}
        response, body = await ask(daemon, "app", route, **more)
        assert response.code == code, body
        assert header(response, "retry-after") == "5"
        assert header(response, "x-should-retry") is None
        assert "the key 'app' have to be counted" in body["error"]["message"]
    response, body = await ask(daemon, "app")
    assert body["error"]["code"] == "store_lost"
    assert (await ask(daemon, "mine"))[0].code == 200
    _, told = await get(daemon, "mine", "/v1/usage")
    assert told["keys"][0]["quotas"][0]["used"] == 1  # as last known
    counts._database = there
    assert (await ask(daemon, "app"))[0].code == 200


@pytest.fixture
def database(postgres_url: str) -> Iterator[PostgreSQL]:
    opened = PostgreSQL(postgres_url)
    opened.open(reactor)
    yield opened
    opened.close()


@pytest.mark.alone
@ensureDeferred
async def test_quotas_in_a_postgresql_that_is_killed_and_comes_back(
    quotas: Quotas, time: SetClock, postgres: Postgres, database: PostgreSQL
) -> None:
    nodes = [Quotas(quotas._engine, Counts(database, time)) for _ in range(2)]
    rules = Rules(requests={"day": 2})
    give_back = await nodes[0].take("a", rules)
    await nodes[1].take("a", rules)
    await nodes[0].refresh()
    assert (await refusal(nodes[0], rules)).status == 429
    postgres.kill()
    for node in nodes:
        for _ in range(2):
            with pytest.raises(FailureError) as caught:
                await node.take("a", rules)
            failure = caught.value.failure
            assert (failure.status, failure.code, failure.retry_after) == (503, "store_lost", 5)
        await node.refresh()
        assert node.of("a", rules)[0].used == 2  # as last known
    postgres.start()
    await until(lambda: database.lost_since is None)
    give_back()
    while nodes[1].of("a", rules)[0].used == 2:  # the other one has yet to hear of it
        await nodes[1].refresh()
    await nodes[1].take("a", rules)
    await nodes[0].refresh()
    assert (await refusal(nodes[0], rules)).status == 429


@pytest.mark.expected_errors
@ensureDeferred
async def test_what_cannot_be_counted_is_not_asked(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str], nothing_logged: list[str]
) -> None:
    path = write("app: app requests=9/day\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    await daemon.api._ledger._database.run(lambda cursor: cursor.execute("DROP TABLE counts"))
    response, body = await ask(daemon, "app")
    assert (response.code, body["error"]["code"]) == (503, "store_lost")
    assert any("_take" in line for line in nothing_logged)


@ensureDeferred
async def test_without_a_ledger_there_are_quotas_while_it_runs(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write("app: app requests=1/day tokens=1M/day\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path, no_ledger=True)
    assert [(await ask(daemon, "app"))[0].code for _ in range(2)] == [200, 429]
    await until(lambda: not daemon.api.journal.running)
    _, told = await get(daemon, "app", "/v1/usage")
    requests, tokens = told["keys"][0]["quotas"]
    assert requests["used"] == 1 and tokens["used"] > 0
    assert not list(daemon.home.rglob("ledger.sqlite*"))


@ensureDeferred
async def test_what_is_refused_does_not_count(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write(
        "app: app requests=2/day models=haiku\nshy: shy requests=5/day reserve=five_hour=50\n"
    )
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    engine, quotas, keys = daemon.api.engine, daemon.api.quotas, daemon.api.gate.keys
    windows = {"five_hour": {"utilization": 0.6, "resetsAt": engine.now() + 3600}}
    engine.quota.hear({"unifiedWindows": windows})
    expected = (
        ("app", "opus", 403), ("app", "haiku", 200), ("shy", "haiku", 429), ("app", "haiku", 200),
        ("app", "haiku", 429), ("shy", "haiku", 429),
    )  # fmt: skip
    for key, model, code in expected:
        assert (await ask(daemon, key, model=model))[0].code == code
    await until(lambda: not daemon.api.journal.running)
    again = Quotas(engine, Counts(daemon.api._ledger._database))
    await again.refresh()
    for counted in (quotas, again):
        used = {key: counted.of(key, keys.rules_of(key))[0].used for key in ("app", "shy")}
        assert used == {"app": 2, "shy": 0}


@ensureDeferred
async def test_a_name_of_no_model_is_not_kept(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write("app: app requests=1/day\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    for model, code in (("haiku", 200), ("SECRET " * 1000, 404), ("haiku", 429)):
        response, _ = await ask(daemon, "app", model=model)
        assert response.code == code
    _, told = await get(daemon, "app", "/v1/usage/turns")
    assert [turn["model"] for turn in told["data"]] == ["haiku", "haiku"]


@ensureDeferred
async def test_models_of_a_key(make_daemon: Any, tmp_path: Path, write: Callable[..., str]) -> None:
    path = write("app: app models=haiku,claude-sonnet-4-5\nmine: mine\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    for model, expected in (
        ("haiku", 200),
        ("claude-haiku-4", 200),
        ("claude-haiku-4-5", 200),
        ("openai/claude-sonnet-4-5", 200),
        ("opus", 403),
        ("claude-opus-4", 403),
        ("gpt-4", 404),
    ):
        response, body = await ask(daemon, "app", model=model)
        assert response.code == expected, (model, body)
        if expected == 403:
            assert body["error"]["code"] == "model_not_allowed"
            assert body["error"]["param"] == "model"
            assert f"'app' may not use the model {model!r}" in body["error"]["message"]
    _, listed = await get(daemon, "app", "/v1/models")
    ids = [model["id"] for model in listed["data"]]
    assert "claude-haiku-4" in ids
    assert not any("opus" in ident for ident in ids)
    _, listed = await get(daemon, "mine", "/v1/models")
    assert any("opus" in model["id"] for model in listed["data"])
    assert (await get(daemon, "app", "/v1/models/opus"))[0] == 403
    assert (await get(daemon, "app", "/v1/models/haiku"))[0] == 200


@ensureDeferred
async def test_a_key_for_no_known_model(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write("app: app models=gpt-4\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    code, listed = await get(daemon, "app", "/v1/models")
    assert (code, listed["data"], listed["first_id"]) == (200, [], None)


@ensureDeferred
async def test_a_key_reads_no_responses_of_another(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write("mine: mine\nguest: guest\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    fields = {"messages": None, "max_tokens": None, "input": "SECRET"}
    _, made = await ask(daemon, "mine", "/v1/responses", **fields)
    path = f"/v1/responses/{made['id']}"
    items = (
        [{"type": "item_reference", "id": made["output"][0]["id"]}],
        [{"role": "user", "content": "x"}],
    )
    continued = {**fields, "input": items[1], "previous_response_id": made["id"]}
    for key, code in (("guest", 404), ("mine", 200)):
        for read in (path, f"{path}/input_items"):
            assert (await get(daemon, key, read))[0] == code, read
        named = {**fields, "input": [*items[0], *items[1]]}
        for body, refused in ((continued, 400), (named, 404)):
            for route in ("/v1/responses", "/v1/responses/input_tokens"):
                response, told = await ask(daemon, key, route, **body)
                assert response.code == (refused if key == "guest" else 200), told
        response = await treq.delete(daemon.url + path, headers={"authorization": f"Bearer {key}"})
        assert response.code == code
        await treq.content(response)


@ensureDeferred
async def test_a_key_that_is_gone_before_its_turn_begins(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    path = write("app: app models=haiku\nmine: mine\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    _, first = await ask(daemon, "app", "/v1/responses", messages=None, max_tokens=None, input="x")
    held, gone = Event(), Event()

    def hold(_: object) -> None:
        held.set()
        gone.wait(10)

    kept = daemon.api._kept.store.responses._database.run(hold)
    await until(held.is_set)
    fields = {"model": "opus", "input": "y", "previous_response_id": first["id"]}
    asked = run(daemon.post("/v1/responses", fields, authorization="Bearer app"))
    channels = daemon.api.site.channels
    await until(lambda: any(one.requests and not one._receiving for one in channels))
    write("mine: mine\n")
    gone.set()
    await kept
    assert (await asked).code == 401


@ensureDeferred
async def test_an_expired_key(make_daemon: Any, tmp_path: Path, write: Callable[..., str]) -> None:
    path = write("app: app expires=2020-01-31\nmine: mine expires=2999-01-31\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    response, body = await ask(daemon, "app")
    assert response.code == 401
    assert body["error"]["message"] == "the key 'app' has expired: it counted until 2020-01-31"
    assert (await get(daemon, "app", "/health"))[0] == 401
    assert (await ask(daemon, "mine"))[0].code == 200


@ensureDeferred
async def test_the_sdk_waits_no_day(
    make_daemon: Any, tmp_path: Path, write: Callable[..., str]
) -> None:
    """A client that retries 429 would otherwise ask again and again."""
    from twisted.internet.threads import deferToThread

    path = write("app: app requests=1/day\n")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=path)
    sdk = openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="app", max_retries=5)
    create = sdk.chat.completions.create
    message = {"role": "user", "content": "x"}
    await deferToThread(create, model="haiku", messages=[message])
    with pytest.raises(openai.RateLimitError, match="requests/day"):
        await deferToThread(create, model="haiku", messages=[message])
    _, told = await get(daemon, "app", "/v1/usage/turns")
    assert [turn["status"] for turn in told["data"]] == [429, 200]
