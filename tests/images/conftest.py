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


@pytest.fixture(scope="session")
def cmyk_profile() -> bytes:
    """A small CMYK output profile: an A2B0 table of 3^4 points from ink to Lab, (1 − ink)(1 − black) in lightness."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 3)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    rgb = (1 - grid[:, :3]) * (1 - grid[:, 3:])
    lightness = rgb.mean(axis=1)
    lab = np.stack([lightness, 0.5 + (rgb[:, 0] - rgb[:, 1]) / 4, 0.5 + (rgb[:, 1] - rgb[:, 2]) / 4], axis=1)
    encoded = np.clip(np.rint(lab * [65280, 65280, 65280]), 0, 65535).astype(">u2")
    identity = np.array([1, 0, 0, 0, 1, 0, 0, 0, 1]) * 65536
    curve = np.array([0, 65535], ">u2").tobytes()
    table = b"mft2" + bytes(4) + struct.pack(">BBBB", 4, 3, 3, 0) + identity.astype(">i4").tobytes()
    table += struct.pack(">HH", 2, 2) + curve * 4 + encoded.tobytes() + curve * 3
    text = b"text" + bytes(4) + b"test\0\0\0\0"
    white = b"XYZ " + bytes(4) + np.array([0.9642, 1, 0.8249]).__mul__(65536).astype(">i4").tobytes()
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78 + 1)
    tags = [(b"desc", name), (b"cprt", text), (b"wtpt", white), (b"A2B0", table)]
    offset, index, body = 128 + 4 + 12 * len(tags), b"", b""
    for signature, data in tags:
        index += signature + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    header = header.ljust(68, b"\0") + np.array([0.9642, 1, 0.8249]).__mul__(65536).astype(">i4").tobytes()
    profile = header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body
    return struct.pack(">I", len(profile)) + profile[4:]
