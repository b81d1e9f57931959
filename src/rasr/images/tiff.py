"""Writing TIFF with tifffile: 8 or 16 bits, deflate with predictor, and the metadata directories it does not write."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

__all__ = ["encode_tiff"]

Base = ExifTags.Base
IFD = ExifTags.IFD

_XMP, _IPTC = 700, 33723


def encode_tiff(
    samples: NDArray[Any], *, icc: bytes | None, exif: bytes | None, xmp: bytes | None, iptc: bytes | None
) -> bytes:
    """A TIFF file of samples (H, W, 1..4), uint8 or uint16; two or four channels mean that the last is alpha.

    tifffile writes the picture and the main directory. It has no way to write the Exif and GPS directories, so these
    are serialised by Pillow, appended, and their pointers filled in.
    """
    import tifffile

    channels = samples.shape[2]
    tags: list[tuple[int, int | str, int, Any, bool]] = []
    details: dict[int, dict[int, Any]] = {}
    resolution, unit = None, None
    if exif:
        block = Image.Exif()
        block.load(exif)
        if block.get(Base.XResolution) and block.get(Base.YResolution):
            resolution = (float(block[Base.XResolution]), float(block[Base.YResolution]))
            unit = block.get(Base.ResolutionUnit)
        tags += _main_tags(block)
        details = {ifd: dict(block.get_ifd(ifd)) for ifd in (IFD.Exif, IFD.GPSInfo) if block.get_ifd(ifd)}
        if interop := block.get_ifd(IFD.Interop) if IFD.Exif in details else None:
            details[IFD.Exif][IFD.Interop] = dict(interop)
        tags += [(int(ifd) - 1, "I", 1, 0, True) for ifd in details]  # tifffile refuses to write these two themselves
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


def _main_tags(block: Image.Exif) -> list[tuple[int, int | str, int, Any, bool]]:
    """The descriptive tags of the main directory in tifffile's form (code, type, count, value, first page only)."""
    directory = ImageFileDirectory_v2()
    tags: list[tuple[int, int | str, int, Any, bool]] = []
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
        elif kind in {5, 10}:
            flat = tuple(part for number in values for part in (number.numerator, number.denominator))
            tags.append((tag, kind, len(values), flat, True))
        else:
            tags.append((tag, kind, len(values), values if len(values) > 1 else values[0], True))
    return tags


def _append_directories(out: io.BytesIO, details: dict[int, dict[int, Any]]) -> None:
    """Put each directory at the end of the file, and turn its placeholder (the code below it, unused) into its tag."""
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
