"""The metadata that OpenAI's objects can be given."""

from __future__ import annotations

from collections.abc import Mapping

from .fields import Fields, check_text

_PAIRS, _NAME, _VALUE = 16, 64, 512


def changed_metadata(body: Fields) -> Mapping[str, str]:
    """The ``metadata`` of a body that changes nothing else; ``null`` is for none.

    :raises FailureError: 400 that names the field at fault, or when it is absent.
    """
    if "metadata" not in body.value:
        raise body.refuse("metadata", "is required; null or {} removes it")
    return read_metadata(body)


def read_metadata(body: Fields) -> Mapping[str, str]:
    """The ``metadata`` of a body; empty when absent.

    :raises FailureError: 400 that names the field at fault.
    """
    if "metadata" not in body:
        return {}
    metadata = body.object("metadata")
    if len(metadata.value) > _PAIRS:
        raise body.refuse("metadata", f"has more than {_PAIRS} entries")
    for name in metadata.value:
        check_text(name, "metadata")
        if len(name) > _NAME:
            raise body.refuse("metadata", f"a name is longer than {_NAME} characters")
        if len(metadata.text(name)) > _VALUE:
            raise metadata.refuse(name, f"is longer than {_VALUE} characters")
    return metadata.value
