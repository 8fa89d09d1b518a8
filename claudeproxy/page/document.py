"""The documents: the page, its main part on its own, and the sign-in."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web.template import Tag, tags

from . import plan, processes, spending, turns, words
from .parts import Cell, badge, quiet
from .refused import refused
from .settings import Setting, settings
from .snapshot import Snapshot

TITLE = "claudemax"


def page(seen: Snapshot, options: Sequence[Setting], base: str, key: str | None) -> Tag:
    """The whole page. ``base``: its path, with slashes around it; ``key``: the name by which its
    reader has signed in."""
    out = tags.form(
        quiet("signed in as ", words.name(key), " "), tags.button("Sign out", type="submit"),
        method="post", action=f"{base}page/sign-out", class_="sign-out",
    ) if key is not None else ""  # fmt: skip
    return _document(
        base,
        tags.header(
            tags.h1(TITLE),
            tags.p(turns.summary(seen), role="status", id="summary"),
            tags.p("not connected: what is shown may be old", id="stale", hidden="hidden"),
            out,
            class_="top",
        ),
        main(seen, options, base),
        script=f"{base}page/page.js",
    )


def main(seen: Snapshot, options: Sequence[Setting], base: str) -> Tag:
    """The part that changes."""
    return Tag("main")(
        _health(seen),
        plan.plan(seen),
        turns.now(seen),
        processes.processes(seen),
        turns.latest(seen),
        turns.failed(seen),
        refused(seen),
        spending.usage(seen, base),
        spending.who(seen),
        settings(options),
    )(**{"data-summary": turns.summary(seen)})


def sign_in(base: str, wrong: str = "") -> Tag:
    """The form that asks for a key. ``wrong``: why the one before was not taken."""
    return _document(
        base,
        Tag("main")(
            tags.h1(TITLE),
            tags.form(
                tags.p(wrong, class_="bad", role="alert") if wrong else "",
                tags.label("Key", for_="key"),
                # For managers of passwords, which keep one under a name.
                tags.input(
                    type="text", name="name", value=TITLE, autocomplete="username", hidden="hidden"
                ),
                tags.input(
                    type="password", name="key", id="key", autocomplete="current-password",
                    required="required", autofocus="autofocus",
                ),
                tags.button("Sign in", type="submit"),
                tags.p("One of those in ", tags.code("--api-key-file"), ".", class_="quiet"),
                method="post", action=f"{base}page/sign-in",
            ),
            class_="sign-in",
        ),
    )  # fmt: skip


def _health(seen: Snapshot) -> Tag:
    health = seen.health
    well = health["status"] == "ok"
    facts: list[Cell] = [
        badge("healthy" if well else health["status"], "good" if well else "bad"),
        tags.span("claude ", words.name(health["cli_version"])),
        _upstream(seen),
    ]
    if health["lost_facts"]:
        lost = words.text(", ".join(health["lost_facts"]))
        facts.append(
            tags.span("this CLI does not do what is relied on: ", lost, " (claudemax doctor)",
                      class_="bad")
        )  # fmt: skip
    if health["recording"]:
        facts.append(
            tags.span("every prompt and every answer is written to disk (--record)", class_="bad")
        )
    if not health["store"]["reachable"]:
        facts.append(tags.span("the store does not answer; the log says why", class_="bad"))
    return tags.section(
        tags.h2("Health", id="health-title", class_="unseen"),
        tags.ul([tags.li(fact) for fact in facts], class_="facts"),
        id="health",
        class_="wide",
    )(**{"aria-labelledby": "health-title"})


def _upstream(seen: Snapshot) -> Tag:
    upstream, works = seen.health["upstream"], seen.health["logged_in"]
    if upstream != "subscription":
        return tags.span("upstream: ", words.name(upstream))
    if works is False:
        return tags.span("not logged in: ", tags.code("claudemax login"), class_="bad")
    return tags.span("your subscription" if works else "subscription, login not known yet")


def _document(base: str, *body: Cell, script: str = "") -> Tag:
    return tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.title(TITLE),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.meta(name="color-scheme", content="light dark"),
            tags.link(rel="icon", href=f"{base}page/icon.svg", type="image/svg+xml"),
            tags.link(rel="stylesheet", href=f"{base}page/page.css"),
            tags.script(src=script, defer="defer") if script else "",
        ),
        tags.body(*body),
        lang="en",
    )
