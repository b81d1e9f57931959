"""Decoding: from a file's samples to a Picture in the working space."""

from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from rasr.errors import PictureError
from rasr.images import colour, metadata
from rasr.images.colour import Samples
from rasr.images.header import ImageSource, Limits, Opened, expect, open_header, parsing, quiet
from rasr.images.picture import Origin, Picture, from_levels
from rasr.images.plugins import TiffFile
from rasr.images.tiff import plain_tiff, read_tiff


def read_picture(source: ImageSource, *, limits: Limits | None = None) -> Picture:
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
    stored = np.ascontiguousarray(_upright(samples.colour, orientation))
    # Without a profile, gray and RGB are taken as sRGB.
    pixels, beyond = (from_levels(stored), None) if icc is None else colour.to_srgb(stored, samples.space, icc)
    alpha = None
    if samples.alpha is not None:
        whole = np.iinfo(samples.alpha.dtype).max
        alpha = np.ascontiguousarray(_upright(samples.alpha, orientation)).astype(np.float32)
        alpha *= np.float32(1 / whole)
    return pixels, alpha, None if ink else beyond


def _samples(opened: Opened) -> Samples:
    image, file, header = opened.image, opened.file, opened.header
    if isinstance(image, TiffFile) and (header.bits == 16 or plain_tiff(image)):
        return read_tiff(image, file, opened.name)
    if header.bits == 8:
        return _pillow8(image, opened.name)
    return _png16(image, file) if header.format == "PNG" else _heif16(image, file)


def _pillow8(image: ImageFile, name: str) -> Samples:
    """Decode everything of 8 bits or fewer, whatever its mode, through Pillow."""
    image.load()
    upright = isinstance(image, TiffFile)  # Pillow turns TIFF, and only TIFF, while loading
    plain: Image.Image = image
    if image.mode in {"P", "PA", "1", "L", "RGB"} and image.has_transparency_data:
        plain = image.convert("LA" if image.mode in {"1", "L"} else "RGBA")
    elif image.mode in {"P", "YCbCr"}:
        plain = image.convert("RGB")
    elif image.mode == "1":
        plain = image.convert("L")
    elif image.mode == "LAB":
        plain = _from_lab(image)
    if plain.mode == "CMYK":
        return Samples(np.asarray(plain), None, "cmyk", upright)
    if plain.mode not in {"L", "LA", "RGB", "RGBA"}:
        raise PictureError(f"{name}: {plain.mode} samples are not read; save it as RGB with 8 or 16 bits.")
    samples = _split(np.asarray(plain))
    samples.upright = upright
    return samples


def _png16(image: ImageFile, file: BinaryIO) -> Samples:
    """Decode a 16-bit PNG through libpng, since Pillow cuts colour to 8 bits."""
    import imagecodecs

    image.load()  # for the chunks behind the pixels, and for the same verdict on truncation
    file.seek(0)
    array = imagecodecs.png_decode(file.read())
    expect(array.dtype == np.uint16 and array.shape[1::-1] == image.size)
    return _split(array)


def _heif16(image: ImageFile, file: BinaryIO) -> Samples:
    """Decode a HEIC of 10 or 12 bits; libheif's wrapper scales it to 16 and turns it upright."""
    import pillow_heif

    file.seek(0)
    heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=True)
    array = np.asarray(heif[heif.primary_index])
    expect(array.dtype == np.uint16 and array.shape[1::-1] == image.size)
    return _split(array)


def _split(array: NDArray[Any]) -> Samples:
    """Separate gray or RGB from alpha by the number of channels."""
    if array.ndim == 2:
        array = array[:, :, None]
    channels = array.shape[2]
    gray = channels < 3
    alpha = array[:, :, -1] if channels in {2, 4} else None
    return Samples(array[:, :, : 1 if gray else 3], alpha, "gray" if gray else "rgb")


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return cast(Image.Image, ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn (H, W, ...) pixels stored with EXIF orientation 1 to 8 upright (a view)."""
    if orientation >= 5:
        array = np.swapaxes(array, 0, 1)
    if orientation in {2, 3, 6, 7}:
        array = array[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        array = array[::-1]
    return array
