"""The picture every room works on: float32 sRGB pixels, and what is needed to save them as they came."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["FloatImage", "Origin", "Picture"]

FloatImage = NDArray[np.float32]
"""An array of shape (H, W, 3), RGB order, float32 in [0, 1], sRGB-encoded (not linear light)."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the file was, so that a result can be saved in the same colour space, depth and with the same metadata."""

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

    def with_pixels(self, pixels: FloatImage, alpha: NDArray[np.float32] | None = None) -> Picture:
        """The same picture (origin, path, notes) with other pixels, for example after restoration."""
        return replace(self, pixels=pixels, alpha=alpha)
