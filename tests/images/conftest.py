"""Pictures and files that the room's tests share."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

PRIMARIES = {
    "display-p3": ([0.68, 0.32, 1, 0.265, 0.69, 1, 0.15, 0.06, 1], 2.2),
    "adobe-rgb": ([0.64, 0.33, 1, 0.21, 0.71, 1, 0.15, 0.06, 1], 563 / 256),
}


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """A colour photo, (150, 226, 3): odd enough in size to show swapped axes."""
    return np.ascontiguousarray(skimage.data.chelsea()[::2, ::2][:149])


@pytest.fixture(scope="session")
def profiles() -> dict[str, bytes]:
    """ICC profiles by name: two wide RGB gamuts and a gray one."""
    white = [0.3127, 0.3290, 1]
    made = {
        name: bytes(imagecodecs.cms_profile("rgb", whitepoint=white, primaries=primaries, gamma=gamma))
        for name, (primaries, gamma) in PRIMARIES.items()
    }
    made["gray"] = bytes(imagecodecs.cms_profile("gray", whitepoint=white, gamma=1.8))
    made["srgb"] = bytes(imagecodecs.cms_profile("srgb"))
    return made


@pytest.fixture(scope="session")
def saved() -> Callable[..., bytes]:
    """``saved(array or image, format, **options)``: the bytes of a file as Pillow writes it."""

    def save(image: NDArray[Any] | Image.Image, format_: str, **options: Any) -> bytes:
        out = io.BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, format_, **options)
        return out.getvalue()

    return save


@pytest.fixture(scope="session")
def png_chunk() -> Callable[[bytes, bytes], bytes]:
    """``png_chunk(type, body)``: one chunk with its length and checksum."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return chunk
