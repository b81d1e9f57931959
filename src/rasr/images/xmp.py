"""XMP packets: what would be false of a result is corrected or taken out, and what is long is joined and split.

Packets are edited as bytes, by the places where the XML parser finds elements and attributes: what is not touched stays
as it was written, prefixes, padding and unknown schemas included. The parser is told Latin-1, in which all bytes are
letters, since only names matter here; document types, and with them entities, are refused.
"""

import hashlib
import re
import struct
from collections.abc import Callable
from typing import NamedTuple
from xml.parsers import expat

_TIFF, _EXIF, _XMP = (f"http://ns.adobe.com/{name}/1.0/" for name in ("tiff", "exif", "xap"))
_NOTE = "http://ns.adobe.com/xmp/note/"
_REGIONS, _MP = "http://www.metadataworkinggroup.com/schemas/regions/", "http://ns.microsoft.com/photo/1.2/"
_SIDES = "http://ns.adobe.com/xmp/sType/Dimensions#"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_USUAL = {"tiff": _TIFF, "exif": _EXIF, "xmp": _XMP, "xmpNote": _NOTE, "rdf": _RDF, "stDim": _SIDES, "mwg-rs": _REGIONS}
"""Namespaces of prefixes that a packet uses without declaring them."""

_OLD_FILE = {
    "http://ns.google.com/photos/1.0/panorama/": "panorama",
    "http://ns.google.com/photos/1.0/container/": "container",
    "http://ns.google.com/photos/": "motion photo, depth or camera",
    "http://ns.adobe.com/hdr-gain-map/": "gain map",
    "http://ns.apple.com/": "gain map or depth",
    "http://ns.adobe.com/xap/1.0/g/img/": "thumbnail",
}
"""Start of a namespace → what it describes: positions, sizes and pictures of the old file, never of a result."""
_STORAGE = frozenset({
    "BitsPerSample", "Compression", "PhotometricInterpretation", "SamplesPerPixel", "PlanarConfiguration",
    "YCbCrSubSampling", "YCbCrPositioning", "StripOffsets", "StripByteCounts", "RowsPerStrip",
})  # fmt: skip
_SIZES = {
    (_TIFF, "ImageWidth"): 0, (_TIFF, "ImageLength"): 1, (_EXIF, "PixelXDimension"): 0, (_EXIF, "PixelYDimension"): 1,
    (_SIDES, "w"): 0, (_SIDES, "h"): 1,
}  # fmt: skip
"""Properties that hold the picture's width (0) or height (1); the last two only where regions apply to them."""

_MOST_ELEMENTS, _MOST_DEEP = 400_000, 200
_ATTRIBUTE = re.compile(rb"(?<=[\s\"'])([^\s=<>/\"']+)\s*=\s*(\"[^\"]*\"|'[^']*')")
_START_TAG = re.compile(rb"<[^\"'>]*(?:\"[^\"]*\"[^\"'>]*|'[^']*'[^\"'>]*)*>")

Name = tuple[str, str]
"""Namespace and local name."""
Fate = Callable[[Name, list[Name]], str | None]
"""Given a property and the elements around it: None to keep it, "" to drop it, or its new value."""


def clean_xmp(packet: bytes, extension: bytes = b"", *, turned: bool = False) -> tuple[bytes | None, list[str]]:
    """Return the packet as it holds for any result of the picture, and notes on what was left out.

    ``extension`` is what a JPEG holds beyond 64 kB; it is merged. ``turned`` says that the orientation was not 1: then
    regions (faces) are dropped, whose places are those of the stored pixels.
    """
    if packet[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        packet = packet.decode("utf-16", "replace").encode()
    packet = packet.strip(b"\0")
    if not packet.strip():
        return None, []
    left_out = set[str]()

    def fate(name: Name, _: list[Name]) -> str | None:
        namespace, local = name
        if name == (_TIFF, "Orientation"):
            return "1"
        if name == (_NOTE, "HasExtendedXMP") or (namespace == _TIFF and local in _STORAGE):
            return ""
        if what := next((what for start, what in _OLD_FILE.items() if namespace.startswith(start)), None):
            if local:  # not a mere declaration
                left_out.add(what)
            return ""
        if name == (_XMP, "Thumbnails"):
            left_out.add("thumbnail")
            return ""
        if turned and name in {(_REGIONS, "Regions"), (_MP, "RegionInfo")}:
            left_out.add("region")
            return ""
        return None

    notes = []
    try:
        cleaned = _edit(packet, fate)
        if extension:
            try:
                cleaned = _merge(cleaned, _edit(extension, fate))
            except (expat.ExpatError, ValueError):
                notes.append(f"the extended XMP ({len(extension)} bytes) is damaged and was left out")
    except (expat.ExpatError, ValueError):
        return None, ["the XMP block is damaged and was left out"]
    if left_out:
        notes.append(f"XMP entries that describe the old file were left out ({', '.join(sorted(left_out))})")
    cleaned = re.sub(rb"(tiff:Orientation\s*=\s*[\"'])[2-8]", rb"\g<1>1", cleaned)  # written as text in it
    return cleaned, notes


def xmp_for_result(packet: bytes, width: int, height: int) -> bytes:
    """Correct the sizes a cleaned packet states."""

    def fate(name: Name, around: list[Name]) -> str | None:
        side = _SIZES.get(name)
        if side is None or (name[0] == _SIDES and (_REGIONS, "AppliedToDimensions") not in around):
            return None
        return str((width, height)[side])

    try:
        return _edit(packet, fate)
    except (expat.ExpatError, ValueError):
        return packet


def without_properties(packet: bytes, unwanted: Callable[[str], bool]) -> bytes | None:
    """Take out the properties whose local names are ``unwanted``, whatever their schema; None for what is no XML."""
    try:
        return _edit(packet, lambda name, _: "" if name[0] != _RDF and name[1] and unwanted(name[1]) else None)
    except (expat.ExpatError, ValueError):
        return None


def jpeg_segments(packet: bytes, room: int) -> tuple[bytes | None, bytes]:
    """Split a packet for JPEG: the main one, and APP1 segments of extended XMP when it is longer than ``room``.

    Of a long packet that is no XML nothing can be kept: (None, b""). See XMP specification, part 3, 1.1.3.1.
    """
    if len(packet) <= room:
        return packet, b""
    try:
        content = packet[slice(*_Editor(packet, None).root)]
    except (expat.ExpatError, ValueError):
        return None, b""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest().upper().encode()
    segments = b""
    for offset in range(0, len(content), room):
        body = b"http://ns.adobe.com/xmp/extension/\0" + digest + struct.pack(">II", len(content), offset)
        body += content[offset : offset + room]
        segments += b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    main = (
        b"<?xpacket begin='\xef\xbb\xbf' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF "
        b"xmlns:rdf='" + _RDF.encode() + b"'><rdf:Description rdf:about='' xmlns:xmpNote='" + _NOTE.encode() + b"' "
        b"xmpNote:HasExtendedXMP='" + digest + b"'/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
    )
    return main, segments


def _merge(packet: bytes, extension: bytes) -> bytes:
    """Put the extension's descriptions behind the packet's own. Raises ValueError where that would change meanings."""
    main, more = _Editor(packet, None), _Editor(extension, None)
    if any(main.rdf_scope.get(prefix) != uri for prefix, uri in more.rdf_scope.items()) or not main.rdf[1]:
        raise ValueError("the extension's descriptions need prefixes that the packet has not")
    end = main.rdf[1]
    return packet[:end] + extension[slice(*more.rdf)] + packet[end:]


def _edit(packet: bytes, fate: Fate) -> bytes:
    """Apply ``fate`` to every element and attribute. Raises as :class:`_Editor` does."""
    out, position = [], 0
    for begin, finish, text in sorted(_Editor(packet, fate).edits):
        if begin >= position:
            out += [packet[position:begin], text]
            position = finish
    return b"".join([*out, packet[position:]])


class _Open(NamedTuple):
    """An element whose end was not met yet."""

    name: Name
    place: int
    content: int
    """Where the start tag ends."""
    verdict: str | None
    scope: dict[str, str]


class _Editor:
    """A packet parsed once: edits that ``fate`` asks for, and the places of the root and of what rdf:RDF holds.

    Raises ExpatError or ValueError for what is no XML, has a document type or more elements than metadata has.
    """

    def __init__(self, packet: bytes, fate: Fate | None) -> None:
        self.edits: list[tuple[int, int, bytes]] = []
        """Start, end and new text."""
        self.root = self.rdf = (0, 0)
        self.rdf_scope: dict[str, str] = {}
        """Prefix → namespace as declared on rdf:RDF or around it."""
        self._packet, self._fate = packet, fate
        self._open: list[_Open] = []
        self._hidden = 0
        if max(packet.count(b"<"), packet.count(b"=")) > _MOST_ELEMENTS:
            raise ValueError("more elements than metadata has")
        self._parser = expat.ParserCreate("iso-8859-1")
        self._parser.StartElementHandler, self._parser.EndElementHandler = self._start, self._end
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.Parse(packet, True)

    def _start(self, qualified: str, attributes: dict[str, str]) -> None:
        scope = self._open[-1].scope if self._open else {}
        if declared := {key[6:]: value for key, value in attributes.items() if key.startswith("xmlns:")}:
            scope = scope | declared
        if max(len(self._open), len(scope)) > _MOST_DEEP:
            raise ValueError("deeper than metadata is")
        name, place = _name(qualified, scope), self._parser.CurrentByteIndex
        tag = _START_TAG.match(self._packet, place)
        if tag is None:
            raise ValueError("no start tag")
        around = [element.name for element in self._open]
        verdict = self._fate(name, around) if self._fate and not self._hidden else None
        self._open.append(_Open(name, place, tag.end(), verdict, scope))
        if self._hidden or verdict == "":
            self._hidden += 1
        elif self._fate:
            self._edit_attributes(self._fate, self._open[-1], [*around, name])
        if name == (_RDF, "RDF"):
            self.rdf_scope = scope

    def _edit_attributes(self, fate: Fate, element: _Open, around: list[Name]) -> None:
        for match in _ATTRIBUTE.finditer(self._packet, element.place, element.content):
            key = match[1].decode("latin-1")
            declares = key.startswith("xmlns:")  # a namespace of which nothing is kept goes too
            name = (element.scope.get(key[6:], ""), "") if declares else _name(key, element.scope)
            verdict = fate(name, around)
            if verdict == "":
                begin = match.start()
                while self._packet[begin - 1 : begin].isspace():
                    begin -= 1
                self.edits.append((begin, match.end(), b""))
            elif verdict is not None:
                self.edits.append((match.start(2) + 1, match.end(2) - 1, verdict.encode()))

    def _end(self, _: str) -> None:
        name, place, content, verdict, _scope = self._open.pop()
        empty = self._packet[content - 2 : content] == b"/>"
        inner = content if empty else self._parser.CurrentByteIndex
        outer = content if empty else self._packet.index(b">", inner) + 1
        if self._hidden:
            self._hidden -= 1
            if not self._hidden:
                self.edits.append((place, outer, b""))
        elif verdict is not None and not empty:
            self.edits.append((content, inner, verdict.encode()))
        if name == (_RDF, "RDF"):
            self.rdf = (content, inner)
        if not self._open:
            self.root = (place, outer)

    @staticmethod
    def _refuse(*_: object) -> None:
        raise ValueError("a document type has no place in XMP")


def _name(qualified: str, scope: dict[str, str]) -> Name:
    prefix, _, local = qualified.rpartition(":")
    return scope.get(prefix) or _USUAL.get(prefix, ""), local
