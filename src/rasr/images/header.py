"""What a file is, by its content and its header alone; whatever its extension says. Nothing is decoded here."""

from __future__ import annotations

import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.ImageFile import ImageFile

from rasr.errors import OutOfMemory, PictureError, PictureTooLarge, RasrError, UnsupportedFormat
from rasr.images.limits import Limits
from rasr.images.plugins import PLUGINS, TiffFile, sample_bits, stored_orientation, tiff_pages, webp_size

__all__ = ["Header", "Source", "read_header"]

Source = str | Path | bytes
"""A picture file, or its whole content."""

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
    with ExitStack() as stack:
        file = stack.enter_context(_open_file(source, name, limits))
        with parsing(name), quiet():
            head = file.read(32)
            format_ = _sniff(head, name)
            if format_ == "WEBP":  # its plugin allocates the canvas at once
                limits.check(*webp_size(head), 1, name)
            file.seek(0)
            image = stack.enter_context(PLUGINS[format_](file))
            bits, (width, height) = sample_bits(image), image.size
            limits.check(width, height, 1, name)
            frames = _frames(image, file, limits)
            limits.check(width, height, frames, name)
            orientation = stored_orientation(image, file)
        if orientation >= 5 and format_ != "TIFF":  # Pillow's TIFF says the upright size by itself
            width, height = height, width
        # Outside of "parsing": what goes wrong in the caller's block is not this file's doing.
        yield Opened(name, file, image, Header(format_, width, height, bits, frames, orientation))


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


def _frames(image: ImageFile, file: BinaryIO, limits: Limits) -> int:
    if isinstance(image, TiffFile):
        return tiff_pages(file, 2**31 if limits.max_frames is None else limits.max_frames)
    return int(getattr(image, "n_frames", 1))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep parsers' warnings (odd tags, padding) off the user's terminal; ``catch_warnings`` is not thread-safe."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
