"""HEIF: what the decoder would make up is refused; whole files of every kind are read."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import PictureError, PictureTooLarge
from rasr.images import read_picture
from rasr.images.heif import check_coded
from rasr.images.plugins import Budget

KINDS: dict[str, dict[str, Any]] = {
    "coarse": {"quality": 20},
    "fine": {"quality": 95},
    "lossless": {"quality": -1, "chroma": 444},
    "alpha": {"quality": 60},
    "10 bits": {"quality": 60},
    "grid": {"quality": 60, "grid_tile_size": 64},
}


@pytest.fixture(scope="module", params=KINDS)
def heic(request: pytest.FixtureRequest, photo: NDArray[np.uint8]) -> bytes:
    options, out = KINDS[request.param], io.BytesIO()
    if request.param == "10 bits":
        deep = np.ascontiguousarray(photo.astype(np.uint16) << 2)
        height, width = photo.shape[:2]
        pillow_heif.from_bytes("RGB;10", (width, height), deep.astype("<u2").tobytes()).save(out, **options)
        return out.getvalue()
    image = Image.fromarray(photo)
    if request.param == "alpha":
        image.putalpha(Image.fromarray(photo[:, :, 0]))
    pillow_heif.from_pillow(image).save(out, **options)
    return out.getvalue()


def coded(data: bytes) -> tuple[int, int]:
    """Where the coded bytes begin and end."""
    start = data.index(b"mdat")
    return start + 4, start - 4 + int.from_bytes(data[start - 4 : start], "big")


def test_a_whole_file_is_read_without_a_word(heic: bytes) -> None:
    assert read_picture(heic).notes == ()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("how", ["hole", "to the end"])
def test_zeros_in_place_of_data_are_refused(heic: bytes, part: float, how: str) -> None:
    """An unfinished download whose length was set before, or a block that a memory card lost."""
    begin, end = coded(heic)
    place = begin + int((end - begin) * part) + 100
    stop = min(end, place + 512) if how == "hole" else end
    damaged = heic[:place] + bytes(stop - place) + heic[stop:]
    with pytest.raises(PictureError, match="damaged or truncated"):
        read_picture(damaged)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def check(*boxes: bytes) -> None:
    data = box(b"ftyp", b"heic") + box(b"meta", bytes(4) + b"".join(boxes))
    check_coded(io.BytesIO(data), Budget("a.heic"), alpha=True)


def test_a_structure_that_is_none_is_left_to_the_decoder() -> None:
    check_coded(io.BytesIO(b""), Budget("a.heic"), alpha=True)
    check_coded(io.BytesIO(box(b"ftyp", b"heic") + b"\0\0\0\0free"), Budget("a.heic"), alpha=True)
    check()
    check(box(b"pitm", b""), box(b"iinf", b"\0"), box(b"iloc", b"\0\0\0\0"))
    check(box(b"iloc", bytes([1, 0, 0, 0, 0x44, 0x40, 0xFF, 0xFF])))


def test_places_without_end_are_refused_at_once() -> None:
    """Entries of no bytes: a few megabytes would announce billions of them."""
    entry = struct.pack(">HHHH", 1, 0, 0, 0xFFFF)
    with pytest.raises(PictureTooLarge, match="64 MiB of metadata"):
        check(box(b"iloc", bytes([1, 0, 0, 0, 0, 0]) + struct.pack(">H", 0xFFFF) + entry * 0xFFFF))


def test_boxes_without_end_are_refused_at_once() -> None:
    with pytest.raises(PictureTooLarge, match="64 MiB of metadata"):
        check_coded(io.BytesIO(box(b"free", b"") * 200_000), Budget("a.heic"), alpha=True)
