"""The files in packaging/ and examples/, by what reads them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from harness import newest_cli
from programs import HAPROXY, HELLO, fetch, free_port_number, running

from claudeproxy.cli.process import GRACE_LOGIN
from claudeproxy.options import Settings, load, table
from claudeproxy.service import LAST_BYTES
from claudeproxy.tap import Options
from claudeproxy.web.responses_socket import LIFETIME
from claudeproxy.web.site import HEADER_SECONDS
from claudeproxy.web.sse import KEEP_ALIVE
from claudeproxy.web.websocket import PING

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
TWISTD = str(Path(sys.executable).with_name("twistd"))


def unit(name: str) -> dict[str, list[str]]:
    """Every ``Key=`` of a unit and its values."""
    found: dict[str, list[str]] = {}
    for line in (PACKAGING / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_systemd_hands_over_the_socket_the_daemon_asks_for() -> None:
    listens = unit("claudemax@.socket")
    variable = unit("claudemax@.service.d/socket.conf")["Environment"][0]
    name, _, value = variable.partition("=")
    (endpoint,) = load({}, {name: value}).port
    assert endpoint == f"systemd:domain=INET:name={listens['FileDescriptorName'][0]}"
    assert listens["ListenStream"] == ["127.0.0.1:3456"]


def test_container_serves_only_with_a_key() -> None:
    text = (PACKAGING / "Containerfile").read_text()
    variables = dict(re.findall(r"(CLAUDEMAX_\w+)=(\S+)", text))
    settings = load({}, variables)
    assert settings.port == ("tcp:3456",)
    assert settings.api_key_file is not None
    assert "\nUSER claude\n" in text


def test_packaging_is_no_package() -> None:
    assert not list(PACKAGING.rglob("__init__.py"))


# -- run for real --


def demo(**more: str) -> dict[str, str]:
    """The environment of a daemon of this tree with the demo."""
    return {
        "PYTHONPATH": str(ROOT),
        "CLAUDEMAX_DEMO": "1",
        "CLAUDEMAX_CLAUDE": newest_cli(),
        "CLAUDEMAX_WARM": "1",
        **more,
    }


@pytest.mark.cli
def test_embedding_example(tmp_path: Path) -> None:
    port = free_port_number()
    tac = str(ROOT / "examples" / "embedding.tac")
    environ = demo(LISTEN=f"tcp:{port}:interface=127.0.0.1")
    with running([TWISTD, "--pidfile=", "-ny", tac], tmp_path, environ=environ):
        url = f"http://localhost:{port}"
        assert fetch(url) == b"A page of our own.\n"
        assert json.loads(fetch(url + "/claude/health"))["upstream"] == "demo"
        answer = json.loads(fetch(url + "/claude/v1/chat/completions", HELLO))
        assert answer["choices"][0]["message"]["content"] == "You said: Hello"
        large = {**HELLO, "user": "x" * 1_000_000}  # which twisted.web would put on disk
        answer = json.loads(fetch(url + "/claude/v1/chat/completions", large))
        assert answer["choices"][0]["message"]["content"] == "You said: Hello"


@pytest.mark.cli
def test_socket_from_systemd(tmp_path: Path) -> None:
    """As systemd does it: the socket is descriptor 3, and LISTEN_PID is the daemon's own."""
    (variable,) = unit("claudemax@.service.d/socket.conf")["Environment"]
    name, _, value = variable.partition("=")
    environ = demo(LISTEN_FDNAMES="claudemax", **{name: value})
    become = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3, inheritable=True)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        daemon = [TWISTD, "-n", "--pidfile=", "claudemax"]
        command = [sys.executable, "-c", become, str(number), *daemon]
        with running(command, tmp_path, environ=environ, pass_fds=[number]):
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/chat/completions"
            assert b"You said: Hello" in fetch(url, HELLO)


# -- several nodes --

NODES = ("compose.cluster.yaml", "kubernetes.yaml")
OTHERS = {"--from-file", "--detach", "--rm", "--username", "--dbname", "--host"}
"""Options of other programs."""


def described(name: str) -> list[Any]:
    """The documents of a file of YAML."""
    return list(yaml.safe_load_all((PACKAGING / name).read_text()))


def kind(name: str) -> Any:
    (found,) = [one for one in described("kubernetes.yaml") if one["kind"] == name]
    return found


def node_arguments(name: str) -> list[str]:
    """What a node is started with; ``--store`` comes with the database."""
    if name == "kubernetes.yaml":
        (container,) = kind("StatefulSet")["spec"]["template"]["spec"]["containers"]
        arguments = container["args"]
    else:
        (compose,) = described(name)
        arguments = compose["services"]["node-a"]["command"]
        assert compose["services"]["node-b"]["command"] == arguments
    assert arguments[0] == "serve"
    assert not any(re.search(r"://[^/]*:[^/]*@", one) for one in arguments)  # that is a password
    return [one for one in arguments[1:] if not one.startswith("--store=")]


def node_settings(name: str) -> Settings:
    options = Options()
    arguments = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", one) for one in node_arguments(name)]
    with patch.dict(os.environ, {}, clear=True):
        options.parseOptions(arguments)
    return options.settings


def haproxy_config() -> str:
    return (PACKAGING / "haproxy.cfg").read_text()


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9]+)(ms|s)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, "s": 1.0}[unit]


def timeouts() -> dict[str, float]:
    found = re.findall(r"^ +timeout ([\w-]+) (\w+)$", haproxy_config(), re.MULTILINE)
    return {name: seconds(text) for name, text in found}


@pytest.mark.parametrize("name", ["haproxy.cfg", *NODES])
def test_the_options_that_these_files_name_exist(name: str) -> None:
    known = {"--" + field.replace("_", "-") for field, _ in table()} | OTHERS
    known.add("--store")  # of the database
    named = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", (PACKAGING / name).read_text()))
    assert named - known == set()


@pytest.mark.parametrize("name", NODES)
def test_a_balancer_notices_a_node_that_stops(name: str) -> None:
    check = dict(re.findall(r"(inter|fastinter|fall) (\w+)", haproxy_config()))
    longest = timeouts()["check"] + seconds(check["inter"])
    longest += (int(check["fall"]) - 1) * seconds(check["fastinter"])
    assert longest < node_settings(name).drain_notice


def test_a_node_has_the_time_to_stop() -> None:
    def goodbye(name: str) -> float:
        settings = node_settings(name)
        return max(settings.drain, settings.drain_notice) + GRACE_LOGIN + LAST_BYTES

    (compose,) = described("compose.cluster.yaml")
    for service in ("node-a", "node-b"):
        grace = seconds(compose["services"][service]["stop_grace_period"])
        assert grace > goodbye("compose.cluster.yaml") + 5
    pod = kind("StatefulSet")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > goodbye("kubernetes.yaml") + 5


def test_the_balancer_waits_as_long_as_the_nodes() -> None:
    found, settings = timeouts(), Settings()
    longest = max(
        settings.turn_timeout, settings.first_token_timeout, settings.idle_timeout, settings.park
    )
    assert found["client"] == found["server"] >= 2 * longest  # one turn waits for another
    assert found["server"] > 2 * KEEP_ALIVE
    assert found["tunnel"] >= LIFETIME and found["tunnel"] > 2 * PING
    assert found["http-request"] >= HEADER_SECONDS
    assert f"req.body_size gt {settings.max_body} " in haproxy_config()


def test_the_balancers_errors_are_those_of_openai() -> None:
    found = re.findall(
        r"^ +http-(?:error|request return) status (\d+) content-type application/json "
        r"string '([^']+)' hdr (\S+) (\S+)",
        haproxy_config(), re.MULTILINE,
    )  # fmt: skip
    told = {status: (json.loads(body)["error"], name, value) for status, body, name, value in found}
    assert set(told) == {"413", "502", "503", "504"}
    for error, _, _ in told.values():
        assert set(error) == {"message", "type", "param", "code"}
    # Of these nobody knows whether they were paid for.
    assert told["502"][1:] == told["504"][1:] == ("x-should-retry", "false")
    assert told["503"][1] == "retry-after"


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
def test_haproxy_takes_its_configuration() -> None:
    assert HAPROXY is not None
    config = str(PACKAGING / "haproxy.cfg")
    command = [HAPROXY, "-dW", "-c", "-f", config]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_each_node_has_a_login_and_a_state_of_its_own() -> None:
    (compose,) = described("compose.cluster.yaml")
    volumes = [
        volume.partition(":")[0]
        for service in ("node-a", "node-b")
        for volume in compose["services"][service]["volumes"]
    ]
    assert len(set(volumes)) == 4 and set(volumes) < set(compose["volumes"])
    (claim,) = kind("StatefulSet")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    (container,) = kind("StatefulSet")["spec"]["template"]["spec"]["containers"]
    environ = {one["name"]: one["value"] for one in container["env"]}
    (data,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "data"]
    for name in ("CLAUDE_CONFIG_DIR", "XDG_STATE_HOME"):
        assert environ[name].startswith(f"{data}/")


def test_no_probe_kills_a_node_that_drains_or_has_no_login() -> None:
    (container,) = kind("StatefulSet")["spec"]["template"]["spec"]["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "liveness": "/", "readiness": "/health",
    }  # fmt: skip
    for probe in probes.values():  # else it would be the pod's address, which the gate refuses
        assert probe["httpHeaders"] == [{"name": "Host", "value": "localhost"}]


def test_kubernetes_passes_no_options_by_accident() -> None:
    """A Service named claudemax makes a variable CLAUDEMAX_PORT in every pod."""
    assert kind("StatefulSet")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_pods_have_no_rights() -> None:
    for name in ("StatefulSet", "Deployment"):
        pod = kind(name)["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip


def test_the_balancer_reaches_the_nodes_that_there_are() -> None:
    (compose,) = described("compose.cluster.yaml")
    services = compose["services"]
    named = [services["balancer"]["environment"][name] for name in ("NODE_A", "NODE_B")]
    assert named == [
        f"{services[node]['networks']['nodes']['ipv4_address']}:3456"
        for node in ("node-a", "node-b")
    ]
    (container,) = kind("Deployment")["spec"]["template"]["spec"]["containers"]
    environ = {one["name"]: one["value"] for one in container["env"]}
    pods = {
        f"{one['metadata']['name']}:{one['spec']['ports'][0]['port']}": selector
        for one in described("kubernetes.yaml")
        if one["kind"] == "Service"
        and (selector := one["spec"]["selector"].get("statefulset.kubernetes.io/pod-name"))
    }
    assert pods == {environ["NODE_A"]: "claudemax-0", environ["NODE_B"]: "claudemax-1"}
    variables = set(re.findall(r'"\$\{(\w+)\}"', haproxy_config()))
    assert variables == set(re.findall(r"presetenv (\w+)", haproxy_config()))
    assert set(environ) < variables
    assert set(services["balancer"]["environment"]) < variables
