"""What a file is, by its content and its header alone: nothing is decoded here.

Formats come from an allow-list, whatever the extension says, and each goes straight to its one Pillow plugin (or to
libheif): a file can never reach the parser of a format that is not on the list, and Pillow's process-wide pixel limit,
which ``Image.open`` would apply, gives way to :class:`~rasr.images.limits.Limits`.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from rasr.errors import ExtraMissing, OutOfMemory, PictureError, PictureTooLarge, RasrError, UnsupportedFormat
from rasr.images.limits import Limits

__all__ = ["Header", "Source", "read_header"]

Source = str | Path | bytes
"""A picture file, or its whole content."""

_PLUGINS: dict[str, Callable[[BinaryIO], ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}

_KNOWN_BUT_REFUSED = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"8BPS": "a Photoshop document",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"PK\x03\x04": "a ZIP archive",
    b"<?xml": "XML or SVG text",
    b"<svg": "SVG text",
    b"<!DO": "a web page",
    b"<htm": "a web page",
}

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

_ORIENTATION = 0x0112

_warnings_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Header:
    """What a file announces about itself."""

    format: str
    """Pillow's name of the container: JPEG, PNG, WEBP, TIFF or HEIF."""
    width: int
    """Pixels, after the EXIF orientation is applied."""
    height: int
    bits: int
    """Bits per channel as they will be read: 8 or 16."""
    frames: int
    orientation: int
    """EXIF orientation 1 to 8 of the stored pixels."""


@dataclass(slots=True)
class Opened:
    """A file whose header was parsed and found within the limits; pixels are decoded when asked for."""

    name: str
    file: BinaryIO
    image: ImageFile
    header: Header


def read_header(source: Source, *, limits: Limits | None = None) -> Header:
    """Format, upright size, depth and number of frames of a picture, without decoding it.

    Raises PictureError (UnsupportedFormat, PictureTooLarge) as :func:`~rasr.images.read_picture` does.
    """
    with open_header(source, limits or Limits.from_memory()) as opened:
        return opened.header


@contextmanager
def open_header(source: Source, limits: Limits) -> Iterator[Opened]:
    """Open a picture, check its header against the limits, and close it again at the end of the block."""
    name = "picture" if isinstance(source, bytes) else str(source)
    with _open_file(source, name, limits) as file, parsing(name):
        head = file.read(32)
        format_ = _sniff(head, name)
        if format_ == "WEBP":  # its plugin allocates the canvas at once
            limits.check(*_webp_size(head), 1, name)
        file.seek(0)
        with quiet():
            image = _heif(file) if format_ == "HEIF" else _PLUGINS[format_](file)
            limits.check(*image.size, 1, name)
            frames = _tiff_pages(file, limits) if format_ == "TIFF" else int(getattr(image, "n_frames", 1))
            limits.check(*image.size, frames, name)
            orientation = image.getexif().get(_ORIENTATION, 1)
        with image:
            if orientation not in range(1, 9):
                orientation = 1
            width, height = image.size if orientation < 5 else image.size[::-1]
            yield Opened(name, file, image, Header(format_, width, height, _bits(image), frames, orientation))


@contextmanager
def parsing(name: str) -> Iterator[None]:
    """Turn whatever a parser raises on hostile bytes into one PictureError that names the file.

    Pillow, tifffile, libpng and libheif let a zoo of exceptions out of damaged files (struct.error, SyntaxError,
    ZeroDivisionError, ...), so this boundary is the one place that catches Exception.
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


def _open_file(source: Source, name: str, limits: Limits) -> BinaryIO:
    if isinstance(source, bytes):
        limits.check_bytes(len(source), name)
        size = len(source)
        file: BinaryIO = io.BytesIO(source)
    else:
        try:
            status = Path(source).stat()
            if stat.S_ISDIR(status.st_mode):
                raise PictureError(f"{name}: this is a folder, not a picture.")
            if not stat.S_ISREG(status.st_mode):
                raise PictureError(f"{name}: not a regular file.")
            limits.check_bytes(status.st_size, name)
            size = status.st_size
            file = Path(source).open("rb")  # noqa: SIM115  the caller closes it
        except FileNotFoundError as error:
            raise PictureError(f"{name}: no such file.") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
            raise PictureError(f"{name}: cannot be opened ({getattr(error, 'strerror', None) or error}).") from error
    if size == 0:
        file.close()
        raise PictureError(f"{name}: the file is empty.")
    return file


def _sniff(head: bytes, name: str) -> str:
    """The allowed format that these first bytes belong to, or UnsupportedFormat."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")) and head[8:10] != b"CR":
        return "TIFF"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "HEIF"
    found = next((what for magic, what in _KNOWN_BUT_REFUSED.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        found = "an AVIF" if head[8:11] == b"avi" else "a video"
    elif head[8:10] == b"CR":
        found = "a camera raw file"
    is_a = f"this is {found}" if found else "this is not a picture"
    raise UnsupportedFormat(f"{name}: {is_a}; JPEG, PNG, WebP, TIFF and HEIC are read.")


def _webp_size(head: bytes) -> tuple[int, int]:
    """Canvas size from a WebP's first chunk (RFC 9649, sections 2.5 to 2.7)."""
    chunk = head[12:16]
    if chunk == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _tiff_pages(file: BinaryIO, limits: Limits) -> int:
    """Length of a TIFF's chain of directories; stops one above the limit, and at a chain that bites its own tail."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head.startswith(b"II") else ">"
    big = head[2:4] in {b"+\0", b"\0+"}
    count, offset = (order + "Q", order + "Q") if big else (order + "H", order + "I")
    entry, position = (20, 8) if big else (12, 4)
    (following,) = struct.unpack_from(offset, head, position)
    seen = set[int]()
    stop = 2**31 if limits.max_frames is None else limits.max_frames
    while following and following not in seen and len(seen) <= stop:
        seen.add(following)
        file.seek(following)
        field = file.read(struct.calcsize(count))
        if len(field) < struct.calcsize(count):
            break
        file.seek(struct.unpack(count, field)[0] * entry, os.SEEK_CUR)
        field = file.read(struct.calcsize(offset))
        if len(field) < struct.calcsize(offset):
            break
        (following,) = struct.unpack(offset, field)
    return max(1, len(seen))


def _heif(file: BinaryIO) -> ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ExtraMissing("Reading HEIC pictures", "heic") from error
    return cast(ImageFile, HeifImageFile(file))


def _bits(image: ImageFile) -> int:
    """16 for every depth above 8 that is read in full, else 8."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        return 16 if any(";16" in str(tile[3]) for tile in image.tile) else 8
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16 if max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8 else 8
    return 16 if image.info.get("bit_depth", 8) > 8 else 8


@contextmanager
def quiet() -> Iterator[None]:
    """Keep parsers' warnings (odd tags, padding) off the user's terminal; ``catch_warnings`` is not thread-safe."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
