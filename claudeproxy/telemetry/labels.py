"""The values of labels. There are only so many, whatever clients ask for."""

from __future__ import annotations

import re

from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.ledger.record import TurnRecord

MOST_UNLISTED = 20
"""Models that the CLI does not list and that get a value of their own."""

OTHER = "other"

_NAME = re.compile(r"[\w.:/@\[\]-]{1,64}", re.ASCII)


class ModelLabels:
    """The model that has answered a turn; of a turn without an answer the one it was meant for, if
    the CLI lists it. A client can ask for any full id, so the rest is ``other``."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._unlisted: set[str] = set()

    def of(self, record: TurnRecord) -> str:
        """The value for a turn."""
        answered = record.answered_by
        listed = self._catalogue.full_id(answered or record.model)
        if listed is not None:
            return listed
        if answered is None or not _NAME.fullmatch(answered):
            return OTHER
        if len(self._unlisted) < MOST_UNLISTED:
            self._unlisted.add(answered)
        return answered if answered in self._unlisted else OTHER


def outcome(record: TurnRecord) -> str:
    """``ok``, ``client_left``, or the kind of the failure."""
    return record.outcome.replace(" ", "_")
