"""Parsers: one for each allowed format, for headers without decoding, with our own limits.

Each file goes straight to its plugin, not through ``Image.open``: it can never reach the parser of another format, and
Pillow's process-wide pixel limit gives way to :class:`~rasr.images.Limits`.
"""

import logging
import os
import struct
from collections.abc import Callable
from typing import BinaryIO, cast

from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from rasr.errors import ExtraMissing

_ORIENTATION = 0x0112

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its remarks on odd tags go to the terminal


class TiffFile(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF; opens deep pixels too (tifffile decodes them), and knows only our limits."""

    def _setup(self) -> None:
        try:
            super()._setup()
        except SyntaxError:
            if sample_bits(self) != 16:
                raise
            self._mode = "I;16"  # a placeholder: these samples are read by tifffile
            if profile := self.tag_v2.get(TiffImagePlugin.ICCPROFILE):
                self.info["icc_profile"] = profile

    def load_prepare(self) -> None:
        """As in Pillow, less its own pixel limit: ours was applied to the header."""
        self.im = Image.new(self.mode, self._tile_size).im
        ImageFile.ImageFile.load_prepare(self)


def _heif(file: BinaryIO) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ExtraMissing("Reading HEIC pictures", "heic") from error
    return cast(ImageFile.ImageFile, HeifImageFile(file))


PLUGINS: dict[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffFile,
    "HEIF": _heif,
}
"""Format name → function that parses the header of an open file."""


def stored_orientation(image: ImageFile.ImageFile, file: BinaryIO) -> int:
    """Read the EXIF orientation of the stored pixels, 1 to 8 (else 1), without decoding them."""
    if isinstance(image, PngImagePlugin.PngImageFile) and "exif" not in image.info:
        # Pillow would decode the whole picture to see whether an EXIF chunk follows the pixels.
        if block := _png_chunk(file, b"eXIf"):
            image.info["exif"] = b"Exif\0\0" + block
        found = Image.Image.getexif(image).get(_ORIENTATION, 1)
    else:
        found = image.getexif().get(_ORIENTATION, 1)
    return int(found) if found in range(1, 9) else 1


def sample_bits(image: ImageFile.ImageFile) -> int:
    """Return 16 for every depth above 8 bits a channel, else 8."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        deep = any("16" in str(tile[3]) for tile in image.tile)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        deep = max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8
    else:
        deep = image.info.get("bit_depth", 8) > 8
    return 16 if deep else 8


def webp_size(head: bytes) -> tuple[int, int]:
    """Read the canvas size from a WebP's first 30 bytes (RFC 9649, sections 2.5 to 2.7)."""
    chunk = head[12:16]
    if chunk == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def tiff_pages(file: BinaryIO, most: int) -> int:
    """Count a TIFF's chain of directories; stops above ``most`` and where the chain loops."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head.startswith(b"II") else ">"
    big = head[2:4] in {b"+\0", b"\0+"}
    count, link, entry = (order + "Q", order + "Q", 20) if big else (order + "H", order + "I", 12)
    (offset,) = struct.unpack_from(link, head, 8 if big else 4)
    seen = set[int]()
    while offset and offset not in seen and len(seen) <= most:
        seen.add(offset)
        try:
            file.seek(offset)
            (entries,) = struct.unpack(count, file.read(struct.calcsize(count)))
            file.seek(entries * entry, os.SEEK_CUR)
            (offset,) = struct.unpack(link, file.read(struct.calcsize(link)))
        except (struct.error, OSError, ValueError, OverflowError):  # the chain leaves the file
            break
    return max(1, len(seen))


def _png_chunk(file: BinaryIO, wanted: bytes, most: int = 100_000) -> bytes | None:
    """Read a PNG's first chunk of this type (at most 1 MiB), and of others only the heads."""
    file.seek(8)
    for _ in range(most):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return None
        length = int.from_bytes(head[:4], "big")
        if head[4:] == wanted:
            return file.read(min(length, 1 << 20))
        file.seek(length + 4, os.SEEK_CUR)
    return None
