"""TIFF: directories walked before any parser; pixels through tifffile, which keeps 16 bits and samples as they are."""

import hashlib
import io
import logging
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin as Tags
from PIL.ExifTags import IFD, Base

from rasr.errors import PictureError, UnsupportedFormat
from rasr.images import colour
from rasr.images.colour import Samples, Space
from rasr.images.exif import LONG, UNDEFINED, Entry, Exif, encode_directory, load_exif
from rasr.images.jpeg import check_stream
from rasr.images.picture import Origin, print_density
from rasr.images.plugins import Budget, TiffFile, expect, quiet, webp_size

_XMP, _IPTC, _SUBDIRECTORIES = 700, 33723, 330
_KIND, _OLD_KIND = 254, 255
"""NewSubfileType, of which bit 0 means a reduced picture and bit 2 a mask; and SubfileType, 2 for a reduced one."""

Tag = tuple[int, int, int, Any, bool]
"""A tag in tifffile's form: code, type, count, value, first page only."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else its remarks on odd tags go to the terminal


_SPACES: dict[int, tuple[Space, int]] = {0: ("gray", 1), 1: ("gray", 1), 2: ("rgb", 3), 5: ("cmyk", 4)}
"""Photometric interpretation (0 is gray with white as zero) → colour space and its channels."""

_ANY_DEPTH = frozenset({1, 5, 8, 32946, 32773, 34925, 50000})
"""Compressions: none, LZW, deflate (two codes), PackBits, LZMA, Zstandard."""
_FAX = {2: "ccittrle_decode", 3: "ccittfax3_decode", 4: "ccittfax4_decode", 32771: None}
"""Compressions of fax, and the function of imagecodecs that tells where they end."""
_FAX_ZEROS = {3: 512}
"""Bytes of zeros in a row that such a strip never holds, 8 where there are no fill bits."""
_T4OPTIONS, _TILEBYTECOUNTS = 292, 325
_TRANSFER, _WHITE, _PRIMARIES = 301, 318, 319
_OLD_JPEG, _JPEG, _WEBP = 6, 7, 50001
_EIGHT_BITS = _ANY_DEPTH | {_OLD_JPEG, _JPEG, _WEBP} | _FAX.keys()
"""Compressions of pictures with up to 8 bits a channel."""
_COSTS = {1: 1, 2: 1, 7: 1, 5: 8, 10: 8, 12: 8, 16: 8}
"""Type → what a value of it counts, else 4: bytes stay bytes, numbers become Python's."""
_LAYERS, _MOST_LAYERS = 37724, 512 * 2**20
"""Photoshop's layers, which are no metadata but as large as the picture: the tag, and the bytes that are let by."""
STRIP_COST = 128
"""What a strip or tile counts beside its tags: each is decoded by a call of its own."""


@dataclass(slots=True)
class TiffHead:
    """What the chain of directories says."""

    pages: int = 1
    page: int = 0
    """Index of the first directory that is neither a reduced picture (thumbnail) nor a mask, else 0."""
    reduced: bool = False
    """True when there is no such directory."""


def read_directories(file: BinaryIO, most: int, budget: Budget) -> TiffHead:
    """Walk the chain of directories; stops above ``most`` and where the chain loops or leaves the file.

    The tags of the pages up to the one that will be read are paid for. Raises UnsupportedFormat where the full picture
    lies in a sub-directory, as in cameras' raw files (DNG, NEF).
    """
    file.seek(0)
    start = file.read(16)
    order = "<" if start.startswith(b"II") else ">"
    big = start[2:4] in {b"+\0", b"\0+"}
    count, link, entry = (
        (order + "Q", order + "Q", order + "HHQ8x") if big else (order + "H", order + "I", order + "HHI4x")
    )
    (offset,) = struct.unpack_from(link, start, 8 if big else 4)
    seen = set[int]()
    layers = Budget(budget.name, _MOST_LAYERS)
    head = TiffHead(reduced=True)
    elsewhere = False
    while offset and offset not in seen and len(seen) <= most:
        seen.add(offset)
        try:
            file.seek(offset)
            (entries,) = struct.unpack(count, file.read(struct.calcsize(count)))
            size = entries * struct.calcsize(entry)
            if head.reduced:
                budget.spend(size)
                table = file.read(size)
                tags = {tag: (kind, values) for tag, kind, values in struct.iter_unpack(entry, table)}
                if tags.get(_LAYERS, (0, 0))[0] == UNDEFINED:
                    layers.spend(tags.pop(_LAYERS)[1])
                budget.spend(sum(values * _COSTS.get(kind, 4) for kind, values in tags.values()))
                elsewhere |= _SUBDIRECTORIES in tags
                if not (_value(table, order, big, _KIND) & 5 or _value(table, order, big, _OLD_KIND) == 2):
                    head.page, head.reduced = len(seen) - 1, False
                    _refuse_compression(_value(table, order, big, Tags.COMPRESSION) or 1, 8, budget.name)
            else:
                file.seek(size, os.SEEK_CUR)
            (offset,) = struct.unpack(link, file.read(struct.calcsize(link)))
        except (struct.error, OSError, ValueError, OverflowError):
            break
    if head.reduced and elsewhere:
        raise UnsupportedFormat(
            f"{budget.name}: this is a camera raw file, or a TIFF of which only the thumbnail can be read. Export it "
            "as TIFF or JPEG."
        )
    head.pages = max(1, len(seen))
    return head


def _refuse_compression(compression: int, depth: int, name: str) -> None:
    if compression not in (_EIGHT_BITS if depth <= 8 else _ANY_DEPTH):
        deep = f" of {depth} bits" if depth > 8 else ""
        raise PictureError(
            f"{name}: TIFF{deep} with compression {compression} is not read; save it with LZW or deflate."
        )


def _value(table: bytes, order: str, big: bool, wanted: int) -> int:
    """Return the number in a directory's entry, 0 without one; it stands in the entry's last bytes."""
    step, inline = (20, 8) if big else (12, 4)
    for row in range(0, len(table) - step + 1, step):
        tag, kind = struct.unpack_from(order + "HH", table, row)
        if tag == wanted:
            letter = {3: "H", 4: "I"}.get(kind)
            return int(struct.unpack_from(order + letter, table, row + step - inline)[0]) if letter else 0
    return 0


def plain_tiff(image: TiffFile) -> bool:
    """Tell whether an 8-bit TIFF is of the common kinds; palettes, fax, JPEG, Lab go to Pillow.

    (Both would read these. But on damaged files libtiff, inside Pillow, prints to the terminal.)
    """
    tags = image.tag_v2
    return (
        tags.get(Tags.PHOTOMETRIC_INTERPRETATION) in _SPACES
        and set(tags.get(Tags.BITSPERSAMPLE, (1,))) == {8}
        and set(tags.get(Tags.SAMPLEFORMAT, (1,))) == {1}
        and tags.get(Tags.COMPRESSION, 1) in _ANY_DEPTH
        and tags.get(Tags.FILLORDER, 1) == 1
    )


def colour_profile(image: TiffFile, space: Space) -> bytes | None:
    """Make an ICC profile of what a page says of its colours (TIFF 6.0, section 20); None for sRGB.

    Raises ValueError for what cannot be: impossible chromaticities, or curves of other lengths or of each channel.
    """
    with quiet():
        curve, white, primaries = (image.tag_v2.get(tag) for tag in (_TRANSFER, _WHITE, _PRIMARIES))
    points: tuple[float, ...] = colour.SRGB_POINTS
    if white or primaries:
        points = tuple(float(value) for value in (*(white or points[:2]), *(primaries or points[2:])))
        expect(len(points) == len(colour.SRGB_POINTS) and all(0 <= value <= 2 for value in points), f"{points}")
    table = None
    if curve is not None:
        levels = 1 << min(16, *image.tag_v2.get(Tags.BITSPERSAMPLE, (1,)))
        channels = [curve[start : start + levels] for start in range(0, len(curve), levels)]
        expect(len(curve) in {levels, 3 * levels} and len(set(channels)) == 1, "curves that are not supported")
        table = channels[0]
    return colour.make_profile(space, points, table) if curve or white or primaries else None


def check_strips(image: TiffFile, file: BinaryIO, name: str) -> None:
    """Check, before anything is decoded, that the work is what the declared size asks for.

    Raises PictureError for a compression that is not read, and ValueError for strips or tiles that are missing, that
    together hold more than the file and the declared size, or that hold a picture of another size. (Nothing is checked
    in old-style JPEG, whose strips are no pictures of their own.)
    """
    with quiet():
        tags = {tag: image.tag_v2[tag] for tag in image.tag_v2 if tag <= Tags.JPEGTABLES}  # those on the pixels
    compression, depth = tags.get(Tags.COMPRESSION, 1), max(tags.get(Tags.BITSPERSAMPLE, (1,)))
    _refuse_compression(compression, depth, name)
    width, height = tags[Tags.IMAGEWIDTH], tags[Tags.IMAGELENGTH]
    part = (width, min(height, tags.get(Tags.ROWSPERSTRIP, height)))
    offsets, lengths = tags.get(Tags.STRIPOFFSETS, ()), tags.get(Tags.STRIPBYTECOUNTS, ())
    if Tags.TILEOFFSETS in tags:
        offsets, lengths = tags[Tags.TILEOFFSETS], tags.get(_TILEBYTECOUNTS, ())
        part = tags.get(Tags.TILEWIDTH, 0), tags.get(Tags.TILELENGTH, 0)
    Budget(name).spend(STRIP_COST * len(offsets))
    declared = width * height * tags.get(Tags.SAMPLESPERPIXEL, 1) * max(1, depth // 8)
    expect(sum(lengths) <= file.seek(0, os.SEEK_END) + 2 * declared, "strips hold more than the picture has")
    if compression not in {_JPEG, _WEBP} | _FAX.keys():
        return
    tables = tags.get(Tags.JPEGTABLES, b"") if compression == _JPEG else b""
    for index, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        file.seek(offset)
        data = file.read(length)
        if compression in _FAX:
            rows = part[1] if Tags.TILEOFFSETS in tags else min(part[1], height - index * part[1])
            _check_fax(data, compression, (part[0], rows), tags)
        elif compression == _WEBP:
            inner = webp_size(data[:30])
            expect(inner[0] <= part[0] and inner[1] <= part[1])
        elif data:
            check_stream(tables[:-2] + data[2:] if tables else data, *part, name)


def _check_fax(data: bytes, compression: int, size: tuple[int, int], tags: dict[int, Any]) -> None:
    """Raise ValueError where a strip of fax lacks data; libtiff leaves the rest white, or makes it up.

    Whatever bits would follow: if they change the picture, some are missing. Zeros at the end count as nothing.
    """
    import imagecodecs

    end = len(data.rstrip(b"\0"))
    if end + 2 >= len(data):  # in so many the last code may end
        end = len(data)
    expect(end > 0 and bytes(_FAX_ZEROS.get(compression, 8)) not in data[:end], "strips are missing")
    if tags.get(Tags.FILLORDER, 1) == 2:  # the lowest bit first
        bits = np.unpackbits(np.frombuffer(data[:end], np.uint8), bitorder="little")
        data = np.packbits(bits).tobytes()
    decode = getattr(imagecodecs, _FAX[compression] or "", None)
    if decode is None:
        return
    options = {"t4options": tags.get(_T4OPTIONS, 0)} if compression == 3 else {}

    def followed(filler: int) -> bytes:
        try:
            array = decode(data[:end] + bytes([filler]) * 64, height=size[1], width=size[0], **options)
        except RuntimeError:  # a code that is none
            return b""
        return hashlib.md5(array, usedforsecurity=False).digest()

    expect(followed(0xFF) == followed(0x35) == followed(0x00), "a strip ends early")


def read_tiff(file: BinaryIO, size: tuple[int, int], index: int, name: str) -> Samples:
    """Decode one page of a gray, RGB or CMYK TIFF of up to 16 bits; else PictureError.

    Depths between 8 and 16 bits, and below 8, are stretched to the next full one.
    """
    import tifffile

    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    with tifffile.TiffFile(file) as parsed:
        page: Any = parsed.pages[index]
        stored = (page.imagewidth, page.imagelength)
        expect(sorted(stored) == sorted(size) and page.samplesperpixel <= 5)
        expect(page.size == stored[0] * stored[1] * page.samplesperpixel)  # no volumes
        bits = page.bitspersample
        if page.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)} or not isinstance(bits, int):
            raise PictureError(f"{name}: {page.dtype} samples are not read; save it with 8 or 16 bits.")
        photometric = int(page.photometric)
        if photometric not in _SPACES:
            raise PictureError(f"{name}: 16-bit TIFF of this colour model ({photometric}) is not read; save it as RGB.")
        expect(len(page.dataoffsets) == math.prod(page.chunked))
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if not count or start + count > length:  # tifffile would fill these with black
                raise ValueError("strips are missing")
        array = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and array.ndim == 3:
            array = np.moveaxis(array, 0, -1)
        extra = int(page.extrasamples[0]) if page.extrasamples else 0
    array = array.reshape(*array.shape[:2], -1)
    space, channels = _SPACES[photometric]
    expect(array.shape[1::-1] == stored and array.shape[2] >= channels)
    whole = int(np.iinfo(array.dtype).max)
    if bits not in {8, 16}:
        top = (1 << bits) - 1
        array = ((array.astype(np.uint32) * whole + top // 2) // top).astype(array.dtype)
    colours = array[:, :, :channels]
    if photometric == 0:
        colours = whole - colours
    alpha = array[:, :, channels] if extra in {1, 2} else None
    if alpha is not None and extra == 1:  # premultiplied
        cover = np.maximum(alpha, 1)[:, :, None]
        colours = np.minimum(colours.astype(np.uint32) * whole // cover, whole).astype(array.dtype)
    return Samples(colours, alpha, space)


def encode_tiff(samples: NDArray[Any], attached: Origin) -> bytes:
    """Encode (H, W, 1..4) uint8 or uint16 as TIFF; of two or four channels the last is alpha.

    tifffile writes the picture and the main directory. It has no way to write the Exif and GPS directories, so these
    are appended, and their pointers filled in.
    """
    import tifffile

    channels = samples.shape[2]
    exif = load_exif(attached.exif) if attached.exif else Exif()
    directories = {int(IFD.Exif): exif.details, int(IFD.GPSInfo): exif.place}
    directories = {ifd: entries for ifd, entries in directories.items() if entries}
    density: dict[str, Any] = {"resolution": None, "resolutionunit": None}
    if attached.density:
        across, down, unit = print_density(attached.density)
        density = {"resolution": (across, down), "resolutionunit": {"": 1, "inch": 2, "cm": 3}[unit]}
    out = io.BytesIO()
    tifffile.imwrite(
        out,
        np.squeeze(samples, 2) if channels == 1 else samples,
        byteorder=exif.order,  # in which maker notes and comments may hold numbers of their own
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in {2, 4} else None,
        compression="adobe_deflate",
        predictor=True,
        rowsperstrip=max(1, (1 << 20) // samples[0].nbytes),
        iccprofile=attached.icc,
        metadata=None,
        software=False,
        extratags=list(_tags(exif, attached, directories)),
        **density,
    )
    if directories:
        _append_directories(out, directories, exif)
    return out.getvalue()


def _tags(exif: Exif, attached: Origin, directories: dict[int, Any]) -> Iterator[Tag]:
    for tag, (kind, data) in exif.main.items():
        if tag not in {Base.XResolution, Base.YResolution, Base.ResolutionUnit}:
            width = {3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 1: 1, 2: 1, 6: 1, 7: 1, 129: 1}.get(kind, 8)
            yield int(tag), kind, len(data) // width, data, True
    for tag, block in ((_XMP, attached.xmp), (_IPTC, attached.iptc)):
        if block:
            yield tag, 1, len(block), block, True
    # tifffile refuses to write the pointers to directories itself: they get the code below, unused, until the end.
    yield from ((ifd - 1, LONG, 1, 0, True) for ifd in directories)


def _append_directories(out: io.BytesIO, directories: dict[int, dict[int, Entry]], exif: Exif) -> None:
    """Append each directory, and turn its placeholder (the unused code below it) into its tag."""
    import tifffile

    out.seek(0)
    with tifffile.TiffFile(out) as file:
        big = file.is_bigtiff
        places = {ifd: file.pages.first.tags[ifd - 1].offset for ifd in directories}
    for ifd, entries in directories.items():
        offset = out.seek(0, io.SEEK_END)
        offset += out.write(b"\0" * (offset % 2))
        out.write(encode_directory(entries, exif.order, offset, exif.interop if ifd == IFD.Exif else None, big=big))
        out.seek(places[ifd])
        # One entry of the main directory: tag, type LONG, count 1, value.
        out.write(struct.pack(exif.order + ("HHQI4x" if big else "HHII"), ifd, LONG, 1, offset))
