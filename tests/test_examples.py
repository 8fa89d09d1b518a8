"""The examples of the Python API, run as their first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from harness import newest_cli, until
from programs import fetch, free_port_number, running
from pytest_twisted import ensureDeferred
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.words.protocols.irc import IRCClient
from twisted.words.service import InMemoryWordsRealm, IRCFactory

from claudeproxy.testing import fake_cli, journal

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TWISTD = str(Path(sys.executable).with_name("twistd"))

pytestmark = pytest.mark.cli


@pytest.mark.parametrize("name", ["irc_bot.py", "answering_site.py"])
def test_they_are_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 80


class Ann(IRCClient):
    """Somebody in the channel. ``heard``: what was said, with where and by whom."""

    nickname = "ann"
    password = "pw"

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str]] = []
        self.present: set[str] = set()

    def signedOn(self) -> None:
        self.join("#talk")

    def userJoined(self, user: str, channel: str) -> None:
        self.present.add(user)

    def privmsg(self, user: str, channel: str, message: str) -> None:
        self.heard.append((user.partition("!")[0], channel, message))


@ensureDeferred
async def test_the_irc_bot(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    realm = InMemoryWordsRealm("test")
    realm.createGroupOnRequest = True
    users = InMemoryUsernamePasswordDatabaseDontUse()
    for name in ("ann", "claudebot"):
        users.addUser(name, "pw")
    server = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port = await server.listen(IRCFactory(realm, Portal(realm, [users])))
    number = port.getHost().port
    ann = Ann()
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", number), ann)
    bot = str(EXAMPLES / "irc_bot.py")
    environ = {"PYTHONPATH": str(ROOT), "CLAUDEMAX_URL": daemon.url, "IRC_PASSWORD": "pw"}
    command = [sys.executable, bot, f"tcp:127.0.0.1:{number}", "claudebot", "#talk"]
    with open(tmp_path / "log", "wb") as out:
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out)
    try:
        await until(lambda: "claudebot" in ann.present, 30)
        ann.msg("#talk", "claude is not addressed here")
        ann.msg("#talk", "claudebot: what is it?")
        (said,) = await until(lambda: ann.heard)
        assert said == ("claudebot", "#talk", "You said: ann: what is it?")
        ann.msg("#talk", "claudebot: [[middle exit]]")
        said = (await until(lambda: ann.heard[1:]))[0]
        assert said == ("claudebot", "#talk", "ann: I cannot answer now (upstream).")
        ann.msg("claudebot", "a word in private")
        said = (await until(lambda: ann.heard[2:]))[0]
        assert said == ("claudebot", "ann", "You said: ann: a word in private")
        ann.msg("#talk", "claudebot: [[deltas 1000]][[pause 0.05]]")
        await until(lambda: daemon.api.journal.running)
        ann.msg("#talk", "claudebot: and this?")
        said = (await until(lambda: ann.heard[3:]))[0]
        assert said == ("claudebot", "#talk", "ann: one question at a time, please.")
        process.terminate()  # its connections close, and what it has asked for ends
        await until(lambda: daemon.api.engine.admission.running == 0)
        turns = [line for line in journal(daemon.api.cli.executable) if line.startswith("turn")]
        assert len(turns) == 4
    finally:
        process.kill()
        process.wait()
        assert (
            b"HTTP11ClientFactory" not in (tmp_path / "log").read_bytes()
        )  # no noise of connections
        ann.transport.loseConnection()
        await port.stopListening()


def test_the_answering_site(tmp_path: Path) -> None:
    port = free_port_number()
    environ = {
        "PYTHONPATH": str(ROOT),
        "CLAUDEMAX_DEMO": "1",
        "CLAUDEMAX_CLAUDE": newest_cli(),
        "CLAUDEMAX_CONCURRENCY": "1",
        "CLAUDEMAX_QUEUE": "0",
        "LISTEN": f"tcp:{port}:interface=127.0.0.1",
    }
    url = f"http://127.0.0.1:{port}"

    def ask(question: str, **headers: str) -> Any:
        data = urlencode({"question": question}).encode()
        return urlopen(Request(f"{url}/answer", data, headers), timeout=60)

    site = str(EXAMPLES / "answering_site.py")
    with running([TWISTD, "--pidfile=", "-ny", site], tmp_path, environ=environ):
        assert b"<form" in fetch(url)
        page = ask("Is 1 < 2?").read().decode()
        assert '<h1>Is 1 &lt; 2?</h1><div class="said">You said: Is 1 &lt; 2?</div>' in page
        with ask("[[say One]][[hang]]") as unended:
            shown = b""
            while b'"said">One' not in shown:
                shown += unended.read1()
            assert b"come back later" in ask("Meanwhile").read()
        # Its reader has left: its slot is free.
        for _ in range(100):
            page = ask("Now").read().decode()
            if "come back later" not in page:
                break
        assert "You said: Now" in page
        for question in ("", "x" * 5000):
            with pytest.raises(OSError, match="400"):
                ask(question)
        with pytest.raises(OSError, match="403"):
            ask("Hi", **{"Sec-Fetch-Site": "cross-site"})
