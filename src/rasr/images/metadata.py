"""Metadata (EXIF, XMP, IPTC) of a file as it is read, and as it goes back into the result."""

import re
from typing import Any

from PIL import ExifTags, Image, TiffImagePlugin
from PIL.ImageFile import ImageFile

Base = ExifTags.Base
IFD = ExifTags.IFD

_IMAGE_HISTORY = 0x9213
"""TIFF/EP: a record of what has been done to the image."""

_DESCRIPTIVE = frozenset(
    {
        Base.DocumentName, Base.ImageDescription, Base.Make, Base.Model, Base.XResolution, Base.YResolution,
        Base.PageName, Base.ResolutionUnit, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer,
        Base.Copyright, Base.Rating, Base.RatingPercent, Base.XPTitle, Base.XPComment, Base.XPAuthor,
        Base.XPKeywords, Base.XPSubject, _IMAGE_HISTORY,
    }
)  # fmt: skip
"""Tags of the main directory that describe the photo; all others describe how its pixels are stored."""


def clean_exif(image: ImageFile) -> tuple[bytes | None, str | None]:
    r"""Read EXIF as a clean block (orientation 1, no storage tags), and a note if it is broken.

    The block starts with ``Exif\0\0``; the Exif, GPS and interoperability directories are kept whole.
    """
    try:
        found = image.getexif()
        exif = Image.Exif()
        for tag, value in found.items():
            if tag in _DESCRIPTIVE:
                exif[tag] = value
        for ifd in (IFD.Exif, IFD.GPSInfo):
            entries = dict(found.get_ifd(ifd))
            if entries.pop(IFD.Interop, None) is not None and (interop := found.get_ifd(IFD.Interop)):
                entries[IFD.Interop] = dict(interop)
            if entries:
                exif.get_ifd(ifd).update(entries)
        if not exif and not exif.get_ifd(IFD.Exif) and not exif.get_ifd(IFD.GPSInfo):
            return None, None
        exif[Base.Orientation] = 1
        return _serialise(exif), None
    except Exception as error:  # noqa: BLE001  the same boundary as header.parsing, but a broken tag must not cost the picture
        return None, f"the EXIF block is damaged and was left out ({type(error).__name__})"


def exif_for_result(
    block: bytes | None, width: int, height: int, *, software: str | None, description: str | None, room: int | None
) -> bytes | None:
    """Make the EXIF block of a result of this size, or None when there is nothing to say.

    ``block`` is an origin's EXIF or None (stripped). ``software`` becomes the Software tag, ``description`` the
    ImageHistory tag (so that a caption of the user's own is never replaced); non-ASCII characters are escaped.
    When the block does not fit into ``room`` bytes it goes without the maker note, and if that is not enough with
    nothing but ``software`` and ``description``.
    """
    exif = Image.Exif()
    if block:
        exif.load(block)
        details = exif.get_ifd(IFD.Exif)
        if details:
            details[Base.ExifImageWidth] = width
            details[Base.ExifImageHeight] = height
    if software:
        exif[Base.Software] = _ascii(software)
    if description:
        exif.get_ifd(IFD.Exif)[_IMAGE_HISTORY] = _ascii(description)
    if not exif and not exif.get_ifd(IFD.Exif):
        return None
    result = _serialise(exif)
    if room is None or len(result) <= room:
        return result
    if block and exif.get_ifd(IFD.Exif).pop(Base.MakerNote, None) is not None and len(_serialise(exif)) <= room:
        return _serialise(exif)
    if block:
        return exif_for_result(None, width, height, software=software, description=description, room=room)
    return exif_for_result(None, width, height, software=software, description=None, room=room) if description else None


def _serialise(exif: Image.Exif) -> bytes:
    # Directories that were looked at but are empty would be written as pointers to nothing.
    for ifd in (IFD.Exif, IFD.GPSInfo):
        if not exif.get_ifd(ifd):
            exif._ifds.pop(ifd, None)
    return exif.tobytes()


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")


def dcf_adobe_rgb(image: ImageFile) -> bool:
    """Tell whether a camera says Adobe RGB (DCF 2.0: uncalibrated, interoperability R03)."""
    try:
        exif = image.getexif()
        details = exif.get_ifd(IFD.Exif)
        return details.get(Base.ColorSpace) == 0xFFFF and str(exif.get_ifd(IFD.Interop).get(1, "")).startswith("R03")
    except Exception:  # noqa: BLE001  a broken EXIF block is reported by clean_exif
        return False


def read_xmp(image: ImageFile) -> bytes | None:
    """Read the XMP packet with its orientation reset, or None."""
    xmp: Any = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if not isinstance(xmp, bytes) or not xmp.strip(b"\0 "):
        return None
    return re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]", rb"\g<1>1", xmp)


def read_iptc(image: ImageFile) -> bytes | None:
    """Read the IPTC-IIM records of a JPEG (resource 0x0404) or TIFF (tag 33723), or None."""
    value: Any
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # The bytes as stored: many writers declare them as LONGs, of which Pillow's public face keeps only the first.
        value = image.tag_v2._tagdata.get(33723)
    else:
        value = image.info.get("photoshop", {}).get(0x0404)
    return value if isinstance(value, bytes) and value else None
