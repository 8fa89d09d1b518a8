"""Model names: those that clients use, and those that the CLI is given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from attrs import frozen

from claudeproxy.cli.models import ModelInfo, context_tokens, guess_model
from claudeproxy.messages import Failure, FailureError, Kind

FAMILIES = ("opus", "sonnet", "haiku")
NEWER = ("fable",)
"""Families that not every CLI has; until this one has told its models, it may have them."""
STABLE = {f"claude-{family}-4": family for family in FAMILIES}
"""The ids of ``claude-max-api-proxy``: each is the current model of its family."""

_PREFIXES = ("openai/", "anthropic/", "claude-code-cli/")
_TAG = ":latest"
"""Ollama's default tag: its clients put it to names, on any route."""
_FULL_ID = re.compile(r"claude-[a-z0-9][a-z0-9.-]{0,80}(\[1m\])?")
_DATE = re.compile(r"-20\d{6}(?=\[1m\]|$)")


@frozen
class Entry:
    """A listed model: ``id`` for clients, ``title`` for people."""

    id: str
    title: str


class Catalogue:
    """The names known so far. The CLI's own list arrives with the first process (:meth:`learn`)."""

    def __init__(self, aliases: Mapping[str, str] | None = None) -> None:
        """``aliases``: further names, each of them for another name or a full id."""
        self._aliases = dict(aliases or {})
        self._models: dict[str, ModelInfo] = {}
        self.context_sizes: dict[str, int] = {}
        """Tokens that a model reads, by full id, where the CLI has told."""

    def learn(self, models: Iterable[ModelInfo]) -> bool:
        """Replace the CLI's list; whether it differs from the one before."""
        before, self._models = self._models, {model.name: model for model in models}
        return before != self._models

    def dangling(self) -> list[str]:
        """The aliases that lead to no model, as ``NAME=MODEL`` and a question what was meant."""
        found = []
        names = [entry.id for entry in self.entries() if entry.id not in self._aliases]
        for alias, target in self._aliases.items():
            try:
                self.resolve(alias)
            except FailureError:
                near = get_close_matches(target, names, 1)
                meant = f" (did you mean {near[0]}?)" if near else ""
                found.append(f"{alias}={target}{meant}")
        return found

    def entries(self) -> list[Entry]:
        """What ``GET /v1/models`` lists: the stable ids, the CLI's own, the aliases."""
        titles = {stable: f"Claude {STABLE[stable].title()}" for stable in STABLE}
        for model in self._models.values():
            if model.name != "default":
                titles.setdefault(model.name, model.title)
                titles.setdefault(model.resolved, model.title)
        for family in FAMILIES:
            titles.setdefault(family, family.title())
        for alias, target in self._aliases.items():
            titles.setdefault(alias, target)
        return [Entry(name, title) for name, title in titles.items()]

    def entry(self, name: str) -> Entry:
        """The model that requests may call ``name``, listed or not.

        :raises FailureError: as :meth:`resolve` does.
        """
        listed = {entry.id: entry for entry in self.entries()}
        return listed.get(name) or Entry(name, self.resolve(name).title)

    def context_tokens(self, model: ModelInfo) -> int:
        """The most tokens that ``model`` reads."""
        return self.context_sizes.get(model.resolved) or context_tokens(model.resolved)

    def is_one_of(self, name: str, names: Iterable[str]) -> bool:
        """Whether the model that a client calls ``name`` is one of ``names``: the same model under
        any name, dated or not, or of a family among them, which is a word such as ``opus``.

        :raises FailureError: as :meth:`resolve` does for ``name``.
        """
        asked = self._undated(name)
        return any(self._covers(one, asked) for one in names)

    def _covers(self, name: str, undated: str) -> bool:
        if name.isalpha() and name not in self._aliases and f"-{name}-" in f"{undated}-":
            return True
        try:
            return self._undated(name) == undated
        except FailureError:
            return False

    def _undated(self, name: str) -> str:
        return _DATE.sub("", self.resolve(name).resolved)

    def full_id(self, name: str) -> str | None:
        """The full id of the model that a client calls ``name``; ``None`` for one that the CLI does
        not list."""
        try:
            found = self.resolve(name).resolved
        except FailureError:
            return None
        return found if any(model.resolved == found for model in self._models.values()) else None

    def resolve(self, name: str) -> ModelInfo:
        """The model that a client calls ``name``.

        :raises FailureError: ``model_not_found`` if the name is neither known nor a full id.
        """
        asked = name
        name = self._aliases.get(name, name)
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        name = name.removesuffix(_TAG)
        name = self._aliases.get(name, name)
        name = STABLE.get(name, name)
        if name in self._models:
            return self._models[name]
        for model in self._models.values():
            if model.resolved == name:
                return ModelInfo(
                    name, name, model.title, model.efforts, model.adaptive, model.thinking_off
                )
        guessed = FAMILIES if self._models else FAMILIES + NEWER
        if name in guessed or _FULL_ID.fullmatch(name):
            return guess_model(name)
        raise FailureError(
            Failure(
                Kind.MODEL_NOT_FOUND,
                f"there is no model {asked[:100]!r} here; GET /v1/models lists the models",
                404,
                param="model",
                code="model_not_found",
            )
        )
