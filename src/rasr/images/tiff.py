"""TIFF through tifffile, which keeps 16 bits both ways and the samples as they are."""

import io
import logging
import math
import os
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, COMPRESSION, FILLORDER, SAMPLEFORMAT, IFDRational, ImageFileDirectory_v2
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION as PHOTOMETRIC

from rasr.errors import PictureError
from rasr.images.colour import Samples, Space
from rasr.images.header import expect, quiet
from rasr.images.plugins import TiffFile

Base = ExifTags.Base
IFD = ExifTags.IFD

_XMP, _IPTC = 700, 33723

Tag = tuple[int, int | str, int, Any, bool]
"""A tag in tifffile's form: code, type, count, value, first page only."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else its remarks on odd tags go to the terminal


_SPACES: dict[int, tuple[Space, int]] = {0: ("gray", 1), 1: ("gray", 1), 2: ("rgb", 3), 5: ("cmyk", 4)}
"""Photometric interpretation (0 is gray with white as zero) → colour space and its channels."""

_NOT_JPEG = frozenset({1, 5, 8, 32946, 32773, 34925, 50000})
"""Compressions: none, LZW, deflate (two codes), PackBits, LZMA, Zstandard."""


def plain_tiff(image: TiffFile) -> bool:
    """Tell whether an 8-bit TIFF is of the common kinds; palettes, fax, JPEG, Lab go to Pillow.

    (Both would read these. But on damaged files libtiff, inside Pillow, prints to the terminal.)
    """
    tags = image.tag_v2
    return (
        tags.get(PHOTOMETRIC) in _SPACES
        and set(tags.get(BITSPERSAMPLE, (1,))) == {8}
        and set(tags.get(SAMPLEFORMAT, (1,))) == {1}
        and tags.get(COMPRESSION, 1) in _NOT_JPEG
        and tags.get(FILLORDER, 1) == 1
    )


def read_tiff(image: TiffFile, file: BinaryIO, name: str) -> Samples:
    """Decode the first page of a gray, RGB or CMYK TIFF of 8 or 16 bits; else PictureError."""
    import tifffile

    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with tifffile.TiffFile(file) as parsed:
        page = parsed.pages.first
        stored = (page.imagewidth, page.imagelength)
        expect(sorted(stored) == sorted(image.size) and page.samplesperpixel <= 5)
        expect(page.size == stored[0] * stored[1] * page.samplesperpixel)  # no volumes
        if page.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)} or page.bitspersample not in {8, 16}:
            raise PictureError(f"{name}: {page.dtype} samples are not read; save it with 8 or 16 bits.")
        photometric = int(page.photometric)
        if photometric not in _SPACES:
            raise PictureError(f"{name}: 16-bit TIFF of this colour model ({photometric}) is not read; save it as RGB.")
        expect(len(page.dataoffsets) == math.prod(page.chunked))
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            if not length or offset + length > size:  # tifffile would fill these with black
                raise ValueError("strips are missing")
        array = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and array.ndim == 3:
            array = np.moveaxis(array, 0, -1)
        extra = int(page.extrasamples[0]) if page.extrasamples else 0
    array = array.reshape(*array.shape[:2], -1)
    space, channels = _SPACES[photometric]
    expect(array.shape[1::-1] == stored and array.shape[2] >= channels)
    whole = np.iinfo(array.dtype).max
    colours = array[:, :, :channels]
    if photometric == 0:
        colours = whole - colours
    alpha = array[:, :, channels] if extra in {1, 2} else None
    if alpha is not None and extra == 1:  # premultiplied
        cover = np.maximum(alpha, 1)[:, :, None]
        colours = np.minimum(colours.astype(np.uint32) * whole // cover, whole).astype(array.dtype)
    return Samples(colours, alpha, space)


def encode_tiff(
    samples: NDArray[Any], *, icc: bytes | None, exif: bytes | None, xmp: bytes | None, iptc: bytes | None
) -> bytes:
    """Encode (H, W, 1..4) uint8 or uint16 as TIFF; of two or four channels the last is alpha.

    tifffile writes the picture and the main directory. It has no way to write the Exif and GPS directories, so these
    are serialised by Pillow, appended, and their pointers filled in.
    """
    import tifffile

    channels = samples.shape[2]
    with quiet():
        tags, details, resolution, unit = _directories(exif)
    tags += [(tag, "B", len(data), data, True) for tag, data in ((_XMP, xmp), (_IPTC, iptc)) if data]
    out = io.BytesIO()
    tifffile.imwrite(
        out,
        np.squeeze(samples, 2) if channels == 1 else samples,
        byteorder="<",
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in {2, 4} else None,
        compression="adobe_deflate",
        predictor=True,
        rowsperstrip=max(1, (1 << 20) // samples[0].nbytes),
        iccprofile=icc,
        metadata=None,
        software=False,
        resolution=resolution,
        resolutionunit=unit,
        extratags=tags,
    )
    if details:
        _append_directories(out, details)
    return out.getvalue()


def _directories(exif: bytes | None) -> tuple[list[Tag], dict[int, dict[int, Any]], tuple[float, float] | None, Any]:
    """Split an EXIF block: main directory's tags, further directories, resolution and its unit."""
    if not exif:
        return [], {}, None, None
    block = Image.Exif()
    block.load(exif)
    density: list[Any] = [block.get(Base.XResolution), block.get(Base.YResolution)]
    resolution, unit = None, None
    if all(isinstance(value, float | int | IFDRational) and 0 < value < 1e6 for value in density):
        resolution = (float(density[0]), float(density[1]))
        unit = block.get(Base.ResolutionUnit) if block.get(Base.ResolutionUnit) in {1, 2, 3} else None
    details = {int(ifd): dict(block.get_ifd(ifd)) for ifd in (IFD.Exif, IFD.GPSInfo) if block.get_ifd(ifd)}
    if IFD.Exif in details and (interop := block.get_ifd(IFD.Interop)):
        details[IFD.Exif][IFD.Interop] = dict(interop)
    # tifffile refuses to write the pointers to these itself: they get the code below, unused, until the end.
    pointers: list[Tag] = [(ifd - 1, "I", 1, 0, True) for ifd in details]
    return _main_tags(block) + pointers, details, resolution, unit


def _main_tags(block: Image.Exif) -> list[Tag]:
    """Convert the descriptive tags of the main directory."""
    directory = ImageFileDirectory_v2()
    tags: list[Tag] = []
    for tag, value in block.items():
        if tag in {IFD.Exif, IFD.GPSInfo, Base.XResolution, Base.YResolution, Base.ResolutionUnit}:
            continue
        directory[tag] = value
        kind = directory.tagtype[tag]
        values = directory[tag] if isinstance(directory[tag], tuple) else (directory[tag],)
        if kind == 2:
            text = str(directory[tag]).encode("utf-8", "replace")
            tags.append((tag, 2, len(text) + 1, text + b"\0", True))
        elif kind in {1, 7}:
            data = values[0] if isinstance(values[0], bytes) else bytes(values)
            tags.append((tag, kind, len(data), data, True))
        else:
            tags.append((tag, kind, len(values), values if len(values) > 1 else values[0], True))
    return tags


def _append_directories(out: io.BytesIO, details: dict[int, dict[int, Any]]) -> None:
    """Append each directory, and turn its placeholder (the unused code below it) into its tag."""
    import tifffile

    out.seek(0)
    with tifffile.TiffFile(out) as file:
        big = file.is_bigtiff
        places = {ifd: file.pages.first.tags[int(ifd) - 1].offset for ifd in details}
    for ifd, entries in details.items():
        offset = out.seek(0, io.SEEK_END)
        offset += out.write(b"\0" * (offset % 2))
        directory = ImageFileDirectory_v2(b"II*\0\x08\0\0\0", group=int(ifd))
        for tag, value in entries.items():
            directory[tag] = value
        out.write(directory.tobytes(offset))
        out.seek(places[ifd])
        # One entry of the main directory: tag, type LONG, count 1, value.
        out.write(struct.pack("<HHQQ" if big else "<HHII", int(ifd), 4, 1, offset))
