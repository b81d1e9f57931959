"""ICC profiles to the working space (sRGB) and back, by Little CMS through imagecodecs.

Relative colorimetric with black point compensation, the photo editors' default: unlike the perceptual intent it is
invertible inside the gamut, so a colour that goes to sRGB and back is the colour that came. What an 8-bit file holds is
converted through 16-bit tables (right to a third of an 8-bit level); 16-bit files and everything that is saved go
through lcms in float. Colours outside sRGB (Display P3, Adobe RGB) are not lost: what the working range [0, 1] cuts off
is kept beside the pixels and added again before converting back.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rasr.errors import PictureError
from rasr.images.picture import from_levels
from rasr.images.plugins import printable

Space = Literal["gray", "rgb", "cmyk"]

_IN_HEADER: dict[Space, tuple[bytes, int]] = {"gray": (b"GRAY", 1), "rgb": (b"RGB ", 3), "cmyk": (b"CMYK", 4)}
"""Colour space → its signature in an ICC header, and its channels."""

_D65 = (0.3127, 0.3290)
SRGB_POINTS = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""Chromaticities (x, y) of white, red, green and blue."""
ADOBE_RGB = ((*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 563 / 256)
"""Adobe RGB (1998): chromaticities and gamma."""

_PRIMARIES = {
    1: SRGB_POINTS,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""ITU-T H.273, table 2: code of the colour primaries → chromaticities."""
_GAMMAS = {1: None, 4: 2.2, 5: 2.8, 6: None, 8: 1.0, 13: None, 14: None, 15: None}
"""ITU-T H.273, table 3: code of the transfer characteristics → gamma; None for sRGB's curve, which still pictures have
where they say BT.709 or BT.2020 (those codes are a camera's curve, not a display's)."""
_HDR = {16: "PQ", 18: "HLG"}
UNSPECIFIED = 2

_STRIP = 1 << 20  # pixels converted at a time: bounds the float scratch at a few tens of MB


@dataclass(slots=True)
class Samples:
    """Integer samples as stored (8 or 16 bits): colour (H, W, 1|3|4), plain alpha (H, W)."""

    colour: NDArray[Any]
    alpha: NDArray[Any] | None
    space: Space
    upright: bool = False
    """True when the reader has applied the orientation already."""


def usable_profile(icc: bytes, space: Space) -> str | None:
    """Return why a profile must be ignored; None when it fits the space and lcms accepts it."""
    signature, channels = _IN_HEADER[space]
    if icc[16:20] != signature:
        other = printable(icc[16:20].decode("ascii", "replace").strip())
        return f"is for {other or 'nothing'} pixels, the picture is {space}"
    try:
        _lcms(np.zeros((1, 1, channels), np.uint8), icc, _srgb(), space, "rgb", np.float32)
    except (RuntimeError, ValueError) as error:
        return f"is damaged ({error})"
    return None


def to_srgb(
    samples: NDArray[np.uint8] | NDArray[np.uint16], space: Space, icc: bytes
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Convert integer samples (H, W, C) of a usable profile to pixels (H, W, 3) float32 in [0, 1], sRGB-encoded.

    Also returns what lies beyond [0, 1] (extended sRGB minus pixels), or None when nothing does.
    """
    height, width = samples.shape[:2]
    if space == "rgb" and _is_srgb(icc):
        return from_levels(samples), None
    if space == "gray":  # one channel: a table of all values is exact and fast
        levels = np.arange(np.iinfo(samples.dtype).max + 1, dtype=samples.dtype)[:, None]
        table = _lcms(levels, icc, _srgb(), "gray", "rgb", np.float32).reshape(-1, 3)
        return np.clip(table.mean(axis=1, keepdims=True), 0, 1).repeat(3, axis=1)[samples[:, :, 0]], None
    pixels = np.empty((height, width, 3), np.float32)
    beyond: NDArray[np.float32] | None = None
    for rows in _strips(height, width):
        extended = _mirrored(_extended(samples[rows], space, icc))
        np.clip(extended, 0, 1, out=pixels[rows])
        extended -= pixels[rows]
        if extended.any():
            if beyond is None:
                beyond = np.zeros((height, width, 3), np.float32)
            beyond[rows] = extended
    return pixels, beyond


def from_srgb(strip: NDArray[np.float32], space: Space, icc: bytes | None) -> NDArray[np.float32]:
    """Convert extended sRGB (H, W, 3) to a profile's encoding (H, W, 3) or (H, W, 1), unclipped.

    Extended sRGB is mirrored below 0. Gray is taken from RGB with the BT.709 weights; for a gray picture, whose
    channels are equal, any weights would do.
    """
    if space == "gray":
        gray = strip @ np.array([0.2126, 0.7152, 0.0722], np.float32)
        if icc is None:
            return gray[:, :, None]
        return _gray_table(icc)[np.rint(np.clip(gray, 0, 1) * 65535).astype(np.uint16)][:, :, None]
    if icc is None or _is_srgb(icc):
        return strip
    return _lcms(_as_lcms_extends(strip), _srgb(), icc, "rgb", "rgb", np.float32)


@lru_cache(maxsize=16)
def _is_srgb(icc: bytes) -> bool:
    """Tell whether an RGB profile equals sRGB, to half an 8-bit level on a 9×9×9 grid."""
    axis = np.linspace(0, 1, 9, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(1, -1, 3)
    return bool(np.abs(_lcms(grid, icc, _srgb(), "rgb", "rgb", np.float32) - grid).max() < 0.5 / 255)


@lru_cache(maxsize=1)
def _srgb() -> bytes:
    """Make an sRGB profile (IEC 61966-2-1) with lcms."""
    import imagecodecs

    return bytes(imagecodecs.cms_profile("srgb"))


@lru_cache(maxsize=16)
def make_profile(space: Space, points: tuple[float, ...], gamma: float | tuple[int, ...] | None) -> bytes | None:
    """Make an ICC profile from chromaticities (:data:`SRGB_POINTS`) and a gamma, None for sRGB's curve.

    Instead of a gamma there may be a table from all values to linear light (0 to 65535). Returns None when that is sRGB
    itself, and for CMYK. Raises ValueError for impossible chromaticities.
    """
    import imagecodecs

    if space == "cmyk" or (space == "gray" and gamma is None):
        return None
    table = None
    if isinstance(gamma, tuple):
        values = np.linspace(0, len(gamma) - 1, min(4096, len(gamma)))  # lcms takes no more than 65 530
        table, gamma = np.rint(np.interp(values, np.arange(len(gamma)), gamma)).astype(np.uint16), None
    elif gamma is None:
        value = np.linspace(0, 1, 1024)
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        table = np.rint(linear * 65535).astype(np.uint16)
    try:
        made = imagecodecs.cms_profile(
            space,
            whitepoint=[*points[:2], 1],
            primaries=[*points[2:4], 1, *points[4:6], 1, *points[6:8], 1] if space == "rgb" else None,
            transferfunction=table,
            gamma=gamma,
        )
        # lcms dates it: the same picture shall give the same bytes tomorrow.
        icc = bytes(made[:24]) + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + bytes(made[36:])
        white = _lcms(
            np.full((1, 1, 3 if space == "rgb" else 1), 255, np.uint8), icc, _srgb(), space, "rgb", np.float32
        )
        if not (np.abs(white - 1) < 0.01).all():
            raise ValueError("its white is none")
        return None if space == "rgb" and _is_srgb(icc) else icc
    except (RuntimeError, ZeroDivisionError) as error:
        raise ValueError(str(error)) from error


def coded_profile(primaries: int, transfer: int, space: Space, name: str) -> tuple[bytes | None, str | None]:
    """Return a profile for the codes of ITU-T H.273 (None for sRGB), or a note why they are ignored.

    Raises PictureError for HDR.
    """
    refuse_hdr(transfer, name)
    if UNSPECIFIED in {primaries, transfer}:
        return None, None
    if primaries not in _PRIMARIES or transfer not in _GAMMAS:
        return None, f"colour codes {primaries} and {transfer} (ITU-T H.273) are not known and were ignored"
    return make_profile(space, _PRIMARIES[primaries], _GAMMAS[transfer]), None


def refuse_hdr(description: int | bytes, name: str) -> None:
    """Raise PictureError when a transfer code, or a profile that holds one (ICC.1:2022, 9.2.17), is of an HDR system.

    Its values mean light that no standard picture shows: taken as sRGB, or through the profile, they come out flat.
    """
    if isinstance(description, bytes):
        place = description.find(b"cicp\0\0\0\0")
        description = description[place + 9] if 0 <= place < len(description) - 9 else 0
    if description in _HDR:
        raise PictureError(
            f"{name}: this is an HDR picture ({_HDR[description]}), which is not read. Convert it to standard range "
            "(SDR) with the program that made it."
        )


def _mirrored(extended: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move negative values from lcms's straight sRGB curve to the mirrored curve, in place.

    The mirrored curve is how CSS Color 4 extends sRGB. The straight one is so steep (Display P3's green is −2.9 in red
    there, −0.51 here) that resizing would draw black lines where saturated colours meet.
    """
    below = extended < -0.04045
    linear = extended[below] / np.float32(-12.92)
    extended[below] = 0.055 - 1.055 * linear ** np.float32(1 / 2.4)
    return extended


def _as_lcms_extends(mirrored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Invert :func:`_mirrored`, on a copy where one is needed."""
    below = mirrored < -0.04045
    if not below.any():
        return mirrored
    straight = mirrored.copy()
    straight[below] = np.float32(-12.92) * ((0.055 - mirrored[below]) / np.float32(1.055)) ** np.float32(2.4)
    return straight


@lru_cache(maxsize=4)
def _gray_table(icc: bytes) -> NDArray[np.float32]:
    levels = np.linspace(0, 1, 65536, dtype=np.float32)[:, None, None].repeat(3, axis=2)
    return _lcms(levels, _srgb(), icc, "rgb", "gray", np.float32).reshape(-1)


def _extended(samples: NDArray[np.uint8] | NDArray[np.uint16], space: Space, icc: bytes) -> NDArray[np.float32]:
    """Convert samples to extended sRGB in float32."""
    if samples.dtype == np.uint16:
        return _lcms(samples, icc, _srgb(), space, "rgb", np.float32)
    tabled = _lcms(samples, icc, _srgb(), space, "rgb", np.uint16)
    extended = tabled * np.float32(1 / 65535)
    if space == "rgb":  # what the 16-bit range cut off, and only that, again in float (seventy times slower)
        cut = ((tabled == 0) | (tabled == 65535)).any(axis=2)
        if cut.any():
            extended[cut] = _lcms(samples[cut][None], icc, _srgb(), space, "rgb", np.float32)[0]
    return extended


def _lcms(
    data: NDArray[np.generic], icc: bytes, out: bytes, space: Space, out_space: Space, dtype: type[np.generic]
) -> NDArray[np.float32]:
    import imagecodecs

    result: NDArray[np.float32] = imagecodecs.cms_transform(
        np.ascontiguousarray(data),
        icc,
        out,
        colorspace=space,
        outcolorspace=out_space,
        outdtype=dtype,
        intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
        flags=imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION,
    )
    return result


def _strips(height: int, width: int) -> list[slice]:
    rows = max(1, _STRIP // max(1, width))
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
