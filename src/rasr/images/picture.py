"""Picture: float32 sRGB pixels, the origin that saves them as they came, and resampling."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatImage = NDArray[np.float32]
"""An array of shape (H, W, 3), RGB order, float32 in [0, 1], sRGB-encoded (not linear light)."""

Density = tuple[float, float, str]
"""Pixels per unit across and down, and the unit: "inch", "cm", "m", or "" where only their ratio is known."""

Metadata = Literal["keep", "no-location", "strip"]
"""What of a file's metadata a result has: all that holds for it, all but where the photo was taken, or nothing."""

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Properties of the file: what saves a result in its colour space, depth and metadata."""

    format: str = "PNG"
    """Pillow's name of the container: JPEG, PNG, WEBP, TIFF or HEIF."""
    bits: int = 8
    """Bits per channel of the file: 8 or 16."""
    gray: bool = False
    """True when the file had one colour channel; pixels are still (H, W, 3) with equal channels."""
    icc: bytes | None = None
    """Embedded ICC profile, or None for untagged files (taken as sRGB)."""
    exif: bytes | None = None
    """Raw EXIF block with the orientation tag reset to 1, or None."""
    xmp: bytes | None = None
    """Raw XMP packet, or None."""
    iptc: bytes | None = None
    """Raw IPTC-IIM records (captions and credits of press and museum photos), or None."""
    texts: tuple[bytes, ...] = ()
    """Comments of a JPEG, or text chunks of a PNG (type and content), as stored; only the same format can hold them."""
    density: Density | None = None
    """Density for print of the file; results keep it, so that a larger result prints larger."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture, upright, in the working colour space.

    ``pixels`` is (H, W, 3) float32 RGB in [0, 1], sRGB-encoded; ``alpha`` is (H, W) float32 in [0, 1] or None;
    pixels are not premultiplied.
    """

    pixels: FloatImage
    alpha: NDArray[np.float32] | None = None
    origin: Origin = field(default_factory=Origin)
    path: Path | None = None
    notes: tuple[str, ...] = ()
    """Things done while reading that a user should hear of, one sentence each ("first of 12 frames", ...)."""
    beyond: NDArray[np.float32] | None = None
    """Colours outside of sRGB: what clipping to [0, 1] cut off, (H, W, 3) at the file's own size, or None. Writing
    resizes it to the result and adds it before converting back to the file's own profile."""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != np.float32:
            raise ValueError(f"pixels must be (H, W, 3) float32, not {self.pixels.shape} {self.pixels.dtype}")
        if self.alpha is not None and self.alpha.shape != self.pixels.shape[:2]:
            raise ValueError(f"alpha {self.alpha.shape} does not match pixels {self.pixels.shape[:2]}")

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    def opaque(self, background: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> FloatImage:
        """Return the pixels as they show: laid on an sRGB background (white) where they are transparent.

        What programs leave under full transparency was never to be seen.
        """
        if self.alpha is None:
            return self.pixels
        cover = np.clip(self.alpha, 0, 1)[:, :, None]
        return self.pixels * cover + np.array(background, np.float32) * (1 - cover)

    def with_pixels(self, pixels: FloatImage, alpha: NDArray[np.float32] | None = None) -> Picture:
        """Return the same picture (origin, path, notes) with other pixels, as after restoration."""
        return replace(self, pixels=pixels, alpha=alpha)


def from_levels(samples: NDArray[np.uint8] | NDArray[np.uint16]) -> FloatImage:
    """Scale integer samples (H, W, 1 or 3) to pixels (H, W, 3) in [0, 1]."""
    pixels = np.empty((*samples.shape[:2], 3), np.float32)
    np.multiply(samples, np.float32(1 / np.iinfo(samples.dtype).max), out=pixels)  # gray broadcasts to three channels
    return pixels


def print_density(density: Density) -> Density:
    """Return the density with PNG's pixels per metre made per inch: 11811 a metre is 300 an inch."""
    across, down, unit = density
    return (round(across * 0.0254, 2), round(down * 0.0254, 2), "inch") if unit == "m" else density


def resize(
    pixels: NDArray[np.float32],
    size: tuple[int, int],
    *,
    filter: Filter = "bicubic",
    box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.float32]:
    """Resample (H, W, C) or (H, W) float32 to ``size`` = (width, height).

    ``box`` is the source rectangle (left, top, right, bottom) in pixels, fractions allowed; pixels outside of it still
    feed the filter, so strips cut with ``box`` join without a seam. When shrinking, the filter's support grows with the
    scale (antialiasing), as in MATLAB's ``imresize``; bicubic has a = −0.5 like it. Bicubic and lanczos overshoot at
    edges: the result is not clipped. Raises ValueError for an unknown filter or a size below 1.
    """
    if filter not in _FILTERS:
        raise ValueError(f"unknown filter {filter!r}; choose one of {', '.join(get_args(Filter))}")
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"cannot resize to {width}×{height}")
    if pixels.ndim == 2:
        return _plane(pixels, size, filter, box)
    if size == (pixels.shape[1], pixels.shape[0]) and box in {None, (0, 0, *size)}:
        return pixels.copy()
    out = np.empty((height, width, pixels.shape[2]), np.float32)
    for channel in range(pixels.shape[2]):  # one plane at a time keeps the peak at a third of a second copy
        out[:, :, channel] = _plane(pixels[:, :, channel], size, filter, box)
    return out


def _plane(
    plane: NDArray[np.float32], size: tuple[int, int], filter_: str, box: tuple[float, float, float, float] | None
) -> NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))  # float32 gives mode 'F'
    return np.array(image.resize(size, _FILTERS[filter_], box=box), np.float32)
