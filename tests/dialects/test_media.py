"""Images of the OpenAI dialects: what they are, whatever is said of them."""

from __future__ import annotations

import base64

import pytest

from claudeproxy.dialects.media import image
from claudeproxy.messages import FailureError

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
WEBP = b"RIFF\x24\x00\x00\x00WEBPVP8 "


@pytest.mark.parametrize(
    ("declared", "data", "kind"),
    [
        ("image/jpg", JPEG, "image/jpeg"),
        ("image/jpeg", PNG, "image/png"),
        ("image/png", WEBP, "image/webp"),
        ("application/octet-stream", b"GIF89a", "image/gif"),
        ("image/png", b"?", "image/png"),
    ],
)
def test_the_data_tell_the_type(declared: str, data: bytes, kind: str) -> None:
    encoded = base64.b64encode(data).decode()
    read = image(f"data:{declared};base64,{encoded}", "url")
    assert read.source == {"type": "base64", "media_type": kind, "data": encoded}


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(FailureError) as refused:
        image("data:image/svg+xml;base64,PHN2Zz4=", "url")
    assert refused.value.failure.message.startswith("url: image/svg+xml is not one of")
