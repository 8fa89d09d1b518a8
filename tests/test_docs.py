"""What the pages name is there."""

import ast
import importlib
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


INCLUDING = {"start": "README", "contributing": "CONTRIBUTING", "reporting": "SECURITY",
             "changes": "CHANGES", "plan": "claudeproxy/web/plan"}  # fmt: skip
"""Pages of the site that are files of another place."""


def test_the_readme_links_every_page_of_the_site() -> None:
    linked = set(re.findall(r"<((?:[\w-]+/)*[\w-]+\.rst)>`_", (ROOT / "README.rst").read_text()))
    pages = {path.stem for path in (ROOT / "docs").glob("*.rst")} - {"index", "start"}
    named = {f"{INCLUDING[p]}.rst" if p in INCLUDING else f"docs/{p}.rst" for p in pages}
    assert linked == named


def test_no_file_is_a_symbolic_link() -> None:
    """Archives, and Git on some systems, make a text of it: what it points to."""
    kept = [ROOT / name for name in ("claudeproxy", "docs", "packaging", "tests", "conformance")]
    files = [*ROOT.glob(".*"), *(file for folder in kept for file in folder.rglob("*"))]
    assert [str(file) for file in files if file.is_symlink()] == []
    assert (ROOT / ".dockerignore").read_text() == (ROOT / ".containerignore").read_text()
    assert len((ROOT / "claudeproxy" / "web" / "plan.rst").read_text()) > 1000


@pytest.mark.parametrize(
    "page",
    ["README.rst", "CONTRIBUTING.rst", "SECURITY.rst", "docs/everyday.rst", "docs/releasing.rst",
     "docs/python.rst", "docs/service.rst", "docs/security.rst", "docs/cluster.rst"],
)  # fmt: skip
def test_the_files_that_pages_name_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for name in re.findall(r"\b(?:packaging|examples|docs|tests|claudeproxy)/[\w@./-]*\w", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("script", ["screenshots", "screenshots-page"])
def test_what_the_scripts_of_the_pictures_import_exists(script: str) -> None:
    """Nobody runs them for months."""
    tree = ast.parse((ROOT / "docs" / script).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("claudeproxy"):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module}.{name.name}"


def test_the_readmes_options_exist() -> None:
    import click

    from claudeproxy.command.main import COMMANDS, claudemax
    from claudeproxy.options import table

    assert isinstance(claudemax, click.Group)

    options = {"--" + name.replace("_", "-") for name, _ in table()} | {"--help", "--cli"}
    for name in COMMANDS:
        command = claudemax.get_command(click.Context(claudemax), name)
        options |= {option for param in command.params for option in param.opts}
    named = re.findall(r"``(--[a-z-]+)", (ROOT / "README.rst").read_text())
    assert set(named) - options == set()


def test_the_everyday_page_has_every_header() -> None:
    """Those that pages may read are all that the daemon sends of its own."""
    from claudeproxy.web.gate import EXPOSED

    page = (ROOT / "docs" / "everyday.rst").read_text()
    told = set(re.findall(r"``((?:anthropic-|x-|retry-|request-)[\w-]+)``", page))
    code = "".join(path.read_text() for path in (ROOT / "claudeproxy" / "web").glob("*.py"))
    sent = set(re.findall(r"x-claudemax-[\w-]+|retry-after[\w-]*|x-should-retry", code))
    assert told == set(EXPOSED.split(", "))
    assert sent <= told
