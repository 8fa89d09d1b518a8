"""The wheel and the source distribution: what is in them, and what an installation of each does.

Offline: they are built by the setuptools of this environment, and installed beside its packages.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from attrs import frozen
from programs import HELLO, fetch, free_port_number, running

from claudeproxy import __version__

pytestmark = pytest.mark.cli  # some do; with the others the fast loop would be a third longer

ROOT = Path(__file__).parents[1]
NAME = f"claudemax-{__version__}"

MADE_BY_SETUPTOOLS = ("PKG-INFO", "claudemax.egg-info/")
"""What the source has beyond the files of the repository."""

LEFTOVERS = (
    ".venv/bin/python",
    ".cache/claude/claude",
    ".hypothesis/examples",
    "build/lib/claudeproxy/old.py",
    "dist/claudemax-0.0.1.tar.gz",
    "claudeproxy/__pycache__/old.cpython-310.pyc",
    "tests/__pycache__/old.cpython-310.pyc",
    "twisted/plugins/dropin.cache",
    "conformance/node_modules/left/index.js",
    "docs/.DS_Store",
    "twistd.pid",
)
"""What a checkout in use has, and no package."""


def run(*command: str | Path, cwd: Path) -> str:
    """What a program prints, run to its end with success and without a way to an index."""
    environ = {"HOME": str(cwd), "PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1"}
    ran = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=150, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="session")
def files() -> set[str]:
    """The files of the repository, those not yet committed among them."""
    return tracked() | tracked("--others", "--exclude-standard")


def tracked(*options: str) -> set[str]:
    """What git lists of the files that are there."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout: there is no list to compare with")
    listed = subprocess.check_output(("git", "ls-files", "-z", *options), cwd=ROOT, text=True)
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


@frozen
class Distributions:
    wheel: Path
    source: Path


@pytest.fixture(scope="session")
def built(files: set[str], tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Both, as ``make release`` makes them, of a copy of this checkout that has been in use."""
    tree, dist = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in (*files, *LEFTOVERS):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        if name in files:
            shutil.copy(ROOT / name, tree / name)
        else:
            (tree / name).write_text("x = 1\n")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, cwd=tree)
    return Distributions(dist / f"{NAME}-py3-none-any.whl", dist / f"{NAME}.tar.gz")


def test_the_source_is_the_repository(built: Distributions, files: set[str]) -> None:
    """Whoever packages claudemax gets tests, pages, packaging/ and the Makefile."""
    with tarfile.open(built.source) as archive:
        names = {
            member.name.removeprefix(f"{NAME}/") for member in archive if not member.isdir()
        }  # fmt: skip
    ours = {name for name in names if not name.startswith(MADE_BY_SETUPTOOLS)}
    assert (tracked() - ours, ours - files) == (set(), set())


def test_the_wheel_has_every_file_of_the_packages(built: Distributions, files: set[str]) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    ours = {name for name in files if name.startswith(("claudeproxy/", "twisted/"))}
    assert {name for name in names if not name.startswith(f"{NAME}.dist-info/")} == ours
    assert f"{NAME}.dist-info/licenses/LICENSE" in names or f"{NAME}.dist-info/LICENSE" in names


def test_an_index_would_take_them(built: Distributions, tmp_path: Path) -> None:
    check = (sys.executable, "-m", "twine", "check", "--strict")
    run(*check, built.wheel, built.source, cwd=tmp_path)


@pytest.fixture(scope="module", params=["wheel", "source"])
def installation(
    request: pytest.FixtureRequest, built: Distributions, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The programs of a fresh environment into which pip has installed it.

    It sees the packages of this environment, pip and setuptools too, but neither claudemax nor a
    CLI. pip finds there all that claudemax says it needs, or fails.
    """
    root = tmp_path_factory.mktemp(request.param)
    packages = root / "packages"
    packages.mkdir()
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(folder).iterdir():
            ours = entry.name.startswith(("claudemax", "__editable__", "claude_agent_sdk"))
            if not ours:
                (packages / entry.name).symlink_to(entry)
    environment = root / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=root)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n")
    package = built.wheel if request.param == "wheel" else built.source
    run(python, "-m", "pip", "install", "--no-build-isolation", package, cwd=root)
    return python.parent


def test_its_programs_start(installation: Path, tmp_path: Path) -> None:
    version = f"claudemax {__version__}\n"
    claudemax = installation / "claudemax"
    assert run(claudemax, "--version", cwd=tmp_path) == version
    assert run(installation / "claude-max-api", "--version", cwd=tmp_path) == version
    assert "Run the daemon in the foreground" in run(claudemax, "--help", cwd=tmp_path)
    assert "--model-alias" in run(claudemax, "serve", "--help", cwd=tmp_path)
    look = "import claudeproxy; print(claudeproxy.__file__)"
    where = run(installation / "python", "-c", look, cwd=tmp_path)
    assert where.startswith(str(installation.parent))


def test_twistd_lists_it(installation: Path, tmp_path: Path) -> None:
    twistd = "from twisted.scripts.twistd import run; run()"
    shown = run(installation / "python", "-c", twistd, "--help", cwd=tmp_path)
    assert "\n    claudemax " in shown


def test_it_serves(installation: Path, tmp_path: Path) -> None:
    """With the double of the CLI that came along."""
    make = "import sys; from claudeproxy.testing import fake_cli; print(fake_cli(sys.argv[1]))"
    double = run(installation / "python", "-c", make, tmp_path / "double", cwd=tmp_path).strip()
    port = str(free_port_number())
    command = [str(installation / "claudemax"), "--claude", double, "--port", port, "--warm", "1"]
    with running(command, tmp_path):
        url = f"http://127.0.0.1:{port}"
        health = json.loads(fetch(f"{url}/health"))
        assert health["status"] == "ok"
        answer = json.loads(fetch(f"{url}/v1/chat/completions", HELLO))
        assert answer["choices"][0]["message"]["content"] == "You said: Hello"
        assert answer["usage"]["completion_tokens"] > 0


def test_without_a_cli_it_says_what_to_do(
    installation: Path, built: Distributions, tmp_path: Path
) -> None:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [installation / "claudemax"], cwd=tmp_path, env=environ, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "the Claude CLI is missing" in ran.stderr
    packages = [f"`pip install '{package}[cli]'`" for package in (built.wheel, built.source)]
    assert any(package in ran.stderr for package in packages)
