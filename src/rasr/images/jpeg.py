"""JPEG: segments and scans walked before any parser, and a decoder that tells when data are missing."""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from rasr.errors import PictureTooLarge
from rasr.images.plugins import ITEM_BYTES, METADATA_BYTES, Budget, expect

MAX_SCANS = 100
"""Progressive files have about ten. Each is a pass over all pixels, however few bytes it has."""
CODE_BYTES = 8
"""More than a pixel of four channels can need at the highest quality."""
STRAY_COST = 64
"""What a byte between segments counts: Pillow steps over each in Python."""
COMMENT, START_OF_SCAN, END = 0xFE, 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_BARE = frozenset({0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
"""Markers without a segment behind them."""
_METADATA = frozenset({START_OF_SCAN, COMMENT, *range(0xE1, 0xEE), 0xEF})
"""What the decoder need not see; the scans' own headers are read with them."""
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PHOTOSHOP = 0xED
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_MISSING = re.compile("remature end|found marker 0x(?!d[0-7])")
"""Warnings of libjpeg that mean missing data: the file, a scan or, with another marker in its place, an interval."""
_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


@dataclass(slots=True)
class JpegHead:
    """What stands before the first scan."""

    segments: list[tuple[int, bytes]]
    """Marker and content, in order."""
    scans_at: int
    """Offset of the first start-of-scan marker; the file's end when there is none."""

    def of(self, *markers: int) -> list[bytes]:
        """Return the contents of all segments with one of these markers."""
        return [content for marker, content in self.segments if marker in markers]


def read_head(file: BinaryIO, budget: Budget) -> JpegHead:
    """Walk the segments before the first scan, as Pillow will, with each byte and each step paid for."""
    segments: list[tuple[int, bytes]] = []
    joined = 0
    file.seek(2)
    while len(two := file.read(2)) == 2:
        if two[0] != 0xFF or two[1] == 0xFF:
            budget.spend(STRAY_COST)
            file.seek(-1, io.SEEK_CUR)
            continue
        if two[1] == 0 or two[1] in _BARE:
            budget.spend(2 * STRAY_COST)
            continue
        place = file.tell() - 2
        size = max(0, int.from_bytes(file.read(2), "big") - 2)
        budget.spend(ITEM_BYTES + size)
        content = file.read(size)
        segments.append((two[1], content))
        if two[1] == START_OF_SCAN:
            return JpegHead(segments, place)
        if two[1] == _PHOTOSHOP:  # whose resources Pillow walks in Python
            budget.spend(ITEM_BYTES * content.count(b"8BIM"))
        if content.startswith(b"Exif\0\0"):  # Pillow joins these, each by a copy of all before
            budget.spend(joined)
            joined += size
    return JpegHead(segments, file.tell())


def xmp_extension(head: JpegHead) -> tuple[bytes, int]:
    """Join the extended XMP (XMP specification, part 3, 1.1.3.1): its bytes, empty when incomplete, and its size."""
    parts, size = dict[int, bytes](), 0
    for content in head.of(0xE1):
        if content.startswith(_EXTENSION) and len(content) > len(_EXTENSION) + 40:
            size, offset = struct.unpack_from(">II", content, len(_EXTENSION) + 32)
            parts[offset] = content[len(_EXTENSION) + 40 :]
    joined = b"".join(part for _, part in sorted(parts.items()))
    whole = len(joined) == size and all(joined[at : at + len(part)] == part for at, part in parts.items())
    return joined if whole else b"", size


def decode_jpeg(file: BinaryIO, head: JpegHead, mode: str, name: str) -> tuple[NDArray[np.uint8], list[str]]:
    """Decode to (H, W, C) uint8 in Pillow's ``mode`` (L, RGB, CMYK as stored by Adobe), and notes on mild damage.

    libjpeg fills what is missing with gray and goes on with a warning. Here missing data, down to the last block, raise
    ValueError, and so does a colour channel that no scan has; other warnings become notes.
    """
    frame = _frame(head)
    height, width = struct.unpack_from(">HH", frame, 1)
    data, end, scans = _read_stream(file, head, Budget(name, METADATA_BYTES + CODE_BYTES * width * height))
    notes = []
    if _coverage(frame, scans, progressive=bool(head.of(*_PROGRESSIVE))):
        notes.append("the JPEG ends before its last scan: fine detail is missing")
    array, warning = _decode(data, end, mode)
    if warning:
        notes.append(f"the JPEG is damaged in places ({warning})")
    return array, notes


def check_stream(data: bytes, width: int, height: int, name: str) -> None:
    """Check a JPEG inside another file: not larger than (width, height), few scans, nothing missing."""
    file = io.BytesIO(data)
    head = read_head(file, Budget(name))
    frame = _frame(head)
    rows, columns = struct.unpack_from(">HH", frame, 1)
    expect(columns <= width and rows <= height)
    stream, end, _ = _read_stream(file, head, Budget(name, len(data)))
    _, warning = _decode(stream, end, {1: "L", 4: "CMYK"}.get(frame[5], "RGB"))
    expect(not warning, warning)


def _frame(head: JpegHead) -> bytes:
    """Return the frame header: depth, height, width, number of channels, and three bytes for each of them."""
    frame = next(iter(head.of(*_FRAMES)), b"")
    expect(len(frame) >= 6)
    return frame


def _read_stream(file: BinaryIO, head: JpegHead, budget: Budget) -> tuple[bytes, int, list[bytes]]:
    """Read up to the end marker, less metadata: bytes, the marker's offset (or the length), the headers of scans."""
    data, scans = bytearray(b"\xff\xd8"), list[bytes]()
    for marker, content in head.segments:
        if marker not in _METADATA:
            data += bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
    position = len(data)
    file.seek(head.scans_at)
    while True:
        match = _MARKER.search(data, position)
        if match is None or match.end() + 16 > len(data):
            block = file.read(1 << 20)
            budget.spend(len(block))
            if block:
                position = max(position, len(data) - 1) if match is None else match.start()
                data += block
                continue
        if match is None:
            return bytes(data), len(data), scans
        marker, position = data[match.start() + 1], match.end()
        if marker == END:
            return bytes(data[:position]), match.start(), scans
        if marker == START_OF_SCAN:
            scans.append(bytes(data[position + 2 : position + 14]))
            if len(scans) > MAX_SCANS:
                raise PictureTooLarge(
                    f"{budget.name}: not read, it has more than {MAX_SCANS} scans. Save it anew if you trust it."
                )
        if marker not in _BARE:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))


def _coverage(frame: bytes, scans: list[bytes], *, progressive: bool) -> bool:
    """Tell whether coefficients are missing or coarse. Raises ValueError when a whole channel is."""
    sent = {channel: np.full(64, 99) for channel in frame[6 : 6 + 3 * frame[5] : 3]}
    for scan in scans:
        channels = scan[1 : 1 + 2 * scan[0] : 2] if scan else b""
        tail = scan[1 + 2 * len(channels) :]
        if len(tail) < 3:
            return False  # not a header that can be understood: libjpeg will say so
        first, last, low = (tail[0], tail[1], tail[2] & 15) if progressive else (0, 63, 0)
        for channel in channels:
            if channel in sent:
                sent[channel][first : last + 1] = low
    expect(all(left[0] < 99 for left in sent.values()), "it ends before all colour channels are there")
    return any(left.any() for left in sent.values())


def _decode(data: bytes, end: int, mode: str) -> tuple[NDArray[np.uint8], str]:
    """Decode strictly; where libjpeg warns of something else than missing data, leniently, with its warning."""
    import simplejpeg

    try:
        array: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, _COLOURS[mode])
        return (255 - array if mode == "CMYK" else array), ""
    except ValueError as error:
        if _MISSING.search(str(error)):
            raise
        warning = str(error).removeprefix("Corrupt JPEG data: ")
    lenient: Callable[[bytes], NDArray[np.uint8]] = partial(_leniently, mode=mode)
    if "subsampling" in warning:  # a rare ratio, of which its programming interface has no name
        lenient, warning = _by_pillow, ""
    array = lenient(data)
    # Only the first warning is told. Whatever bits would follow: if they change the picture, some are missing.
    expect((lenient(data[:end] + _filler() + b"\xff\xd9") == array).all(), "premature end of data segment")
    return array, warning


def _leniently(data: bytes, mode: str) -> NDArray[np.uint8]:
    import simplejpeg

    array: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, _COLOURS[mode], strict=False)
    return 255 - array if mode == "CMYK" else array


def _by_pillow(data: bytes) -> NDArray[Any]:
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        array: NDArray[Any] = np.asarray(image)
    return array if array.ndim == 3 else array[:, :, None]


def _filler() -> bytes:
    """Bits that no decoder takes for the zeros it makes up itself; also behind each of the restart markers."""
    noise = np.random.default_rng(0).integers(0x80, 0xFF, (9, 256), np.uint8)
    restarts = [bytes([0xFF, 0xD0 + index]) + bytes(noise[1 + index]) for index in range(8)]
    return b"".join([bytes(noise[0]), *restarts])
