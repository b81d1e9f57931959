"""Metadata of an opened file, as it holds for a result of it: EXIF, XMP, IPTC, text and density."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL.ImageFile import ImageFile

from rasr.images.exif import Exif, read_exif
from rasr.images.jpeg import COMMENT, JpegHead, xmp_extension
from rasr.images.picture import Density
from rasr.images.plugins import TiffFile
from rasr.images.png import PngHead, kept_text
from rasr.images.xmp import clean_xmp

if TYPE_CHECKING:
    from rasr.images.header import Opened


def read_metadata(opened: Opened) -> tuple[Exif | None, dict[str, Any], list[str]]:
    """Return the EXIF, further fields of an :class:`~rasr.images.Origin`, and notes on what is left out and why."""
    image, orientation = opened.image, opened.header.orientation
    exif, broken = read_exif(image, opened.file, turned=orientation >= 5)
    notes = [broken] if broken else []
    packet: Any = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    extension, size = xmp_extension(opened.head) if isinstance(opened.head, JpegHead) else (b"", 0)
    if size and not extension:
        notes.append(f"the extended XMP ({size} bytes) is incomplete and was left out")
    packet = packet.encode() if isinstance(packet, str) else bytes(packet)
    xmp, remarks = clean_xmp(packet, extension, turned=orientation != 1)
    texts: tuple[bytes, ...] = ()
    if isinstance(opened.head, JpegHead):
        texts = tuple(opened.head.of(COMMENT))
    elif isinstance(opened.head, PngHead):
        texts, dropped = kept_text(opened.head)
        if dropped:
            remarks.append(f"PNG text that describes the old file was left out ({dropped})")
    density = _stated_density(opened) or (exif.density if exif else None)
    fields = {
        "exif": exif.to_bytes() if exif else None,
        "xmp": xmp,
        "iptc": _iptc(image),
        "texts": texts,
        "density": density,
    }
    return exif, fields, notes + remarks


def _stated_density(opened: Opened) -> Density | None:
    """Density of the upright picture as the container states it; JFIF's 1:1 without a unit states nothing."""
    info, stated = opened.image.info, None
    if isinstance(opened.head, PngHead):
        stated = opened.head.density
    elif opened.header.format == "JPEG" and all(info.get("jfif_density", (0, 0))):
        across, down = info["jfif_density"]
        unit = {1: "inch", 2: "cm"}.get(info.get("jfif_unit", 0), "")
        stated = (across, down, unit) if unit or across != down else None
    if stated and opened.header.orientation >= 5:
        stated = stated[1], stated[0], stated[2]
    return stated


def _iptc(image: ImageFile) -> bytes | None:
    """Read the IPTC-IIM records of a JPEG (resource 0x0404) or TIFF (tag 33723), or None."""
    value: Any
    if isinstance(image, TiffFile):
        # The bytes as stored: many writers declare them as LONGs, of which Pillow's public face keeps only the first.
        value = image.tag_v2._tagdata.get(33723)
    else:
        value = image.info.get("photoshop", {}).get(0x0404)
    return value if isinstance(value, bytes) and value else None
