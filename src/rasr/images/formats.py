"""The formats that can be written, and what each can hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rasr.errors import OutputError
from rasr.images.picture import Origin, Picture

__all__ = ["FORMATS", "OutputFormat", "losses", "output_format"]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """A container and its limits."""

    name: str
    """Pillow's name: JPEG, PNG, WEBP or TIFF."""
    extensions: tuple[str, ...]
    max_side: int
    """Longest side in pixels that the format can express."""
    bits: tuple[int, ...]
    alpha: bool
    gray: bool = True
    quality: int | None = None
    """Default quality of a lossy format."""
    metadata_room: int | None = None
    """Bytes that one block of EXIF, XMP or IPTC can have: a JPEG marker segment less its signature."""


FORMATS = {
    format_.name: format_
    for format_ in (
        OutputFormat(
            "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), 65_535, (8,), alpha=False, quality=95, metadata_room=65_000
        ),
        OutputFormat("PNG", (".png",), 2**31 - 1, (8, 16), alpha=True),
        OutputFormat("WEBP", (".webp",), 16_383, (8,), alpha=True, gray=False, quality=95),
        OutputFormat("TIFF", (".tif", ".tiff"), 2**31 - 1, (8, 16), alpha=True),
    )
}
"""Every format that can be written, by name."""


def output_format(path: str | Path, format: str | None = None) -> OutputFormat:
    """The format asked for by name (any case, ``jpg`` and ``tif`` too), or the one of the path's extension.

    Raises OutputError listing the known ones.
    """
    suffix = Path(path).suffix.lower() if format is None else "." + format.lower().removeprefix(".")
    for candidate in FORMATS.values():
        if suffix in candidate.extensions or (format is not None and format.upper() == candidate.name):
            return candidate
    known = ", ".join(extension for candidate in FORMATS.values() for extension in candidate.extensions)
    asked = f"extension '{suffix}'" if suffix else "no extension"
    if suffix in {".heic", ".heif", ".hif"}:
        asked = "HEIC, which is read but not written"
    raise OutputError(f"{path}: cannot be saved with {asked}. Use one of {known}.")


def check_size(path: str | Path, format_: OutputFormat, width: int, height: int) -> None:
    """Raise OutputError when the format cannot hold a picture of this size, naming one that can."""
    if max(width, height) > format_.max_side:
        fits = [other.extensions[0] for other in FORMATS.values() if other.max_side >= max(width, height)]
        raise OutputError(
            f"{path}: {format_.name} holds at most {format_.max_side} pixels a side and the result has "
            f"{width}×{height}. Use {' or '.join(fits)}."
        )


def depth(origin: Origin, format_: OutputFormat, bits: int | None) -> int:
    """Bits per channel to write: those asked for, else the origin's if the format has them, else 8.

    Raises OutputError for bits the format does not have.
    """
    if bits is None:
        return origin.bits if origin.bits in format_.bits else 8
    if bits not in format_.bits:
        fits = [other.extensions[0] for other in FORMATS.values() if bits in other.bits]
        use = f"use {' or '.join(fits)}" if fits else "choose 8 or 16"
        raise OutputError(f"{format_.name} cannot hold {bits} bits per channel; {use}.")
    return bits


def losses(picture: Picture, path: str | Path, *, format: str | None = None) -> tuple[str, ...]:
    """What saving this picture in this format gives up, one sentence each; known before any work is done."""
    format_ = output_format(path, format)
    found = []
    if picture.alpha is not None and not format_.alpha:
        found.append(f"{format_.name} has no transparency: the picture is laid on the background colour")
    if picture.origin.bits > max(format_.bits):
        found.append(f"{format_.name} has 8 bits per channel: the input's 16 are rounded")
    if picture.origin.iptc and format_.name not in {"JPEG", "TIFF"}:
        found.append(f"{format_.name} has no place for IPTC captions: they are left out (XMP and EXIF are kept)")
    if format_.metadata_room is not None:
        blocks = {"EXIF": picture.origin.exif, "XMP": picture.origin.xmp, "IPTC": picture.origin.iptc}
        for name, block in blocks.items():
            if block and len(block) > format_.metadata_room:
                part = "its maker note is" if name == "EXIF" else "it is"
                found.append(f"the {name} block is too long for {format_.name}: {part} left out")
    return tuple(found)
