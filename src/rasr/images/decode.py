"""Reading: from a file's samples to a Picture in the working space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rasr.images import colour, metadata
from rasr.images.header import Opened, Source, open_header, parsing, quiet
from rasr.images.limits import Limits
from rasr.images.picture import Origin, Picture
from rasr.images.plugins import TiffFile
from rasr.images.samples import Samples, heif16, pillow8, png16
from rasr.images.tiff import plain_tiff, read_tiff

__all__ = ["read_picture"]


def read_picture(source: Source, *, limits: Limits | None = None) -> Picture:
    """Read a picture from a path, or from a file's content as bytes.

    JPEG, PNG, WebP, TIFF and (with the extra ``heic``) HEIC are recognised by content. The result is upright, converted
    from its ICC profile to sRGB, with 16-bit samples kept and alpha apart; of several frames the first is read, with a
    note. ``limits`` (:meth:`Limits.from_memory` by default) are checked on the header before anything is decoded.
    Raises PictureError for what is missing, empty, damaged or truncated, UnsupportedFormat, PictureTooLarge, and
    ExtraMissing for HEIC without its package.
    """
    limits = limits or Limits.from_memory()
    with open_header(source, limits) as opened:
        header, image = opened.header, opened.image
        icc = None if image.mode == "LAB" else image.info.get("icc_profile") or None
        with parsing(opened.name):
            samples = _samples(opened)
        with quiet():  # after the pixels: PNG may keep text and EXIF behind them
            exif, broken = metadata.clean_exif(image)
            xmp, iptc = metadata.read_xmp(image), metadata.read_iptc(image)
            adobe = icc is None and samples.space == "rgb" and metadata.dcf_adobe_rgb(image)
        notes = [broken] if broken else []
        if header.frames > 1:
            notes.append(f"first of {header.frames} {'pages' if header.format == 'TIFF' else 'frames'}")
        if adobe:
            icc = colour.adobe_rgb()
            notes.append("tagged as Adobe RGB by the camera (DCF), without a profile")
        if icc is not None and (problem := colour.usable_profile(icc, samples.space)):
            notes.append(f"the colour profile {problem}; it was ignored")
            icc = None
    pixels, alpha, beyond = _to_working(samples, icc, 1 if samples.upright else header.orientation, notes)
    origin = Origin(
        format=header.format,
        bits=header.bits,
        gray=samples.space == "gray",
        icc=None if samples.space == "cmyk" else icc,
        exif=exif,
        xmp=xmp,
        iptc=iptc,
    )
    path = None if isinstance(source, bytes) else Path(source)
    return Picture(pixels, alpha, origin, path, tuple(notes), beyond)


def _to_working(
    samples: Samples, icc: bytes | None, orientation: int, notes: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]:
    ink = samples.space == "cmyk"
    if ink:
        how = "by its profile" if icc else "without a profile, so colours are approximate"
        notes.append(f"converted from CMYK {how}; results are saved as sRGB")
        if icc is None:  # the plain rule, as Pillow has it: (1 − ink)(1 − black)
            paper = (255 - samples.colour.astype(np.uint16)) * np.uint16(257)
            product = paper[:, :, :3].astype(np.uint32) * paper[:, :, 3:] // 65535
            samples = Samples(product.astype(np.uint16), samples.alpha, "rgb")
    stored = np.ascontiguousarray(metadata.upright(samples.colour, orientation))
    pixels, beyond = colour.to_srgb(stored, samples.space, icc)
    alpha = None
    if samples.alpha is not None:
        whole = np.iinfo(samples.alpha.dtype).max
        alpha = np.ascontiguousarray(metadata.upright(samples.alpha, orientation)).astype(np.float32)
        alpha *= np.float32(1 / whole)
    return pixels, alpha, None if ink else beyond


def _samples(opened: Opened) -> Samples:
    image, file, header = opened.image, opened.file, opened.header
    if isinstance(image, TiffFile) and (header.bits == 16 or plain_tiff(image)):
        return read_tiff(image, file, opened.name)
    if header.bits == 8:
        return pillow8(image, opened.name)
    return png16(image, file) if header.format == "PNG" else heif16(image, file)
