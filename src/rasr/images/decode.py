"""Reading: from a file's samples to a Picture in the working space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import PictureError
from rasr.images import colour, metadata
from rasr.images.colour import Space
from rasr.images.header import Opened, Source, open_header, parsing, quiet
from rasr.images.limits import Limits
from rasr.images.picture import Origin, Picture

__all__ = ["read_picture"]


@dataclass(slots=True)
class Samples:
    """Integer samples as stored: colour (H, W, 1|3|4) and alpha (H, W) of uint8 or uint16."""

    colour: NDArray[Any]
    alpha: NDArray[Any] | None
    space: Space


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
            # Pillow's TIFF reader turns the pixels upright by itself.
            turned = header.format == "TIFF" and header.bits == 8
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
    pixels, alpha, beyond = _to_working(samples, icc, 1 if turned else header.orientation, notes)
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
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float16] | None]:
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
    if opened.header.bits == 16:
        if opened.header.format == "PNG":
            return _split(_png16(opened))
        if opened.header.format == "TIFF":
            return _tiff16(opened)
        return _heif16(opened)
    return _samples8(opened.image, opened.name)


def _samples8(image: Image.Image, name: str) -> Samples:
    """Everything of 8 bits or fewer, through Pillow."""
    image.load()
    if image.mode in {"RGBa", "La"}:  # premultiplied
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    elif image.mode in {"P", "PA", "1", "L", "RGB"} and image.has_transparency_data:
        image = image.convert("LA" if image.mode in {"1", "L"} else "RGBA")
    elif image.mode in {"P", "RGBX", "YCbCr", "HSV"}:
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # noqa: S101  only None for inPlace
        image = converted
    if image.mode == "CMYK":
        return Samples(np.asarray(image), None, "cmyk")
    if image.mode not in {"L", "LA", "RGB", "RGBA"}:
        what = {"F": "32-bit float", "I": "32-bit integer"}.get(image.mode, image.mode)
        raise PictureError(f"{name}: {what} samples are not read; save the picture with 8 or 16 bits.")
    return _split(np.asarray(image))


def _png16(opened: Opened) -> NDArray[np.uint16]:
    """A 16-bit PNG through libpng, since Pillow cuts colour to 8 bits."""
    import imagecodecs

    opened.image.load()  # for the chunks behind the pixels, and for the same verdict on truncation
    opened.file.seek(0)
    array: NDArray[np.uint16] = imagecodecs.png_decode(opened.file.read())
    _expect(array.dtype == np.uint16 and array.shape[1::-1] == opened.image.size)
    return array


def _tiff16(opened: Opened) -> Samples:
    """A 16-bit TIFF through tifffile, which leaves photometric meaning and alpha to us."""
    import tifffile

    opened.file.seek(0)
    with tifffile.TiffFile(opened.file) as file:
        page = file.pages.first
        stored = (page.imagewidth, page.imagelength)
        _expect(sorted(stored) == sorted(opened.image.size) and page.samplesperpixel <= 5)
        _expect(page.size == stored[0] * stored[1] * page.samplesperpixel)  # no volumes
        if page.dtype != np.uint16 or page.bitspersample != 16:
            raise PictureError(f"{opened.name}: {page.dtype} samples are not read; save it with 8 or 16 bits.")
        array = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and array.ndim == 3:
            array = np.moveaxis(array, 0, -1)
        photometric, extra = page.photometric, tuple(page.extrasamples)
    if array.ndim == 2:
        array = array[:, :, None]
    kinds: dict[int, tuple[Space, int]] = {0: ("gray", 1), 1: ("gray", 1), 2: ("rgb", 3), 5: ("cmyk", 4)}
    if int(photometric) not in kinds:
        raise PictureError(
            f"{opened.name}: 16-bit TIFF with photometric {int(photometric)} is not read; save it as RGB."
        )
    space, channels = kinds[int(photometric)]
    _expect(array.shape[1::-1] == stored and array.shape[2] >= channels)
    colours = array[:, :, :channels]
    if int(photometric) == 0:  # white is zero
        colours = 65535 - colours
    alpha = array[:, :, channels] if extra and int(extra[0]) in {1, 2} else None
    if alpha is not None and int(extra[0]) == 1:  # premultiplied
        whole = np.maximum(alpha, 1)[:, :, None]
        colours = np.minimum(colours.astype(np.uint32) * 65535 // whole, 65535).astype(np.uint16)
    return Samples(colours, alpha, space)


def _heif16(opened: Opened) -> Samples:
    """HEIC of 10 or 12 bits, scaled to 16 by libheif's wrapper."""
    import pillow_heif

    opened.file.seek(0)
    file = pillow_heif.open_heif(opened.file, convert_hdr_to_8bit=False, hdr_to_16bit=True)
    array = np.asarray(file[file.primary_index])
    _expect(array.dtype == np.uint16 and array.shape[1::-1] == opened.image.size)
    return _split(array)


def _split(array: NDArray[Any]) -> Samples:
    """Separate gray or RGB from alpha by the number of channels."""
    if array.ndim == 2:
        array = array[:, :, None]
    channels = array.shape[2]
    alpha = array[:, :, -1] if channels in {2, 4} else None
    gray = channels < 3
    return Samples(array[:, :, : 1 if gray else 3], alpha, "gray" if gray else "rgb")


def _expect(consistent: bool) -> None:
    if not consistent:
        raise ValueError("header and content disagree")
