"""Location: where a photo was taken, out of its EXIF, XMP, IPTC and texts, with all else left as it is.

What is written in words (a caption, a keyword, an artist's address) says what its writer wanted to say, and is kept.
A camera's maker note is in a format of the maker's own, in which some write places: it goes whole.
"""

import re
from dataclasses import replace

from PIL.ExifTags import Base

from rasr.images.exif import load_exif
from rasr.images.picture import Origin
from rasr.images.xmp import without_properties

_PLACES_IPTC = frozenset({26, 27, 90, 92, 95, 100, 101})
"""Datasets of IPTC's record 2: content location code and name, city, sublocation, province, country code and name."""
_PLACE = re.compile(
    r"gps|latitude|longitude|altitude|location|geo(?:tag|hash|coord|name)|country|province|placename|worldregion"
    r"|(?:city|state|coverage|lat|long?|alt|district|county)\Z",
    re.IGNORECASE,
)
"""Start of the name of an XMP property, in whatever schema, that says where: ``exif:GPSLatitude``, ``photoshop:City``,
``Iptc4xmpExt:LocationCreated``, ``dc:coverage``, ``drone-dji:GpsLongitude``, ``geo:lat``."""
_INSIDE = re.compile(r"(?:gps|location|latitude|longitude)", re.IGNORECASE)
_NO_PLACE = frozenset({"SubjectLocation"})
"""Named like one, but a place in the picture."""
_WRITTEN = re.compile(
    rb"gps ?(?:latitude|longitude|position|coordinates)|geo:-?\d|[+-]\d\d\.\d+[+-]\d{3}\.\d+", re.IGNORECASE
)
"""Coordinates in a text: by their EXIF names, as a geo: address, or by ISO 6709."""


def without_location(origin: Origin) -> Origin:
    """Return the origin without what says where the picture was taken. What cannot be read is left out whole."""
    return replace(
        origin,
        exif=_exif(origin.exif) if origin.exif else None,
        xmp=_xmp(origin.xmp) if origin.xmp else None,
        iptc=_iptc(origin.iptc) if origin.iptc else None,
        texts=tuple(text for text in origin.texts if not _says_where(text)),
    )


def _exif(block: bytes) -> bytes:
    """The block without GPS directory and maker note."""
    exif = load_exif(block)
    exif.place = {}
    exif.details.pop(int(Base.MakerNote), None)
    return exif.to_bytes()


def _xmp(packet: bytes) -> bytes | None:
    """The packet without properties that are named like places; None where it is damaged or holds one as text."""
    edited = without_properties(packet, _is_place)
    return None if edited is None or _WRITTEN.search(edited) else edited


def _is_place(local: str) -> bool:
    """Whether an XMP property of this name says where."""
    return local not in _NO_PLACE and bool(_PLACE.match(local) or _INSIDE.search(local))


def _iptc(records: bytes) -> bytes | None:
    """The records without those of places; None where none is left, or they cannot be followed to the end."""
    kept, position = [], 0
    while position < len(records) and records[position] == 0x1C:
        if position + 5 > len(records):
            return None
        record, dataset = records[position + 1], records[position + 2]
        size = int.from_bytes(records[position + 3 : position + 5], "big")
        start = position + 5
        if size & 0x8000:  # an extended one: so many bytes hold its length
            start += size & 0x7FFF
            size = int.from_bytes(records[position + 5 : start], "big")
        if start + size > len(records):
            return None
        if not (record == 2 and dataset in _PLACES_IPTC):
            kept.append(records[position : start + size])
        position = start + size
    if records[position:].strip(b"\0"):
        return None
    return b"".join(kept) or None


def _says_where(text: bytes) -> bool:
    """Whether a PNG's text or a JPEG's comment names coordinates, or is a keyword for them."""
    keyword = text[4:].partition(b"\0")[0].decode("latin-1").rpartition(":")[2]
    return bool(_WRITTEN.search(text)) or (text[:4] in {b"tEXt", b"zTXt", b"iTXt"} and _is_place(keyword.strip()))
