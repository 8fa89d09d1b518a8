"""What the suites and the clients need: their environments, and a daemon to talk to."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "conformance"
ALIASES = "gpt-6-astra gpt-3.5-turbo-instruct gpt-5 claude-opus-5-5 gpt-5.5".split()
"""Models that the suites and clients ask for, whatever a server has."""

QUIET = ("--disable-pip-version-check", "-q")


def python(name: str = "", made_by: str = sys.executable) -> Path:
    """The Python of the environment that ``requirements[-name].txt`` pins, made by need with the
    Python ``made_by``."""
    pins = HERE / (f"requirements-{name}.txt" if name else "requirements.txt")
    home = CACHE / (name or "python")
    found = home / "bin" / "python"
    if _stale(home, pins):
        subprocess.run([made_by, "-m", "venv", "--clear", home], check=True)
        subprocess.run([found, "-m", "pip", "install", *QUIET, "-r", pins], check=True)
        _done(home, pins)
    return found


def sdist(package: str, version: str) -> Path:
    """The unpacked source of a package: its tests are not in the wheel."""
    home = CACHE / f"{package}-{version}"
    if not home.exists():
        fetch = ("download", *QUIET, "--no-binary", ":all:", "--no-deps", "-d", str(CACHE))
        subprocess.run([python(), "-m", "pip", *fetch, f"{package}=={version}"], check=True)
        # Before 3.10.12 and 3.11.4 there is no filter, nor that argument.
        checked = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        shutil.unpack_archive(CACHE / f"{home.name}.tar.gz", CACHE, **checked)
    return home


def checkout(url: str, commit: str) -> Path:
    """The files of a repository at ``commit``."""
    home = CACHE / Path(url).name
    if not home.exists():
        subprocess.run(["git", "clone", "--quiet", url, home], check=True)
    subprocess.run(["git", "-C", home, "checkout", "--quiet", commit], check=True)
    return home


def node() -> Path:
    """The folder of the npm packages that ``package.json`` pins."""
    pins = HERE / "package.json"
    home = CACHE / "node"
    if _stale(home, pins):
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(pins, home)
        install = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run([*install, "--prefix", home], check=True)
        _done(home, pins)
    return home / "node_modules"


def _stale(home: Path, pins: Path) -> bool:
    stamp = home / ".pins"
    return not stamp.exists() or stamp.read_bytes() != pins.read_bytes()


def _done(home: Path, pins: Path) -> None:
    shutil.copy(pins, home / ".pins")


@contextmanager
def daemon() -> Iterator[str]:
    """The URL of a daemon with the demo upstream, in a home of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    twistd = Path(sys.executable).with_name("twistd")
    options = ["--demo", "--port", str(port), "--queue", "256"]
    for name in ALIASES:
        options += ["--model-alias", f"{name}=sonnet"]
    with tempfile.TemporaryDirectory() as home:
        command = [twistd, "-n", "--pidfile=", "--logfile=daemon.log", "claudemax", *options]
        environ = {**os.environ, "HOME": home, "PYTHONPATH": str(HERE.parent)}
        running = subprocess.Popen(command, cwd=home, env=environ)
        try:
            _await(url, running)
            yield url
        finally:
            running.terminate()
            running.wait()


def _await(url: str, running: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            return
        except OSError:
            if running.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit("the daemon does not start: see what it says above")
