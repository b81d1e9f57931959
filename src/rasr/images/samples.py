"""From a file to integer samples: 8 bits through Pillow, 16 through the libraries that keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from rasr.errors import PictureError
from rasr.images.colour import Space
from rasr.images.plugins import TiffFile

__all__ = ["Samples", "expect", "heif16", "pillow8", "png16"]


@dataclass(slots=True)
class Samples:
    """Integer samples as stored: colour (H, W, 1|3|4) and alpha (H, W), uint8 or uint16, not premultiplied."""

    colour: NDArray[Any]
    alpha: NDArray[Any] | None
    space: Space
    upright: bool = False
    """True when the reader has applied the orientation already."""


def pillow8(image: ImageFile, name: str) -> Samples:
    """Everything of 8 bits or fewer, whatever its mode, through Pillow."""
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


def png16(image: ImageFile, file: BinaryIO) -> Samples:
    """A 16-bit PNG through libpng, since Pillow cuts colour to 8 bits."""
    import imagecodecs

    image.load()  # for the chunks behind the pixels, and for the same verdict on truncation
    file.seek(0)
    array = imagecodecs.png_decode(file.read())
    expect(array.dtype == np.uint16 and array.shape[1::-1] == image.size)
    return _split(array)


def heif16(image: ImageFile, file: BinaryIO) -> Samples:
    """HEIC of 10 or 12 bits, scaled to 16 by libheif's wrapper, which also turns it upright."""
    import pillow_heif

    file.seek(0)
    heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=True)
    array = np.asarray(heif[heif.primary_index])
    expect(array.dtype == np.uint16 and array.shape[1::-1] == image.size)
    return _split(array)


def expect(consistent: bool) -> None:
    """Raise ValueError when two parts of a file contradict each other."""
    if not consistent:
        raise ValueError("header and content disagree")


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
