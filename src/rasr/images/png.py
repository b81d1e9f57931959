"""PNG: chunks walked before any parser, what they say of colour and transparency, and writing by libpng."""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from rasr.images import colour
from rasr.images.colour import Space
from rasr.images.picture import Density, Origin
from rasr.images.plugins import ITEM_BYTES, METADATA_BYTES, Budget, printable

PIXEL_CHUNK_COST = 32
"""What a chunk of pixels counts beside its content: large files have many."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""The passes of an interlaced picture: first row and column, steps down and across."""
_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_BEFORE_PIXELS = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"tRNS"})
"""Count only where the specification has them."""
_OF_THE_OLD_FILE = (b"Raw profile type ", b"Thumb::", b"exif:", b"tiff:", b"png:", b"XML:com.adobe.xmp")
"""Keywords of texts that are metadata blocks of their own, or describe the file and not the picture."""


@dataclass(slots=True)
class PngHead:
    """What the chunks say beside the pixels."""

    bits: int = 8
    """As stored: 1, 2, 4, 8 or 16."""
    raw_bytes: int = 0
    """Of the decompressed pixels, with a filter byte for each row."""
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    """Content of the chunks of which there is one: eXIf, and those on colour and density."""
    texts: list[bytes] = field(default_factory=list)
    """Type and content of each chunk of text."""
    end: int = 0
    """Offset behind the last chunk."""

    @property
    def density(self) -> Density | None:
        """Pixels per metre, or their ratio, from pHYs."""
        if len(body := self.chunks.get(b"pHYs", b"")) != 9:
            return None
        across, down, unit = struct.unpack(">IIB", body)
        return (across, down, "m" if unit == 1 else "") if across and down else None


def read_chunks(file: BinaryIO, budget: Budget) -> PngHead:
    """Walk all chunks, with each byte beside the pixels paid for; pixels may have twice what they need."""
    head, pixels, pixel_room = PngHead(), 0, Budget(budget.name)
    file.seek(8)
    while len(start := file.read(8)) == 8:
        size, kind = int.from_bytes(start[:4], "big"), start[4:]
        if kind in {b"IDAT", b"fdAT"}:
            budget.spend(PIXEL_CHUNK_COST)
            if kind == b"IDAT":
                pixel_room.spend(size)
                pixels += 1
            file.seek(size + 4, io.SEEK_CUR)
            continue
        budget.spend(ITEM_BYTES + size)
        body = file.read(size)
        file.seek(4, io.SEEK_CUR)
        if kind == b"IHDR" and size >= 13:
            width, height, head.bits, kind_of_colour = struct.unpack_from(">IIBB", body)
            pixel_bits = _CHANNELS.get(kind_of_colour, 4) * head.bits
            passes = _ADAM7 if body[12] else ((0, 0, 1, 1),)
            sides = [(-(-(width - left) // across), -(-(height - top) // down)) for top, left, down, across in passes]
            head.raw_bytes = sum(rows * (1 + (columns * pixel_bits + 7) // 8) for columns, rows in sides if columns > 0)
            pixel_room = Budget(budget.name, METADATA_BYTES + 2 * head.raw_bytes)
        elif kind in _TEXT:
            head.texts.append(kind + body)
        elif kind == b"eXIf" or (kind in _BEFORE_PIXELS and not pixels):
            head.chunks.setdefault(kind, body)
        elif kind == b"IEND":
            break
    head.end = file.tell()
    return head


def kept_text(head: PngHead) -> tuple[tuple[bytes, ...], str]:
    """Return the texts that hold for a result too, and the keywords of the others, for a note."""
    kept, dropped = list[bytes](), list[bytes]()
    for text in head.texts:
        keyword = text[4:].partition(b"\0")[0]
        if not keyword.startswith(_OF_THE_OLD_FILE):
            kept.append(text)
        elif keyword not in {b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type icc"}:
            dropped.append(text)
    return tuple(kept), name_texts(dropped)


def name_texts(texts: Sequence[bytes]) -> str:
    """List the first keywords of chunks of text, as they can be shown on a terminal."""
    names = list(dict.fromkeys(text[4:].partition(b"\0")[0].decode("latin-1") for text in texts))
    shown = [printable(name)[:79] for name in names[:5]]
    return ", ".join([*shown, f"{len(names) - 5} more"] if len(names) > 5 else shown)


def colour_profile(head: PngHead, icc: bytes | None, space: Space, name: str) -> tuple[bytes | None, str | None]:
    """Choose what describes the colours (PNG, third edition, 4.3): cICP, else iCCP, else sRGB, else gAMA and cHRM.

    Returns an ICC profile, None for sRGB, and a note. Raises PictureError for HDR.
    """
    code = head.chunks.get(b"cICP", b"")
    note = None
    if len(code) == 4 and colour.UNSPECIFIED not in code[:2]:
        profile, note = colour.coded_profile(code[0], code[1], space, name)
        if code[2:] != b"\0\1":
            note = "the colour chunk cICP is not for full-range RGB and was ignored"
        if note is None:
            return profile, None
    if icc is not None or b"sRGB" in head.chunks:
        return icc, note
    gamma, white = head.chunks.get(b"gAMA", b""), head.chunks.get(b"cHRM", b"")
    exponent = int.from_bytes(gamma, "big") / 1e5 if len(gamma) == 4 else 1 / 2.2
    if not 0.1 <= exponent <= 10:
        raise ValueError(f"gAMA {exponent}")
    # libpng's threshold. Writers of sRGB are told to write 0.45455 beside it, and many write nothing else.
    curve = None if abs(exponent * 2.2 - 1) < 0.05 else 1 / exponent
    points = tuple(value / 1e5 for value in struct.unpack(">8I", white)) if len(white) == 32 else colour.SRGB_POINTS
    return colour.make_profile(space, points, curve), note


def scale_transparency(image: ImageFile, head: PngHead) -> None:
    """Bring a gray PNG's transparent level to the 8 bits of Pillow's pixels; bits beyond the depth do not count."""
    key, top = head.chunks.get(b"tRNS", b""), (1 << min(8, head.bits)) - 1
    if image.mode in {"1", "L"} and len(key) >= 2:
        image.info["transparency"] = (key[1] & top) * 255 // top
    elif image.mode == "RGB" and len(key) >= 6:
        image.info["transparency"] = (key[1], key[3], key[5])


def check_complete(file: BinaryIO, image: ImageFile, head: PngHead) -> None:
    """Raise ValueError when the compressed pixels end early: Pillow leaves the rest black and says nothing.

    They are decompressed a second time only where the last row is black, or the picture is interlaced.
    """
    if not image.info.get("interlace") and any(image.crop((0, image.height - 1, *image.size)).tobytes()):
        return
    stream, left = zlib.decompressobj(), head.raw_bytes
    file.seek(8)
    while left > 0 and not stream.eof and len(start := file.read(8)) == 8 and start[4:] != b"IEND":
        size = int.from_bytes(start[:4], "big")
        data = file.read(size) if start[4:] == b"IDAT" else b""
        while left > 0 and data and not stream.eof:
            left -= len(stream.decompress(data, 1 << 20))
            data = stream.unconsumed_tail
        file.seek(4 if start[4:] == b"IDAT" else size + 4, io.SEEK_CUR)
    if left > 0:
        raise ValueError("rows are missing")


def encode_png(samples: NDArray[Any], attached: Origin) -> bytes:
    """Encode (H, W, 1..4) uint8 or uint16 by libpng (Pillow has no 16-bit colour); metadata goes behind the header."""
    import imagecodecs

    data = imagecodecs.png_encode(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    chunks = []
    if attached.icc:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(attached.icc)))
    if attached.density:
        across, down, unit = attached.density
        metres = {"m": 1.0, "cm": 100.0, "inch": 1 / 0.0254, "": 1.0}[unit]
        per = [min(2**31 - 1, max(1, round(value * metres))) for value in (across, down)]
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", *per, unit != "")))
    if attached.exif:
        chunks.append(_chunk(b"eXIf", attached.exif.removeprefix(b"Exif\0\0")))
    if attached.xmp:
        chunks.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + attached.xmp))
    chunks += [_chunk(text[:4], text[4:]) for text in attached.texts]
    after_header = 8 + 25  # signature, IHDR
    return b"".join([data[:after_header], *chunks, memoryview(data)[after_header:]])


def _chunk(kind: bytes, body: bytes) -> bytes:
    """Make a PNG chunk (PNG specification, 5.3)."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
