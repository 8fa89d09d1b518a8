"""Turns images and files of the OpenAI dialects into content blocks."""

from __future__ import annotations

import base64
import binascii
import re

from claudeproxy.messages import Document, FailureError, Image

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_BEGINNINGS = {
    "/9j/": "image/jpeg",
    "iVBORw0KGgo": "image/png",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
}
"""Of images in base64."""
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)((?:;[\w.+=-]+)*),", re.ASCII)


def image(url: str, path: str) -> Image:
    """The image in a ``data:`` URL, or an ``http(s)`` URL as it is, for the upstream to fetch.

    The data tell its type: OpenAI looks at them alone, and clients of it say ``image/jpg``, or
    always the same. The Messages API refuses what is declared as another type.

    :raises FailureError: 400 that names ``path``, for anything else.
    """
    if url.startswith(("http://", "https://")):
        return Image({"type": "url", "url": url})
    kind, data = _data_url(url, path)
    kind = image_type(data) or kind
    if kind not in IMAGE_TYPES:
        raise FailureError.invalid(f"{path}: {kind} is not one of {', '.join(IMAGE_TYPES)}", path)
    return Image({"type": "base64", "media_type": kind, "data": data})


def document(data: str, name: str | None, path: str) -> Document:
    """A PDF or a text file from ``file_data``: a ``data:`` URL, or bare base64 of a PDF.

    :raises FailureError: 400 that names ``path``, for anything else.
    """
    if data.startswith("data:"):
        kind, encoded = _data_url(data, path)
    else:
        kind, encoded = "application/pdf", data
        check_base64(encoded, path)
    if kind == "application/pdf":
        return Document({"type": "base64", "media_type": kind, "data": encoded}, title=name)
    if kind.startswith("text/") or kind == "application/json":
        try:
            text = check_base64(encoded, path).decode()
        except UnicodeDecodeError:
            raise FailureError.invalid(f"{path}: the text is not UTF-8", path) from None
        return Document({"type": "text", "media_type": "text/plain", "data": text}, title=name)
    raise FailureError.invalid(f"{path}: {kind} is neither a PDF nor text", path)


def image_type(data: str) -> str | None:
    """The type of an image in base64 by how it begins; ``None`` if that is of no known one."""
    return next((kind for begin, kind in _BEGINNINGS.items() if data.startswith(begin)), None)


def _data_url(url: str, path: str) -> tuple[str, str]:
    match = _DATA_URL.match(url)
    if match is None or ";base64" not in match.group(2):
        raise FailureError.invalid(f"{path}: must be an http(s) URL or a data URL in base64", path)
    data = url[match.end() :]
    check_base64(data, path)
    return match.group(1).lower(), data


def check_base64(data: str, path: str) -> bytes:
    """The bytes that ``data`` encodes.

    :raises FailureError: 400 that names ``path``, when it is not base64 or empty.
    """
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise FailureError.invalid(f"{path}: is not valid base64", path) from None
    if not decoded:
        raise FailureError.invalid(f"{path}: is empty", path)
    return decoded
