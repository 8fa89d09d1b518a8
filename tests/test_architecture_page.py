"""``docs/architecture.rst`` is the plan of the house as it stands."""

from __future__ import annotations

import re
from configparser import ConfigParser
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "claudeproxy"
PAGE = (ROOT / "docs" / "architecture.rst").read_text()


def contracts() -> dict[str, list[list[str]]]:
    """The layers of each contract, from the top, by its name."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return {
        name.rpartition(":")[2]: [
            re.findall(r"claudeproxy\.(\w+)", line)
            for line in config[name]["layers"].splitlines()
            if line.strip()
        ]
        for name in config.sections()
        if name.startswith("importlinter:contract:") and "layers" in config[name]
    }


def below(room: str) -> set[str]:
    """The rooms in the layers under the one of ``room``."""
    layers = contracts()["house"]
    (level,) = [level for level, layer in enumerate(layers) if room in layer]
    return set(chain.from_iterable(layers[level + 1 :]))


def allowed() -> dict[str, set[str]]:
    """What each room may import by all contracts together. They count what is imported through
    others as well: whoever may not know the CLI may not import the engine, which does."""
    found = contracts()
    rooms: dict[str, set[str]] = {}
    for room in reversed(list(chain.from_iterable(found["house"]))):
        strangers = set().union(
            *(layer for layers in found.values() for layer in layers if room in layer)
        )
        rooms[room] = {
            other for other in below(room) if not strangers & ({other} | rooms[other])
        }  # fmt: skip
    return rooms


def rows(title: str) -> list[list[str]]:
    """The cells of the first list-table below ``title``, without its head."""
    section = PAGE.split(f"\n{title}\n{'-' * len(title)}\n")[1]
    table = re.split(r"\n\n(?=\S)", section.split(".. list-table::")[1])[0]
    return [
        [" ".join(cell.split()) for cell in re.split(r"\n     - ", row)]
        for row in re.split(r"\n   \* - ", table)[2:]
    ]


def test_the_rooms_are_those_of_the_import_contract() -> None:
    on_page = {
        name.strip("`"): below(name.strip("`"))
        if may == "all below"
        else set(re.findall(r"`(\w+)`", may))
        for name, _, may in rows("Rooms")
    }
    assert on_page == allowed()
    assert list(on_page) == list(chain.from_iterable(contracts()["house"]))


def test_the_rooms_exist() -> None:
    for room in allowed():
        assert (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file(), room


def test_the_files_it_names_exist() -> None:
    named = set(re.findall(r"(?<![\w/.])(?:[a-z]\w*/)*[a-z_]\w*\.py\b", PAGE))
    folders = set(re.findall(r"``((?:[a-z]+/)+)``|``(tests/\w+)``", PAGE))
    assert len(named) > 40
    missing = {name for name in named if not (PACKAGE / name).is_file()}
    missing |= {
        name for pair in folders for name in pair
        if name and not any((place / name).is_dir() for place in (PACKAGE, ROOT))
    }  # fmt: skip
    assert missing == set()
