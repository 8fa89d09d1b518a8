"""Server-sent events, as the daemon and proxies in front of it write them."""

from __future__ import annotations

from claudeproxy.cli.lines import Lines


class EventStream:
    """``feed`` takes bytes cut anywhere and returns the data of the events that they complete.

    Lines end with LF or CR LF. Names, ids and comments are left out; data of several lines is
    joined by LF.
    """

    def __init__(self) -> None:
        self._lines = Lines()
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """:raises LineTooLong: for a line of more than 64 MiB."""
        events: list[bytes] = []
        for ended in self._lines.feed(data):
            line = ended.removesuffix(b"\r")
            if line:
                name, _, value = line.partition(b":")
                if name == b"data":
                    self._data.append(value.removeprefix(b" "))
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events
