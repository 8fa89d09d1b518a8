"""What the pages name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
}


def test_the_tests_that_security_names_exist() -> None:
    named = set(re.findall(r"``(test_\w+)``", (ROOT / "docs" / "security.rst").read_text()))
    assert len(named) > 20
    assert named - TESTS == set()


@pytest.mark.parametrize("page", ["README.rst", "docs/service.rst", "docs/security.rst"])
def test_the_files_that_pages_name_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for name in re.findall(r"\b(?:packaging|examples|docs|tests)/[\w@./-]*\w", text):
        assert (ROOT / name).exists(), name


def test_the_readmes_options_exist() -> None:
    from claudeproxy.options import table

    options = {"--" + name.replace("_", "-") for name, _ in table()} | {"--help", "--cli"}
    named = re.findall(r"``(--[a-z-]+)", (ROOT / "README.rst").read_text())
    assert set(named) - options == set()
