"""A headless Chromium, steered through a pipe in its DevTools protocol. It blocks: for a thread."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)

SECONDS = 20.0
"""For anything that is waited for."""

_QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --remote-debugging-pipe"
).split()

_BECOME = (
    "import fcntl, os, sys\n"
    "read, write = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 20) for fd in sys.argv[1:3])\n"
    "os.dup2(read, 3), os.dup2(write, 4)\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)
"""The pipe has to be descriptors 3 and 4."""


class Navigated(Exception):
    """Another page has come meanwhile, and nothing is known of the former one."""


class Browser:
    """One page. ``errors``: what its console has said is wrong; ``asked``: the addresses of all
    requests."""

    def __init__(self, folder: Path, *, width: int = 1200, dark: bool = False) -> None:
        assert CHROMIUM is not None
        theirs, self._write = os.pipe()
        self._read, theirs_too = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BECOME, str(theirs), str(theirs_too), CHROMIUM, *_QUIET,
             f"--user-data-dir={folder}"],
            pass_fds=[theirs, theirs_too], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(theirs_too)
        self._buffer, self._number, self._session = b"", 0, ""
        self.errors: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=800,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self.call("Browser.close")
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def go(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return told["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + SECONDS
        while not self._is(expression):
            assert time.monotonic() < deadline, f"it did not happen in time: {expression}"
            time.sleep(0.05)

    def _is(self, expression: str) -> bool:
        with suppress(Navigated):
            return bool(self.value(f"!!({expression})"))  # an element has no value
        return False

    def call(self, method: str, **params: Any) -> Any:
        """The result of a command."""
        self._number += 1
        number = self._number
        sent = {"id": number, "method": method, "params": params}
        if self._session:
            sent["sessionId"] = self._session
        os.write(self._write, json.dumps(sent).encode() + b"\0")
        while True:
            told = self._message()
            if told.get("id") == number:
                if "navigated" in told.get("error", {}).get("message", ""):
                    raise Navigated
                assert "error" not in told, told
                return told["result"]
            self._note(told.get("method"), told.get("params", {}))

    def _message(self) -> Any:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 65536)
            if not data:
                raise OSError("the browser has gone")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: str | None, told: Any) -> None:
        if event == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("warning", "error"):
            self.errors.append(str(told["entry"]))
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("warning", "error"):
            self.errors.append(str(told["args"]))
