"""What the page shows, over real daemons."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from attrs import evolve
from harness import Daemon, until
from looking import CHARTS, HTML, Look, everything, header, held, hello, key_file, look, words
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.record import PAID, PLAN, TurnRecord
from claudeproxy.messages import Usage
from claudeproxy.testing import fake_cli
from claudeproxy.web.requests import InMemoryRequest

CHAT = "/v1/chat/completions"

PLACES = ("src", "href", "action", "srcset")
"""The attributes that lead somewhere."""


@pytest_twisted.async_fixture
async def double(make_daemon: Any, tmp_path: Path) -> Daemon:
    """A daemon over the CLI's double."""
    made: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    return made


async def ask(daemon: Daemon, text: str = "Hello", **headers: str) -> int:
    response = await daemon.post(CHAT, hello(text), **{"user-agent": "Zed/1.0", **headers})
    await treq.content(response)
    return int(response.code)


def ledger_of(daemon: Daemon) -> Ledger:
    ledger = daemon.api._ledger
    assert ledger is not None
    return ledger


def record(number: int = 0, **more: Any) -> TurnRecord:
    made = TurnRecord(
        time=time.time() - 100 - number, request_id=f"req_{number}", dialect="chat", model="haiku",
        client="Zed", answered_by="claude-haiku-4-5", placement="kept", status=200,
        usage=Usage(1000, 200, 9000, 500), first_token_ms=250.0, total_ms=900.0, paid_by=PLAN,
    )  # fmt: skip
    return evolve(made, **more)


# -- how it is sent --


@pytest.mark.parametrize("path", ["/", "/page/main", "/page/page.css", "/page/page.js", *CHARTS])
@ensureDeferred
async def test_nothing_is_cached_and_nothing_comes_from_elsewhere(
    double: Daemon, path: str
) -> None:
    response = await treq.get(double.url + path, headers=HTML)
    body = await treq.text_content(response)
    assert response.code == 200, body
    assert header(response, "cache-control") == "no-store"
    assert header(response, "x-content-type-options") == "nosniff"
    assert header(response, "referrer-policy") == "same-origin"
    assert header(response, "cross-origin-resource-policy") == "same-origin"
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in str(header(response, "content-security-policy")).split(";")
    )
    assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'none'")
    if path.startswith(("/page/page", "/page/tokens", "/page/cache")):
        assert set(policy) == {"default-src", "frame-ancestors", "style-src"}
    else:
        assert policy["script-src"] == policy["style-src"] == policy["img-src"] == "'self'"
        assert (policy["form-action"], policy["base-uri"]) == ("'self'", "'none'")
    if path.endswith((".css", ".js", ".svg")):
        assert not re.search(r"url\(|@import|import\(|<script|<!DOCTYPE|<!ENTITY", body)


@ensureDeferred
async def test_nothing_is_inline(double: Daemon) -> None:
    seen = await look(double)
    for element in seen.root.iter():
        assert not {name for name in element.attrib if name == "style" or name.startswith("on")}
        assert all(re.match(r"/page/\w", element.get(name, "/page/x")) for name in PLACES)
        assert element.tag != "style"
        assert element.tag != "script" or (element.get("src"), element.text) == (
            "/page/page.js", None,
        )  # fmt: skip


@ensureDeferred
async def test_programs_get_a_word(double: Daemon) -> None:
    told = {"status": "claudemax is running", "api": "/v1", "health": "/health"}
    for accept in ({}, {"accept": "*/*"}, {"accept": "application/json"}):
        response = await treq.get(double.url + "/", headers=accept)
        assert await treq.json_content(response) == told
        assert header(response, "vary") == "accept"
    response = await treq.head(double.url + "/")
    assert (response.code, await treq.content(response)) == (200, b"")
    for method, path, status in (
        ("POST", "/", 405), ("DELETE", "/page/main", 405), ("GET", "/page/nothing", 404),
        ("GET", "/page/tokens-24h-621.svg", 404), ("GET", "/page/other-24h-620.svg", 404),
        ("GET", "/page/..%2froutes.py", 404), ("GET", "/page", 404), ("GET", "/page/a/b", 404),
    ):  # fmt: skip
        response = await treq.request(method, double.url + path, headers=HTML)
        assert response.code == status, path
        await treq.content(response)


@ensureDeferred
async def test_pages_of_others_do_not_get_it(double: Daemon) -> None:
    for headers in (
        {"host": "evil.example"}, {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"}, {"origin": double.url},
    ):  # fmt: skip
        for path in ("/", "/page/main", "/page/changes"):
            response = await treq.get(double.url + path, headers={**HTML, **headers})
            assert response.code == 403, (path, headers)
            await treq.content(response)


@pytest.mark.parametrize("path", ["//", "//page//main", "///page/main/"])
@ensureDeferred
async def test_slashes_too_many_do_not_lead_elsewhere(double: Daemon, path: str) -> None:
    seen = await look(double, path)
    places = [one.get(name, "") for one in seen.root.iter() for name in PLACES if one.get(name)]
    assert places and all(re.match(r"/page/\w", place) for place in places)


@pytest.mark.parametrize("path", ["/a%20b/claude", "/a%20b/claude/", "/a%20b/claude/page/main"])
@ensureDeferred
async def test_in_somebody_elses_site(double: Daemon, path: str) -> None:
    root, folder = Resource(), Resource()
    root.putChild(b"a b", folder)
    folder.putChild(b"claude", double.api.resource)
    site = Site(root, requestFactory=InMemoryRequest)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}"
    response = await treq.get(url + path, headers=HTML)
    seen = Look(await treq.text_content(response))
    places = [one.get(name, "") for one in seen.root.iter() for name in PLACES if one.get(name)]
    assert places and all(place.startswith("/a%20b/claude/page/") for place in places), places
    for place in places:
        response = await treq.get(url + place)
        assert response.code == 200, place
        await treq.content(response)
    await port.stopListening()


# -- what it shows --


@ensureDeferred
async def test_a_daemon_that_has_done_nothing(double: Daemon) -> None:
    seen = await look(double)
    assert "healthy" in seen.text("health") and "upstream: " in seen.text("health")
    assert "No plan is used" in seen.text("plan")
    assert seen.text("turns").endswith("There was no turn yet.")
    assert seen.text("errors").endswith("No turn has failed.")
    assert "0 turns" in seen.text("usage")
    ids = [element.get("id") for element in seen.root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    titles = {element.get("id") for element in seen.root.iter("h2")}
    sections = seen.root.findall(".//section")
    assert {section.get("aria-labelledby") for section in sections} == titles
    assert all(image.get("alt") for image in seen.root.iter("img"))
    assert [element.tag for element in seen.root.iter("table")]
    assert all(table.find("tbody/tr") is not None for table in seen.root.iter("table"))
    assert all(table.find("caption") is not None for table in seen.root.iter("table"))


@ensureDeferred
async def test_turns_and_those_that_failed(double: Daemon) -> None:
    assert await ask(double) == 200
    assert await ask(double, "[[middle exit]]") == 502
    seen = await look(double)
    failed, good = seen.rows("turns")
    assert good[1:4] == ["Zed", "claude-fake", "7"] and good[-1] == "ok warm"
    assert failed[-1] == "upstream"
    ((_, why, _),) = seen.rows("errors")
    assert (
        why.startswith("upstream 502")
        and "req_" in why
        and "claude" in why.lower()
        and "doctor" in why
    )
    assert "2 turns" in seen.text("usage")


@ensureDeferred
async def test_who_used_most_comes_first_and_the_rest_is_counted(double: Daemon) -> None:
    ledger = ledger_of(double)
    many = [f"client{n}" for n in range(14)]
    once = [("alone", "k1")] * 2 + [(each, "k1") for each in many]
    thrice = [("roaming", f"k{n}") for n in range(4)]
    for number, (client, key) in enumerate(once + thrice):
        await ledger.add(record(number, client=client, key=key))
    seen = await look(double)
    names = [row[0] for row in seen.rows("who")]
    assert names[0] == "k1"
    assert names[names.index("roaming") :][:2] == ["roaming", "alone"]
    assert "and 4 more: claudemax usage" in seen.text("who")


@ensureDeferred
async def test_models_without_a_price_say_so(double: Daemon) -> None:
    ledger = ledger_of(double)
    await ledger.add(record(1, list_price=1.5))
    await ledger.add(record(2, list_price=None, answered_by="mystery", client="curl"))
    seen = await look(double)
    prices = {row[0]: row[-1] for row in seen.rows("who")}
    assert prices == {"claude-haiku-4-5": "$1.50", "mystery": "?", "Zed": "$1.50", "curl": "?"}
    assert "$1.50 + ? at list price" in seen.text("usage")


@ensureDeferred
async def test_sums_are_made_anew_when_a_turn_is_over(double: Daemon) -> None:
    async def shown() -> str:
        (sums,) = (await look(double)).root.findall(".//dl")
        return "".join(sums[0].itertext())

    await ask(double)
    await until(lambda: double.api._page._sources._turns == 1)
    assert "1 turn" in await shown()
    await ledger_of(double).add(record())  # by nobody's turn
    assert "1 turn" in await shown()
    await ask(double)
    await until(lambda: double.api._page._sources._turns == 2)
    assert "3 turns" in await shown()


@ensureDeferred
async def test_paid_turns_stand_out(double: Daemon) -> None:
    ledger = ledger_of(double)
    await ledger.add(record(1))
    await ledger.add(record(2, paid_by=PAID, client="spender"))
    seen = await look(double)
    paid = [row for row in seen.root.iter("tr") if row.get("class") == "paid"]
    assert len(paid) == 2 and all("spender" in "".join(row.itertext()) for row in paid)
    assert "paid" in words(seen.rows("turns")) and "1 paid turn" in seen.text("usage")


@ensureDeferred
async def test_the_windows(double: Daemon) -> None:
    engine = double.api.engine
    engine.quota.applies = True
    now = engine.now()
    told = {
        "five_hour": {"utilization": 0.5, "resetsAt": now + 7200},
        "seven_day_opus": {"utilization": 1.0, "resetsAt": now + 4 * 86_400},
        "<b>": {"utilization": 0.85, "resetsAt": now + 60},
    }
    engine.quota.hear({"overageStatus": "rejected", "unifiedWindows": told})
    ledger = ledger_of(double)
    for back, share in ((3000, 0.1), (1500, 0.3), (10, 0.5)):
        await ledger.add(record(back, time=now - back, windows_after={"five_hour": share}))
    seen = await look(double)
    text = seen.text("plan")
    assert "5-hour window 50 % used resets in 2 h" in text
    assert "an hour used up in " in text
    assert "7-day window, opus used up resets in 4 d" in text
    assert "<b> 85 % used" in text
    bars = seen.root.findall(".//section[@id='plan']//svg")
    assert [bar.get("aria-label") for bar in bars] == [
        "5-hour window: 50 % used", "7-day window, opus: used up", "<b>: 85 % used",
    ]  # fmt: skip
    looks = [[rect.get("class") for rect in bar] for bar in bars]
    assert looks == [["track", "ahead warning", "warning"], ["track", "bad"], ["track", "warning"]]


@pytest.mark.parametrize(("used", "refused"), [(0.89, False), (0.9, True), (1.0, True)])
@ensureDeferred
async def test_a_window_used_up_to_the_reserve(
    make_daemon: Any, tmp_path: Path, used: float, refused: bool
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), reserve=(("five_hour", 0.1),))
    quota = daemon.api.engine.quota
    quota.applies = True
    told = {"five_hour": {"utilization": used, "resetsAt": daemon.api.engine.now() + 7200}}
    quota.hear({"overageStatus": "rejected", "unifiedWindows": told})
    assert await ask(daemon) == (429 if refused else 200)
    text = (await look(daemon)).text("plan")
    assert "the last 10 % are kept for you" in text
    assert ("turns are refused" in text) is refused


@ensureDeferred
async def test_processes_tell_lengths(double: Daemon) -> None:
    await ask(double, "one two three")
    (kept,) = [row for row in (await look(double)).rows("processes") if row[1] == "kept"]
    assert re.fullmatch(r"2 messages, \d+ characters", kept[2])
    assert (kept[0], kept[3], kept[4]) == (str(_pid(double)), "haiku", "1")
    assert kept[-1].endswith("MB")
    for process in list(double.api.engine.processes):
        process.kill()
    await until(lambda: double.api.engine.keeper.unused)
    await look(double)


def _pid(daemon: Daemon) -> int | None:
    (kept,) = [one for one in daemon.api.engine.keeper.reports() if one.state == "kept"]
    return kept.pid


@ensureDeferred
async def test_without_a_ledger(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), no_ledger=True)
    assert await ask(daemon) == 200
    seen = await look(daemon)
    for section in ("turns", "errors", "usage", "who"):
        assert "--no-ledger" in seen.text(section)
    response = await treq.get(daemon.url + CHARTS[0])
    assert response.code == 404
    await treq.content(response)


@ensureDeferred
async def test_a_recording_is_told(make_daemon: Any, tmp_path: Path, double: Daemon) -> None:
    record_to = str(tmp_path / "recorded")
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), record=record_to)
    assert "written to disk (--record)" in (await look(daemon)).text("health")
    assert "--record" not in (await look(double)).text("health")


@ensureDeferred
async def test_settings_are_told_without_secrets(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(
        claude=fake_cli(tmp_path / "cli"), upstream_key="upstr3am",
        reserve=(("five_hour", 0.2),), api_key_file=key_file(tmp_path),
        model_alias=(("gpt-4", "opus"),), no_repair=True,
    )  # fmt: skip
    cookie = await _cookie(daemon)
    seen = await look(daemon, cookie=cookie)
    rows = {row[0]: row[1:] for row in seen.rows("settings")}
    assert (rows["--reserve"][0], rows["--model-alias"][0]) == ("five_hour=20", "gpt-4=opus")
    assert rows["--no-repair"][:2] == ["on", "off"]
    assert rows["--max-body"][0] == str(64 << 20)
    assert next(iter(rows)) == "--claude", "what is set comes first"
    sent = await everything(daemon, cookie=cookie)
    assert not re.search("upstr3am|s3cret", sent)


@ensureDeferred
async def test_keys_and_their_quotas(make_daemon: Any, tmp_path: Path) -> None:
    lines = (
        "laptop: s3cret requests=2/day models=haiku share=five_hour=30\n"
        "ci: other tokens=2M/day expires=2099-01-31\nguest: gone expires=2020-01-01\n"
    )
    daemon = await make_daemon(
        claude=fake_cli(tmp_path / "cli"), api_key_file=key_file(tmp_path, lines)
    )
    cookie = await _cookie(daemon)
    for _ in range(2):
        assert await ask(daemon, authorization="Bearer s3cret") == 200
    await until(lambda: daemon.api._page._sources._turns == 2)
    laptop, ci, guest = (await look(daemon, cookie=cookie)).rows("who")[:3]
    assert laptop[:4] == ["laptop", "2", "10", "?"], "the double's model has no price"
    assert re.fullmatch(
        r"requests/day: 2 of 2; again in [\w ]+share of five hour: 0 % of 30 %", laptop[4]
    )
    assert laptop[5:] == ["haiku", "never"]
    assert ci == ["ci", "0", "0", "$0.00", "tokens/day: 0 of 2.0M", "all", "2099-01-31"]
    assert guest[4:] == ["none", "all", "expired"]
    response = await treq.post(
        daemon.url + "/page/sign-in", data={"key": "gone"}, allow_redirects=False
    )
    assert response.code == 401
    await treq.content(response)


async def _cookie(daemon: Daemon) -> str:
    response = await treq.post(
        daemon.url + "/page/sign-in", data={"key": "s3cret"}, allow_redirects=False
    )
    return str(header(response, "set-cookie")).partition(";")[0]


# -- hostile text --

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)",
    "</td></table><h1>mine", "\u202e\u2066gnp.exe\u200b", "x" * 10_000, "a\x00\x1b[31m\x7fb",
    "&lt;b&gt;&#x3c;", "]]><!--", "javascript:alert(1)",
)  # fmt: skip


@ensureDeferred
async def test_hostile_text_in_every_field(double: Daemon) -> None:
    ledger = ledger_of(double)
    for number, bad in enumerate(HOSTILE):
        for paid_by, outcome in ((PAID, "ok"), (None, bad)):
            await ledger.add(record(
                number, request_id=bad, key=bad, client=bad, model=bad, dialect=bad,
                answered_by=bad, placement=bad, code=bad, cause=bad, outcome=outcome,
                paid_by=paid_by,
            ))  # fmt: skip
    plain = Look((await look(double)).html)
    sent = await everything(double)
    for part in plain.tags():
        assert part in KNOWN, part
    assert "mine" not in [heading.text for heading in plain.root.iter("h1")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\u200b]", sent)
    assert "<script>alert" not in sent and "<img src=x" not in sent
    assert "x" * 400 not in sent
    names = {"".join(bdi.itertext()) for bdi in plain.root.iter("bdi")}
    assert {
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "&lt;b&gt;&#x3c;",
    } < names


KNOWN = set(
    "html head meta title link script body header h1 h2 h3 p main section ul li span div strong "
    "svg rect table caption thead tbody tr th td time bdi dl dt dd figure figcaption picture "
    "source img details summary code".split()
)
"""The elements that the page consists of."""


@ensureDeferred
async def test_hostile_requests(double: Daemon) -> None:
    """As clients send them: in a header, as a model, as a path."""
    for bad in HOSTILE:
        agent = bad.replace("\x00", "").replace("\x1b", "").replace("\x7f", "")[:4000]
        headers = {"user-agent": agent.encode().decode("latin-1")}
        for model in (bad, f"claude-{bad}"):
            response = await double.post(CHAT, hello(model=model), **headers)
            await treq.content(response)
    seen = await look(double)
    assert {tag for tag in seen.tags()} <= KNOWN
    assert not re.search("<script>alert|<img src=x", seen.html)


# -- privacy --


@ensureDeferred
async def test_nothing_that_was_said_is_shown(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", answer="CANARYanswer"))
    said = [
        {"role": "system", "content": "CANARYsystem"},
        {"role": "user", "content": "CANARYuser"},
    ]
    tools = [{"type": "function", "function": {"name": "CANARYtool", "description": "CANARYtext"}}]
    seen = []
    for order in (
        "",
        "[[middle exit]]",
        "[[error 529]]",
        '[[call CANARYtool {"a": "CANARYargs"}]]',
    ):
        asked = [*said, {"role": "user", "content": f"CANARYuser {order}"}]
        body = {"model": "haiku", "messages": asked, "tools": tools, "user": "CANARYfield"}
        await treq.content(await daemon.post(CHAT, body))
        seen.append(await everything(daemon))
    running = daemon.api.journal.running
    client = await held(daemon, "CANARYuser")
    await until(lambda: any(turn.facts.first_token for turn in running.values()))
    seen.append(await everything(daemon))
    client.abortConnection()
    await until(lambda: not running)
    assert len(seen) == 5 and "answering" in seen[-1]
    assert not re.search("CANARY", "".join(seen))


# -- much of it --


@pytest.mark.alone
@ensureDeferred
async def test_with_100_000_turns(double: Daemon) -> None:
    """A page of many turns takes no longer than one of few: what is added up is added up by hours,
    and what is looked for has an index."""
    ledger = ledger_of(double)
    await ledger._database.run(_fill, 100_000)
    seen = await look(double)
    assert "100k turns" in seen.text("usage")
    took = []
    for _ in range(5):
        double.api._page._sources._told = None  # as after every turn
        began = time.process_time()  # of all threads; others of this machine do not count
        await treq.content(await treq.get(double.url + "/", headers=HTML))
        took.append(time.process_time() - began)
    assert min(took) < 0.2, took


def _fill(cursor: Any, rows: int) -> None:
    """Turns of 30 days, and their hours: of three keys, models and clients."""
    cursor.execute(
        f"""
        WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {rows - 1})
        INSERT INTO turns (time, request_id, key, dialect, client, model, answered_by, placement,
            answers, body_bytes, cli_bytes, reply_bytes, queue_ms, total_ms, status, outcome,
            windows_before, windows_after, paid_by, input_tokens, output_tokens,
            cache_read_tokens, cache_write_tokens, reasoning_tokens, cache_write_1h_tokens)
        SELECT ? - i * 2500000.0 / {rows}, 'req_' || i, 'key' || i % 3, 'chat',
            'client' || i / 3 % 3, 'haiku', 'model' || i / 9 % 3, 'kept', 1, 1, 1, 1, 0, 1, 200,
            'ok', '{{}}', '{{"five_hour": 0.2}}', 'plan', 100, 10, 1000, 50, 0, 0 FROM n
        """,
        (time.time(),),
    )
    cursor.execute(
        """
        INSERT INTO hours SELECT CAST(time AS INTEGER) / 3600 * 3600, key, answered_by, client,
            count(*), 0, 0, 0, 0, 0, sum(input_tokens), sum(output_tokens), sum(cache_read_tokens),
            sum(cache_write_tokens), 0, 0 FROM turns GROUP BY 1, 2, 3, 4
        """
    )


@ensureDeferred
async def test_a_ledger_that_cannot_be_read(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    state = daemon.home / ".local/state/claudemax"
    state.rename(tmp_path / "aside")
    text = (await look(daemon)).html
    assert "the store does not answer; the log says why" in text and "keeps no turns" not in text
    (tmp_path / "aside").rename(state)
    assert "does not answer" not in (await look(daemon)).html
