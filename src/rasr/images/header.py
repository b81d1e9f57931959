"""Header of a picture file: format by content, size, frames, limits. Nothing is decoded."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL.ImageFile import ImageFile

from rasr.errors import PictureError, PictureTooLarge, UnsupportedFormat
from rasr.images.jpeg import JpegHead, read_head
from rasr.images.plugins import PLUGINS, Budget, parsing, quiet, sample_bits, stored_orientation, webp_size
from rasr.images.png import PngHead, read_chunks
from rasr.images.tiff import TiffHead, read_directories
from rasr.memory import usable_memory
from rasr.object_path import place

ImageSource = str | Path | bytes
"""A picture file, or its whole content."""

FLOOR_PIXELS = 89_478_485
"""Pillow's own warning threshold: no machine is asked to accept less than this."""

BYTES_PER_PIXEL = 24
"""Peak cost of reading: file samples, their copy in Pillow, float32 RGB and one strip of work."""

MAX_WHOLE = 512 * 2**20
"""Bytes of a WebP or HEIC: their libraries want the whole file at once."""

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


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is decoded, checked on the header; None means unbounded."""

    max_pixels: int | None = None
    """Width times height."""
    max_frames: int | None = 10_000
    """Frames or pages; only the first one is ever decoded."""
    max_bytes: int | None = 4 * 2**30
    """Size of the file: what classic TIFF can address."""
    held_pixels: int = 0
    """Pixels of other pictures that stay in memory meanwhile, and count as well."""

    @classmethod
    def from_memory(cls, processes: int = 1) -> Limits:
        """Return what fits into half of this machine's memory, and at least 89.48 megapixels.

        ``processes`` that read pictures beside one another have a part each.
        """
        return cls(max(FLOOR_PIXELS, usable_memory() // processes // 2 // BYTES_PER_PIXEL))

    @classmethod
    def megapixels(cls, number: float | None) -> Limits:
        """Return the limit that ``--max-megapixels`` sets; None allows any number of pixels."""
        return cls(None, max_bytes=None) if number is None else cls(round(number * 1e6))

    def check(self, width: int, height: int, frames: int, name: str) -> None:
        """Raise PictureTooLarge when the header of the picture ``name`` announces too much."""
        if self.max_frames is not None and frames > self.max_frames:
            raise PictureTooLarge(f"{name}: not read, it has more than {self.max_frames} frames, which is the limit.")
        if self.max_pixels is not None and width * height + self.held_pixels > self.max_pixels:
            found = f"it has {width}×{height} pixels ({width * height / 1e6:.1f} megapixels)"
            if self.held_pixels:
                found += f" beside {self.held_pixels / 1e6:.1f} megapixels of pictures that are needed with it"
            raise PictureTooLarge(
                f"{name}: not read, {found} and the limit is {self.max_pixels / 1e6:.1f} megapixels. "
                "Raise the limit with --max-megapixels N, or 'none' if you trust the file."
            )


@dataclass(frozen=True, slots=True)
class Header:
    """Format, upright size, depth, frames and orientation that a file announces."""

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
    """A file whose header was parsed and is within the limits; pixels are decoded on demand."""

    name: str
    file: BinaryIO
    image: ImageFile
    header: Header
    head: JpegHead | PngHead | TiffHead | None
    """What was found while walking the file's structure."""


def read_header(source: ImageSource, *, limits: Limits | None = None) -> Header:
    """Read format, upright size, depth and number of frames of a picture, without decoding it.

    Raises PictureError (UnsupportedFormat, PictureTooLarge) as :func:`~rasr.images.read_picture` does.
    """
    with open_header(source, limits or Limits.from_memory()) as opened:
        return opened.header


@contextmanager
def open_header(source: ImageSource, limits: Limits) -> Iterator[Opened]:
    """Open a picture and check its header against the limits; closes it at the end of the block."""
    name = "picture" if isinstance(source, bytes) else str(source)
    with ExitStack() as stack:
        file, size = _open_file(source, name, limits)
        stack.enter_context(file)
        with parsing(name), quiet():
            start = file.read(32)
            format_ = _sniff(start, name)
            head = _walk(file, format_, limits, Budget(name))
            if format_ == "WEBP":  # its plugin allocates the canvas at once
                limits.check(*webp_size(start), 1, name)
            if format_ in {"WEBP", "HEIF"} and size > MAX_WHOLE:
                raise PictureTooLarge(f"{name}: not read, {format_} files are read up to {MAX_WHOLE >> 20} MiB.")
            file.seek(0)
            image = stack.enter_context(PLUGINS[format_](file))
            if isinstance(head, TiffHead) and head.page:
                image.seek(head.page)
            bits, (width, height) = sample_bits(image), image.size
            limits.check(width, height, 1, name)
            frames = head.pages if isinstance(head, TiffHead) else int(getattr(image, "n_frames", 1))
            limits.check(width, height, frames, name)
            orientation = stored_orientation(image, head.chunks.get(b"eXIf") if isinstance(head, PngHead) else None)
        if orientation >= 5 and format_ != "TIFF":  # Pillow's TIFF says the upright size by itself
            width, height = height, width
        # Outside of "parsing": what goes wrong in the caller's block is not this file's doing.
        yield Opened(name, file, image, Header(format_, width, height, bits, frames, orientation), head)


def _walk(file: BinaryIO, format_: str, limits: Limits, budget: Budget) -> JpegHead | PngHead | TiffHead | None:
    """Walk the file's structure before a parser does. Raises PictureTooLarge when that would be long work."""
    if format_ == "JPEG":
        return read_head(file, budget)
    if format_ == "PNG":
        return read_chunks(file, budget)
    if format_ == "TIFF":
        return read_directories(file, 2**31 if limits.max_frames is None else limits.max_frames, budget)
    return None


def _open_file(source: ImageSource, name: str, limits: Limits) -> tuple[BinaryIO, int]:
    """Open a regular file within the limits, and tell its size; a pipe or a device is never opened."""
    if isinstance(source, bytes):
        size = len(source)
        file: BinaryIO = io.BytesIO(source)
    else:
        try:
            path = place(source)
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                raise PictureError(f"{name}: this is a folder, not a picture.")
            if not stat.S_ISREG(status.st_mode):
                raise PictureError(f"{name}: not a regular file.")
            size = status.st_size
            file = path.open("rb")
        except FileNotFoundError as error:
            raise PictureError(f"{name}: no such file.") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
            raise PictureError(f"{name}: cannot be opened ({getattr(error, 'strerror', None) or error}).") from error
    if size == 0 or (limits.max_bytes is not None and size > limits.max_bytes):
        file.close()
        if size == 0:
            raise PictureError(f"{name}: the file is empty.")
        raise PictureTooLarge(
            f"{name}: not read, the file has {size / 2**30:.1f} GiB and the limit is "
            f"{(limits.max_bytes or 0) / 2**30:.1f}. '--max-megapixels none' lifts it if you trust the file."
        )
    return file, size


def _sniff(head: bytes, name: str) -> str:
    """Tell the allowed format from a file's first bytes; raises UnsupportedFormat for any other."""
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
