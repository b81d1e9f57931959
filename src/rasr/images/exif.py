r"""EXIF: its directories taken over byte for byte, less what describes how the old file stored its pixels.

Text in EXIF has no reliable encoding (ASCII by the standard, UTF-8 or a code page in practice), so values are never
decoded: each entry is its type and the bytes of its value, in the block's own byte order. A block is
``Exif\0\0`` and a small TIFF of up to four directories.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO, Literal, NamedTuple

from PIL import TiffImagePlugin
from PIL.ExifTags import IFD, Base
from PIL.ImageFile import ImageFile

from rasr.images.picture import Density, print_density

SHORT, LONG, ASCII, UNDEFINED = 3, 4, 2, 7
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
"""TIFF type → bytes of one value; 129 is EXIF 3.0's UTF-8."""
_MOST_ENTRIES = 4096
_MOST = 16 << 20
"""Bytes taken over from one block; entries of a hostile one may all point at the same megabytes."""
_IMAGE_HISTORY = 0x9213
"""TIFF/EP: a record of what has been done to the image."""
_SUBJECTS = (0x9214, 0xA214)
"""SubjectArea and SubjectLocation: places in the stored pixels."""
_FOCAL_PLANE = (Base.FocalPlaneXResolution, Base.FocalPlaneYResolution)
_RELATED = (0x1001, 0x1002)
"""Width and height of the picture, in the interoperability directory."""
_XMP, _IPTC = 700, 33723
_UNITS = {2: "inch", 3: "cm"}

_DESCRIPTIVE = frozenset(
    {
        Base.DocumentName, Base.ImageDescription, Base.Make, Base.Model, Base.XResolution, Base.YResolution,
        Base.PageName, Base.ResolutionUnit, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer,
        Base.Copyright, Base.Rating, Base.RatingPercent, Base.XPTitle, Base.XPComment, Base.XPAuthor,
        Base.XPKeywords, Base.XPSubject, _IMAGE_HISTORY,
    }
)  # fmt: skip
"""Tags of the main directory that describe the photo; all others describe how its pixels are stored."""


class Entry(NamedTuple):
    """A value as stored."""

    kind: int
    """TIFF type."""
    data: bytes


Directory = dict[int, Entry]
"""Tag → entry."""


@dataclass(slots=True)
class Exif:
    """A block's directories, without the pointers between them."""

    order: Literal["<", ">"] = "<"
    """Byte order of all values, as struct has it."""
    main: Directory = field(default_factory=dict)
    details: Directory = field(default_factory=dict)
    """Exposure, dates, lens, maker note: the Exif directory."""
    place: Directory = field(default_factory=dict)
    """GPS."""
    interop: Directory = field(default_factory=dict)
    blocks: Directory = field(default_factory=dict)
    """XMP and IPTC of a TIFF's page."""

    def number(self, kind: int, value: int) -> Entry:
        """Make an entry of one SHORT or LONG."""
        return Entry(kind, struct.pack(self.order + ("H" if kind == SHORT else "I"), value))

    def numbers(self, directory: Directory, tag: int) -> list[Fraction]:
        """Read an entry's numbers; nothing where they are of no numeric type, or divided by 0."""
        kind, data = directory.get(tag, Entry(0, b""))
        letter = {1: "B", 3: "H", 4: "I", 5: "I", 8: "h", 9: "i", 10: "i", 13: "I"}.get(kind)
        if letter is None:
            return []
        values = [Fraction(value) for (value,) in struct.iter_unpack(self.order + letter, data)]
        if kind not in {5, 10}:
            return values
        pairs = list(zip(values[::2], values[1::2], strict=True))
        return [above / below for above, below in pairs] if all(below for _, below in pairs) else []

    @property
    def density(self) -> Density | None:
        """Resolution of the main directory; None also where it says no more than that pixels are square."""
        axes = [self.numbers(self.main, tag)[:1] for tag in (Base.XResolution, Base.YResolution)]
        unit = (self.numbers(self.main, Base.ResolutionUnit) or [Fraction(2)])[0]
        if not all(axes) or not all(0 < axis[0] < 1_000_000 for axis in axes):
            return None
        across, down, name = float(axes[0][0]), float(axes[1][0]), _UNITS.get(int(unit), "")
        return (across, down, name) if name or across != down else None

    @property
    def dcf_adobe_rgb(self) -> bool:
        """True when a camera says Adobe RGB (DCF 2.0: uncalibrated, interoperability R03)."""
        uncalibrated = self.numbers(self.details, Base.ColorSpace) == [0xFFFF]
        return uncalibrated and self.interop.get(1, Entry(0, b"")).data.startswith(b"R03")

    def to_bytes(self) -> bytes:
        r"""Serialise, ``Exif\0\0`` first."""
        main = dict(self.main)
        pointers = [(IFD.Exif, self.details or self.interop), (IFD.GPSInfo, self.place)]
        main |= {int(tag): self.number(LONG, 0) for tag, found in pointers if found}
        head = struct.pack(self.order + "2sHI", b"II" if self.order == "<" else b"MM", 42, 8)
        offset, behind = 8 + len(encode_directory(main, self.order, 0)), b""
        for tag, found in pointers:
            if found:
                main[int(tag)] = self.number(LONG, offset + len(behind))
                is_details = tag == IFD.Exif
                behind += encode_directory(
                    found, self.order, offset + len(behind), self.interop if is_details else None
                )
        return b"Exif\0\0" + head + encode_directory(main, self.order, 8) + behind


def encode_directory(
    entries: Directory, order: str, offset: int, interop: Directory | None = None, *, big: bool = False
) -> bytes:
    """Encode a directory that will stand at ``offset``, its values behind it, and behind these ``interop``."""
    entries = dict(entries)
    count, entry, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    word = "Q" if big else "I"
    if interop:
        entries[IFD.Interop] = Entry(LONG, bytes(4))
    size = struct.calcsize("=" + count) + len(entries) * (struct.calcsize("=" + entry) + inline) + inline
    values = b""
    rows = []
    for tag, (kind, data) in sorted(entries.items()):
        if tag == IFD.Interop and interop:
            continue
        if len(data) <= inline:
            rows.append((tag, kind, len(data) // _SIZES[kind], data.ljust(inline, b"\0")))
        else:
            rows.append((tag, kind, len(data) // _SIZES[kind], struct.pack(order + word, offset + size + len(values))))
            values += data + b"\0" * (len(data) % 2)
    if interop:
        place = offset + size + len(values)
        rows.append((int(IFD.Interop), LONG, 1, struct.pack(order + "I", place).ljust(inline, b"\0")))
        values += encode_directory(interop, order, place, big=big)
    table = b"".join(struct.pack(order + entry, *row[:3]) + row[3] for row in sorted(rows))
    return struct.pack(order + count, len(rows)) + table + bytes(inline) + values


def load_exif(block: bytes) -> Exif:
    """Parse a block. Raises ValueError or struct.error for what is none; entries that lead nowhere are left out."""
    block = block.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")  # some writers have it twice
    if block[:2] not in {b"II", b"MM"}:
        raise ValueError("no byte order")
    return _load(io.BytesIO(block), block[:2], None, big=False)


def read_exif(
    image: ImageFile, file: BinaryIO, *, orientation: int, size: tuple[int, int], page: int = 0
) -> tuple[Exif | None, str | None]:
    """Read the EXIF of an opened picture as it holds for a result, and a note if it is broken.

    ``size`` is that of the upright picture. Orientation becomes 1; what is stated of the stored pixels' axes and
    places is turned with them. What a TIFF's ``page`` does not say is taken from its first one, a thumbnail.
    """
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            prefix, big = image.tag_v2.prefix, image.tag_v2._bigtiff
            exif = _load(file, prefix, image.tag_v2.offset, big=big)
            if page:
                _complete(exif, _load(file, prefix, None, big=big))
        else:
            block = image.info.get("exif")
            if block is None and (text := image.info.get("Raw profile type exif")):  # ImageMagick's way in PNG
                block = bytes.fromhex("".join(text.split("\n")[3:]))
            if not block:
                return None, None
            exif = load_exif(block)
    except Exception as error:  # noqa: BLE001  the boundary of plugins.parsing, but a broken tag must not cost the picture
        return None, f"the EXIF block is damaged and was left out ({type(error).__name__})"
    exif.blocks = {tag: exif.main[tag] for tag in (_XMP, _IPTC) if tag in exif.main}
    exif.main = {tag: entry for tag, entry in exif.main.items() if tag in _DESCRIPTIVE}
    if not (exif.main or exif.details or exif.place or exif.interop):
        return (exif if exif.blocks else None), None
    _turn(exif, orientation, size)
    exif.main[Base.Orientation] = exif.number(SHORT, 1)
    return exif, None


def _complete(exif: Exif, first: Exif) -> None:
    """Take over what only the first page says, but for the density, which is its own."""
    own = {Base.XResolution, Base.YResolution, Base.ResolutionUnit}
    exif.main = {tag: entry for tag, entry in first.main.items() if tag not in own} | exif.main
    if not exif.details:
        exif.details, exif.interop = first.details, first.interop
    exif.place = exif.place or first.place


def _turn(exif: Exif, orientation: int, size: tuple[int, int]) -> None:
    """Turn axes and places with the pixels, and note the size of these, from which results are scaled."""
    if orientation >= 5:
        for directory, (one, other) in (
            (exif.main, (Base.XResolution, Base.YResolution)),
            (exif.details, _FOCAL_PLANE),
        ):
            if one in directory and other in directory:
                directory |= {one: directory[other], other: directory[one]}
    for tag in _SUBJECTS:
        place = [int(value) for value in exif.numbers(exif.details, tag)]
        exif.details.pop(tag, None)
        if not 2 <= len(place) <= 4:
            continue
        x, y = place[:2]
        extent = place[2:]
        if orientation >= 5:
            x, y, extent = y, x, extent[::-1]
        x = size[0] - 1 - x if orientation in {2, 3, 6, 7} else x
        y = size[1] - 1 - y if orientation in {3, 4, 7, 8} else y
        if 0 <= x < size[0] <= 0xFFFF and 0 <= y < size[1] <= 0xFFFF:
            exif.details[tag] = Entry(SHORT, struct.pack(f"{exif.order}{len(place)}H", x, y, *extent))
    if exif.details:
        exif.details |= _sizes(exif, (Base.ExifImageWidth, Base.ExifImageHeight), size)


def _sizes(exif: Exif, tags: tuple[int, int], size: tuple[int, int]) -> Directory:
    return {int(tag): exif.number(LONG, side) for tag, side in zip(tags, size, strict=True)}


def _scale(exif: Exif, size: tuple[int, int]) -> None:
    """Bring sizes, places and what is counted in pixels to a result's size."""
    sides = (Base.ExifImageWidth, Base.ExifImageHeight)
    old = [next(iter(exif.numbers(exif.details, tag)), Fraction(0)) for tag in sides]
    ratios = [side / was if was else Fraction(0) for side, was in zip(size, old, strict=True)]
    for tag in _SUBJECTS:
        place = exif.numbers(exif.details, tag)
        exif.details.pop(tag, None)
        along = (*ratios, *(ratios if len(place) == 4 else ratios[:1]))
        new = [int((value + Fraction(1, 2)) * ratio) for value, ratio in zip(place[:2], along, strict=False)]
        new += [round(value * ratio) for value, ratio in zip(place[2:], along[2:], strict=False)]
        if place and all(ratios) and max(new) <= 0xFFFF:
            exif.details[tag] = Entry(SHORT, struct.pack(f"{exif.order}{len(new)}H", *new))
    for tag, ratio in zip(_FOCAL_PLANE, ratios, strict=True):
        per = exif.numbers(exif.details, tag)
        exif.details.pop(int(tag), None)
        if len(per) == 1 and 0 < per[0] * ratio < 2**31:
            scaled = (per[0] * ratio).limit_denominator(1000)
            exif.details[int(tag)] = Entry(5, struct.pack(exif.order + "II", *scaled.as_integer_ratio()))
    exif.details |= _sizes(exif, sides, size)
    if any(tag in exif.interop for tag in _RELATED):
        exif.interop |= _sizes(exif, _RELATED, size)


def exif_for_result(
    block: bytes | None, width: int, height: int, *, software: str | None, description: str | None, room: int | None
) -> bytes | None:
    """Make the EXIF block of a result of this size, or None when there is nothing to say.

    ``block`` is an origin's EXIF or None (stripped). ``software`` becomes the Software tag, ``description`` the
    ImageHistory tag (so that a caption of the user's own is never replaced); non-ASCII characters are escaped.
    When the block does not fit into ``room`` bytes it goes without the maker note, and if that is not enough with
    nothing but ``software`` and ``description``.
    """
    exif = load_exif(block) if block else Exif()
    if exif.details:
        _scale(exif, (width, height))
    if software:
        exif.main[Base.Software] = _text(software)
    if description:
        exif.details[_IMAGE_HISTORY] = _text(description)
    if not exif.main and not exif.details:
        return None
    result = exif.to_bytes()
    if room is None or len(result) <= room:
        return result
    if block and exif.details.pop(Base.MakerNote, None) is not None and len(exif.to_bytes()) <= room:
        return exif.to_bytes()
    if block:
        return exif_for_result(None, width, height, software=software, description=description, room=room)
    return exif_for_result(None, width, height, software=software, description=None, room=room) if description else None


def with_density(block: bytes | None, density: Density | None) -> bytes | None:
    """Return the block, made if there is none, with a density where it has none itself."""
    exif = load_exif(block) if block else Exif()
    if density is None or exif.density is not None:
        return block
    across, down, unit = print_density(density)
    for tag, axis in ((Base.XResolution, across), (Base.YResolution, down)):
        ratio = Fraction(axis).limit_denominator(10_000)
        exif.main[tag] = Entry(5, struct.pack(exif.order + "II", *ratio.as_integer_ratio()))
    exif.main[Base.ResolutionUnit] = exif.number(SHORT, {"": 1, "inch": 2, "cm": 3}[unit])
    return exif.to_bytes()


def _load(file: BinaryIO, prefix: bytes, offset: int | None, *, big: bool) -> Exif:
    """Read the directories at ``offset``, or where the header says."""
    exif = Exif("<" if prefix == b"II" else ">")
    order = exif.order
    if offset is None:
        file.seek(8 if big else 4)
        (offset,) = struct.unpack(order + ("Q" if big else "I"), file.read(8 if big else 4))
    length = file.seek(0, io.SEEK_END)
    left = _MOST

    def directory(offset: int) -> Directory:
        nonlocal left
        count, entry, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
        file.seek(offset)
        (entries,) = struct.unpack(order + count, file.read(struct.calcsize("=" + count)))
        step = struct.calcsize("=" + entry) + inline
        table = file.read(min(entries, _MOST_ENTRIES) * step)
        found: Directory = {}
        for row in range(0, len(table) // step * step, step):
            tag, kind, values = struct.unpack_from(order + entry, table, row)
            size = values * _SIZES.get(kind, 0)
            data = table[row + step - inline : row + step]
            if size > inline:
                (place,) = struct.unpack(order + ("Q" if big else "I"), data)
                if place + size > length or size > left:
                    continue
                left -= size
                file.seek(place)
                data = file.read(size)
            if size and tag not in found:
                found[tag] = Entry(kind, data[:size])
        return found

    exif.main = directory(offset)
    for tag, parent, name in (
        (IFD.Exif, "main", "details"),
        (IFD.GPSInfo, "main", "place"),
        (IFD.Interop, "details", "interop"),
    ):
        pointer = exif.numbers(holder := getattr(exif, parent), tag)
        holder.pop(int(tag), None)
        if pointer and 0 < pointer[0] < length - 2:
            setattr(exif, name, directory(int(pointer[0])))
    return exif


def _text(text: str) -> Entry:
    return Entry(ASCII, text.encode("ascii", "backslashreplace") + b"\0")
