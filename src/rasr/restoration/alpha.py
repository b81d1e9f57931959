"""Transparency: what lies under it must not colour the visible pixels next to it, and it grows with the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage, resize

__all__ = ["bleed_colour", "resize_alpha"]

INVISIBLE = 0.5 / 255
"""Alpha below which a pixel's colour carries no information."""


def bleed_colour(pixels: FloatImage, alpha: NDArray[np.float32]) -> FloatImage:
    """Give every invisible pixel the colour of the nearest visible one, (H, W, 3) → (H, W, 3).

    Programs leave any colour, often black, where alpha is zero; a network or a filter would drag it into the visible
    edge. A picture with no visible pixel, or no invisible one, comes back as it is.
    """
    visible = alpha >= INVISIBLE
    if visible.all() or not visible.any():
        return pixels
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~visible, return_distances=False, return_indices=True)
    bled: FloatImage = pixels[nearest[0], nearest[1]]
    return bled


def resize_alpha(alpha: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Alpha (H, W) for a result of ``size`` (width, height): a constant stays that constant, else Lanczos, clipped."""
    if alpha.min() == alpha.max():
        return np.full((size[1], size[0]), alpha.flat[0], np.float32)
    resized = resize(alpha, size, filter="lanczos")
    return np.clip(resized, 0.0, 1.0, out=resized)
