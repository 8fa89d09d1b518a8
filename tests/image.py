#!/usr/bin/env python3
"""The image of packaging/Containerfile, built by podman and run as packaging/compose.yaml says,
with the demo upstream: ``make image``.

No part of ``make test``, for it needs root, podman, and some minutes. All that podman makes is in
``.cache/image``. Where no registry can be reached, a Debian with Python made by debootstrap stands
in for the base image.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CONTAINERFILE = ROOT / "packaging" / "Containerfile"
COMPOSE = ROOT / "packaging" / "compose.yaml"
CACHE = ROOT / ".cache" / "image"
BASE = next(
    line.split()[1] for line in CONTAINERFILE.read_text().splitlines() if line.startswith("FROM ")
)
STAND_IN = ("trixie", "python3,python3-pip,python-is-python3,ca-certificates")
"""The Debian of ``BASE``, and what ``BASE`` has beyond it."""

PODMAN = ["podman", f"--root={CACHE / 'storage'}", f"--runroot={CACHE / 'run'}",
          "--cgroup-manager=cgroupfs"]  # fmt: skip
if shutil.which("runc"):  # which runs in more places than crun does
    PODMAN.append("--runtime=runc")

# Neither may be raised without CAP_SYS_RESOURCE, which root in a container has not.
LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]
BUILD = ["build", "--pull-never", "--isolation=chroot"]
ALONE = ["--network=none", "--cgroups=no-conmon"]

ASK = """
import json, sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen
key, hello = sys.argv[1:]
headers = {"content-type": "application/json", "host": "claudemax:3456"}
if key:
    headers["authorization"] = "Bearer " + open("/run/secrets/claudemax-key").read().strip()
url = "http://127.0.0.1:3456/v1/chat/completions"
try:
    answer = urlopen(Request(url, hello.encode(), headers), timeout=30).read()
    print(json.loads(answer)["choices"][0]["message"]["content"])
except HTTPError as error:
    print(error.code)
"""
HELLO = json.dumps({"model": "haiku", "messages": [{"role": "user", "content": "Hello"}]})

WHO = (
    "cat /proc/[0-9]*/status | grep -E '^(Name|Uid|CapEff|NoNewPrivs)' | cut -f1,2 | paste - - - -"
)
LOGIN = "/home/claude/.claude/.credentials.json"


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:5.0f} s  {text}", flush=True)


def podman(*arguments: str, fails: bool = False, **more: Any) -> str:
    """What podman prints; the run ends where it fails, unless it may (``fails``)."""
    ran = subprocess.run([*PODMAN, *arguments], capture_output=True, text=True, check=False, **more)
    if ran.returncode and not fails:
        sys.exit(f"podman {arguments[0]}: {ran.stdout}{ran.stderr}")
    return ran.stdout if not ran.returncode else ""


def has_base() -> None:
    """Has the base image at hand: from here, from its registry, or the stand-in."""
    if podman("images", "-q", BASE) or podman("pull", "-q", BASE, fails=True, timeout=300):
        return
    if not shutil.which("debootstrap"):
        sys.exit(f"image: {BASE} cannot be fetched, and there is no debootstrap to stand in for it")
    suite, packages = STAND_IN
    folder = CACHE / "base"
    shutil.rmtree(folder, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        sys.exit(made.stdout[-2000:])
    for mark in folder.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        mark.unlink()
    # A proxy on the way may have a certificate that only this machine knows.
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    shutil.copy(certificates, folder / certificates.relative_to("/"))
    with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as tar:
        podman("import", "-", BASE, stdin=tar.stdout)
    shutil.rmtree(folder)


def build() -> None:
    """Builds it, and sees that neither history nor environment was sent along."""
    (CACHE / "Context").write_text(f"FROM {BASE}\nCOPY . /src\n")
    podman(*BUILD, "-t", "context", "-f", str(CACHE / "Context"), str(ROOT))
    listed = podman("run", "--rm", *LIMITS, *ALONE, "context", "ls", "-A", "/src").split()
    assert {"setup.cfg", "claudeproxy", "README.rst"} <= set(listed), listed
    assert not {".git", ".venv", ".cache", "build", "dist"} & set(listed), listed
    podman("rmi", "context")
    podman(*BUILD, "--format=docker", "-t", "claudemax",
           "-f", str(CONTAINERFILE), str(ROOT))  # fmt: skip
    (about,) = json.loads(podman("inspect", "claudemax"))
    assert about["Config"]["User"] == "claude"
    assert about["Healthcheck"]["Test"][0] == "CMD"
    say(f"built: {about['Size'] >> 20} MB, of which the base is {size(BASE) >> 20}")


def size(image: str) -> int:
    (about,) = json.loads(podman("inspect", image))
    return int(about["Size"])


def start(key: Path) -> None:
    """As compose does, with the demo upstream and no network."""
    service = yaml.safe_load(COMPOSE.read_text())["services"]["claudemax"]
    (secret,) = service["secrets"]
    flags = [f"--volume={key}:/run/secrets/{secret['target']}:ro"]
    flags += [f"--volume={volume}" for volume in service["volumes"]]
    flags += [f"--cap-drop={name}" for name in service["cap_drop"]]
    flags += [f"--security-opt={option}" for option in service["security_opt"]]
    flags += ["--init"] if service["init"] else []
    flags += [f"--stop-timeout={service['stop_grace_period'].removesuffix('s')}"]
    podman("run", "-d", "--name=daemon", "--env=CLAUDEMAX_DEMO=1", *flags, *LIMITS, *ALONE,
           "claudemax", *service["command"])  # fmt: skip
    until = time.monotonic() + 60
    healthy = [*PODMAN, "healthcheck", "run", "daemon"]
    while subprocess.run(healthy, capture_output=True, check=False).returncode:
        if time.monotonic() > until:
            sys.exit("image: it is not healthy within a minute:\n" + logs())
        time.sleep(0.5)


def logs() -> str:
    ran = subprocess.run([*PODMAN, "logs", "daemon"], capture_output=True, text=True, check=True)
    return ran.stdout + ran.stderr


def stop() -> None:
    began = time.monotonic()
    podman("stop", "daemon")
    assert "Server Shut Down." in logs()
    podman("rm", "daemon")
    say(f"ended in {time.monotonic() - began:.1f} s")


def inside(*command: str, **more: Any) -> str:
    return podman("exec", "-i", "daemon", *command, **more).strip()


def check() -> None:
    """It serves those who have the key, and nothing in it has a right."""
    assert inside("python", "-", "key", HELLO, input=ASK) == "You said: Hello"
    assert inside("python", "-", "", HELLO, input=ASK) == "401"
    own = ("claudemax", "claude")
    lines = [line.split() for line in inside("sh", "-c", WHO).splitlines()]
    facts = [(line[1], line[3], line[5], line[7]) for line in lines if line[1] in own]
    assert {name for name, *_ in facts} == set(own), lines
    assert {tuple(rest) for _, *rest in facts} == {("1000", "0" * 16, "1")}, lines
    say("serves as an ordinary user without rights: " + ", ".join(sorted(n for n, *_ in facts)))


def main() -> None:
    if os.geteuid() != 0 or not shutil.which("podman"):
        print("image: skipped: it needs root, and podman on the PATH")
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    podman("rm", "-f", "daemon", fails=True)  # what a run before left
    podman("volume", "rm", "-f", "login", "state", fails=True)
    has_base()
    say(f"{BASE} is here")
    build()
    key = CACHE / "key"
    key.unlink(missing_ok=True)
    key.write_text(secrets.token_urlsafe())
    key.chmod(0o400)
    os.chown(key, 1000, 1000)
    start(key)
    check()
    inside("sh", "-c", f"umask 077; echo '{{}}' > {LOGIN}")
    stop()
    start(key)  # another container, the same volumes
    assert inside("stat", "-c", "%U %a", LOGIN) == "claude 600"
    state = inside("ls", "/home/claude/.local/state/claudemax").split()
    assert "ledger.sqlite" in state, state
    say("a new container has the login and the state of the one before")
    check()
    stop()
    podman("volume", "rm", "login", "state")


BEGAN = time.monotonic()

if __name__ == "__main__":
    main()
