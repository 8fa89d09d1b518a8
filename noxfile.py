"""The tests with other Pythons and other versions of what we build on: ``.venv/bin/nox -l``.

What runs is the fast loop, which needs no CLI: ``make fast``. Arguments behind ``--`` are pytest's.
"""

import nox

nox.needs_version = ">=2024.4"
nox.options.default_venv_backend = "uv"  # it can resolve to the floors, which pip cannot
nox.options.envdir = ".cache/nox"
nox.options.sessions = ["tests"]
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
FAST = ("-m", "not cli")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """With the newest of everything."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *FAST, *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """With the oldest packages that setup.cfg admits."""
    session.install("--resolution", "lowest-direct", "-e", ".[test]")
    session.run("python", "-m", "pytest", *FAST, *session.posargs)


@nox.session
def trunk(session: nox.Session) -> None:
    """With Twisted as it will be released next."""
    session.install("-e", ".[test]", "twisted @ git+https://github.com/twisted/twisted")
    session.run("python", "-m", "pytest", *FAST, *session.posargs)
