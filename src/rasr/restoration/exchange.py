"""Exchange with Python: Pillow images, arrays and bytes of files as Pictures, and a Picture as an image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import PictureError, UsageError
from rasr.images import Limits, Origin, Picture, read_picture

_ROUNDING = 1e-3
"""How far floats may lie beyond 0 and 1: what resampling and float16 leave there."""
_AS_PNG = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_AS_TIFF = {"CMYK", "LAB"}
_CONVERTED = {"PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}


def take_picture(given: Any, limits: Limits | None = None) -> Picture:
    """Make a Picture of what :class:`rasr.Restorer` takes: a path, a file's bytes, a Picture, an image or an array.

    A Pillow image counts with its ICC profile and EXIF, as if it had been saved losslessly and read. An array is RGB,
    sRGB-encoded: uint8 from 0 to 255 or float from 0 to 1, of shape (H, W, 3), (H, W, 4) with alpha last, or (H, W) for
    gray; it is copied. Raises PictureError for an image or array of another kind, UsageError for anything else, and
    what :func:`rasr.images.read_picture` raises.
    """
    if isinstance(given, Picture):
        return given
    if isinstance(given, str | Path | bytes):
        return read_picture(given, limits=limits)
    if isinstance(given, Image.Image):
        return read_picture(_as_file(given), limits=limits)
    if hasattr(given, "__array__"):
        return _from_array(np.asarray(given), limits or Limits.from_memory())
    raise UsageError(
        "A picture is a path, the bytes of a file, a rasr.images.Picture, a Pillow image or an array, "
        f"not {type(given).__name__}."
    )


def _as_file(image: Image.Image) -> bytes:
    """The image as a lossless file: one reader knows profiles, orientation, transparency and limits."""
    if image.mode in _CONVERTED:
        image = image.convert(_CONVERTED[image.mode])
    if image.mode not in _AS_PNG | _AS_TIFF:
        raise PictureError(
            f"Pillow images of mode '{image.mode}' have no stated range. Convert it first, or give an array of floats "
            "from 0 to 1."
        )
    stream = io.BytesIO()
    extra: dict[str, Any] = {"icc_profile": image.info["icc_profile"]} if image.info.get("icc_profile") else {}
    try:
        if exif := image.getexif():
            extra["exif"] = exif.tobytes()
        if image.mode in _AS_TIFF:
            image.save(stream, "TIFF", **extra)
        else:
            image.save(stream, "PNG", compress_level=1, **extra)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow decodes when asked for pixels
        raise PictureError(f"The Pillow image cannot be read ({error}).") from error
    return stream.getvalue()


def _from_array(array: NDArray[Any], limits: Limits) -> Picture:
    shape = "×".join(map(str, array.shape)) or "a single number"
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {3, 4}) or not array.size:
        hint = " Channels come last: transpose(1, 2, 0)." if array.ndim == 3 and array.shape[0] in {1, 3, 4} else ""
        hint = hint or (" Give one picture at a time." if array.ndim == 4 else "")
        raise PictureError(f"An array of shape {shape} is no picture: (H, W, 3), (H, W, 4) or (H, W) is taken.{hint}")
    limits.check(array.shape[1], array.shape[0], 1, "The array")
    if array.dtype == np.uint8:
        samples = array.astype(np.float32) / np.float32(255)
    elif array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise PictureError("The array has values that are not finite (NaN or infinity).")
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            hint = " Divide it by 255." if low >= -_ROUNDING and 1.5 < high <= 255 else ""
            raise PictureError(f"The array's floats must lie from 0 to 1; they lie from {low:g} to {high:g}.{hint}")
        samples = np.clip(array, 0.0, 1.0).astype(np.float32)
    else:
        raise PictureError(
            f"An array of {array.dtype} is not taken: uint8 from 0 to 255, or floats from 0 to 1 (divide by the "
            "largest value that it may hold)."
        )
    gray = samples.ndim == 2
    pixels = np.repeat(samples[:, :, None], 3, axis=2) if gray else np.ascontiguousarray(samples[:, :, :3])
    alpha = np.ascontiguousarray(samples[:, :, 3]) if not gray and samples.shape[2] == 4 else None
    return Picture(pixels, alpha, Origin(gray=gray))


def give_image(picture: Picture) -> Image.Image:
    """The picture for Pillow: sRGB, 8 bits, of mode RGB, RGBA, L or LA."""
    pixels = picture.pixels[:, :, :1] if picture.origin.gray else picture.pixels
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha[:, :, None]], axis=2)
    levels = np.rint(np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8)
    return Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)


def give_png(picture: Picture, side: int) -> bytes:
    """The picture as a PNG of at most ``side`` pixels a side, for a notebook."""
    image, stream = give_image(picture), io.BytesIO()
    image.thumbnail((side, side))
    image.save(stream, "PNG")
    return stream.getvalue()
