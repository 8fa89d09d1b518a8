"""Key files by their text, and keys by what is sent."""

import os
from pathlib import Path

import pytest

from claudeproxy.web.key_rules import Rules
from claudeproxy.web.keys import KeyFileError, Keys, offered, parse, read

KEY = "Fh3-a_secret"
WORDS = (
    "requests=60/min or requests=500/day, tokens=100k/min or tokens=2M/day, share=five_hour=30, "
    "reserve=five_hour=20, models=sonnet,haiku, expires=2027-01-31"
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"{KEY}\n", {KEY: "default"}),
        (f"  {KEY}", {KEY: "default"}),
        (f"# mine\n\n{KEY}\r\n", {KEY: "default"}),
        (f"laptop: {KEY}", {KEY: "laptop"}),
        (f"laptop:{KEY}\n# his\nme@desk: a=b:c\n", {KEY: "laptop", "a=b:c": "me@desk"}),
    ],
)
def test_key_file_texts(text: str, names: dict[str, str]) -> None:
    keys = parse(text)
    for key, name in names.items():
        assert keys.name_of([key]) == name
        assert keys.name_of(["wrong", key]) == name
        assert keys.name_of([key + "x"]) is keys.name_of([key[:-1]]) is None
    assert keys.name_of([]) is keys.name_of([""]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("# only words\n\n", "holds no key"),
        (f"{KEY}\n{KEY}2", "line 2 is a second key without a name: write NAME: KEY"),
        (f"a: {KEY}\na: {KEY}2", "line 2 gives a a second key"),
        (f"{KEY}\nb: {KEY}2", "holds a key without a name beside others: write NAME: KEY"),
        ("two words", f"line 1: what follows the key must be one of {WORDS}"),
        (f"a: {KEY} # mine", f"line 1: what follows the key must be one of {WORDS}"),
        (f"a: {KEY} keep=x=1", f"line 1: what follows the key must be one of {WORDS}"),
        (
            f"# x\na: {KEY} reserve=five_hour=101",
            "line 2: what follows the key must be reserve=five_hour=20",
        ),
        (
            f"a: {KEY} reserve=five_hour=20 reserve=20",
            "line 1: what follows the key must be reserve=five_hour=20",
        ),
        (f"a: {KEY}\nb: {KEY}", "line 2 gives b the key of a"),
        (f"# x\nmy laptop: {KEY}", "line 2 is neither a key nor NAME: KEY"),
        ("laptop:", "line 1 is neither a key nor NAME: KEY"),
        ("ключ", "line 1 is neither a key nor NAME: KEY"),
    ],
)
def test_refused_key_file_texts(text: str, words: str) -> None:
    with pytest.raises(KeyFileError) as caught:
        parse(text)
    assert str(caught.value) == words
    assert KEY not in words


def test_a_key_with_a_reserve() -> None:
    keys = parse(
        f"laptop: {KEY}\n"
        "cron:  cr0n   reserve=five_hour=20  reserve=seven_day=12.5%\n"
        "free: fr33 reserve=five_hour=0\n"
    )
    assert [keys.name_of([key]) for key in (KEY, "cr0n", "fr33")] == ["laptop", "cron", "free"]
    assert keys.rules_of("laptop") == keys.rules_of("nobody") == Rules()
    assert keys.rules_of("cron") == Rules(reserve={"five_hour": 0.2, "seven_day": 0.125})
    assert keys.rules_of("free") == Rules(reserve={"five_hour": 0.0})
    assert parse(f"{KEY} reserve=five_hour=20").rules_of("default").reserve == {"five_hour": 0.2}
    assert list(keys.rules) == ["laptop", "cron", "free"]


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_key_file_of_ones_own(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(mode)
    assert read(str(path)).name_of([KEY]) == "default"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_key_file_others_can_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=r"^can be read by others: chmod 600$"):
        read(str(path))


def test_key_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0o600)
    other = os.geteuid() + 1
    with pytest.raises(KeyFileError, match=f"^belongs to another user: chown it to user {other}$"):
        read(str(path), owner=other)


def test_key_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"^cannot be read: No such file or directory$"):
        read(str(tmp_path / "none"))
    with pytest.raises(KeyFileError, match=r"^cannot be read: Is a directory$"):
        read(str(tmp_path))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match=r"^is not a file$"):
        read(str(tmp_path / "pipe"))  # at once, though nobody writes
    path = tmp_path / "key"
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"^is not text$"):
        read(str(path))


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "found"),
    [
        (None, None, []),
        (f"Bearer {KEY}", None, [KEY]),
        (f"bearer   {KEY} ", None, [KEY]),
        (f"Basic {KEY}", None, []),
        ("Bearer", None, []),
        ("Bearer ", "", []),
        (KEY, None, []),
        (None, KEY, [KEY]),
        ("Bearer other", KEY, [KEY, "other"]),
    ],
)
def test_keys_in_headers(authorization: str | None, x_api_key: str | None, found: object) -> None:
    assert offered(authorization, x_api_key) == found


def test_a_key_is_not_in_the_text_of_keys() -> None:
    assert KEY not in repr(Keys({"laptop": KEY}))


def test_all_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare)
    keys = Keys({"a": "1", "b": "22", "c": "333"})
    assert keys.name_of(["1"]) == "a"
    assert keys.name_of(["x" * 99]) is None
    assert compared == [(32, 32)] * 6


def test_fingerprints() -> None:
    keys, others = Keys({"laptop": "s3cret", "desk": "other"}), Keys({"laptop": "new"})
    assert keys.fingerprint("laptop") == Keys({"x": "s3cret"}).fingerprint("x")
    different = {keys.fingerprint("laptop"), keys.fingerprint("desk"), others.fingerprint("laptop")}
    assert len(different) == 3
    assert keys.fingerprint("nobody") is None
    assert b"s3cret" not in (keys.fingerprint("laptop") or b"")
