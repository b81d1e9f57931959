"""HEIF: the coded pictures are looked through, since their decoder makes up what is missing and says nothing."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from rasr.images.plugins import ITEM_BYTES, METADATA_BYTES, Budget, expect

_PADDING = 64
"""Zeros that an encoder may leave behind a unit."""
_STEP = 64
"""What a box or the place of a piece counts."""


@dataclass(slots=True)
class _Meta:
    """What the box ``meta`` says of the items."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    """Item → type: hvc1 for HEVC, grid for a picture made of tiles."""
    parts: dict[int, frozenset[int]] = field(default_factory=dict)
    """Item → items it is made of."""
    beside: dict[int, frozenset[int]] = field(default_factory=dict)
    """Item → items whose alpha, depth or gain map it is."""
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Item → offset in the file and length of its pieces."""
    prefixes: set[int] = field(default_factory=set)
    """Bytes of the number before each unit."""


def check_coded(file: BinaryIO, budget: Budget, *, alpha: bool) -> None:
    """Raise ValueError where the HEVC data of the picture, its tiles or its ``alpha`` hold a run of zeros.

    A unit never holds three zero bytes in a row (ITU-T H.265, 7.4.2). Zeros are what an unfinished download or a bad
    memory card leaves. What cannot be understood here is left to libheif's own judgement.
    """
    try:
        meta = _read_meta(file, budget)
    except (struct.error, IndexError, OverflowError, OSError):
        return
    if len(meta.prefixes) != 1:
        return
    (prefix,) = meta.prefixes
    wanted = meta.parts.get(meta.primary, frozenset()) | {meta.primary}
    wanted |= {item for item in meta.extents if alpha and meta.primary in meta.beside.get(item, ())}
    items = [item for item in meta.extents if item in wanted]
    left = file.seek(0, os.SEEK_END)
    for item in items:
        if meta.kinds.get(item) not in {b"hvc1", b"hev1"}:
            continue
        left -= sum(length for _, length in meta.extents[item])
        expect(left >= 0, "its parts share their bytes")
        data = b"".join(_pieces(file, meta.extents[item]))
        place = 0
        while place + prefix < len(data):
            size = int.from_bytes(data[place : place + prefix], "big")
            place += prefix + size
            unit = data[place - size : place]
            end = len(unit.rstrip(b"\0"))
            expect(size > 0 and place <= len(data), "a coded picture ends early")
            expect(len(unit) - end <= _PADDING and b"\0\0\0" not in unit[:end], "a part of a coded picture is missing")


def _pieces(file: BinaryIO, extents: list[tuple[int, int]]) -> Iterator[bytes]:
    for offset, length in extents:
        file.seek(offset)
        yield file.read(length)


def _meta_box(file: BinaryIO, budget: Budget) -> bytes:
    place = 0
    while True:
        file.seek(place)
        head = file.read(16)
        budget.spend(ITEM_BYTES)
        size, kind = struct.unpack_from(">I4s", head)
        start = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", head, 8)
            start = 16
        if size < start and size:
            raise struct.error("a box shorter than its head")
        if kind == b"meta":
            budget.spend(size)
            file.seek(place + start)
            return file.read(size - start if size else METADATA_BYTES)
        if not size:
            raise struct.error("no meta box")
        place += size


def _read_meta(file: BinaryIO, budget: Budget) -> _Meta:
    meta = _Meta()
    for kind, box in _boxes(_meta_box(file, budget)[4:], budget):
        if kind == b"pitm":
            (meta.primary,) = struct.unpack_from(">I" if box[0] else ">H", box, 4)
        elif kind == b"iinf":
            for _, entry in _boxes(box[8 if box[0] else 6 :], budget):
                wide = entry[0] >= 3
                (item,) = struct.unpack_from(">I" if wide else ">H", entry, 4)
                meta.kinds[item] = entry[10 if wide else 8 :][:4]
        elif kind == b"iref":
            letter = "I" if box[0] else "H"
            for relation, entry in _boxes(box[4:], budget):
                item, count = struct.unpack_from(f">{letter}H", entry)
                others = frozenset(struct.unpack_from(f">{count}{letter}", entry, struct.calcsize(letter) + 2))
                {b"dimg": meta.parts, b"auxl": meta.beside}.get(relation, {})[item] = others
        elif kind == b"iprp":
            shared = next((inner for name, inner in _boxes(box, budget) if name == b"ipco"), b"")
            meta.prefixes |= {(inner[21] & 3) + 1 for name, inner in _boxes(shared, budget) if name == b"hvcC"}
        elif kind == b"iloc":
            meta.extents |= _locations(box, budget)
    return meta


def _boxes(data: bytes, budget: Budget) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        budget.spend(_STEP)
        if size < 8:
            return
        yield kind, data[place + 8 : place + size]
        place += size


def _locations(box: bytes, budget: Budget) -> dict[int, list[tuple[int, int]]]:
    """Read ``iloc`` (ISO/IEC 14496-12, 8.11.3); items that do not lie in the file itself are left out."""
    version, sizes = box[0], (box[4] >> 4, box[4] & 15, box[5] >> 4, box[5] & 15 if box[0] else 0)
    place = 6

    def number(size: int) -> int:
        nonlocal place
        place += size
        if place > len(box):
            raise IndexError("iloc ends early")
        return int.from_bytes(box[place - size : place], "big")

    found = {}
    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(sizes[2])
        extents = []
        for _ in range(number(2)):
            budget.spend(_STEP)
            number(sizes[3])
            extents.append((base + number(sizes[0]), number(sizes[1])))
        if method == 0:
            found[item] = extents
    return found
