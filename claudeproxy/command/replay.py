"""``claudemax replay``: a recorded request once more, byte for byte, against the demo upstream."""

from __future__ import annotations

import http.client
import json
import os
import sys
import tempfile
from itertools import groupby
from pathlib import Path

import click
from attrs import evolve

from claudeproxy.options import Settings

from . import places
from .recording import Recording, Reply, read_recording
from .running import Running

PATIENCE = 600.0
"""Seconds to wait for each part of the reply: recorded words may tell the demo to wait."""

_OF_THE_CONNECTION = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}
"""Headers that are about how the bytes came, not about what they were."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def replay(file: Path) -> None:
    """Send a request that --record has kept once more, to a daemon for the time of it.

    Its upstream is the demo: no login, no quota. The body goes out byte for byte, the headers
    without those that were left out. The reply comes on stdout as it streams; stderr says how it
    compares with the recorded one. Exit status: 0 if the status is the same, else 1.
    """
    recording = read_recording(file)
    from .own_daemon import serving  # with it comes the daemon, which --help needs not

    # By this name a daemon finds it that comes after one which died.
    with tempfile.TemporaryDirectory(prefix=f"claudemax-{os.getpid()}-replay-") as state:
        environ = {**os.environ, "XDG_STATE_HOME": state}
        settings = _demo(places.settings(os.environ))
        try:
            reply = serving(settings, environ, lambda daemon: _send(daemon, recording))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise click.ClickException(f"{file} cannot be sent: {error}") from None
    same, said = compare(recording.reply, reply)
    click.echo(said, err=True)
    raise SystemExit(0 if same else 1)


def _demo(settings: Settings) -> Settings:
    """The user's settings, as far as they matter to a request."""
    from .own_daemon import small

    # What a response's client asks to be stored is part of the reply; it goes with the directory.
    return evolve(
        small(settings), demo=True, upstream=None, no_store=settings.no_store, no_ledger=True
    )


def _send(daemon: Running, recording: Recording) -> Reply:
    """The reply, which is printed as it comes."""
    connection = daemon.connection(PATIENCE)
    try:
        connection.putrequest(
            recording.method, recording.target, skip_host=True, skip_accept_encoding=True
        )
        for name, value in recording.headers:
            if name.lower() not in _OF_THE_CONNECTION:
                connection.putheader(name, value.encode("latin-1"))
        connection.putheader("Content-Length", str(len(recording.body)))
        connection.endheaders(recording.body)
        return _shown(connection.getresponse())
    finally:
        connection.close()


def _shown(response: http.client.HTTPResponse) -> Reply:
    shown = sys.stdout.buffer
    headers = response.getheaders()
    top = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{n}: {v}" for n, v in headers)]
    shown.write("\n".join([*top, "", ""]).encode("latin-1"))
    body = bytearray()
    while piece := response.read1():
        shown.write(piece)
        shown.flush()
        body += piece
    return Reply(response.status, headers, bytes(body))


def compare(recorded: Reply | None, now: Reply) -> tuple[bool, str]:
    """Whether the status is the same, and in a line what the first difference is."""
    if recorded is None:
        return False, f"nothing to compare with: no reply was recorded; now it is {now.status}"
    if recorded.status != now.status:
        return False, f"the status differs: {recorded.status} was recorded, now it is {now.status}"
    kinds = [reply.header("content-type") for reply in (recorded, now)]
    if kinds[0] != kinds[1]:
        return True, f"same status {now.status}; the type was {kinds[0]!r}, now it is {kinds[1]!r}"
    if not kinds[0].startswith("text/event-stream"):
        return True, f"same status {now.status} and type {kinds[0]}"
    before, after = events(recorded.body), events(now.body)
    for number, (one, other) in enumerate(zip(before, after, strict=False), 1):
        if one != other:
            return True, f"same status {now.status}; event {number} was {one}, now it is {other}"
    if len(before) != len(after):
        more, which = (before, "no more") if len(before) > len(after) else (after, "only now")
        first = more[min(len(before), len(after))]
        return True, f"same status {now.status}; {first} comes {which}"
    return True, f"same status {now.status} and events: {', '.join(after)}"


def events(stream: bytes) -> list[str]:
    """The names of a stream's events, several of the same in a row as one: answers differ in
    length. An event without a name is called by its ``object``."""
    names = []
    for block in stream.decode("utf-8", "replace").split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n") if ": " in line)
        if "event" in fields:
            names.append(fields["event"])
        elif "data" in fields:
            names.append(_called(fields["data"]))
    return [name for name, _ in groupby(names)]


def _called(data: str) -> str:
    if data == "[DONE]":
        return data
    try:
        value = json.loads(data)
        return "error" if "error" in value else str(value["object"])
    except (ValueError, TypeError, KeyError):
        return "data"
