"""Parsers: one for each allowed format, for headers without decoding, with our own limits, errors and silence.

Each file goes straight to its plugin, not through ``Image.open``: it can never reach the parser of another format, and
Pillow's process-wide pixel limit gives way to :class:`~rasr.images.Limits`.
"""

import logging
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from rasr.errors import ExtraMissing, OutOfMemory, PictureError, PictureTooLarge, RasrError

_ORIENTATION = 0x0112

METADATA_BYTES = 64 * 2**20
"""What one file may hold beside its pixels, extended XMP with whole pictures in it included."""
ITEM_BYTES = 512
"""What a segment, chunk or directory entry counts beside its content: parsers walk them one by one, in Python."""

_warnings_lock = threading.Lock()

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its remarks on odd tags go to the terminal


class Budget:
    """Bytes of metadata and structure that all parsers of one file may go through together."""

    def __init__(self, name: str, limit: int = METADATA_BYTES) -> None:
        self.name = name
        self._limit = self._left = limit

    def spend(self, amount: int) -> None:
        """Count ``amount`` bytes. Raises PictureTooLarge when the file holds more than the limit."""
        self._left -= amount
        if self._left < 0:
            raise PictureTooLarge(
                f"{self.name}: not read, it holds more than {self._limit >> 20} MiB of metadata or stray data beside "
                "the picture. Save it anew with another program if you trust it."
            )


@contextmanager
def parsing(name: str) -> Iterator[None]:
    """Turn whatever a parser raises on hostile bytes into one PictureError that names the file.

    Pillow, tifffile, libjpeg, libpng and libheif let a zoo of exceptions out of damaged files (struct.error,
    SyntaxError, ZeroDivisionError, ...), so this boundary is the one place that catches Exception.
    """
    try:
        yield
    except RasrError:
        raise
    except MemoryError as error:
        raise OutOfMemory(f"{name}: not enough memory to decode it.") from error
    except Image.DecompressionBombError as error:
        raise PictureTooLarge(f"{name}: not read, {error}.") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{name}: damaged or truncated picture ({reason.rstrip('.')[:200]}).") from error


def printable(text: str) -> str:
    """Return a file's own words as they can be shown on a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def expect(consistent: bool, what: str = "header and content disagree") -> None:
    """Raise ValueError when two parts of a file contradict each other."""
    if not consistent:
        raise ValueError(what)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep parsers' warnings off the terminal; the lock is for ``catch_warnings``."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class TiffFile(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF; opens pixels it has no mode for too (tifffile decodes them), and knows only our limits."""

    beyond_pillow = False
    """True when only tifffile can read the pixels of the current page."""

    def _setup(self) -> None:
        try:
            self.beyond_pillow = False
            super()._setup()
        except SyntaxError:
            self.beyond_pillow = True
            self._mode = "I;16" if sample_bits(self) == 16 else "L"  # a placeholder
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


def stored_orientation(image: ImageFile.ImageFile, exif: bytes | None = None) -> int:
    """Read the EXIF orientation of the stored pixels, 1 to 8 (else 1), without decoding them.

    ``exif`` is a PNG's chunk, wherever it stands: Pillow would decode the picture to see whether one follows it.
    """
    if isinstance(image, PngImagePlugin.PngImageFile):
        if exif:
            image.info["exif"] = b"Exif\0\0" + exif
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
