"""A node fails or stops behind HAProxy: two daemons of their own, and the real balancer."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from matrix import fault
from programs import HAPROXY, free_port_number
from subdaemon import Twistd, said, wait
from websockets.sync.client import connect

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")

CONFIG = Path(__file__).parents[2] / "packaging" / "haproxy.cfg"
OPTIONS = ("--drain", "20", "--drain-notice", "2")
LONG = "x[[deltas 60]][[pause 0.05]]"
WHOLE = "You said: x" + "x" * 59


@define
class Cluster:
    """Nodes by their names in HAProxy's configuration, and what is in front of them."""

    nodes: dict[str, Twistd]
    port: int
    admin: str

    def turn(self, text: str, name: str | None = None, **fields: Any) -> HTTPResponse:
        """The reply to a turn of the conversation ``name``, once it has begun."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = {"model": "sonnet", "messages": [{"role": "user", "content": text}], **fields}
        headers = {"content-type": "application/json"}
        if name is not None:
            headers["x-claudemax-conversation"] = name
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        return connection.getresponse()

    def command(self, line: str) -> str:
        """What HAProxy answers to its owner."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.admin)
            client.sendall(line.encode() + b"\n")
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def stats(self, field: str) -> dict[str, str]:
        """A field of HAProxy's statistics, by node."""
        names, *lines = self.command("show stat nodes 4 -1").strip().splitlines()
        at = names.removeprefix("# ").split(",").index(field)
        return {line.split(",")[1]: line.split(",")[at] for line in lines}

    def conversations(self, node: str) -> Iterator[str]:
        """Names of conversations that go to ``node``."""
        for number in count():
            before = self.stats("stot")[node]
            assert self.turn("which", f"c{number}").read()
            if self.stats("stot")[node] != before:
                yield f"c{number}"

    def began(self, node: str) -> HTTPResponse:
        """A streamed answer that ``node`` is giving."""
        return self.turn(LONG, next(self.conversations(node)), stream=True)

    def all_is_well(self) -> None:
        assert [self.turn("y", f"n{number}").status for number in range(8)] == [200] * 8


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    ports = {name: free_port_number() for name in "ab"}
    nodes = {}
    for name, port in ports.items():
        (tmp_path / name).mkdir()
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        nodes[name] = Twistd(tmp_path / name, *OPTIONS, "--port", endpoint)
    port, admin = free_port_number(), str(tmp_path / "admin")
    environ = {
        "BIND": f"127.0.0.1:{port}", "ADMIN_SOCKET": admin,
        "NODE_A": f"127.0.0.1:{ports['a']}", "NODE_B": f"127.0.0.1:{ports['b']}",
    }  # fmt: skip
    assert HAPROXY is not None
    balancer = None
    try:
        for node in nodes.values():
            node.up()
        with open(tmp_path / "haproxy.log", "wb") as log:
            balancer = subprocess.Popen(
                [HAPROXY, "-db", "-f", str(CONFIG)], env=environ, stdout=log, stderr=log
            )
        made = Cluster(nodes, port, admin)
        wait(lambda: os.path.exists(admin))
        # At once in full, which otherwise takes ten seconds.
        for node in nodes:
            wait(lambda node=node: made.stats("check_status")[node] == "L7OK")
            made.command(f"set weight nodes/{node} 100%")
        yield made
    finally:
        for process in [balancer, *(node.process for node in nodes.values())]:
            if process is not None:
                process.kill()
                process.wait()
        for node in nodes.values():
            wait(lambda node=node: not node.children, 5.0)


@fault("node", "is drained by `set server` of HAProxy",
       "its streams end; new turns go to the other node, and none fails")  # fmt: skip
def test_drained_by_its_balancer(cluster: Cluster) -> None:
    answer = cluster.began("a")
    cluster.command("set server nodes/a state drain")
    served = cluster.stats("stot")["a"]
    cluster.all_is_well()
    assert cluster.stats("stot")["a"] == served
    assert said(answer) == WHOLE
    cluster.command("set server nodes/a state ready")
    assert next(cluster.conversations("a"))


@fault("node", "gets SIGTERM with --drain-notice",
       "its streams end; it serves what comes before HAProxy has noticed, and the rest goes to the "
       "other node: no turn fails")  # fmt: skip
def test_stopped(cluster: Cluster) -> None:
    name = next(cluster.conversations("a"))
    answer = cluster.turn(LONG, name, stream=True)
    cluster.nodes["a"].process.terminate()
    while not cluster.stats("status")["a"].startswith("DOWN"):
        assert cluster.turn("y", name).status == 200
    assert cluster.nodes["a"].listens, "HAProxy has noticed before the port was closed"
    cluster.all_is_well()
    assert said(answer) == WHOLE
    assert cluster.nodes["a"].process.wait(10) == 0
    cluster.all_is_well()


@fault("node", "is killed",
       "its streams break off; a turn of which nothing was sent gets 502 with x-should-retry: "
       "false; the next ones go to the other node at once")  # fmt: skip
def test_killed(cluster: Cluster) -> None:
    answer = cluster.began("a")
    silent = HTTPConnection("127.0.0.1", cluster.port, timeout=60)
    body = {"model": "sonnet", "messages": [{"role": "user", "content": LONG}]}
    running = cluster.nodes["a"]
    headers = {"content-type": "application/json"}
    headers["x-claudemax-conversation"] = next(cluster.conversations("a"))
    silent.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    wait(lambda: json.load(running.get("/health"))["turns"]["running"] == 2)
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    cluster.all_is_well()
    lost = silent.getresponse()
    assert (lost.status, lost.headers["x-should-retry"]) == (502, "false")
    assert json.load(lost)["error"]["code"] == "node_lost"
    with pytest.raises(Exception, match="IncompleteRead"):
        answer.read()
    assert cluster.nodes["b"].say("y") == "You said: y"


@fault("node", "is the last to go", "503 with retry-after, in OpenAI's words")
def test_the_last(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
    reply = cluster.turn("x")
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert reply.headers["x-should-retry"] is None
    assert json.load(reply)["error"]["code"] == "no_node"


@fault("node", "is asked through HAProxy by a client that leaves before the answer",
       "its turn ends at once")  # fmt: skip
def test_a_client_leaves(cluster: Cluster) -> None:
    def running() -> int:
        told = [json.load(node.get("/health")) for node in cluster.nodes.values()]
        return sum(one["turns"]["running"] for one in told)

    body = {"model": "sonnet", "messages": [{"role": "user", "content": "x[[deltas 2000]]"
                                             "[[pause 0.05]]"}]}  # fmt: skip
    leaving = HTTPConnection("127.0.0.1", cluster.port, timeout=60)
    headers = {"content-type": "application/json"}
    leaving.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    wait(lambda: running() == 1)
    leaving.close()
    wait(lambda: running() == 0)


def test_streams_come_as_they_are_written(cluster: Cluster) -> None:
    answer = cluster.turn("x[[deltas 2000]][[pause 0.05]]", stream=True)
    # 2,000 deltas take 100 seconds; the first ones do not fill any buffer.
    assert b'"content":"x"' in b"".join(answer.readline() for _ in range(20))
    answer.close()


def test_a_websocket_goes_through(cluster: Cluster) -> None:
    url = f"ws://127.0.0.1:{cluster.port}/v1/responses"
    with connect(url, proxy=None, additional_headers={"x-claudemax-conversation": "w"}) as talk:
        assert talk.response is not None
        assert talk.response.headers["x-claudemax-conversation"] == "w"
        for text in ("x", "y"):
            talk.send(json.dumps({"type": "response.create", "model": "haiku", "input": text}))
            while json.loads(talk.recv(timeout=30))["type"] != "response.completed":
                pass


def test_a_body_that_is_larger_than_any_buffer(cluster: Cluster) -> None:
    reply = cluster.turn("z" * 3_000_000)
    assert reply.status == 200
    assert len(json.load(reply)["choices"][0]["message"]["content"]) > 3_000_000


def test_a_conversation_stays_where_it_is(cluster: Cluster) -> None:
    before = cluster.stats("stot")
    first = cluster.turn("x")
    name = first.headers["x-claudemax-conversation"]
    first.read()
    assert name is not None
    ways = [cluster.turn("x", name) for _ in range(6)]
    assert all(way.headers["x-claudemax-conversation"] == name for way in ways)
    after = cluster.stats("stot")
    grown = sorted(int(after[node]) - int(before[node]) for node in after)
    assert sum(grown) == 7 and grown[0] <= 1
