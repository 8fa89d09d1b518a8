"""The page in a real browser, where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import treq
from browser import CHROMIUM, Browser
from harness import Daemon, in_thread, until
from looking import held, hello, key_file
from pytest_twisted import ensureDeferred

from claudeproxy.testing import fake_cli

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH"),
]

NOW = "document.querySelector('#now tbody tr')"

CONNECTED = "document.getElementById('stale').hidden"

CHARTS = "[...document.images].map(one => one.currentSrc).join()"

ASKED = "performance.getEntriesByType('resource').some(one => one.name.endsWith('/main'))"
"""The stream of changes is open: the page has asked for what it shows."""

HOLD_ANSWERS = """
const text = "<main data-summary='arrived'></main>";
window.fetch = () => new Promise((arrived) => {
  window.arrive = () => arrived(new Response(text));
});
"""
"""What is asked for from now on arrives when it is told to."""


async def browser(folder: Path, **how: Any) -> Browser:
    made: Browser = await in_thread(Browser, folder / "profile", **how)
    return made


async def daemon_of(make_daemon: Any, folder: Path, **settings: Any) -> Daemon:
    daemon: Daemon = await make_daemon(claude=fake_cli(folder / "cli"), **settings)
    return daemon


def cut(daemon: Daemon) -> None:
    for channel in list(daemon.api.site.channels):
        channel.forceAbortClient()


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (360, True)])
@ensureDeferred
async def test_it_looks_as_it_should(
    make_daemon: Any, tmp_path: Path, width: int, dark: bool
) -> None:
    daemon = await daemon_of(make_daemon, tmp_path)
    await treq.content(await daemon.post("/v1/chat/completions", hello()))
    page = await browser(tmp_path, width=width, dark=dark)
    await in_thread(page.go, daemon.url + "/")
    drawn = "[...document.images].every(one => one.complete && one.naturalWidth)"
    await in_thread(page.until, f"{drawn} && document.images.length === 4")
    shade = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    assert (await in_thread(page.value, shade) < 128) is dark
    assert await in_thread(page.value, "document.documentElement.scrollWidth") <= width
    charts = await in_thread(page.value, CHARTS)
    assert charts.count("-340.svg" if width < 640 else "-620.svg") == 4
    await until(lambda: len(daemon.api._page._live))
    await in_thread(page.close)
    assert page.errors == []
    assert page.asked and all(url.startswith(daemon.url + "/") for url in page.asked)
    await until(lambda: not len(daemon.api._page._live))


@ensureDeferred
async def test_a_turn_comes_and_goes(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await daemon_of(make_daemon, tmp_path)
    page = await browser(tmp_path)
    await in_thread(page.go, daemon.url + "/")
    await in_thread(page.value, "document.getElementById('figures-24h').open = true")
    await until(lambda: len(daemon.api._page._live))
    assert await in_thread(page.value, f"{NOW} === null")
    turn = await held(daemon, '<img src=x onerror="document.title=1">')
    await in_thread(page.until, f"{NOW} && {NOW}.textContent.includes('answering')")
    told = "document.getElementById('summary').textContent"
    assert await in_thread(page.value, told) == "1 running, 0 waiting"
    turn.abortConnection()
    await in_thread(page.until, f"!{NOW} && {told} === 'idle'")
    await in_thread(page.until, "document.querySelector('#turns tbody tr')")
    await in_thread(page.until, "document.querySelector('#figures-24h tbody tr')")
    assert await in_thread(page.value, "document.getElementById('figures-24h').open")
    charts = await in_thread(page.value, CHARTS)
    assert charts.count("-620.svg") == 4, "what was exchanged is of the same width"
    assert await in_thread(page.value, "document.title") == "claudemax"
    await in_thread(page.close)
    assert page.errors == []


@ensureDeferred
async def test_it_says_when_it_is_cut_off(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await daemon_of(make_daemon, tmp_path)
    page = await browser(tmp_path)
    await in_thread(page.go, daemon.url + "/")
    await in_thread(page.until, f"{CONNECTED} && {ASKED}")
    cut(daemon)
    await in_thread(page.until, f"!{CONNECTED}")
    await in_thread(page.until, CONNECTED)
    await in_thread(page.close)


@ensureDeferred
async def test_an_answer_on_its_way_when_it_is_cut_off_does_not_say_it_is_connected(
    make_daemon: Any, tmp_path: Path
) -> None:
    daemon = await daemon_of(make_daemon, tmp_path)
    page = await browser(tmp_path)
    await in_thread(page.go, daemon.url + "/")
    await in_thread(page.until, f"{CONNECTED} && {ASKED}")
    await in_thread(page.value, HOLD_ANSWERS)
    turn = await held(daemon, "Hello")
    await in_thread(page.until, "window.arrive")
    cut(daemon)
    await in_thread(page.until, f"!{CONNECTED}")
    await in_thread(page.value, "arrive()")
    await in_thread(page.until, "document.getElementById('summary').textContent === 'arrived'")
    assert await in_thread(page.value, CONNECTED) is False
    turn.abortConnection()
    await in_thread(page.close)


@ensureDeferred
async def test_signing_in(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await daemon_of(make_daemon, tmp_path, api_key_file=key_file(tmp_path))
    page = await browser(tmp_path)
    await in_thread(page.go, daemon.url + "/")
    submit = "document.getElementById('key').value = '{}'; document.forms[0].requestSubmit()"
    await in_thread(page.value, submit.format("wrong"))
    await in_thread(page.until, "document.querySelector('[role=alert]')")
    await in_thread(page.value, submit.format("s3cret"))
    await in_thread(page.until, "document.getElementById('plan')")
    assert await in_thread(page.value, "document.cookie") == "", "no script gets at it"
    assert await in_thread(page.value, "location.pathname") == "/"
    await in_thread(page.value, "document.querySelector('.sign-out button').click()")
    await in_thread(page.until, "document.getElementById('key')")
    await in_thread(page.go, daemon.url + "/")
    assert await in_thread(page.value, "document.getElementById('plan') === null")
    await in_thread(page.close)
    assert all("401" in error for error in page.errors), page.errors
