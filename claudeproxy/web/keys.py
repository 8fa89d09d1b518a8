"""The keys that clients must send. Only their digests are kept."""

from __future__ import annotations

import hmac
import os
import re
import stat
from collections.abc import Iterable, Mapping
from hashlib import sha256

from attrs import field, frozen

from . import key_rules
from .key_rules import Rules

THE_ONLY_ONE = "default"
"""The name of the only key of a file that gives it none."""


class KeyFileError(Exception):
    """A key file cannot be used. The text is one line and quotes nothing of the file."""


def _digests(keys: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, _digest(key)) for name, key in keys.items())


@frozen
class Keys:
    """``Keys({"laptop": "..."})``: name to key. ``rules``: name to what its holder may do."""

    _known: tuple[tuple[str, bytes], ...] = field(converter=_digests, repr=False)
    _rules: Mapping[str, Rules] = field(factory=dict)

    @property
    def rules(self) -> dict[str, Rules]:
        """What each holder may do, by the names of the keys, in the order of the file."""
        return {name: self._rules.get(name, Rules()) for name, _ in self._known}

    def rules_of(self, name: str) -> Rules:
        """What the holder of the key ``name`` may do."""
        return self._rules.get(name, Rules())

    def fingerprint(self, name: str) -> bytes | None:
        """A digest of the key called ``name``, another for another key; ``None`` if there is none
        that is let in now."""
        return dict(self._known).get(name)

    def name_of(self, offered: Iterable[str]) -> str | None:
        """The name of a known key among those ``offered``; ``None`` if there is none.

        It takes the same time whether they are right or wrong.
        """
        name = None
        for digest in map(_digest, offered):
            for known, wanted in self._known:
                if hmac.compare_digest(digest, wanted):
                    name = known
        return name


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def offered(authorization: str | None, x_api_key: str | None) -> list[str]:
    """The keys in the two headers; some clients send both."""
    found = [] if x_api_key is None else [x_api_key]
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        found.append(credentials.strip())
    return [key for key in found if key]


def parse(text: str) -> Keys:
    """The keys in the ``text`` of a file: one key, or lines of ``name: key``, each followed by what
    its holder may do (:mod:`~claudeproxy.web.key_rules`).

    Empty lines and lines that begin with ``#`` are skipped.

    :raises KeyFileError: when it holds no key, or anything else.
    """
    keys: dict[str, str] = {}
    names: dict[str, str] = {}
    rules: dict[str, Rules] = {}
    named = True
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        name, colon, key = (part.strip() for part in line.partition(":"))
        if not colon:
            named, name, key = False, THE_ONLY_ONE, name
        key, *more = key.split() or [""]
        if not re.fullmatch(r"[\w.@-]+", name) or not re.fullmatch(r"[!-~]+", key):
            raise KeyFileError(f"line {number} is neither a key nor NAME: KEY")
        if name in keys:
            raise KeyFileError(
                f"line {number} gives {name} a second key" if colon else
                f"line {number} is a second key without a name: write NAME: KEY"
            )  # fmt: skip
        if key in names:
            raise KeyFileError(f"line {number} gives {name} the key of {names[key]}")
        keys[name], names[key] = key, name
        try:
            rules[name] = key_rules.parse(more)
        except ValueError as error:
            raise KeyFileError(f"line {number}: what follows the key must be {error}") from None
    if not keys:
        raise KeyFileError("holds no key")
    if len(keys) > 1 and not named:
        raise KeyFileError("holds a key without a name beside others: write NAME: KEY")
    return Keys(keys, rules)


def read(path: str, owner: int | None = None) -> Keys:
    """The keys in the file at ``path``, which must belong to ``owner`` (by default, the user of
    this process) and be readable for nobody else.

    :raises KeyFileError: when it cannot be read, or can be read by others.
    """
    owner = os.geteuid() if owner is None else owner
    try:
        with open(path, encoding="utf-8", opener=_at_once) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise KeyFileError("is not a file")
            if about.st_uid != owner:
                raise KeyFileError(f"belongs to another user: chown it to user {owner}")
            if about.st_mode & 0o077:
                raise KeyFileError("can be read by others: chmod 600")
            return parse(file.read())
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyFileError("is not text") from None


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would have the daemon wait for a writer
